/* Further subflows: MP_JOIN in both roles (RFC 8684 3.2). */
#include "lab.h"

#include <errno.h>

static struct peer *join_syn(struct lab *l) /* client: the engine's MP_JOIN SYN is out */
{
    lab_local_up(l, 2);
    lab_pump(l);
    struct got *g = lab_expect(l, &l->p[1], MP_SYN, 0, 0, 0);
    lab_expect_options(g, MP_JOIN);
    CHECK_EQ(g->o.join.token, l->token_peer);
    return &l->p[1];
}

TEST(a_second_address_joins_once_mptcp_is_confirmed)
{
    struct lab l = { 0 };
    lab_stack(&l);
    struct mp_local m = lab_local(2);
    mp_stack_local_add(l.st, &m, l.now);
    lab_client_unconfirmed(&l);
    lab_wait(&l, MP_SEC(1));
    lab_expect_nothing(&l); /* not before */
    lab_ack_mp(&l, P0, 1, 1, 0);
    struct got *g = lab_expect(&l, P1, MP_SYN, 0, 0, 0);
    lab_expect_options(g, MP_JOIN);
    CHECK(mp_addr_eq(&g->k.src.ip, &m.ip));
    CHECK(mp_endpoint_eq(&g->k.dst, &P0->peer));
    CHECK_EQ(g->k.ifindex, 2);
    CHECK(g->o.join.addr_id != 0); /* 0 is the first subflow's address */
    lab_end(&l);
}

TEST(a_join_tells_the_mss_of_the_first_subflow)
{
    struct lab l = { 0 }, m = { 0 };
    lab_client(&l);
    struct mp_local second = lab_local(2);
    mp_stack_local_add(l.st, &second, l.now);
    lab_pump(&l);
    CHECK_EQ(lab_expect(&l, P1, MP_SYN, 0, 0, 0)->o.mss, 1460 - 28);
    lab_end(&l);
    lab_server(&m);
    lab_local_up(&m, 2);
    struct peer *p = lab_syn(&m, 2, 5002, lab_join_syn(&m));
    CHECK_EQ(lab_expect(&m, p, MP_SYN | MP_ACK, 0, 1, 0)->o.mss, 1460 - 28);
    lab_forget(&m);
    lab_end(&m);
}

TEST(interfaces_join_in_their_order_whichever_was_told_of_first)
{
    struct lab l = { 0 };
    struct mp_local m[] = { lab_local(4), lab_local(2), lab_local(3) };
    lab_stack(&l);
    for (int i = 0; i < 3; i++) mp_stack_local_add(l.st, &m[i], l.now);
    mp_stack_local_del(l.st, 2, &m[1].ip, l.now);
    mp_stack_local_add(l.st, &m[1], l.now);
    lab_client_unconfirmed(&l);
    lab_ack_mp(&l, P0, 1, 1, 0);
    for (int i = 2; i <= 4; i++) CHECK_EQ(lab_expect(&l, &l.p[i - 1], MP_SYN, 0, 0, 0)->k.ifindex, i);
    lab_end(&l);
}

TEST(a_join_in_four_steps)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = join_syn(&l);
    lab_wait(&l, LAB_RTT);
    lab_synack(&l, p, lab_join_synack(&l, p, 0));
    struct got *g = lab_expect(&l, p, MP_ACK, 1, 1, 0);
    lab_expect_options(g, MP_JOIN);
    uint8_t h[32];
    mp_join_hmac(l.key_engine, LAB_PEER_KEY, p->nonce_engine, p->nonce, h);
    CHECK_MEM(g->o.join.hmac, h, 20);
    lab_write(&l, 50000);
    lab_wait(&l, MP_MS(5));
    for (int i = l.qi; i < l.qn; i++) CHECK(l.q[i].p != p); /* no data before the fourth ACK */
    lab_forget(&l);
    lab_ack_mp(&l, p, 1, 1, 0);
    lab_expect_counter(&l, join_up, 1);
    g = lab_next_data(&l, p);
    lab_expect_options(g, MP_DSS);
    CHECK_EQ(g->seq, 1);
    CHECK_EQ(g->o.dss.ssn, 1);
    CHECK(lab_payload_is(g, g->o.dss.dsn - l.idsn_engine - 1));
    lab_forget(&l);
    CHECK_EQ(lab_info(&l).nsubflows, 2);
    lab_end(&l);
}

TEST(a_subflow_has_no_mss_before_it_is_answered) /* TCP_MAXSEG is the least of all */
{
    struct lab l = { 0 };
    struct mpc_subflow_info i[2];
    lab_client(&l);
    struct peer *p = join_syn(&l);
    CHECK(mpc_get_subflows(l.c, i, 2) == 2 && i[0].mss && !i[1].mss);
    uint32_t mss = i[0].mss;
    lab_synack(&l, p, lab_join_synack(&l, p, 7));
    CHECK(mpc_get_subflows(l.c, i, 2) == 2 && i[0].mss == mss && i[1].mss == mss);
    lab_forget(&l);
    lab_end(&l);
}

TEST(the_third_ack_is_sent_again_until_the_fourth)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = join_syn(&l);
    lab_wait(&l, LAB_RTT);
    lab_synack(&l, p, lab_join_synack(&l, p, 0));
    lab_expect(&l, p, MP_ACK, 1, 1, 0);
    lab_wait(&l, MP_SEC(1));
    CHECK(lab_waiting(&l) >= 1);
    while (lab_waiting(&l)) lab_expect_options(lab_expect(&l, p, MP_ACK, 1, 1, 0), MP_JOIN);
    lab_ack_mp(&l, p, 1, 1, 0);
    lab_wait(&l, MP_SEC(5));
    lab_expect_nothing(&l);
    P0->wnd = 0; /* its first data has the time-out of any other, and a tail loss probe before that */
    lab_write(&l, 30000);
    while (lab_next_data(&l, p)->len) {}
    lab_wait(&l, MP_MS(500));
    CHECK(lab_next_data(&l, p)->len > 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_join_without_a_fourth_ack_is_given_up)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = join_syn(&l);
    lab_synack(&l, p, lab_join_synack(&l, p, 0));
    for (int i = 0; i < 300 && !mp_stack_counter(l.st, MP_E_subflow_reset_out); i++) lab_wait(&l, MP_SEC(1));
    CHECK(mp_stack_counter(l.st, MP_E_subflow_reset_out) >= 1);
    lab_forget(&l);
    lab_ack_mp(&l, P0, 1, 1, 0);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(a_wrong_hmac_in_the_synack_resets_the_subflow)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = join_syn(&l);
    struct mp_opts o = lab_join_synack(&l, p, 0);
    o.join.hmac[3] ^= 1;
    lab_synack(&l, p, o);
    struct got *g = lab_expect(&l, p, MP_RST | MP_ACK, 1, 1, 0);
    lab_expect_options(g, MP_TCPRST);
    CHECK_EQ(g->o.tcprst.reason, MP_RST_MPTCP);
    lab_expect_counter(&l, join_hmac_bad, 1);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(a_synack_without_mp_join_resets_the_subflow)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = join_syn(&l);
    lab_synack(&l, p, (struct mp_opts){ 0 });
    struct got *g = lab_expect(&l, p, MP_RST | MP_ACK, 1, 1, 0);
    lab_expect_options(g, MP_TCPRST);
    lab_expect_counter(&l, join_no_option, 1);
    lab_end(&l);
}

TEST(a_join_is_not_opened_from_both_ends) /* a bare SYN is no answer to one: there is no MP_JOIN for it (found by fuzzing) */
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_local_up(&l, 2);
    lab_expect_options(lab_expect(&l, P1, MP_SYN, 0, 0, 0), MP_JOIN);
    lab_send(&l, P1, (struct seg){ .flags = MP_SYN, .seq = 0 });
    lab_expect_nothing(&l);
    lab_synack(&l, P1, lab_join_synack(&l, P1, 1)); /* the real one */
    lab_expect_options(lab_expect(&l, P1, MP_ACK, 1, 1, 0), MP_JOIN);
    lab_end(&l);
}

TEST(a_refused_join_is_tried_again_later)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = join_syn(&l);
    lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .ack = 1 });
    lab_expect_counter(&l, join_failed, 1);
    lab_expect_nothing(&l);
    lab_wait(&l, MP_SEC(2));
    lab_expect_options(lab_expect(&l, &l.p[2], MP_SYN, 0, 0, 0), MP_JOIN);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_server_takes_a_join)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_local_up(&l, 2);
    struct peer *p = lab_syn(&l, 2, 5002, lab_join_syn(&l));
    struct got *g = lab_expect(&l, p, MP_SYN | MP_ACK, 0, 1, 0);
    lab_expect_options(g, MP_JOIN);
    uint8_t h[32];
    mp_join_hmac(l.key_engine, LAB_PEER_KEY, g->o.join.nonce, p->nonce, h);
    CHECK_MEM(g->o.join.hmac, h, 8);
    lab_wait(&l, LAB_RTT);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(&l, p) });
    g = lab_expect(&l, p, MP_ACK, 1, 1, 0); /* the fourth */
    lab_expect_counter(&l, join_up, 1);
    lab_data(&l, p, 1, 1, 0, 100);
    g = lab_expect(&l, p, MP_ACK, 1, 101, 0);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 1 + 100);
    CHECK_EQ(lab_read(&l), 100);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .o = lab_join_ack(&l, p) }); /* again: our ACK was lost */
    lab_expect(&l, p, MP_ACK, 1, 101, 0);
    lab_end(&l);
}

/* The peer resets the only subflow; how long until the client's join, which then comes up. */
static mp_dur until_joined_again(struct lab *l, uint32_t rcv)
{
    struct peer *p = &l->p[l->np - 1];
    mp_time was = l->now;
    lab_send(l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = rcv, .ack = 1 });
    while (l->now < was + MP_SEC(20) && &l->p[l->np - 1] == p) lab_wait(l, MP_MS(1));
    mp_dur d = l->now - was;
    struct peer *q = &l->p[l->np - 1];
    lab_forget(l);
    lab_synack(l, q, lab_join_synack(l, q, 0));
    lab_ack_mp(l, q, 1, 1, l->dack);
    lab_forget(l);
    return d;
}

static bool about(mp_dur d, mp_dur want) { return d >= want && d <= want + MP_MS(2); }

TEST(joins_in_vain_come_ever_more_seldom)
{
    struct lab l = { 0 };
    lab_client(&l);
    CHECK(about(until_joined_again(&l, 1), 0)); /* nothing else is left */
    CHECK(about(until_joined_again(&l, 1), MP_MS(200)));
    CHECK(about(until_joined_again(&l, 1), MP_MS(400)));
    CHECK(about(until_joined_again(&l, 1), MP_MS(800)));
    CHECK(about(until_joined_again(&l, 1), MP_SEC(1)));
    lab_data(&l, &l.p[l.np - 1], 1, 1, 0, 100);
    CHECK_EQ(lab_read(&l), 100);
    CHECK(about(until_joined_again(&l, 101), 0)); /* the last one was not in vain */
    CHECK(about(until_joined_again(&l, 1), MP_MS(200)));
    lab_end(&l);
}

TEST(a_link_that_comes_up_ends_the_rest_between_joins)
{
    struct lab l = { 0 };
    lab_client(&l);
    for (int i = 0; i < 3; i++) until_joined_again(&l, 1);
    struct peer *p = &l.p[l.np - 1];
    struct mp_local m = lab_local(1);
    lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1 });
    lab_wait(&l, MP_MS(100));
    lab_expect_nothing(&l);
    mp_stack_local_del(l.st, 1, &m.ip, l.now);
    mp_stack_local_add(l.st, &m, l.now);
    lab_pump(&l);
    struct peer *q = &l.p[l.np - 1];
    CHECK(q != p);
    lab_expect(&l, q, MP_SYN, 0, 0, 0);
    lab_synack(&l, q, lab_join_synack(&l, q, 0));
    lab_ack_mp(&l, q, 1, 1, 0);
    lab_forget(&l);
    CHECK(about(until_joined_again(&l, 1), MP_MS(200))); /* it begins anew */
    lab_end(&l);
}

TEST(joins_that_live_for_a_while_are_not_in_vain) /* an idle connection over a NAT that forgets */
{
    struct lab l = { 0 };
    lab_client(&l);
    for (int i = 0; i < 4; i++) {
        CHECK(about(until_joined_again(&l, 1), 0));
        lab_wait(&l, MP_SEC(15));
        lab_forget(&l);
    }
    lab_end(&l);
}

TEST(a_join_to_an_address_that_the_owner_left_is_refused) /* RFC 6897 5.3.1 */
{
    struct lab l = { 0 };
    lab_server(&l);
    struct mp_local m = lab_local(2);
    mp_stack_local_add(l.st, &m, l.now);
    CHECK_EQ(mpc_use_local(l.c, &m.ip, false, l.now), 0);
    lab_forget(&l);
    struct peer *p = lab_syn(&l, 2, 5002, lab_join_syn(&l));
    struct got *g = lab_expect(&l, p, MP_RST | MP_ACK, (uint32_t)-p->irs, 1, 0);
    lab_expect_options(g, MP_TCPRST);
    CHECK_EQ(g->o.tcprst.reason, MP_RST_PROHIBITED);
    CHECK_EQ(mpc_use_local(l.c, &m.ip, true, l.now), 0);
    lab_forget(&l);
    p = lab_syn(&l, 2, 5003, lab_join_syn(&l));
    lab_expect_options(lab_expect(&l, p, MP_SYN | MP_ACK, 0, 1, 0), MP_JOIN);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_wrong_hmac_in_the_third_ack_resets_the_subflow)
{
    struct lab l = { 0 };
    lab_server(&l);
    struct peer *p = lab_syn(&l, 2, 5002, lab_join_syn(&l));
    lab_expect(&l, p, MP_SYN | MP_ACK, 0, 1, 0);
    struct mp_opts o = lab_join_ack(&l, p);
    o.join.hmac[19] ^= 1;
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    struct got *g = lab_expect(&l, p, MP_RST | MP_ACK, 1, 1, 0);
    lab_expect_options(g, MP_TCPRST);
    CHECK_EQ(g->o.tcprst.reason, MP_RST_MPTCP);
    lab_expect_counter(&l, join_hmac_bad, 1);
    lab_end(&l);
}

TEST(a_third_ack_without_hmac_opens_nothing)
{
    struct lab l = { 0 };
    lab_server(&l);
    struct peer *p = lab_syn(&l, 2, 5002, lab_join_syn(&l));
    lab_expect(&l, p, MP_SYN | MP_ACK, 0, 1, 0);
    lab_ack(&l, p, 1, 1);
    lab_data(&l, p, 1, 1, 0, 100);
    lab_expect_counter(&l, join_up, 0);
    CHECK_EQ(lab_read(&l), 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(join_with_unknown_token_is_reset)
{
    struct lab l = { 0 };
    lab_server(&l);
    struct mp_opts o = lab_join_syn(&l);
    o.join.token ^= 1;
    struct peer *p = lab_syn(&l, 2, 5002, o);
    struct got *g = lab_expect(&l, p, MP_RST | MP_ACK, (uint32_t)-p->irs, 1, 0);
    lab_expect_options(g, MP_TCPRST);
    CHECK_EQ(g->o.tcprst.reason, MP_RST_MPTCP);
    lab_expect_counter(&l, join_token_unknown, 1);
    lab_end(&l);
}

static void two_subflows(struct mp_settings *s) { s->max_subflows = 2; }

TEST(joins_beyond_the_limit_are_refused)
{
    struct lab l = { .tune = two_subflows };
    lab_server(&l);
    struct peer *p = lab_syn(&l, 2, 5002, lab_join_syn(&l));
    lab_expect(&l, p, MP_SYN | MP_ACK, 0, 1, 0);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(&l, p) });
    lab_expect(&l, p, MP_ACK, 1, 1, 0);
    struct peer *q = lab_syn(&l, 2, 5003, lab_join_syn(&l));
    struct got *g = lab_expect(&l, q, MP_RST | MP_ACK, (uint32_t)-q->irs, 1, 0);
    lab_expect_options(g, MP_TCPRST);
    CHECK_EQ(g->o.tcprst.reason, MP_RST_PROHIBITED);
    lab_expect_counter(&l, join_refused, 1);
    lab_end(&l);
}

TEST(half_open_joins_do_not_keep_others_out) /* RFC 8684 5: whoever has seen a token may send them */
{
    struct lab l = { .tune = two_subflows };
    lab_server(&l);
    for (uint16_t i = 0; i < 20; i++) {
        l.np = 1;
        lab_syn(&l, 3, (uint16_t)(7000 + i), lab_join_syn(&l));
    }
    lab_forget(&l);
    CHECK_EQ(l.flows, 2); /* nothing piles up */
    struct peer *p = lab_syn(&l, 2, 5002, lab_join_syn(&l));
    lab_expect(&l, p, MP_SYN | MP_ACK, 0, 1, 0);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(&l, p) });
    lab_expect(&l, p, MP_ACK, 1, 1, 0);
    CHECK_EQ(lab_info(&l).nsubflows, 2);
    lab_expect_counter(&l, join_dropped, 20);
    lab_end(&l);
}

TEST(a_join_before_the_keys_are_known_is_refused)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    struct peer *q = lab_syn(&l, 2, 5003, lab_join_syn(&l));
    struct got *g = lab_expect(&l, q, MP_RST | MP_ACK, (uint32_t)-q->irs, 1, 0);
    lab_expect_options(g, MP_TCPRST);
    lab_end(&l);
}

TEST(a_backup_subflow_carries_nothing_while_another_lives) /* RFC 8684 3.3.8 */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_local m = lab_local(2);
    m.backup = true;
    mp_stack_local_add(l.st, &m, l.now);
    struct got *g = lab_expect(&l, P1, MP_SYN, 0, 0, 0);
    CHECK(g->o.join.backup);
    lab_wait(&l, LAB_RTT);
    lab_synack(&l, P1, lab_join_synack(&l, P1, 0));
    lab_expect(&l, P1, MP_ACK, 1, 1, 0);
    lab_ack_mp(&l, P1, 1, 1, 0);
    lab_write(&l, 50000);
    for (int i = l.qi; i < l.qn; i++) CHECK(l.q[i].p == P0);
    lab_forget(&l);
    m.backup = false; /* and is told when that changes */
    mp_stack_local_add(l.st, &m, l.now);
    bool prio = false;
    for (lab_pump(&l); l.qi < l.qn; l.qi++) prio |= l.q[l.qi].p == P1 && (l.q[l.qi].o.mp & MP_OPT_HAS(MP_PRIO)) && !l.q[l.qi].o.prio.backup;
    CHECK(prio);
    lab_end(&l);
}

TEST(the_peer_makes_a_subflow_backup)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    lab_prio(&l, p, (struct mp_opt_prio){ .backup = true });
    lab_expect_counter(&l, prio_in, 1);
    lab_write(&l, 50000);
    for (int i = l.qi; i < l.qn; i++) CHECK(l.q[i].p == P0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_priority_with_an_address_is_none_of_version_1) /* RFC 8684 3.3.8: three bytes; the fourth is RFC 6824's */
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_prio(&l, P0, (struct mp_opt_prio){ .backup = true, .has_id = true, .addr_id = 0 });
    lab_expect_counter(&l, opt_bad, 1);
    lab_expect_counter(&l, prio_in, 0);
    CHECK(!lab_sf(&l, 0).backup);
    lab_end(&l);
}

TEST(a_subflow_that_dies_gives_its_data_to_the_others) /* RFC 8684 3.3.6 */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    lab_write(&l, 15000);
    uint64_t lost = 0;
    for (int i = l.qi; i < l.qn; i++)
        if (l.q[i].p == p) lost += l.q[i].len;
    CHECK(lost > 0);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_send(&l, p, (struct seg){ .flags = MP_RST, .seq = 1 });
    uint32_t end = 1;
    for (int i = 0; i < l.qn; i++)
        if (l.q[i].p == P0 && l.q[i].seq + l.q[i].len > end) end = l.q[i].seq + l.q[i].len;
    lab_ack_mp(&l, P0, 1, end, 0);
    lab_wait(&l, MP_MS(30));
    uint64_t seen[15] = { 0 };
    for (int i = 0; i < l.qn; i++)
        if (l.q[i].p == P0 && l.q[i].len && (l.q[i].o.mp & MP_OPT_HAS(MP_DSS))) {
            uint64_t off = l.q[i].o.dss.dsn - l.idsn_engine - 1;
            CHECK(lab_payload_is(&l.q[i], off));
            for (uint64_t b = off; b < off + l.q[i].len && b < 15000; b += 1000) seen[b / 1000]++;
        }
    for (int i = 0; i < 15; i++) CHECK(seen[i] > 0);
    CHECK(lab_info(&l).reinjected >= lost);
    lab_forget(&l);
    lab_end(&l);
}

/* ---- resets and their reasons, RFC 8684 3.6 ---- */

static int joins_again(struct lab *l) /* MP_JOIN SYNs within two minutes, answered by nobody */
{
    int n = 0;
    lab_forget(l);
    for (int i = 0; i < 120; i++) {
        lab_wait(l, MP_SEC(1));
        lab_ack_mp(l, &l->p[0], 1, 1, l->dack);
    }
    for (; l->qi < l->qn; l->qi++) n += (l->q[l->qi].flags & MP_SYN) && (l->q[l->qi].o.mp & MP_OPT_HAS(MP_JOIN));
    return n;
}

static const struct { const char *name; bool option, transient; uint8_t reason; bool again; } resets[] = {
    { "no option", false, false, 0, true },
    { "unspecified", true, false, MP_RST_UNSPECIFIED, true },
    { "lack of resources for now", true, true, MP_RST_RESOURCE, true },
    { "administratively prohibited", true, false, MP_RST_PROHIBITED, false },
    { "unacceptable performance", true, false, MP_RST_PERFORMANCE, false },
    { "a middlebox, for now", true, true, MP_RST_MIDDLEBOX, true },
    { "a middlebox", true, false, MP_RST_MIDDLEBOX, false },
};

static struct mp_opts reset_options(size_t i)
{
    struct mp_opts o = { .mp = resets[i].option ? MP_OPT_HAS(MP_TCPRST) : 0, .tcprst = { resets[i].transient, resets[i].reason } };
    return o;
}

TEST(a_reset_of_a_joined_subflow_is_obeyed)
{
    for (size_t i = 0; i < sizeof resets / sizeof *resets; i++) {
        struct lab l = { 0 };
        ROW("%s", resets[i].name);
        lab_client(&l);
        struct peer *p = lab_join(&l, 2);
        lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1, .o = reset_options(i) });
        CHECK_EQ(mpc_error(l.c), 0);
        CHECK_EQ(joins_again(&l) > 0, resets[i].again);
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(a_refusal_of_a_join_is_obeyed)
{
    for (size_t i = 0; i < sizeof resets / sizeof *resets; i++) {
        struct lab l = { 0 };
        ROW("%s", resets[i].name);
        lab_client(&l);
        struct peer *p = join_syn(&l);
        lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 0, .ack = 1, .o = reset_options(i) });
        CHECK_EQ(joins_again(&l) > 0, resets[i].again);
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(a_path_is_tried_again_when_its_link_returns_whatever_the_reason_was)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = join_syn(&l);
    lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 0, .ack = 1, .o = reset_options(3) });
    struct mp_local m = lab_local(2);
    mp_stack_local_del(l.st, 2, &m.ip, l.now);
    mp_stack_local_add(l.st, &m, l.now);
    CHECK(joins_again(&l) > 0);
    lab_end(&l);
}

TEST(a_reset_with_mp_fail_ends_one_of_two_subflows_and_is_no_fallback) /* RFC 8684 3.7 */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    struct mp_opts o = reset_options(MP_RST_MIDDLEBOX);
    o.mp |= MP_OPT_HAS(MP_FAIL);
    o.fail_dsn = l.idsn_engine + 1;
    lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_forget(&l);
    lab_expect_counter(&l, fail_in, 1);
    lab_expect_counter(&l, fallback, 0);
    CHECK(lab_info(&l).multipath);
    lab_end(&l);
}

TEST(a_join_on_its_way_is_given_up_by_a_fallback_and_the_peer_is_told) /* sf_give_up_join */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = join_syn(&l);
    struct mp_opts o = lab_dack(&l);
    o.mp |= MP_OPT_HAS(MP_FAIL);
    o.fail_dsn = l.idsn_engine + 1;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o }); /* the peer goes on as plain TCP */
    CHECK(!lab_info(&l).multipath);
    const struct got *rst = NULL;
    for (; l.qi < l.qn; l.qi++)
        if (l.q[l.qi].p == p) rst = &l.q[l.qi];
    CHECK(rst && rst->flags == MP_RST && rst->seq == 1); /* if the SYN is there, this ends it */
    lab_wait(&l, LAB_RTT);
    lab_synack(&l, p, lab_join_synack(&l, p, 0)); /* it was not: the answer is answered */
    CHECK_EQ(lab_waiting(&l), 1);
    struct got *g = &l.q[l.qi++];
    CHECK(g->p == p && (g->flags & MP_RST) && g->seq == 1);
    lab_wait(&l, MP_SEC(2));
    lab_expect_nothing(&l); /* and no SYN of it comes again */
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_end(&l);
}
