/* Loss: RACK, tail loss probe, time-outs, limited transmit (RFC 8985, RFC 6298, RFC 3042, RFC 5681). */
#include "core/stack_int.h"

#include "lab_loss.h"

#include <errno.h>

#include "core/cc/cc.h"

TEST(a_hole_in_the_sacks_is_sent_again_once)
{
    struct lab l = { .plain = true };
    uint32_t s = grown(&l);
    lab_write(&l, 6000);
    sent(&l, s, 6);
    uint64_t cwnd = lab_sf(&l, 0).cwnd;
    lab_wait(&l, LAB_RTT);
    sack(&l, s, s + 1000, s + 2000);
    sack(&l, s, s + 1000, s + 3000);
    sack(&l, s, s + 1000, s + 4000);
    lab_wait(&l, MP_MS(5)); /* at the latest a quarter of the round trip later, RFC 8985 6.2 */
    sent(&l, s, 1);
    lab_expect_counter(&l, recovery, 1);
    lab_expect_counter(&l, seg_rexmit, 1);
    CHECK_EQ(lab_sf(&l, 0).bytes_retrans, 1000);
    CHECK(lab_sf(&l, 0).cwnd < cwnd);
    lab_ack(&l, P0, 1, s + 6000);
    lab_wait(&l, MP_SEC(2));
    lab_expect_counter(&l, rto, 0);
    CHECK(mpc_send_done(l.c));
    lab_end(&l);
}

TEST(mere_reordering_is_not_loss) /* RFC 8985 6.2: within the reordering window */
{
    struct lab l = { .plain = true };
    uint32_t s = grown(&l);
    lab_write(&l, 4000);
    sent(&l, s, 4);
    lab_wait(&l, LAB_RTT);
    sack(&l, s, s + 1000, s + 2000);
    lab_wait(&l, MP_MS(1));
    lab_ack(&l, P0, 1, s + 4000);
    lab_wait(&l, MP_SEC(1));
    lab_expect_counter(&l, seg_rexmit, 0);
    CHECK_EQ(lab_sf(&l, 0).bytes_retrans, 0);
    lab_expect_counter(&l, recovery, 0);
    lab_end(&l);
}

TEST(several_holes_are_sent_again_in_order)
{
    struct lab l = { .plain = true };
    uint32_t s = grown(&l);
    lab_write(&l, 10000);
    sent(&l, s, 10);
    lab_wait(&l, LAB_RTT);
    struct mp_opts o = lab_sack(&l, P0, (struct mp_opts){ 0 }, s + 4000, s + 10000);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = s, .o = lab_sack(&l, P0, o, s + 1000, s + 2000) });
    lab_wait(&l, MP_MS(3));
    sent(&l, s, 1);
    sent(&l, s + 2000, 2);
    CHECK_EQ(lab_sf(&l, 0).bytes_retrans, 3000);
    lab_ack(&l, P0, 1, s + 10000);
    lab_wait(&l, MP_SEC(1));
    lab_end(&l);
}

TEST(a_retransmission_that_is_lost_again_is_found_by_rack) /* RFC 8985 1 */
{
    struct lab l = { .plain = true };
    uint32_t s = grown(&l);
    lab_write(&l, 8000);
    sent(&l, s, 8);
    lab_wait(&l, LAB_RTT);
    sack(&l, s, s + 1000, s + 8000);
    lab_wait(&l, MP_MS(3));
    sent(&l, s, 1);
    lab_write(&l, 3000); /* sent after the retransmission */
    sent(&l, s + 8000, 3);
    lab_wait(&l, LAB_RTT);
    sack(&l, s, s + 1000, s + 11000);
    lab_wait(&l, MP_MS(8));
    sent(&l, s, 1);
    lab_expect_counter(&l, rto, 0);
    lab_ack(&l, P0, 1, s + 11000);
    lab_wait(&l, MP_SEC(1));
    lab_end(&l);
}

TEST(the_tail_is_probed_after_two_round_trips) /* RFC 8985 7.2 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 3000);
    sent(&l, 1, 3);
    mp_time t = l.now;
    lab_wait(&l, MP_MS(60));
    struct got *g = lab_expect(&l, P0, MP_ACK, 2001, 1, 1000); /* the last one */
    CHECK(g->at >= t + 2 * LAB_RTT && g->at <= t + 2 * LAB_RTT + MP_MS(10));
    lab_expect_counter(&l, tlp, 1);
    lab_expect_counter(&l, rto, 0);
    CHECK_EQ(lab_sf(&l, 0).bytes_retrans, 1000);
    lab_ack(&l, P0, 1, 3001);
    lab_wait(&l, MP_SEC(2));
    lab_end(&l);
}

TEST(a_probe_finds_a_lost_tail_without_timeout) /* RFC 8985 7.4 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 4000);
    sent(&l, 1, 4);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, 1001); /* the other three are lost */
    lab_wait(&l, MP_MS(40));
    sent(&l, 3001, 1);
    lab_wait(&l, LAB_RTT);
    sack(&l, 1001, 3001, 4001);
    lab_wait(&l, MP_MS(5));
    sent(&l, 1001, 1); /* one for one, RFC 9937 6 */
    lab_expect_nothing(&l);
    lab_ack(&l, P0, 1, 2001);
    sent(&l, 2001, 1);
    lab_expect_counter(&l, rto, 0);
    lab_ack(&l, P0, 1, 4001);
    lab_wait(&l, MP_SEC(2));
    lab_end(&l);
}

TEST(silence_is_met_with_doubled_timeouts) /* RFC 6298 5.4 to 5.6 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 1000);
    sent(&l, 1, 1);
    mp_time t0 = l.now, last = 0;
    mp_dur before = 0;
    int n = 0;
    lab_wait(&l, MP_SEC(30));
    while (lab_waiting(&l)) {
        struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
        if (n++ == 0) { /* the tail loss probe */
            CHECK(g->at - t0 < MP_MS(300));
            last = g->at;
            continue;
        }
        if (n > 2) CHECK_EQ(g->at - last, 2 * before);
        before = g->at - last;
        CHECK(before >= MP_MS(200));
        last = g->at;
    }
    CHECK(n >= 6);
    CHECK_EQ(lab_sf(&l, 0).cwnd, LAB_MSS); /* RFC 5681 3.1: one segment */
    lab_end(&l);
}

TEST(a_subflow_that_stays_silent_is_given_up)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 1000);
    lab_wait(&l, MP_SEC(3600));
    lab_forget(&l);
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    CHECK(l.events & MP_EV_CLOSED);
    lab_expect_counter(&l, subflow_timeout, 1);
    lab_end(&l);
}

static void keep_last(struct lab *l) /* there may be more than the lab keeps */
{
    lab_pump(l);
    struct got last = l->q[--l->qn];
    while (l->qn) free(l->q[--l->qn].data);
    l->q[l->qn++] = last;
    l->qi = l->qn;
}

/* The peer's router about the latest segment, or what lies so far behind its beginning. */
static void no_way(struct lab *l, uint32_t behind)
{
    const struct got *g = &l->q[l->qn - 1];
    mp_stack_no_way(l->st, g->k.flow, g->k.seq + behind, l->now);
    keep_last(l);
}

static mp_dur until_next(struct lab *l)
{
    mp_time from = l->q[l->qn - 1].at;
    for (lab_forget(l); !lab_waiting(l) && l->now < from + MP_SEC(100);) lab_wait(l, MP_MS(1));
    return l->q[l->qn - 1].at - from;
}

TEST(a_time_out_that_a_router_explains_doubles_nothing) /* RFC 6069 3.1 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 1000);
    for (int i = 0; i < 3; i++) until_next(&l); /* the probe and two time-outs */
    mp_dur wait = until_next(&l);
    no_way(&l, 0);
    CHECK_EQ(until_next(&l), wait);
    no_way(&l, 0);
    CHECK_EQ(until_next(&l), wait);
    no_way(&l, 500); /* not what is repeated */
    CHECK_EQ(until_next(&l), 2 * wait);
    lab_expect_counter(&l, rto_reverted, 2);
    lab_forget(&l);
    lab_ack(&l, P0, 1, 1001);
    lab_write(&l, 1000);
    until_next(&l);
    mp_dur first = until_next(&l);
    CHECK_EQ(until_next(&l), 2 * first); /* what was explained then says nothing now */
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_peer_that_stays_unreachable_is_given_up_as_late) /* RFC 1122 4.2.3.5: as many tries as there were would be a minute */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 1000);
    mp_time from = l.now;
    while (!mpc_error(l.c) && l.now < from + MP_SEC(3600)) {
        until_next(&l);
        if (!mpc_error(l.c)) no_way(&l, 0);
    }
    lab_forget(&l);
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    CHECK(l.now - from > MP_SEC(600));
    CHECK(l.now - from < MP_SEC(1200));
    lab_end(&l);
}

TEST(what_was_explained_before_a_link_came_back_gives_nobody_up) /* pm_kick */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 1000);
    mp_time from = l.now;
    while (l.now < from + MP_SEC(800)) {
        until_next(&l);
        no_way(&l, 0);
    }
    lab_wait_until(&l, from + MP_SEC(901)); /* no time-out has come since patience ended, at 900 */
    CHECK_EQ(mpc_error(l.c), 0);
    lab_local_up(&l, 1);
    lab_wait(&l, MP_MS(10));
    CHECK_EQ(mpc_error(l.c), 0);
    lab_forget(&l);
    lab_ack(&l, P0, 1, 1001);
    CHECK(mpc_send_done(l.c));
    lab_end(&l);
}

TEST(after_a_timeout_the_rest_follows_the_acks)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 5000);
    sent(&l, 1, 5);
    lab_wait(&l, MP_SEC(1));
    lab_forget(&l); /* probe, time-outs */
    CHECK(mp_stack_counter(l.st, MP_E_rto) >= 1);
    lab_ack(&l, P0, 1, 1001);
    CHECK(lab_waiting(&l) >= 1 && lab_waiting(&l) <= 2); /* slow start from one segment */
    sent(&l, 1001, 1);
    lab_forget(&l);
    lab_ack(&l, P0, 1, 5001);
    CHECK(mpc_send_done(l.c));
    lab_wait(&l, MP_SEC(5));
    lab_end(&l);
}

TEST(first_sacks_let_new_segments_out) /* limited transmit, RFC 3042 and RFC 6675 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 30000);
    int n = lab_waiting(&l); /* the initial window */
    lab_forget(&l);
    CHECK(n >= 9 && n <= 10);
    lab_wait(&l, LAB_RTT);
    sack(&l, 1, 1001, 2001);
    CHECK(lab_waiting(&l) >= 1);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1 + (uint32_t)n * 1000, 1, 1000)->at, l.now);
    lab_forget(&l);
    CHECK(mp_stack_counter(l.st, MP_E_limited_transmit) >= 1);
    lab_end(&l);
}

TEST(acks_grow_the_window_by_what_they_acknowledge) /* slow start, RFC 5681 3.1 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 100000);
    int n = lab_waiting(&l);
    lab_forget(&l);
    uint64_t cwnd = lab_sf(&l, 0).cwnd;
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, 2001);
    CHECK(lab_sf(&l, 0).cwnd <= cwnd + 2000 && lab_sf(&l, 0).cwnd > cwnd);
    CHECK(lab_waiting(&l) >= 3 && lab_waiting(&l) <= 4); /* two that left, two that it grew */
    sent(&l, 1 + (uint32_t)n * 1000, 3);
    lab_forget(&l);
    lab_end(&l);
}

TEST(an_idle_connection_starts_slowly_again) /* RFC 5681 4.1 */
{
    struct lab l = { .plain = true };
    uint32_t s = grown(&l);
    uint64_t cwnd = lab_sf(&l, 0).cwnd;
    lab_wait(&l, MP_SEC(120));
    lab_write(&l, 1000);
    lab_expect(&l, P0, MP_ACK, s, 1, 1000);
    CHECK(lab_sf(&l, 0).cwnd < cwnd);
    CHECK(lab_sf(&l, 0).cwnd <= 10 * LAB_MSS);
    lab_ack(&l, P0, 1, s + 1000);
    lab_end(&l);
}

TEST(rtt_is_not_taken_from_retransmissions_without_timestamps) /* Karn, RFC 6298 3 */
{
    struct lab l = { .plain = true, .no_ts = true };
    lab_client(&l);
    mp_dur srtt = lab_sf(&l, 0).srtt;
    lab_write(&l, 1000);
    lab_wait(&l, MP_SEC(1));
    lab_forget(&l);
    lab_wait(&l, MP_MS(1));
    lab_ack(&l, P0, 1, 1001);
    CHECK_EQ(lab_sf(&l, 0).srtt, srtt);
    lab_end(&l);
}

TEST(without_sack_the_third_duplicate_ack_tells_of_a_loss) /* NewReno, RFC 6582 */
{
    struct lab l = { .plain = true, .no_sack = true };
    uint32_t s = grown(&l);
    lab_write(&l, 8000);
    sent(&l, s, 8); /* the first and the fourth get lost */
    for (int i = 0; i < 2; i++) lab_ack(&l, P0, 1, s);
    lab_expect_nothing(&l);
    lab_ack(&l, P0, 1, s);
    sent(&l, s, 1);
    for (int i = 0; i < 3; i++) lab_ack(&l, P0, 1, s);
    lab_expect_nothing(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, s + 3000); /* a part */
    sent(&l, s + 3000, 1);
    lab_expect_nothing(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, s + 8000);
    lab_expect_counter(&l, recovery, 1);
    lab_expect_counter(&l, rto, 0);
    lab_wait(&l, MP_SEC(2));
    lab_end(&l);
}

/* A box rewrites sequence numbers and leaves those in SACK blocks (lab cell seq-no-sack): far ahead of what was sent, or far back. */
TEST(sack_blocks_of_other_numbers_say_no_more_than_none)
{
    for (int k = 0; k < 2; k++) {
        struct lab l = { .plain = true };
        uint32_t s = grown(&l), off = k ? 0x30000000 : 0xd0000000;
        lab_write(&l, 8000);
        sent(&l, s, 8); /* the first gets lost */
        for (uint32_t i = 1; i <= 2; i++) sack(&l, s, s + off + 1000, s + off + 1000 + 1000 * i);
        lab_expect_nothing(&l);
        sack(&l, s, s + off + 1000, s + off + 4000);
        sent(&l, s, 1);
        lab_wait(&l, LAB_RTT);
        lab_ack(&l, P0, 1, s + 8000);
        lab_expect_counter(&l, rto, 0);
        lab_end(&l);
    }
}

TEST(window_updates_are_no_duplicate_acks) /* RFC 5681 2 */
{
    struct lab l = { .plain = true, .no_sack = true };
    uint32_t s = grown(&l);
    lab_write(&l, 8000);
    sent(&l, s, 8);
    for (int i = 0; i < 6; i++) {
        P0->wnd--;
        lab_ack(&l, P0, 1, s);
    }
    lab_expect_nothing(&l);
    lab_ack(&l, P0, 1, s + 8000);
    lab_expect_counter(&l, recovery, 0);
    lab_end(&l);
}

TEST(an_outage_is_no_round_trip) /* the peer sends on its own, and echoes what it saw before */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    mp_dur srtt = lab_sf(&l, 0).srtt;
    lab_write(&l, 1000);
    sent(&l, 1, 1);
    uint32_t echo = P0->ts_echo;
    lab_wait(&l, MP_SEC(20)); /* it arrived, and no ACK came through */
    lab_forget(&l);
    P0->ts_echo = echo;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1001, .len = 100 });
    lab_forget(&l);
    CHECK_EQ(lab_sf(&l, 0).srtt, srtt);
    lab_write(&l, 1000);
    mp_time t = l.now;
    lab_expect(&l, P0, MP_ACK, 1001, 101, 1000);
    lab_wait(&l, MP_SEC(4));
    struct got *g = lab_expect(&l, P0, MP_ACK, 1001, 101, 1000); /* probe */
    CHECK(g->at - t < MP_MS(300));
    g = lab_expect(&l, P0, MP_ACK, 1001, 101, 1000); /* time-out */
    CHECK(g->at - t <= MP_MS(3300));
    lab_end(&l);
}

TEST(an_echo_from_before_a_segment_s_first_sending_is_no_round_trip) /* a box takes our timestamps out; simulation seed 1027056 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    mp_dur srtt = lab_sf(&l, 0).srtt;
    uint32_t echo = P0->ts_echo;
    lab_wait(&l, lab_sf(&l, 0).rto - MP_MS(60));
    lab_write(&l, 5000);
    sent(&l, 1, 5);
    lab_wait(&l, 2 * LAB_RTT + MP_MS(5));
    sent(&l, 4001, 1); /* the probe: which of the two draws the ACK is not known */
    P0->ts_echo = echo; /* younger than a time-out */
    lab_ack(&l, P0, 1, 5001);
    CHECK(mpc_send_done(l.c));
    CHECK_EQ(lab_sf(&l, 0).srtt, srtt);
    lab_end(&l);
}

TEST(a_segment_sent_once_before_an_outage_is_no_round_trip) /* the retransmission beside it drew the ACK */
{
    struct lab l = { .plain = true, .no_ts = true };
    lab_client(&l);
    mp_dur srtt = lab_sf(&l, 0).srtt;
    lab_write(&l, 3000);
    sent(&l, 1, 3);
    lab_wait(&l, MP_SEC(20));
    lab_forget(&l);
    lab_ack(&l, P0, 1, 3001); /* all had arrived: of the second, nothing was sent again */
    CHECK_EQ(lab_sf(&l, 0).srtt, srtt);
    lab_end(&l);
}

TEST(a_probe_that_is_sacked_and_tells_nothing_is_the_only_one) /* RFC 8985 7.2: the head has its time-out */
{
    struct lab l = { .plain = true, .no_ts = true };
    lab_client(&l);
    lab_write(&l, 5000);
    sent(&l, 1, 5);
    lab_wait(&l, 2 * LAB_RTT + MP_MS(5));
    sent(&l, 4001, 1);
    sack(&l, 1, 4001, 5001); /* sooner than any round trip was: of the original, says RACK */
    lab_wait(&l, MP_MS(300));
    lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
    lab_expect_counter(&l, rto, 1);
    lab_expect_counter(&l, tlp, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(large_slices_are_cut_where_a_hole_is)
{
    struct lab l = { .plain = true, .slice = 64000 };
    lab_client(&l);
    lab_write(&l, 9000);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 9000);
    CHECK_EQ(g->k.gso_size, 1000);
    lab_wait(&l, LAB_RTT);
    struct mp_opts o = lab_sack(&l, P0, (struct mp_opts){ 0 }, 3001, 5001);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 2001, .o = lab_sack(&l, P0, o, 6001, 9001) });
    lab_wait(&l, MP_MS(5));
    CHECK(lab_payload_is(lab_expect(&l, P0, MP_ACK, 2001, 1, 1000), 2000));
    CHECK(lab_payload_is(lab_expect(&l, P0, MP_ACK, 5001, 1, 1000), 5000));
    lab_ack(&l, P0, 1, 9001);
    CHECK(mpc_send_done(l.c));
    lab_end(&l);
}

static uint64_t number_of_cc(const char *name)
{
    for (uint64_t i = 0; mp_cc_all[i]; i++)
        if (!strcmp(mp_cc_all[i]->name, name)) return i + 1;
    return 0;
}

static double kept_at_a_loss(const char *cc) /* of the window */
{
    struct lab l = { .plain = true };
    struct mpc_info i;
    uint32_t s = grown(&l);
    lab_write(&l, 6000);
    sent(&l, s, 6);
    uint64_t before = lab_sf(&l, 0).cwnd;
    CHECK_EQ(mpc_setopt(l.c, MPC_CC, number_of_cc(cc), l.now), 0);
    mpc_get_info(l.c, &i);
    CHECK(!strcmp(i.cc, cc));
    CHECK_EQ(lab_sf(&l, 0).cwnd, before);
    CHECK_EQ((uint64_t)-mpc_setopt(l.c, MPC_CC, 99, l.now), ENOENT);
    lab_wait(&l, LAB_RTT);
    for (uint32_t k = 2; k <= 4; k++) sack(&l, s, s + 1000, s + k * 1000);
    lab_wait(&l, MP_MS(5));
    double kept = (double)lab_sf(&l, 0).ssthresh / (double)before;
    sent(&l, s, 1);
    lab_ack(&l, P0, 1, s + 6000);
    lab_wait(&l, MP_SEC(2));
    CHECK_EQ(mpc_setopt(l.c, MPC_CC, 0, l.now), 0);
    mpc_get_info(l.c, &i);
    CHECK(!strcmp(i.cc, "lia"));
    lab_end(&l);
    return kept;
}

TEST(the_congestion_control_of_a_connection_changes_on_the_way) /* TCP_CONGESTION; RFC 5681 3.2, RFC 9438 4.6 */
{
    double reno = kept_at_a_loss("reno"), cubic = kept_at_a_loss("cubic");
    CHECK(reno > 0.45 && reno < 0.55);
    CHECK(cubic > 0.65 && cubic < 0.75);
}

TEST(what_was_sacked_and_is_given_up_again_comes_after_a_timeout) /* reneging, RFC 2018 8 */
{
    struct lab l = { .plain = true };
    uint32_t s = grown(&l);
    lab_write(&l, 3000);
    sent(&l, s, 3);
    lab_wait(&l, LAB_RTT);
    sack(&l, s, s + 1000, s + 3000);
    lab_wait(&l, MP_MS(5));
    sent(&l, s, 1);
    lab_ack(&l, P0, 1, s + 1000); /* the hole is filled, and nothing more: what was told to be behind it is gone */
    lab_wait(&l, MP_SEC(3));
    struct got *g = &lab_none;
    uint32_t end = s + 1000;
    for (; l.qi < l.qn; l.qi++) {
        g = &l.q[l.qi];
        if (g->len && g->seq <= end && g->seq + g->len > end) end = g->seq + g->len, lab_ack(&l, P0, 1, end);
    }
    lab_wait(&l, MP_SEC(1));
    for (; l.qi < l.qn; l.qi++) {
        g = &l.q[l.qi];
        if (g->len && g->seq <= end && g->seq + g->len > end) end = g->seq + g->len, lab_ack(&l, P0, 1, end);
    }
    CHECK_EQ(end, s + 3000);
    CHECK(mpc_send_done(l.c));
    lab_forget(&l);
    lab_end(&l);
}

TEST(sacks_of_single_bytes_do_not_make_the_scoreboard_as_long_as_the_data) /* CVE-2019-11478 of another TCP */
{
    struct lab l = { .plain = true, .slice = 60000 };
    uint32_t at = grown(&l);
    lab_write(&l, 20000);
    for (uint32_t i = 0; i < 9000; i++) {
        sack(&l, at, at + 2 * i + 1, at + 2 * i + 2);
        l.qi = 0; /* what is sent is of no interest, and more than the lab keeps */
        for (; l.qn; l.qn--) free(l.q[l.qn - 1].data);
    }
    CHECK(l.c->sfs->nseg < 200);
    uint32_t n = 0;
    for (const struct sf_seg *g = l.c->sfs->seg_head; g; g = g->next) n++;
    CHECK_EQ(l.c->sfs->nseg, n);
    lab_ack(&l, P0, 1, at + 20000);
    CHECK(mpc_send_done(l.c));
    CHECK_EQ(l.c->sfs->nseg, 0);
    lab_forget(&l);
    lab_end(&l);
}
