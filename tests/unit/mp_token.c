/* Tokens are unique in a host (RFC 8684 3.1), joins may come at any moment, and what nobody has confirmed costs little. */
#include "lab.h"

#include <malloc.h>

#include "core/stack_int.h"

static struct mp_opts join_syn(uint32_t token, uint32_t nonce)
{
    return (struct mp_opts){ .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_SYN, .addr_id = 5, .token = token, .nonce = nonce } };
}

TEST(a_key_whose_token_is_taken_is_drawn_again)
{
    struct lab l = { 0 };
    uint64_t keys[3], seed = 0;
    uint32_t tokens[3];
    for (int i = 0; i < 3; i++) { /* the same random numbers each time: the same key first */
        if (!l.st) lab_stack(&l), seed = l.seed;
        l.seed = seed;
        lab_connect(&l);
        keys[i] = l.c->v.key_local;
        tokens[i] = l.c->v.token_local;
        lab_forget(&l);
    }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < i; j++) CHECK(keys[i] != keys[j] && tokens[i] != tokens[j]);
    lab_end(&l);
}

TEST(a_servers_key_is_unique_too)
{
    struct lab l = { 0 };
    lab_listen(&l);
    uint64_t seed = l.seed;
    uint64_t key[2];
    for (int i = 0; i < 2; i++) {
        struct mp_endpoint e = lab_ep(1, 1, 80), f = lab_ep(1, 2, (uint16_t)(5001 + i));
        struct peer *p = lab_peer_new(&l, &e, &f, 1);
        l.seed = seed;
        lab_send(&l, p, (struct seg){ .flags = MP_SYN, .o = lab_syn_options(&l, lab_capable(&l, 0)) });
        struct got *g = lab_expect(&l, p, MP_SYN | MP_ACK, 0, 1, 0);
        lab_expect_options(g, MP_CAPABLE);
        key[i] = g->o.capable.key_snd;
    }
    CHECK(key[0] != key[1]);
    lab_end(&l);
}

TEST(two_peers_with_one_key_do_not_disturb_each_other) /* theirs need only be unique at their own host */
{
    struct lab l = { 0 };
    lab_server(&l);
    struct mpc *first = l.c;
    uint32_t token = l.token_engine;
    uint64_t key = l.key_engine;
    struct peer *p = lab_syn(&l, 1, 5002, lab_offer(&l, 0));
    struct got *g = lab_expect(&l, p, MP_SYN | MP_ACK, 0, 1, 0);
    lab_learn_key(&l, g->o.capable.key_snd);
    lab_wait(&l, LAB_RTT);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    CHECK(l.c != first && l.token_engine != token);
    lab_forget(&l);
    lab_learn_key(&l, key); /* a join to the first one is one to the first one */
    struct peer *q = lab_syn(&l, 2, 5003, join_syn(token, LAB_NONCE));
    lab_expect(&l, q, MP_SYN | MP_ACK, 0, 1, 0);
    lab_wait(&l, LAB_RTT);
    lab_send(&l, q, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(&l, q) });
    lab_expect(&l, q, MP_ACK, 1, 1, 0);
    struct mpc_info i;
    mpc_get_info(first, &i);
    CHECK_EQ(i.nsubflows, 2);
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_cookie_whose_token_is_taken_goes_on_without_mptcp) /* core/cookie.c: no other key can be told any more */
{
    struct lab l = { .plain = false };
    lab_listen(&l);
    struct mpc *holder = NULL;
    l.st->set.syn_backlog = 0;
    struct peer *p = lab_syn(&l, 1, 5001, lab_offer(&l, 0));
    struct got *g = &l.q[l.qi++];
    p->irs = g->k.seq;
    lab_learn_key(&l, g->o.capable.key_snd);
    holder = conn_new(l.st, false, l.now); /* meanwhile somebody else has drawn a key of that token */
    holder->v.offered = true;
    CHECK(conn_use_key(holder, l.key_engine));
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    CHECK(l.events & MP_EV_ACCEPT);
    CHECK(!lab_info(&l).multipath);
    CHECK(st_token_find(l.st, l.token_engine) == holder);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_join_that_overtakes_the_third_ack_is_refused_and_may_come_again)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    struct peer *q = lab_syn(&l, 2, 5003, join_syn(l.token_engine, LAB_NONCE));
    CHECK(lab_expect(&l, q, MP_RST | MP_ACK, (uint32_t)-q->irs, 1, 0)->o.mp & MP_OPT_HAS(MP_TCPRST));
    lab_expect_counter(&l, join_refused, 1);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    CHECK(l.events & MP_EV_ACCEPT);
    lab_ack_mp(&l, P0, 1, 1, 0);
    lab_forget(&l);
    struct peer *r = lab_syn(&l, 2, 5003, join_syn(l.token_engine, LAB_NONCE));
    lab_expect_options(lab_expect(&l, r, MP_SYN | MP_ACK, 0, 1, 0), MP_JOIN);
    lab_wait(&l, LAB_RTT);
    lab_send(&l, r, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(&l, r) });
    CHECK_EQ(lab_info(&l).nsubflows, 2);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_join_right_behind_the_third_ack_is_taken_before_the_program_accepts)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) }); /* nobody has taken the event's connection up */
    struct peer *q = lab_syn(&l, 2, 5003, join_syn(l.token_engine, LAB_NONCE));
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_send(&l, q, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(&l, q) });
    lab_data(&l, q, 1, 1, 0, 100); /* and data over it, before any over the first */
    CHECK_EQ(lab_read(&l), 100);
    CHECK_EQ(lab_info(&l).nsubflows, 2);
    lab_forget(&l);
    lab_end(&l);
}

/* ---- what half-open connections cost ---- */

static size_t heap(void) { return mallinfo2().uordblks; }

static void forget_all(struct lab *l)
{
    for (int i = 0; i < l->qn; i++) free(l->q[i].data);
    l->qn = l->qi = 0;
}

static void many(struct mp_settings *s) { s->syn_backlog = 64; }

TEST(a_half_open_connection_costs_at_most_256_bytes_and_a_cookie_nothing)
{
    struct lab l = { .tune = many };
    struct mp_endpoint at = { { 0 }, 80 };
    lab_stack(&l);
    CHECK_EQ(mp_stack_listen(l.st, &at, 3, 1000, &l), 0);
    size_t before = heap();
    bool tells = before > 0; /* a sanitizer's allocator does not */
    size_t kept = 0;
    for (uint16_t i = 0; i < 5000; i++) {
        l.np = 0;
        lab_syn(&l, 3, (uint16_t)(6000 + i), lab_offer(&l, 0));
        forget_all(&l);
        if (i == 63) kept = heap();
    }
    CHECK_EQ(l.st->nhalf, 64);
    CHECK_EQ(mp_stack_live(l.st), 0);
    CHECK(!tells || (kept - before) / 64 <= 256);
    CHECK(!tells || heap() <= kept + 4096);
    lab_wait(&l, MP_SEC(300));
    forget_all(&l);
    CHECK_EQ(l.st->nhalf, 0);
    CHECK(!tells || heap() <= before + 16384); /* the deadline heap keeps its room */
    if (tells) printf("a half-open connection: %zu bytes\n", (kept - before) / 64);
    lab_end(&l);
}

TEST(a_listener_opened_again_counts_those_that_it_takes_over)
{
    struct lab l = { .tune = many };
    struct mp_endpoint at = { { 0 }, 80 };
    lab_stack(&l);
    CHECK_EQ(mp_stack_listen(l.st, &at, 3, 1000, &l), 0);
    for (uint16_t i = 0; i < 66; i++) {
        if (i == 64) {
            mp_stack_unlisten(l.st, &l, l.now);
            CHECK_EQ(mp_stack_listen(l.st, &at, 3, 1000, &l), 0);
            CHECK_EQ(mp_stack_counter(l.st, MP_E_cookie_out), 0);
        }
        l.np = 0;
        lab_syn(&l, 3, (uint16_t)(6000 + i), lab_offer(&l, 0));
        forget_all(&l);
    }
    CHECK_EQ(l.st->nhalf, 64);
    lab_expect_counter(&l, cookie_out, 2);
    lab_wait(&l, MP_SEC(300)); /* and those that end there are gone from its count */
    forget_all(&l);
    l.np = 0;
    lab_syn(&l, 3, 7000, lab_offer(&l, 0));
    forget_all(&l);
    CHECK_EQ(l.st->nhalf, 1);
    lab_end(&l);
}

TEST(half_open_joins_are_bounded_and_end)
{
    struct lab l = { 0 };
    lab_server(&l);
    size_t before = heap();
    for (uint32_t i = 0; i < 2000; i++) {
        l.np = 1;
        lab_syn(&l, 2, (uint16_t)(6000 + i), join_syn(l.token_engine, i));
        forget_all(&l);
    }
    CHECK(lab_info(&l).nsubflows <= (int)l.set.max_subflows);
    CHECK(heap() <= before + 8 * 8192);
    lab_wait(&l, MP_SEC(200));
    forget_all(&l);
    CHECK_EQ(mpc_error(l.c), 0);
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_data(&l, P0, 1, 1, 0, 100);
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_end(&l);
}
