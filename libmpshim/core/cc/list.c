/* core/cc/list.c: all congestion controls; the first is the default. A new one: one file and one line here
 * (and its name in settings.def, which a unit test compares). */
#include "core/cc/common.h"

const struct mp_cc *const mp_cc_all[] = { &mp_cc_lia, &mp_cc_olia, &mp_cc_balia, &mp_cc_wvegas, &mp_cc_cubic, &mp_cc_reno, NULL };

const struct mp_cc *mp_cc_find(const char *name)
{
    for (int i = 0; mp_cc_all[i]; i++)
        if (strcmp(mp_cc_all[i]->name, name) == 0) return mp_cc_all[i];
    return NULL;
}
