/* io/io.c: flows: which socket carries a 4-tuple, when it sends by the fast path, what goes to the stack. */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "io/internal.h"

#define FAST_AFTER (4u << 20)          /* bytes sent before a packet socket pays: closing it takes as long, 16 ms */
#define FAST_AFTER_OPEN (256u << 10)   /* if there is one on this interface */
#define FAST_NOT_HERE (64u << 20)      /* bytes until a host with connection tracking is asked again */
#define SILENCE MP_MS(300)             /* without an answer a segment goes raw: the kernel looks for the neighbour */
#define KEEP_NEIGHBOUR MP_SEC(10)      /* as often anyhow */

/* ---- life ---- */

static void on_tidy(struct ev_loop *loop, ev_prepare *w, int events)
{
    struct io *io = w->data;

    (void)loop, (void)events;
    if (!io->tidy_due) return;
    io->tidy_due = false;
    for (struct io_sock *s = io->socks; s; s = s->next)
        if (s->filter_due && !s->dead) io_sock_filter(s);
    io_reap(io);
}

void io_set_tidy(struct io *io) { io->tidy_due = true; }

void io_kick(struct io *io)
{
    if (io->cfg.kick) io->cfg.kick(io->cfg.arg);
}

static uint8_t default_ttl(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), ttl = 64;
    socklen_t n = sizeof ttl;

    if (fd < 0) return 64;
    getsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, &n);
    close(fd);
    return (uint8_t)ttl;
}

/* Raw sockets need CAP_NET_RAW. A filter on a TCP socket, which guards and carriers need, takes CAP_NET_ADMIN on recent
 * kernels (seen on 6.18; older ones let everybody). */
int io_may(enum io_privilege what)
{
    bool raw = what == IO_MAY_RAW;
    int fd = socket(AF_INET, (raw ? SOCK_RAW : SOCK_STREAM) | SOCK_CLOEXEC, IPPROTO_TCP), err;

    if (fd < 0) return -errno;
    err = raw ? 0 : io_attach_drop_all(fd);
    close(fd);
    return err;
}

static int check_privilege(void)
{
    int err = io_may(IO_MAY_RAW);

    return -(err ? err : io_may(IO_MAY_FILTER));
}

static int io_init(struct io *io, const struct io_cfg *cfg)
{
    int err = cfg->look_only ? 0 : check_privilege();

    if (err) return err;
    io->cfg = *cfg;
    io->interfaces = cfg->interfaces ? strdup(cfg->interfaces) : NULL;
    io->backup = cfg->backup ? strdup(cfg->backup) : NULL;
    io->cfg.interfaces = io->interfaces;
    io->cfg.backup = io->backup;
    io->ttl4 = default_ttl();
    if (getrandom(&io->hash_seed, sizeof io->hash_seed, 0) < 0) io->hash_seed = (uint32_t)io_now();
    io->nflow_slots = 256;
    io->flow = calloc(io->nflow_slots, sizeof *io->flow);
    io->pool = io_pool_new();
    io->guards = io_guards_new();
    if (!io->flow || !io->pool || !io->guards) return ENOMEM;
    io->rtnl = rtnl_new(io, &err);
    return io->rtnl ? 0 : err;
}

struct io *io_new(struct ev_loop *loop, struct mp_stack **stack, const struct io_cfg *cfg, int *err)
{
    struct io *io = calloc(1, sizeof *io);

    *err = ENOMEM;
    if (!io) return NULL;
    io->loop = loop;
    io->stack = stack;
    ev_prepare_init(&io->tidy, on_tidy);
    io->tidy.data = io;
    ev_prepare_start(loop, &io->tidy);
    *err = io_init(io, cfg);
    if (!*err) return io;
    io_free(io);
    return NULL;
}

static void free_flows(struct io *io)
{
    for (uint32_t i = 0; io->flow && i < io->nflow_slots; i++)
        while (io->flow[i]) io_flow_close(io, io->flow[i]);
    free(io->flow);
}

void io_free(struct io *io)
{
    if (!io) return;
    free_flows(io);
    for (struct io_sock *s = io->socks; s; s = s->next) {
        s->refs = 0;
        io_sock_drop(s);
    }
    io_reap(io);
    ev_prepare_stop(io->loop, &io->tidy);
    rtnl_free(io->rtnl);
    io_guards_free(io->guards);
    io_pool_free(io->pool);
    free(io->listen);
    free(io->interfaces);
    free(io->backup);
    free(io);
}

/* ---- the table of flows ---- */

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

static uint64_t first_try(const struct io *io, int ifindex)
{
    if (io->cfg.mode == IO_RAW) return UINT64_MAX;
    if (io->cfg.mode == IO_FAST) return 1;
    return io_sock_find((struct io *)io, IO_PACKET_TX, ifindex, 0) ? FAST_AFTER_OPEN : FAST_AFTER;
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
    f->next_try = first_try(io, ifindex);
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

void io_flow_close(void *arg, void *flow)
{
    if (!flow) return;
    flow_remove(arg, flow);
    flow_free(arg, flow);
}

/* ---- the way to the fast path ---- */

/* Asks routing for the next hop; kept until routes change. */
static bool hop_known(struct io *io, struct io_flow *f)
{
    uint32_t gen = rtnl_generation(io->rtnl);

    if (!f->hop_tried || f->route_gen != gen) {
        struct rtnl_route rt;
        struct io_hop *old = f->hop;

        f->hop = NULL;
        f->hop_tried = true;
        f->route_gen = gen;
        if (!rtnl_route_cached(io->rtnl, &f->remote.ip, &f->local.ip, f->ifindex, &rt))
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

static bool is_listening(const struct io *io, uint8_t family, uint16_t port)
{
    for (int i = 0; i < io->nlisten; i++)
        if (io->listen[i].port == port && io->listen[i].families == (family == 4 ? 1 : 2)) return true;
    return false;
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
    if (s->kind == IO_RAW_LISTEN && is_listening(s->io, s->family, p->dst.port)) {
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

uint32_t io_mtu(void *arg, int ifindex)
{
    const struct rtnl_link *l = rtnl_link(((struct io *)arg)->rtnl, ifindex);

    return l ? l->mtu : 0;
}

/* ---- listeners ---- */

static uint8_t family_bit(uint8_t family) { return family == 4 ? 1 : 2; }

static bool wants_family(const struct io *io, uint8_t family)
{
    for (int i = 0; i < io->nlisten; i++)
        if (io->listen[i].families & family_bit(family)) return true;
    return false;
}

static bool has_address(const struct io *io, int ifindex, uint8_t family)
{
    const struct rtnl_addr *a;

    for (int i = 0; (a = rtnl_addr_at(io->rtnl, i)); i++)
        if (a->ifindex == ifindex && a->ip.family == family) return true;
    return false;
}

static int listen_on(struct io *io, int ifindex, uint8_t family)
{
    struct io_sock *s = io_sock_find(io, IO_RAW_LISTEN, ifindex, family);

    if (s && s->listening) return 0;
    s = io_raw_listen(io, ifindex, family);
    if (!s) return io->no_privilege ? -EPERM : 0;
    s->listening = true;
    for (int i = 0; i < io->nlisten; i++)
        if (io->listen[i].families & family_bit(family)) io_ports_get(&s->ports, io->listen[i].port, 0xffff);
    return io_sock_filter(s);
}

/* The program's listener takes only what comes over loopback: so every other interface is heard, path or not. */
static int listen_everywhere(struct io *io)
{
    const struct rtnl_link *l;
    int err = 0, e;

    for (int i = 0; (l = rtnl_link_at(io->rtnl, i)); i++) {
        if (l->flags & IFF_LOOPBACK || !(l->flags & IFF_UP)) continue;
        for (uint8_t family = 4; family <= 6; family += 2)
            if (wants_family(io, family) && has_address(io, l->ifindex, family) && (e = listen_on(io, l->ifindex, family)))
                err = e;
    }
    return err;
}

static void stop_listening(struct io *io, struct io_sock *s)
{
    for (int i = 0; i < io->nlisten; i++)
        if (io->listen[i].families & family_bit(s->family)) io_ports_put(&s->ports, io->listen[i].port, 0xffff);
    s->listening = false;
    io_sock_put(s);
}

void io_listen_refresh(struct io *io)
{
    if (io->nlisten) listen_everywhere(io);
}

static void change_port(struct io *io, uint8_t families, uint16_t port, bool add)
{
    for (struct io_sock *s = io->socks; s; s = s->next) {
        if (s->kind != IO_RAW_LISTEN || s->dead || !s->listening || !(families & family_bit(s->family))) continue;
        if (add && io_ports_get(&s->ports, port, 0xffff)) io_sock_filter(s);
        if (add) continue;
        io_ports_put(&s->ports, port, 0xffff);
        s->filter_due = true;
        io_set_tidy(io);
    }
}

int io_listen(struct io *io, uint8_t families, uint16_t port)
{
    struct io_listen_port *v = realloc(io->listen, (size_t)(io->nlisten + 2) * sizeof *v);

    if (!v) return -ENOMEM;
    io->listen = v;
    change_port(io, families, port, true); /* sockets that listen already */
    for (uint8_t bit = 1; bit <= 2; bit++)
        if (families & bit) io->listen[io->nlisten++] = (struct io_listen_port){ port, bit };
    return listen_everywhere(io);
}

/* One of those that listen on this port and family leaves. */
static void unlisten_one(struct io *io, uint8_t bit, uint16_t port)
{
    int i = 0;

    while (i < io->nlisten && !(io->listen[i].port == port && io->listen[i].families == bit)) i++;
    if (i == io->nlisten) return;
    io->listen[i] = io->listen[--io->nlisten];
    change_port(io, bit, port, false);
}

void io_unlisten(struct io *io, uint8_t families, uint16_t port)
{
    for (uint8_t bit = 1; bit <= 2; bit++)
        if (families & bit) unlisten_one(io, bit, port);
    for (struct io_sock *s = io->socks; s; s = s->next)
        if (s->kind == IO_RAW_LISTEN && s->listening && !s->dead && !wants_family(io, s->family)) stop_listening(io, s);
}

void io_link_changed(struct io *io, const struct rtnl_link *l)
{
    struct io_sock *s = io_sock_find(io, IO_PACKET_TX, l->ifindex, 0);

    if (s) memcpy(s->mac, l->mac, 6);
}

/* ---- an interface vanished: its sockets are good for nothing any more ---- */

void io_link_gone(struct io *io, int ifindex)
{
    for (struct io_sock *s = io->socks; s; s = s->next) {
        if (s->ifindex != ifindex || s->dead) continue;
        if (s->kind == IO_RAW_LISTEN && s->listening) stop_listening(io, s);
        if (s->kind == IO_PACKET_TX || s->kind == IO_PACKET_RX) io_sock_drop(s); /* freed when the last flow has left it */
    }
}
