/* core/sched/ecf.c: Earliest Completion First, Lim et al., CoNEXT 2017. With k bytes still to be given to a path, waiting
 * for the fast path F ends them after about (1 + k / CWND_F) RTT_F; if that is before the slow path S would have its
 * first bytes there, and S would need longer than two round trips of F for all of them, wait:
 *
 *   (1 + k / CWND_F) RTT_F < (1 + waiting beta) (RTT_S + delta)   and   (k / CWND_S) RTT_S >= 2 RTT_F + delta
 *
 * with delta = max(sigma_F, sigma_S), and beta against changing one's mind at each packet. In floating point: the kernel's
 * 32-bit products of windows and round-trip times overflow. */
#include "core/sched/sched.h"

enum { M_WAITING };
static const double beta = 0.25;

static bool better_wait(const struct mp_sched_view *v, const struct mp_sched_path *f, const struct mp_sched_path *s)
{
    uint64_t *waiting = &v->mem->w[M_WAITING];
    double k = (double)v->queued, rtt_f = (double)f->srtt, rtt_s = (double)s->srtt;
    double delta = (double)mp_max(f->rttvar, s->rttvar);

    if ((1 + k / (double)f->cwnd) * rtt_f >= (1 + (*waiting ? beta : 0)) * (rtt_s + delta)) {
        *waiting = 0;
        return false;
    }
    if (k / (double)s->cwnd * rtt_s < 2 * rtt_f + delta) return false;
    *waiting = 1;
    return true;
}

static int ecf_pick(const struct mp_sched_view *v)
{
    int class = mp_sched_best_class(v), f = mp_sched_fastest(v, class, false), s = mp_sched_fastest(v, class, true);

    if (s < 0 || s == f || !v->path[f].flight || !v->path[f].srtt || !v->path[s].srtt) return s;
    if (!v->path[f].cwnd || !v->path[s].cwnd) return s;
    return better_wait(v, &v->path[f], &v->path[s]) ? -1 : s;
}

extern const struct mp_sched mp_sched_ecf;
const struct mp_sched mp_sched_ecf = {
    .name = "ecf",
    .source = "ECF, CoNEXT 2017",
    .summary = "as minrtt, but waits for a fast path that would finish what is queued sooner",
    .pick = ecf_pick,
};
