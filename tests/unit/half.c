/* Half-open connections (core/half.c): what is kept of a SYN until its third ACK. What the peer sees of it is in tcp_open.c,
 * mp_capable.c and mp_token.c. */
#include "lab.h"

#include "core/stack_int.h"

static int kept(const struct lab *l) { return l->st->nhalf; }

TEST(nothing_but_a_record_is_kept_until_the_third_ack)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    CHECK_EQ(kept(&l), 1);
    CHECK_EQ(mp_stack_live(l.st), 0);
    CHECK_EQ(l.flows, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    CHECK_EQ(kept(&l), 0);
    CHECK_EQ(mp_stack_live(l.st), 1);
    lab_expect_counter(&l, syn_in, 1); /* made three times, it is one */
    lab_expect_counter(&l, capable_syn_in, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(the_handshake_times_the_round_trip)
{
    struct lab l = { 0 };
    lab_server(&l);
    CHECK_EQ(lab_sf(&l, 0).srtt, LAB_RTT);
    lab_end(&l);
}

TEST(a_syn_ack_that_was_repeated_times_nothing) /* RFC 6298 3, Karn */
{
    struct lab l = { .plain = true, .no_ts = true };
    lab_server_syn(&l);
    lab_wait(&l, MP_MS(1500));
    lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_ack(&l, P0, 1, 1);
    CHECK(l.events & MP_EV_ACCEPT);
    CHECK_EQ(lab_sf(&l, 0).srtt, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(the_first_ack_times_the_syn_ack_not_the_one_that_opens)
{
    for (int once = 0; once < 2; once++) {
        struct lab l = { .no_ts = true };
        lab_server_syn(&l); /* answered one LAB_RTT ago */
        if (!once) lab_wait(&l, MP_SEC(1)); /* and again: it times nothing */
        lab_forget(&l);
        lab_data(&l, P0, 1001, 1, 1000, 1000); /* overtook the first */
        CHECK(!(l.events & MP_EV_ACCEPT));
        lab_wait(&l, MP_MS(300));
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 1000, .o = lab_capable_data(&l, 1000) });
        CHECK(l.events & MP_EV_ACCEPT);
        CHECK_EQ(lab_sf(&l, 0).srtt, once ? LAB_RTT : 0);
        lab_forget(&l);
        lab_end(&l);
    }
}

TEST(the_same_syn_ack_goes_out_after_1_2_4_seconds)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    mp_time at = l.now - LAB_RTT;
    for (int i = 0; i < 6; i++) {
        at += MP_SEC(1) << i;
        lab_wait_until(&l, at);
        struct got *g = lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
        if (i < 2) CHECK_EQ(g->o.capable.key_snd, l.key_engine);
        lab_expect_nothing(&l);
    }
    lab_wait(&l, MP_SEC(65));
    lab_expect_nothing(&l);
    CHECK_EQ(kept(&l), 0);
    lab_expect_counter(&l, syn_timeout, 1);
    lab_end(&l);
}

TEST(only_an_exact_reset_ends_it) /* RFC 5961 3 */
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 2 });
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 0 });
    CHECK_EQ(kept(&l), 1);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 1 });
    CHECK_EQ(kept(&l), 0);
    lab_end(&l);
}

TEST(another_syn_of_the_same_ports_is_challenged) /* RFC 5961 4: blind, it must not put out the peer's own */
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .seq = 77777, .o = lab_syn_options(&l, lab_offer(&l, 0)) });
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .seq = 88888, .o = lab_syn_options(&l, lab_offer(&l, 0)) });
    lab_expect_nothing(&l); /* not one for each */
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    CHECK(l.events & MP_EV_ACCEPT);
    lab_forget(&l);
    lab_end(&l);
}

TEST(an_ack_that_guesses_our_number_makes_nothing)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    for (int bit = 0; bit < 32; bit++) lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1 ^ (1u << bit) });
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    lab_expect_nothing(&l);
    CHECK_EQ(kept(&l), 1);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(a_synack_that_three_times_drew_nothing_goes_without_the_option) /* a box may drop those; simulation seed 1530974 */
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    for (int i = 0; i < 2; i++) {
        lab_wait(&l, MP_SEC(1) << i);
        CHECK(lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0)->o.mp & MP_OPT_HAS(MP_CAPABLE));
    }
    lab_wait(&l, MP_SEC(4));
    const struct got *g = lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    CHECK_EQ(g->o.mp, 0);
    CHECK(g->o.has_ts && g->o.mss);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    CHECK(l.events & MP_EV_ACCEPT);
    lab_data(&l, P0, 1, 1, 0, 100);
    CHECK_EQ(lab_info(&l).why, MP_WHY_MULTIPATH);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_syn_that_comes_again_with_the_option_is_answered_with_it_however_often)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    for (int i = 0; i < 5; i++) {
        lab_wait(&l, MP_MS(500));
        lab_forget(&l);
        lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .seq = 0, .o = lab_syn_options(&l, lab_offer(&l, 0)) });
        CHECK(lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0)->o.mp & MP_OPT_HAS(MP_CAPABLE));
    }
    lab_forget(&l);
    lab_end(&l);
}

/* ---- its listener goes ---- */

TEST(a_listener_that_goes_for_good_resets_them)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    lab_wait(&l, MP_MS(900)); /* its SYN/ACK would be repeated in the meantime */
    mp_stack_unlisten(l.st, &l, l.now);
    lab_wait(&l, MP_MS(240));
    lab_expect_nothing(&l);
    CHECK_EQ(kept(&l), 1);
    lab_wait(&l, MP_MS(20));
    lab_expect(&l, P0, MP_RST | MP_ACK, 1, 1, 0);
    CHECK_EQ(kept(&l), 0);
    lab_end(&l);
}

TEST(without_a_listener_their_third_ack_is_reset_at_once)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    mp_stack_unlisten(l.st, &l, l.now);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    lab_expect(&l, P0, MP_RST | MP_ACK, 1, 1, 0);
    CHECK_EQ(kept(&l), 0);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(a_listener_opened_again_has_those_of_the_one_before)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    mp_stack_unlisten(l.st, &l, l.now);
    lab_wait(&l, MP_MS(100));
    struct mp_endpoint at = { { 0 }, 80 };
    CHECK_EQ(mp_stack_listen(l.st, &at, 3, 16, &l), 0);
    lab_wait(&l, MP_MS(200)); /* the new one is theirs: nothing ends */
    lab_expect_nothing(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    CHECK(l.events & MP_EV_ACCEPT);
    CHECK_EQ(kept(&l), 0);
    lab_data(&l, P0, 1, 1, 0, 100);
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_end(&l);
}

TEST(for_a_move_to_another_stack_they_become_connections)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    mp_stack_settle(l.st, l.now);
    CHECK_EQ(kept(&l), 0);
    CHECK_EQ(mp_stack_live(l.st), 1);
    lab_expect_nothing(&l);
    lab_wait(&l, MP_SEC(1)); /* its SYN/ACK again, at its time */
    CHECK_EQ(lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0)->o.capable.key_snd, l.key_engine);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    CHECK(l.events & MP_EV_ACCEPT);
    lab_data(&l, P0, 1, 1, 0, 100);
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_burst_of_syns_is_answered_to_the_last)
{
    struct lab l = { .plain = true };
    int answers = 0;
    lab_listen(&l);
    l.st->set.syn_backlog = 1000;
    l.st->listeners->backlog = 1000;
    for (int i = 0; i < 200; i++) { /* all before the first answer is taken */
        struct mp_opts o = lab_syn_options(&l, (struct mp_opts){ 0 });
        struct mp_pkt k = { .src = lab_ep(1, 2, (uint16_t)(5001 + i)), .dst = lab_ep(1, 1, 80), .ifindex = 1, .flags = MP_SYN, .wnd = 65535 };
        k.optlen = (uint8_t)mp_opts_len(&o);
        mp_opts_emit(k.opt, &o);
        mp_stack_input(l.st, &k, l.now);
    }
    lab_wait(&l, MP_MS(100));
    for (; l.qi < l.qn; l.qi++) answers += l.q[l.qi].flags == (MP_SYN | MP_ACK);
    CHECK_EQ(answers, 200);
    lab_end(&l);
}

static void cookies(struct mp_settings *s) { s->syn_backlog = 0; }

TEST(nothing_is_opened_while_the_program_accepts_nothing_and_its_backlog_is_full)
{
    for (int cookie = 0; cookie < 2; cookie++) {
        struct lab l = { .plain = true, .tune = cookie ? cookies : NULL };
        lab_listen(&l);
        struct peer *p = lab_syn(&l, 1, 5001, (struct mp_opts){ 0 });
        CHECK_EQ(lab_waiting(&l), 1);
        lab_forget(&l);
        l.crowded = true;
        lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
        lab_syn(&l, 1, 5002, (struct mp_opts){ 0 });
        lab_expect_nothing(&l); /* neither a reset */
        CHECK_EQ(mp_stack_live(l.st), 0);
        lab_expect_counter(&l, backlog_full, 2);
        l.crowded = false;
        lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
        CHECK(l.events & MP_EV_ACCEPT);
        CHECK_EQ(lab_read(&l), 100);
        lab_forget(&l);
        lab_end(&l);
    }
}
