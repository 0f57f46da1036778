/* ACKs without DATA_ACK: a peer that is plain, a proxy on the way, or one who is late (RFC 8684 3.7; core/conn_fallback.c). */
#include "lab_fallback.h"

/* Options die on the way to us only, and all has been said: no infinite mapping will tell a server that knows us to speak MPTCP
 * (Linux has our MP_CAPABLE with data) and would repeat what no DATA_ACK answers, as new bytes of plain TCP. */
TEST(unconfirmed_ack_of_all_data_without_data_ack)
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    lab_write(&l, 100);
    lab_expect(&l, P0, MP_ACK, 1, 1, 100);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, 101);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 101, .off = 0, .len = 100 });
    CHECK_EQ(fails_sent(&l), 1);
    int again = 0;
    for (uint32_t at = 100; at < 600; at += 100) { /* the first may be lost, and an answer does not come through */
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + at, .ack = 101, .off = at, .len = 100 });
        again += fails_sent(&l);
    }
    CHECK_EQ(again, 2);
    CHECK_EQ(lab_read(&l), 600);
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_OPTION_ACK);
    lab_end(&l);
}

TEST(unconfirmed_acks_of_data_without_data_ack_one_after_the_other) /* the timer is not waited for */
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    mpc_setopt(l.c, MPC_NODELAY, 1, l.now);
    lab_write(&l, 100);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, 101);
    lab_wait(&l, MP_MS(99));
    lab_write(&l, 100);
    lab_expect(&l, P0, MP_ACK, 101, 1, 100);
    lab_forget(&l);
    CHECK_EQ(lab_info(&l).why, MP_WHY_PENDING);
    lab_wait(&l, LAB_RTT + MP_MS(1));
    lab_ack(&l, P0, 1, 201);
    plain_works_and_is_told(&l, MP_WHY_NO_OPTION_ACK, 201, 1);
}

TEST(unconfirmed_ack_of_a_proxy_that_is_late) /* as late as the peer's own, for which we were too busy */
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    lab_write(&l, 100);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, 101);
    lab_ack_mp(&l, P0, 1, 101, 100);
    lab_wait(&l, MP_SEC(3));
    CHECK_EQ(lab_info(&l).why, MP_WHY_MULTIPATH);
    lab_expect_counter(&l, fallback, 0);
    lab_forget(&l);
    lab_end(&l);
}

/* The peer's data comes with mappings, so that this ACK is not its own: only a queue made it late (sim_matrix, a proxy and a
 * server that sends). */
TEST(confirmed_ack_of_a_proxy_that_is_late)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_write(&l, 100);
    lab_forget(&l);
    lab_wait(&l, 2 * LAB_RTT);
    lab_ack(&l, P0, 1, 101);
    CHECK(lab_info(&l).multipath);
    lab_ack_mp(&l, P0, 1, 101, 100);
    lab_wait(&l, MP_SEC(3));
    CHECK(lab_info(&l).multipath);
    lab_expect_counter(&l, fallback, 0);
    lab_forget(&l);
    lab_end(&l);
}

/* A hundred bytes, acknowledged without a DATA_ACK: it is plain TCP when nothing else has come for a while. */
static void bare_ack_and_no_other(struct lab *l)
{
    lab_write(l, 100);
    lab_forget(l);
    lab_wait(l, LAB_RTT);
    lab_ack(l, &l->p[0], 1, 101);
    lab_wait(l, lab_sf(l, 0).rto);
    CHECK_EQ(lab_info(l).why, MP_WHY_NO_OPTION_ACK);
    lab_forget(l);
    lab_end(l);
}

TEST(confirmed_ack_without_data_ack_and_no_other) /* one is enough, when none of our data was ever heard of */
{
    struct lab l = { 0 };
    lab_client(&l);
    bare_ack_and_no_other(&l);
}

static mp_time next_question(struct lab *l) /* a segment below the window, which any TCP answers; when it went out */
{
    for (mp_time end = l->now + MP_SEC(60); l->now < end; lab_wait(l, MP_MS(10)))
        while (l->qi < l->qn)
            if (l->q[l->qi++].seq == 0) return l->q[l->qi - 1].at;
    return MP_NEVER;
}

/* A bare DATA_FIN is nothing that a plain TCP would answer: every other time the peer is asked instead. After the first answer
 * without options the second is not left to the timer, which has backed off. */
TEST(unconfirmed_data_fin_to_a_peer_that_is_plain_already)
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    mpc_shutdown(l.c, l.now);
    lab_forget(&l);
    for (int i = 0; i < 3; i++) CHECK(next_question(&l) < MP_NEVER); /* lost */
    lab_ack(&l, P0, 1, 1);
    mp_time answered = l.now, rto = lab_sf(&l, 0).rto;
    CHECK(next_question(&l) <= answered + rto);
    lab_ack(&l, P0, 1, 1);
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_OPTION_ACK);
    lab_forget(&l);
    lab_end(&l);
}

TEST(unconfirmed_ack_without_data_ack_after_a_syn_that_was_sent_twice) /* no proxy, that is: the handshake timed nothing */
{
    struct lab l = { 0 };
    lab_connect(&l);
    lab_wait(&l, MP_MS(2000)); /* the SYN/ACK was lost, and comes again a second later */
    lab_forget(&l);
    lab_synack(&l, P0, lab_offer(&l, 1));
    lab_learn_key(&l, l.q[l.qi].o.capable.key_snd);
    lab_forget(&l);
    bare_ack_and_no_other(&l);
}

TEST(unconfirmed_ack_of_a_proxy_and_no_other) /* the peer went on as plain TCP: its own ACKs say nothing new */
{
    struct lab l = { 0 };
    lab_connect(&l);
    lab_wait(&l, LAB_RTT);
    lab_synack(&l, P0, lab_offer(&l, 1));
    lab_learn_key(&l, l.q[l.qi].o.capable.key_snd);
    lab_forget(&l);
    lab_write(&l, 100);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT / 4);
    lab_ack(&l, P0, 1, 101);
    CHECK_EQ(lab_info(&l).why, MP_WHY_PENDING); /* it may yet come with a DATA_ACK */
    lab_ack(&l, P0, 1, 101);
    lab_wait(&l, MP_SEC(10));
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_OPTION_ACK);
    lab_forget(&l);
    lab_end(&l);
}

/* A box joined segments, and the peer took what followed the mapped part as plain TCP; its answer to our join's SYN was under way. */
static void bare_acks_after_a_join(struct lab *l, const struct seg *answer)
{
    lab_client(l);
    struct peer *p = lab_join_until_third_ack(l, 2);
    lab_write(l, 5000);
    lab_send(l, p, *answer);
    lab_forget(l);
    lab_wait(l, LAB_RTT);
    for (uint32_t at = 1; at <= 4; at++) lab_ack(l, &l->p[0], 1, 1 + at * LAB_MSS);
}

TEST(a_peer_that_refused_the_third_ack_of_the_only_join_may_be_plain)
{
    struct lab l = { 0 };
    struct seg refusal = { .flags = MP_RST, .seq = 1, .o = { .mp = MP_OPT_HAS(MP_TCPRST), .tcprst = { .reason = MP_RST_PROHIBITED } } };
    bare_acks_after_a_join(&l, &refusal);
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_OPTION_ACK);
    lab_expect_counter(&l, fallback_refused, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_peer_that_took_the_join_and_ended_it_is_not)
{
    struct lab l = { 0 };
    struct seg end = { .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1 };
    bare_acks_after_a_join(&l, &end);
    CHECK_EQ(lab_info(&l).why, MP_WHY_MULTIPATH);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_peer_whose_reader_is_slow_keeps_multipath)
{
    struct lab l = { .csum = true, .wnd0 = 150 };
    lab_server(&l);
    P0->wnd = 0;
    lab_write(&l, 100);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack_mp(&l, P0, 1, 101, 0);
    lab_wait(&l, MP_SEC(5));
    CHECK(lab_info(&l).multipath);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_window_that_opens_without_options_is_a_fallback) /* simulation seed 1220556: all had come, nobody could say that it might go on */
{
    struct lab l = { .wnd0 = 100 };
    lab_server(&l);
    lab_write(&l, 100);
    lab_wait(&l, LAB_RTT);
    P0->wnd = 0;
    lab_ack_mp(&l, P0, 1, 101, 100);
    lab_write(&l, 100000);
    P0->wnd = 65535;
    for (int i = 0; i < 3; i++) {
        CHECK(lab_info(&l).multipath);
        lab_wait(&l, MP_SEC(3)); /* it was asked meanwhile */
        lab_forget(&l);
        lab_ack(&l, P0, 1, 101);
    }
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_OPTION_ACK);
    CHECK_EQ(lab_next_data(&l, P0)->seq, 101);
    lab_forget(&l);
    lab_end(&l);
}
