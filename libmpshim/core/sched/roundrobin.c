/* core/sched/roundrobin.c: the paths with room in turn, whatever their delay. For paths that are alike, and as a measure of
 * what the others are worth. */
#include "core/sched/sched.h"

enum { M_NEXT }; /* the subflow id from which the next one is looked for */

/* How far p is from its turn: ids before the next one come after all others. */
static uint64_t distance(const struct mp_sched_view *v, const struct mp_sched_path *p)
{
    uint64_t id = (uint64_t)p->id, next = v->mem->w[M_NEXT];

    return id >= next ? id - next : id + ((uint64_t)1 << 32);
}

static int roundrobin_pick(const struct mp_sched_view *v)
{
    int class = mp_sched_best_class(v), best = -1;

    for (int i = 0; i < v->n; i++) {
        const struct mp_sched_path *p = &v->path[i];

        if (mp_sched_class(p) != class || !p->room) continue;
        if (best < 0 || distance(v, p) < distance(v, &v->path[best])) best = i;
    }
    if (best >= 0) v->mem->w[M_NEXT] = (uint64_t)v->path[best].id + 1;
    return best;
}

extern const struct mp_sched mp_sched_roundrobin;
const struct mp_sched mp_sched_roundrobin = {
    .name = "roundrobin",
    .source = "the multipath-tcp.org kernel",
    .summary = "the paths in turn, whatever their delay",
    .pick = roundrobin_pick,
};
