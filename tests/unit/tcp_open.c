/* Opening and being opened, plain TCP (RFC 9293 3.5, 3.10.7.3). */
#include "lab.h"

#include <errno.h>

TEST(a_connection_opens_in_three_steps)
{
    struct lab l = { .plain = true };
    lab_connect(&l);
    struct got *g = lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    CHECK_EQ(g->o.mss, 1460 - 28); /* MP_CAPABLE is offered: mp_capable.c */
    CHECK(g->o.sack_ok && g->o.has_ts && g->o.has_wscale);
    lab_expect_nothing(&l);
    lab_wait(&l, LAB_RTT);
    lab_synack(&l, P0, (struct mp_opts){ 0 });
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    lab_expect_nothing(&l);
    CHECK_EQ(l.events, MP_EV_CONNECTED | MP_EV_WRITABLE);
    CHECK(!strcmp(lab_sf(&l, 0).state, "ESTABLISHED"));
    CHECK_EQ(lab_sf(&l, 0).srtt, LAB_RTT);
    CHECK_EQ(lab_sf(&l, 0).mss, LAB_MSS);
    CHECK(lab_sf(&l, 0).cwnd <= 10 * LAB_MSS && lab_sf(&l, 0).cwnd > 9 * LAB_MSS); /* RFC 6928 */
    lab_end(&l);
}

static void one_port(struct mp_settings *set) { set->syn_race_ms = 0; } /* mp_race.c has the others */

TEST(a_syn_is_sent_again_with_doubled_waiting)
{
    struct lab l = { .plain = true, .tune = one_port };
    lab_connect(&l);
    mp_time t = l.now;
    lab_wait(&l, MP_MS(8100));
    mp_dur at[] = { 0, 1000, 2100, 4100, 8100 }; /* RFC 6298 2.1, 5.5; the first without MP_CAPABLE comes early */
    for (int i = 0; i < 5; i++) {
        struct got *g = lab_expect(&l, P0, MP_SYN, 0, 0, 0);
        CHECK_EQ(g->at, t + MP_MS(at[i]));
        CHECK_EQ(g->o.mp != 0, i < 2);
    }
    lab_end(&l);
}

TEST(a_syn_that_was_repeated_times_only_by_its_timestamp) /* RFC 6298 3, Karn */
{
    for (int ts = 0; ts < 2; ts++) {
        struct lab l = { .plain = true, .no_ts = !ts };
        lab_connect(&l);
        lab_wait(&l, MP_SEC(1));
        lab_expect(&l, P0, MP_SYN, 0, 0, 0);
        lab_expect(&l, P0, MP_SYN, 0, 0, 0);
        lab_wait(&l, LAB_RTT);
        lab_synack(&l, P0, (struct mp_opts){ 0 });
        lab_expect(&l, P0, MP_ACK, 1, 1, 0);
        CHECK_EQ(lab_sf(&l, 0).srtt, ts ? LAB_RTT : 0);
        lab_end(&l);
    }
}

TEST(an_unanswered_connection_ends_with_etimedout)
{
    struct lab l = { .plain = true, .tune = one_port };
    lab_connect(&l);
    lab_wait(&l, MP_SEC(300));
    lab_forget(&l);
    CHECK_EQ(l.events, MP_EV_CLOSED);
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    lab_expect_counter(&l, syn_timeout, 1);
    lab_end(&l);
}

TEST(a_link_that_comes_and_goes_does_not_use_up_the_syns)
{
    struct lab l = { .plain = true };
    struct mp_local m = lab_local(1);
    lab_connect(&l);
    for (int i = 0; i < 8; i++) {
        mp_stack_local_del(l.st, 1, &m.ip, l.now);
        lab_wait(&l, MP_MS(1500));
        mp_stack_local_add(l.st, &m, l.now);
        lab_wait(&l, MP_MS(100));
    }
    CHECK_EQ(mpc_error(l.c), 0);
    lab_wait(&l, MP_SEC(20));
    CHECK_EQ(mpc_error(l.c), 0);
    for (int i = 0; i < 30; i++) { /* but it ends */
        mp_stack_local_del(l.st, 1, &m.ip, l.now);
        lab_wait(&l, MP_SEC(10));
        mp_stack_local_add(l.st, &m, l.now);
    }
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_refused_connection_ends_with_econnrefused)
{
    struct lab l = { .plain = true };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST | MP_ACK, .ack = 1 });
    CHECK_EQ(mpc_error(l.c), ECONNREFUSED);
    CHECK(l.events & MP_EV_CLOSED);
    lab_end(&l);
}

TEST(a_reset_that_acknowledges_something_else_is_ignored) /* RFC 9293 3.10.7.3 */
{
    struct lab l = { .plain = true };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST | MP_ACK, .ack = 2 });
    lab_send(&l, P0, (struct seg){ .flags = MP_RST });
    lab_expect_nothing(&l);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_synack(&l, P0, (struct mp_opts){ 0 });
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    lab_end(&l);
}

TEST(a_firewall_that_refuses_the_syn_is_obeyed)
{
    struct lab l = { .plain = true };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    mp_stack_net_error(l.st, l.q[0].k.flow, EPERM, 0, false, 0, l.now);
    lab_pump(&l);
    CHECK_EQ(mpc_error(l.c), EPERM);
    lab_end(&l);
}

TEST(an_icmp_error_about_something_never_sent_is_ignored) /* RFC 5927 4 */
{
    struct lab l = { .plain = true };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    mp_stack_net_error(l.st, l.q[0].k.flow, ECONNREFUSED, l.q[0].k.seq + 5000, true, 0, l.now);
    CHECK_EQ(mpc_error(l.c), 0);
    mp_stack_net_error(l.st, l.q[0].k.flow, ECONNREFUSED, l.q[0].k.seq, true, 0, l.now);
    lab_pump(&l);
    CHECK_EQ(mpc_error(l.c), ECONNREFUSED);
    lab_end(&l);
}

TEST(an_icmp_error_on_an_open_connection_is_soft) /* RFC 9293 3.9.2.2 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 100);
    lab_expect(&l, P0, MP_ACK, 1, 1, 100);
    mp_stack_net_error(l.st, l.q[0].k.flow, EHOSTUNREACH, l.q[l.qn - 1].k.seq, true, 0, l.now);
    lab_pump(&l);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_ack(&l, P0, 1, 101);
    CHECK(mpc_send_done(l.c));
    lab_end(&l);
}

TEST(a_smaller_path_mtu_makes_smaller_segments) /* RFC 1191 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 1000);
    lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
    mp_stack_net_error(l.st, l.q[0].k.flow, EMSGSIZE, l.q[l.qn - 1].k.seq, true, 600, l.now);
    CHECK_EQ(lab_sf(&l, 0).mss, 600 - 40 - 12);
    lab_end(&l);
}

TEST(a_flow_that_cannot_be_opened_is_told_at_once)
{
    struct lab l = { .plain = true };
    int err = 0;
    struct mp_endpoint to = lab_ep(1, 2, 80), from = lab_ep(1, 1, 0);
    lab_stack(&l);
    l.refuse_flow = true;
    CHECK(!mp_stack_connect(l.st, &to, &from.ip, 1, 0, NULL, l.now, &err));
    CHECK_EQ(err, EACCES);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(an_early_ack_of_the_syn_that_is_wrong_is_answered_by_reset) /* RFC 9293 3.10.7.3 first */
{
    struct lab l = { .plain = true };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 77, .ack = 500 });
    lab_expect(&l, P0, MP_RST, 500, 0, 0); /* half-open connections are cleared by that, RFC 9293 3.5.1 */
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_syn_that_an_old_connection_answers_goes_again_behind_the_reset_with_its_option)
{
    struct lab l = { 0 };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    for (int i = 0; i < 4; i++) {
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 77, .ack = 500 });
        lab_expect(&l, P0, MP_RST, 500, 0, 0);
        if (i < 3) CHECK(lab_expect(&l, P0, MP_SYN, 0, 0, 0)->o.mp & MP_OPT_HAS(MP_CAPABLE));
        lab_expect_nothing(&l); /* after the third time at its time-out only */
    }
    lab_wait(&l, MP_MS(1100));
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_connection_without_timestamps_and_sack)
{
    struct lab l = { .plain = true, .no_ts = true, .no_sack = true };
    lab_client(&l);
    lab_write(&l, 3000);
    for (uint32_t i = 0; i < 3; i++) {
        struct got *g = lab_expect(&l, P0, MP_ACK, 1 + i * 1000, 1, 1000);
        CHECK(!g->o.has_ts);
        CHECK(lab_payload_is(g, i * 1000));
    }
    lab_ack(&l, P0, 1, 3001);
    lab_end(&l);
}

TEST(a_listener_answers_and_accepts)
{
    struct lab l = { .plain = true };
    lab_server(&l);
    CHECK(l.c && mpc_owner(l.c) == &l);
    CHECK_EQ(l.events, MP_EV_ACCEPT);
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_OPTION_SYNACK);
    lab_end(&l);
}

TEST(a_syn_for_nobody_is_answered_by_reset) /* RFC 9293 3.10.7.1 */
{
    struct lab l = { .plain = true };
    lab_stack(&l);
    lab_syn(&l, 1, 5001, (struct mp_opts){ 0 });
    lab_expect(&l, P0, MP_RST | MP_ACK, (uint32_t)-P0->irs, 1, 0);
    lab_expect_counter(&l, listen_unmatched, 1);
    lab_end(&l);
}

TEST(a_syn_for_a_listener_that_has_just_gone_is_answered_by_reset)
{
    struct lab l = { .plain = true, .closed = true };
    lab_listen(&l);
    lab_syn(&l, 1, 5001, (struct mp_opts){ 0 });
    lab_expect(&l, P0, MP_RST | MP_ACK, (uint32_t)-P0->irs, 1, 0);
    lab_expect_counter(&l, listen_unmatched, 1);
    lab_end(&l);
}

TEST(a_stray_segment_is_answered_by_a_reset_that_its_sender_believes)
{
    struct lab l = { .plain = true };
    lab_stack(&l);
    struct mp_endpoint e = lab_ep(1, 1, 80), f = lab_ep(1, 2, 9);
    struct peer *p = lab_peer_new(&l, &e, &f, 1);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 3, .ack = 1234, .len = 10 });
    lab_expect(&l, p, MP_RST, 1234, 0, 0);
    lab_send(&l, p, (struct seg){ .flags = MP_FIN, .seq = 3, .len = 10 });
    lab_expect(&l, p, MP_RST | MP_ACK, 0, 14, 0);
    lab_send(&l, p, (struct seg){ .flags = MP_RST, .seq = 3 });
    lab_expect_counter(&l, no_flow_ignored, 1);
    lab_end(&l);
}

TEST(a_repeated_syn_is_answered_again)
{
    struct lab l = { .plain = true };
    lab_server_syn(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .o = lab_syn_options(&l, (struct mp_opts){ 0 }) });
    lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_end(&l);
}

TEST(the_answer_to_a_repeated_syn_echoes_its_timestamp) /* RFC 7323 4.3: or the client times two round trips */
{
    struct lab l = { .plain = true };
    lab_server_syn(&l);
    lab_wait(&l, MP_MS(900));
    uint32_t ts = lab_ts(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .o = lab_syn_options(&l, (struct mp_opts){ 0 }) });
    CHECK_EQ(lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0)->o.ts_ecr, ts);
    lab_end(&l);
}

TEST(a_syn_ack_is_sent_again_and_given_up)
{
    struct lab l = { .plain = true };
    lab_server_syn(&l);
    lab_wait(&l, MP_SEC(1));
    lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_wait(&l, MP_SEC(300));
    lab_forget(&l);
    CHECK_EQ(mp_stack_live(l.st), 0);
    CHECK_EQ(l.events, 0);
    lab_end(&l);
}

TEST(simultaneous_open_is_plain_tcp) /* RFC 9293 3.5 figure 7 */
{
    struct lab l = { .plain = true };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    P0->ts = true;
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .o = lab_syn_options(&l, (struct mp_opts){ 0 }) });
    struct got *g = lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_expect_no_options(g);
    lab_ack(&l, P0, 1, 1);
    CHECK(l.events & MP_EV_CONNECTED);
    CHECK_EQ(lab_info(&l).why, MP_WHY_SIMOPEN);
    lab_expect(&l, P0, MP_ACK, 1, 1, 0); /* opens the window */
    lab_write(&l, 10);
    lab_expect(&l, P0, MP_ACK, 1, 1, 10);
    lab_end(&l);
}

TEST(syn_acks_of_a_simultaneous_open_may_cross) /* RFC 9293 3.5 figure 7, lines 4 to 6: at a peer that is as we are */
{
    struct lab l = { .plain = true, .peer_wscale = 3 };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    P0->ts = true;
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .o = lab_syn_options(&l, (struct mp_opts){ 0 }) });
    lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN | MP_ACK, .seq = 0, .ack = 2, .o = lab_syn_options(&l, (struct mp_opts){ 0 }) });
    CHECK(!(l.events & MP_EV_CONNECTED)); /* it acknowledges what was not sent */
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN | MP_ACK, .seq = 0, .ack = 1, .o = lab_syn_options(&l, (struct mp_opts){ 0 }) });
    CHECK(l.events & MP_EV_CONNECTED);
    CHECK(lab_sf(&l, 0).snd_wnd <= 65535); /* its window is not scaled */
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    lab_write(&l, 10);
    lab_expect(&l, P0, MP_ACK, 1, 1, 10);
    lab_end(&l);
}

TEST(a_broken_option_list_is_dropped)
{
    struct lab l = { .plain = true };
    static const uint8_t bad[] = { 8, 1, 0, 0 };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 4, .raw = bad, .nraw = 4 });
    lab_expect_counter(&l, opt_list_broken, 1);
    CHECK_EQ(mpc_readable(l.c), 0);
    lab_end(&l);
}
