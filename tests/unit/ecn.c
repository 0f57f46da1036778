/* ECN, RFC 3168: who agrees on it, what is marked, one reduction a window, and paths that do not bear it. */
#include "lab_loss.h"

enum { OFFER = MP_ECE | MP_CWR, ECT0 = 2, CE = 3 };

static void set_on(struct mp_settings *s) { s->ecn = "on"; }
static void set_off(struct mp_settings *s) { s->ecn = "off"; }

/* A plain client's connection; the peer answers with these flags beside SYN and ACK. */
static void client(struct lab *l, uint8_t answer)
{
    l->plain = true;
    lab_connect(l);
    lab_expect(l, &l->p[0], MP_SYN | (l->tune ? OFFER : 0), 0, 0, 0);
    lab_wait(l, LAB_RTT);
    l->p[0].ts = true;
    lab_send(l, &l->p[0], (struct seg){ .flags = (uint8_t)(MP_SYN | MP_ACK | answer), .ack = 1, .o = lab_syn_options(l, (struct mp_opts){ 0 }) });
    lab_expect(l, &l->p[0], MP_ACK, 1, 1, 0);
}

static void server_syn(struct lab *l, uint8_t flags, uint8_t tos)
{
    struct mp_endpoint e = lab_ep(1, 1, 80), f = lab_ep(1, 2, 5001);
    l->plain = true;
    lab_listen(l);
    struct peer *p = lab_peer_new(l, &e, &f, 1);
    p->ts = true;
    lab_send(l, p, (struct seg){ .flags = (uint8_t)(MP_SYN | flags), .tos = tos, .o = lab_syn_options(l, (struct mp_opts){ 0 }) });
}

static void ack(struct lab *l, uint32_t n, uint8_t flags)
{
    lab_send(l, &l->p[0], (struct seg){ .flags = (uint8_t)(MP_ACK | flags), .seq = 1, .ack = n });
}

/* ---- agreeing ---- */

TEST(by_default_it_is_not_offered)
{
    struct lab l = { 0 };
    client(&l, MP_ECE); /* unasked */
    lab_write(&l, 1000);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
    CHECK_EQ(g->k.tos, 0);
    lab_expect_counter(&l, ecn_up, 0);
    lab_end(&l);
}

TEST(by_default_it_is_accepted)
{
    struct lab l = { 0 };
    server_syn(&l, OFFER, 0);
    lab_expect(&l, P0, MP_SYN | MP_ACK | MP_ECE, 0, 1, 0);
    lab_expect_counter(&l, ecn_up, 1);
    lab_end(&l);
}

TEST(switched_off_it_is_not_accepted)
{
    struct lab l = { .tune = set_off };
    server_syn(&l, OFFER, 0);
    lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_end(&l);
}

TEST(a_syn_with_one_of_the_flags_is_no_offer)
{
    struct lab l = { 0 };
    server_syn(&l, MP_ECE, 0);
    lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_end(&l);
}

TEST(a_syn_that_is_ect_comes_from_a_path_that_mangles_these_bits)
{
    struct lab l = { 0 };
    server_syn(&l, OFFER, ECT0);
    lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_end(&l);
}

TEST(an_answer_with_both_flags_is_a_reflected_syn) /* RFC 3168 6.1.1 */
{
    struct lab l = { .tune = set_on };
    client(&l, OFFER);
    lab_write(&l, 1000);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, 1, 1000)->k.tos, 0);
    lab_end(&l);
}

TEST(after_silence_the_syn_goes_without_the_offer_and_nothing_is_ect) /* RFC 3168 6.1.1.1 */
{
    struct lab l = { .tune = set_on, .plain = true };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN | OFFER, 0, 0, 0);
    lab_wait(&l, MP_MS(1050));
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    lab_expect_counter(&l, ecn_syn_plain, 1);
    l.p[0].ts = true;
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN | MP_ACK | MP_ECE, .ack = 1, .o = lab_syn_options(&l, (struct mp_opts){ 0 }) });
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    lab_write(&l, 1000);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, 1, 1000)->k.tos, 0);
    /* but the answer was to the first: the peer may mark, and is told */
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1001, .len = 10, .tos = CE });
    lab_expect(&l, P0, MP_ACK | MP_ECE, 1001, 11, 0);
    lab_end(&l);
}

TEST(a_server_whose_client_asks_again_without_it_sends_nothing_ect)
{
    struct lab l = { 0 };
    server_syn(&l, OFFER, 0);
    lab_expect(&l, P0, MP_SYN | MP_ACK | MP_ECE, 0, 1, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .o = lab_syn_options(&l, (struct mp_opts){ 0 }) });
    lab_expect(&l, P0, MP_SYN | MP_ACK | MP_ECE, 0, 1, 0);
    lab_ack(&l, P0, 1, 1);
    lab_forget(&l);
    lab_write(&l, 1000);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, 1, 1000)->k.tos, 0);
    lab_end(&l);
}

static void always_by_cookie(struct mp_settings *s) { s->syn_backlog = 0; }

TEST(a_syn_cookie_remembers_it)
{
    struct lab l = { .tune = always_by_cookie };
    server_syn(&l, OFFER, 0);
    lab_expect(&l, P0, MP_SYN | MP_ACK | MP_ECE, 0, 1, 0);
    lab_ack(&l, P0, 1, 1);
    lab_forget(&l);
    lab_expect_counter(&l, cookie_in, 1);
    lab_write(&l, 500);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, 1, 500)->k.tos, ECT0);
    lab_end(&l);
}

/* ---- receiving ---- */

TEST(a_mark_is_echoed_until_the_sender_has_reduced) /* RFC 3168 6.1.3 */
{
    struct lab l = { .tune = set_on };
    client(&l, MP_ECE);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 10, .tos = ECT0 });
    lab_expect(&l, P0, MP_ACK, 1, 11, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 11, .ack = 1, .off = 10, .len = 10, .tos = CE });
    lab_expect(&l, P0, MP_ACK | MP_ECE, 1, 21, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 21, .ack = 1, .off = 20, .len = 10, .tos = ECT0 });
    lab_expect(&l, P0, MP_ACK | MP_ECE, 1, 31, 0);
    lab_write(&l, 1000); /* on data too */
    lab_expect(&l, P0, MP_ACK | MP_ECE, 1, 31, 1000);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK | MP_CWR, .seq = 31, .ack = 1001, .off = 30, .len = 10, .tos = ECT0 });
    lab_expect(&l, P0, MP_ACK, 1001, 41, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK | MP_CWR, .seq = 41, .ack = 1001, .off = 40, .len = 10, .tos = CE }); /* marked anew */
    lab_expect(&l, P0, MP_ACK | MP_ECE, 1001, 51, 0);
    CHECK_EQ(lab_read(&l), 50);
    lab_end(&l);
}

TEST(a_mark_outside_the_window_means_nothing) /* RFC 3168 6.1.5 */
{
    struct lab l = { .tune = set_on };
    client(&l, MP_ECE);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 10 });
    lab_expect(&l, P0, MP_ACK, 1, 11, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 10, .tos = CE }); /* old */
    lab_expect(&l, P0, MP_ACK, 1, 11, 0);
    lab_end(&l);
}

/* ---- sending ---- */

TEST(only_new_data_is_ect) /* RFC 3168 6.1.4, 6.1.5 */
{
    struct lab l = { .tune = set_on };
    client(&l, MP_ECE);
    lab_write(&l, 1000);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, 1, 1000)->k.tos, ECT0);
    lab_wait(&l, MP_MS(300)); /* a tail loss probe */
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, 1, 1000)->k.tos, 0);
    ack(&l, 1001, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1001, .len = 10 });
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1001, 11, 0)->k.tos, 0);
    lab_end(&l);
}

TEST(the_programs_tos_is_kept)
{
    struct lab l = { .tune = set_on };
    client(&l, MP_ECE);
    mpc_setopt(l.c, MPC_TOS, 0xb9, l.now);
    lab_write(&l, 1000);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, 1, 1000)->k.tos, 0xb8 | ECT0);
    lab_end(&l);
}

TEST(echoes_reduce_the_window_once_a_round_trip) /* RFC 3168 6.1.2 */
{
    struct lab l = { .tune = set_on };
    client(&l, MP_ECE);
    lab_write(&l, 9000);
    for (int i = 0; i < 9; i++) CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1 + 1000 * (uint32_t)i, 1, 1000)->k.tos, ECT0);
    lab_wait(&l, LAB_RTT);
    uint64_t cwnd = lab_sf(&l, 0).cwnd;
    ack(&l, 2001, MP_ECE);
    CHECK_EQ(lab_sf(&l, 0).cwnd, cwnd / 2);
    ack(&l, 4001, MP_ECE);
    ack(&l, 6001, MP_ECE);
    lab_expect_counter(&l, ecn_reduced, 1);
    lab_write(&l, 5000);
    struct got *g = lab_next_data(&l, P0);
    CHECK_EQ(g->seq, 9001);
    CHECK(g->flags & MP_CWR); /* said once */
    g = lab_next_data(&l, P0);
    CHECK_EQ(g->flags & MP_CWR, 0);
    lab_forget(&l);
    ack(&l, 9001, MP_ECE); /* sent before the reduction was known */
    lab_expect_counter(&l, ecn_reduced, 1);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    ack(&l, 11001, MP_ECE); /* a new one */
    lab_expect_counter(&l, ecn_reduced, 2);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_loss_and_a_mark_in_one_window_reduce_it_once)
{
    struct lab l = { .tune = set_on };
    client(&l, MP_ECE);
    lab_write(&l, 9000);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    sack(&l, 1, 1001, 9001);
    lab_expect_counter(&l, recovery, 1);
    uint64_t ssthresh = lab_sf(&l, 0).ssthresh;
    CHECK_EQ(lab_next_data(&l, P0)->k.tos, 0); /* the one sent again */
    lab_wait(&l, LAB_RTT);
    ack(&l, 9001, MP_ECE);
    lab_expect_counter(&l, ecn_reduced, 0);
    CHECK_EQ(lab_sf(&l, 0).ssthresh, ssthresh);
    lab_write(&l, 1000);
    CHECK(lab_next_data(&l, P0)->flags & MP_CWR);
    lab_end(&l);
}

TEST(a_mark_in_a_needless_recovery_keeps_its_reduction)
{
    for (int marked = 0; marked < 2; marked++) {
        struct lab l = { .tune = set_on };
        client(&l, MP_ECE);
        lab_write(&l, 9000);
        lab_forget(&l);
        uint64_t cwnd = lab_sf(&l, 0).cwnd;
        lab_wait(&l, LAB_RTT);
        l.blocked = true;
        sack(&l, 1, 1001, 9001);
        lab_expect_counter(&l, recovery, 1);
        ack(&l, 9001, marked ? MP_ECE : 0); /* nothing was sent again, all is here */
        l.blocked = false;
        lab_expect_nothing(&l);
        lab_expect_counter(&l, spurious, 1);
        ROW("marked %d", marked);
        CHECK(marked ? lab_sf(&l, 0).cwnd < cwnd : lab_sf(&l, 0).cwnd >= cwnd);
        lab_end(&l);
    }
}

/* ---- paths that do not bear it ---- */

TEST(where_all_is_marked_marks_mean_nothing)
{
    struct lab l = { .tune = set_on };
    uint32_t at = 1;
    client(&l, MP_ECE);
    for (int i = 0; i < 20 && !mp_stack_counter(l.st, MP_E_ecn_given_up); i++) {
        lab_write(&l, 4000);
        lab_wait(&l, LAB_RTT);
        ack(&l, at = highest(&l), MP_ECE);
    }
    lab_expect_counter(&l, ecn_given_up, 1);
    lab_forget(&l);
    uint64_t cwnd = lab_sf(&l, 0).cwnd;
    lab_write(&l, 8000);
    CHECK_EQ(lab_next_data(&l, P0)->k.tos, 0);
    lab_wait(&l, LAB_RTT);
    ack(&l, highest(&l), MP_ECE);
    CHECK(lab_sf(&l, 0).cwnd >= cwnd);
    lab_forget(&l);
    lab_end(&l);
}

TEST(where_ect_vanishes_it_is_not_sent_any_more)
{
    struct lab l = { .tune = set_on };
    client(&l, MP_ECE);
    for (uint32_t i = 0; i < 2; i++) {
        lab_write(&l, 1000);
        CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1 + 1000 * i, 1, 1000)->k.tos, ECT0);
        lab_wait(&l, MP_MS(250));
        CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1 + 1000 * i, 1, 1000)->k.tos, 0); /* the probe gets through */
        ack(&l, 1001 + 1000 * i, 0);
    }
    lab_expect_counter(&l, ecn_given_up, 1);
    lab_write(&l, 1000);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 2001, 1, 1000)->k.tos, 0);
    lab_end(&l);
}
