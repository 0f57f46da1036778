/* io/traffic.c: segments in and out: which socket speaks for a flow, and when it sends by the fast path. */
#include <errno.h>

#include "io/internal.h"

#define FAST_AFTER (4u << 20)          /* bytes sent before a packet socket pays: closing it takes as long, 16 ms */
#define FAST_AFTER_OPEN (256u << 10)   /* if there is one on this interface */
#define FAST_NOT_HERE (64u << 20)      /* bytes until a host with connection tracking is asked again */
#define SILENCE MP_MS(300)             /* without an answer a segment goes raw: the kernel looks for the neighbour */
#define KEEP_NEIGHBOUR MP_SEC(10)      /* as often anyhow */

/* ---- the way to the fast path ---- */

uint64_t io_first_try(const struct io *io, int ifindex)
{
    if (io->cfg.mode == IO_RAW) return UINT64_MAX;
    if (io->cfg.mode == IO_FAST) return 1;
    return io_sock_find((struct io *)io, IO_PACKET_TX, ifindex, 0) ? FAST_AFTER_OPEN : FAST_AFTER;
}

/* Asks routing for the next hop; kept until routes change. */
static bool hop_known(struct io *io, struct io_flow *f)
{
    uint32_t gen = rtnl_generation(io->rtnl);

    if (!f->hop_tried || f->route_gen != gen || f->hop_mark != f->mark) {
        struct rtnl_ask q = { &f->remote.ip, &f->local.ip, f->ifindex, f->mark };
        struct rtnl_route rt;
        struct io_hop *old = f->hop;

        f->hop = NULL;
        f->hop_tried = true;
        f->route_gen = gen;
        f->hop_mark = f->mark;
        if (!rtnl_route_cached(io->rtnl, &q, &rt))
            f->hop = rtnl_hop_get(io->rtnl, f->ifindex, rt.gateway.family ? &rt.gateway : &f->remote.ip);
        rtnl_hop_put(io->rtnl, old);
    }
    return f->hop && f->hop->known;
}

static void consider_fast(struct io *io, struct io_flow *f)
{
    if (io_conntrack_active(io) || io_xfrm_active(io)) {
        f->next_try = f->sent + FAST_NOT_HERE;
        return;
    }
    f->next_try = f->sent + FAST_AFTER; /* if it fails */
    if (!hop_known(io, f)) return;
    f->fast = io_packet_tx(io, f->ifindex);
    if (!f->fast) return;
    f->next_try = UINT64_MAX;
    f->tx_fast = true;
    f->last_raw_tx = io_now();
    io->n.to_fast++;
}

/* ---- in ---- */

static bool is_syn(const struct mp_pkt *p) { return (p->flags & (MP_SYN | MP_ACK)) == MP_SYN; }

/* Is this socket the one that speaks for the flow? A SYN only ever counts from the raw one. */
static bool is_current(const struct io_flow *f, const struct io_sock *s, const struct mp_pkt *p)
{
    return s == (f->hidden && !is_syn(p) ? f->hidden : f->raw);
}

static void to_stack(struct io_sock *s, struct mp_pkt *p, mp_time now)
{
    if (s->kind == IO_PACKET_RX) s->io->n.rx_fast++;
    else s->io->n.rx_raw++;
    if (*s->io->stack) mp_stack_input(*s->io->stack, p, now);
}

/* Without a flow only a SYN means something, or the answer to a SYN cookie. Other segments may belong to a connection that the kernel accepted before
 * the listener was ours: an answer would reset it. */
static void deliver_stray(struct io_sock *s, struct mp_pkt *p, mp_time now)
{
    if (s->kind == IO_RAW_LISTEN && io_is_listening(s->io, s->family, p->dst.port)) {
        if (is_syn(p)) {
            to_stack(s, p, now);
            return;
        }
        if (*s->io->stack) mp_stack_input_unowned(*s->io->stack, p, now);
    }
    s->io->n.rx_stray++;
}

bool io_deliver(struct io_sock *s, struct mp_pkt *p, mp_time now)
{
    struct io *io = s->io;
    struct io_flow *f = io_flow_find(io, p->ifindex, &p->dst, &p->src);

    if (!f) {
        deliver_stray(s, p, now);
        return !s->dead;
    }
    if (!is_current(f, s, p)) {
        io->n.rx_copy++;
        return true;
    }
    f->last_rx = now;
    f->opening = false;
    to_stack(s, p, now); /* may close f, and with it s */
    return !s->dead;
}

/* ---- out ---- */

/* The neighbour's entry grows old in the kernel while only we send: now and then, and when nobody answers, a segment
 * takes the raw path, and the kernel resolves the neighbour anew for it. */
static bool probe_due(const struct io_flow *f, mp_time now)
{
    mp_dur since = now - f->last_raw_tx;

    return since > KEEP_NEIGHBOUR || (now > f->last_rx + SILENCE && since > SILENCE);
}

static bool goes_fast(struct io *io, struct io_flow *f, const struct mp_pkt *p)
{
    mp_time now;

    if (!f->tx_fast || f->fast->dead || p->flags & MP_SYN || !hop_known(io, f)) return false;
    now = io_now();
    if (!probe_due(f, now)) return true;
    f->last_raw_tx = now;
    io->n.tx_probe++;
    return false;
}

/* EPERM on a SYN: a firewall's word about this path. On anything else it is an error like a lost packet. */
static void output_failed(struct io *io, struct io_flow *f, const struct mp_pkt *p, int err)
{
    uint32_t mtu = err == EMSGSIZE ? io_mtu(io, f->ifindex) : 0;

    io->n.tx_drop++;
    if ((err == EPERM || err == EACCES) && !(p->flags & MP_SYN)) return;
    if (err == EMSGSIZE && p->len + 60u <= mtu) return; /* not this packet: an ICMP error's echo */
    if (*io->stack) mp_stack_net_error(*io->stack, f, err == EACCES ? EPERM : err, 0, false, mtu, io_now());
}

/* A host on our own link that does not answer ARP or neighbour discovery: the kernel tells its own sockets by an ICMP
 * error to itself, over lo, where a socket bound to the interface does not hear it. Events about neighbours tell as
 * much. Few connections need them: they are asked for when a SYN is repeated, and the kernel takes 3 s to give up. */
static void syn_goes_out(struct io *io, struct io_flow *f)
{
    if (f->syn_sent && !f->passive) {
        f->opening = true;
        hop_known(io, f);
    }
    f->syn_sent = true;
}

static struct io_flow *opening_in_vain(const struct io *io)
{
    for (uint32_t i = 0; i < io->nflow_slots; i++)
        for (struct io_flow *f = io->flow[i]; f; f = f->hash_next)
            if (f->opening && f->hop && f->hop->failed) return f;
    return NULL;
}

/* RFC 1122 4.2.3.9: a soft error, but one that ends an attempt to open, as in the kernel. */
void io_hops_failed(struct io *io)
{
    struct io_flow *f;

    while ((f = opening_in_vain(io))) { /* anew each time: the stack may close flows meanwhile */
        f->opening = false;
        if (*io->stack) mp_stack_net_error(*io->stack, f, EHOSTUNREACH, 0, false, 0, io_now());
    }
    for (struct io_hop *h = io->hops; h; h = h->next) h->failed = false;
}

void io_output(struct io *io, const struct mp_pkt *p)
{
    struct io_flow *f = p->flow;
    int err;

    if (!f) {
        io->n.tx_drop++;
        return;
    }
    if (io_withheld(io, f, p->mark)) {
        io->n.tx_withheld++;
        return;
    }
    f->sent += p->len;
    if ((p->flags & (MP_SYN | MP_ACK)) == MP_SYN) syn_goes_out(io, f);
    if (f->sent >= f->next_try && !(p->flags & MP_SYN)) consider_fast(io, f);
    err = goes_fast(io, f, p) ? io_packet_output(io, f, p) : io_raw_output(io, f, p);
    if (err) output_failed(io, f, p, -err);
}

uint32_t io_slice_max(void *arg, void *flow, uint32_t mss)
{
    struct io_flow *f = flow;

    return f->tx_fast && !f->fast->dead && hop_known(arg, f) ? MP_SLICE_MAX : mss;
}

bool io_writable(void *arg, void *flow)
{
    struct io_flow *f = flow;

    (void)arg;
    return !io_sock_blocked(f->tx_fast && !f->fast->dead ? f->fast : f->raw);
}
