/* core/sched/blest.c: BLEST, Ferlin et al., IFIP Networking 2016. A slow path S holds its bytes for RTT_S. If the fast path
 * F, going on meanwhile, would fill the connection's window before they are acknowledged, they would block it: then wait
 * for F instead. What F sends in that time, growing by a segment each of its round trips, is
 *
 *   X = MSS_F (CWND_F + (k - 1) / 2) k     with k = RTT_S / RTT_F
 *
 * and S is left out if lambda X > window - MSS_S (inflight_S + 1). lambda corrects the estimate: up when the window blocked
 * the connection all the same, slowly down again; at most once a round trip of F. */
#include "core/sched/sched.h"

#define LAMBDA_MAX 1.30

static bool would_block(const struct mp_sched_view *v, const struct mp_sched_path *f, const struct mp_sched_path *s)
{
    double k = (double)s->srtt / (double)f->srtt;
    double x = ((double)f->cwnd + f->mss * (k - 1) / 2) * k;
    double held = (double)s->flight + s->mss;

    return x * mp_sched_lambda(v, f->srtt, LAMBDA_MAX) > (double)v->window - held;
}

static int blest_pick(const struct mp_sched_view *v)
{
    int class = mp_sched_best_class(v), f = mp_sched_fastest(v, class, false), s = mp_sched_fastest(v, class, true);

    if (s < 0 || s == f || !v->path[f].flight || !v->path[f].srtt || !v->path[s].srtt) return s;
    return would_block(v, &v->path[f], &v->path[s]) ? -1 : s;
}

extern const struct mp_sched mp_sched_blest;
const struct mp_sched mp_sched_blest = {
    .name = "blest",
    .source = "BLEST, IFIP Networking 2016",
    .summary = "as minrtt, but leaves a slow path out when it would block the connection's window",
    .pick = blest_pick,
};
