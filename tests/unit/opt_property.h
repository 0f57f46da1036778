/* tests/unit/opt_property.h: what holds for any bytes given to the option codec; used by the unit test on
 * changed and cut headers and by the fuzz target tests/fuzz/opt.c. */
#ifndef OPT_PROPERTY_H
#define OPT_PROPERTY_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/opt.h"

/* NULL: holds; else what does not. p is copied to a block of its exact size, so that a sanitizer sees each
 * read past the end. */
static inline const char *opt_property(const uint8_t *p, size_t n, uint8_t flags)
{
    uint8_t *exact = malloc(n ? n : 1), out[256];
    struct mp_opts o, before, again;
    int r;

    memset(&o, 0xa5, sizeof o);
    before = o;
    if (n) memcpy(exact, p, n);
    r = mp_opts_parse(&o, exact, n, flags);
    free(exact);
    if (r) return r != -EBADMSG ? "unknown error code" : memcmp(&o, &before, sizeof o) ? "written on error" : NULL;
    if (o.nsack > MP_MAX_SACK || o.wscale > 14 || o.remove_addr.n > sizeof o.remove_addr.id) return "field out of range";

    /* What was understood can be written and is understood as the same. */
    size_t len = mp_opts_len(&o);

    if (len % 4 || len > sizeof out) return "length";
    memset(out, 0xee, sizeof out);
    mp_opts_emit(out, &o);
    for (size_t i = len; i < sizeof out; i++)
        if (out[i] != 0xee) return "written past mp_opts_len";
    if (mp_opts_parse(&again, out, len, flags)) return "own output not parsed";
    if (again.bad) return "own output malformed";
    again.bad = o.bad;
    return memcmp(&again, &o, sizeof o) ? "own output read differently" : NULL;
}

#endif
