/* core/sched/fit.c: bytes go to the fastest path with room, but to a slower one only where they fit. Two questions, both about
 * t, the time until what is given to the slow path S now will be acknowledged:
 *
 *   Will the window be full by then? Until then the edge stands at most one window behind these bytes, and all paths go
 *   on at their rates: S is left out if t * (sum of the rates) > window. BLEST asks the same of the fast path's congestion
 *   window and S's smoothed round-trip time, which tell little of what is to come when S's queue fills or drains.
 *   Would the fast path alone have finished all that is queued by then? Then S could only delay the end (ECF's question).
 *
 * t is what is in flight on S at the rate at which S delivers, but no less than its least round-trip time; the DATA_ACK
 * comes back over the fast path. lambda corrects the estimate, as in BLEST: up when the window blocked the connection all
 * the same, slowly down again, at most once a round trip. */
#include "core/sched/sched.h"

#define LAMBDA_MAX 3.00
enum { M_BURST = 3, /* when the slow path was last given something while it was idle */
       M_MOST,      /* bytes that it is given then, a segment at the least */
       M_SEEN };    /* since then: */
enum { SEEN_FULL = 1, SEEN_LOW = 2, SEEN_DRY = 4, BURST_SEGMENTS = 8 };

/* Bytes a nanosecond; no path is asked that has no srtt. */
static double rate_of(const struct mp_sched_path *p)
{
    return p->rate ? (double)p->rate / 1e9 : p->srtt ? (double)p->cwnd / (double)p->srtt : 0;
}

static double sum_of_rates(const struct mp_sched_view *v, int class)
{
    double sum = 0;

    for (int i = 0; i < v->n; i++)
        if (mp_sched_class(&v->path[i]) == class) sum += rate_of(&v->path[i]);
    return sum;
}

/* Until bytes are at the peer that are given to p now. An idle path is as fast as it ever was: its rate may be a memory. */
static double arrival(const struct mp_sched_path *p, uint64_t bytes)
{
    double queue = p->flight ? (double)(p->flight + bytes) / rate_of(p) : 0, least = (double)p->min_rtt;

    return (queue > least ? queue : least) - least / 2;
}

static bool fills_window(const struct mp_sched_view *v, int class, const struct mp_sched_path *f, const struct mp_sched_path *s)
{
    double t = arrival(s, s->mss) + (double)f->min_rtt / 2;

    return sum_of_rates(v, class) * t * mp_sched_lambda(v, f->srtt, LAMBDA_MAX) > (double)v->window;
}

/* How many segments make a burst is learnt: how long the slow path takes for them no round trip of single ones tells. One more
 * where the fast path still had a queue after the last burst, half as many where it ran dry: it then stands still until the
 * peer's delayed ACK has come over the slow path. */
static void begin_burst(const struct mp_sched_view *v, const struct mp_sched_path *s)
{
    uint64_t *w = v->mem->w, seen = w[M_SEEN], segments = w[M_MOST] / s->mss;

    if (seen & SEEN_DRY) segments /= 2;
    else if (seen == SEEN_FULL) segments++;
    w[M_MOST] = mp_max(1, mp_min(segments, BURST_SEGMENTS)) * s->mss;
    w[M_SEEN] = 0;
    w[M_BURST] = v->now;
}

/* What the fast path has in flight, against what it carries without a queue. */
static void note_queue(const struct mp_sched_view *v, const struct mp_sched_path *f)
{
    double empty = rate_of(f) * (double)f->min_rtt;

    if ((double)f->flight < 1.5 * empty) v->mem->w[M_SEEN] |= SEEN_LOW;
    if ((double)f->flight < 1.1 * empty) v->mem->w[M_SEEN] |= SEEN_DRY;
}

/* A few segments at once on an idle slow path stop the window's left edge only for a moment. The fast path goes on for a
 * window from here, and then lives on its own queue; if they are acknowledged by then, they come on top. */
static bool fits_alone(const struct mp_sched_view *v, const struct mp_sched_path *f, const struct mp_sched_path *s)
{
    double fast = rate_of(f), standing = (double)f->flight / fast - (double)f->min_rtt;
    double first_is_back = (double)(s->min_rtt / 2 + f->min_rtt / 2);

    if (first_is_back >= (double)v->window / fast + (standing > 0 ? standing : 0)) return false;
    if (!s->flight) begin_burst(v, s);
    if (v->now - v->mem->w[M_BURST] > f->min_rtt / 2) return false;
    if (s->flight + s->mss <= v->mem->w[M_MOST]) return true;
    v->mem->w[M_SEEN] |= SEEN_FULL;
    return false;
}

/* The window, not its own, is what limits the fast path: another for a few segments. */
static int alone(const struct mp_sched_view *v, int class, int fast)
{
    const struct mp_sched_path *f = &v->path[fast];

    if (v->conn_window > f->room || !f->flight || !f->srtt) return -1;
    for (int i = 0; i < v->n; i++) {
        const struct mp_sched_path *s = &v->path[i];

        if (i == fast || mp_sched_class(s) != class || !s->room || !s->srtt) continue;
        if (arrival(f, v->queued) >= arrival(s, s->mss) && fits_alone(v, f, s)) return i;
    }
    return -1;
}

static int fit_pick(const struct mp_sched_view *v)
{
    int class = mp_sched_best_class(v), fast = mp_sched_fastest(v, class, false), best = mp_sched_fastest(v, class, true);

    if (fast >= 0) note_queue(v, &v->path[fast]);
    if (best >= 0 && best == fast) {
        int other = alone(v, class, fast);
        return other >= 0 ? other : fast;
    }
    if (best < 0) return best;
    const struct mp_sched_path *f = &v->path[fast], *s = &v->path[best];
    if (!f->srtt || !s->srtt || !f->flight) return best;
    if (arrival(f, v->queued) < arrival(s, s->mss)) return -1;
    return !fills_window(v, class, f, s) || fits_alone(v, f, s) ? best : -1;
}

extern const struct mp_sched mp_sched_fit;
const struct mp_sched mp_sched_fit = {
    .name = "fit",
    .source = "this project, after BLEST and ECF",
    .summary = "as minrtt, but gives a slow path only what arrives before the window is full, and before the fast one is done",
    .pick = fit_pick,
};
