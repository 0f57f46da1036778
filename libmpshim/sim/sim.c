/* sim/sim.c: the world: time, nodes, packets, the event hash. */
#include "sim/sim.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdlib.h>

/* More node runs than this without time moving is a livelock. Real bursts stay far below: one run of a host sends
 * all that it may. */
#define LIVELOCK_RUNS 20000

void sim_init(struct sim *s, uint64_t seed)
{
    *s = (struct sim){.now = SIM_START, .seed = seed, .hash = 0xcbf29ce484222325u};
}

void sim_fini(struct sim *s)
{
    while (s->nodes) {
        struct sim_node *n = s->nodes;
        s->nodes = n->all_next;
        n->ops->free(n);
    }
}

void sim_fail(struct sim *s, const char *fmt, ...)
{
    if (sim_failed(s)) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s->failure, sizeof s->failure, fmt, ap);
    va_end(ap);
    s->failure_at = s->now;
    if (s->trace) fprintf(s->trace, "%12.6f FAILURE %s\n", (double)(s->now - SIM_START) / 1e9, s->failure);
}

void sim_node_add(struct sim *s, struct sim_node *n, const struct sim_node_ops *ops, const char *name)
{
    n->ops = ops;
    n->sim = s;
    n->id = s->nnodes++;
    n->all_next = s->nodes;
    s->nodes = n;
    snprintf(n->name, sizeof n->name, "%s", name);
}

static struct sim_node *earliest(const struct sim *s, mp_time *at)
{
    struct sim_node *best = NULL;
    *at = MP_NEVER;
    for (struct sim_node *n = s->nodes; n; n = n->all_next) {
        mp_time t = n->ops->next_run_at(n);
        /* On a tie the newest node wins: any rule will do as long as it is always the same. */
        if (t < *at) {
            *at = t;
            best = n;
        }
    }
    return best;
}

mp_time sim_next(const struct sim *s)
{
    mp_time at;
    earliest(s, &at);
    return at;
}

bool sim_run_until(struct sim *s, mp_time until)
{
    while (!sim_failed(s)) {
        mp_time at;
        struct sim_node *n = earliest(s, &at);
        if (!n || at > until) {
            if (until != MP_NEVER) s->now = mp_max(s->now, until);
            return n != NULL;
        }
        if (at > s->now) {
            s->now = at;
            s->at_same_time = 0;
        } else if (++s->at_same_time > LIVELOCK_RUNS) {
            sim_fail(s, "livelock: %s wants to run again and again at the same time", n->name);
            break;
        }
        n->ops->run(n);
    }
    return false;
}

/* ---- packets ---- */

struct sim_pkt *sim_pkt_new(struct sim *s, const struct mp_pkt *h, const void *p, uint32_t n)
{
    struct sim_pkt *k = calloc(1, sizeof *k);
    if (!k) abort();
    k->h = *h;
    k->h.niov = 0;
    k->h.flow = NULL;
    k->h.len = n;
    k->h.data = (struct mp_slice){0};
    k->id = ++s->packets;
    s->packets_live++;
    if (n) {
        struct mp_buf *b = mp_buf_new(n);
        if (!b) abort();
        if (p) memcpy(b->data, p, n);
        k->h.data = (struct mp_slice){b, b->data, n};
    }
    return k;
}

struct sim_pkt *sim_pkt_dup(struct sim *s, const struct sim_pkt *p)
{
    struct sim_pkt *k = sim_pkt_new(s, &p->h, NULL, 0);
    k->h.len = p->h.len;
    k->h.data = p->h.data;
    k->spoilt = p->spoilt;
    mp_buf_get(k->h.data.buf);
    return k;
}

void sim_pkt_free(struct sim *s, struct sim_pkt *p)
{
    mp_slice_put(&p->h.data);
    s->packets_live--;
    free(p);
}

uint8_t *sim_pkt_own_payload(struct sim *s, struct sim_pkt *p)
{
    (void)s;
    if (!p->h.data.buf) return NULL;
    if (p->h.data.buf->refs > 1) {
        struct mp_buf *b = mp_buf_new(p->h.len);
        if (!b) abort();
        memcpy(b->data, p->h.data.p, p->h.len);
        mp_slice_put(&p->h.data);
        p->h.data = (struct mp_slice){b, b->data, p->h.len};
    }
    return p->h.data.buf->data + (p->h.data.p - p->h.data.buf->data);
}

uint32_t sim_pkt_ip_len(const struct mp_pkt *h)
{
    return mp_header_len(h->dst.ip.family) + h->optlen + h->len;
}

/* ---- events ---- */

static void fold(struct sim *s, uint64_t v) { s->hash = sim_mix(s->hash ^ v) + 0x9e3779b97f4a7c15u; }

static void fold_bytes(struct sim *s, const uint8_t *p, size_t n)
{
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        fold(s, v);
    }
    uint64_t v = n;
    memcpy(&v, p, n); /* at most 7 bytes; equal lengths pad equally */
    fold(s, v);
}

void sim_trace_pkt(struct sim *s, const struct sim_node *n, const char *what, const struct mp_pkt *h)
{
    s->events++;
    fold(s, s->now);
    fold(s, (uint64_t)n->id << 32 | (uint8_t)what[0]);
    fold(s, (uint64_t)h->seq << 32 | h->ack);
    fold(s, (uint64_t)h->src.port << 48 | (uint64_t)h->dst.port << 32 | (uint64_t)h->wnd << 8 | h->flags);
    fold(s, h->len);
    fold_bytes(s, h->opt, h->optlen);
    if (!s->trace) return;
    char text[400];
    sim_pkt_text(h, text, sizeof text);
    fprintf(s->trace, "%12.6f %-14s %-8s %s\n", (double)(s->now - SIM_START) / 1e9, n->name, what, text);
}

void sim_trace_num(struct sim *s, const struct sim_node *n, const char *what, uint64_t a, uint64_t b)
{
    s->events++;
    fold(s, s->now);
    fold(s, (uint64_t)n->id << 32 | (uint8_t)what[0]);
    fold(s, a);
    fold(s, b);
    if (!s->trace) return;
    fprintf(s->trace, "%12.6f %-14s %s %llu %llu\n", (double)(s->now - SIM_START) / 1e9, n->name, what,
            (unsigned long long)a, (unsigned long long)b);
}

/* ---- addresses ---- */

struct mp_addr sim_addr(const char *text)
{
    struct mp_addr a = {0};
    if (inet_pton(AF_INET, text, a.b) == 1) a.family = 4;
    else if (inet_pton(AF_INET6, text, a.b) == 1) a.family = 6;
    return a;
}

const char *sim_addr_text(const struct mp_addr *a, char buf[48])
{
    if (!a->family || !inet_ntop(a->family == 4 ? AF_INET : AF_INET6, a->b, buf, 48)) snprintf(buf, 48, "-");
    return buf;
}
