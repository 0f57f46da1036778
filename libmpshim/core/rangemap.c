/* core/rangemap.c: see rangemap.h. A treap: a search tree by start, a heap by random priority. Each node
 * also knows its subtree's extent and bytes, so that the end of a contiguous run is found without walking it. */
#include "core/rangemap.h"

#include <errno.h>
#include <stdlib.h>

static uint64_t end_of(const struct mp_range *n) { return n->start + n->data.len; }
static bool has_no_gap(const struct mp_range *n) { return n->hi - n->lo == n->sum; }

static void update(struct mp_range *n)
{
    n->lo = n->l ? n->l->lo : n->start;
    n->hi = n->r ? n->r->hi : end_of(n);
    n->sum = n->data.len + (n->l ? n->l->sum : 0) + (n->r ? n->r->sum : 0);
}

static uint32_t draw(struct mp_rangemap *m) /* xorshift32 */
{
    m->rnd ^= m->rnd << 13;
    m->rnd ^= m->rnd >> 17;
    m->rnd ^= m->rnd << 5;
    return m->rnd;
}

/* Pieces that start before `at` to *a, the others to *b. */
static void split(struct mp_range *n, uint64_t at, struct mp_range **a, struct mp_range **b)
{
    if (!n) {
        *a = *b = NULL;
        return;
    }
    if (n->start < at) {
        split(n->r, at, &n->r, b);
        *a = n;
    } else {
        split(n->l, at, a, &n->l);
        *b = n;
    }
    update(n);
}

static void tree_add(struct mp_range **at, struct mp_range *n)
{
    if (!*at || n->prio > (*at)->prio) {
        split(*at, n->start, &n->l, &n->r);
        *at = n;
    } else {
        tree_add(n->start < (*at)->start ? &(*at)->l : &(*at)->r, n);
    }
    update(*at);
}

static struct mp_range *tree_take_first(struct mp_range **at) /* *at is not NULL */
{
    struct mp_range *n = *at;

    if (n->l) {
        struct mp_range *first = tree_take_first(&n->l);

        update(n);
        return first;
    }
    *at = n->r;
    return n;
}

static struct mp_range *first_of(struct mp_range *n)
{
    while (n && n->l) n = n->l;
    return n;
}

/* The first piece that ends after `at`. */
static struct mp_range *find(const struct mp_rangemap *m, uint64_t at)
{
    struct mp_range *n = m->root, *best = NULL;

    while (n) {
        if (end_of(n) > at) {
            best = n;
            n = n->l;
        } else {
            n = n->r;
        }
    }
    return best;
}

void mp_rangemap_init(struct mp_rangemap *m, uint32_t seed)
{
    *m = (struct mp_rangemap){ .rnd = seed ? seed : 0x9e3779b9 };
}

static void free_tree(struct mp_range *n)
{
    while (n) {
        struct mp_range *r = n->r;

        free_tree(n->l);
        mp_slice_put(&n->data);
        free(n);
        n = r;
    }
}

void mp_rangemap_fini(struct mp_rangemap *m)
{
    free_tree(m->root);
    mp_rangemap_init(m, m->rnd);
}

static struct mp_range *piece_new(uint64_t start, const struct mp_slice *s, uint64_t tag)
{
    struct mp_range *n = malloc(sizeof *n);

    if (!n) return NULL;
    *n = (struct mp_range){ .start = start, .tag = tag, .data = mp_slice_keep(s) };
    if (!n->data.buf) {
        free(n);
        return NULL;
    }
    n->charge = (uint32_t)(sizeof *n + sizeof *n->data.buf + n->data.buf->size);
    return n;
}

static void unaccount(struct mp_rangemap *m, const struct mp_range *n)
{
    m->bytes -= n->data.len;
    m->mem_bytes -= n->charge;
    m->n--;
}

static int add_piece(struct mp_rangemap *m, uint64_t start, const struct mp_slice *s, uint64_t tag)
{
    struct mp_range *n = piece_new(start, s, tag);

    if (!n) return -ENOMEM;
    n->prio = draw(m);
    m->bytes += n->data.len;
    m->mem_bytes += n->charge;
    m->n++;
    tree_add(&m->root, n);
    return 0;
}

int64_t mp_rangemap_insert(struct mp_rangemap *m, uint64_t start, const struct mp_slice *s, uint64_t tag)
{
    uint64_t end = start + mp_min(s->len, UINT64_MAX - start), at = start;
    int64_t stored = 0;

    while (at < end) {
        const struct mp_range *next = find(m, at);
        uint64_t gap_end = next ? mp_min(end, mp_max(next->start, at)) : end;
        struct mp_slice piece = *s;

        if (gap_end > at) {
            mp_slice_skip(&piece, (uint32_t)(at - start));
            mp_slice_cut(&piece, (uint32_t)(gap_end - at));
            if (add_piece(m, at, &piece, tag)) return -ENOMEM;
            stored += (int64_t)(gap_end - at);
        }
        at = next ? end_of(next) : end;
    }
    return stored;
}

bool mp_rangemap_pop(struct mp_rangemap *m, uint64_t at, struct mp_slice *out, uint64_t *tag)
{
    struct mp_range *n;

    while ((n = first_of(m->root)) && n->start <= at) {
        bool holds = end_of(n) > at;

        tree_take_first(&m->root);
        unaccount(m, n);
        if (holds) {
            mp_slice_skip(&n->data, (uint32_t)(at - n->start));
            *out = n->data;
            if (tag) *tag = n->tag;
        } else {
            mp_slice_put(&n->data);
        }
        free(n);
        if (holds) return true;
    }
    return false;
}

/* How far the bytes reach without a gap from p to the right (to the left: ending at p). One descent: a
 * subtree without a gap is answered at once, and one with a gap ends the run. */
static uint64_t reach_right(const struct mp_range *n, uint64_t p)
{
    if (!n || p < n->lo || p >= n->hi) return p;
    if (has_no_gap(n)) return n->hi;
    if (p < n->start) {
        p = reach_right(n->l, p);
        if (p < n->start) return p;
    }
    if (p < end_of(n)) p = end_of(n);
    return reach_right(n->r, p);
}

static uint64_t reach_left(const struct mp_range *n, uint64_t p)
{
    if (!n || p <= n->lo || p > n->hi) return p;
    if (has_no_gap(n)) return n->lo;
    if (p > end_of(n)) {
        p = reach_left(n->r, p);
        if (p > end_of(n)) return p;
    }
    if (p > n->start) p = n->start;
    return reach_left(n->l, p);
}

bool mp_rangemap_run(const struct mp_rangemap *m, uint64_t at, uint64_t *left, uint64_t *right)
{
    const struct mp_range *n = find(m, at);

    if (!n) return false;
    *left = reach_left(m->root, n->start);
    *right = reach_right(m->root, n->start);
    return true;
}

const struct mp_range *mp_rangemap_next(const struct mp_rangemap *m, uint64_t at) { return find(m, at); }

uint64_t mp_rangemap_max(const struct mp_rangemap *m) { return m->root ? m->root->hi : 0; }
