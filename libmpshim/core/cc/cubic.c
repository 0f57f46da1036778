/* core/cc/cubic.c: CUBIC, RFC 9438. Windows in bytes here, in segments inside the formulae; times in ns
 * outside, in seconds inside. */
#include "core/cc/common.h"

enum {
    P_EPOCH = P_ALGORITHM, /* start of this congestion avoidance stage, ns; 0: begins with the next ACK */
    P_LAST_ACK,            /* ns */
    P_W_MAX,               /* bytes; 0: none yet */
    P_K,                   /* ns */
    P_W_EST,               /* what Reno would have, bytes << EST_SHIFT */
    P_CWND_PRIOR,          /* cwnd before the last reduction, bytes */
    P_PRIOR,               /* for undo: the words from P_EPOCH to P_CWND_PRIOR as they were */
    P_PRIOR_END = P_PRIOR + P_CWND_PRIOR - P_EPOCH,
    P_END
};
_Static_assert(P_END <= sizeof((struct mp_cc_state *)0)->priv / sizeof(uint64_t), "priv is too small");
enum { EST_SHIFT = 8 }; /* fraction of W_est: enough for one ACK's share of the largest windows */

static const double C = 0.4;                            /* RFC 9438 5.1, segments / s^3 */
enum { BETA_NUM = 7, BETA_DEN = 10 };                   /* RFC 9438 4.6 */
static const double alpha_friendly = 3.0 * 0.3 / 1.7;   /* RFC 9438 4.3: 3 (1 - beta) / (1 + beta) */

/* libm would be one more library in every program; Newton from above converges in a few dozen steps for any
 * window, and this runs once a loss. x >= 0. */
static double cube_root(double x)
{
    double r = x > 1 ? x : 1, next;

    if (x <= 0) return 0;
    for (int i = 0; i < 200; i++) {
        next = r - (r * r * r - x) / (3 * r * r);
        if (next >= r) break;
        r = next;
    }
    return r;
}

static double seconds(mp_dur d) { return (double)d / 1e9; }
static double segments(const struct mp_cc_state *s, uint64_t bytes) { return (double)bytes / s->mss; }

/* RFC 9438 4.2: K, and what to do without a plateau to aim at. */
static void begin_epoch(struct mp_cc_state *s, mp_time now)
{
    uint64_t w_max = s->priv[P_W_MAX];

    s->priv[P_EPOCH] = now;
    s->priv[P_W_EST] = s->cwnd << EST_SHIFT;
    s->acked_since_grow = 0;
    if (w_max > s->cwnd) {
        s->priv[P_K] = (uint64_t)(cube_root(segments(s, w_max - s->cwnd) / C) * 1e9);
    } else {
        s->priv[P_K] = 0;
        s->priv[P_W_MAX] = s->cwnd;
    }
}

/* RFC 9438 4.2, figure 1: the window at time t of the epoch, in bytes. */
static double w_cubic(const struct mp_cc_state *s, mp_dur t)
{
    double d = seconds(t) - seconds(s->priv[P_K]);

    return C * d * d * d * s->mss + (double)s->priv[P_W_MAX];
}

/* RFC 9438 4.2: the aim for the next round trip, within [cwnd, 1.5 cwnd]. */
static uint64_t target(const struct mp_cc_state *s, mp_dur t)
{
    double w = w_cubic(s, t + s->srtt);

    if (w <= (double)s->cwnd) return s->cwnd;
    if (w >= 1.5 * (double)s->cwnd) return s->cwnd + s->cwnd / 2;
    return (uint64_t)w;
}

/* RFC 9438 4.3: what Reno would have by now, figure 4; its slope is Reno's own once cwnd_prior is reached. */
static uint64_t grow_reno_estimate(struct mp_cc_state *s, uint64_t acked)
{
    uint64_t *est = &s->priv[P_W_EST];
    double alpha = *est >> EST_SHIFT >= s->priv[P_CWND_PRIOR] ? 1.0 : alpha_friendly;

    *est += (uint64_t)(alpha * (double)acked * s->mss / (double)s->cwnd * (1 << EST_SHIFT));
    return *est >> EST_SHIFT;
}

static void congestion_avoidance(struct mp_cc_state *s, const struct mp_cc_ack *a)
{
    uint64_t w_est, aim;
    mp_dur t;

    if (!s->priv[P_EPOCH]) begin_epoch(s, a->now);
    t = a->now - s->priv[P_EPOCH];
    w_est = grow_reno_estimate(s, a->acked);
    if (w_cubic(s, t) < (double)w_est) { /* RFC 9438 4.3: the Reno-friendly region */
        s->cwnd = mp_max(s->cwnd, w_est);
        return;
    }
    aim = target(s, t);
    if (aim > s->cwnd) /* RFC 9438 4.4: (target - cwnd) / cwnd for each segment acknowledged */
        mp_cc_grow_by_bytes(s, a->acked, (uint64_t)((double)s->cwnd * s->mss / (double)(aim - s->cwnd)));
}

/* RFC 9438 5.8: time in which the window was not in use does not count. */
static void skip_time(struct mp_cc_state *s, mp_dur d)
{
    if (s->priv[P_EPOCH]) s->priv[P_EPOCH] += d;
}

static void cubic_ack(struct mp_cc_group *g, const struct mp_cc_ack *a)
{
    struct mp_cc_state *s = mp_cc_self(g);
    mp_time last = s->priv[P_LAST_ACK];

    s->priv[P_LAST_ACK] = a->now;
    if (a->app_limited) skip_time(s, last && a->now > last ? a->now - last : 0);
    if (!mp_cc_hystart_ack(s, a)) congestion_avoidance(s, a);
}

static void copy_epoch(struct mp_cc_state *s, int to, int from)
{
    for (int i = 0; i <= P_CWND_PRIOR - P_EPOCH; i++) s->priv[to + i] = s->priv[from + i];
}

/* RFC 9438 4.7, fast convergence: a flow that shrinks twice in a row leaves room for new ones. */
static void note_plateau(struct mp_cc_state *s)
{
    copy_epoch(s, P_PRIOR, P_EPOCH);
    s->priv[P_W_MAX] = s->cwnd < s->priv[P_W_MAX] ? s->cwnd / (2 * BETA_DEN) * (BETA_DEN + BETA_NUM) : s->cwnd;
    s->priv[P_CWND_PRIOR] = s->cwnd;
    s->priv[P_EPOCH] = 0;
}

static void cubic_loss(struct mp_cc_group *g, mp_time now)
{
    struct mp_cc_state *s = mp_cc_self(g);

    (void)now;
    mp_cc_remember(s);
    note_plateau(s);
    mp_cc_reduce(s, s->cwnd / BETA_DEN * BETA_NUM);
}

/* RFC 9438 4.8: as Reno but with beta; the next stage starts with K = 0 and W_max = cwnd. */
static void cubic_rto(struct mp_cc_group *g, uint64_t flight, mp_time now)
{
    struct mp_cc_state *s = mp_cc_self(g);

    (void)now;
    if (s->cwnd > s->mss) note_plateau(s);
    s->priv[P_W_MAX] = 0;
    s->priv[P_EPOCH] = 0;
    mp_cc_timeout(s, flight, BETA_NUM, BETA_DEN);
}

static void cubic_idle(struct mp_cc_group *g, mp_dur idle, mp_dur rto)
{
    struct mp_cc_state *s = mp_cc_self(g);
    uint64_t cwnd = s->cwnd;

    mp_cc_reno_idle(g, idle, rto);
    if (s->priv[P_LAST_ACK]) s->priv[P_LAST_ACK] += idle;
    if (s->cwnd < cwnd) s->priv[P_EPOCH] = 0; /* a smaller window needs its own K */
    else skip_time(s, idle);
}

/* RFC 9438 4.9: back to where the spurious signal found us, in the same epoch. */
static void cubic_undo(struct mp_cc_group *g, mp_time now)
{
    struct mp_cc_state *s = mp_cc_self(g);

    (void)now;
    uint64_t last_ack = s->priv[P_LAST_ACK];
    if (!mp_cc_undo(s)) return;
    copy_epoch(s, P_EPOCH, P_PRIOR);
    s->priv[P_LAST_ACK] = last_ack;
}

const struct mp_cc mp_cc_cubic = {
    .name = "cubic",
    .source = "RFC 9438, slow start of RFC 9406",
    .summary = "grows by time since the last loss, 0.7 on loss; subflows not coupled",
    .on_ack = cubic_ack,
    .on_loss = cubic_loss,
    .on_rto = cubic_rto,
    .on_idle = cubic_idle,
    .on_undo = cubic_undo,
};
