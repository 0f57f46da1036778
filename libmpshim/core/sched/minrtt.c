/* core/sched/minrtt.c: the least smoothed RTT among the subflows with room, as the Linux kernel's first
 * scheduler and Raiciu et al., NSDI 2012. */
#include "core/sched/sched.h"

/* Classes in the order of preference. Only the best class that is present is used: data waits for a working
 * path that is full rather than go to a backup (RFC 8684 3.3.8) or to a path that has stopped answering. */
static int class_of(const struct mp_sched_path *p) { return (p->stale ? 2 : 0) + (p->backup ? 1 : 0); }

static int best_class(const struct mp_sched_view *v)
{
    int best = 4;

    for (int i = 0; i < v->n; i++)
        if (class_of(&v->path[i]) < best) best = class_of(&v->path[i]);
    return best;
}

static mp_dur known_srtt(const struct mp_sched_path *p) { return p->srtt ? p->srtt : MP_NEVER; }

static int minrtt_pick(const struct mp_sched_view *v)
{
    int class = best_class(v), best = -1;

    for (int i = 0; i < v->n; i++) {
        const struct mp_sched_path *p = &v->path[i];

        if (class_of(p) != class || !p->room) continue;
        if (best < 0 || known_srtt(p) < known_srtt(&v->path[best])) best = i;
    }
    return best;
}

extern const struct mp_sched mp_sched_minrtt;
const struct mp_sched mp_sched_minrtt = {
    .name = "minrtt",
    .source = "NSDI 2012 and the Linux kernel",
    .summary = "the path with the least round-trip time that has room",
    .pick = minrtt_pick,
};
