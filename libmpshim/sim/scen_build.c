/* sim/scen_build.c: the network of a scenario: hosts, links, boxes, routes, and the connections to be made over it. */
#include <errno.h>
#include <stdlib.h>

#include "sim/scen_int.h"

static const char *ip_text(char buf[48], bool server, int iface, bool v6)
{
    if (v6) snprintf(buf, 48, "fd00:%d::%d", iface + 1 + 100 * server, server ? 1 : 2);
    else snprintf(buf, 48, "10.%d.0.%d", iface + 1 + 100 * server, server ? 1 : 2);
    return buf;
}

static uint8_t families_of(const struct sim_iface_cfg *c) { return c->families ? c->families : 1; }

static void build_ifaces(struct run *r, bool server)
{
    struct sim_host *h = r->host[server];
    const struct sim_iface_cfg *cfg = server ? r->sc->server_iface : r->sc->client_iface;
    int n = 0;
    for (int i = 0; i < r->sc->npaths; i++) {
        int at = server ? r->sc->path[i].server_iface : r->sc->path[i].client_iface;
        if (at >= n) n = at + 1;
    }
    for (int i = 0; i < n; i++) {
        char text[48];
        snprintf(text, sizeof text, "eth%d", i);
        int at = sim_host_iface(h, text, cfg[i].mtu ? cfg[i].mtu : 1500);
        if (families_of(&cfg[i]) & 1) sim_host_ip(h, at, ip_text(text, server, i, false));
        if (families_of(&cfg[i]) & 2) sim_host_ip(h, at, ip_text(text, server, i, true));
        h->iface[at].backup = cfg[i].backup;
        h->iface[at].announce = server && !cfg[i].quiet;
        h->iface[at].up = !cfg[i].starts_down;
    }
}

/* Routes from one host over a path to all addresses of the other end's interface. */
static void build_routes(struct run *r, int i, bool server, struct sim_node *via)
{
    const struct sim_path_cfg *p = &r->sc->path[i];
    int mine = server ? p->server_iface : p->client_iface, theirs = server ? p->client_iface : p->server_iface;
    const struct sim_host *peer = r->host[!server];
    char text[48];
    for (int k = 0; k < peer->iface[theirs].nip; k++)
        sim_host_route(r->host[server], mine, sim_addr_text(&peer->iface[theirs].ip[k], text), via);
    for (int k = 0; server && k < p->nbox; k++)
        if (sim_box_is_nat(p->box[k].what)) sim_host_route(r->host[1], mine, sim_addr_text(&p->box[k].nat_ip, text), via);
}

/* ICMP to the host that sent the packet, as io/ passes it on: EMSGSIZE is "fragmentation needed". */
static void icmp(struct sim_host *host, const struct mp_pkt *h, int err, uint32_t mtu)
{
    for (struct sim_flow *f = host->flows; f; f = f->next)
        if (f->open && mp_endpoint_eq(&f->local, &h->src) && mp_endpoint_eq(&f->remote, &h->dst)) {
            mp_stack_net_error(host->stack, f, err, h->seq, true, mtu, host->node.sim->now);
            if (err == EHOSTUNREACH) mp_stack_no_way(host->stack, f, h->seq, host->node.sim->now);
            sim_host_kick(host);
            return;
        }
}

static void link_icmp(void *arg, const struct mp_pkt *h, int err, uint32_t mtu) { icmp(arg, h, err, mtu); }

static void box_icmp(struct sim_box *b, int dir, const struct mp_pkt *h, int err, uint32_t mtu)
{
    struct run *r = b->icmp_arg;
    icmp(r->host[dir], h, err, mtu);
}

static void build_path(struct run *r, int i)
{
    struct sim *s = &r->sim;
    const struct sim_path_cfg *p = &r->sc->path[i];
    struct sim_node *to_server = r->bottleneck[0] ? &r->bottleneck[0]->node : &r->host[1]->node;
    char name[24];
    snprintf(name, sizeof name, "link%d-up", i);
    struct sim_link *up = sim_link_new(s, name, &p->up, to_server);
    snprintf(name, sizeof name, "link%d-down", i);
    struct sim_link *down = sim_link_new(s, name, &p->down, &r->host[0]->node);
    up->icmp = down->icmp = link_icmp;
    up->icmp_arg = r->host[0];
    down->icmp_arg = r->host[1];
    r->link[i][0] = up;
    r->link[i][1] = down;
    /* Up: link, then the boxes. Down: the boxes backwards, then the link. */
    struct sim_node **up_end = &up->node.out, *down_begin = &down->node;
    for (int k = 0; k < p->nbox; k++) {
        snprintf(name, sizeof name, "%s%d", sim_box_name(p->box[k].what), i);
        struct sim_box *b = sim_box_new(s, name, &p->box[k], *up_end, down_begin);
        if (b->cfg.from) b->cfg.from += SIM_START;
        b->icmp = box_icmp;
        b->icmp_arg = r;
        *up_end = &b->half[0]->node;
        up_end = &b->half[0]->node.out;
        *up_end = to_server;
        down_begin = &b->half[1]->node;
        r->box[i][k] = b;
    }
    build_routes(r, i, false, &up->node);
    build_routes(r, i, true, down_begin);
}

/* The server's packets pass the shared link first and are then sorted by destination, as a router does. */
struct router {
    struct sim_node node;
    struct run *r;
};

static void router_forward(struct sim_node *n, struct sim_pkt *p)
{
    struct run *r = ((struct router *)n)->r;
    for (int i = 0; i < r->sc->npaths; i++) {
        const struct sim_iface *f = &r->host[0]->iface[r->sc->path[i].client_iface];
        for (int k = 0; k < f->nip; k++)
            if (mp_addr_eq(&f->ip[k], &p->h.dst.ip)) {
                sim_send(&r->link[i][1]->node, p);
                return;
            }
    }
    sim_pkt_free(n->sim, p);
}
static mp_time router_next(const struct sim_node *n) { return (void)n, MP_NEVER; }
static void router_run(struct sim_node *n) { (void)n; }
static void router_free(struct sim_node *n) { free(n); }
static const struct sim_node_ops router_ops = {router_forward, router_next, router_run, router_free};

static void build_bottleneck(struct run *r)
{
    struct router *t = calloc(1, sizeof *t);
    if (!t) abort();
    t->r = r;
    sim_node_add(&r->sim, &t->node, &router_ops, "router");
    r->bottleneck[0] = sim_link_new(&r->sim, "shared-up", &r->sc->bottleneck, &r->host[1]->node);
    r->bottleneck[1] = sim_link_new(&r->sim, "shared-down", &r->sc->bottleneck, &t->node);
}

static void route_through_bottleneck(struct run *r)
{
    for (int i = 0; i < r->host[1]->nroutes; i++) r->host[1]->route[i].via = &r->bottleneck[1]->node;
}

static void build_conns(struct run *r)
{
    const struct sim_conn_cfg *c = &r->sc->conn;
    const struct sim_path_cfg *p = &r->sc->path[c->path];
    int n = r->sc->nconn ? r->sc->nconn : 1;
    char local[48], remote[48];
    ip_text(local, false, p->client_iface, c->v6);
    ip_text(remote, true, p->server_iface, c->v6);
    for (int i = 0; i < n; i++) {
        uint64_t key = sim_mix(r->sim.seed ^ (uint64_t)i << 32);
        uint16_t port = (uint16_t)(5000 + i);
        struct sim_conn *s = sim_app_server(&r->app[1], &c->server, key, port);
        struct sim_conn *k = sim_app_client(&r->app[0], &c->client, key,
                                            SIM_START + c->start + (mp_dur)i * r->sc->conn_gap, p->client_iface, local,
                                            remote, port);
        s->expect_rx = c->client.bytes;
        k->expect_rx = c->server.bytes;
    }
}

static void build_host(struct run *r, bool server)
{
    struct sim_host *h = r->host[server] = sim_host_new(&r->sim, server ? "server" : "client");
    h->slice_max = r->sc->slice_max;
    h->local_queue_bytes = r->sc->local_queue_bytes;
    h->batch = r->sc->batch;
    sim_app_init(&r->app[server], h);
    r->app[server].may_change = r->sc->may_change || r->sc->must_change;
    r->app[server].may_insert = r->sc->may_insert;
    r->app[server].may_remove = r->sc->may_remove;
    build_ifaces(r, server);
}

void sim_scen_build(struct run *r)
{
    build_host(r, false);
    build_host(r, true);
    if (r->sc->has_bottleneck) build_bottleneck(r);
    for (int i = 0; i < r->sc->npaths; i++) build_path(r, i);
    if (r->sc->has_bottleneck) route_through_bottleneck(r);
    sim_host_start(r->host[0], r->sc->set_client);
    sim_host_start(r->host[1], r->sc->set_server);
    build_conns(r);
}
