/* io/flow.c: flows by 4-tuple and interface, and the sockets that they hold. */
#include <stdlib.h>

#include "io/internal.h"

/* ---- the table ---- */

static uint32_t mix(uint32_t h, uint32_t v)
{
    h = (h ^ v) * 0x9e3779b1u;
    return h ^ h >> 15;
}

static uint32_t mix_addr(uint32_t h, const struct mp_addr *a)
{
    uint32_t w[4];

    memcpy(w, a->b, sizeof w);
    if (a->family == 4) return mix(h, w[0]);
    return mix(mix(mix(mix(h, w[0]), w[1]), w[2]), w[3]);
}

static uint32_t flow_hash(const struct io *io, int ifindex, const struct mp_endpoint *local, const struct mp_endpoint *remote)
{
    uint32_t h = mix(io->hash_seed, (uint32_t)ifindex);

    h = mix(h, (uint32_t)local->port << 16 | remote->port);
    return mix_addr(mix_addr(h, &local->ip), &remote->ip);
}

static struct io_flow **slot(const struct io *io, uint32_t hash) { return &io->flow[hash & (io->nflow_slots - 1)]; }

struct io_flow *io_flow_find(struct io *io, int ifindex, const struct mp_endpoint *local, const struct mp_endpoint *remote)
{
    struct io_flow *f = *slot(io, flow_hash(io, ifindex, local, remote));

    while (f && !(f->ifindex == ifindex && mp_endpoint_eq(&f->local, local) && mp_endpoint_eq(&f->remote, remote)))
        f = f->hash_next;
    return f;
}

static void flow_insert(struct io *io, struct io_flow *f)
{
    struct io_flow **at = slot(io, flow_hash(io, f->ifindex, &f->local, &f->remote));

    f->hash_next = *at;
    *at = f;
}

static void grow_table(struct io *io)
{
    uint32_t old_slots = io->nflow_slots;
    struct io_flow **old = io->flow, **wide = calloc((size_t)old_slots * 2, sizeof *wide);

    if (!wide) return; /* longer chains */
    io->flow = wide;
    io->nflow_slots = old_slots * 2;
    for (uint32_t i = 0; i < old_slots; i++)
        for (struct io_flow *f = old[i], *next; f; f = next) {
            next = f->hash_next;
            flow_insert(io, f);
        }
    free(old);
}

static void flow_remove(struct io *io, struct io_flow *f)
{
    struct io_flow **at = slot(io, flow_hash(io, f->ifindex, &f->local, &f->remote));

    while (*at != f) at = &(*at)->hash_next;
    *at = f->hash_next;
    io->nflows--;
}

/* ---- opening and closing ---- */

/* Leaves a receiving socket; its filter loses the port when it is next attached. */
static void leave_rx(const struct io_flow *f, struct io_sock **at)
{
    if (!*at) return;
    io_ports_put(&(*at)->ports, f->local.port, f->port_mask);
    io_sock_put(*at);
    *at = NULL;
}

static bool join_rx(const struct io_flow *f, struct io_sock **at, struct io_sock *s)
{
    if (!s) return false;
    *at = s;
    if (!io_ports_get(&s->ports, f->local.port, f->port_mask) || io_sock_filter(s) == 0) return true;
    leave_rx(f, at);
    return false;
}

static bool open_raw(struct io *io, struct io_flow *f)
{
    int err = 0;

    return join_rx(f, &f->raw, f->passive ? io_raw_listen(io, f->ifindex, f->local.ip.family)
                                          : io_raw_client(io, f->ifindex, &f->local.ip, &f->remote.ip, &err));
}

static void flow_free(struct io *io, struct io_flow *f)
{
    leave_rx(f, &f->raw);
    leave_rx(f, &f->hidden);
    io_sock_put(f->fast);
    rtnl_hop_put(io->rtnl, f->hop);
    free(f);
}

static struct io_flow *flow_new(struct io *io, int ifindex, const struct mp_endpoint *local, const struct mp_endpoint *remote,
                                bool passive)
{
    struct io_flow *f = calloc(1, sizeof *f);
    uint32_t h = flow_hash(io, ifindex, local, remote);

    if (!f) return NULL;
    f->ifindex = ifindex;
    f->local = *local;
    f->remote = *remote;
    f->passive = passive;
    f->port_mask = passive ? 0xffff : io_guard_mask(io->guards, local->port);
    f->ip_id = (uint16_t)(h >> 7);
    f->flowlabel = mix(h, 0x6d70) & 0xfffff;
    f->next_try = io_first_try(io, ifindex);
    f->last_rx = io_now();
    return f;
}

void *io_flow_open(void *arg, int ifindex, const struct mp_endpoint *local, const struct mp_endpoint *remote, bool passive)
{
    struct io *io = arg;
    struct io_flow *f;

    if (io_flow_find(io, ifindex, local, remote)) return NULL; /* the 4-tuple is taken */
    f = flow_new(io, ifindex, local, remote, passive);
    if (!f) return NULL;
    if (!open_raw(io, f)) {
        flow_free(io, f);
        return NULL;
    }
    /* What comes in here would be dropped after PREROUTING: it is received from the packet socket, once our SYN has
     * passed the host's OUTPUT. Never for SYNs from outside: those the host refuses. */
    if (!passive && io_rp_hides(io, ifindex, &local->ip, &remote->ip)) join_rx(f, &f->hidden, io_packet_rx(io, ifindex));
    if (++io->nflows > io->nflow_slots) grow_table(io);
    flow_insert(io, f);
    return f;
}

uint32_t *io_flow_word(void *flow) { return &((struct io_flow *)flow)->word; }

void io_flow_close(void *arg, void *flow)
{
    if (!flow) return;
    flow_remove(arg, flow);
    flow_free(arg, flow);
}
