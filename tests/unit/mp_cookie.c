/* SYN cookies (core/cookie.c, RFC 4987 3.6): many half-open connections, and those that come on top. */
#include "lab.h"

#include "core/stack_int.h"

static void always(struct mp_settings *s) { s->syn_backlog = 0; }
static void few(struct mp_settings *s) { s->syn_backlog = 4; }

static struct got *syn(struct lab *l, struct mp_opts o) /* answered, and nothing kept */
{
    lab_listen(l);
    struct peer *p = lab_syn(l, 1, 5001, o);
    struct got *g = lab_expect(l, p, MP_SYN | MP_ACK, (uint32_t)(l->q[l->qi].k.seq - p->irs), 1, 0);
    p->irs = g->k.seq;
    CHECK_EQ(mp_stack_live(l->st), 0);
    lab_wait(l, MP_SEC(5));
    lab_expect_nothing(l); /* it is not sent again: the client asks again */
    CHECK_EQ(l->flows, 0);
    if (g->o.mp & MP_OPT_HAS(MP_CAPABLE)) lab_learn_key(l, g->o.capable.key_snd);
    return g;
}

TEST(a_plain_connection_comes_from_its_third_ack)
{
    struct lab l = { .plain = true, .tune = always };
    struct got *g = syn(&l, (struct mp_opts){ 0 });
    lab_expect_no_options(g);
    CHECK(g->o.has_ts && g->o.sack_ok && g->o.has_wscale && g->o.has_mss);
    CHECK_EQ(g->o.mss, 1460);
    uint32_t ts = g->o.ts_val;
    mp_time at = g->at;
    lab_ack(&l, P0, 1, 1);
    CHECK(l.events & MP_EV_ACCEPT);
    lab_expect_counter(&l, cookie_in, 1);
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 500 });
    CHECK_EQ(lab_read(&l), 500);
    g = lab_expect(&l, P0, MP_ACK, 1, 501, 0);
    uint32_t ms = (uint32_t)((l.now - at) / MP_MS(1)); /* the cookie's clock was set back by the options that it holds */
    CHECK(g->o.ts_val - ts >= ms && g->o.ts_val - ts <= ms + 63);
    lab_write(&l, 500);
    CHECK(lab_payload_is(lab_expect(&l, P0, MP_ACK, 1, 501, 500), 0));
    lab_end(&l);
}

/* Where another stack has connections to the same addresses, only what answers a cookie of ours is ours. */
TEST(a_third_ack_of_no_flow_is_taken_and_nothing_else)
{
    struct lab l = { .plain = true, .tune = always };
    syn(&l, (struct mp_opts){ 0 });
    l.unowned = true;
    lab_ack(&l, P0, 1, 2);
    lab_expect_nothing(&l); /* no RST: it may be the other stack's */
    CHECK(!(l.events & MP_EV_ACCEPT));
    lab_ack(&l, P0, 1, 1);
    CHECK(l.events & MP_EV_ACCEPT);
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 500 }); /* it has a flow now */
    CHECK_EQ(lab_read(&l), 0);
    l.unowned = false;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 500 });
    CHECK_EQ(lab_read(&l), 500);
    lab_forget(&l);
    lab_end(&l);
}

TEST(without_cookies_nothing_of_no_flow_is_taken)
{
    struct lab l = { .plain = true, .unowned = true };
    lab_listen(&l);
    struct mp_endpoint e = lab_ep(1, 1, 80), f = lab_ep(1, 2, 5001);
    lab_ack(&l, lab_peer_new(&l, &e, &f, 1), 1, 1);
    lab_expect_nothing(&l);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(the_first_data_may_be_the_third_ack)
{
    struct lab l = { .plain = true, .tune = always };
    syn(&l, (struct mp_opts){ 0 });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 500 });
    CHECK(l.events & MP_EV_ACCEPT);
    CHECK_EQ(lab_read(&l), 500);
    lab_forget(&l);
    lab_end(&l);
}

TEST(mptcp_comes_back_with_the_keys)
{
    struct lab l = { .tune = always };
    struct got *g = syn(&l, lab_offer(&l, 0));
    lab_expect_options(g, MP_CAPABLE);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    CHECK(l.events & MP_EV_ACCEPT);
    lab_expect_options(lab_expect(&l, P0, MP_ACK, 1, 1, 0), MP_DSS);
    lab_data(&l, P0, 1, 1, 0, 500);
    CHECK_EQ(lab_read(&l), 500);
    CHECK(lab_info(&l).multipath);
    CHECK_EQ(lab_info(&l).token, l.token_engine);
    lab_forget(&l);
    lab_end(&l);
}

TEST(mptcp_comes_back_with_data_and_checksum)
{
    struct lab l = { .csum = true, .tune = always };
    syn(&l, lab_offer(&l, 0));
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 300, .o = lab_capable_data(&l, 300), .no_ts = true });
    CHECK_EQ(lab_read(&l), 300);
    CHECK(lab_info(&l).multipath && lab_info(&l).csum);
    lab_forget(&l);
    lab_end(&l);
}

TEST(an_option_that_got_lost_is_a_fallback)
{
    struct lab l = { .tune = always };
    syn(&l, lab_offer(&l, 0));
    lab_ack(&l, P0, 1, 1);
    CHECK(l.events & MP_EV_ACCEPT);
    CHECK(!lab_info(&l).multipath && lab_info(&l).why != MP_WHY_PENDING);
    lab_forget(&l);
    lab_end(&l);
}

TEST(without_timestamps_there_is_no_scale_and_no_sack)
{
    struct lab l = { .plain = true, .no_ts = true, .tune = always };
    struct got *g = syn(&l, (struct mp_opts){ 0 });
    CHECK(!g->o.has_ts && !g->o.sack_ok && !g->o.has_wscale);
    lab_ack(&l, P0, 1, 1);
    lab_forget(&l);
    lab_write(&l, 5000);
    g = lab_expect(&l, P0, MP_ACK, 1, 1, LAB_MSS < 536 ? LAB_MSS : 536);
    CHECK(lab_payload_is(g, 0));
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_wrong_cookie_is_a_segment_of_nobody)
{
    struct lab l = { .plain = true, .tune = always };
    syn(&l, (struct mp_opts){ 0 });
    for (int bit = 0; bit < 32; bit++) {
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1 ^ (1u << bit) });
        CHECK(!(l.events & MP_EV_ACCEPT));
    }
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 2, .ack = 1 });
    struct peer other = *P0;
    other.peer.port++;
    l.p[l.np++] = other;
    lab_send(&l, P1, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1 });
    CHECK(!(l.events & MP_EV_ACCEPT));
    for (; l.qi < l.qn; l.qi++) CHECK(l.q[l.qi].flags & MP_RST);
    CHECK(mp_stack_counter(l.st, MP_E_cookie_bad) >= 29); /* but for the bits that say its age */
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(an_old_cookie_is_refused)
{
    struct lab l = { .plain = true, .tune = always };
    syn(&l, (struct mp_opts){ 0 });
    lab_wait(&l, MP_SEC(400));
    lab_ack(&l, P0, 1, 1);
    CHECK(!(l.events & MP_EV_ACCEPT));
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_flood_keeps_a_bounded_number_and_nobody_out)
{
    struct lab l = { .tune = few };
    lab_listen(&l);
    for (uint16_t i = 0; i < 1000; i++) {
        l.np = 0;
        lab_syn(&l, 3, (uint16_t)(6000 + i), lab_offer(&l, 0));
        for (; l.qi < l.qn; l.qi++) free(l.q[l.qi].data);
        l.qn = l.qi = 0;
    }
    CHECK_EQ(l.st->nhalf, 4);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_expect_counter(&l, cookie_out, 996);
    l.np = 0;
    struct peer *p = lab_syn(&l, 1, 5001, lab_offer(&l, 0));
    struct got *g = &l.q[l.qi++];
    p->irs = g->k.seq;
    lab_learn_key(&l, g->o.capable.key_snd);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    CHECK(l.events & MP_EV_ACCEPT);
    CHECK(lab_info(&l).server);
    lab_forget(&l);
    lab_end(&l);
}
