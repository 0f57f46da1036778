/* core/sched/minrtt.c: the least smoothed RTT among the subflows with room, as the Linux kernel's first
 * scheduler and Raiciu et al., NSDI 2012. */
#include "core/sched/sched.h"

static int minrtt_pick(const struct mp_sched_view *v) { return mp_sched_fastest(v, mp_sched_best_class(v), true); }

extern const struct mp_sched mp_sched_minrtt;
const struct mp_sched mp_sched_minrtt = {
    .name = "minrtt",
    .source = "NSDI 2012 and the Linux kernel",
    .summary = "the path with the least round-trip time that has room",
    .pick = minrtt_pick,
};
