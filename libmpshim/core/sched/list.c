/* core/sched/list.c: all schedulers; the first is the default. A new one: one file and one line here (and
 * its name in settings.def, which a unit test compares). */
#include "core/sched/sched.h"

extern const struct mp_sched mp_sched_fit, mp_sched_minrtt, mp_sched_blest, mp_sched_ecf, mp_sched_roundrobin, mp_sched_redundant;

const struct mp_sched *const mp_sched_all[] = { &mp_sched_fit,        &mp_sched_minrtt,    &mp_sched_blest, &mp_sched_ecf,
                                                &mp_sched_roundrobin, &mp_sched_redundant, NULL };

const struct mp_sched *mp_sched_find(const char *name)
{
    for (int i = 0; mp_sched_all[i]; i++)
        if (strcmp(mp_sched_all[i]->name, name) == 0) return mp_sched_all[i];
    return NULL;
}
