/* Attackers who know MPTCP (RFC 6181, RFC 7430) and peers that lie about it: nothing but a counted drop or a clean reset,
 * no byte that was not sent, memory bounded. */
#include "lab.h"

#include "core/stack_int.h"

#include <errno.h>

static void alive(struct lab *l)
{
    lab_forget(l);
    CHECK_EQ(mpc_error(l->c), 0);
    CHECK(lab_info(l).multipath);
    lab_end(l);
}

static struct peer *join_syn(struct lab *l, uint32_t token, uint32_t nonce, uint16_t port)
{
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_SYN, .addr_id = 5, .token = token, .nonce = nonce } };
    struct peer *p = lab_syn(l, 2, port, o);
    p->nonce = nonce;
    return p;
}

static void join_ack(struct lab *l, struct peer *p, const uint8_t hmac[20])
{
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_ACK } };
    memcpy(o.join.hmac, hmac, 20);
    lab_send(l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
}

TEST(joins_with_guessed_tokens_leave_nothing) /* RFC 8684 3.2 */
{
    struct lab l = { 0 };
    lab_server(&l);
    int flows = l.flows;
    for (uint32_t i = 1; i <= 1000; i++) {
        join_syn(&l, l.token_engine + i, i, (uint16_t)(6000 + i));
        l.np = 1;
        while (l.qn) free(l.q[--l.qn].data);
        l.qi = 0;
    }
    lab_expect_counter(&l, join_token_unknown, 1000);
    CHECK_EQ(l.flows, flows);
    alive(&l);
}

TEST(a_replayed_hmac_opens_nothing) /* the engine's nonce is another one each time */
{
    struct lab l = { 0 };
    uint8_t h[32];
    lab_server(&l);
    struct peer *p = join_syn(&l, l.token_engine, 0x01020304, 6001);
    lab_forget(&l);
    lab_join_hmac(&l, p, h); /* seen on the wire */
    join_ack(&l, p, h);
    lab_expect_counter(&l, join_up, 1);
    lab_forget(&l);
    int flows = l.flows;
    struct peer *q = join_syn(&l, l.token_engine, 0x01020304, 6002);
    CHECK(q->nonce_engine != p->nonce_engine);
    lab_forget(&l);
    join_ack(&l, q, h);
    struct got *g = lab_expect(&l, q, MP_RST | MP_ACK, 1, 1, 0);
    CHECK_EQ(g->o.tcprst.reason, MP_RST_MPTCP);
    lab_expect_counter(&l, join_hmac_bad, 1);
    lab_expect_counter(&l, join_up, 1);
    CHECK_EQ(l.flows, flows);
    alive(&l);
}

TEST(nothing_counts_on_a_subflow_before_its_hmac) /* REMOVE_ADDR bears none of its own */
{
    struct lab l = { 0 };
    lab_server(&l);
    struct peer *p = join_syn(&l, l.token_engine, 7, 6001);
    lab_forget(&l);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_REMOVE_ADDR), .remove_addr = { .n = 1, .id = { 0 } } };
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_expect_counter(&l, remove_addr_in, 0);
    lab_forget(&l);
    CHECK_EQ(lab_sf(&l, 0).initial, true);
    o = (struct mp_opts){ .mp = MP_OPT_HAS(MP_FASTCLOSE), .fastclose_key = l.key_engine + 1 };
    p = join_syn(&l, l.token_engine, 8, 6003);
    lab_forget(&l);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_data(&l, p, 1, 1, 0, 100);
    CHECK_EQ(lab_read(&l), 0);
    alive(&l);
}

TEST(options_on_segments_outside_the_window_count_nothing)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_opts all[] = {
        { .mp = MP_OPT_HAS(MP_REMOVE_ADDR), .remove_addr = { .n = 1, .id = { 0 } } },
        { .mp = MP_OPT_HAS(MP_FAIL), .fail_dsn = l.idsn_engine + 1 },
        { .mp = MP_OPT_HAS(MP_PRIO), .prio = { .backup = true } },
        { .mp = MP_OPT_HAS(MP_FASTCLOSE), .fastclose_key = l.key_engine ^ 1 },
        { .mp = MP_OPT_HAS(MP_DSS), .dss = { .has_ack = true, .ack64 = true, .data_ack = l.idsn_engine + 1 } },
    };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        for (uint64_t at = 1u << 26; at < 0xfc000000; at += 1u << 24) lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = (uint32_t)at, .ack = 1, .o = all[i], .no_ts = true });
    lab_expect_counter(&l, remove_addr_in, 0);
    lab_expect_counter(&l, fail_in, 0);
    lab_expect_counter(&l, prio_in, 0);
    lab_expect_counter(&l, fastclose_in, 0);
    lab_expect_counter(&l, fallback, 0);
    alive(&l);
}

TEST(forged_and_endless_add_addrs) /* 3.4.1: the HMAC keeps strangers out, the tables' size a peer that means ill */
{
    struct lab l = { 0 };
    lab_client(&l);
    for (unsigned i = 0; i < 300; i++) {
        struct mp_opts o = lab_dack(&l);
        o.mp |= MP_OPT_HAS(MP_ADD_ADDR);
        o.add_addr = (struct mp_opt_add_addr){ .addr_id = (uint8_t)(1 + i % 255), .ip = { 4, { 192, 0, 2, (uint8_t)i } }, .hmac = 1 + i };
        if (i >= 100) o.add_addr.hmac = mp_add_addr_hmac(LAB_PEER_KEY, l.key_engine, o.add_addr.addr_id, &o.add_addr.ip, 0);
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
        if (i < 100) lab_expect_nothing(&l);
        l.np = 1;
        while (l.qn) free(l.q[--l.qn].data);
        l.qi = 0;
    }
    lab_expect_counter(&l, add_addr_hmac_bad, 100);
    CHECK(l.flows <= (int)l.set.max_subflows);
    alive(&l);
}

TEST(data_acks_of_what_was_not_sent)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_write(&l, 3000);
    lab_forget(&l);
    static const uint64_t ahead[] = { 3001, 4000, 1u << 31, 1ull << 32, 1ull << 62, 1ull << 63, UINT64_MAX - 5 };
    for (unsigned i = 0; i < sizeof ahead / sizeof *ahead; i++) lab_ack_mp(&l, P0, 1, 1, ahead[i]);
    CHECK(mp_stack_counter(l.st, MP_E_data_ack_unsent) >= 4);
    CHECK(!mpc_send_done(l.c));
    lab_forget(&l);
    lab_ack_mp(&l, P0, 1, 3001, 3000);
    CHECK(mpc_send_done(l.c));
    alive(&l);
}

TEST(mappings_that_overlap_or_contradict_change_no_byte) /* 3.3.1 */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_opts o = lab_map(&l, 0, 1, 1000, false);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .off = 0, .len = 400, .o = o });
    CHECK_EQ(lab_read(&l), 400);
    for (int shift = -300; shift <= 300; shift += 100) { /* the same bytes under other numbers */
        o = lab_map(&l, (uint64_t)(500 + shift), 401, 300, false);
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 401, .ack = 1, .off = 400, .len = 0, .o = o });
        o.dss.ssn = 1;
        o.dss.len = 65535;
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 501, .ack = 1, .off = 500, .len = 100, .o = o });
    }
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 401, .ack = 1, .off = 400, .len = 600 });
    CHECK_EQ(lab_read(&l), 600);
    CHECK(mp_stack_counter(l.st, MP_E_map_conflict) > 0);
    alive(&l);
}

TEST(data_far_beyond_the_window_is_dropped_and_data_within_it_bounded) /* memory by out-of-order DSNs */
{
    struct lab l = { 0 };
    lab_client(&l);
    mpc_setopt(l.c, MPC_RCVBUF, 65536, l.now);
    uint32_t seq = 1;
    for (uint64_t i = 0; i < 60000; i++, seq++) { /* in order on the subflow, one byte each, every second missing to the connection */
        uint64_t off = i % 3 ? 2 + 2 * i : (i << 40) + 5;
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = seq, .ack = 1, .off = off, .len = 1, .o = lab_map(&l, off, seq, 1, false) });
        while (l.qn) free(l.q[--l.qn].data);
        l.qi = 0;
    }
    CHECK(mp_stack_counter(l.st, MP_E_beyond_window) > 0);
    CHECK(mp_stack_counter(l.st, MP_E_memory_dropped) > 0);
    CHECK(l.c->ooo.mem_bytes <= 2u * 1024 * 1024 + 200000);
    CHECK_EQ(lab_read(&l), 0);
    alive(&l);
}

TEST(data_fins_that_lie)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_opts o = lab_map(&l, 200, 0, 0, true); /* where the stream may end: it is simply not there yet */
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_data(&l, P0, 1, 1, 0, 100);
    o = lab_map(&l, 100, 0, 0, true); /* another end: the first one stands */
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .o = o });
    CHECK(!mpc_eof(l.c));
    lab_data(&l, P0, 101, 1, 100, 100);
    CHECK_EQ(lab_read(&l), 200);
    CHECK(mpc_eof(l.c));
    alive(&l);
}

TEST(a_data_fin_beyond_the_window_is_no_end) /* as a FIN there is none: else one bare ACK would take the stream's end away */
{
    for (int with_data = 0; with_data < 2; with_data++) {
        struct lab l = { 0 };
        lab_client(&l);
        static const uint64_t far[] = { 1ull << 26, 1ull << 40, 1ull << 62, UINT64_MAX - 100 };
        uint32_t seq = 1;
        for (unsigned i = 0; i < sizeof far / sizeof *far; i++, seq += 10 * (uint32_t)with_data) {
            struct mp_opts o = with_data ? lab_map(&l, far[i], seq, 10, true) : lab_map(&l, far[i], 0, 0, true);
            lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = seq, .ack = 1, .len = 10 * (uint32_t)with_data, .off = far[i], .o = o });
        }
        lab_expect_counter(&l, data_fin_in, 0);
        lab_data(&l, P0, seq, 1, 0, 100);
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = seq + 100, .ack = 1, .o = lab_map(&l, 100, 0, 0, true) });
        CHECK_EQ(lab_read(&l), 100);
        CHECK(mpc_eof(l.c));
        alive(&l);
    }
}

TEST(data_behind_the_data_fin_is_not_delivered)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_map(&l, 0, 0, 0, true) });
    lab_data(&l, P0, 1, 1, 1, 100); /* the DATA_FIN took one */
    CHECK_EQ(lab_read(&l), 0);
    CHECK(mpc_eof(l.c));
    alive(&l);
}

TEST(a_fail_with_several_subflows_is_no_fallback) /* 3.7: it comes with the reset of one */
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_join(&l, 2);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_FAIL), .fail_dsn = l.idsn_engine + 1 };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_expect_counter(&l, fail_in, 1);
    lab_expect_counter(&l, fallback, 0);
    o = (struct mp_opts){ .mp = MP_OPT_HAS(MP_FASTCLOSE), .fastclose_key = l.key_engine ^ 1 };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_expect_counter(&l, fastclose_bad, 1);
    alive(&l);
}

TEST(options_that_lie_about_their_length)
{
    struct lab l = { 0 };
    uint64_t seed = 5;
    lab_client(&l);
    for (int sub = 0; sub < 16; sub++)
        for (uint8_t len = 0; len < 41; len++)
            for (int n = 4; n <= 40; n += 4) {
                uint8_t raw[40];
                for (int i = 0; i < n; i++) raw[i] = (uint8_t)test_random(&seed);
                raw[0] = 30, raw[1] = len, raw[2] = (uint8_t)(sub << 4 | (raw[2] & 15));
                if (sub == MP_FAIL || sub == MP_REMOVE_ADDR) continue; /* well formed, these are orders of the peer */
                lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .raw = raw, .nraw = (uint8_t)n });
                while (l.qn) free(l.q[--l.qn].data);
                l.qi = 0;
            }
    CHECK(mp_stack_counter(l.st, MP_E_opt_bad) + mp_stack_counter(l.st, MP_E_opt_list_broken) > 1000);
    CHECK_EQ(mpc_error(l.c), 0);
    CHECK_EQ(lab_read(&l), 0);
    lab_end(&l);
}
