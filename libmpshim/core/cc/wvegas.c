/* core/cc/wvegas.c: weighted Vegas, Cao et al., ICNP 2012: coupled, and steered by delay. All subflows together keep
 * TOTAL_ALPHA segments in the queues on their ways, each its share by rate: so the traffic moves to where queues are short.
 * Once a round trip with more than two samples, rtt their mean, base the least ever, windows in segments:
 *
 *   diff = w (rtt - base) / rtt      segments that wait in queues
 *   alpha_r = max(2, TOTAL_ALPHA rate_r / sum of the rates)
 *   slow start ends at diff > 1, with a window that the path carries without a queue; then w + 1 if diff < alpha_r, w - 1 if
 *   diff > alpha_r. When the queueing delay has doubled since its minimum, the queue is drained once: w base / (2 rtt).
 *   That minimum is taken while diff is above its target: below it, our own growth would double the delay again and again.
 *
 * Losses are answered as by Reno. Like every delay-based flow it gives way to loss-based ones that fill the queue. */
#include "core/cc/common.h"

enum {
    P_RTT_SUM = P_ALGORITHM, /* ns, of this round trip */
    P_RTT_N,
    P_ROUND_CWND,            /* bytes, when it began: that window makes those round-trip times */
    P_QUEUE_DELAY,           /* ns, the least since the last draining; 0: none */
};
enum { TOTAL_ALPHA = 10, LEAST_ALPHA = 2, LEAST_WINDOW = 2, LEAST_SAMPLES = 3 };

static double rate(const struct mp_cc_state *s) { return (double)s->cwnd / (double)s->srtt; }

static double alpha(const struct mp_cc_group *g)
{
    double sum = 0, share;

    for (int i = 0; i < g->n; i++)
        if (mp_cc_counts(g->s[i])) sum += rate(g->s[i]);
    share = sum > 0 && mp_cc_counts(mp_cc_self(g)) ? TOTAL_ALPHA * rate(mp_cc_self(g)) / sum : TOTAL_ALPHA;
    return share > LEAST_ALPHA ? share : LEAST_ALPHA;
}

static uint64_t floor_window(const struct mp_cc_state *s, double cwnd)
{
    return mp_max((uint64_t)cwnd, (uint64_t)LEAST_WINDOW * s->mss);
}

static void drain_queue(struct mp_cc_state *s, mp_dur rtt, mp_dur base)
{
    mp_dur delay = rtt - base;
    uint64_t *least = &s->priv[P_QUEUE_DELAY];

    if (!*least || delay < *least) *least = mp_max(delay, 1);
    if (delay < 2 * *least) return;
    s->cwnd = floor_window(s, (double)s->cwnd * (double)base / (2.0 * (double)rtt));
    *least = 0;
}

static void adjust(struct mp_cc_group *g, mp_dur rtt)
{
    struct mp_cc_state *s = mp_cc_self(g);
    mp_dur base = mp_min(s->min_rtt, rtt);
    double w = (double)mp_min(s->cwnd, s->priv[P_ROUND_CWND]);
    double diff = w / s->mss * (double)(rtt - base) / (double)rtt, target = alpha(g);

    if (s->cwnd < s->ssthresh) {
        if (diff <= 1) return;
        s->cwnd = floor_window(s, w * (double)base / (double)rtt + s->mss);
        s->ssthresh = s->cwnd;
        return;
    }
    if (diff > target)
        s->ssthresh = s->cwnd = floor_window(s, (double)s->cwnd - s->mss);
    else if (diff < target)
        s->cwnd += s->mss;
    if (diff > target) drain_queue(s, rtt, base);
    s->ssthresh = mp_min(s->ssthresh, s->cwnd); /* smaller windows of ours are no slow start */
}

static void wvegas_ack(struct mp_cc_group *g, const struct mp_cc_ack *a)
{
    struct mp_cc_state *s = mp_cc_self(g);

    if (a->round_start) {
        uint64_t n = s->priv[P_RTT_N];
        mp_dur mean = n ? s->priv[P_RTT_SUM] / n : 0;

        s->priv[P_RTT_SUM] = s->priv[P_RTT_N] = 0;
        if (n >= LEAST_SAMPLES && !a->app_limited) adjust(g, mean);
        else if (!a->app_limited && s->cwnd >= s->ssthresh) mp_cc_grow_by_bytes(s, s->cwnd, s->cwnd);
        s->priv[P_ROUND_CWND] = s->cwnd;
    }
    if (s->last_rtt) {
        s->priv[P_RTT_SUM] += s->last_rtt;
        s->priv[P_RTT_N]++;
    }
    if (!a->app_limited) mp_cc_slow_start(s, a->acked);
}

static void wvegas_loss(struct mp_cc_group *g, mp_time now)
{
    struct mp_cc_state *s = mp_cc_self(g);

    s->priv[P_RTT_SUM] = s->priv[P_RTT_N] = 0;
    mp_cc_reno_loss(g, now);
}

const struct mp_cc mp_cc_wvegas = {
    .name = "wvegas",
    .source = "Cao et al., ICNP 2012",
    .summary = "steered by delay: ten segments in all the queues together; gives way to others",
    .coupled = true,
    .delay_based = true,
    .on_ack = wvegas_ack,
    .on_loss = wvegas_loss,
    .on_rto = mp_cc_reno_rto,
    .on_idle = mp_cc_reno_idle,
    .on_undo = mp_cc_reno_undo,
};
