/* Data that was acknowledged on a subflow and not at connection level, when that subflow ended in a reset: a proxy that
 * acknowledged ahead has dropped it, a box that shortened a segment has had it acknowledged and spoilt its checksum
 * (RFC 8684 3.3.6, 3.7). No scoreboard holds it any more; left to the connection's own timer it stopped the stream for
 * one time-out after the other. */
#include "core/stack_int.h"

#include <stdlib.h>

struct held { mp_dsn start, end; };

static int by_start(const void *a, const void *b)
{
    const struct held *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static size_t count_held(const struct mpc *c)
{
    size_t n = 0;
    for (const struct sf *s = c->sfs; s; s = s->next)
        for (const struct sf_seg *g = s->seg_head; g && !s->v.dead; g = g->next) n += g->len > 0;
    for (const struct reinj *r = c->reinj; r; r = r->next) n++;
    return n;
}

/* What live subflows have in flight and what waits to be sent again, by number. */
static size_t fill_held(const struct mpc *c, struct held *h)
{
    size_t n = 0;
    for (const struct sf *s = c->sfs; s; s = s->next)
        for (const struct sf_seg *g = s->seg_head; g && !s->v.dead; g = g->next)
            if (g->len) h[n++] = (struct held){ g->dsn, g->dsn + g->len };
    for (const struct reinj *r = c->reinj; r; r = r->next) h[n++] = (struct held){ r->start, r->end };
    qsort(h, n, sizeof *h, by_start);
    return n;
}

void conn_reinject_gaps(struct mpc *c, int from)
{
    if (c->v.tx_plain || c->v.snd_una >= c->v.snd_nxt) return;
    size_t n = count_held(c);
    struct held *h = malloc((n + 1) * sizeof *h);
    if (!h) return; /* the connection's own timer comes back to it */
    n = fill_held(c, h);
    h[n++] = (struct held){ c->v.snd_nxt, c->v.snd_nxt };
    mp_dsn at = c->v.snd_una;
    for (size_t i = 0; i < n; i++) {
        if (h[i].start > at) {
            c->v.reinjected_bytes += h[i].start - at;
            c->st->counter[MP_E_reinjected] += h[i].start - at;
            conn_reinject_range(c, at, h[i].start, from);
        }
        at = mp_max(at, h[i].end);
    }
    free(h);
    conn_touch(c);
}
