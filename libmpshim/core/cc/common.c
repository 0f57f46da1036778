/* core/cc/common.c: see common.h and cc.h. */
#include "core/cc/common.h"

enum { INITIAL_SEGMENTS = 10, MIN_SSTHRESH_SEGMENTS = 2 };

/* RFC 9406 4.3. */
enum { N_RTT_SAMPLE = 8, MIN_RTT_DIVISOR = 8, CSS_GROWTH_DIVISOR = 4, CSS_ROUNDS = 5 };
static const mp_dur min_rtt_thresh = MP_MS(4), max_rtt_thresh = MP_MS(16);

/* RFC 6928 2: ten segments (its 14,600-byte bound concerns segments above 1,460 bytes; like Linux we count
 * segments, since on such links a segment is one packet too). */
uint64_t mp_cc_initial_window(uint32_t mss) { return (uint64_t)INITIAL_SEGMENTS * mss; }

/* RFC 5681 3.1 with all bytes counted, not RFC 3465's two segments an ACK: GRO makes one ACK of many. */
bool mp_cc_slow_start(struct mp_cc_state *s, uint64_t acked)
{
    if (s->cwnd >= s->ssthresh) return false;
    s->cwnd += mp_min(acked, s->ssthresh - s->cwnd);
    return true;
}

void mp_cc_grow_by_bytes(struct mp_cc_state *s, uint64_t acked, uint64_t threshold)
{
    s->acked_since_grow += acked;
    if (s->acked_since_grow < threshold || !threshold) return;
    s->cwnd += s->acked_since_grow / threshold * s->mss;
    s->acked_since_grow %= threshold;
}

void mp_cc_change(struct mp_cc_state *s, uint64_t *fraction, double bytes)
{
    const double unit = 65536, segment = s->mss * unit;
    double sum = (double)(int64_t)*fraction + bytes * unit;
    double whole = (double)(int64_t)(sum / segment); /* towards zero */

    *fraction = (uint64_t)(int64_t)(sum - whole * segment);
    if (whole > 0) s->cwnd += (uint64_t)whole * s->mss;
    if (whole < 0) s->cwnd = mp_max(s->cwnd - mp_min(s->cwnd, (uint64_t)-whole * s->mss), mp_min(s->cwnd, (uint64_t)MIN_SSTHRESH_SEGMENTS * s->mss));
}

bool mp_cc_counts(const struct mp_cc_state *s) { return s && s->active && s->srtt && s->cwnd; }

double mp_cc_coupled_window(const struct mp_cc_state *s)
{
    return (double)(s->in_recovery ? mp_min(s->cwnd, s->ssthresh) : s->cwnd);
}

/* ---- HyStart++ (RFC 9406): leave slow start when the round's least RTT rises, before losing a window ---- */

/* What the ACKs of a round tell about was sent in the round before. Where the program sent less than a window then, a longer RTT
 * is no queue of slow start's: nothing is judged, and no round of conservative slow start has passed. */
static void hystart_new_round(struct mp_cc_state *s, bool app_limited)
{
    s->priv[P_ROUND_APP_LIMITED] = app_limited;
    s->priv[P_LAST_ROUND_MIN_RTT] = s->priv[P_ROUND_MIN_RTT];
    s->priv[P_ROUND_MIN_RTT] = 0;
    s->priv[P_ROUND_SAMPLES] = 0;
    if (!s->priv[P_CSS_BASELINE_RTT] || app_limited) return;
    if (++s->priv[P_CSS_ROUNDS] < CSS_ROUNDS) return;
    s->ssthresh = s->cwnd; /* it was not spurious: congestion avoidance from here */
    s->priv[P_CSS_BASELINE_RTT] = 0;
}

static void hystart_sample(struct mp_cc_state *s)
{
    uint64_t *min = &s->priv[P_ROUND_MIN_RTT];

    if (!s->last_rtt) return;
    if (!*min || s->last_rtt < *min) *min = s->last_rtt;
    s->priv[P_ROUND_SAMPLES]++;
}

static mp_dur rtt_thresh(mp_dur rtt) { return mp_max(min_rtt_thresh, mp_min(rtt / MIN_RTT_DIVISOR, max_rtt_thresh)); }

/* RFC 9406 4.2 goes back when the RTT was only noise, and else on for five rounds, to three times the window: more than most
 * queues hold. What made the RTT rise was sent when the window was half as large: if it is a queue of ours, the next
 * round finds it far longer, and slow start is over. A path that only became slower shows no second rise. */
static void judge_css(struct mp_cc_state *s, mp_dur cur)
{
    mp_dur baseline = s->priv[P_CSS_BASELINE_RTT];

    if (cur < baseline) {
        s->priv[P_CSS_BASELINE_RTT] = 0;
    } else if (s->priv[P_CSS_ROUNDS] && cur >= baseline + rtt_thresh(baseline)) {
        s->ssthresh = s->cwnd;
        s->priv[P_CSS_BASELINE_RTT] = 0;
    }
}

/* RFC 9406 4.2: conservative slow start on a higher RTT. */
static void hystart_judge(struct mp_cc_state *s)
{
    mp_dur cur = s->priv[P_ROUND_MIN_RTT], last = s->priv[P_LAST_ROUND_MIN_RTT];

    if (s->priv[P_ROUND_SAMPLES] < N_RTT_SAMPLE || s->priv[P_ROUND_APP_LIMITED]) return;
    if (s->priv[P_CSS_BASELINE_RTT]) {
        judge_css(s, cur);
    } else if (last && cur >= last + rtt_thresh(last)) {
        s->priv[P_CSS_BASELINE_RTT] = cur;
        s->priv[P_CSS_ROUNDS] = 0;
    }
}

/* RFC 9406 4.3: only the first slow start is blind; later ones know ssthresh. Returns what counts of the bytes acknowledged:
 * in conservative slow start a quarter, but nothing until the round ends that began it, since that round judges nothing. */
static uint64_t hystart_counts(struct mp_cc_state *s, const struct mp_cc_ack *a)
{
    if (s->ssthresh != UINT64_MAX) return a->acked;
    if (a->round_start) hystart_new_round(s, a->app_limited);
    hystart_sample(s);
    hystart_judge(s);
    if (!s->priv[P_CSS_BASELINE_RTT]) return a->acked;
    return s->priv[P_CSS_ROUNDS] ? a->acked / CSS_GROWTH_DIVISOR : 0;
}

bool mp_cc_hystart_ack(struct mp_cc_state *s, const struct mp_cc_ack *a)
{
    uint64_t counts = hystart_counts(s, a);

    return a->app_limited || mp_cc_slow_start(s, counts);
}

/* ---- reductions ---- */

void mp_cc_remember(struct mp_cc_state *s)
{
    s->priv[P_PRIOR_CWND] = s->cwnd;
    s->priv[P_PRIOR_SSTHRESH] = s->ssthresh;
}

bool mp_cc_undo(struct mp_cc_state *s)
{
    if (!s->priv[P_PRIOR_CWND]) return false;
    s->cwnd = mp_max(s->cwnd, s->priv[P_PRIOR_CWND]);
    s->ssthresh = mp_max(s->ssthresh, s->priv[P_PRIOR_SSTHRESH]);
    s->priv[P_PRIOR_CWND] = s->priv[P_REDUCED_TO] = 0;
    return true;
}

static uint64_t ssthresh_floor(const struct mp_cc_state *s) { return (uint64_t)MIN_SSTHRESH_SEGMENTS * s->mss; }

void mp_cc_reduce(struct mp_cc_state *s, uint64_t ssthresh)
{
    s->ssthresh = mp_max(ssthresh, ssthresh_floor(s));
    s->cwnd = s->priv[P_REDUCED_TO] = s->ssthresh;
    s->acked_since_grow = 0;
    s->priv[P_CSS_BASELINE_RTT] = 0;
}

/* RFC 5681 3.1: ssthresh from the flight, but held when the window has not grown since it was last reduced:
 * the same loss times out again, or the recovery from it does. */
static bool was_reduced_just_now(const struct mp_cc_state *s)
{
    return s->cwnd <= s->mss || s->cwnd == s->priv[P_REDUCED_TO];
}

void mp_cc_timeout(struct mp_cc_state *s, uint64_t flight, unsigned num, unsigned den)
{
    if (!was_reduced_just_now(s)) {
        mp_cc_remember(s);
        mp_cc_reduce(s, mp_min(flight, s->cwnd) / den * num);
    }
    s->cwnd = s->mss;
    s->priv[P_REDUCED_TO] = 0;
    s->acked_since_grow = 0;
    s->priv[P_ROUND_MIN_RTT] = s->priv[P_LAST_ROUND_MIN_RTT] = s->priv[P_ROUND_SAMPLES] = 0;
}

/* ---- Reno's reactions ---- */

void mp_cc_reno_ack(struct mp_cc_group *g, const struct mp_cc_ack *a)
{
    struct mp_cc_state *s = mp_cc_self(g);

    if (!mp_cc_hystart_ack(s, a)) mp_cc_grow_by_bytes(s, a->acked, s->cwnd);
}

void mp_cc_reno_loss(struct mp_cc_group *g, mp_time now)
{
    struct mp_cc_state *s = mp_cc_self(g);

    (void)now;
    mp_cc_remember(s);
    mp_cc_reduce(s, s->cwnd / 2);
}

void mp_cc_reno_rto(struct mp_cc_group *g, uint64_t flight, mp_time now)
{
    (void)now;
    mp_cc_timeout(mp_cc_self(g), flight, 1, 2);
}

/* RFC 2861 3: for every RTO idle the window halves, not below the restart window (RFC 5681 4.1);
 * ssthresh remembers three quarters of what was. */
void mp_cc_reno_idle(struct mp_cc_group *g, mp_dur idle, mp_dur rto)
{
    struct mp_cc_state *s = mp_cc_self(g);
    uint64_t restart = mp_min(mp_cc_initial_window(s->mss), s->cwnd);

    if (!rto || idle < rto) return;
    s->ssthresh = mp_max(s->ssthresh, s->cwnd / 4 * 3);
    for (; idle >= rto && s->cwnd > restart; idle -= rto) s->cwnd /= 2;
    s->cwnd = mp_max(s->cwnd, restart);
    s->acked_since_grow = 0;
}

void mp_cc_reno_undo(struct mp_cc_group *g, mp_time now)
{
    (void)now;
    mp_cc_undo(mp_cc_self(g));
}
