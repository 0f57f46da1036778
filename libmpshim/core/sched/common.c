/* core/sched/common.c: what the schedulers share; see sched.h. */
#include "core/sched/sched.h"

int mp_sched_class(const struct mp_sched_path *p) { return (p->stale ? 2 : 0) + (p->backup ? 1 : 0); }

int mp_sched_best_class(const struct mp_sched_view *v)
{
    int best = 4;

    for (int i = 0; i < v->n; i++)
        if (mp_sched_class(&v->path[i]) < best) best = mp_sched_class(&v->path[i]);
    return best;
}

static mp_dur known_srtt(const struct mp_sched_path *p) { return p->srtt ? p->srtt : MP_NEVER; }

int mp_sched_fastest(const struct mp_sched_view *v, int class, bool with_room)
{
    int best = -1;

    for (int i = 0; i < v->n; i++) {
        const struct mp_sched_path *p = &v->path[i];

        if (mp_sched_class(p) != class || (with_room && !p->room)) continue;
        if (best < 0 || known_srtt(p) < known_srtt(&v->path[best])) best = i;
    }
    return best;
}

double mp_sched_lambda(const struct mp_sched_view *v, mp_dur rtt, double max)
{
    enum { BLOCKED, AT, LAMBDA }; /* words of the memory; lambda in hundredths above 1.00 */
    enum { UP = 4, DOWN = 1 };
    uint64_t *w = v->mem->w;

    if (v->now - w[AT] >= rtt) {
        if (v->blocked != w[BLOCKED])
            w[LAMBDA] = mp_min(w[LAMBDA] + UP, (uint64_t)((max - 1) * 100 + 0.5));
        else
            w[LAMBDA] -= mp_min(w[LAMBDA], DOWN);
        w[BLOCKED] = v->blocked;
        w[AT] = v->now;
    }
    return 1 + (double)w[LAMBDA] / 100;
}
