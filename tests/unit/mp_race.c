/* The first SYN raced over the interfaces (core/race.c). */
#include "lab.h"

#include <errno.h>

#define RACE MP_MS(200)

static bool local_is(struct lab *l, const struct peer *p)
{
    struct mpc_info i = lab_info(l);
    return mp_endpoint_eq(&i.local, &p->engine);
}

static void two_interfaces(struct lab *l)
{
    lab_stack(l);
    lab_local_up(l, 2);
}

static void both_syns_out(struct lab *l)
{
    two_interfaces(l);
    lab_connect(l);
    lab_expect_options(lab_expect(l, &l->p[0], MP_SYN, 0, 0, 0), MP_CAPABLE);
    lab_wait(l, RACE);
    struct got *g = lab_expect(l, &l->p[1], MP_SYN, 0, 0, 0);
    lab_expect_options(g, MP_CAPABLE);
    CHECK_EQ(g->k.ifindex, 2);
    CHECK(lab_at(&g->k.src.ip, 2, 1));
    CHECK(mp_endpoint_eq(&g->k.dst, &l->p[0].peer));
    lab_expect_counter(l, syn_raced, 1);
}

static void second_wins(struct lab *l)
{
    both_syns_out(l);
    lab_wait(l, LAB_RTT);
    lab_synack(l, &l->p[1], lab_offer(l, 1));
    struct got *g = lab_expect(l, &l->p[1], MP_ACK, 1, 1, 0);
    if (!l->plain) {
        lab_expect_options(g, MP_CAPABLE);
        lab_learn_key(l, g->o.capable.key_snd);
    }
    CHECK(l->events & MP_EV_CONNECTED);
    CHECK(local_is(l, &l->p[1])); /* getsockname() */
    CHECK_EQ(lab_info(l).nsubflows, 1);
    CHECK(lab_sf(l, 0).initial && lab_sf(l, 0).local.port == l->p[1].engine.port);
}

TEST(a_silent_path_is_raced_by_the_next_one)
{
    struct lab l = { 0 };
    second_wins(&l);
    lab_ack_mp(&l, P1, 1, 1, 0);
    lab_wait(&l, MP_MS(1));
    /* MPTCP is confirmed: the first path is joined, with an id that is not the first subflow's 0. */
    struct peer *p = &l.p[2];
    struct got *g = lab_expect(&l, p, MP_SYN, 0, 0, 0);
    lab_expect_options(g, MP_JOIN);
    CHECK(lab_at(&g->k.src.ip, 1, 1) && g->o.join.addr_id != 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_quick_answer_starts_no_race)
{
    struct lab l = { 0 };
    two_interfaces(&l);
    lab_client_unconfirmed(&l);
    lab_wait(&l, MP_SEC(1));
    lab_expect_counter(&l, syn_raced, 0);
    lab_expect_nothing(&l);
    lab_end(&l);
}

/* Over the first path; the connection does not mind, and the path is given back. */
static void late_answer_is_reset(struct lab *l, struct mp_opts o)
{
    lab_synack(l, &l->p[0], o);
    lab_expect(l, &l->p[0], MP_RST | MP_ACK, 1, 1, 0);
    CHECK_EQ(mpc_error(l->c), 0);
    lab_wait(l, MP_SEC(10));
    CHECK_EQ(l->flows, 1);
}

TEST(a_late_answer_over_the_loser_is_reset)
{
    struct lab l = { 0 };
    second_wins(&l);
    lab_wait(&l, MP_SEC(1));
    lab_expect_nothing(&l); /* it does not ask again */
    late_answer_is_reset(&l, lab_offer(&l, 1));
    lab_end(&l);
}

TEST(a_loser_is_gone_after_a_while)
{
    struct lab l = { 0 };
    second_wins(&l);
    CHECK_EQ(l.flows, 2);
    lab_wait(&l, MP_SEC(10));
    CHECK_EQ(l.flows, 1);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(the_first_path_may_still_win)
{
    struct lab l = { 0 };
    both_syns_out(&l);
    lab_synack(&l, P0, lab_offer(&l, 1));
    lab_expect_options(lab_expect(&l, P0, MP_ACK, 1, 1, 0), MP_CAPABLE);
    CHECK(local_is(&l, P0));
    lab_synack(&l, P1, lab_offer(&l, 1));
    lab_expect(&l, P1, MP_RST | MP_ACK, 1, 1, 0);
    lab_end(&l);
}

TEST(a_plain_winner_is_plain_tcp_and_its_stream_is_right)
{
    struct lab l = { .plain = true };
    second_wins(&l);
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_OPTION_SYNACK);
    lab_write(&l, 1000);
    struct got *g = lab_expect(&l, P1, MP_ACK, 1, 1, 1000);
    CHECK(lab_payload_is(g, 0));
    lab_send(&l, P1, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1001, .len = 500 });
    CHECK_EQ(lab_read(&l), 500);
    lab_expect(&l, P1, MP_ACK, 1001, 501, 0);
    lab_end(&l);
}

TEST(a_refusal_over_the_first_path_is_the_answer)
{
    struct lab l = { 0 };
    both_syns_out(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 0, .ack = 1 });
    CHECK(l.events & MP_EV_CLOSED);
    CHECK_EQ(mpc_error(l.c), ECONNREFUSED);
    mpc_release(l.c, 0, l.now);
    lab_wait(&l, MP_SEC(10));
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(a_refusal_over_another_path_leaves_the_first_some_time)
{
    struct lab l = { 0 };
    both_syns_out(&l);
    lab_send(&l, P1, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 0, .ack = 1 });
    CHECK_EQ(mpc_error(l.c), 0);
    lab_synack(&l, P0, lab_offer(&l, 1));
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    CHECK(l.events & MP_EV_CONNECTED);
    lab_end(&l);
}

TEST(a_refusal_and_silence_are_a_refusal)
{
    struct lab l = { 0 };
    both_syns_out(&l);
    lab_send(&l, P1, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 0, .ack = 1 });
    lab_wait(&l, MP_SEC(8));
    CHECK_EQ(mpc_error(l.c), ECONNREFUSED);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_path_that_cannot_be_used_gives_way_at_once)
{
    struct lab l = { 0 };
    two_interfaces(&l);
    lab_connect(&l);
    struct got *g = lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    mp_stack_net_error(l.st, g->k.flow, EHOSTUNREACH, g->k.seq, true, 0, l.now);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_expect(&l, P1, MP_SYN, 0, 0, 0);
    mp_stack_net_error(l.st, l.q[l.qi - 1].k.flow, ENETUNREACH, 0, false, 0, l.now);
    CHECK_EQ(mpc_error(l.c), EHOSTUNREACH); /* the first one's error is the connection's */
    lab_end(&l);
}

TEST(a_metered_path_is_asked_last)
{
    struct lab l = { 0 };
    lab_stack(&l);
    struct mp_local m = lab_local(2), k = lab_local(3);
    m.backup = true;
    mp_stack_local_add(l.st, &m, l.now);
    mp_stack_local_add(l.st, &k, l.now);
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    lab_wait(&l, RACE);
    CHECK_EQ(lab_expect(&l, P1, MP_SYN, 0, 0, 0)->k.ifindex, 3);
    lab_wait(&l, MP_MS(600));
    lab_expect_nothing(&l);
    lab_wait(&l, MP_MS(210)); /* 1 s */
    while (lab_waiting(&l) && l.q[l.qi].p == P0) l.qi++; /* the first one's retransmission */
    CHECK_EQ(lab_expect(&l, &l.p[2], MP_SYN, 0, 0, 0)->k.ifindex, 2);
    lab_end(&l);
}

/* A box on the way back drops what bears MP_CAPABLE; the peer has our first SYN and goes on answering that. */
TEST(a_syn_without_the_option_goes_from_another_port_too)
{
    struct lab l = { .plain = true };
    lab_connect(&l);
    lab_wait(&l, MP_MS(2100));
    lab_forget(&l);
    lab_wait(&l, RACE);
    struct got *g = lab_expect(&l, P1, MP_SYN, 0, 0, 0);
    lab_expect_no_options(g);
    CHECK_EQ(g->k.ifindex, 1);
    CHECK(lab_at(&g->k.src.ip, 1, 1) && g->k.src.port != P0->engine.port);
    lab_wait(&l, LAB_RTT);
    lab_synack(&l, P1, (struct mp_opts){ 0 });
    lab_expect_no_options(lab_expect(&l, P1, MP_ACK, 1, 1, 0));
    CHECK(l.events & MP_EV_CONNECTED);
    CHECK(local_is(&l, P1));
    CHECK_EQ(lab_info(&l).why, MP_WHY_SYN_DROPPED);
    l.plain = false;
    late_answer_is_reset(&l, lab_capable(&l, 1)); /* the box lets one through: the peer need not wait any longer */
    lab_end(&l);
}

TEST(all_paths_silent_is_a_time_out_and_nothing_stays)
{
    struct lab l = { 0 };
    both_syns_out(&l);
    lab_wait(&l, MP_SEC(200));
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    mpc_release(l.c, 0, l.now);
    lab_wait(&l, MP_SEC(10));
    CHECK_EQ(mp_stack_live(l.st), 0);
    CHECK_EQ(l.flows, 0);
    lab_forget(&l);
    lab_end(&l);
}

static void no_race(struct mp_settings *s) { s->syn_race_ms = 0; }
TEST(the_race_can_be_turned_off)
{
    struct lab l = { .tune = no_race };
    two_interfaces(&l);
    lab_connect(&l);
    lab_wait(&l, MP_SEC(5));
    for (; lab_waiting(&l); l.qi++) CHECK(l.q[l.qi].p == P0);
    lab_end(&l);
}
