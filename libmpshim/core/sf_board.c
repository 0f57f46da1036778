/* The scoreboard (RFC 2018): what was sent and is not acknowledged, in order of its sequence numbers. */
#include "core/stack_int.h"

#include <stdlib.h>

struct sf_seg *sf_seg_add(struct sf *s, mp_ssn start, mp_ssn end)
{
    struct sf_seg *g = calloc(1, sizeof *g);
    if (!g) return NULL;
    g->start = start;
    g->end = end;
    g->prev = s->seg_tail;
    if (s->seg_tail)
        s->seg_tail->next = g;
    else
        s->seg_head = g;
    s->seg_tail = g;
    s->nseg++;
    return g;
}

void sf_seg_drop(struct sf *s, struct sf_seg *g)
{
    if (g->prev) g->prev->next = g->next; else s->seg_head = g->next;
    if (g->next) g->next->prev = g->prev; else s->seg_tail = g->prev;
    s->nseg--;
    chunk_put(s->st, g->chunk);
    chunk_put(s->st, g->chunk2);
    free(g);
}

struct sf_seg *sf_seg_split(struct sf *s, struct sf_seg *g, mp_ssn at)
{
    if (at <= g->start || at >= g->end) return NULL;
    if (g->mtu_probe) pmtu_forget(s);
    g->mtu_probe = false;
    struct sf_seg *b = malloc(sizeof *b);
    if (!b) return NULL;
    *b = *g;
    uint32_t front = (uint32_t)(at - g->start);
    if (g->len < front) front = g->len; /* only a FIN is behind: still right, the FIN goes with the back */
    b->start = at;
    b->dsn = g->dsn + front;
    b->len = g->len - front;
    g->end = at;
    g->len = front;
    g->fin = false;
    b->syn = b->infinite = false; /* the front is in front of it */
    if (b->chunk) b->chunk->refs++;
    if (b->chunk2) b->chunk2->refs++;
    b->prev = g;
    b->next = g->next;
    if (g->next) g->next->prev = b; else s->seg_tail = b;
    g->next = b;
    s->nseg++;
    return b;
}

void sf_mark_lost(struct sf *s, struct sf_seg *g)
{
    g->lost = true;
    s->v.pipe -= mp_min(s->v.pipe, sf_seg_bytes(g));
    st_count(s->st, MP_E_seg_lost, 1, s->c);
    if (g->mtu_probe) pmtu_lost(s);
    g->mtu_probe = false;
}

uint64_t sf_room(const struct sf *s)
{
    uint64_t cwnd = sf_cwnd(s), cw = cwnd > s->v.pipe ? cwnd - s->v.pipe : 0;
    uint64_t edge = s->v.snd_una + s->v.snd_wnd;
    uint64_t w = edge > s->v.snd_nxt ? edge - s->v.snd_nxt : 0;
    return mp_min(cw, w);
}
