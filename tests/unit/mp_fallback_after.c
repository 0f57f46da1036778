/* After a fallback: what the peer is told, and how the end is, as long as it may not have fallen back too (RFC 8684 3.7). */
#include "lab_fallback.h"

#include <errno.h>

/* The latest ACK bears the DATA_ACK that an infinite mapping would give it. */
static bool acks_data(struct lab *l, uint64_t bytes)
{
    lab_pump(l);
    const struct got *g = &l->q[l->qn - 1];
    l->qi = l->qn;
    return (g->o.mp & MP_OPT_HAS(MP_DSS)) && g->o.dss.has_ack && !g->o.dss.has_map &&
           (uint32_t)g->o.dss.data_ack == (uint32_t)(l->idsn_peer + 1 + bytes);
}

/* Linux falls back with the next new data, for which it has no room while the data before is not DATA_ACKed: a whole window of
 * it, or its send buffer. */
TEST(data_acks_go_on_until_the_peers_infinite_mapping)
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    uint32_t at = 0;
    for (; at < 1000; at += 100) {
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + at, .ack = 1, .off = at, .len = 100 });
        CHECK(acks_data(&l, at + 100));
    }
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_DSS);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_FAIL), .fail_dsn = l.idsn_engine + 1 };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + at, .ack = 1, .off = at, .len = 100, .o = o });
    CHECK(acks_data(&l, at + 100)); /* it has heard, and needs room all the same */
    at += 100;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + at, .ack = 1, .off = at, .len = 100, .o = infinite(&l, at, 1 + at) });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101 + at, .ack = 1, .off = at + 100, .len = 100 });
    for (uint32_t k = 100; k <= 200; k += 100) lab_expect_no_options(lab_expect(&l, P0, MP_ACK, 1, 1 + at + k, 0));
    CHECK_EQ(lab_read(&l), at + 200);
    lab_end(&l);
}

/* A client that has fallen back and told so, with nothing more to send: no infinite mapping makes the server plain TCP, too. */
static void untold(struct lab *l)
{
    lab_client_unconfirmed(l);
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    CHECK_EQ(lab_read(l), 100);
    lab_forget(l);
}

/* Linux, which waits for a DATA_FIN, takes no FIN for the end, and sends none before its own DATA_FIN is acknowledged. */
TEST(the_end_is_told_on_both_levels_to_a_peer_that_is_perhaps_not_plain)
{
    struct lab l = { 0 };
    untold(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1 });
    lab_expect_nothing(&l); /* our end is not there: nothing is guessed */
    mpc_shutdown(l.c, l.now);
    struct got *g = lab_expect(&l, P0, MP_FIN | MP_ACK, 1, 101, 0);
    CHECK(g->o.dss.has_map && g->o.dss.data_fin && g->o.dss.len == 1 && g->o.dss.ssn == 0);
    CHECK_EQ(g->o.dss.dsn, l.idsn_engine + 1);
    lab_ack(&l, P0, 101, 2);
    lab_expect_nothing(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 2, .off = 100, .len = 100 });
    CHECK(acks_data(&l, 200));
    lab_ack(&l, P0, 201, 2); /* its DATA_FIN, of which the option died */
    CHECK(acks_data(&l, 201));
    CHECK(!mpc_eof(l.c));
    lab_send(&l, P0, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 201, .ack = 2 });
    CHECK_EQ(lab_read(&l), 100);
    CHECK(mpc_eof(l.c));
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_reset_is_a_fast_close_for_a_peer_that_is_perhaps_not_plain)
{
    struct lab l = { 0 };
    untold(&l);
    mpc_abort(l.c, l.now);
    struct got *g = lab_expect(&l, P0, MP_RST | MP_ACK, 1, 101, 0);
    lab_expect_options(g, MP_FASTCLOSE);
    CHECK_EQ(g->o.fastclose_key, LAB_PEER_KEY);
    lab_end(&l);
}

TEST(after_an_infinite_mapping_the_end_is_plain_tcps)
{
    struct lab l = { 0 };
    untold(&l);
    lab_write(&l, 10);
    CHECK(is_infinite(lab_expect(&l, P0, MP_ACK, 1, 101, 10)));
    lab_ack(&l, P0, 101, 11);
    mpc_shutdown(l.c, l.now);
    lab_expect_no_options(lab_expect(&l, P0, MP_FIN | MP_ACK, 11, 101, 0));
    lab_end(&l);
}

TEST(two_ends_that_acknowledge_data_after_a_fallback_do_not_answer_each_other)
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    CHECK_EQ(fails_sent(&l), 1);
    struct mp_opts o = lab_dack(&l);
    o.mp |= MP_OPT_HAS(MP_FAIL);
    for (int i = 0; i < 3; i++) {
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .o = o });
        lab_expect_nothing(&l);
        o.mp = MP_OPT_HAS(MP_DSS);
    }
    CHECK_EQ(lab_read(&l), 100);
    lab_end(&l);
}

TEST(a_data_fin_from_before_the_fallback_cuts_nothing_off) /* the box put a byte in: the FIN is behind it */
{
    struct lab l = { .csum = true };
    lab_server_syn(&l);
    struct mp_opts o = lab_capable_data(&l, 100), fin = { .mp = MP_OPT_HAS(MP_DSS) };
    o.capable.csum ^= 0xff;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 101, .o = o });
    fin.dss.has_map = fin.dss.dsn64 = fin.dss.data_fin = true;
    fin.dss.dsn = l.idsn_peer + 1 + 100;
    fin.dss.len = 1;
    fin.dss.has_csum = true;
    fin.dss.csum = lab_csum(&l, 100, 0, 1, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 102, .ack = 1, .o = fin });
    lab_expect_counter(&l, data_fin_in, 1);
    lab_wait(&l, MP_MS(500));
    CHECK_EQ(lab_info(&l).why, MP_WHY_CHECKSUM);
    lab_forget(&l);
    uint64_t got = lab_read(&l);
    CHECK(!mpc_eof(l.c));
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + (uint32_t)got, .ack = 1, .off = got, .len = 101 - (uint32_t)got });
    got += lab_read(&l);
    CHECK_EQ(got, 101);
    CHECK(!mpc_eof(l.c));
    lab_send(&l, P0, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 102, .ack = 1 });
    CHECK(mpc_eof(l.c));
    lab_forget(&l);
    lab_end(&l);
}

TEST(mp_fail_is_sent_again_while_the_peer_goes_on_with_mappings)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_data(&l, P0, 1, 1, 0, 100);
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .off = 100, .len = 100 }); /* options died on the way */
    CHECK_EQ(fails_sent(&l), 1);
    lab_data(&l, P0, 201, 1, 200, 100);
    CHECK_EQ(fails_sent(&l), 1);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 301, .ack = 1, .off = 300, .len = 100, .o = infinite(&l, 300, 301) });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 401, .ack = 1, .off = 400, .len = 100 });
    CHECK_EQ(lab_read(&l), 500);
    CHECK_EQ(fails_sent(&l), 0); /* it has heard it */
    lab_end(&l);
}

TEST(the_infinite_mapping_sent_again_fits_the_mtu)
{
    struct lab l = { .csum = true, .slice = 64000 };
    lab_server(&l);
    mpc_setopt(l.c, MPC_NODELAY, 1, l.now);
    lab_write(&l, 2500); /* with mappings */
    lab_forget(&l);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_FAIL), .fail_dsn = l.idsn_engine + 1 };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_write(&l, 4500);
    lab_wait(&l, MP_SEC(8)); /* time-outs, then with segments of the larger MSS that plain TCP has */
    int mapped = 0, infinite_seen = 0;
    for (; l.qi < l.qn; l.qi++) {
        const struct got *g = &l.q[l.qi];
        uint32_t seg = g->k.gso_size && g->k.gso_size < g->len ? g->k.gso_size : g->len;
        CHECK(40u + g->k.optlen + seg <= lab_sf(&l, 0).mtu);
        mapped += g->len && g->seq < 2501 && g->o.dss.len;
        infinite_seen += is_infinite(g);
        if (g->len && g->seq < 2501) CHECK(g->o.dss.len); /* the infinite mapping is behind them, and may be lost */
    }
    CHECK(mapped && infinite_seen);
    lab_end(&l);
}

TEST(plain_an_infinite_mapping_again_is_already_done)
{
    struct lab l = { 0 };
    lab_server(&l);
    for (uint32_t i = 0; i < 3; i++)
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + i * 100, .ack = 1, .off = i * 100, .len = 100, .o = infinite(&l, 0, 1) });
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 300);
    lab_expect_counter(&l, fallback, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(plain_a_mapping_that_says_otherwise_resets) /* never wrong bytes */
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = infinite(&l, 0, 1) });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .off = 100, .len = 100, .o = lab_map(&l, 100, 101, 100, false) });
    CHECK_EQ(lab_read(&l), 200);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 201, .ack = 1, .off = 500, .len = 100, .o = lab_map(&l, 500, 201, 100, false) });
    CHECK_EQ(lab_read(&l), 0);
    CHECK_EQ(mpc_error(l.c), ECONNRESET);
    lab_forget(&l);
    lab_end(&l);
}
