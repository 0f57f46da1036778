#include "core/fallback.h"

#include <stddef.h>

struct fb_step fb_lookup(enum fb_state s, enum fb_event e)
{
    static const struct { enum fb_state s; enum fb_event e; struct fb_step step; } table[] = {
#define X(state, event, next, action, source) { FB_##state, FB_##event, { FB_##next, FB_##action, source } },
#include "core/fallback.def"
#undef X
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].s == s && table[i].e == e) return table[i].step;
    return (struct fb_step){ s, FB_reset_subflow, NULL };
}
