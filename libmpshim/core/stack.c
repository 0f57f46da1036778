/* The host's side of the protocol: who gets a segment, listeners, connections' queues and deadlines. */
#include "core/stack_int.h"

#include <errno.h>
#include <stdlib.h>

#include "core/crypto.h"

/* ---- counters and randomness ---- */

void st_count(struct mp_stack *st, enum mp_event_id e, uint64_t n, const struct mpc *c)
{
    st->counter[e] += n;
    if (st->ops.trace && mp_events[e].level) st->ops.trace(st->arg, e, c, mp_events[e].meaning);
}

uint64_t mp_stack_counter(const struct mp_stack *s, int counter)
{
    return counter >= 0 && counter < MP_E_COUNT ? s->counter[counter] : 0;
}

uint32_t st_rand32(struct mp_stack *st)
{
    uint32_t v;
    st->ops.random(st->arg, &v, sizeof v);
    return v;
}

/* ---- life ---- */

struct mp_stack *mp_stack_new(const struct mp_stack_ops *ops, void *arg, const struct mp_settings *set)
{
    struct mp_stack *st = calloc(1, sizeof *st);
    if (!st) return NULL;
    st->ops = *ops;
    st->arg = arg;
    st->set = *set;
    st->ready_tail = &st->ready;
    st->events_tail = &st->events;
    st->hash_seed = st_rand32(st);
    ops->random(arg, st->isn_key, sizeof st->isn_key);
    return st;
}

void mp_stack_free(struct mp_stack *st)
{
    if (!st) return;
    while (st->all) {
        struct mpc *c = st->all;
        conn_free(c);
    }
    while (st->listeners) {
        struct listener *l = st->listeners;
        st->listeners = l->next;
        free(l);
    }
    while (st->chunk_free) {
        struct mp_chunk *k = st->chunk_free;
        st->chunk_free = k->next;
        free(k->data);
        free(k);
    }
    free(st->heap);
    free(st);
}

int mp_stack_live(const struct mp_stack *s) { return s->nconn; }
int mp_stack_closing(const struct mp_stack *s)
{
    int n = 0;
    for (const struct mpc *c = s->all; c; c = c->next)
        for (const struct sf *f = c->sfs; f; f = f->next)
            n += !f->v.dead && (f->v.reset_pending || f->v.fin_queued) && f->v.state >= SF_ESTABLISHED && f->v.state != SF_TIME_WAIT;
    return n;
}

struct mpc *mp_stack_first(struct mp_stack *s) { return s->all; }
struct mpc *mp_stack_next(struct mpc *c) { return c->next; }

/* ---- chunks of send queues ---- */

struct mp_chunk *st_chunk_new(struct mp_stack *st)
{
    struct mp_chunk *k = st->chunk_free;
    if (k) {
        st->chunk_free = k->next;
        st->chunk_nfree--;
    } else {
        k = malloc(sizeof *k);
        if (!k) return NULL;
        k->data = malloc(MP_CHUNK_SIZE);
        if (!k->data) {
            free(k);
            return NULL;
        }
    }
    mem_add(st, MP_CHUNK_SIZE);
    k->refs = 1;
    k->len = 0;
    k->next = NULL;
    return k;
}

void chunk_put(struct mp_stack *st, struct mp_chunk *k)
{
    if (!k || --k->refs) return;
    mem_sub(st, MP_CHUNK_SIZE);
    if (st->chunk_nfree < 64) { /* 4 MB kept for the next burst */
        k->next = st->chunk_free;
        st->chunk_free = k;
        st->chunk_nfree++;
        return;
    }
    free(k->data);
    free(k);
}

/* ---- tables ---- */

static uint32_t tuple_hash(const struct mp_stack *st, const struct mp_endpoint *l, const struct mp_endpoint *r)
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
    struct sf **b = &st->hash[tuple_hash(st, &s->v.local, &s->v.remote)];
    s->hash_next = *b;
    *b = s;
}

void st_hash_del(struct mp_stack *st, struct sf *s)
{
    for (struct sf **b = &st->hash[tuple_hash(st, &s->v.local, &s->v.remote)]; *b; b = &(*b)->hash_next)
        if (*b == s) {
            *b = s->hash_next;
            return;
        }
}

struct sf *st_find(struct mp_stack *st, const struct mp_endpoint *local, const struct mp_endpoint *remote)
{
    for (struct sf *s = st->hash[tuple_hash(st, local, remote)]; s; s = s->hash_next)
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

static bool is_due_before(const struct mpc *a, const struct mpc *b)
{
    return a->deadline != b->deadline ? a->deadline < b->deadline : a->v.made < b->v.made;
}

static void heap_put(struct mp_stack *st, int i, struct mpc *c)
{
    st->heap[i] = c;
    c->heap_at = i + 1;
}

static void heap_sift(struct mp_stack *st, int i)
{
    struct mpc *c = st->heap[i];
    c->deadline = conn_deadline(c);
    while (i > 0 && is_due_before(c, st->heap[(i - 1) / 2])) {
        heap_put(st, i, st->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        int m = 2 * i + 1;
        if (m >= st->heap_n) break;
        if (m + 1 < st->heap_n && is_due_before(st->heap[m + 1], st->heap[m])) m++;
        if (!is_due_before(st->heap[m], c)) break;
        heap_put(st, i, st->heap[m]);
        i = m;
    }
    heap_put(st, i, c);
}

static bool heap_add(struct mp_stack *st, struct mpc *c)
{
    if (st->heap_n == st->heap_cap) {
        int cap = st->heap_cap ? st->heap_cap * 2 : 64;
        struct mpc **h = realloc(st->heap, (size_t)cap * sizeof *h);
        if (!h) return false;
        st->heap = h;
        st->heap_cap = cap;
    }
    heap_put(st, st->heap_n++, c);
    heap_sift(st, st->heap_n - 1);
    return true;
}

static void heap_del(struct mp_stack *st, struct mpc *c)
{
    if (!c->heap_at) return;
    int i = c->heap_at - 1;
    c->heap_at = 0;
    struct mpc *last = st->heap[--st->heap_n];
    if (last == c) return;
    heap_put(st, i, last);
    heap_sift(st, i);
}

mp_time mp_stack_deadline(const struct mp_stack *st)
{
    return st->heap_n ? st->heap[0]->deadline : MP_NEVER;
}

/* ---- connection lists ---- */

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
    if (c->heap_at) heap_sift(st, c->heap_at - 1);
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

bool mp_stack_poll(struct mp_stack *st, struct mp_pkt *out, mp_time now)
{
    st->now = now;
    if (st->stray_flow) {
        st->ops.flow_close(st->arg, st->stray_flow);
        st->stray_flow = NULL;
    }
    while (st->nstray) {
        *out = st->stray[--st->nstray];
        struct sf *s = st_find(st, &out->src, &out->dst);
        if (s && s->v.state != SF_SYN_SENT) continue; /* somebody's by now */
        if (s) return out->flow = s->flow, st->counter[MP_E_pkt_out]++, true; /* sf_in.c syn_sent_in */
        out->flow = st->stray_flow = st->ops.flow_open(st->arg, out->ifindex, &out->src, &out->dst, true);
        if (out->flow) return st->counter[MP_E_pkt_out]++, true;
    }
    while (st->ready) {
        struct mpc *c = st->ready;
        bool sent = conn_poll(c, out, now);
        if (sent) {
            st->counter[MP_E_pkt_out]++;
            heap_sift(st, c->heap_at - 1);
            return true;
        }
        heap_sift(st, c->heap_at - 1);
        st->ready = c->ready_next;
        if (!st->ready) st->ready_tail = &st->ready;
        c->in_ready = false;
        conn_reap(c, now);
    }
    return false;
}

void mp_stack_tick(struct mp_stack *st, mp_time now)
{
    st->now = now;
    /* Each connection at most once a call: a deadline that stays in the past must not spin here. */
    for (int n = st->heap_n; n > 0 && st->heap_n; n--) {
        struct mpc *c = st->heap[0];
        if (c->deadline > now) return;
        conn_tick(c, now);
        conn_touch(c);
    }
}

void mp_stack_writable(struct mp_stack *st, void *flow)
{
    for (struct mpc *c = st->all; c; c = c->next)
        for (struct sf *s = c->sfs; s; s = s->next)
            if (!flow || s->flow == flow) {
                conn_touch(c);
                break;
            }
}

/* ---- local addresses ---- */

void mp_stack_local_add(struct mp_stack *st, const struct mp_local *l, mp_time now)
{
    int i = 0;
    while (i < st->nlocal && !(st->local[i].ifindex == l->ifindex && mp_addr_eq(&st->local[i].ip, &l->ip))) i++;
    if (i == st->nlocal) {
        if (st->nlocal == ST_MAX_LOCAL) return;
        st->nlocal++;
    }
    st->local[i] = *l;
    st->now = now;
    for (struct mpc *c = st->all; c; c = c->next) {
        pm_local_added(c, l, now);
        conn_touch(c);
    }
}

void mp_stack_local_del(struct mp_stack *st, int ifindex, const struct mp_addr *ip, mp_time now)
{
    for (int i = 0; i < st->nlocal; i++)
        if (st->local[i].ifindex == ifindex && mp_addr_eq(&st->local[i].ip, ip)) {
            memmove(&st->local[i], &st->local[i + 1], (size_t)(st->nlocal - i - 1) * sizeof st->local[0]);
            st->nlocal--;
            break;
        }
    st->now = now;
    for (struct mpc *c = st->all; c; c = c->next) {
        pm_local_removed(c, ifindex, ip, now);
        conn_touch(c);
    }
}

void mp_stack_routes_changed(struct mp_stack *st, mp_time now)
{
    st->now = now;
    for (struct mpc *c = st->all; c; c = c->next) {
        pm_routes_changed(c, now);
        conn_touch(c);
    }
}

static const char *local_name(const struct mp_stack *st, int ifindex)
{
    for (int i = 0; i < st->nlocal; i++)
        if (st->local[i].ifindex == ifindex) return st->local[i].name;
    return "";
}

bool st_has_local(const struct mp_stack *st, int ifindex, const struct mp_addr *ip)
{
    for (int i = 0; i < st->nlocal; i++)
        if (st->local[i].ifindex == ifindex && mp_addr_eq(&st->local[i].ip, ip)) return true;
    return false;
}

static bool local_backup(const struct mp_stack *st, int ifindex, const struct mp_addr *ip)
{
    for (int i = 0; i < st->nlocal; i++)
        if (st->local[i].ifindex == ifindex && mp_addr_eq(&st->local[i].ip, ip)) return st->local[i].backup;
    return false;
}

/* ---- opening ---- */

struct sf *st_sf_make(struct mpc *c, int ifindex, const struct mp_endpoint *local, const struct mp_endpoint *remote,
                          bool passive, mp_time now)
{
    struct mp_stack *st = c->st;
    void *flow = st->ops.flow_open(st->arg, ifindex, local, remote, passive);
    if (!flow) return NULL;
    struct sf *s = sf_new(st, c, local, remote, ifindex, flow, now);
    if (!s) {
        st->ops.flow_close(st->arg, flow);
        return NULL;
    }
    strncpy(s->v.ifname, local_name(st, ifindex), sizeof s->v.ifname - 1);
    s->v.backup_local = local_backup(st, ifindex, &local->ip);
    s->v.passive = passive;
    s->v.id = c->v.sf_ids++;
    struct sf **end = &c->sfs;
    while (*end) end = &(*end)->next;
    *end = s;
    st_hash_add(st, s);
    return s;
}

/* RFC 6191 and RFC 9293 3.6.1: the 4-tuple of a connection in TIME_WAIT may be used again by one with later timestamps and
 * sequence numbers, which its old segments cannot be taken for. Without it, ports would bound the rate of connections. */
static bool can_follow(const struct sf *old, mp_time now)
{
    return old->v.state == SF_TIME_WAIT && old->v.ts_on && (int32_t)(sf_ts_now(now) - sf_ts_now(old->v.last_sent)) > 0;
}

/* Its place is needed; the rest of it is freed with its connection's next turn. */
static void give_way(struct mp_stack *st, struct sf *old, mp_time now)
{
    st_hash_del(st, old);
    st->ops.flow_close(st->arg, old->flow);
    old->flow = NULL;
    sf_die(old, 0, now);
    conn_touch(old->c);
}

struct sf *st_sf_open(struct mpc *c, int ifindex, const struct mp_addr *local, const struct mp_endpoint *remote, mp_time now, int *err)
{
    struct mp_stack *st = c->st;
    struct mp_endpoint l = { *local, 0 };
    *err = EADDRNOTAVAIL;
    for (int tries = 0; tries < 4; tries++) {
        l.port = st->ops.port_get(st->arg, local->family, tries >= 2);
        if (!l.port) return NULL;
        struct sf *old = st_find(st, &l, remote);
        if (old && !can_follow(old, now)) { /* the port is in use towards this very peer */
            st->ops.port_put(st->arg, local->family, l.port);
            continue;
        }
        uint32_t end = old ? isn_end(old) : 0;
        if (old) {
            st_count(st, MP_E_time_wait_reused, 1, c);
            give_way(st, old, now);
        }
        struct sf *s = st_sf_make(c, ifindex, &l, remote, false, now);
        if (s && old) isn_follow(s, end);
        if (s) return s;
        st->ops.port_put(st->arg, local->family, l.port); /* refused, or the 4-tuple is somebody's outside of the stack */
        *err = EACCES;
    }
    return NULL;
}

struct mpc *mp_stack_connect(struct mp_stack *st, const struct mp_endpoint *remote, const struct mp_addr *local, int ifindex,
                             unsigned flags, void *owner, mp_time now, int *err)
{
    st->now = now;
    *err = ENOMEM;
    struct mpc *c = conn_new(st, false, now);
    if (!c) return NULL;
    c->owner = owner;
    c->v.nodelay |= !!(flags & MP_OPEN_NODELAY);
    c->v.keepalive = !!(flags & MP_OPEN_KEEPALIVE);
    c->v.remote = *remote;
    c->v.offered = true;
    conn_new_keys(c);
    struct sf *s = st_sf_open(c, ifindex, local, remote, now, err);
    if (!s) {
        conn_free(c);
        return NULL;
    }
    s->v.initial = true;
    c->v.local = s->v.local;
    c->v.remotes[0] = (struct pm_remote){ .id = 0, .used = true, .at = *remote };
    sf_connect(s, now);
    race_start(c, ifindex, now);
    conn_touch(c);
    return c;
}

int mp_stack_listen(struct mp_stack *st, const struct mp_endpoint *at, unsigned families, int backlog, void *owner)
{
    struct listener *l = calloc(1, sizeof *l);
    if (!l) return -ENOMEM;
    l->at = *at;
    l->families = families;
    l->backlog = backlog > 0 ? backlog : 128;
    l->owner = owner;
    l->next = st->listeners;
    st->listeners = l;
    return 0;
}

void mp_stack_unlisten(struct mp_stack *st, void *owner)
{
    for (struct listener **p = &st->listeners; *p;) {
        struct listener *l = *p;
        if (l->owner != owner) {
            p = &l->next;
            continue;
        }
        *p = l->next;
        free(l);
    }
    for (struct mpc *c = st->all; c; c = c->next)
        if (c->owner == owner && c->v.server) { /* nobody will accept it any more */
            mpc_abort(c, st->now);
            mpc_release(c, 0, st->now);
        }
}

/* ---- segments of nobody ---- */

/* RFC 9293 3.10.7.1: a segment for no connection is answered by a reset that the sender will believe. */
struct mp_pkt *st_stray(struct mp_stack *st, const struct mp_pkt *p)
{
    if (st->nstray == ST_MAX_STRAY) return NULL;
    struct mp_pkt *r = &st->stray[st->nstray++];
    memset(r, 0, sizeof *r);
    r->src = p->dst;
    r->dst = p->src;
    r->ifindex = p->ifindex;
    return r;
}

void st_stray_rst(struct mp_stack *st, const struct mp_pkt *p, int reason)
{
    if (p->flags & MP_RST) {
        st_count(st, MP_E_no_flow_ignored, 1, NULL);
        return;
    }
    struct mp_pkt *r = st_stray(st, p);
    if (!r) return;
    r->flags = MP_RST;
    if (p->flags & MP_ACK)
        r->seq = p->ack;
    else {
        r->flags |= MP_ACK;
        r->ack = p->seq + p->len + !!(p->flags & MP_SYN) + !!(p->flags & MP_FIN);
    }
    if (reason >= 0) {
        struct mp_opts o = { .mp = MP_OPT_HAS(MP_TCPRST), .tcprst = { .reason = (uint8_t)reason } };
        r->optlen = (uint8_t)mp_opts_len(&o, r->flags);
        mp_opts_emit(r->opt, &o, r->flags);
    }
}

void st_accepted(struct mpc *c)
{
    for (struct listener *l = c->st->listeners; l; l = l->next)
        if (l->owner == c->owner && l->pending > 0) {
            l->pending--;
            return;
        }
}

/* RFC 6191 2, RFC 9293 3.6.1: a SYN with a later timestamp, or a number past what was received, is no old duplicate. */
static bool can_be_followed(const struct sf *old, const struct mp_pkt *p, const struct mp_opts *o)
{
    if (old->v.state != SF_TIME_WAIT || (p->flags & (MP_SYN | MP_ACK | MP_RST)) != MP_SYN) return false;
    if (!old->v.ts_on && o->has_ts) return true; /* old segments have none, and would be refused (RFC 7323 3.2) */
    if (old->v.ts_on && o->has_ts && o->ts_val != old->v.ts_recent) return (int32_t)(o->ts_val - old->v.ts_recent) > 0;
    return (int32_t)(p->seq - (old->v.irs + (uint32_t)old->v.rcv_nxt)) >= 0;
}

static void follow_time_wait(struct mp_stack *st, struct sf *old, struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    uint32_t end = isn_end(old);
    st_count(st, MP_E_time_wait_reused, 1, old->c);
    sf_die(old, 0, now);
    conn_reap(old->c, now);
    st_syn_in(st, p, o, now);
    struct sf *s = st_find(st, &p->dst, &p->src);
    if (s) isn_follow(s, end);
}

void mp_stack_input(struct mp_stack *st, struct mp_pkt *p, mp_time now)
{
    struct mp_opts o;
    st->now = now;
    st->counter[MP_E_pkt_in]++;
    if (mp_opts_parse(&o, p->opt, p->optlen, p->flags) < 0) {
        st_count(st, MP_E_opt_list_broken, 1, NULL);
        return;
    }
    if (o.bad) st_count(st, MP_E_opt_bad, o.bad, NULL);
    struct sf *s = st_find(st, &p->dst, &p->src);
    if (s && s->v.dead) { /* over, only not cleared away yet */
        conn_reap(s->c, now);
        s = NULL;
    }
    if (s && s->v.passive && can_be_followed(s, p, &o)) {
        follow_time_wait(st, s, p, &o, now);
        return;
    }
    if (!s) s = cookie_accept(st, p, &o, now);
    if (s) {
        struct mpc *c = s->c;
        conn_dsn_in(c, &o);
        sf_input(s, p, &o, now);
        conn_touch(c);
        return;
    }
    if ((p->flags & (MP_SYN | MP_ACK | MP_RST | MP_FIN)) == MP_SYN)
        st_syn_in(st, p, &o, now);
    else {
        st_count(st, MP_E_no_flow, 1, NULL);
        st_stray_rst(st, p, -1);
    }
}

void mp_stack_input_unowned(struct mp_stack *st, struct mp_pkt *p, mp_time now)
{
    struct mp_opts o;
    if (!st->cookies_at || st_find(st, &p->dst, &p->src) || mp_opts_parse(&o, p->opt, p->optlen, p->flags) < 0) return;
    st->now = now;
    struct sf *s = cookie_accept(st, p, &o, now);
    if (!s) return;
    st->counter[MP_E_pkt_in]++;
    conn_dsn_in(s->c, &o);
    sf_input(s, p, &o, now);
    conn_touch(s->c);
}

void mp_stack_net_error(struct mp_stack *st, void *flow, int err, uint32_t seq, bool must_match, uint32_t mtu, mp_time now)
{
    st->now = now;
    for (struct mpc *c = st->all; c; c = c->next)
        for (struct sf *s = c->sfs; s; s = s->next) {
            if (s->flow != flow || s->v.dead) continue;
            st_count(st, MP_E_net_error, 1, c);
            mp_ssn at = mp_expand32(s->v.snd_una, seq - s->v.iss);
            if (must_match && (at < s->v.snd_una || at >= s->v.snd_nxt)) return; /* RFC 5927 4: not in flight */
            if (err == EMSGSIZE)
                pmtu_told(s, mtu);
            else if (s->v.state == SF_SYN_SENT)
                sf_die(s, err, now); /* RFC 9293 3.9.2.2: hard while opening, soft afterwards */
            conn_touch(c);
            return;
        }
}
