/* tests/fuzz/lib/world.c: see world.h. */
#include "world.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/crypto.h"
#include "core/wire.h"
#include "sim/sim.h"

uint16_t mp_dss_csum(uint64_t sum, mp_dsn dsn, uint32_t ssn, uint16_t len); /* core's own */

/* ASan's and LSan's view of the heap; absent elsewhere. */
size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));
#define MEMORY_LIMIT (96u << 20) /* two hosts, 64 KB buffers, 8 subflows; the wire itself may hold 16 MB each way */
#define POLL_LIMIT 20000         /* packets at one instant: more is a loop */

struct w_flow {
    struct w_flow *next, **pprev;
    struct mp_endpoint local, remote;
    int ifindex;
};

void world_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "invariant broken: ");
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    abort();
}

/* What host h writes at offset i: a table of prime length, so that no power of two repeats it. */
#define PERIOD 65521
static const uint8_t *w_bytes(int host, uint64_t i) /* PERIOD bytes from there */
{
    static uint8_t table[2][2 * PERIOD];
    if (!table[1][1])
        for (unsigned k = 0; k < 2 * PERIOD; k++) {
            table[0][k] = (uint8_t)((k % PERIOD * 2654435761u) >> 13);
            table[1][k] = (uint8_t)(table[0][k] ^ 0x55);
        }
    return &table[host][i % PERIOD];
}

/* ---- struct mp_stack_ops ---- */

static void op_random(void *arg, void *p, size_t n)
{
    struct w_host *h = arg;
    uint8_t *b = p;
    while (n--) {
        h->rng = h->rng * 6364136223846793005u + 1442695040888963407u;
        *b++ = (uint8_t)(h->rng >> 56);
    }
}

static void *op_flow_open(void *arg, int ifindex, const struct mp_endpoint *local, const struct mp_endpoint *remote, bool passive)
{
    struct w_host *h = arg;
    (void)passive;
    if (h->refuse) return NULL;
    struct w_flow *f = calloc(1, sizeof *f);
    *f = (struct w_flow){ h->flows, &h->flows, *local, *remote, ifindex };
    if (f->next) f->next->pprev = &f->next;
    h->flows = f;
    return f;
}

static void op_flow_close(void *arg, void *flow)
{
    struct w_flow *f = flow; /* closed twice: the sanitizer sees it */
    (void)arg;
    *f->pprev = f->next;
    if (f->next) f->next->pprev = f->pprev;
    free(f);
}

static uint32_t op_slice_max(void *arg, void *flow, uint32_t mss)
{
    struct w_host *h = arg;
    (void)flow;
    return h->slice > mss ? h->slice : mss;
}

static bool op_writable(void *arg, void *flow)
{
    (void)flow;
    return !((struct w_host *)arg)->blocked;
}

static int path_of(const struct mp_addr *a) { return a->family == 4 ? a->b[2] : a->b[13]; }

static bool op_route(void *arg, int ifindex, const struct mp_addr *local, const struct mp_addr *remote, uint32_t mark)
{
    const struct w_host *h = arg;
    (void)mark;
    return local->family == remote->family && ifindex >= 1 && ifindex <= W_PATHS && h->up[ifindex] && path_of(remote) == ifindex;
}

static uint32_t op_mtu(void *arg, int ifindex)
{
    (void)arg;
    return ifindex == 2 ? 1400 : 1500;
}

static uint16_t op_port_get(void *arg, uint8_t family, bool fresh)
{
    (void)fresh;
    struct w_host *h = arg;
    (void)family;
    h->ports++;
    return h->next_port++;
}

static void op_port_put(void *arg, uint8_t family, uint16_t port)
{
    struct w_host *h = arg;
    (void)family, (void)port;
    if (--h->ports < 0) world_fail("port given back twice");
}

static const struct mp_stack_ops ops = {
    .random = op_random, .flow_open = op_flow_open, .flow_close = op_flow_close, .slice_max = op_slice_max,
    .writable = op_writable, .route = op_route, .mtu = op_mtu, .port_get = op_port_get, .port_put = op_port_put,
};

/* ---- making and ending ---- */

struct mp_addr w_ip(int path, int host)
{
    if (path < 3) return (struct mp_addr){ 4, { 10, 0, (uint8_t)path, (uint8_t)(host + 1) } };
    return (struct mp_addr){ 6, { 0xfd, [13] = (uint8_t)path, [15] = (uint8_t)(host + 1) } };
}

void w_path(struct world *w, int host, int path, bool up)
{
    struct w_host *h = &w->host[host];
    struct mp_local l = { .ifindex = path, .ip = w_ip(path, host), .announce = host == SERVER };
    snprintf(l.name, sizeof l.name, "p%d", path);
    h->up[path] = up;
    if (up)
        mp_stack_local_add(h->st, &l, w->now);
    else
        mp_stack_local_del(h->st, path, &l.ip, w->now);
}

void world_open(struct world *w, const struct w_cfg *cfg)
{
    memset(w, 0, sizeof *w);
    w->now = MP_SEC(1000);
    w->honest = true;
    w->split = cfg->split;
    for (int i = 0; i < 2; i++) {
        struct w_host *h = &w->host[i];
        struct mp_settings set;
        mp_settings_default(&set);
        set.cc = cfg->cc ? cfg->cc : "lia";
        set.checksum = cfg->csum[i];
        set.sndbuf_kb = set.rcvbuf_kb = 64;
        set.data_tries = 5; /* short lives: a run ends with the last connection */
        set.syn_tries = 4;
        set.orphan_s = 5;
        set.time_wait_s = 2;
        h->w = w;
        h->id = i;
        h->rng = cfg->seed * 2 + (uint64_t)i;
        h->next_port = 40000;
        h->slice = cfg->slice;
        if (!(h->st = mp_stack_new(&ops, h, &set))) abort();
        for (int p = 1; p <= cfg->paths; p++) w_path(w, i, p, true);
    }
    w_listen(w);
}

void w_listen(struct world *w)
{
    struct mp_endpoint at = { .port = W_PORT };
    if (mp_stack_listen(w->host[SERVER].st, &at, 3, 16, &w->host[SERVER].listener)) abort();
}

void world_close(struct world *w)
{
    for (int i = 0; i < 2; i++) {
        struct w_host *h = &w->host[i];
        while (w->nflight[i]) w_drop(w, i, 0);
        mp_stack_free(h->st);
        if (h->flows) world_fail("host %d: a flow is left open", i);
        if (h->ports) world_fail("host %d: %d ports not given back", i, h->ports);
    }
}

/* ---- programs ---- */

static struct w_app *app_free(struct w_host *h)
{
    for (int i = 0; i < W_APPS; i++)
        if (!h->app[i].c) return &h->app[i];
    return NULL;
}

struct w_app *w_connect(struct world *w, int path)
{
    struct w_host *h = &w->host[CLIENT];
    struct w_app *a = app_free(h);
    struct mp_addr local = w_ip(path, CLIENT);
    struct mp_endpoint to = { w_ip(path, SERVER), W_PORT };
    int err = 0;
    if (!a) return NULL;
    *a = (struct w_app){ .host = CLIENT };
    a->c = mp_stack_connect(h->st, &to, &local, path, 0, a, w->now, &err);
    if (!a->c && !err) world_fail("connect failed without an error");
    return a->c ? a : NULL;
}

void w_write(struct world *w, struct w_app *a, uint32_t n)
{
    if (!a->c || a->shut) return;
    if (n > PERIOD) n = PERIOD;
    uint64_t space = mpc_write_space(a->c), took = mpc_write(a->c, w_bytes(a->host, a->wrote), n, w->now);
    if (took > n || took > space) world_fail("write took %llu of %u with %llu of room", (unsigned long long)took, n, (unsigned long long)space);
    a->wrote += took;
}

void w_read(struct world *w, struct w_app *a, uint64_t most)
{
    struct mp_iov v[8];
    uint64_t got = 0, has;
    if (!a->c) return;
    has = mpc_readable(a->c);
    int n = mpc_peek(a->c, v, 8);
    for (int i = 0; i < n; i++) {
        const uint8_t *b = v[i].base;
        if (w->honest && (v[i].len > PERIOD || memcmp(b, w_bytes(!a->host, a->read + got), v[i].len)))
            world_fail("host %d read wrong bytes at %llu", a->host, (unsigned long long)(a->read + got));
        got += v[i].len;
    }
    if (n < 8 && got != has) world_fail("readable says %llu, peek shows %llu", (unsigned long long)has, (unsigned long long)got);
    if (got > most) got = most;
    if (got) mpc_consume(a->c, got, w->now); /* else the connection is touched, closed ones say so again, and so on */
    a->read += got;
    if (mpc_readable(a->c) != has - got) world_fail("consume");
    if (mpc_eof(a->c)) a->eof = true;
}

void w_shutdown(struct world *w, struct w_app *a)
{
    if (!a->c) return;
    a->shut = true;
    mpc_shutdown(a->c, w->now);
}

void w_release(struct world *w, struct w_app *a, mp_dur linger)
{
    if (!a->c) return;
    struct mpc *c = a->c;
    a->c = NULL;
    mpc_release(c, linger, w->now);
}

static void on_event(struct w_host *h, struct mpc *c, unsigned bits)
{
    struct world *w = h->w;
    if (bits & MP_EV_ACCEPT) {
        struct w_app *a = app_free(h);
        if (!a) {
            mpc_abort(c, w->now);
            mpc_release(c, 0, w->now);
            return;
        }
        *a = (struct w_app){ .c = c, .host = h->id };
        mpc_set_owner(c, a);
    }
    struct w_app *a = mpc_owner(c);
    if (!a || a < h->app || a >= h->app + W_APPS || a->c != c) { /* refused before it was accepted */
        if (bits & MP_EV_CLOSED) mpc_release(c, 0, w->now);
        return;
    }
    if (bits & MP_EV_CLOSED) a->closed = true;
    if (!a->paused) w_read(w, a, UINT64_MAX);
}

/* ---- the wire ---- */

/* FUZZ_TRACE=1 prints what is sent and what arrives, for whoever reads a finding. */
static void trace(const struct world *w, int host, const char *what, const struct mp_pkt *p)
{
    static int on = -1;
    char text[400];
    if (on < 0) on = getenv("FUZZ_TRACE") != NULL;
    if (!on) return;
    sim_pkt_text(p, text, sizeof text);
    fprintf(stderr, "%10.3f ms host %d %s %s\n", (double)(w->now - MP_SEC(1000)) / 1e6, host, what, text);
}

static uint64_t iov_bytes(const struct mp_pkt *p)
{
    uint64_t n = 0;
    for (int i = 0; i < p->niov; i++) n += p->iov[i].len;
    return n;
}

static void check_out(const struct w_host *h, const struct mp_pkt *p)
{
    struct mp_opts o;
    if (p->niov > MP_PKT_MAX_IOV || p->len > MP_SLICE_MAX || iov_bytes(p) != p->len) world_fail("host %d sends bad pieces", h->id);
    if (p->optlen > 40 || p->optlen % 4) world_fail("host %d sends %d bytes of options", h->id, p->optlen);
    if (mp_opts_parse(&o, p->opt, p->optlen, p->flags) || o.bad) world_fail("host %d sends options that it would not take", h->id);
    if (!p->flow) world_fail("host %d sends without a flow", h->id);
    if (p->len > op_mtu(NULL, p->ifindex) && !p->gso_size) world_fail("host %d sends %u bytes in one segment", h->id, p->len);
    if ((p->flags & (MP_SYN | MP_FIN)) == (MP_SYN | MP_FIN) || (p->flags & (MP_SYN | MP_RST)) == (MP_SYN | MP_RST)) world_fail("host %d sends flags %x", h->id, p->flags);
}

static void flight_add(struct world *w, int to, const struct mp_pkt *p, const uint8_t *payload, uint32_t n)
{
    if (w->nflight[to] == W_FLIGHT) return; /* tail drop */
    struct mp_pkt *q = &w->flight[to][w->nflight[to]++].p;
    *q = *p;
    q->flow = NULL;
    q->niov = 0;
    q->len = n;
    struct mp_buf *b = mp_buf_new(n ? n : 1);
    if (n) memcpy(b->data, payload, n);
    q->data = (struct mp_slice){ b, b->data, n };
}

static void transmit(struct world *w, int from, const struct mp_pkt *p)
{
    static uint8_t buf[MP_SLICE_MAX];
    trace(w, from, "sends", p);
    uint32_t at = 0, step = p->gso_size ? p->gso_size : p->len;
    for (int i = 0; i < p->niov; i++) {
        memcpy(buf + at, p->iov[i].base, p->iov[i].len);
        at += (uint32_t)p->iov[i].len;
    }
    if (!w->split || p->len <= step) {
        flight_add(w, !from, p, buf, p->len);
        return;
    }
    for (at = 0; at < p->len; at += step) {
        struct mp_pkt q = *p;
        uint32_t n = p->len - at < step ? p->len - at : step;
        q.seq += at;
        if (at + n < p->len) q.flags &= (uint8_t)~(MP_FIN | MP_PSH);
        flight_add(w, !from, &q, buf + at, n);
    }
}

void w_strip_options(struct mp_pkt *p)
{
    for (size_t i = 0; i < p->optlen;) {
        if (p->opt[i] == 0) return;
        if (p->opt[i] == 1) {
            i++;
            continue;
        }
        if (i + 1 >= p->optlen || p->opt[i + 1] < 2 || i + p->opt[i + 1] > p->optlen) return;
        size_t n = p->opt[i + 1];
        if (p->opt[i] == 30) memset(p->opt + i, 1, n);
        i += n;
    }
}

static void flight_remove(struct world *w, int to, int i)
{
    w->nflight[to]--;
    memmove(&w->flight[to][i], &w->flight[to][i + 1], (size_t)(w->nflight[to] - i) * sizeof w->flight[to][0]);
}

/* The packet's path must be up at both ends, as a link is. */
static bool reaches(const struct world *w, int to, const struct mp_pkt *p)
{
    int path = path_of(&p->dst.ip);
    if (w->deaf[to] || path < 1 || path > W_PATHS) return false;
    return mp_addr_eq(&p->dst.ip, &(struct mp_addr[]){ w_ip(path, to) }[0]) && w->host[to].up[path] && w->host[!to].up[path];
}

static void input(struct world *w, int to, struct mp_pkt *p)
{
    struct mp_pkt q = *p;
    if (!reaches(w, to, p)) return;
    q.ifindex = path_of(&p->dst.ip);
    if (w->strip[to]) w_strip_options(&q);
    trace(w, to, "gets ", &q);
    mp_stack_input(w->host[to].st, &q, w->now);
}

bool w_deliver(struct world *w, int to, int i)
{
    if (i >= w->nflight[to]) return false;
    struct mp_pkt p = w->flight[to][i].p;
    flight_remove(w, to, i);
    input(w, to, &p);
    mp_slice_put(&p.data);
    return true;
}

void w_drop(struct world *w, int to, int i)
{
    if (i >= w->nflight[to]) return;
    mp_slice_put(&w->flight[to][i].p.data);
    flight_remove(w, to, i);
}

void w_dup(struct world *w, int to, int i)
{
    if (i >= w->nflight[to]) return;
    struct mp_pkt *p = &w->flight[to][i].p;
    struct mp_slice d = p->data;
    flight_add(w, to, p, d.p, d.len);
}

/* ---- time ---- */

static bool serve(struct w_host *h)
{
    struct world *w = h->w;
    struct mp_pkt out;
    struct mpc *c;
    unsigned bits;
    bool any = false;
    for (; mp_stack_poll(h->st, memset(&out, 0, sizeof out), w->now); any = true) {
        check_out(h, &out);
        transmit(w, h->id, &out);
        if (++w->polls > POLL_LIMIT) world_fail("host %d sends for ever", h->id);
    }
    for (; mp_stack_event(h->st, &c, &bits); any = true) {
        on_event(h, c, bits);
        if (++w->polls > POLL_LIMIT) world_fail("host %d has events for ever", h->id);
    }
    return any;
}

static void check_memory(void)
{
    if (__sanitizer_get_current_allocated_bytes && __sanitizer_get_current_allocated_bytes() > MEMORY_LIMIT)
        world_fail("%zu bytes allocated", __sanitizer_get_current_allocated_bytes());
}

/* For whoever reads a finding. */
static void dump(struct w_host *h)
{
    fprintf(stderr, "host %d:", h->id);
    for (int i = 0; i < MP_E_COUNT; i++)
        if (h->st->counter[i]) fprintf(stderr, " %s %llu", mp_events[i].name, (unsigned long long)h->st->counter[i]);
    fprintf(stderr, "\n");
    for (struct mpc *c = mp_stack_first(h->st); c; c = mp_stack_next(c)) {
        fprintf(stderr, "host %d at %llu ms: server %d established %d released %d err %d fb %d shut %d fin_sent %d fin_acked %d fin_consumed %d closing %d una %llu nxt %llu end %llu edge %lld rxq %llu deadline %lld ms\n",
                h->id, (unsigned long long)(h->w->now / 1000000), c->v.server, c->v.established, c->v.released, c->v.err, c->v.fb, c->v.shut, c->v.fin_sent,
                c->v.fin_acked, c->v.fin_consumed, c->v.closing, (unsigned long long)(c->v.snd_una - c->v.idsn_local), (unsigned long long)(c->v.snd_nxt - c->v.idsn_local),
                (unsigned long long)(c->v.snd_end - c->v.idsn_local), (long long)(c->v.snd_edge - c->v.idsn_local), (unsigned long long)c->v.rxq_bytes, (long long)(conn_deadline(c) / 1000000));
        for (int i = 0; i < CT_COUNT; i++)
            if (c->v.timer[i] != MP_NEVER) fprintf(stderr, "  connection timer %d at %llu ms\n", i, (unsigned long long)(c->v.timer[i] / 1000000));
        for (struct sf *s = c->sfs; s; s = s->next) {
            fprintf(stderr, "  subflow %d %s dead %d reset_pending %d reset_sent %d initial %d stale %d aside %d una %llu nxt %llu rcv_nxt %llu wnd %llu pipe %llu\n", s->v.id, sf_state_name(s->v.state), s->v.dead,
                    s->v.reset_pending, s->v.reset_sent, s->v.initial, s->v.stale, s->v.aside, (unsigned long long)s->v.snd_una, (unsigned long long)s->v.snd_nxt, (unsigned long long)s->v.rcv_nxt, (unsigned long long)s->v.snd_wnd, (unsigned long long)s->v.pipe);
            for (int i = 0; i < SFT_COUNT; i++)
                if (s->v.timer[i] != MP_NEVER) fprintf(stderr, "    timer %d at %llu ms\n", i, (unsigned long long)(s->v.timer[i] / 1000000));
        }
    }
}

static void check_subflows(struct w_host *h)
{
    for (struct mpc *c = mp_stack_first(h->st); c; c = mp_stack_next(c)) {
        if (c->v.snd_una > c->v.snd_nxt + 1 || c->v.snd_nxt > c->v.snd_end) world_fail("host %d: send numbers of the connection", h->id);
        for (struct sf *s = c->sfs; s; s = s->next) {
            if (s->v.dead) continue;
            if (s->v.snd_una > s->v.snd_nxt) world_fail("host %d: snd_una beyond snd_nxt", h->id);
            if (s->v.pipe > s->v.snd_nxt - s->v.snd_una) dump(h), world_fail("host %d: more in the pipe than in flight", h->id);
            if (s->v.cc.active && !s->v.cc.cwnd) world_fail("host %d: no congestion window", h->id);
        }
    }
}

void w_settle(struct world *w)
{
    w->polls = 0;
    for (int i = 0; i < 2; i++) {
        struct w_host *h = &w->host[i];
        while (serve(h))
            ;
        for (int n = 0; mp_stack_deadline(h->st) <= w->now; n++) {
            if (n > 64) world_fail("host %d: a deadline that stays in the past", i);
            mp_stack_tick(h->st, w->now);
            while (serve(h))
                ;
        }
        check_subflows(h);
    }
    check_memory();
}

static mp_time next_deadline(const struct world *w)
{
    return mp_min(mp_stack_deadline(w->host[0].st), mp_stack_deadline(w->host[1].st));
}

void w_advance(struct world *w, mp_dur by)
{
    mp_time end = w->now + by;
    for (int n = 0; n < 200; n++) {
        mp_time at = next_deadline(w);
        if (at > end) break;
        if (at > w->now) w->now = at;
        w_settle(w);
    }
    w->now = end;
    w_settle(w);
}

void w_exchange(struct world *w, int n)
{
    w_settle(w);
    while (n > 0 && (w->nflight[0] || w->nflight[1]))
        for (int to = 0; to < 2; to++)
            if (w_deliver(w, to, 0)) {
                n--;
                w_settle(w);
            }
}

void w_run(struct world *w, mp_dur limit, int segments)
{
    mp_time end = w->now + limit;
    w_settle(w);
    while (segments > 0) {
        if (w->nflight[0] || w->nflight[1]) {
            int before = w->nflight[0] + w->nflight[1];
            w_exchange(w, before);
            segments -= before;
            w->now += MP_MS(5);
            continue;
        }
        mp_time at = next_deadline(w);
        if (at > end) break;
        w->now = at > w->now ? at : w->now;
        w_settle(w);
        segments--; /* a timer counts as well */
    }
}

/* ---- ends ---- */

static void must_have_deadline(struct w_host *h)
{
    if (mp_stack_live(h->st) && mp_stack_deadline(h->st) == MP_NEVER) dump(h), world_fail("host %d: a connection without owner waits for nothing", h->id);
}

void w_end_alone(struct world *w)
{
    w->deaf[0] = w->deaf[1] = true;
    for (int i = 0; i < 2; i++) {
        w->host[i].blocked = false;
        mp_stack_writable(w->host[i].st, NULL);
        for (int k = 0; k < W_APPS; k++) w_release(w, &w->host[i].app[k], 0);
        mp_stack_unlisten(w->host[i].st, &w->host[i].listener, w->now);
    }
    w_settle(w);
    mp_time end = w->now + MP_SEC(86400);
    for (int n = 0; n < 20000 && (mp_stack_live(w->host[0].st) || mp_stack_live(w->host[1].st)); n++) {
        for (int i = 0; i < 2; i++) {
            must_have_deadline(&w->host[i]);
            while (w->nflight[i]) w_drop(w, i, 0);
        }
        mp_time at = next_deadline(w);
        if (at > end) break;
        if (at > w->now) w->now = at;
        w_settle(w);
    }
    for (int i = 0; i < 2; i++)
        if (mp_stack_live(w->host[i].st)) dump(&w->host[i]), world_fail("host %d: a connection without owner and peer lives on", i);
}

static struct w_app *peer_of(struct world *w, const struct w_app *a)
{
    struct w_host *o = &w->host[!a->host];
    struct mpc_info i, k;
    mpc_get_info(a->c, &i);
    for (int n = 0; n < W_APPS; n++) {
        if (!o->app[n].c) continue;
        mpc_get_info(o->app[n].c, &k);
        if (mp_endpoint_eq(&i.local, &k.remote) && mp_endpoint_eq(&i.remote, &k.local)) return &o->app[n];
    }
    return NULL;
}

static bool fine(const struct w_app *a) { return a && a->c && !mpc_error(a->c); }

static void drain(struct world *w)
{
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < W_APPS; k++) {
            struct w_app *a = &w->host[i].app[k];
            a->paused = false;
            for (int n = 0; n < 64 && a->c && mpc_readable(a->c); n++) w_read(w, a, UINT64_MAX);
        }
}

void w_end_whole(struct world *w)
{
    for (int i = 0; i < 2; i++) {
        struct w_host *h = &w->host[i];
        h->blocked = h->refuse = w->deaf[i] = false;
        for (int p = 1; p <= W_PATHS; p++)
            if (!h->up[p]) w_path(w, i, p, true);
        mp_stack_writable(h->st, NULL);
        for (int k = 0; k < W_APPS; k++)
            if (h->app[k].c) mpc_setopt(h->app[k].c, MPC_CORK, 0, w->now);
    }
    drain(w);
    w_run(w, MP_SEC(3600), 3000);
    drain(w);
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < W_APPS; k++) {
            struct w_app *a = &w->host[i].app[k], *b = fine(a) ? peer_of(w, a) : NULL;
            if (!fine(a) || !fine(b)) continue;
            if (b->read != a->wrote)
                dump(&w->host[0]), dump(&w->host[1]),
                world_fail("host %d wrote %llu bytes, %llu arrived, and nothing goes on", i, (unsigned long long)a->wrote, (unsigned long long)b->read);
            if (a->shut && !b->eof && !mpc_eof(b->c)) world_fail("host %d shut down and the other saw no end", i);
        }
}

/* ---- a hostile segment ---- */

static struct sf *nth_subflow(struct w_host *h, unsigned which)
{
    unsigned n = 0;
    for (struct mpc *c = mp_stack_first(h->st); c; c = mp_stack_next(c))
        for (struct sf *s = c->sfs; s; s = s->next) n++;
    if (!n) return NULL;
    which %= n;
    for (struct mpc *c = mp_stack_first(h->st); c; c = mp_stack_next(c))
        for (struct sf *s = c->sfs; s; s = s->next)
            if (!which--) return s;
    return NULL;
}

static void fix_keys(const struct mpc *c, const struct sf *s, const struct mp_pkt *p, struct mp_opts *o)
{
    uint8_t h[32];
    o->capable.key_snd = c->v.key_remote ? c->v.key_remote : 0x0102030405060708;
    o->capable.key_rcv = c->v.key_local;
    o->capable.hmac_sha256 = true;
    o->fastclose_key = c->v.key_local;
    if (o->join.form == MP_JOIN_SYN) o->join.token = c->v.token_local;
    mp_join_hmac(c->v.key_remote, c->v.key_local, o->join.form == MP_JOIN_SYNACK ? o->join.nonce : s->v.nonce_remote, s->v.nonce_local, h);
    memcpy(o->join.hmac, h, p->flags & MP_SYN ? 8 : sizeof o->join.hmac);
    o->add_addr.hmac = mp_add_addr_hmac(c->v.key_remote, c->v.key_local, o->add_addr.addr_id, &o->add_addr.ip, o->add_addr.port);
}

static void fix_dsn(const struct mpc *c, const struct sf *s, const struct mp_pkt *p, struct mp_opts *o)
{
    o->dss.dsn = c->v.rcv_nxt + c->v.rx_off + (uint64_t)(int64_t)(int16_t)o->dss.dsn;
    o->dss.data_ack = c->v.snd_nxt + c->v.tx_off + 1 - (uint16_t)o->dss.data_ack;
    if (!o->dss.dsn64) o->dss.dsn = (uint32_t)o->dss.dsn;
    if (!o->dss.ack64) o->dss.data_ack = (uint32_t)o->dss.data_ack;
    if (o->dss.ssn) o->dss.ssn = p->seq - s->v.irs + (uint32_t)(int8_t)(o->dss.ssn - 1);
    o->fail_dsn = c->v.snd_una + c->v.tx_off + (int8_t)o->fail_dsn;
}

static void fix_csum(const struct mpc *c, const struct mp_pkt *p, struct mp_opts *o)
{
    uint64_t sum = mp_csum_add(0, p->data.p, p->data.len);
    mp_dsn dsn = o->dss.dsn64 ? o->dss.dsn : mp_expand32(c->v.rcv_nxt + c->v.rx_off, (uint32_t)o->dss.dsn);
    o->dss.has_csum = o->dss.has_map && c->v.csum;
    o->dss.csum = o->dss.has_csum ? mp_dss_csum(sum, dsn, o->dss.ssn, o->dss.len) : 0;
    if (o->capable.has_data_len) {
        o->capable.has_csum = c->v.csum;
        o->capable.csum = c->v.csum ? mp_dss_csum(sum, c->v.idsn_remote + c->v.rx_off + 1, 1, o->capable.data_len) : 0;
    }
}

static void fix_options(const struct mpc *c, const struct sf *s, struct mp_pkt *p, uint8_t fix)
{
    struct mp_opts o;
    if (mp_opts_parse(&o, p->opt, p->optlen, p->flags)) return;
    if (fix & FIX_TS) {
        o.has_ts = s->v.ts_on || (p->flags & MP_SYN);
        o.ts_val = s->v.ts_recent + (o.ts_val & 0xff);
        o.ts_ecr = sf_ts(s, s->st->now) - (o.ts_ecr & 0xff);
    }
    if ((fix & FIX_WHOLE) && o.dss.has_map) o.dss.len = (uint16_t)(p->data.len + o.dss.data_fin);
    if ((fix & FIX_WHOLE) && o.capable.has_data_len) o.capable.data_len = (uint16_t)p->data.len;
    if (fix & FIX_DSN) fix_dsn(c, s, p, &o);
    if (fix & FIX_KEY) fix_keys(c, s, p, &o);
    if (fix & FIX_CSUM) fix_csum(c, p, &o);
    size_t n = mp_opts_len(&o);
    if (n > sizeof p->opt) return;
    mp_opts_emit(p->opt, &o);
    p->optlen = (uint8_t)n;
}

static void fix_up(const struct sf *s, struct mp_pkt *p, uint8_t fix)
{
    if (fix & FIX_TUPLE) {
        p->src = s->v.remote;
        p->dst = s->v.local;
    }
    if (fix & FIX_SEQ) {
        p->seq = s->v.irs + (uint32_t)s->v.rcv_nxt + (uint32_t)(int16_t)p->seq;
        p->ack = s->v.iss + (uint32_t)s->v.snd_nxt - (uint16_t)p->ack;
    }
    if (fix & (FIX_TS | FIX_DSN | FIX_CSUM | FIX_KEY | FIX_WHOLE)) fix_options(s->c, s, p, fix);
}

void w_hostile(struct world *w, int to, unsigned which, uint8_t fix, const uint8_t *tcp, size_t n)
{
    struct mp_pkt p = { .src.ip = w_ip(1 + (int)(which / 64) % W_PATHS, !to), .dst.ip = w_ip(1 + (int)(which / 64) % W_PATHS, to) };
    struct mp_buf *b = mp_buf_new(n ? (uint32_t)n : 1);
    if (n) memcpy(b->data, tcp, n);
    w->honest = false;
    struct sf *s = nth_subflow(&w->host[to], which % 64);
    if (mp_tcp_parse(&p, b->data, n) == 0) {
        if (p.len & 0x8000) p.len &= 0x7fff;
        p.data.buf = b;
        p.dst.port = to == SERVER ? W_PORT : p.dst.port;
        if (s) fix_up(s, &p, fix);
        for (int times = fix & FIX_TWICE ? 2 : 1; times; times--) {
            input(w, to, &p);
            w_settle(w);
        }
    }
    mp_buf_put(b);
}
