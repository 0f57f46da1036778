/* What is to be sent again on another subflow than the one that it was given to (RFC 8684 3.3.6). */
#include "core/stack_int.h"

#include <stdlib.h>

void conn_reinject_range(struct mpc *c, mp_dsn start, mp_dsn end, int from)
{
    if (start < c->v.snd_una) start = c->v.snd_una;
    if (end > c->v.snd_nxt) end = c->v.snd_nxt;
    if (start >= end) return;
    struct reinj **p = &c->reinj;
    while (*p && (*p)->end < start) p = &(*p)->next;
    while (*p && (*p)->start <= end) { /* swallow what overlaps or touches */
        struct reinj *r = *p;
        start = mp_min(start, r->start);
        end = mp_max(end, r->end);
        if (r->from != from) from = -1;
        *p = r->next;
        free(r);
    }
    struct reinj *r = malloc(sizeof *r);
    if (!r) {
        st_count(c->st, MP_E_no_memory, 1, c); /* the connection's own timer comes back to it */
        return;
    }
    *r = (struct reinj){ start, end, from, *p };
    *p = r;
}

void conn_reinject_cancel(struct mpc *c, int from)
{
    for (struct reinj **p = &c->reinj; *p;) {
        struct reinj *r = *p;
        if (r->from != from) {
            p = &r->next;
            continue;
        }
        *p = r->next;
        free(r);
    }
}

void conn_reinject_drop(struct mpc *c)
{
    while (c->reinj) {
        struct reinj *r = c->reinj;
        c->reinj = r->next;
        free(r);
    }
}

/* Where g must begin to be of use elsewhere: what the subflow acknowledged is not yet the connection's (RFC 8684 3.3.6).
 * With checksums the peer cannot take the part of a mapping that came in before the rest did. Left out, that part stopped
 * the stream for 600 ms, until the connection's own timer: link down at a Linux client, 130 ms now. */
mp_dsn conn_needed_from(const struct mpc *c, const struct sf_seg *g)
{
    return mp_max(g->map_len ? mp_min(g->map_dsn, g->dsn) : g->dsn, c->v.snd_una);
}

void conn_reinject(struct mpc *c, struct sf *s, mp_time now)
{
    (void)now;
    if (c->v.tx_plain) return;
    uint64_t before = c->v.reinjected_bytes;
    for (struct sf_seg *g = s->seg_head; g; g = g->next) {
        /* Sacked or not: the peer's subflow keeps what is behind a hole to itself. */
        if (!g->len || g->dsn + g->len <= c->v.snd_una) continue;
        conn_reinject_range(c, conn_needed_from(c, g), g->dsn + g->len, s->v.id);
        c->v.reinjected_bytes += g->len;
    }
    c->st->counter[MP_E_reinjected] += c->v.reinjected_bytes - before;
    conn_touch(c);
}

struct reinj *conn_reinject_next(struct mpc *c)
{
    while (c->reinj && mp_max(c->reinj->start, c->v.snd_una) >= c->reinj->end) { /* sent, or acknowledged meanwhile */
        struct reinj *r = c->reinj;
        c->reinj = r->next;
        free(r);
    }
    if (c->reinj && c->reinj->start < c->v.snd_una) c->reinj->start = c->v.snd_una;
    return c->reinj;
}

/* ---- what no subflow holds ---- */

/* Data that was acknowledged on a subflow and not at connection level, when that subflow ended in a reset: a proxy that
 * acknowledged ahead has dropped it, a box that shortened a segment has had it acknowledged and spoilt its checksum
 * (RFC 8684 3.3.6, 3.7). No scoreboard holds it any more; left to the connection's own timer it stopped the stream for
 * one time-out after the other. */

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
