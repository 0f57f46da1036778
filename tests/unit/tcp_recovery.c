/* What follows a loss: PRR (RFC 9937), the reordering window (RFC 8985 6.2), needless recoveries undone (RFC 3522,
 * RFC 3708, RFC 5682), losses that a probe mended (RFC 8985 7.4). */
#include "lab_loss.h"

/* An ACK of the first SACKed block, with a D-SACK before it. */
static void dsack(struct lab *l, uint32_t ack, uint32_t left, uint32_t right)
{
    sack(l, ack, left, right);
}

static void cubic(struct mp_settings *s) { s->cc = "cubic"; }
static void reno(struct mp_settings *s) { s->cc = "reno"; }

/* n segments from s are on their way and the first is missing; the next ones are reported one by one. */
static int sent_for_each_sack(struct lab *l, uint32_t s, uint32_t from, uint32_t to)
{
    int before = l->qn;
    for (uint32_t i = from; i <= to; i++) sack(l, s, s + 1000, s + (i + 1) * 1000);
    return l->qn - before;
}

/* A full window of segments, sent at once; returns their number. */
static uint32_t full_window(struct lab *l, uint32_t s)
{
    uint32_t n = (uint32_t)(lab_sf(l, 0).cwnd / LAB_MSS);
    lab_write(l, 200000);
    CHECK_EQ(lab_waiting(l), n);
    CHECK(s + n * 1000 == highest(l));
    lab_forget(l);
    lab_wait(l, LAB_RTT);
    return n;
}

TEST(recovery_comes_down_in_proportion) /* RFC 9937 6: half of what is delivered goes out again with beta 1/2 */
{
    struct lab l = { .plain = true, .tune = reno, .wnd0 = 65535 };
    uint32_t s = grown(&l), n = full_window(&l, s);
    CHECK(n >= 20);
    sent_for_each_sack(&l, s, 1, 3); /* limited transmit, then the retransmission */
    lab_expect_counter(&l, recovery, 1);
    lab_forget(&l);
    int k = (int)n / 2, out = sent_for_each_sack(&l, s, 4, 3 + (uint32_t)k);
    CHECK(out >= k / 2 - 2 && out <= k / 2 + 2);
    lab_forget(&l);
    lab_end(&l);
}

TEST(after_recovery_the_window_is_ssthresh) /* RFC 9937 6, and the congestion control has said so all the time */
{
    struct lab l = { .plain = true, .tune = reno };
    uint32_t s = grown(&l), n = full_window(&l, s);
    sent_for_each_sack(&l, s, 1, n / 2);
    uint64_t ssthresh = lab_sf(&l, 0).ssthresh;
    CHECK_EQ(lab_sf(&l, 0).cwnd, ssthresh); /* what coupled siblings count, RFC 6356 3 */
    lab_ack(&l, P0, 1, highest(&l));
    CHECK(lab_sf(&l, 0).cwnd >= ssthresh && lab_sf(&l, 0).cwnd <= ssthresh + 2 * LAB_MSS);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_window_that_was_lost_is_not_sent_again_at_once) /* RFC 9937 6: PRR-CRB, one for one while less than ssthresh is out */
{
    struct lab l = { .plain = true, .tune = reno };
    uint32_t s = grown(&l), n = full_window(&l, s);
    sack(&l, s, s + (n - 3) * 1000, s + n * 1000); /* all but three are lost */
    int first = lab_waiting(&l);
    CHECK(first >= 1 && first <= 3);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, s + 1000);
    CHECK(lab_waiting(&l) >= 1 && lab_waiting(&l) <= 2); /* and one more for progress without loss */
    lab_forget(&l);
    lab_end(&l);
}

/* Segment s was found lost and sent again; then its D-SACK says that both came. */
static uint32_t needless(struct lab *l, uint64_t *cwnd)
{
    uint32_t s = grown(l);
    lab_write(l, 6000);
    lab_forget(l);
    *cwnd = lab_sf(l, 0).cwnd;
    lab_wait(l, LAB_RTT);
    sent_for_each_sack(l, s, 1, 4);
    lab_wait(l, MP_MS(3));
    sent(l, s, 1);
    lab_expect_counter(l, recovery, 1);
    CHECK(lab_sf(l, 0).cwnd < *cwnd);
    return s;
}

TEST(a_recovery_whose_retransmissions_came_twice_is_undone) /* RFC 3708, when it is over already */
{
    struct lab l = { .plain = true, .no_ts = true, .tune = cubic };
    uint64_t cwnd;
    uint32_t s = needless(&l, &cwnd);
    lab_ack(&l, P0, 1, s + 6000);
    CHECK(lab_sf(&l, 0).cwnd < cwnd);
    dsack(&l, s + 6000, s, s + 1000);
    lab_expect_counter(&l, dsack_in, 1);
    lab_expect_counter(&l, spurious, 1);
    CHECK(lab_sf(&l, 0).cwnd >= cwnd);
    lab_end(&l);
}

TEST(a_duplicate_of_the_network_undoes_nothing) /* RFC 3708 2: only what was sent again can have come twice by our doing */
{
    struct lab l = { .plain = true, .no_ts = true, .tune = cubic };
    uint64_t cwnd;
    uint32_t s = needless(&l, &cwnd);
    lab_ack(&l, P0, 1, s + 6000);
    dsack(&l, s + 6000, s - 1000, s); /* of another segment, from before */
    lab_expect_counter(&l, spurious, 0);
    CHECK(lab_sf(&l, 0).cwnd < cwnd);
    lab_end(&l);
}

TEST(the_original_s_timestamp_undoes_a_recovery) /* Eifel, RFC 3522 3.2 */
{
    struct lab l = { .plain = true, .tune = cubic };
    uint64_t cwnd;
    uint32_t s = grown(&l);
    lab_write(&l, 6000);
    uint32_t ts = l.q[l.qn - 1].o.ts_val;
    lab_forget(&l);
    cwnd = lab_sf(&l, 0).cwnd;
    lab_wait(&l, LAB_RTT);
    sent_for_each_sack(&l, s, 1, 4);
    lab_wait(&l, MP_MS(3));
    sent(&l, s, 1);
    l.p[0].ts_echo = ts;
    lab_ack(&l, P0, 1, s + 6000);
    lab_expect_counter(&l, spurious, 1);
    CHECK(lab_sf(&l, 0).cwnd >= cwnd);
    lab_end(&l);
}

TEST(a_recovery_that_is_over_before_anything_is_sent_again_is_undone) /* ACKs that are read in one batch */
{
    struct lab l = { .plain = true, .no_ts = true, .tune = cubic };
    uint32_t s = grown(&l);
    lab_write(&l, 6000);
    lab_forget(&l);
    uint64_t cwnd = lab_sf(&l, 0).cwnd;
    lab_wait(&l, LAB_RTT);
    l.blocked = true;
    sack(&l, s, s + 1000, s + 5000);
    lab_expect_counter(&l, recovery, 1);
    CHECK(lab_sf(&l, 0).ssthresh < cwnd);
    lab_ack(&l, P0, 1, s + 6000);
    l.blocked = false;
    lab_expect_nothing(&l);
    lab_expect_counter(&l, spurious, 1);
    CHECK(lab_sf(&l, 0).cwnd >= cwnd);
    lab_end(&l);
}

TEST(an_old_timestamp_that_acknowledges_less_proves_nothing) /* RFC 3522 3.2: it must acknowledge what was sent again */
{
    struct lab l = { .plain = true, .tune = cubic };
    uint32_t s = grown(&l);
    lab_write(&l, 8000);
    uint32_t ts = l.q[l.qn - 1].o.ts_val;
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    /* the second is missing; the ACK of the first is late */
    struct mp_opts none = { 0 };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = s, .o = lab_sack(&l, P0, lab_sack(&l, P0, none, s + 2000, s + 8000), s, s + 1000) });
    lab_wait(&l, MP_MS(4));
    sent(&l, s + 1000, 1);
    l.p[0].ts_echo = ts;
    sack(&l, s + 1000, s + 2000, s + 8000);
    lab_expect_counter(&l, spurious, 0);
    lab_ack(&l, P0, 1, s + 8000);
    lab_end(&l);
}

TEST(reports_of_duplicates_widen_the_reordering_window) /* RFC 8985 6.2 step 4 */
{
    struct lab l = { .plain = true, .no_ts = true, .tune = cubic };
    uint64_t cwnd;
    uint32_t s = needless(&l, &cwnd);
    lab_ack(&l, P0, 1, s + 6000);
    dsack(&l, s + 6000, s, s + 1000);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    s += 6000;
    lab_write(&l, 6000);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    sent_for_each_sack(&l, s, 1, 4);
    lab_wait(&l, LAB_RTT / 4 + MP_MS(1)); /* one quarter of the round trip was not enough */
    lab_expect_nothing(&l);
    lab_wait(&l, LAB_RTT / 4);
    sent(&l, s, 1);
    lab_ack(&l, P0, 1, s + 6000);
    lab_end(&l);
}

/* Of three segments from s on two are acknowledged; a probe goes out for the last one, which is acknowledged: the probe, or the
 * original, late. */
static uint32_t last_one_probed(struct lab *l, bool late, uint64_t *cwnd)
{
    uint32_t s = grown(l);
    lab_write(l, 3000);
    lab_forget(l);
    *cwnd = lab_sf(l, 0).cwnd;
    lab_wait(l, LAB_RTT);
    lab_ack(l, &l->p[0], 1, s + 2000);
    uint32_t echo = l->p[0].ts_echo;
    lab_wait(l, MP_SEC(1) / 4);
    sent(l, s + 2000, 1);
    lab_expect_counter(l, tlp, 1);
    if (late) l->p[0].ts_echo = echo;
    lab_ack(l, &l->p[0], 1, s + 3000);
    return s;
}

TEST(a_loss_that_the_probe_mended_counts) /* RFC 8985 7.4 */
{
    struct lab l = { .plain = true };
    uint64_t cwnd;
    uint32_t s = last_one_probed(&l, false, &cwnd);
    CHECK_EQ(lab_sf(&l, 0).cwnd >= cwnd, true); /* a D-SACK may follow */
    lab_write(&l, 1000);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, s + 4000);
    lab_expect_counter(&l, tlp_loss, 1);
    CHECK(lab_sf(&l, 0).cwnd < cwnd);
    lab_end(&l);
}

TEST(a_probe_that_was_one_too_many_costs_nothing) /* RFC 8985 7.4.2 */
{
    struct lab l = { .plain = true };
    uint64_t cwnd;
    uint32_t s = last_one_probed(&l, false, &cwnd);
    dsack(&l, s + 3000, s + 2000, s + 3000);
    lab_write(&l, 1000);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, s + 4000);
    lab_expect_counter(&l, tlp_loss, 0);
    lab_expect_counter(&l, spurious, 0);
    CHECK(lab_sf(&l, 0).cwnd >= cwnd);
    lab_end(&l);
}

TEST(a_probe_whose_original_was_late_costs_nothing) /* the ACK echoes what was sent before the probe; its D-SACK comes later */
{
    struct lab l = { .plain = true };
    uint64_t cwnd;
    uint32_t s = last_one_probed(&l, true, &cwnd);
    lab_write(&l, 1000);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, s + 4000);
    lab_expect_counter(&l, tlp_loss, 0);
    CHECK(lab_sf(&l, 0).cwnd >= cwnd);
    lab_end(&l);
}

/* A time-out that struck while all of it was only late; the head was sent again. */
static uint32_t late_after_timeout(struct lab *l, uint64_t *cwnd)
{
    uint32_t s = grown(l), n;
    *cwnd = lab_sf(l, 0).cwnd;
    n = full_window(l, s);
    lab_wait(l, MP_MS(400));
    lab_expect_counter(l, rto, 1);
    lab_forget(l);
    CHECK_EQ(lab_sf(l, 0).cwnd, LAB_MSS);
    return s + n * 1000;
}

TEST(late_acks_after_a_timeout_undo_it) /* F-RTO, RFC 5682 3.1: new data after the head, then the originals' ACKs go on */
{
    struct lab l = { .plain = true, .no_ts = true };
    uint64_t cwnd;
    uint32_t end = late_after_timeout(&l, &cwnd), s = end - (uint32_t)cwnd / 1000 * 1000;
    lab_ack(&l, P0, 1, s + 1000); /* the head's, original or not */
    sent(&l, end, 2);            /* step 2b */
    lab_expect_nothing(&l);
    lab_ack(&l, P0, 1, s + 2000);
    lab_expect_counter(&l, spurious, 1);
    CHECK(lab_sf(&l, 0).cwnd >= cwnd);
    CHECK_EQ(mp_stack_counter(l.st, MP_E_seg_rexmit), 2); /* the probe and the head: nothing needlessly */
    lab_forget(&l);
    lab_end(&l);
}

TEST(duplicate_acks_after_a_timeout_confirm_it) /* RFC 5682 3.1 step 3a */
{
    struct lab l = { .plain = true, .no_ts = true };
    uint64_t cwnd;
    uint32_t end = late_after_timeout(&l, &cwnd), s = end - (uint32_t)cwnd / 1000 * 1000;
    lab_ack(&l, P0, 1, s + 1000);
    sent(&l, end, 2);
    sack(&l, s + 1000, end, end + 1000);
    lab_expect_counter(&l, spurious, 0);
    CHECK(lab_sf(&l, 0).cwnd < cwnd / 2);
    sent(&l, s + 1000, 1);
    lab_forget(&l);
    lab_end(&l);
}
