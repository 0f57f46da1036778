/* tests/unit/lab_world.h: the world around the one stack of lab.h: far ends, segments kept, what core/ asks, time. */
#ifndef MP_LAB_WORLD_H
#define MP_LAB_WORLD_H

#include "core/crypto.h"
#include "core/event.h"
#include "core/opt.h"
#include "core/stack.h"
#include "core/wire.h"
#include "test.h"

#define LAB_MSS 1000
#define LAB_RTT MP_MS(10) /* between the engine's SYN and the peer's answer in lab_client, and the other way in lab_server */
#define LAB_PEER_KEY 0x1122334455667788u
#define LAB_NONCE 0x0a0b0c0du /* of the peer's joins */
#define LAB_MAX_PEERS 8
#define LAB_QUEUE 2048

struct peer { /* the far end of one subflow */
    struct mp_endpoint engine, peer;
    int ifindex;
    uint32_t iss, irs; /* the peer's initial number, the engine's */
    bool ts;           /* timestamps agreed */
    uint32_t ts_echo;  /* the engine's latest */
    uint16_t wnd;      /* window field of what the peer sends */
    uint8_t wscale;    /* the engine's shift, from its SYN */
    uint32_t nonce, nonce_engine;
    uint8_t id_engine;
};

struct got { /* one segment of the engine */
    mp_time at;
    struct mp_pkt k;
    struct mp_opts o;
    struct peer *p;
    uint32_t seq, ack, len;
    uint8_t flags;
    uint8_t *data;
};

struct lab {
    /* what the test may choose before lab_client, lab_server or lab_stack */
    bool plain;      /* the peer speaks no MPTCP */
    bool csum;       /* DSS checksums on both sides */
    bool no_ts, no_sack;
    uint32_t slice;  /* bytes the engine may put into one packet; 0: one segment */
    uint32_t mtu;
    int peer_wscale; /* shift the peer asks for */
    uint16_t wnd0;   /* the peer's first window; 0: 65535 */
    bool closed;     /* the program's listener is gone, and nobody has told */
    bool crowded;    /* the program does not accept, and its backlog is full */
    unsigned open_flags;
    void (*tune)(struct mp_settings *s);
    /* state */
    struct mp_settings set;
    struct mp_stack *st;
    struct mpc *c;
    mp_time now;
    unsigned events;
    int flows;       /* open now */
    uint16_t ports;
    bool blocked, refuse_flow, no_route;
    bool unowned;    /* what the peer sends comes as of no flow, as io/ has it from a socket of another stack's connections */
    int withheld;    /* routing lets nothing out on this interface */
    uint64_t seed;
    struct peer p[LAB_MAX_PEERS];
    int np;
    uint64_t key_engine, idsn_engine, idsn_peer;
    uint32_t token_engine, token_peer;
    uint64_t dack;   /* stream bytes (from the engine) that the peer's DATA_ACK covers; LAB's MAP and DACK use it */
    uint64_t read;   /* stream bytes the program has read */
    uint64_t written;
    struct got q[LAB_QUEUE];
    int qn, qi;
};
#define LAB __attribute__((unused)) /* a test program uses some */
#define P0 (&l.p[0])
#define P1 (&l.p[1])

LAB static uint8_t lab_byte(uint64_t off) { return (uint8_t)(off * 31 + (off >> 8) * 7 + 1); }

/* ---- addresses: subnet n holds the engine at 10.0.n.1 on interface n and the peer at 10.0.n.2 ---- */

LAB static struct mp_endpoint lab_ep(int subnet, int host, uint16_t port)
{
    return (struct mp_endpoint){ { 4, { 10, 0, (uint8_t)subnet, (uint8_t)host } }, port };
}

LAB static bool lab_at(const struct mp_addr *a, int subnet, int host)
{
    struct mp_endpoint e = lab_ep(subnet, host, 0);
    return mp_addr_eq(a, &e.ip);
}

LAB static struct mp_local lab_local(int subnet)
{
    struct mp_local m = { .ifindex = subnet, .ip = lab_ep(subnet, 1, 0).ip };
    snprintf(m.name, sizeof m.name, "if%d", subnet);
    return m;
}

/* The engine gets this address, or loses it. */
LAB static void lab_local_up(struct lab *l, int subnet)
{
    struct mp_local m = lab_local(subnet);
    mp_stack_local_add(l->st, &m, l->now);
}

LAB static void lab_local_down(struct lab *l, int subnet)
{
    struct mp_local m = lab_local(subnet);
    mp_stack_local_del(l->st, subnet, &m.ip, l->now);
}

/* ---- the world that core/ asks ---- */

LAB static void lab_random(void *arg, void *p, size_t n)
{
    struct lab *l = arg;
    for (size_t i = 0; i < n; i++) ((uint8_t *)p)[i] = (uint8_t)test_random(&l->seed);
}
LAB static void *lab_flow_open(void *arg, int ifindex, const struct mp_endpoint *a, const struct mp_endpoint *b, bool passive)
{
    struct lab *l = arg;
    (void)a; (void)b; (void)passive;
    int *flow = l->refuse_flow ? NULL : malloc(sizeof *flow);
    if (!flow) return NULL;
    l->flows++;
    *flow = ifindex;
    return flow;
}
LAB static void lab_flow_close(void *arg, void *flow)
{
    ((struct lab *)arg)->flows--;
    free(flow);
}
LAB static uint32_t lab_slice_max(void *arg, void *flow, uint32_t mss)
{
    struct lab *l = arg;
    (void)flow;
    return l->slice > mss ? l->slice : mss;
}
LAB static bool lab_writable(void *arg, void *flow) { (void)flow; return !((struct lab *)arg)->blocked; }
LAB static bool lab_route(void *arg, int ifindex, const struct mp_addr *a, const struct mp_addr *b, uint32_t mark)
{
    struct lab *l = arg;
    (void)a; (void)b; (void)mark;
    return !l->no_route && l->withheld != ifindex;
}
LAB static bool lab_withheld(void *arg, void *flow, uint32_t mark) { (void)mark; return flow && ((struct lab *)arg)->withheld == *(int *)flow; }
LAB static uint32_t lab_mtu(void *arg, int ifindex) { (void)ifindex; return ((struct lab *)arg)->mtu; }
LAB static uint16_t lab_port_get(void *arg, uint8_t family, bool fresh) { (void)family, (void)fresh; return (uint16_t)(40000 + ++((struct lab *)arg)->ports); }
LAB static void lab_port_put(void *arg, uint8_t family, uint16_t port) { (void)arg; (void)family; (void)port; }

/* ---- running ---- */

LAB static struct peer *lab_peer_of(struct lab *l, const struct mp_endpoint *engine, const struct mp_endpoint *peer)
{
    for (int i = l->np - 1; i >= 0; i--)
        if (mp_endpoint_eq(&l->p[i].engine, engine) && mp_endpoint_eq(&l->p[i].peer, peer)) return &l->p[i];
    return NULL;
}

LAB static struct peer *lab_peer_new(struct lab *l, const struct mp_endpoint *engine, const struct mp_endpoint *peer, int ifindex)
{
    if (l->np == LAB_MAX_PEERS) abort();
    struct peer *p = &l->p[l->np++];
    *p = (struct peer){ .engine = *engine, .peer = *peer, .ifindex = ifindex, .iss = (uint32_t)test_random(&l->seed),
                        .wnd = l->wnd0 ? l->wnd0 : 65535, .nonce = LAB_NONCE };
    return p;
}

LAB static void lab_capture(struct lab *l, const struct mp_pkt *k)
{
    if (l->qn == LAB_QUEUE) {
        test_fail(__FILE__, __LINE__, "the engine sends without end");
        abort();
    }
    struct got *g = &l->q[l->qn++];
    struct peer *p = lab_peer_of(l, &k->src, &k->dst);
    *g = (struct got){ .at = l->now, .k = *k, .len = k->len, .flags = k->flags };
    if (k->optlen % 4 || mp_opts_parse(&g->o, k->opt, k->optlen, k->flags) || g->o.bad)
        test_fail(__FILE__, __LINE__, "the engine sent malformed options");
    if ((k->flags & MP_SYN) && !(k->flags & MP_ACK) && !p) p = lab_peer_new(l, &k->src, &k->dst, k->ifindex);
    g->p = p;
    if (p && (k->flags & MP_SYN)) {
        p->irs = k->seq;
        p->wscale = g->o.has_wscale ? g->o.wscale : 0;
        p->nonce_engine = g->o.join.nonce;
        p->id_engine = g->o.join.addr_id;
    }
    if (p && g->o.has_ts) p->ts_echo = g->o.ts_val;
    g->seq = p ? k->seq - p->irs : k->seq;
    g->ack = p ? k->ack - p->iss : k->ack;
    g->data = malloc(k->len + 1);
    uint32_t n = 0;
    for (int i = 0; i < k->niov; n += (uint32_t)k->iov[i++].len) memcpy(g->data + n, k->iov[i].base, k->iov[i].len);
    if (n != k->len) test_fail(__FILE__, __LINE__, "payload pieces do not make up the length");
}

/* What the caller of a stack does after each call (core/stack.h). */
LAB static void lab_pump(struct lab *l)
{
    struct mp_pkt k;
    struct mpc *c;
    unsigned bits;
    while (mp_stack_poll(l->st, &k, l->now))
        if (!lab_withheld(l, k.flow, k.mark)) lab_capture(l, &k);
    while (mp_stack_event(l->st, &c, &bits)) {
        if (bits & MP_EV_ACCEPT) l->c = c;
        if (c == l->c) l->events |= bits;
    }
}

LAB static void lab_wait_until(struct lab *l, mp_time t)
{
    int turns = 0;
    lab_pump(l);
    for (;;) {
        mp_time d = mp_stack_deadline(l->st);
        if (d > t) break;
        if (d > l->now) l->now = d, turns = 0;
        if (++turns > 50) {
            test_fail(__FILE__, __LINE__, "a deadline stays in the past");
            break;
        }
        mp_stack_tick(l->st, l->now);
        lab_pump(l);
    }
    l->now = t;
}
LAB static void lab_wait(struct lab *l, mp_dur d) { lab_wait_until(l, l->now + d); }

#endif
