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

static bool worth_waiting(const struct mp_sched_view *v, int class, const struct mp_sched_path *f, const struct mp_sched_path *s)
{
    double t = arrival(s, s->mss);

    if (arrival(f, v->queued) < t) return true;
    return sum_of_rates(v, class) * (t + (double)f->min_rtt / 2) * mp_sched_lambda(v, f->srtt, LAMBDA_MAX) > (double)v->window;
}

static int fit_pick(const struct mp_sched_view *v)
{
    int class = mp_sched_best_class(v), f = mp_sched_fastest(v, class, false), s = mp_sched_fastest(v, class, true);

    if (s < 0 || s == f || !v->path[f].srtt || !v->path[s].srtt || !v->path[f].flight) return s;
    return worth_waiting(v, class, &v->path[f], &v->path[s]) ? -1 : s;
}

extern const struct mp_sched mp_sched_fit;
const struct mp_sched mp_sched_fit = {
    .name = "fit",
    .source = "this project, after BLEST and ECF",
    .summary = "as minrtt, but gives a slow path only what arrives before the window is full, and before the fast one is done",
    .pick = fit_pick,
};
