/* A path that brings nothing while the stream waits for it: asked, given up, knocked at (core/silence.c; RFC 8684 3.4.2). */
#include "lab_silence.h"

#include "core/stack_int.h"

static struct lab two(void) { return (struct lab){ .open_flags = 0 }; }

static void flow(struct lab *l, uint32_t n)
{
    lab_client(l);
    lab_join(l, 2);
    take_turns(l, n);
}

TEST(a_silent_path_is_removed_within_100_ms)
{
    struct lab l = two();
    flow(&l, 20);
    mp_time from = l.now;
    go_on_without_first(&l, 20, 100);
    CHECK(asked(&l, P0));
    const struct got *g = with(&l, P1, MP_REMOVE_ADDR);
    CHECK(g && g->o.remove_addr.n == 1 && g->o.remove_addr.id[0] == 0);
    CHECK(g && g->at - from >= MP_MS(50) && g->at - from <= MP_MS(100));
    g = with(&l, P0, MP_TCPRST);
    CHECK(g && (g->flags & MP_RST) && g->o.tcprst.reason == MP_RST_PERFORMANCE && g->o.tcprst.transient);
    lab_expect_counter(&l, path_silent, 1);
    lab_data(&l, P1, 1 + 120 * SEG, 1, 40 * SEG, SEG); /* the peer sends what was missing */
    CHECK_EQ(lab_read(&l), 101 * SEG);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_path_that_answers_is_kept)
{
    struct lab l = two();
    flow(&l, 20);
    for (int i = 0; i < 10; i++) {
        go_on_without_first(&l, 20 + 10 * (uint32_t)i, 10);
        if (asked(&l, P0)) lab_ack_mp(&l, P0, 1 + 20 * SEG, 1, 0), lab_forget(&l);
    }
    lab_expect_counter(&l, path_silent, 0);
    lab_expect_counter(&l, remove_addr_out, 0);
    lab_forget(&l);
    lab_end(&l);
}

/* Where the first path's queue grows while it brings data: what its segments echo is so many ms old. */
static void turns_with_old_echoes(struct lab *l, uint32_t n, uint32_t ms)
{
    const struct sf *s = st_find(l->st, &l->p[0].engine, &l->p[0].peer);
    for (uint32_t i = 0; i < n; i++) {
        l->p[0].ts_echo = sf_ts(s, l->now - MP_MS(ms));
        lab_data(l, &l->p[0], 1 + i * SEG, 1, 2 * i * SEG, SEG);
        lab_data(l, &l->p[1], 1 + i * SEG, 1, (2 * i + 1) * SEG, SEG);
        lab_wait(l, MP_MS(1));
    }
    lab_read(l);
    lab_forget(l);
}

TEST(an_answer_may_take_as_long_as_data_does_now)
{
    struct lab l = two();
    lab_client(&l);
    lab_join(&l, 2);
    lab_wait(&l, MP_SEC(1));
    turns_with_old_echoes(&l, 20, 100); /* the handshakes' round trips were LAB_RTT */
    mp_time from = l.now;
    go_on_without_first(&l, 20, 120);
    CHECK(asked(&l, P0));
    lab_expect_counter(&l, path_silent, 0);
    for (uint32_t i = 120; i < 150; i++) {
        lab_data(&l, P1, 1 + (20 + i) * SEG, 1, (41 + i) * SEG, SEG);
        lab_wait(&l, MP_MS(1));
    }
    lab_expect_counter(&l, path_silent, 1);
    CHECK(l.now - from <= MP_MS(150));
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_peer_that_sends_nothing_on_either_path_is_not_blamed_on_one)
{
    struct lab l = two();
    flow(&l, 20);
    go_on_without_first(&l, 20, 2);
    lab_wait(&l, MP_MS(900)); /* a program that pauses: rescue.c asks about that */
    lab_expect_counter(&l, path_silent, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_silence_that_the_stream_does_not_wait_for_is_no_silence)
{
    struct lab l = two();
    flow(&l, 20);
    for (uint32_t i = 0; i < 300; i++) { /* all comes over the second path, in order */
        lab_data(&l, P1, 1 + (20 + i) * SEG, 1, (40 + i) * SEG, SEG);
        lab_wait(&l, MP_MS(1));
    }
    lab_expect_counter(&l, path_silent, 0);
    CHECK_EQ(lab_read(&l), 300 * SEG);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_path_that_was_late_before_is_given_as_much_time_again)
{
    struct lab l = two();
    flow(&l, 20);
    go_on_without_first(&l, 20, 45); /* asked, answered in time */
    lab_data(&l, P0, 1 + 20 * SEG, 1, 40 * SEG, SEG);
    lab_data(&l, P0, 1 + 21 * SEG, 1, 86 * SEG, SEG);
    lab_read(&l);
    for (uint32_t i = 0; i < 620; i++) lab_wait(&l, MP_MS(1)); /* another question may be asked */
    lab_forget(&l);
    mp_time from = l.now;
    for (uint32_t i = 0; i < 120; i++) {
        lab_data(&l, P1, 1 + (65 + i) * SEG, 1, (88 + i) * SEG, SEG);
        lab_wait(&l, MP_MS(1));
        if (i == 30) CHECK(!asked(&l, P0)); /* it needed 45 ms before */
    }
    lab_expect_counter(&l, path_silent, 0);
    for (uint32_t i = 120; i < 160; i++) {
        lab_data(&l, P1, 1 + (65 + i) * SEG, 1, (88 + i) * SEG, SEG);
        lab_wait(&l, MP_MS(1));
    }
    lab_expect_counter(&l, path_silent, 1);
    CHECK(l.now - from <= MP_MS(160));
    lab_forget(&l);
    lab_end(&l);
}

/* The peer answers the join that knocks, that much later. */
static void rejoin(struct lab *l, int silent_ms)
{
    flow(l, 20);
    go_on_without_first(l, 20, 100);
    lab_forget(l);
    lab_wait(l, MP_MS(silent_ms));
    struct peer *p = &l->p[2]; /* after a second of silence rescue.c asks for one over the other path too */
    CHECK(l->np >= 3 && p->ifindex == 1);
    lab_forget(l);
    lab_synack(l, p, lab_join_synack(l, p, 0));
    lab_wait(l, LAB_RTT);
    lab_ack_mp(l, p, 1, 1, l->dack);
    lab_forget(l);
}

TEST(a_silent_path_is_knocked_at_twice_a_second)
{
    struct lab l = two();
    flow(&l, 20);
    go_on_without_first(&l, 20, 100);
    lab_forget(&l);
    lab_wait(&l, MP_SEC(10));
    int syns = 0;
    for (int i = l.qi; i < l.qn; i++) syns += l.q[i].flags == MP_SYN && (l.q[i].o.mp & MP_OPT_HAS(MP_JOIN)) && l.q[i].k.ifindex == 1;
    CHECK(syns >= 18 && syns <= 22);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_path_that_answers_again_is_joined_again)
{
    struct lab l = two();
    rejoin(&l, 3000);
    lab_expect_counter(&l, join_up, 2);
    CHECK_EQ(l.p[2].id_engine, 0); /* the address's own id: RFC 8684 3.4.2 lets it be used again */
    lab_end(&l);
}

TEST(a_wrong_verdict_doubles_the_patience)
{
    struct lab l = two();
    rejoin(&l, 210); /* the first knock is answered: it was alive */
    uint32_t at = 120;
    for (uint32_t i = 0; i < 10; i++) lab_data(&l, &l.p[2], 1 + i * SEG, 1, (40 + 101 + i) * SEG, SEG);
    lab_data(&l, P1, 1 + at * SEG, 1, 40 * SEG, SEG); /* the old hole */
    lab_wait(&l, MP_SEC(1));
    lab_read(&l);
    lab_forget(&l);
    for (uint32_t i = 0; i < 90; i++) { /* the fresh subflow is silent as well */
        lab_data(&l, P1, 1 + (at + 1 + i) * SEG, 1, (400 + i) * SEG, SEG);
        lab_wait(&l, MP_MS(1));
    }
    lab_expect_counter(&l, path_silent, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(two_subflows_of_one_address_are_not_removed_for_one)
{
    struct lab l = two();
    lab_client(&l);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_ADD_ADDR), .add_addr = { .addr_id = 4, .ip = lab_ep(3, 2, 0).ip } };
    o.add_addr.hmac = mp_add_addr_hmac(LAB_PEER_KEY, l.key_engine, 4, &o.add_addr.ip, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o }); /* one interface, two addresses of the peer */
    lab_forget(&l);
    CHECK_EQ(l.np, 2);
    lab_wait(&l, LAB_RTT);
    lab_synack(&l, P1, lab_join_synack(&l, P1, 4));
    lab_wait(&l, LAB_RTT);
    lab_ack_mp(&l, P1, 1, 1, 0);
    for (uint32_t i = 0; i < 20; i++) {
        lab_data(&l, P0, 1 + i * SEG, 1, 2 * i * SEG, SEG);
        lab_data(&l, P1, 1 + i * SEG, 1, (2 * i + 1) * SEG, SEG);
        lab_wait(&l, MP_MS(1));
    }
    go_on_without_first(&l, 20, 150);
    lab_expect_counter(&l, remove_addr_out, 0);
    lab_expect_counter(&l, path_silent, 0);
    lab_read(&l);
    lab_forget(&l);
    lab_end(&l);
}
