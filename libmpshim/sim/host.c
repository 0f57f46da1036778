/* sim/host.c: see host.h. */
#include "sim/host.h"

#include "sim/watch.h"

#include <errno.h>
#include <stdlib.h>

/* More than any window allows in one burst: a poll that goes on beyond this sends the same thing for ever. */
#define POLL_LIMIT 100000

static struct sim_host *host_of(void *arg) { return arg; }

int sim_iface_of(const struct sim_host *h, int ifindex)
{
    for (int i = 0; i < h->nifaces; i++)
        if (h->iface[i].ifindex == ifindex) return i;
    return -1;
}

static bool iface_has(const struct sim_iface *f, const struct mp_addr *ip)
{
    for (int i = 0; i < f->nip; i++)
        if (mp_addr_eq(&f->ip[i], ip)) return true;
    return false;
}

static struct sim_node *route_of(const struct sim_host *h, int ifindex, const struct mp_addr *dst)
{
    for (int i = 0; i < h->nroutes; i++) {
        const struct sim_route *r = &h->route[i];
        if (r->ifindex == ifindex && (!r->dst.family || mp_addr_eq(&r->dst, dst))) return r->via;
    }
    return NULL;
}

static const struct sim_link *first_link(const struct sim_node *n)
{
    while (n && !sim_node_is_link(n)) n = n->out;
    return (const struct sim_link *)n;
}

/* ---- struct mp_stack_ops ---- */

static void op_random(void *arg, void *p, size_t n) { sim_rng_fill(&host_of(arg)->rng, p, n); }

static void *op_flow_open(void *arg, int ifindex, const struct mp_endpoint *local, const struct mp_endpoint *remote,
                          bool passive)
{
    struct sim_host *h = host_of(arg);
    (void)passive;
    int i = sim_iface_of(h, ifindex);
    if (i < 0 || !iface_has(&h->iface[i], &local->ip)) {
        sim_fail(h->node.sim, "%s: flow_open on interface %d with an address that it does not have", h->node.name, ifindex);
        return NULL;
    }
    if (h->iface[i].refuse) return NULL;
    for (struct sim_flow *f = h->flows; f; f = f->next)
        if (f->open && f->ifindex == ifindex && mp_endpoint_eq(&f->local, local) && mp_endpoint_eq(&f->remote, remote))
            sim_fail(h->node.sim, "%s: flow_open of a 4-tuple that is open", h->node.name);
    struct sim_flow *f = calloc(1, sizeof *f);
    if (!f) abort();
    /* By number, not by age: who is told first that a queue has room must not depend on when a flow was opened here. */
    struct sim_flow **at = &h->flows;
    while (*at && ((*at)->local.port < local->port || ((*at)->local.port == local->port && (*at)->remote.port < remote->port))) at = &(*at)->next;
    *f = (struct sim_flow){h, ifindex, *local, *remote, true, false, *at};
    *at = f;
    h->flows_open++;
    return f;
}

static void op_flow_close(void *arg, void *flow)
{
    struct sim_host *h = host_of(arg);
    struct sim_flow *f = flow;
    if (!f || !f->open) {
        sim_fail(h->node.sim, "%s: flow_close of a flow that is not open", h->node.name);
        return;
    }
    f->open = false;
    h->flows_open--;
}

static uint32_t op_slice_max(void *arg, void *flow, uint32_t mss)
{
    struct sim_host *h = host_of(arg);
    (void)flow;
    return mp_max(mss, h->slice_max);
}

static bool op_writable(void *arg, void *flow)
{
    struct sim_host *h = host_of(arg);
    struct sim_flow *f = flow;
    if (!h->local_queue_bytes || !f) return true;
    const struct sim_link *l = first_link(route_of(h, f->ifindex, &f->remote.ip));
    f->blocked = l && sim_link_backlog(l) > h->local_queue_bytes;
    if (f->blocked) h->wake = mp_min(h->wake, sim_link_backlog_at(l, h->local_queue_bytes));
    return !f->blocked;
}

static bool op_route(void *arg, int ifindex, const struct mp_addr *local, const struct mp_addr *remote, uint32_t mark)
{
    struct sim_host *h = host_of(arg);
    int i = sim_iface_of(h, ifindex);
    (void)mark;
    return i >= 0 && h->iface[i].up && local->family == remote->family && iface_has(&h->iface[i], local) &&
           route_of(h, ifindex, remote);
}

static uint32_t op_mtu(void *arg, int ifindex)
{
    struct sim_host *h = host_of(arg);
    int i = sim_iface_of(h, ifindex);
    return i < 0 ? 0 : h->iface[i].mtu;
}

static uint16_t op_port_get(void *arg, uint8_t family, bool fresh)
{
    (void)fresh;
    struct sim_host *h = host_of(arg);
    (void)family;
    h->ports_held++;
    if (++h->next_port < 32768) h->next_port = 32768;
    return h->next_port;
}

static void op_port_hold(void *arg, uint8_t family, uint16_t port)
{
    (void)family, (void)port;
    host_of(arg)->ports_held++;
}

static void op_port_put(void *arg, uint8_t family, uint16_t port)
{
    struct sim_host *h = host_of(arg);
    (void)family, (void)port;
    if (--h->ports_held < 0) sim_fail(h->node.sim, "%s: port_put without port_get", h->node.name);
}

static void op_trace(void *arg, int event, const struct mpc *c, const char *text)
{
    struct sim_host *h = host_of(arg);
    (void)c;
    sim_trace_num(h->node.sim, &h->node, text ? text : "event", (uint64_t)event, 0);
}

static const struct mp_stack_ops ops = {
    .random = op_random,
    .flow_open = op_flow_open,
    .flow_close = op_flow_close,
    .slice_max = op_slice_max,
    .writable = op_writable,
    .route = op_route,
    .mtu = op_mtu,
    .port_get = op_port_get,
    .port_put = op_port_put,
    .port_hold = op_port_hold,
    .trace = op_trace,
};

/* ---- packets out ---- */

static const char *what_is_wrong(const struct sim_host *h, const struct mp_pkt *p)
{
    const struct sim_flow *f = p->flow;
    int i = sim_iface_of(h, p->ifindex);
    uint64_t n = 0;
    for (int k = 0; k < p->niov; k++) n += p->iov[k].len;
    if (n != p->len) return "length is not that of its pieces";
    if (p->niov > MP_PKT_MAX_IOV || p->len > MP_SLICE_MAX) return "too many pieces or bytes";
    if (p->optlen > 40 || p->optlen % 4) return "option length";
    if (i < 0 || !iface_has(&h->iface[i], &p->src.ip)) return "source address is not this interface's";
    /* A reset for a segment of no connection has no flow. */
    if (!f) return p->flags & MP_RST ? NULL : "no flow";
    if (!f->open) return "flow is closed";
    if (f->ifindex != p->ifindex || !mp_endpoint_eq(&f->local, &p->src) || !mp_endpoint_eq(&f->remote, &p->dst))
        return "flow is another one's";
    uint32_t seg = p->gso_size ? (uint32_t)mp_min(p->gso_size, p->len) : p->len;
    if (sim_pkt_ip_len(p) - p->len + seg > h->iface[i].mtu) return "larger than the interface's MTU";
    if (p->gso_size && p->len > p->gso_size && p->flags & MP_SYN) return "SYN as several segments";
    return NULL;
}

/* One wire segment of a packet: bytes [at, at + n) of its payload. */
static void send_segment(struct sim_host *h, struct sim_node *via, const struct mp_pkt *p, uint32_t at, uint32_t n)
{
    struct mp_pkt w = *p;
    w.seq += at;
    w.gso_size = 0;
    /* As the kernel's tcp_gso_segment and network cards do it: the last one carries FIN and PSH. */
    if (at + n < p->len) w.flags &= (uint8_t) ~(MP_FIN | MP_PSH);
    if (at) w.flags &= (uint8_t)~MP_CWR;
    struct sim_pkt *k = sim_pkt_new(h->node.sim, &w, NULL, n);
    uint8_t *to = sim_pkt_own_payload(h->node.sim, k);
    for (int i = 0; i < p->niov && n; i++) {
        if (at >= p->iov[i].len) {
            at -= (uint32_t)p->iov[i].len;
            continue;
        }
        uint32_t part = (uint32_t)mp_min(n, p->iov[i].len - at);
        memcpy(to, (const uint8_t *)p->iov[i].base + at, part);
        to += part;
        n -= part;
        at = 0;
    }
    h->sent++;
    sim_send(via, k);
}

static void output(struct sim_host *h, const struct mp_pkt *p)
{
    struct sim *s = h->node.sim;
    const char *wrong = what_is_wrong(h, p);
    if (wrong) {
        char text[160];
        sim_pkt_text(p, text, sizeof text);
        sim_fail(s, "%s sends a bad packet: %s: %s", h->node.name, wrong, text);
        return;
    }
    sim_watch_packet(h->watch, h, p);
    struct sim_node *via = route_of(h, p->ifindex, &p->dst.ip);
    if (!via || !h->iface[sim_iface_of(h, p->ifindex)].up) return;
    uint32_t step = p->gso_size && p->len > p->gso_size ? p->gso_size : p->len;
    uint32_t at = 0;
    do {
        send_segment(h, via, p, at, (uint32_t)mp_min(step, p->len - at));
        at += step;
    } while (at < p->len);
}

/* ---- the node ---- */

/* Who is told first takes the room: in turn, by port. */
static void unblock(struct sim_host *h)
{
    uint16_t after = h->told_first;
    bool told = false;
    for (int round = 0; round < 2; round++)
        for (struct sim_flow *f = h->flows; f; f = f->next) {
            if (!f->open || !f->blocked || (f->local.port > after) != (round == 0)) continue;
            if (!op_writable(h, f)) continue;
            mp_stack_writable(h->stack, f);
            if (!told) h->told_first = f->local.port;
            told = true;
        }
}

static void pump(struct sim_host *h)
{
    struct sim *s = h->node.sim;
    h->wake = MP_NEVER;
    unblock(h);
    bool again = true;
    for (unsigned n = 0; again && !sim_failed(s);) {
        struct mp_pkt p;
        struct mpc *c;
        unsigned bits;
        while (memset(&p, 0, sizeof p), mp_stack_poll(h->stack, &p, s->now)) {
            output(h, &p);
            if (++n > POLL_LIMIT) sim_fail(s, "%s: mp_stack_poll has no end", h->node.name);
            if (sim_failed(s)) return;
        }
        again = false;
        while (mp_stack_event(h->stack, &c, &bits)) {
            if (h->on_event) h->on_event(h, c, bits);
            again = true;
            if (++n > POLL_LIMIT) sim_fail(s, "%s: mp_stack_event has no end", h->node.name);
            if (sim_failed(s)) return;
        }
    }
}

void sim_host_kick(struct sim_host *h) { h->wake = mp_min(h->wake, h->node.sim->now); }

static void host_forward(struct sim_node *n, struct sim_pkt *p)
{
    struct sim_host *h = (struct sim_host *)n;
    struct sim *s = n->sim;
    int i = 0;
    while (i < h->nifaces && !iface_has(&h->iface[i], &p->h.dst.ip)) i++;
    if (!h->stack || i == h->nifaces || !h->iface[i].up || p->spoilt) { /* io/ and cards drop what fails its checksum */
        sim_trace_pkt(s, n, "ignored", &p->h);
        sim_pkt_free(s, p);
        return;
    }
    h->received++;
    sim_trace_pkt(s, n, "<", &p->h);
    struct mp_pkt in = p->h; /* the stack may write to it; the payload stays counted by p for the call */
    in.ifindex = h->iface[i].ifindex;
    mp_stack_input(h->stack, &in, s->now);
    sim_pkt_free(s, p);
    h->wake = mp_min(h->wake, s->now + h->batch);
}

static mp_time host_next_run_at(const struct sim_node *n)
{
    const struct sim_host *h = (const struct sim_host *)n;
    if (!h->stack) return MP_NEVER;
    mp_time t = mp_min(h->wake, mp_stack_deadline(h->stack));
    if (h->app_next) t = mp_min(t, h->app_next((struct sim_host *)h));
    return mp_max(t, n->sim->now);
}

static void host_run(struct sim_node *n)
{
    struct sim_host *h = (struct sim_host *)n;
    if (mp_stack_deadline(h->stack) <= n->sim->now) mp_stack_tick(h->stack, n->sim->now);
    if (h->app_run && h->app_next(h) <= n->sim->now) h->app_run(h);
    pump(h);
}

static void host_free(struct sim_node *n)
{
    struct sim_host *h = (struct sim_host *)n;
    if (h->stack) mp_stack_free(h->stack);
    while (h->flows) {
        struct sim_flow *f = h->flows;
        h->flows = f->next;
        free(f);
    }
    sim_watch_free(h->watch);
    free(h);
}

static const struct sim_node_ops host_ops = {host_forward, host_next_run_at, host_run, host_free};

struct sim_host *sim_host_new(struct sim *s, const char *name)
{
    struct sim_host *h = calloc(1, sizeof *h);
    if (!h) abort();
    sim_node_add(s, &h->node, &host_ops, name);
    h->rng = sim_rng_new(s->seed, 0x40570000u + (uint64_t)h->node.id);
    h->wake = MP_NEVER;
    h->watch = sim_watch_new();
    h->next_port = (uint16_t)sim_rng_range(&h->rng, 32768, 60000);
    return h;
}

int sim_host_iface(struct sim_host *h, const char *name, uint32_t mtu)
{
    int i = h->nifaces++;
    if (i >= SIM_MAX_IFACE) abort();
    h->iface[i] = (struct sim_iface){.ifindex = i + 2, .mtu = mtu, .up = true}; /* 1 would be lo */
    snprintf(h->iface[i].name, sizeof h->iface[i].name, "%s", name);
    return i;
}

void sim_host_ip(struct sim_host *h, int iface, const char *ip)
{
    struct sim_iface *f = &h->iface[iface];
    if (f->nip >= SIM_MAX_IP) abort();
    f->ip[f->nip++] = sim_addr(ip);
}

void sim_host_route(struct sim_host *h, int iface, const char *dst, struct sim_node *via)
{
    if (h->nroutes >= SIM_MAX_ROUTE) abort();
    struct mp_addr a = dst ? sim_addr(dst) : (struct mp_addr){0};
    h->route[h->nroutes++] = (struct sim_route){h->iface[iface].ifindex, a, via};
}

static void tell_addresses(struct sim_host *h, const struct sim_iface *f, bool up)
{
    for (int i = 0; i < f->nip; i++) {
        struct mp_local l = {.ifindex = f->ifindex, .ip = f->ip[i], .backup = f->backup, .announce = f->announce};
        snprintf(l.name, sizeof l.name, "%s", f->name);
        if (up) mp_stack_local_add(h->stack, &l, h->node.sim->now);
        else mp_stack_local_del(h->stack, f->ifindex, &f->ip[i], h->node.sim->now);
    }
}

void sim_host_start(struct sim_host *h, const char *const *settings)
{
    struct mp_settings set;
    mp_settings_default(&set);
    for (; settings && *settings; settings++) {
        char name[64];
        const char *eq = strchr(*settings, '='), *why = "";
        if (!eq) abort();
        snprintf(name, sizeof name, "%.*s", (int)(eq - *settings), *settings);
        int rc = mp_settings_set(&set, name, eq + 1, &why);
        if (rc < 0) sim_fail(h->node.sim, "setting %s: %s", *settings, rc == -ENOENT ? "unknown" : why);
    }
    struct sim_rng rng = h->rng;
    h->rng = sim_rng_new(h->node.sim->seed, 0xb0070000u + (uint64_t)h->node.id); /* its secrets: a stack made anew has the same */
    h->stack = mp_stack_new(&ops, h, &set);
    h->rng = rng;
    if (!h->stack) abort();
    for (int i = 0; i < h->nifaces; i++)
        if (h->iface[i].up) tell_addresses(h, &h->iface[i], true);
    sim_host_kick(h);
}

void sim_host_iface_up(struct sim_host *h, int iface, bool up)
{
    struct sim_iface *f = &h->iface[iface];
    if (f->up == up) return;
    f->up = up;
    sim_trace_num(h->node.sim, &h->node, up ? "link-up" : "link-down", (uint64_t)f->ifindex, 0);
    if (!h->stack) return;
    tell_addresses(h, f, up);
    sim_host_kick(h);
}
