/* Windows: ours, the peer's, zero-window probes, silly windows (RFC 9293 3.8.6, RFC 8684 3.3.5). */
#include "core/stack_int.h"

#include "lab.h"

#include <errno.h>

static void small(struct mp_settings *s) { s->rcvbuf_kb = 64; }

/* The right edge that a segment of the engine tells, relative to the peer's stream at subflow or connection level. */
static uint64_t edge(const struct lab *l, const struct got *g)
{
    uint64_t from = g->o.dss.has_ack ? g->o.dss.data_ack - l->idsn_peer : g->ack;
    return from + ((uint64_t)g->k.wnd << g->p->wscale);
}

enum { ROUNDING = 255 }; /* bytes that the window scale may take from the edge, RFC 7323 2.4 */

TEST(the_window_closes_and_opens_and_its_edge_stays) /* RFC 9293 3.8.6 SHLD-14 */
{
    for (int mp = 0; mp < 2; mp++) {
        struct lab l = { .plain = !mp, .tune = small };
        ROW("%s", mp ? "MPTCP" : "TCP");
        lab_server(&l);
        uint64_t sent = 0, best = 0;
        for (int i = 0; i < l.qn; i++)
            if (!(l.q[i].flags & MP_SYN)) best = mp_max(best, edge(&l, &l.q[i]));
        for (int round = 0; round < 6; round++) {
            while (sent + 1 + 1000 <= best) {
                if (mp) lab_data(&l, P0, 1 + (uint32_t)sent, 1, sent, 1000);
                else lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + (uint32_t)sent, .ack = 1, .off = sent, .len = 1000 });
                sent += 1000;
                for (lab_pump(&l); l.qi < l.qn; l.qi++) {
                    CHECK(edge(&l, &l.q[l.qi]) + ROUNDING >= best);
                    best = mp_max(best, edge(&l, &l.q[l.qi]));
                }
            }
            CHECK_EQ(mpc_readable(l.c), sent - l.read);
            CHECK(sent - l.read <= 65536);
            lab_wait(&l, MP_SEC(1));
            for (; l.qi < l.qn; l.qi++) best = mp_max(best, edge(&l, &l.q[l.qi]));
            uint64_t before = best;
            lab_read(&l);
            for (; l.qi < l.qn; l.qi++) best = mp_max(best, edge(&l, &l.q[l.qi]));
            CHECK(best >= before + 32768); /* told at once when there is room again */
        }
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(a_small_receive_buffer_is_told_in_small_units) /* core/sf_out.c, small_wscale */
{
    struct lab l = { .tune = small };
    lab_client(&l);
    CHECK_EQ(P0->wscale, 2);
    lab_end(&l);
    l = (struct lab){ 0 };
    lab_client(&l);
    CHECK_EQ(P0->wscale, 8);
    lab_end(&l);
}

TEST(what_lies_within_any_edge_that_was_told_is_taken) /* RFC 7323 2.4: rounding to the scale tells less than before */
{
    struct lab l = { .plain = true, .tune = small };
    lab_server(&l);
    uint64_t sent = 0, best = 0;
    bool back = false;
    for (int i = 0; i < l.qn; i++)
        if (!(l.q[i].flags & MP_SYN)) best = mp_max(best, edge(&l, &l.q[i]));
    while (sent + 1 < best) {
        uint32_t n = (uint32_t)mp_min(1001, best - 1 - sent);
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + (uint32_t)sent, .ack = 1, .off = sent, .len = n });
        sent += n;
        for (lab_pump(&l); l.qi < l.qn; l.qi++) {
            back |= edge(&l, &l.q[l.qi]) < best;
            best = mp_max(best, edge(&l, &l.q[l.qi]));
        }
    }
    CHECK(back);
    lab_wait(&l, MP_SEC(1));
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), sent);
    lab_forget(&l);
    lab_expect_counter(&l, beyond_window, 0);
    lab_end(&l);
}

TEST(the_window_is_not_opened_in_small_steps) /* RFC 9293 3.8.6.2.2 */
{
    struct lab l = { .plain = true, .tune = small };
    lab_server(&l);
    for (uint64_t at = 0; at + 1000 <= 65536; at += 1000)
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + (uint32_t)at, .ack = 1, .off = at, .len = 1000 });
    lab_wait(&l, MP_SEC(1));
    lab_forget(&l);
    mpc_consume(l.c, 100, l.now);
    lab_expect_nothing(&l);
    mpc_consume(l.c, 900, l.now);
    lab_expect_nothing(&l);
    mpc_consume(l.c, 40000, l.now);
    CHECK(lab_expect(&l, P0, MP_ACK, 1, 65001, 0)->k.wnd > 0);
    lab_end(&l);
}

TEST(what_exceeds_our_window_is_not_taken_in_plain_tcp)
{
    struct lab l = { .plain = true, .tune = small };
    lab_server(&l);
    for (uint64_t at = 0; at < 100000; at += 1000)
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + (uint32_t)at, .ack = 1, .off = at, .len = 1000 });
    lab_wait(&l, MP_SEC(1));
    CHECK(mpc_readable(l.c) <= 65536 + 1000);
    uint32_t ack = l.q[l.qn - 1].ack;
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), ack - 1); /* nothing was acknowledged that is not kept */
    lab_forget(&l);
    lab_end(&l);
}

TEST(the_peers_window_is_kept)
{
    for (int mp = 0; mp < 2; mp++) {
        struct lab l = { .plain = !mp, .wnd0 = 3000 };
        ROW("%s", mp ? "MPTCP" : "TCP");
        lab_client(&l);
        lab_write(&l, 20000);
        uint32_t sent = 0;
        for (; l.qi < l.qn; l.qi++) sent += l.q[l.qi].len;
        CHECK_EQ(sent, 3000);
        P0->wnd = 1000;
        if (mp) lab_ack_mp(&l, P0, 1, 3001, 3000);
        else lab_ack(&l, P0, 1, 3001);
        lab_expect(&l, P0, MP_ACK, 3001, 1, 1000);
        lab_end(&l);
    }
    ROW("%s", "");
}

/* RFC 9293 3.10.7.4: a shut window takes no data, but the end behind what it took is heard. RFC 8684 3.3.3: so is a DATA_FIN. */
TEST(an_end_is_heard_through_a_window_that_is_shut)
{
    for (int mp = 0; mp < 2; mp++) {
        struct lab l = { .plain = !mp, .tune = small };
        ROW("%s", mp ? "MPTCP" : "TCP");
        lab_server(&l);
        uint32_t at = 0;
        for (; at < 65536; at += 1024) {
            if (mp) lab_data(&l, P0, 1 + at, 1, at, 1024);
            else lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + at, .ack = 1, .off = at, .len = 1024 });
        }
        lab_wait(&l, MP_SEC(1));
        CHECK_EQ(l.q[l.qn - 1].k.wnd, 0);
        lab_forget(&l);
        if (mp) lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + at, .ack = 1, .o = lab_map(&l, at, 0, 0, true) });
        else lab_send(&l, P0, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 1 + at, .ack = 1 });
        if (mp) lab_wait(&l, MP_MS(1)); /* it might have come with our own end */
        if (mp) CHECK_EQ(lab_said(&l, P0, MP_ACK, MP_OPT_HAS(MP_DSS))->o.dss.data_ack, l.idsn_peer + 1 + at + 1);
        else lab_expect(&l, P0, MP_ACK, 1, 1 + at + 1, 0);
        CHECK_EQ(lab_read(&l), at);
        CHECK(mpc_eof(l.c));
        lab_forget(&l);
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(window_scale_of_the_peer_is_applied) /* RFC 7323 2.3 */
{
    struct lab l = { .plain = true, .peer_wscale = 3, .wnd0 = 1000 };
    lab_client(&l);
    lab_ack(&l, P0, 1, 1);
    lab_write(&l, 20000);
    uint32_t sent = 0;
    for (; l.qi < l.qn; l.qi++) sent += l.q[l.qi].len;
    CHECK(sent <= 8000 && sent >= 1000); /* before an ACK after the SYN only 1000 */
    lab_end(&l);
}

TEST(a_zero_window_is_probed_with_doubled_waiting) /* RFC 9293 3.8.6.1 */
{
    for (int mp = 0; mp < 2; mp++) {
        struct lab l = { .plain = !mp };
        ROW("%s", mp ? "MPTCP" : "TCP");
        lab_client(&l);
        lab_write(&l, 1000);
        lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
        P0->wnd = 0;
        if (mp) lab_ack_mp(&l, P0, 1, 1001, 1000);
        else lab_ack(&l, P0, 1, 1001);
        if (mp) /* a connection's edge does not move back: what was offered may be used */
            while (lab_sf(&l, 0).flight == 0 && l.written < 65535 + 5000) {
                lab_write(&l, 5000);
                if (!lab_waiting(&l)) break;
                uint32_t end = 1001;
                for (; l.qi < l.qn; l.qi++)
                    if (l.q[l.qi].len) end = l.q[l.qi].seq + l.q[l.qi].len;
                lab_ack_mp(&l, P0, 1, end, end - 1);
            }
        else
            lab_write(&l, 5000);
        lab_forget(&l);
        lab_wait(&l, MP_SEC(20));
        CHECK(mp_stack_counter(l.st, MP_E_zero_window_probe) >= 3);
        CHECK(lab_waiting(&l) >= 3);
        CHECK(lab_waiting(&l) <= 10);
        lab_forget(&l);
        CHECK_EQ(mpc_error(l.c), 0);
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(a_reopened_window_is_used_at_once)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 1000);
    lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
    P0->wnd = 0;
    lab_ack(&l, P0, 1, 1001);
    lab_write(&l, 2000);
    lab_expect_nothing(&l);
    lab_wait(&l, MP_SEC(1));
    lab_forget(&l);
    P0->wnd = 65535;
    lab_ack(&l, P0, 1, 1001);
    lab_expect(&l, P0, MP_ACK, 1001, 1, 1000);
    lab_expect(&l, P0, MP_ACK, 2001, 1, 1000);
    lab_end(&l);
}

TEST(probes_go_on_as_long_as_they_are_answered) /* RFC 9293 3.8.6.1: MUST-37: keep the connection open */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 1000);
    P0->wnd = 0;
    lab_ack(&l, P0, 1, 1001);
    lab_write(&l, 5000);
    lab_forget(&l);
    for (int i = 0; i < 3000; i++) {
        lab_wait(&l, MP_SEC(1));
        if (lab_waiting(&l)) lab_ack(&l, P0, 1, 1001);
        lab_forget(&l);
    }
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(slivers_of_window_are_not_filled) /* RFC 9293 3.8.6.2.1 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 1000);
    lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
    lab_write(&l, 30000);
    lab_forget(&l);
    uint32_t next = l.q[l.qn - 1].seq + l.q[l.qn - 1].len;
    P0->wnd = (uint16_t)(next - 2001 + 100); /* room for 100 bytes more than is in flight */
    lab_ack(&l, P0, 1, 2001);
    for (; l.qi < l.qn; l.qi++) CHECK(l.q[l.qi].len == 0 || l.q[l.qi].len >= 1000);
    lab_end(&l);
}

TEST(writing_waits_for_room_in_the_queue)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    mpc_setopt(l.c, MPC_SNDBUF, 65536, l.now);
    lab_write(&l, 200000);
    CHECK(l.written <= 65536 + 1000);
    CHECK_EQ(mpc_write_space(l.c), 0);
    l.events = 0;
    lab_forget(&l);
    uint32_t end = 1;
    for (int i = 0; i < 40 && !(l.events & MP_EV_WRITABLE); i++) {
        for (int j = 0; j < l.qn; j++)
            if (l.q[j].len && l.q[j].seq + l.q[j].len > end) end = l.q[j].seq + l.q[j].len;
        lab_wait(&l, LAB_RTT);
        lab_ack(&l, P0, 1, end);
    }
    CHECK(l.events & MP_EV_WRITABLE);
    CHECK(mpc_write_space(l.c) > 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(back_pressure_of_the_interface_holds_everything)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    l.blocked = true;
    lab_write(&l, 3000);
    lab_expect_nothing(&l);
    l.blocked = false;
    mp_stack_writable(l.st, NULL);
    CHECK_EQ(lab_waiting(&l), 3);
    lab_forget(&l);
    lab_end(&l);
}

TEST(the_data_window_counts_from_the_data_ack) /* RFC 8684 3.3.5 */
{
    struct lab l = { .wnd0 = 5000 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    lab_write(&l, 30000);
    uint64_t sent = 0;
    for (; l.qi < l.qn; l.qi++) sent += l.q[l.qi].len;
    CHECK_EQ(sent, 5000); /* over both together */
    (void)p;
    lab_end(&l);
}

TEST(data_far_beyond_the_connections_window_is_dropped)
{
    struct lab l = { .tune = small };
    lab_server(&l);
    lab_data(&l, P0, 1, 1, 1000000, 1000);
    lab_forget(&l);
    CHECK(mp_stack_counter(l.st, MP_E_beyond_window) > 0);
    CHECK_EQ(lab_read(&l), 0);
    lab_end(&l);
}

TEST(little_waits_for_a_peer_that_does_not_read)
{
    struct lab l = { .plain = true, .peer_wscale = 8, .slice = 60000 };
    lab_server(&l);
    uint32_t at = 1;
    for (int round = 0; round < 12; round++) { /* the window grows to megabytes */
        lab_write(&l, mpc_write_space(l.c));
        for (lab_pump(&l); l.qi < l.qn; l.qi++) at = (uint32_t)mp_max(at, l.q[l.qi].seq + l.q[l.qi].len);
        lab_wait(&l, MP_MS(10));
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = at });
    }
    CHECK(mpc_write_space(l.c) > 1024 * 1024);
    lab_forget(&l);
    for (; l.c->v.snd_una < l.c->v.snd_end; lab_forget(&l)) lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1 + (uint32_t)(l.c->v.snd_nxt - l.c->v.idsn_local - 1) });
    P0->wnd = 0;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1 + (uint32_t)(l.c->v.snd_nxt - l.c->v.idsn_local - 1) });
    CHECK_EQ(mpc_write_space(l.c), 512 * 1024);
    lab_end(&l);
}

/* A box takes the window scale out of the SYN: windows are 64 KB at the most, and so is what was promised when SO_RCVBUF comes. */
TEST(what_no_window_field_can_say_is_no_promise)
{
    struct lab l = { .plain = true };
    lab_listen(&l);
    struct mp_endpoint e = lab_ep(1, 1, 80), f = lab_ep(1, 2, 5001);
    struct peer *p = lab_peer_new(&l, &e, &f, 1);
    struct mp_opts o = lab_syn_options(&l, (struct mp_opts){ 0 });
    o.has_wscale = false;
    p->ts = true;
    lab_send(&l, p, (struct seg){ .flags = MP_SYN, .o = o });
    lab_expect(&l, p, MP_SYN | MP_ACK, 0, 1, 0);
    lab_ack(&l, p, 1, 1);
    mpc_setopt(l.c, MPC_RCVBUF, 20000, l.now);
    lab_forget(&l);
    uint32_t at = 1;
    for (int i = 0; i < 100; i++, at += 1000) lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = at, .ack = 1, .off = at - 1, .len = 1000 });
    lab_wait(&l, MP_SEC(1));
    CHECK(l.qn && l.q[l.qn - 1].k.wnd == 0);
    CHECK(lab_info(&l).unread <= 65535);
    lab_forget(&l);
    lab_end(&l);
}

/* The end of what was sent on p's subflow, and of the stream that has come over it without a gap from `from` on. */
static uint32_t sent_on(const struct lab *l, const struct peer *p, uint64_t *stream)
{
    uint32_t end = 1;
    for (bool more = true; more;) {
        more = false;
        for (int i = 0; i < l->qn; i++) {
            const struct got *g = &l->q[i];
            if (g->p != p || !g->len) continue;
            end = (uint32_t)mp_max(end, g->seq + g->len);
            uint64_t off = g->o.dss.dsn - l->idsn_engine - 1;
            if (!g->o.dss.has_map || off > *stream || off + g->len <= *stream) continue;
            *stream = off + g->len;
            more = true;
        }
    }
    return end;
}

/* The peer takes what its window still allows, and opens it no further; its ACKs come over the first subflow. */
static void shut_window(struct lab *l, int seconds)
{
    uint64_t edge = l->dack + l->p[0].wnd, stream = l->dack;
    for (int i = 0; i < 50 * seconds; i++) {
        if (l->written < edge + 10000) lab_write(l, 5000);
        lab_wait(l, MP_MS(20));
        uint32_t end = sent_on(l, &l->p[0], &stream);
        if (l->plain) stream = end - 1;
        l->p[0].wnd = (uint16_t)(edge - stream);
        if (l->plain) lab_ack(l, &l->p[0], 1, end);
        else lab_ack_mp(l, &l->p[0], 1, end, stream);
    }
    CHECK_EQ(l->p[0].wnd, 0);
    lab_forget(l);
}

TEST(a_loss_right_after_a_shut_window_is_not_waited_for_a_minute) /* core/sf.c, sf_persist_wait */
{
    for (int mp = 0; mp < 2; mp++) {
        struct lab l = { .plain = !mp };
        ROW("%s", mp ? "MPTCP" : "TCP");
        lab_client(&l);
        shut_window(&l, 60);
        CHECK(mp_stack_counter(l.st, MP_E_zero_window_probe) > 4);
        P0->wnd = 65535;
        uint32_t at = (uint32_t)l.c->sfs->v.snd_una;
        if (mp) lab_ack_mp(&l, P0, 1, at, l.dack);
        else lab_ack(&l, P0, 1, at);
        CHECK_EQ(lab_next_data(&l, P0)->seq, at);
        lab_forget(&l);
        lab_wait(&l, MP_MS(500));
        CHECK(lab_next_data(&l, P0)->len > 0); /* a time-out, or a tail loss probe before */
        lab_forget(&l);
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(a_path_whose_peer_did_not_read_is_used_beside_a_new_one) /* it was taken for dead, and with nothing in flight for ever */
{
    struct lab l = { 0 };
    lab_client(&l);
    shut_window(&l, 60);
    lab_local_up(&l, 2);
    lab_expect(&l, P1, MP_SYN, 0, 0, 0);
    P1->wnd = 0;
    lab_synack(&l, P1, lab_join_synack(&l, P1, 0));
    lab_ack_mp(&l, P1, 1, 1, l.dack);
    lab_forget(&l);
    CHECK_EQ(lab_info(&l).nsubflows, 2);
    CHECK(!lab_sf(&l, 0).stale);
    lab_end(&l);
}

TEST(a_shut_window_is_probed_beside_a_path_that_died) /* the ACK that opened it may be lost, and what is in flight on the dead one brings none */
{
    for (int used = 0; used < 2; used++) {
        struct lab l = { 0 };
        ROW("%s", used ? "connection's window" : "subflow's window");
        lab_client(&l);
        lab_join(&l, 2);
        lab_write(&l, 15000);
        uint64_t stream = 0;
        for (int i = 0; i < 40; i++) {
            lab_wait(&l, LAB_RTT);
            uint32_t end = sent_on(&l, P0, &stream);
            lab_ack_mp(&l, P0, 1, end, stream);
        }
        CHECK(mpc_send_done(l.c));
        CHECK(lab_sf(&l, 1).stale);
        lab_forget(&l);
        if (used) {
            shut_window(&l, 5);
        } else { /* the window shrinks, RFC 9293 3.8.6: what was promised at connection level stays */
            P0->wnd = 0;
            uint32_t end = sent_on(&l, P0, &stream);
            lab_ack_mp(&l, P0, 1, end, stream);
            lab_write(&l, 5000);
        }
        uint64_t before = mp_stack_counter(l.st, MP_E_zero_window_probe);
        lab_wait(&l, MP_SEC(10));
        CHECK(mp_stack_counter(l.st, MP_E_zero_window_probe) > before);
        CHECK(lab_said(&l, P0, MP_ACK, 0) != &lab_none);
        lab_forget(&l);
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(a_path_whose_window_stayed_shut_is_asked_while_others_go_on) /* or it would carry nothing more */
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_join(&l, 2);
    P0->wnd = 0;
    lab_ack_mp(&l, P0, 1, 1, 0);
    uint64_t stream = 0;
    int asked = 0;
    for (int i = 0; i < 400; i++) {
        lab_write(&l, 1000);
        lab_wait(&l, MP_MS(10));
        uint32_t end = sent_on(&l, P1, &stream);
        for (; l.qi < l.qn; l.qi++) asked += l.q[l.qi].p == P0;
        lab_ack_mp(&l, P1, 1, end, stream);
    }
    CHECK_EQ(stream, 400000);
    CHECK(asked > 2 && asked < 10);
    P0->wnd = 65535;
    lab_ack_mp(&l, P0, 1, 1, stream);
    lab_forget(&l);
    lab_write(&l, 30000);
    CHECK(lab_next_data(&l, P0)->len > 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_backup_is_used_while_the_other_path_is_shut) /* by a box that has taken what it cannot deliver; simulation seed 1203328 */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    lab_prio(&l, p, (struct mp_opt_prio){ .backup = true });
    lab_write(&l, 1000);
    lab_forget(&l);
    P0->wnd = 0; /* of the subflow; what was promised at connection level stays */
    lab_ack_mp(&l, P0, 1, 1001, 1000);
    lab_write(&l, 1000);
    for (int i = 0; i < 3; i++) {
        lab_wait(&l, LAB_RTT);
        lab_ack_mp(&l, P0, 1, 1001, 1000);
    }
    lab_wait(&l, MP_SEC(5));
    bool carried = false;
    for (lab_pump(&l); l.qi < l.qn; l.qi++) carried |= l.q[l.qi].p == p && l.q[l.qi].len;
    CHECK(carried);
    lab_end(&l);
}
