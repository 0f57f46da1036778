/* The end of an MPTCP connection: DATA_FIN on both sides, MP_FASTCLOSE, resets (RFC 8684 3.3.3, 3.5, 3.6). */
#include "core/stack_int.h"

#include "lab.h"

#include <errno.h>

static void data_fin_in(struct lab *l, struct peer *p, uint32_t ack)
{
    lab_send(l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = ack, .o = lab_map(l, 0, 0, 0, true) });
}

TEST(subflow_fins_follow_the_data_fins) /* 3.3.3 */
{
    struct lab l = { 0 };
    lab_client(&l);
    mpc_shutdown(l.c, l.now);
    CHECK(lab_expect(&l, P0, MP_ACK, 1, 1, 0)->o.dss.data_fin);
    lab_ack_mp(&l, P0, 1, 1, 1);
    CHECK(mpc_send_done(l.c));
    lab_expect_nothing(&l); /* half-closed: the subflow stays */
    data_fin_in(&l, P0, 1);
    bool fin = false, dack = false;
    for (; l.qi < l.qn; l.qi++) {
        fin |= !!(l.q[l.qi].flags & MP_FIN);
        dack |= l.q[l.qi].o.dss.has_ack && l.q[l.qi].o.dss.data_ack == l.idsn_peer + 2;
    }
    CHECK(fin && dack);
    CHECK(mpc_eof(l.c));
    CHECK(l.events & MP_EV_CLOSED);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(all_subflows_are_closed_and_forgotten)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    mpc_release(l.c, 0, l.now);
    lab_forget(&l);
    lab_ack_mp(&l, P0, 1, 1, 1);
    data_fin_in(&l, P0, 1);
    int fins = 0;
    for (; l.qi < l.qn; l.qi++) fins += !!(l.q[l.qi].flags & MP_FIN);
    CHECK_EQ(fins, 2);
    lab_send(&l, P0, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 1, .ack = 2, .o = lab_dack(&l) });
    lab_send(&l, p, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 1, .ack = 2, .o = lab_dack(&l) });
    lab_wait(&l, MP_SEC(61));
    lab_forget(&l);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

/* Linux takes no notice of a DATA_FIN on data that has come over another subflow before, nor of any after it. */
TEST(with_several_subflows_the_data_fin_goes_alone)
{
    for (int joined = 0; joined < 2; joined++) {
        struct lab l = { 0 };
        int alone = 0, on_data = 0;
        lab_client(&l);
        if (joined) lab_join(&l, 2);
        lab_forget(&l);
        CHECK_EQ(mpc_write(l.c, "last", 4, l.now), 4);
        mpc_shutdown(l.c, l.now);
        lab_pump(&l);
        for (; l.qi < l.qn; l.qi++)
            if (l.q[l.qi].o.dss.data_fin) *(l.q[l.qi].len ? &on_data : &alone) += 1;
        CHECK_EQ(on_data, !joined);
        CHECK_EQ(alone, joined ? 2 : 0);
        lab_end(&l);
    }
}

TEST(a_fin_of_one_subflow_ends_only_that)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    lab_send(&l, p, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 1, .ack = 1, .o = lab_dack(&l) });
    lab_forget(&l);
    CHECK(!mpc_eof(l.c));
    lab_data(&l, P0, 1, 1, 0, 100);
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_write(&l, 50000);
    for (int i = l.qi; i < l.qn; i++) CHECK(l.q[i].p == P0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_subflow_that_has_sent_its_fin_is_no_sibling) /* to coupled congestion control: nothing new ever goes there */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    CHECK_EQ(conn_cc_group(l.c, l.c->sfs).n, 2);
    lab_send(&l, p, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 1, .ack = 1, .o = lab_dack(&l) });
    lab_said(&l, p, MP_FIN, 0);
    CHECK_EQ(conn_cc_group(l.c, l.c->sfs).n, 1);
    for (struct sf *s = l.c->sfs; s; s = s->next) {
        struct mp_cc_group g = conn_cc_group(l.c, s);
        CHECK(g.s[g.self] == &s->v.cc);
    }
    lab_forget(&l);
    lab_end(&l);
}

TEST(an_abort_is_a_fast_close) /* 3.5 */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    mpc_abort(l.c, l.now);
    CHECK_EQ(lab_waiting(&l), 2);
    bool fast = false;
    for (; l.qi < l.qn; l.qi++) {
        CHECK(l.q[l.qi].flags & MP_RST);
        if (l.q[l.qi].o.mp & MP_OPT_HAS(MP_FASTCLOSE)) {
            fast = true;
            CHECK_EQ(l.q[l.qi].o.fastclose_key, LAB_PEER_KEY);
        }
    }
    CHECK(fast);
    CHECK(l.events & MP_EV_CLOSED);
    lab_expect_counter(&l, subflow_reset_out, 2);
    (void)p;
    lab_end(&l);
}

/* What a survivor would say is what an abort says. */
TEST(last_words_are_those_of_an_abort) /* 3.5 */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    lab_write(&l, 500);
    lab_data(&l, p, 1, 1, 0, 300);
    lab_forget(&l);
    struct mp_last_words w[2];
    int n = 0;
    for (struct sf *s = l.c->sfs; s; s = s->next) CHECK(n < 2 && mpc_last_words(l.c, s->flow, &w[n++]));
    CHECK_EQ(n, 2);
    CHECK(mpc_last_words(l.c, NULL, &w[0]) && w[0].flow == l.c->sfs->flow);
    CHECK(!mpc_last_words(l.c, &l, &w[0]));
    mpc_abort(l.c, l.now);
    CHECK_EQ(lab_waiting(&l), 2);
    for (; l.qi < l.qn; l.qi++) {
        const struct got *g = &l.q[l.qi];
        const struct mp_last_words *s = &w[mp_endpoint_eq(&w[1].local, &g->k.src)];
        CHECK(mp_endpoint_eq(&s->local, &g->k.src) && mp_endpoint_eq(&s->remote, &g->k.dst));
        CHECK_EQ(s->kind, MP_LAST_FASTCLOSE);
        CHECK_EQ(s->key, LAB_PEER_KEY);
        CHECK_EQ(s->seq, g->k.seq);
        CHECK_EQ(s->ack, g->k.ack);
        CHECK_EQ(s->ifindex, g->k.ifindex);
        CHECK(!mpc_last_words(l.c, s->flow, &w[0]));
    }
    lab_end(&l);
}

TEST(last_words_of_plain_tcp_are_a_reset)
{
    struct lab l = { .plain = true };
    struct mp_last_words w;
    lab_client(&l);
    lab_write(&l, 100);
    lab_expect(&l, P0, MP_ACK, 1, 1, 100);
    CHECK(mpc_last_words(l.c, NULL, &w));
    CHECK_EQ(w.kind, MP_LAST_RST);
    CHECK_EQ(w.key, 0);
    CHECK_EQ(w.seq, P0->irs + 101);
    lab_end(&l);
}

/* A server that has said nothing yet may have a client that only listens. */
TEST(there_are_last_words_from_the_third_ack_on_and_none_when_all_is_said)
{
    struct lab l = { 0 };
    struct mp_last_words w;
    lab_server(&l);
    CHECK(mpc_last_words(l.c, NULL, &w));
    CHECK_EQ(w.seq, P0->irs + 1);
    mpc_shutdown(l.c, l.now);
    lab_forget(&l);
    CHECK(mpc_last_words(l.c, NULL, &w));
    lab_ack_mp(&l, P0, 1, 1, 1);
    data_fin_in(&l, P0, 1);
    lab_forget(&l);
    CHECK(!mpc_last_words(l.c, NULL, &w));
    lab_end(&l);
}

TEST(an_abort_with_no_subflow_left_ends_in_silence) /* 3.5: there is nothing to send it on */
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 1, .o = { .mp = MP_OPT_HAS(MP_TCPRST), .tcprst = { .transient = true } } });
    CHECK_EQ(mpc_error(l.c), 0); /* break before make */
    lab_wait(&l, MP_SEC(1));
    mpc_abort(l.c, l.now);
    lab_expect_nothing(&l);
    CHECK_EQ(mpc_error(l.c), ECONNABORTED);
    lab_expect_counter(&l, fastclose_out, 0);
    mpc_release(l.c, 0, l.now);
    lab_wait(&l, MP_SEC(61));
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(what_still_comes_after_a_fast_close_gets_it_again)
{
    struct lab l = { 0 };
    lab_client(&l);
    mpc_abort(l.c, l.now);
    lab_forget(&l);
    lab_wait(&l, MP_MS(5));
    lab_data(&l, P0, 1, 1, 0, 100);
    struct got *g = lab_expect(&l, P0, MP_RST | MP_ACK, 1, 1, 0);
    CHECK(g->o.mp & MP_OPT_HAS(MP_FASTCLOSE));
    lab_end(&l);
}

TEST(a_fast_close_from_the_peer_resets_all) /* 3.5 */
{
    for (int rst = 0; rst < 2; rst++) {
        struct lab l = { 0 };
        ROW("%s", rst ? "on a reset" : "on an ACK");
        lab_client(&l);
        struct peer *p = lab_join(&l, 2);
        struct mp_opts o = { .mp = MP_OPT_HAS(MP_FASTCLOSE), .fastclose_key = l.key_engine };
        lab_send(&l, P0, (struct seg){ .flags = rst ? MP_RST : MP_ACK, .seq = 1, .ack = rst ? 0 : 1, .o = o });
        CHECK_EQ(mpc_error(l.c), ECONNRESET);
        CHECK(l.events & MP_EV_CLOSED);
        lab_expect_counter(&l, fastclose_in, 1);
        CHECK(lab_said(&l, p, MP_RST, 0)->flags);
        lab_end(&l);
    }
    ROW("%s", "");
}

/* The client knows our key from the SYN/ACK; no DSS of it has come yet, and perhaps no third ACK. */
TEST(a_fast_close_before_mptcp_is_proved_ends_the_connection) /* 3.5 */
{
    for (int step = 0; step < 3; step++) {
        static const char *const when[] = { "client, third ACK sent", "server, third ACK here", "server, third ACK missing" };
        struct lab l = { 0 };
        ROW("%s", when[step]);
        if (step == 0) lab_client_unconfirmed(&l);
        if (step == 1) lab_server_unconfirmed(&l);
        if (step == 2) lab_server_syn(&l);
        struct mp_opts o = { .mp = MP_OPT_HAS(MP_FASTCLOSE), .fastclose_key = l.key_engine };
        lab_send(&l, P0, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1, .o = o });
        lab_expect_nothing(&l);
        if (step < 2) {
            CHECK_EQ(mpc_error(l.c), ECONNRESET);
            lab_expect_counter(&l, fastclose_in, 1);
            mpc_release(l.c, 0, l.now);
        }
        lab_wait(&l, MP_SEC(1));
        CHECK_EQ(mp_stack_live(l.st), 0);
        CHECK_EQ(l.flows, 0);
        lab_end(&l);
    }
    ROW("%s", "");
}

/* 3.3.3: both ends close at once, and each DATA_FIN goes another way. */
TEST(a_reset_before_mptcp_is_proved_ends_the_connection) /* 3.1: no join is possible yet; simulation seed 551381 */
{
    for (int aside = 0; aside < 2; aside++) {
        struct lab l = { 0 };
        lab_client_unconfirmed(&l);
        if (aside) mp_stack_local_del(l.st, 1, &P0->engine.ip, l.now);
        lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 1 });
        CHECK(l.events & MP_EV_CLOSED);
        CHECK_EQ(mpc_error(l.c), ECONNRESET);
        lab_expect_nothing(&l);
        lab_end(&l);
    }
}

TEST(data_fins_that_cross_on_different_subflows)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    mpc_shutdown(l.c, l.now);
    lab_forget(&l); /* ours is on its way over both */
    data_fin_in(&l, p, 1);
    CHECK(mpc_eof(l.c));
    const struct got *g = lab_said(&l, NULL, MP_ACK, MP_OPT_HAS(MP_DSS));
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 2);
    CHECK(!(l.events & MP_EV_CLOSED));
    lab_ack_mp(&l, P0, 1, 1, 1);
    CHECK(l.events & MP_EV_CLOSED);
    CHECK_EQ(mpc_error(l.c), 0);
    int fins = 0;
    for (; l.qi < l.qn; l.qi++) fins += !!(l.q[l.qi].flags & MP_FIN);
    CHECK_EQ(fins, 2);
    lab_end(&l);
}

TEST(a_fast_close_with_a_wrong_key_is_ignored)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_FASTCLOSE), .fastclose_key = l.key_engine ^ 1 };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    CHECK_EQ(mpc_error(l.c), 0);
    lab_expect_counter(&l, fastclose_bad, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_reset_of_the_only_subflow_is_replaced)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 1, .o = { .mp = MP_OPT_HAS(MP_TCPRST), .tcprst = { .transient = true, .reason = MP_RST_PERFORMANCE } } });
    CHECK_EQ(mpc_error(l.c), 0);
    lab_wait(&l, MP_SEC(1));
    lab_expect_options(lab_expect(&l, P1, MP_SYN, 0, 0, 0), MP_JOIN);
    lab_forget(&l);
    lab_end(&l);
}

TEST(when_the_peer_knows_the_token_no_more_the_connection_is_over)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 1 });
    lab_wait(&l, MP_SEC(1));
    lab_expect(&l, P1, MP_SYN, 0, 0, 0);
    lab_send(&l, P1, (struct seg){ .flags = MP_RST | MP_ACK, .ack = 1, .o = { .mp = MP_OPT_HAS(MP_TCPRST), .tcprst = { .reason = MP_RST_MPTCP } } });
    lab_wait(&l, MP_SEC(1));
    lab_forget(&l);
    CHECK_EQ(mpc_error(l.c), ECONNRESET);
    lab_end(&l);
}

TEST(a_released_connection_delivers_what_was_written)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_write(&l, 5000);
    mpc_release(l.c, 0, l.now);
    lab_pump(&l);
    uint64_t len = 0;
    bool fin = false;
    for (; l.qi < l.qn; l.qi++) len += l.q[l.qi].len, fin |= l.q[l.qi].o.dss.data_fin;
    CHECK_EQ(len, 5000);
    CHECK(fin);
    lab_ack_mp(&l, P0, 1, 5001, 5001);
    data_fin_in(&l, P0, 5001);
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 1, .ack = 5002, .o = lab_dack(&l) });
    lab_wait(&l, MP_SEC(61));
    lab_forget(&l);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(a_released_connection_lives_as_long_as_its_data_gets_on) /* a slow download from a server that has closed */
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_write(&l, 5000);
    mpc_release(l.c, MP_SEC(1), l.now);
    for (uint32_t got = 1000; got <= 5000; got += 1000) {
        lab_forget(&l);
        lab_wait(&l, MP_MS(800));
        lab_ack_mp(&l, P0, 1, 1 + got, got);
    }
    lab_ack_mp(&l, P0, 1, 5001, 5001);
    lab_forget(&l);
    lab_wait(&l, MP_SEC(50)); /* for the peer's end */
    CHECK_EQ(mp_stack_live(l.st), 1);
    lab_wait(&l, MP_SEC(70));
    lab_forget(&l);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(a_released_connection_is_given_up_when_nothing_gets_on)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_write(&l, 2000);
    mpc_release(l.c, MP_SEC(5), l.now);
    lab_wait(&l, MP_MS(800));
    lab_ack_mp(&l, P0, 1, 1001, 1000);
    lab_wait(&l, MP_SEC(4));
    CHECK_EQ(mpc_error(l.c), 0);
    lab_wait(&l, MP_SEC(3));
    lab_forget(&l);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(data_for_a_released_connection_resets_it)
{
    struct lab l = { 0 };
    lab_server(&l);
    mpc_release(l.c, 0, l.now);
    lab_forget(&l);
    lab_data(&l, P0, 1, 1, 0, 100);
    CHECK(lab_next_data(&l, P0)->len == 0);
    lab_expect_counter(&l, fastclose_out, 1);
    lab_forget(&l);
    lab_wait(&l, MP_SEC(10));
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_released_connection_does_not_wait_for_ever_for_the_peers_end)
{
    struct lab l = { 0 };
    lab_server(&l);
    mpc_release(l.c, 0, l.now);
    lab_forget(&l);
    lab_ack_mp(&l, P0, 1, 1, 1);
    lab_wait(&l, MP_SEC(120));
    lab_forget(&l);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(a_silent_peer_ends_the_connection_with_etimedout)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_write(&l, 1000);
    lab_wait(&l, MP_SEC(3600));
    lab_forget(&l);
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    lab_end(&l);
}

/* Linux acknowledges data on the subflow and keeps the DATA_ACK back while its program does not read. */
TEST(a_data_fin_waits_for_a_reader_as_long_as_it_answers)
{
    for (int one = 0; one < 2; one++) {
        struct lab l = { 0 };
        ROW("%s", one ? "one subflow" : "two");
        lab_client(&l);
        if (!one) lab_join(&l, 2);
        lab_write(&l, 5000);
        mpc_shutdown(l.c, l.now);
        uint32_t end[2] = { 1, 1 };
        for (int i = 0; i < 1200; i++) {
            lab_wait(&l, MP_SEC(1));
            bool asked = lab_waiting(&l);
            for (l.qi = 0; l.qn; l.qn--) { /* the lab does not keep all that is said in twenty minutes */
                const struct got *g = &l.q[l.qn - 1];
                end[g->p - l.p] = (uint32_t)mp_max(end[g->p - l.p], g->seq + g->len + !!(g->flags & (MP_FIN | MP_SYN)));
                free(g->data);
            }
            for (int k = 0; k < l.np && asked; k++) lab_ack_mp(&l, &l.p[k], 1, end[k], 0);
        }
        CHECK_EQ(mpc_error(l.c), 0);
        lab_forget(&l);
        if (!one && !mpc_error(l.c)) { /* it has read */
            lab_ack_mp(&l, P0, 1, (uint32_t)l.c->sfs->v.snd_nxt, 5001);
            CHECK(mpc_send_done(l.c));
        } /* else it has gone on as plain TCP: core/conn_timer.c, data_stuck */
        lab_forget(&l);
        lab_end(&l);
    }
    ROW("%s", "");
}

/* As Linux does when its endpoint is deleted; nothing would ever have told us that no more comes. */
TEST(a_peer_that_closes_its_last_subflow_without_a_data_fin_is_not_waited_for_without_end) /* 3.3.3 */
{
    for (int client = 0; client < 2; client++) {
        struct lab l = { 0 };
        ROW("%s", client ? "client" : "server");
        if (client) lab_client(&l);
        else lab_server(&l);
        lab_write(&l, 1000);
        lab_ack_mp(&l, P0, 1, 1001, 1000);
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK | MP_FIN, .seq = 1, .ack = 1001, .o = lab_dack(&l) });
        lab_forget(&l);
        lab_wait(&l, MP_SEC(58));
        CHECK_EQ(mpc_error(l.c), 0);
        CHECK(!mpc_eof(l.c));
        lab_wait(&l, MP_SEC(4));
        CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
        lab_forget(&l);
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(a_client_comes_back_to_a_peer_that_closed_its_last_subflow) /* break before make, RFC 8684 3.3.3 */
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_write(&l, 1000);
    lab_ack_mp(&l, P0, 1, 1001, 1000);
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK | MP_FIN, .seq = 1, .ack = 1001, .o = lab_dack(&l) });
    lab_expect(&l, P0, MP_ACK, 1001, 2, 0);
    lab_expect_options(lab_expect(&l, P1, MP_SYN, 0, 0, 0), MP_JOIN);
    lab_synack(&l, P1, lab_join_synack(&l, P1, 0));
    lab_expect(&l, P1, MP_ACK, 1, 1, 0);
    lab_ack_mp(&l, P1, 1, 1, 1000);
    lab_expect(&l, P0, MP_ACK | MP_FIN, 1001, 2, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 2, .ack = 1002 });
    lab_write(&l, 1000);
    lab_expect(&l, P1, MP_ACK, 1, 1, 1000);
    lab_ack_mp(&l, P1, 1, 1001, 2000);
    lab_wait(&l, MP_SEC(100));
    lab_forget(&l);
    CHECK_EQ(mpc_error(l.c), 0);
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_end(&l);
}

TEST(a_peer_that_ended_its_stream_may_close_its_last_subflow) /* and takes ours over it */
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_map(&l, 0, 0, 0, true) });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK | MP_FIN, .seq = 1, .ack = 1, .o = lab_dack(&l) });
    lab_forget(&l);
    CHECK(mpc_eof(l.c));
    lab_wait(&l, MP_SEC(200));
    CHECK_EQ(mpc_error(l.c), 0);
    lab_write(&l, 1000);
    lab_expect(&l, P0, MP_ACK, 1, 2, 1000);
    lab_forget(&l);
    lab_end(&l);
}
