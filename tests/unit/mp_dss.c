/* Mappings, DATA_ACK, DATA_FIN, checksums (RFC 8684 3.3). */
#include "lab.h"

#include <errno.h>

TEST(data_is_mapped_with_64_bit_numbers)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_write(&l, 2500);
    mpc_setopt(l.c, MPC_NODELAY, 1, l.now);
    uint32_t at = 0, len[] = { 1000, 1000, 500 };
    for (int i = 0; i < 3; at += len[i++]) {
        struct got *g = lab_expect(&l, P0, MP_ACK, 1 + at, 1, len[i]);
        lab_expect_options(g, MP_DSS);
        CHECK(g->o.dss.has_ack && g->o.dss.has_map && g->o.dss.dsn64 && !g->o.dss.has_csum && !g->o.dss.data_fin);
        CHECK_EQ(g->o.dss.dsn, l.idsn_engine + 1 + at);
        CHECK_EQ(g->o.dss.ssn, 1 + at);
        CHECK_EQ(g->o.dss.len, len[i]);
        CHECK(lab_payload_is(g, at));
    }
    lab_ack_mp(&l, P0, 1, 2501, 2500);
    CHECK(mpc_send_done(l.c));
    lab_end(&l);
}

/* A server whose client has asked for something and has joined, and has sent no DATA_ACK yet. */
static void joined_before_a_data_ack(struct lab *l)
{
    lab_server_unconfirmed(l);
    struct mp_opts o = lab_map(l, 0, 1, 100, false);
    o.dss.has_ack = false; /* a request, with the keys: so Linux sends it */
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = o });
    lab_forget(l);
    struct peer *p = lab_syn(l, 2, 5002, lab_join_syn(l));
    lab_expect(l, p, MP_SYN | MP_ACK, 0, 1, 0);
    lab_wait(l, LAB_RTT);
    lab_send(l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(l, p) });
}

TEST(the_first_flight_keeps_to_one_subflow) /* Linux drops what comes out of order before it has sent its first DATA_ACK */
{
    struct lab l = { 0 };
    joined_before_a_data_ack(&l);
    lab_forget(&l);
    lab_write(&l, 100000);
    lab_pump(&l);
    while (l.qi < l.qn && !l.q[l.qi].len) l.qi++;
    CHECK(l.qi < l.qn);
    struct peer *first = l.q[l.qi].p;
    uint32_t sent = 0;
    for (; l.qi < l.qn; l.qi++) {
        CHECK(!l.q[l.qi].len || l.q[l.qi].p == first);
        sent += l.q[l.qi].len;
    }
    lab_wait(&l, LAB_RTT);
    lab_ack_mp(&l, first, first == P0 ? 101 : 1, 1 + sent, 0); /* it acknowledges none of it, but tells the window */
    lab_pump(&l);
    bool other = false;
    for (; l.qi < l.qn; l.qi++) other |= l.q[l.qi].len && l.q[l.qi].p != first;
    CHECK(other);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_window_that_was_not_told_is_asked_for) /* so that the first flight need not keep to one subflow */
{
    struct lab l = { 0 };
    joined_before_a_data_ack(&l);
    bool asked = false;
    for (lab_pump(&l); l.qi < l.qn; l.qi++) asked |= l.q[l.qi].p == P0 && l.q[l.qi].seq == 0 && !l.q[l.qi].len;
    CHECK(asked); /* below the window */
    lab_ack_mp(&l, P0, 101, 1, 0);
    lab_write(&l, 100000);
    bool carries[2] = { false, false };
    for (lab_pump(&l); l.qi < l.qn; l.qi++)
        if (l.q[l.qi].len) carries[l.q[l.qi].p != P0] = true;
    CHECK(carries[0] && carries[1]);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_retransmission_repeats_its_mapping)
{
    struct lab l = { .csum = true };
    lab_server(&l);
    lab_write(&l, 1000);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
    struct mp_opt_dss first = g->o.dss;
    lab_wait(&l, MP_MS(250));
    g = lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
    CHECK(g->o.dss.has_map && g->o.dss.dsn == first.dsn && g->o.dss.ssn == first.ssn && g->o.dss.len == first.len && g->o.dss.csum == first.csum);
    lab_forget(&l);
    lab_end(&l);
}

TEST(short_numbers_are_expanded) /* 3.3.1: 32-bit DSN and DATA_ACK */
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_write(&l, 100);
    lab_expect(&l, P0, MP_ACK, 1, 1, 100);
    l.dack = 100;
    struct mp_opts o = lab_map(&l, 0, 1, 200, false);
    o.dss.dsn64 = o.dss.ack64 = false;
    o.dss.dsn &= 0xffffffff;
    o.dss.data_ack &= 0xffffffff;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 101, .len = 200, .o = o });
    lab_expect(&l, P0, MP_ACK, 101, 201, 0);
    CHECK_EQ(lab_read(&l), 200);
    CHECK(mpc_send_done(l.c));
    lab_end(&l);
}

TEST(one_mapping_may_cover_several_segments)
{
    struct lab l = { 0 };
    lab_server(&l);
    struct mp_opts o = lab_map(&l, 0, 1, 3000, false);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 1000, .o = o });
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1001, 0);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 1001); /* without checksum bytes need not wait */
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1001, .ack = 1, .off = 1000, .len = 1000, .o = lab_dack(&l) });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 2001, .ack = 1, .off = 2000, .len = 1000, .o = o });
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 3000);
    lab_expect_counter(&l, map_missing, 0);
    lab_expect_counter(&l, map_conflict, 0);
    lab_end(&l);
}

TEST(a_mapping_may_come_with_a_later_segment_of_a_run) /* several mappings in one received super-segment */
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1001, .ack = 1, .off = 1000, .len = 1000, .o = lab_map(&l, 1000, 1001, 1000, false) });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 2001, .ack = 1, .off = 2000, .len = 1000, .o = lab_map(&l, 2000, 2001, 1000, false) });
    CHECK_EQ(lab_read(&l), 0);
    lab_data(&l, P0, 1, 1, 0, 1000);
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 3000);
    lab_end(&l);
}

TEST(a_contradicting_mapping_is_not_used) /* 3.3.1: the first stands until it is consumed */
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 500, .o = lab_map(&l, 0, 1, 1000, false) });
    struct mp_opts o = lab_map(&l, 7000, 501, 500, false);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 501, .ack = 1, .off = 500, .len = 500, .o = o });
    lab_forget(&l);
    lab_expect_counter(&l, map_conflict, 1);
    CHECK_EQ(lab_read(&l), 1000);
    lab_end(&l);
}

TEST(data_received_twice_at_connection_level_is_given_once)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_data(&l, P0, 1, 1, 0, 1000);
    lab_data(&l, P0, 1001, 1, 500, 1000); /* half of it is old, RFC 8684 3.3.6 */
    lab_data(&l, P0, 2001, 1, 0, 1000);   /* all of it */
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 1500);
    lab_expect_counter(&l, dup_conn, 1000);
    lab_end(&l);
}

TEST(data_out_of_order_at_connection_level_waits)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_data(&l, P0, 1, 1, 1000, 1000);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1001, 0);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 1);
    CHECK_EQ(lab_read(&l), 0);
    lab_data(&l, P0, 1001, 1, 0, 1000);
    g = lab_expect(&l, P0, MP_ACK, 1, 2001, 0);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 1 + 2000);
    CHECK_EQ(lab_read(&l), 2000);
    lab_end(&l);
}

TEST(a_data_ack_of_what_was_not_sent_is_ignored)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_write(&l, 100);
    lab_expect(&l, P0, MP_ACK, 1, 1, 100);
    lab_ack_mp(&l, P0, 1, 101, 5000);
    lab_expect_counter(&l, data_ack_unsent, 1);
    CHECK(!mpc_send_done(l.c));
    lab_ack_mp(&l, P0, 1, 101, 100);
    CHECK(mpc_send_done(l.c));
    lab_end(&l);
}

TEST(what_the_subflow_acked_but_not_the_connection_is_sent_again) /* 3.3.6 */
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_write(&l, 1000);
    lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
    lab_wait(&l, LAB_RTT);
    lab_join(&l, 2); /* with one subflow the peer might fall back, and take it for new: mp_fallback.c */
    lab_ack_mp(&l, P0, 1, 1001, 0);
    lab_wait(&l, MP_SEC(10));
    bool again = false;
    for (; l.qi < l.qn; l.qi++) again |= l.q[l.qi].len && l.q[l.qi].o.dss.dsn == l.idsn_engine + 1 && (l.q[l.qi].p != P0 || l.q[l.qi].seq >= 1001);
    CHECK(again);
    CHECK(mp_stack_counter(l.st, MP_E_conn_rexmit) > 0);
    lab_end(&l);
}

/* ---- DATA_FIN ---- */

TEST(a_data_fin_rides_on_the_last_data)
{
    struct lab l = { 0 };
    lab_server(&l);
    l.blocked = true;
    lab_write(&l, 100);
    mpc_shutdown(l.c, l.now);
    l.blocked = false;
    mp_stack_writable(l.st, NULL);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 100);
    CHECK(g->o.dss.data_fin);
    CHECK_EQ(g->o.dss.len, 101);
    lab_ack_mp(&l, P0, 1, 101, 101);
    CHECK(mpc_send_done(l.c));
    lab_end(&l);
}

TEST(a_bare_data_fin_has_ssn_0_and_length_1)
{
    struct lab l = { .csum = true };
    lab_server(&l);
    mpc_shutdown(l.c, l.now);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    CHECK(g->o.dss.data_fin && g->o.dss.has_map && g->o.dss.has_csum);
    CHECK_EQ(g->o.dss.ssn, 0);
    CHECK_EQ(g->o.dss.len, 1);
    CHECK_EQ(g->o.dss.dsn, l.idsn_engine + 1);
    lab_expect_nothing(&l); /* no FIN before its DATA_ACK, 3.3.3 */
    lab_wait(&l, MP_MS(500));
    g = lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    CHECK(g->o.dss.data_fin);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_data_fin_in_ends_the_stream_where_it_says)
{
    struct lab l = { 0 };
    lab_server(&l);
    struct mp_opts o = lab_map(&l, 100, 0, 0, true); /* before the data it follows */
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_forget(&l);
    CHECK(!mpc_eof(l.c));
    lab_data(&l, P0, 1, 1, 0, 100);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 101, 0);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 1 + 101); /* DATA_FIN takes one */
    CHECK_EQ(lab_read(&l), 100);
    CHECK(mpc_eof(l.c));
    lab_end(&l);
}

TEST(a_data_fin_with_data)
{
    struct lab l = { .csum = true };
    lab_server(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = lab_map(&l, 0, 1, 100, true) });
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 101, 0);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 1 + 101);
    CHECK_EQ(lab_read(&l), 100);
    CHECK(mpc_eof(l.c));
    CHECK(l.events & MP_EV_READABLE);
    lab_end(&l);
}

TEST(a_data_fin_with_a_32_bit_number)
{
    struct lab l = { 0 };
    lab_server(&l);
    struct mp_opts o = lab_map(&l, 0, 0, 0, true);
    o.dss.dsn64 = false;
    o.dss.dsn &= 0xffffffff;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_wait(&l, MP_MS(1));
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 2);
    CHECK(mpc_eof(l.c));
    lab_end(&l);
}

TEST(a_repeated_data_fin_is_acknowledged_again)
{
    struct lab l = { 0 };
    lab_server(&l);
    struct mp_opts o = lab_map(&l, 0, 0, 0, true);
    for (int i = 0; i < 3; i++) {
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
        if (i == 0) lab_wait(&l, MP_MS(1)); /* it might have come with our own; the others are answered at once */
        CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, 1, 0)->o.dss.data_ack, l.idsn_peer + 2);
    }
    lab_expect_counter(&l, data_fin_in, 1);
    lab_end(&l);
}

TEST(a_data_fin_is_acknowledged_with_our_own)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_map(&l, 0, 0, 0, true) });
    lab_expect_nothing(&l);
    CHECK(mpc_eof(l.c)); /* the owner knows, and ends its direction too */
    mpc_shutdown(l.c, l.now);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    CHECK(g->o.dss.data_fin);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 2);
    lab_wait(&l, MP_MS(1));
    lab_expect_nothing(&l);
    lab_end(&l);
}

/* ---- checksums ---- */

TEST(checksums_span_the_whole_mapping)
{
    struct lab l = { .csum = true, .slice = 64000 };
    lab_server(&l);
    lab_write(&l, 5000);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 5000);
    CHECK(g->o.dss.has_csum);
    CHECK_EQ(g->o.dss.len, 5000);
    uint64_t peer = l.idsn_peer;
    l.idsn_peer = l.idsn_engine;
    CHECK_EQ(g->o.dss.csum, lab_csum(&l, 0, 1, 5000, 5000));
    l.idsn_peer = peer;
    lab_end(&l);
}

TEST(bytes_under_a_checksum_wait_for_their_mapping_to_be_whole)
{
    struct lab l = { .csum = true };
    lab_server(&l);
    struct mp_opts o = lab_map(&l, 0, 1, 2000, false);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 1000, .o = o });
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1001, 0);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 1);
    CHECK_EQ(lab_read(&l), 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1001, .ack = 1, .off = 1000, .len = 1000, .o = o });
    g = lab_expect(&l, P0, MP_ACK, 1, 2001, 0);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 1 + 2000);
    CHECK_EQ(lab_read(&l), 2000);
    lab_end(&l);
}

TEST(the_window_goes_on_while_bytes_wait_for_their_checksum)
{
    struct lab l = { .csum = true };
    lab_server(&l);
    struct mp_opts o = lab_map(&l, 0, 1, 3000, false);
    uint64_t edge[2];
    for (uint32_t i = 0; i < 2; i++) {
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + 1000 * i, .ack = 1, .off = 1000 * i, .len = 1000, .o = o });
        struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1001 + 1000 * i, 0);
        CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 1);
        edge[i] = (uint64_t)g->k.wnd << P0->wscale;
    }
    CHECK(edge[1] + 256 > edge[0] + 1000);
    lab_end(&l);
}

TEST(a_mapping_of_many_small_pieces_is_checked)
{
    struct lab l = { .csum = true };
    lab_server(&l);
    struct mp_opts o = lab_map(&l, 0, 1, 999, false);
    for (uint32_t at = 0; at < 999; at += 9)
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + at, .ack = 1, .off = at, .len = 9, .o = o });
    lab_wait(&l, MP_SEC(1));
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 999);
    lab_expect_counter(&l, csum_bad, 0);
    lab_end(&l);
}

TEST(a_mapping_without_the_agreed_checksum_resets_the_subflow)
{
    struct lab l = { .csum = true };
    lab_server(&l);
    struct mp_opts o = lab_map(&l, 0, 1, 100, false);
    o.dss.has_csum = false;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = o });
    CHECK(lab_expect(&l, P0, MP_RST | MP_ACK, 1, 1, 0)->o.mp & MP_OPT_HAS(MP_TCPRST));
    lab_expect_counter(&l, csum_mismatch, 1);
    CHECK_EQ(lab_read(&l), 0);
    lab_end(&l);
}

TEST(a_mapping_with_a_checksum_that_was_not_agreed_resets_the_subflow) /* 3.3 */
{
    struct lab l = { 0 };
    lab_server(&l);
    struct mp_opts o = lab_map(&l, 0, 1, 100, false);
    o.dss.has_csum = true;
    o.dss.csum = lab_csum(&l, 0, 1, 100, 100);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = o });
    CHECK_EQ(lab_expect(&l, P0, MP_RST | MP_ACK, 1, 1, 0)->o.tcprst.reason, MP_RST_MPTCP);
    lab_expect_counter(&l, csum_mismatch, 1);
    CHECK_EQ(lab_read(&l), 0);
    lab_end(&l);
}

TEST(a_bad_checksum_on_one_of_two_subflows_resets_it_with_mp_fail) /* 3.7 */
{
    struct lab l = { .csum = true };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = lab_map(&l, 0, 1, 100, false), .spoil = true });
    struct got *g = lab_expect(&l, p, MP_RST | MP_ACK, 1, 101, 0);
    lab_expect_options(g, MP_TCPRST, MP_FAIL);
    CHECK_EQ(g->o.tcprst.reason, MP_RST_MIDDLEBOX);
    CHECK_EQ(g->o.fail_dsn, l.idsn_peer + 1);
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 0);
    lab_data(&l, P0, 1, 1, 0, 100); /* comes again over the other */
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 100);
    CHECK(lab_info(&l).multipath);
    lab_end(&l);
}

TEST(bytes_that_a_box_joined_to_a_mapped_segment_come_again)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 200, .o = lab_map(&l, 0, 1, 100, false) });
    lab_expect(&l, P0, MP_ACK, 1, 101, 0);
    CHECK_EQ(lab_read(&l), 100);
    lab_data(&l, P0, 101, 1, 100, 100);
    CHECK_EQ(lab_read(&l), 100);
    CHECK(lab_info(&l).multipath);
    lab_expect_counter(&l, map_awaited, 1);
    lab_forget(&l);
    lab_end(&l);
}

/* One subflow is left, which cannot fall back. */
static struct peer *last_subflow(struct lab *l)
{
    lab_client(l);
    struct peer *p = lab_join(l, 2);
    l->no_route = true;
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1 });
    lab_forget(l);
    return p;
}

static void joined(struct lab *l, struct peer *p, uint32_t seq, uint32_t mapped, uint32_t len)
{
    lab_send(l, p, (struct seg){ .flags = MP_ACK, .seq = seq, .ack = 1, .off = seq - 1, .len = len, .o = lab_map(l, seq - 1, seq, mapped, false) });
}

TEST(a_box_that_joins_segments_all_the_time_does_not_end_the_last_subflow)
{
    struct lab l = { 0 };
    struct peer *p = last_subflow(&l);
    for (uint32_t at = 1; at <= 901; at += 100) {
        joined(&l, p, at, 100, 300);
        lab_expect(&l, p, MP_ACK, 1, at + 100, 0);
    }
    CHECK_EQ(lab_read(&l), 1000);
    lab_expect_counter(&l, subflow_reset_out, 0);
    lab_end(&l);
}

TEST(of_joined_segments_behind_a_hole_only_the_mapped_bytes_are_kept)
{
    struct lab l = { 0 };
    struct peer *p = last_subflow(&l);
    joined(&l, p, 101, 100, 300);
    struct got *g = lab_expect(&l, p, MP_ACK, 1, 1, 0);
    CHECK_EQ(g->o.nsack, 1);
    CHECK_EQ(g->o.sack[0].right - g->o.sack[0].left, 100);
    lab_data(&l, p, 1, 1, 0, 100);
    lab_expect(&l, p, MP_ACK, 1, 201, 0);
    lab_data(&l, p, 201, 1, 200, 200);
    lab_expect(&l, p, MP_ACK, 1, 401, 0);
    CHECK_EQ(lab_read(&l), 400);
    lab_expect_counter(&l, subflow_reset_out, 0);
    lab_end(&l);
}

TEST(a_mapping_may_follow_the_bytes_behind_a_hole) /* and a run of mappings counts as one */
{
    struct lab l = { 0 };
    struct peer *p = last_subflow(&l);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 201, .ack = 1, .off = 200, .len = 100 });
    lab_data(&l, p, 101, 1, 100, 100);
    joined(&l, p, 201, 50, 100);
    joined(&l, p, 251, 50, 50);
    joined(&l, p, 101, 100, 250);
    lab_forget(&l);
    lab_data(&l, p, 1, 1, 0, 100);
    lab_expect(&l, p, MP_ACK, 1, 301, 0);
    CHECK_EQ(lab_read(&l), 300);
    lab_end(&l);
}

TEST(data_without_mapping_on_a_joined_subflow_resets_it) /* 3.7 */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    struct got *g = lab_expect(&l, p, MP_RST | MP_ACK, 1, 101, 0);
    lab_expect_options(g, MP_TCPRST);
    CHECK_EQ(g->o.tcprst.reason, MP_RST_MIDDLEBOX);
    CHECK_EQ(lab_read(&l), 0);
    lab_forget(&l);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}
