/* A connection as plain data: saved by one engine, loaded by another of the same build on the same host (their
 * monotonic clock is one). The list of fields is struct mpc_pod and struct sf_pod; the queues follow them. */
#include "core/stack_int.h"

#include <errno.h>
#include <stdlib.h>

#define SAVE_MAGIC 0x6d70633153415645u /* "mpc1SAVE" */
#define NO_CHUNK UINT32_MAX

struct header {
    uint64_t magic;
    uint32_t conn_size, sf_size, seg_size;
};

/* ---- primitives: every failure sticks in the stream ---- */

/* NULL with nothing to it: a table that is not there. */
static void put(FILE *f, const void *p, size_t n) { if (n) fwrite(p, 1, n, f); }
static bool get(FILE *f, void *p, size_t n) { return !n || fread(p, 1, n, f) == n; }
static void put32(FILE *f, uint32_t v) { put(f, &v, sizeof v); }
static bool get32(FILE *f, uint32_t *v) { return get(f, v, sizeof *v); }

static void put_slice(FILE *f, const struct mp_slice *s)
{
    put32(f, s->len);
    put(f, s->p, s->len);
}

static bool get_slice(FILE *f, struct mp_slice *s)
{
    uint32_t n;
    if (!get32(f, &n) || n > (1u << 20)) return false;
    struct mp_buf *b = mp_buf_new(n ? n : 1);
    if (!b) return false;
    *s = (struct mp_slice){ b, b->data, n };
    if (get(f, b->data, n)) return true;
    mp_slice_put(s);
    return false;
}

static void put_range(FILE *f, const struct mp_range *r)
{
    if (!r) return;
    put_range(f, r->l);
    put(f, &r->start, sizeof r->start);
    put_slice(f, &r->data);
    put_range(f, r->r);
}

static void put_map(FILE *f, const struct mp_rangemap *m)
{
    put32(f, m->n);
    put_range(f, m->root);
}

static bool get_map(FILE *f, struct mp_rangemap *m)
{
    uint32_t n;
    if (!get32(f, &n)) return false;
    while (n--) {
        uint64_t at;
        struct mp_slice s;
        if (!get(f, &at, sizeof at) || !get_slice(f, &s)) return false;
        bool ok = mp_rangemap_insert(m, at, &s, 0) >= 0;
        mp_slice_put(&s);
        if (!ok) return false;
    }
    return true;
}

/* ---- chunks: the queue's, and those that only a subflow still holds ---- */

struct chunks {
    struct mp_chunk **v;
    uint32_t n, cap, queued;
};

static uint32_t chunk_index(const struct chunks *k, const struct mp_chunk *c)
{
    for (uint32_t i = 0; c && i < k->n; i++)
        if (k->v[i] == c) return i;
    return NO_CHUNK;
}

static bool chunk_note(struct chunks *k, struct mp_chunk *c)
{
    if (!c || chunk_index(k, c) != NO_CHUNK) return true;
    if (k->n == k->cap) {
        uint32_t cap = k->cap ? k->cap * 2 : 64;
        struct mp_chunk **v = realloc(k->v, cap * sizeof(struct mp_chunk *));
        if (!v) return false;
        k->v = v;
        k->cap = cap;
    }
    k->v[k->n++] = c;
    return true;
}

static bool chunks_collect(const struct mpc *c, struct chunks *k)
{
    for (struct mp_chunk *q = c->snd_first; q; q = q->next)
        if (!chunk_note(k, q)) return false;
    k->queued = k->n;
    for (struct sf *s = c->sfs; s; s = s->next)
        for (struct sf_seg *g = s->seg_head; g; g = g->next)
            if (!chunk_note(k, g->chunk) || !chunk_note(k, g->chunk2)) return false;
    return true;
}

static void put_chunks(FILE *f, const struct chunks *k)
{
    put32(f, k->n);
    put32(f, k->queued);
    for (uint32_t i = 0; i < k->n; i++) {
        put(f, &k->v[i]->dsn, sizeof k->v[i]->dsn);
        put32(f, k->v[i]->len);
        put(f, k->v[i]->data, k->v[i]->len);
    }
}

static bool get_chunks(FILE *f, struct mpc *c, struct chunks *k)
{
    uint32_t n;
    if (!get32(f, &n) || !get32(f, &k->queued) || k->queued > n || n > (1u << 20)) return false;
    for (uint32_t i = 0; i < n; i++) {
        struct mp_chunk *q = st_chunk_new(c->st);
        if (!q) return false;
        if (k->n == k->cap && !chunk_note(k, q)) {
            chunk_put(c->st, q);
            return false;
        }
        if (k->n == i) k->v[k->n++] = q;
        if (!get(f, &q->dsn, sizeof q->dsn) || !get32(f, &q->len) || q->len > MP_CHUNK_SIZE || !get(f, q->data, q->len)) return false;
        if (i >= k->queued) continue;
        q->refs++; /* the queue's */
        if (c->snd_last) c->snd_last->next = q; else c->snd_first = q;
        c->snd_last = q;
    }
    return true;
}

static void chunks_fini(struct mp_stack *st, struct chunks *k, bool loaded)
{
    for (uint32_t i = 0; loaded && i < k->n; i++) chunk_put(st, k->v[i]);
    free(k->v);
}

/* ---- subflows ---- */

static void put_sf(FILE *f, struct sf *s, const struct chunks *k)
{
    uint32_t n = 0;
    put(f, &s->v, sizeof s->v);
    for (struct sf_seg *g = s->seg_head; g; g = g->next) n++;
    put32(f, n);
    for (struct sf_seg *g = s->seg_head; g; g = g->next) {
        put(f, g, sizeof *g);
        put32(f, chunk_index(k, g->chunk));
        put32(f, chunk_index(k, g->chunk2));
    }
    put_map(f, &s->ooo);
    for (uint32_t i = 0; i < s->v.nmap; i++) put(f, &s->map[(s->v.map_head + i) & (s->v.map_cap - 1)], sizeof *s->map);
    for (uint32_t i = 0; i < s->v.nhold; i++) put_slice(f, &s->hold[i]);
}

static struct mp_chunk *chunk_ref(const struct chunks *k, uint32_t i)
{
    if (i >= k->n) return NULL;
    k->v[i]->refs++;
    return k->v[i];
}

static bool get_segs(FILE *f, struct sf *s, const struct chunks *k)
{
    uint32_t n, a, b;
    if (!get32(f, &n)) return false;
    while (n--) {
        struct sf_seg in, *g = sf_seg_add(s, 0, 0);
        if (!g || !get(f, &in, sizeof in) || !get32(f, &a) || !get32(f, &b)) return false;
        in.prev = g->prev;
        in.next = NULL;
        in.chunk = chunk_ref(k, a);
        in.chunk2 = chunk_ref(k, b);
        *g = in;
        if (in.len && !in.chunk) return false;
    }
    return true;
}

static bool get_maps(FILE *f, struct sf *s)
{
    uint32_t n = s->v.nmap, hold = s->v.nhold;
    s->v.map_head = 0;
    s->v.nhold = 0;
    if (n > SF_MAX_MAPPINGS || s->v.map_cap > SF_MAX_MAPPINGS || n > s->v.map_cap || hold > SF_MAX_HOLD) return false;
    if (s->v.map_cap && !(s->map = calloc(s->v.map_cap, sizeof *s->map))) return false;
    for (uint32_t i = 0; i < n; i++)
        if (!get(f, &s->map[i], sizeof *s->map)) return false;
    if (hold && !(s->hold = malloc(hold * sizeof *s->hold))) return false;
    s->hold_cap = hold;
    for (uint32_t i = 0; i < hold; i++, s->v.nhold++)
        if (!get_slice(f, &s->hold[i])) return false;
    return true;
}

static bool get_sf(FILE *f, struct mpc *c, const struct chunks *k, mp_time now)
{
    struct mp_stack *st = c->st;
    struct sf_pod v;
    if (!get(f, &v, sizeof v)) return false;
    void *flow = st->ops.flow_open(st->arg, v.ifindex, &v.local, &v.remote, v.passive);
    struct sf *s = sf_new(st, c, &v.local, &v.remote, v.ifindex, flow, now);
    if (!s) {
        if (flow) st->ops.flow_close(st->arg, flow);
        return false;
    }
    s->v = v;
    st->ntime_wait += v.state == SF_TIME_WAIT;
    if (!v.passive && st->ops.port_hold) st->ops.port_hold(st->arg, v.local.ip.family, v.local.port);
    struct sf **end = &c->sfs;
    while (*end) end = &(*end)->next;
    *end = s;
    st_hash_add(st, s);
    return get_segs(f, s, k) && get_map(f, &s->ooo) && get_maps(f, s);
}

/* ---- the connection ---- */

static void put_queues(FILE *f, const struct mpc *c)
{
    uint32_t n = 0;
    put32(f, c->rxq_n);
    for (uint32_t i = 0; i < c->rxq_n; i++) put_slice(f, &c->rxq[(c->rxq_head + i) % c->rxq_cap]);
    put_map(f, &c->ooo);
    for (const struct reinj *r = c->reinj; r; r = r->next) n++;
    put32(f, n);
    for (const struct reinj *r = c->reinj; r; r = r->next) put(f, r, sizeof *r);
}

static bool get_queues(FILE *f, struct mpc *c)
{
    uint32_t n;
    if (!get32(f, &n) || n > (1u << 24)) return false;
    c->rxq_cap = n > 4 ? n : 4;
    if (!(c->rxq = malloc(c->rxq_cap * sizeof *c->rxq))) return false;
    for (; c->rxq_n < n; c->rxq_n++)
        if (!get_slice(f, &c->rxq[c->rxq_n])) return false;
    if (!get_map(f, &c->ooo) || !get32(f, &n)) return false;
    for (struct reinj **end = &c->reinj; n--; end = &(*end)->next) {
        if (!(*end = malloc(sizeof **end))) return false;
        bool ok = get(f, *end, sizeof **end);
        (*end)->next = NULL;
        if (!ok) return false;
    }
    return true;
}

/* ---- the path manager's tables ---- */

static void put_tables(FILE *f, const struct mpc *c)
{
    put(f, c->paths, (size_t)c->v.npaths * sizeof *c->paths);
    put(f, c->retry, (size_t)c->v.nretry * sizeof *c->retry);
}

static bool get_tables(FILE *f, struct mpc *c)
{
    unsigned paths = (unsigned)c->v.npaths, retry = (unsigned)c->v.nretry;
    if (paths > PM_MAX_PATHS || retry > PM_MAX_PATHS) return false;
    c->paths = calloc(paths + 1, sizeof *c->paths);
    c->retry = calloc(retry + 1, sizeof *c->retry);
    return c->paths && c->retry && get(f, c->paths, paths * sizeof *c->paths) && get(f, c->retry, retry * sizeof *c->retry);
}

static void put_name(FILE *f, const char *name)
{
    char b[16] = "";
    strncpy(b, name, sizeof b - 1);
    put(f, b, sizeof b);
}

int mpc_save(const struct mpc *c, FILE *f)
{
    struct header h = { SAVE_MAGIC, sizeof c->v, sizeof(struct sf_pod), sizeof(struct sf_seg) };
    struct chunks k = { 0 };
    uint32_t n = 0;
    if (!chunks_collect(c, &k)) {
        free(k.v);
        return -ENOMEM;
    }
    put(f, &h, sizeof h);
    put(f, &c->v, sizeof c->v);
    put_name(f, c->cc->name);
    put_name(f, c->sched->name);
    put_chunks(f, &k);
    put_queues(f, c);
    put_tables(f, c);
    for (struct sf *s = c->sfs; s; s = s->next) n += !s->v.dead;
    put32(f, n);
    for (struct sf *s = c->sfs; s; s = s->next)
        if (!s->v.dead) put_sf(f, s, &k);
    chunks_fini(c->st, &k, false);
    return ferror(f) ? -EIO : 0;
}

static bool load(struct mpc *c, FILE *f, struct chunks *k, mp_time now)
{
    struct header h;
    char cc[16], sched[16];
    uint32_t n;
    if (!get(f, &h, sizeof h) || h.magic != SAVE_MAGIC || h.conn_size != sizeof c->v || h.sf_size != sizeof(struct sf_pod) || h.seg_size != sizeof(struct sf_seg)) return false;
    if (!get(f, &c->v, sizeof c->v) || !get(f, cc, sizeof cc) || !get(f, sched, sizeof sched)) return false;
    cc[15] = sched[15] = 0;
    if (!mp_cc_find(cc) || !mp_sched_find(sched)) return false;
    c->cc = mp_cc_find(cc);
    c->sched = mp_sched_find(sched);
    if (!get_chunks(f, c, k) || !get_queues(f, c) || !get_tables(f, c) || !get32(f, &n) || n > 64) return false;
    while (n--)
        if (!get_sf(f, c, k, now)) return false;
    return true;
}

/* A path that cannot be had here (its interface vanished meanwhile): the others carry what was under way on it. */
static void drop_pathless(struct mpc *c, mp_time now)
{
    for (struct sf *s = c->sfs; s; s = s->next)
        if (!s->flow && !s->v.dead) sf_die(s, ENETUNREACH, now);
}

struct mpc *mpc_load(struct mp_stack *st, FILE *f, void *owner, mp_time now)
{
    struct chunks k = { 0 };
    struct mpc *c = conn_new(st, false, now);
    if (!c) return NULL;
    bool ok = load(c, f, &k, now);
    chunks_fini(st, &k, true);
    if (!ok) {
        conn_free(c);
        return NULL;
    }
    st->made = mp_max(st->made, c->v.made);
    c->owner = owner;
    if (c->v.offered && c->v.token_local && c->v.fb != FB_PLAIN) st_token_add(st, c);
    unsigned pending = c->v.events;
    c->v.events = 0;
    if (pending) conn_event(c, pending);
    drop_pathless(c, now);
    conn_touch(c);
    return c;
}
