/* The counters of core/events.def, summed over all engines, as nstat prints the kernel's: name, value, meaning. */
#include <string.h>

#include "stat.h"

static const struct { const char *name, *meaning; } events[] = {
#define X(name, level, meaning) {#name, meaning},
#include "core/events.def"
#undef X
};

static double sum(const json_t *engines, const char *name)
{
    size_t i;
    json_t *e;
    double n = 0;
    json_array_foreach((json_t *)engines, i, e) n += stat_num(json_object_get(e, "counters"), name);
    return n;
}

static bool is_wanted(const char *name, const char *const *want)
{
    if (!want || !*want) return true;
    for (; *want; want++)
        if (strstr(name, *want)) return true;
    return false;
}

void stat_counters(json_t *engines, const json_t *old, double seconds, bool all, const char *const *want)
{
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        double n = sum(engines, events[i].name), was = old ? sum(old, events[i].name) : 0;
        if (!is_wanted(events[i].name, want) || (!n && !all)) continue;
        printf("%-20s %14.0f", events[i].name, n);
        if (old) printf(" %10.1f/s", n > was && seconds > 0 ? (n - was) / seconds : 0);
        printf("  %s\n", events[i].meaning);
    }
}
