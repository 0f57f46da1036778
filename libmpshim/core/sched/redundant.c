/* core/sched/redundant.c: every byte over every path, for whom the least delay is worth the bandwidth (Frommgen et al., ICC
 * 2016). Each path repeats, from the oldest unacknowledged byte on, what it has not carried yet (conn_send.c,
 * send_repeated); new data comes after that, so the fastest path has it first. */
#include "core/sched/sched.h"

static int redundant_pick(const struct mp_sched_view *v) { return mp_sched_fastest(v, mp_sched_best_class(v), true); }

extern const struct mp_sched mp_sched_redundant;
const struct mp_sched mp_sched_redundant = {
    .name = "redundant",
    .source = "ICC 2016 and the multipath-tcp.org kernel",
    .summary = "everything over every path: least delay, least throughput",
    .repeats = true,
    .pick = redundant_pick,
};
