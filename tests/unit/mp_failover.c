/* A subflow that falls silent: its data goes to the others, in time, and it is trusted again when it moves (RFC 8684
 * 3.3.6). Also what a peer sees when a recovery was in vain. */
#include "lab.h"

#include <errno.h>

static uint64_t off_of(const struct lab *l, const struct got *g) { return g->o.dss.dsn - l->idsn_engine - 1; }

/* Stream bytes from 0 without gap that reached the peer over the subflows in `mask`. */
static uint64_t whole(const struct lab *l, unsigned mask)
{
    uint64_t end = 0;
    for (bool more = true; more;) {
        more = false;
        for (int i = 0; i < l->qn; i++) {
            const struct got *g = &l->q[i];
            if (!g->len || !(mask >> (g->p - l->p) & 1) || !g->o.dss.has_map) continue;
            if (off_of(l, g) <= end && off_of(l, g) + g->len > end) end = off_of(l, g) + g->len, more = true;
        }
    }
    return end;
}

static uint32_t top(const struct lab *l, const struct peer *p) /* the subflow's next number */
{
    uint32_t end = 1;
    for (int i = 0; i < l->qn; i++)
        if (l->q[i].p == p && l->q[i].len && l->q[i].seq + l->q[i].len > end) end = l->q[i].seq + l->q[i].len;
    return end;
}

static void two(struct lab *l)
{
    lab_client(l);
    lab_join(l, 2);
    lab_forget(l);
}

static void ack_first_only(struct lab *l, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        lab_wait(l, LAB_RTT);
        uint64_t dack = whole(l, 1);
        lab_ack_mp(l, &l->p[0], 1, top(l, &l->p[0]), dack);
    }
}

TEST(the_user_timeout_bounds_the_silence_of_all_subflows) /* RFC 5482, RFC 9293 3.8.3 */
{
    struct lab l = { 0 };
    two(&l);
    mpc_setopt(l.c, MPC_USER_TIMEOUT_MS, 3000, l.now);
    lab_write(&l, 15000);
    ack_first_only(&l, 15);
    CHECK(mpc_send_done(l.c));
    lab_wait(&l, MP_SEC(10)); /* with nothing to acknowledge there is nothing to wait for */
    CHECK_EQ(mpc_error(l.c), 0);
    lab_write(&l, 1000);
    lab_wait(&l, MP_MS(2900));
    CHECK_EQ(mpc_error(l.c), 0);
    lab_wait(&l, MP_MS(300));
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    CHECK_EQ(mp_stack_counter(l.st, MP_E_user_timeout), 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(data_of_a_silent_subflow_goes_to_the_other_within_150_ms)
{
    struct lab l = { 0 };
    two(&l);
    lab_write(&l, 15000);
    CHECK(top(&l, P1) > 1);
    CHECK(whole(&l, 1) < 15000);
    ack_first_only(&l, 15);
    CHECK_EQ(whole(&l, 1), 15000);
    CHECK(mp_stack_counter(l.st, MP_E_subflow_stale) + mp_stack_counter(l.st, MP_E_opportunistic) > 0);
    CHECK(mpc_send_done(l.c));
    lab_forget(&l);
    lab_end(&l);
}

TEST(what_a_reset_subflow_acknowledged_and_nobody_holds_goes_to_the_other) /* core/conn_reinject.c */
{
    struct lab l = { 0 };
    two(&l);
    lab_write(&l, 15000);
    CHECK(top(&l, P0) > 1 && whole(&l, 2) == 0);
    lab_ack_mp(&l, P0, 1, top(&l, P0), 0); /* a proxy acknowledges ahead, and goes away with what it had */
    lab_send(&l, P0, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = top(&l, P0) });
    mp_time from = l.now;
    for (int i = 0; i < 10 && whole(&l, 2) < 15000; i++) {
        lab_wait(&l, LAB_RTT);
        lab_ack_mp(&l, P1, 1, top(&l, P1), whole(&l, 2));
    }
    CHECK_EQ(whole(&l, 2), 15000);
    CHECK(l.now - from < MP_MS(100));
    lab_expect_counter(&l, conn_rexmit, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_stale_subflow_that_moves_is_trusted_again)
{
    struct lab l = { 0 };
    two(&l);
    lab_write(&l, 15000);
    ack_first_only(&l, 60);
    CHECK(lab_sf(&l, 1).stale);
    lab_write(&l, 30000);
    lab_forget(&l);
    lab_ack_mp(&l, P1, 1, top(&l, P1), l.dack);
    CHECK(!lab_sf(&l, 1).stale);
    lab_expect_counter(&l, subflow_unstale, 1);
    lab_forget(&l);
    lab_end(&l);
}

/* Bytes that went out on both. */
static uint64_t twice(const struct lab *l)
{
    uint64_t n = 0;
    for (int i = 0; i < l->qn; i++)
        for (int k = 0; k < i; k++) {
            const struct got *a = &l->q[i], *b = &l->q[k];
            if (a->p != b->p && a->len && a->len == b->len && off_of(l, a) == off_of(l, b)) n += a->len;
        }
    return n;
}

TEST(when_all_were_dead_one_that_moves_takes_over_from_the_others) /* core/overdue.c */
{
    struct lab l = { 0 };
    two(&l);
    lab_write(&l, 15000);
    lab_wait(&l, MP_SEC(5)); /* nobody could stand in for the last one: its time-outs are seconds apart by now */
    int back = lab_sf(&l, 0).stale ? 0 : 1, last = !back;
    CHECK(lab_sf(&l, back).stale && !lab_sf(&l, last).stale);
    mp_time at = l.now;
    lab_ack_mp(&l, &l.p[back], 1, top(&l, &l.p[back]), whole(&l, 1u << back));
    CHECK(!lab_sf(&l, back).stale && lab_sf(&l, last).stale);
    for (int i = 0; i < 60; i++) {
        lab_wait(&l, LAB_RTT);
        lab_ack_mp(&l, &l.p[back], 1, top(&l, &l.p[back]), whole(&l, 1u << back));
    }
    bool probed = false;
    for (int i = 0; i < l.qn; i++) probed |= l.q[i].p == &l.p[last] && l.q[i].at > at;
    CHECK(probed);
    CHECK_EQ(whole(&l, 1u << back), 15000);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_subflow_that_speaks_again_keeps_what_has_not_gone_out_elsewhere)
{
    struct lab l = { 0 };
    two(&l);
    lab_write(&l, 40000);
    uint32_t held = top(&l, P1) - 1;
    CHECK(held >= 10000 && top(&l, P0) > 10000);
    uint32_t acked = 1;
    for (int i = 0; i < 100 && !lab_sf(&l, 1).stale; i++) { /* a segment at a time: that path has no room for all */
        lab_wait(&l, MP_MS(10));
        lab_ack_mp(&l, P0, 1, acked += 1000, 0);
    }
    CHECK(lab_sf(&l, 1).stale && !lab_sf(&l, 0).stale);
    lab_ack_mp(&l, P0, 1, acked += 1000, 0);
    CHECK(twice(&l) > 0);
    lab_ack_mp(&l, P1, 1, top(&l, P1), 0);
    CHECK(!lab_sf(&l, 1).stale);
    uint64_t before = twice(&l);
    CHECK(before < held);
    lab_ack_mp(&l, P0, 1, top(&l, P0), 0); /* room for all that waits */
    CHECK_EQ(twice(&l), before);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_stale_subflow_is_probed_with_little) /* one segment a second, or it would never be found again */
{
    struct lab l = { 0 };
    two(&l);
    lab_write(&l, 15000);
    ack_first_only(&l, 60);
    lab_forget(&l);
    lab_wait(&l, MP_SEC(20));
    int n = 0;
    for (; l.qi < l.qn; l.qi++) n += l.q[l.qi].p == P1;
    CHECK(n >= 5 && n <= 40);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(a_full_window_held_up_by_one_subflow_is_freed_by_the_other) /* NSDI'12 M1 */
{
    struct lab l = { 0 };
    two(&l);
    lab_write(&l, 300000);
    for (int i = 0; i < 60; i++) {
        lab_wait(&l, LAB_RTT);
        lab_ack_mp(&l, P0, 1, top(&l, P0), whole(&l, 1));
        CHECK(whole(&l, 3) <= whole(&l, 1) + 65535 + 15000); /* the connection's window is kept */
    }
    CHECK_EQ(whole(&l, 1), 300000);
    lab_forget(&l);
    lab_end(&l);
}

TEST(what_is_sent_on_two_subflows_is_the_same)
{
    struct lab l = { 0 };
    two(&l);
    lab_write(&l, 100000);
    ack_first_only(&l, 40);
    for (int i = 0; i < l.qn; i++)
        if (l.q[i].len) CHECK(lab_payload_is(&l.q[i], off_of(&l, &l.q[i])));
    lab_forget(&l);
    lab_end(&l);
}

TEST(the_first_link_may_be_the_one_that_goes)
{
    struct lab l = { 0 };
    two(&l);
    struct mp_local m = lab_local(1);
    lab_write(&l, 15000);
    mp_stack_local_del(l.st, 1, &m.ip, l.now);
    for (int i = 0; i < 10; i++) {
        lab_wait(&l, LAB_RTT);
        lab_ack_mp(&l, P1, 1, top(&l, P1), whole(&l, 2));
    }
    CHECK_EQ(whole(&l, 2), 15000);
    bool told = false;
    for (int i = 0; i < l.qn; i++) told |= l.q[i].p == P1 && (l.q[i].o.mp & MP_OPT_HAS(MP_REMOVE_ADDR)) && l.q[i].o.remove_addr.id[0] == 0;
    CHECK(told); /* RFC 8684 3.4.2: the initial address is id 0 */
    lab_forget(&l);
    lab_end(&l);
}

TEST(the_only_link_may_be_away_for_a_minute) /* as TCP waits for it; and its return is used within half a second */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_local m = lab_local(1);
    lab_write(&l, 3000);
    lab_forget(&l);
    mp_stack_local_del(l.st, 1, &m.ip, l.now);
    lab_wait(&l, MP_SEC(60));
    lab_forget(&l);
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_expect_counter(&l, subflow_timeout, 0);
    mp_stack_local_add(l.st, &m, l.now);
    lab_wait(&l, MP_MS(500));
    CHECK(lab_waiting(&l) > 0);
    lab_ack_mp(&l, P0, 1, 3001, 3000);
    lab_forget(&l);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(an_idle_connection_outlives_its_only_link_by_far) /* as TCP's does */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_local m = lab_local(1);
    mp_stack_local_del(l.st, 1, &m.ip, l.now);
    lab_wait(&l, MP_SEC(1800));
    lab_forget(&l);
    CHECK_EQ(mpc_error(l.c), 0);
    mp_stack_local_add(l.st, &m, l.now);
    lab_forget(&l);
    lab_data(&l, P0, 1, 1, 0, 100);
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_end(&l);
}

/* Its third ACK was lost, and the DATA_FIN behind it came (RFC 8684 3.1: the keys are still to come): the SYN/ACK goes out again,
 * from the beginning when the link is back (simulation seed 703236: given up 1.4 s after it). */
TEST(a_server_in_its_handshake_begins_anew_when_the_link_is_back)
{
    struct lab l = { 0 };
    struct mp_local m = lab_local(1);
    lab_server_syn(&l);
    l.dack = 0;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_map(&l, 0, 1, 0, true) });
    lab_wait(&l, MP_SEC(3));
    mp_stack_local_del(l.st, 1, &m.ip, l.now);
    lab_wait(&l, MP_SEC(5));
    lab_forget(&l);
    mp_stack_local_add(l.st, &m, l.now);
    lab_wait(&l, MP_MS(1));
    lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_wait(&l, MP_SEC(10));
    CHECK(lab_waiting(&l) > 3);
    lab_forget(&l);
    lab_expect_counter(&l, syn_timeout, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    CHECK(l.events & MP_EV_ACCEPT);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_join_under_way_ends_with_its_link)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_local m = lab_local(2);
    mp_stack_local_add(l.st, &m, l.now);
    lab_expect(&l, P1, MP_SYN, 0, 0, 0);
    mp_stack_local_del(l.st, 2, &m.ip, l.now);
    lab_wait(&l, MP_SEC(10));
    for (; l.qi < l.qn; l.qi++) CHECK(!(l.q[l.qi].flags & MP_SYN));
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(a_segment_still_queued_when_the_link_went_is_no_sign_of_life)
{
    struct lab l = { 0 };
    two(&l);
    struct mp_local m = lab_local(2);
    mp_stack_local_del(l.st, 2, &m.ip, l.now);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    lab_expect_options(g, MP_DSS, MP_REMOVE_ADDR);
    lab_data(&l, P1, 1, 1, 0, 100); /* was in the socket */
    lab_forget(&l);
    /* Back: the peer has ended the old subflow (RFC 8684 3.4.2); a fresh one is opened. */
    mp_stack_local_add(l.st, &m, l.now);
    lab_wait(&l, MP_SEC(1));
    bool joined = false;
    for (; l.qi < l.qn; l.qi++) joined |= l.q[l.qi].o.mp == MP_OPT_HAS(MP_JOIN) && l.q[l.qi].k.ifindex == 2 && (l.q[l.qi].flags & MP_SYN);
    CHECK(joined);
    lab_end(&l);
}

TEST(a_route_that_comes_after_its_link_is_noticed)
{
    struct lab l = { .no_route = true };
    lab_client(&l);
    lab_local_up(&l, 2);
    lab_wait(&l, MP_SEC(5));
    lab_expect_nothing(&l);
    l.no_route = false;
    mp_stack_routes_changed(l.st, l.now);
    lab_wait(&l, MP_MS(50));
    lab_expect_options(lab_expect(&l, P1, MP_SYN, 0, 0, 0), MP_JOIN);
    lab_end(&l);
}

TEST(a_recovery_in_vain_is_undone) /* RFC 3522, RFC 8985 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 6000);
    lab_forget(&l);
    uint64_t cwnd = lab_sf(&l, 0).cwnd;
    uint32_t original = P0->ts_echo;
    lab_wait(&l, LAB_RTT);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_sack(&l, P0, (struct mp_opts){ 0 }, 1001, 6001) });
    lab_wait(&l, MP_MS(4));
    lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
    CHECK(lab_sf(&l, 0).cwnd < cwnd);
    P0->ts_echo = original; /* the ACK is of the first transmission, which was only late */
    lab_ack(&l, P0, 1, 6001);
    CHECK(lab_sf(&l, 0).cwnd >= cwnd);
    lab_expect_counter(&l, spurious, 1);
    lab_end(&l);
}

TEST(the_probe_of_a_large_slice_is_one_segment) /* RFC 8985 7.3 */
{
    struct lab l = { .plain = true, .slice = 64000 };
    lab_client(&l);
    lab_write(&l, 9000);
    lab_expect(&l, P0, MP_ACK, 1, 1, 9000);
    lab_wait(&l, MP_MS(60));
    lab_expect(&l, P0, MP_ACK, 8001, 1, 1000);
    lab_expect_counter(&l, tlp, 1);
    lab_ack(&l, P0, 1, 9001);
    lab_end(&l);
}

TEST(an_unopenable_join_is_tried_later)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_local m = lab_local(2);
    l.refuse_flow = true;
    mp_stack_local_add(l.st, &m, l.now);
    lab_expect_nothing(&l);
    l.refuse_flow = false;
    lab_wait(&l, MP_SEC(6));
    lab_expect_options(lab_expect(&l, P1, MP_SYN, 0, 0, 0), MP_JOIN);
    lab_forget(&l);
    lab_end(&l);
}

TEST(ipv6_from_end_to_end)
{
    struct lab l = { 0 };
    int err;
    lab_stack(&l);
    struct mp_endpoint to = { { 6, { 0xfd, [15] = 2 } }, 80 }, from = { { 6, { 0xfd, [15] = 1 } }, 0 };
    l.c = mp_stack_connect(l.st, &to, &from.ip, 1, 0, &l, l.now, &err);
    struct got *g = lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    CHECK_EQ(g->o.mss, 1440 - 28);
    lab_synack(&l, P0, lab_capable(&l, 1));
    lab_learn_key(&l, lab_expect(&l, P0, MP_ACK, 1, 1, 0)->o.capable.key_snd);
    lab_ack_mp(&l, P0, 1, 1, 0);
    lab_data(&l, P0, 1, 1, 0, 100);
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 100);
    CHECK(lab_info(&l).multipath);
    lab_end(&l);
}

TEST(subflows_that_come_up_and_die_without_use_are_not_opened_for_ever)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_write(&l, 1000);
    lab_forget(&l);
    mp_time begin = l.now;
    int joins = 0;
    struct peer *p = P0;
    lab_send(&l, p, (struct seg){ .flags = MP_RST, .seq = 1 });
    for (; !mpc_error(l.c) && l.now < begin + MP_SEC(600); joins++) {
        while (lab_waiting(&l) && !(l.q[l.qi].flags & MP_SYN)) l.qi++;
        if (!lab_waiting(&l)) {
            lab_wait(&l, MP_MS(10));
            joins--;
            continue;
        }
        p = l.q[l.qi].p;
        lab_forget(&l);
        lab_synack(&l, p, lab_join_synack(&l, p, 0));
        lab_wait(&l, MP_MS(10));
        lab_send(&l, p, (struct seg){ .flags = MP_RST, .seq = 1 }); /* as after a wrong checksum */
        lab_forget(&l);
        if (l.np == LAB_MAX_PEERS) l.np = 1;
    }
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    CHECK(l.now - begin > MP_SEC(60) && l.now - begin < MP_SEC(300));
    CHECK(joins >= 10 && joins < 60);
    lab_forget(&l);
    lab_end(&l);
}

/* RFC 3135 3.1.2: a proxy's ACKs come sooner than any of the peer's could, without options. */
TEST(a_proxy_that_acknowledges_early_is_no_fallback)
{
    struct lab l = { 0 };
    lab_client(&l);
    for (uint32_t i = 0; i < 8; i++) {
        lab_write(&l, 1000);
        lab_wait(&l, MP_MS(1)); /* the handshake took ten */
        lab_ack(&l, P0, 1, 1 + 1000 * (i + 1));
    }
    CHECK(lab_info(&l).multipath);
    CHECK(!mpc_send_done(l.c)); /* it is the DATA_ACK that counts (RFC 8684 3.3.2) */
    lab_expect_counter(&l, fallback, 0);
    lab_ack_mp(&l, P0, 1, 8001, 8000);
    CHECK(mpc_send_done(l.c));
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_proxy_at_a_servers_door_does_not_end_a_join) /* its ACKs come in no time at all */
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_local_up(&l, 2);
    struct peer *p = lab_syn(&l, 2, 5002, lab_join_syn(&l));
    lab_expect_options(lab_expect(&l, p, MP_SYN | MP_ACK, 0, 1, 0), MP_JOIN);
    lab_wait(&l, LAB_RTT);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(&l, p) });
    uint32_t seen = 1;
    for (int i = 0; i < 100 && seen < 20000; i++) {
        lab_write(&l, 5000);
        for (; top(&l, p) > seen; lab_ack(&l, p, 1, seen)) seen = top(&l, p);
        lab_wait(&l, MP_MS(10));
    }
    CHECK(seen >= 20000);
    CHECK_EQ(lab_info(&l).nsubflows, 2);
    lab_expect_counter(&l, subflow_reset_out, 0);
    lab_forget(&l);
    lab_end(&l);
}

/* A join whose third ACK came a second late: it was lost, or its option was, and the client sent it again. */
static struct peer *joined_late(struct lab *l, bool first_seen)
{
    lab_server(l);
    lab_local_up(l, 2);
    struct peer *p = lab_syn(l, 2, 5002, lab_join_syn(l));
    lab_expect_options(lab_expect(l, p, MP_SYN | MP_ACK, 0, 1, 0), MP_JOIN);
    lab_wait(l, LAB_RTT);
    if (first_seen) lab_ack(l, p, 1, 1);
    lab_wait(l, MP_MS(900)); /* before our SYN/ACK is repeated */
    lab_send(l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(l, p) });
    CHECK_EQ(lab_info(l).nsubflows, 2);
    lab_forget(l);
    return p;
}

TEST(the_first_ack_times_a_join_not_the_one_that_opens_it)
{
    struct lab l = { 0 };
    joined_late(&l, true);
    CHECK_EQ(lab_sf(&l, 1).srtt, LAB_RTT);
    lab_end(&l);
}

static void by_turns(struct mp_settings *set) { set->scheduler = "roundrobin"; }

TEST(a_third_ack_sent_again_does_not_make_a_proxy_of_its_sender) /* made_on_the_way */
{
    for (int first_seen = 0; first_seen < 2; first_seen++) {
        struct lab l = { .tune = by_turns };
        struct peer *p = joined_late(&l, first_seen);
        uint32_t seen = 1;
        for (int i = 0; i < 20 && lab_info(&l).nsubflows == 2; i++) {
            lab_write(&l, 20000);
            lab_wait(&l, LAB_RTT);
            if (top(&l, P0) > 1) lab_ack_mp(&l, P0, 1, top(&l, P0), whole(&l, 3));
            if (top(&l, p) == seen) continue;
            bool first = seen == 1;
            seen = top(&l, p);
            if (first) lab_ack_mp(&l, p, 1, seen, whole(&l, 3));
            else lab_ack(&l, p, 1, seen); /* from now on a box takes its options out */
        }
        CHECK_EQ(lab_info(&l).nsubflows, 1);
        CHECK_EQ(lab_said(&l, p, MP_RST, MP_OPT_HAS(MP_TCPRST))->o.tcprst.reason, MP_RST_MIDDLEBOX);
        lab_forget(&l);
        lab_end(&l);
    }
}

TEST(what_only_a_proxy_acknowledged_is_kept_and_sent_again) /* RFC 8684 3.3.6 */
{
    struct lab l = { 0 };
    two(&l);
    lab_write(&l, 1000);
    struct peer *p = l.q[l.qi].p;
    lab_wait(&l, MP_MS(1));
    lab_ack(&l, p, 1, 1001);
    lab_forget(&l);
    lab_wait(&l, MP_SEC(2)); /* the peer says nothing: the connection's own timer */
    struct got *g = &l.q[l.qi];
    CHECK(l.qi < l.qn && g->len == 1000 && off_of(&l, g) == 0 && lab_payload_is(g, 0));
    CHECK(mp_stack_counter(l.st, MP_E_conn_rexmit) > 0);
    lab_expect_counter(&l, fallback, 0);
    lab_forget(&l);
    lab_end(&l);
}
