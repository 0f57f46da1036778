/* Where the stack finds what it looks for: a subflow by its 4-tuple, connections by token, by deadline, by what is due. */
#include "core/stack_int.h"

#include <stdlib.h>

uint32_t st_tuple_hash(const struct mp_stack *st, const struct mp_endpoint *l, const struct mp_endpoint *r)
{
    uint64_t h = st->hash_seed ^ 0x9e3779b97f4a7c15u;
    uint64_t w[4];
    memcpy(w, l->ip.b, 16);
    memcpy(w + 2, r->ip.b, 16);
    for (int i = 0; i < 4; i++) h = (h ^ w[i]) * 0xff51afd7ed558ccdu, h ^= h >> 32;
    h = (h ^ ((uint64_t)l->port << 16 | r->port)) * 0xc4ceb9fe1a85ec53u;
    return (uint32_t)(h >> 40) & (ST_HASH - 1);
}

void st_hash_add(struct mp_stack *st, struct sf *s)
{
    struct sf **b = &st->hash[st_tuple_hash(st, &s->v.local, &s->v.remote)];
    s->hash_next = *b;
    *b = s;
}

void st_hash_del(struct mp_stack *st, struct sf *s)
{
    for (struct sf **b = &st->hash[st_tuple_hash(st, &s->v.local, &s->v.remote)]; *b; b = &(*b)->hash_next)
        if (*b == s) {
            *b = s->hash_next;
            return;
        }
}

struct sf *st_find(struct mp_stack *st, const struct mp_endpoint *local, const struct mp_endpoint *remote)
{
    for (struct sf *s = st->hash[st_tuple_hash(st, local, remote)]; s; s = s->hash_next)
        if (mp_endpoint_eq(&s->v.local, local) && mp_endpoint_eq(&s->v.remote, remote)) return s;
    return NULL;
}

struct mpc *st_token_find(struct mp_stack *st, uint32_t token)
{
    for (struct mpc *c = st->tokens[token & (ST_HASH - 1)]; c; c = c->tok_next)
        if (c->v.token_local == token) return c;
    return NULL;
}

void st_token_add(struct mp_stack *st, struct mpc *c)
{
    c->tok_next = st->tokens[c->v.token_local & (ST_HASH - 1)];
    st->tokens[c->v.token_local & (ST_HASH - 1)] = c;
    c->in_token = true;
}

void st_token_del(struct mp_stack *st, struct mpc *c)
{
    if (!c->in_token) return;
    for (struct mpc **b = &st->tokens[c->v.token_local & (ST_HASH - 1)]; *b; b = &(*b)->tok_next)
        if (*b == c) {
            *b = c->tok_next;
            break;
        }
    c->in_token = false;
}

/* ---- deadlines: a binary heap of connections ---- */

static bool is_due_before(const struct st_due *a, const struct st_due *b)
{
    return a->at != b->at ? a->at < b->at : a->made < b->made;
}

static void heap_put(struct mp_stack *st, int i, struct st_due d)
{
    st->heap[i] = d;
    d.c->heap_at = i + 1;
}

static void heap_sift(struct mp_stack *st, int i)
{
    struct st_due d = st->heap[i];
    while (i > 0 && is_due_before(&d, &st->heap[(i - 1) / 2])) {
        heap_put(st, i, st->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        int m = 2 * i + 1;
        if (m >= st->heap_n) break;
        if (m + 1 < st->heap_n && is_due_before(&st->heap[m + 1], &st->heap[m])) m++;
        if (!is_due_before(&st->heap[m], &d)) break;
        heap_put(st, i, st->heap[m]);
        i = m;
    }
    heap_put(st, i, d);
}

static bool heap_add(struct mp_stack *st, struct mpc *c)
{
    if (st->heap_n == st->heap_cap) {
        int cap = st->heap_cap ? st->heap_cap * 2 : 64;
        struct st_due *h = realloc(st->heap, (size_t)cap * sizeof *h);
        if (!h) return false;
        st->heap = h;
        st->heap_cap = cap;
    }
    heap_put(st, st->heap_n++, (struct st_due){ conn_deadline(c), c->v.made, c });
    heap_sift(st, st->heap_n - 1);
    return true;
}

static void heap_del(struct mp_stack *st, struct mpc *c)
{
    if (!c->heap_at) return;
    int i = c->heap_at - 1;
    c->heap_at = 0;
    struct st_due last = st->heap[--st->heap_n];
    if (last.c == c) return;
    heap_put(st, i, last);
    heap_sift(st, i);
}

void st_deadline_moved(struct mpc *c)
{
    int i = c->heap_at - 1;
    if (i < 0) return;
    struct st_due d = { conn_deadline(c), c->v.made, c }, *at = &c->st->heap[i];
    if (at->at == d.at && at->made == d.made) return;
    *at = d;
    heap_sift(c->st, i);
}

mp_time mp_stack_deadline(const struct mp_stack *st)
{
    return mp_min(st->half_at, st->heap_n ? st->heap[0].at : MP_NEVER);
}

/* ---- lists of connections ---- */

struct mpc *conn_link(struct mp_stack *st, struct mpc *c)
{
    c->v.made = ++st->made;
    if (!heap_add(st, c)) return NULL;
    c->next = st->all;
    c->pprev = &st->all;
    if (st->all) st->all->pprev = &c->next;
    st->all = c;
    st->nconn++;
    return c;
}

static void queue_del(struct mpc **head, struct mpc ***tail, struct mpc *c, size_t link)
{
    for (struct mpc **p = head; *p; p = (struct mpc **)((char *)*p + link))
        if (*p == c) {
            struct mpc **n = (struct mpc **)((char *)c + link);
            *p = *n;
            if (*tail == n) *tail = p;
            return;
        }
}

void st_conn_gone(struct mpc *c)
{
    struct mp_stack *st = c->st;
    mem_sub(st, c->mem_counted);
    heap_del(st, c);
    st_token_del(st, c);
    if (c->in_ready) queue_del(&st->ready, &st->ready_tail, c, offsetof(struct mpc, ready_next));
    if (c->in_event) queue_del(&st->events, &st->events_tail, c, offsetof(struct mpc, event_next));
    *c->pprev = c->next;
    if (c->next) c->next->pprev = c->pprev;
    st->nconn--;
}

void conn_touch(struct mpc *c)
{
    struct mp_stack *st = c->st;
    mem_account(c);
    st_deadline_moved(c);
    if (c->in_ready) return;
    c->in_ready = true;
    c->ready_next = NULL;
    *st->ready_tail = c;
    st->ready_tail = &c->ready_next;
}

void conn_event(struct mpc *c, unsigned bits)
{
    struct mp_stack *st = c->st;
    if (c->v.released) return;
    c->v.events |= bits;
    if (c->in_event) return;
    c->in_event = true;
    c->event_next = NULL;
    *st->events_tail = c;
    st->events_tail = &c->event_next;
}

bool mp_stack_event(struct mp_stack *st, struct mpc **c, unsigned *bits)
{
    struct mpc *e;
    do {
        e = st->events;
        if (!e) return false;
        st->events = e->event_next;
        if (!st->events) st->events_tail = &st->events;
        e->in_event = false;
    } while (e->v.released); /* its owner left */
    *c = e;
    *bits = e->v.events;
    e->v.events = 0;
    return true;
}
