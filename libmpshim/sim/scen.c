/* sim/scen.c: see scen.h. */
#include "core/stack_int.h"
#include "sim/scen.h"

#include <errno.h>
#include <stdlib.h>

#include "sim/watch.h"

/* After the last connection is done: TIME_WAIT, delayed ACKs and orphans have this long to go away. One whose application
 * left may still have data for a peer that is gone. */
#define AFTERMATH SIM_GIVE_UP

struct run {
    int saved;
    const struct sim_scen *sc;
    struct sim sim;
    struct sim_host *host[2]; /* client, server */
    struct sim_app app[2];
    struct sim_link *link[SIM_SCEN_PATHS][2];
    struct sim_box *box[SIM_SCEN_PATHS][SIM_SCEN_BOXES];
    struct sim_link *bottleneck[2];
    int next_change;
    uint64_t back_bytes;                          /* what back_path had delivered at back_at */
    uint64_t progress;                            /* of all applications, when last looked at */
    mp_time progress_at;                          /* it changed last */
    bool box_acted;                               /* box[0][0] has touched a packet */
    uint64_t before_bytes[SIM_SCEN_PATHS][2];     /* what the links had delivered then */
};

static const char *ip_text(char buf[48], bool server, int iface, bool v6)
{
    if (v6) snprintf(buf, 48, "fd00:%d::%d", iface + 1 + 100 * server, server ? 1 : 2);
    else snprintf(buf, 48, "10.%d.0.%d", iface + 1 + 100 * server, server ? 1 : 2);
    return buf;
}

static uint8_t families_of(const struct sim_iface_cfg *c) { return c->families ? c->families : 1; }

/* ---- building ---- */

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

static void build(struct run *r)
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

/* ---- running ---- */

static void apply(struct run *r, const struct sim_change *c)
{
    struct sim_link **l = r->link[c->path];
    const struct sim_path_cfg *p = &r->sc->path[c->path];
    sim_trace_num(&r->sim, &l[0]->node, "change", (uint64_t)c->what, c->value);
    switch (c->what) {
    case SIM_CH_BLACKHOLE: l[0]->cfg.blackhole = l[1]->cfg.blackhole = c->value; break;
    case SIM_CH_BLACKHOLE_UP: l[0]->cfg.blackhole = c->value; break;
    case SIM_CH_BLACKHOLE_DOWN: l[1]->cfg.blackhole = c->value; break;
    case SIM_CH_CLIENT_LINK: sim_host_iface_up(r->host[0], p->client_iface, c->value); break;
    case SIM_CH_SERVER_LINK: sim_host_iface_up(r->host[1], p->server_iface, c->value); break;
    case SIM_CH_RATE: l[0]->cfg.rate_bps = l[1]->cfg.rate_bps = c->value; break;
    case SIM_CH_DELAY: l[0]->cfg.delay = l[1]->cfg.delay = c->value; break;
    case SIM_CH_MTU: l[0]->cfg.mtu = l[1]->cfg.mtu = (uint32_t)c->value; break;
    case SIM_CH_LOSS: l[0]->cfg.loss_ppm = l[1]->cfg.loss_ppm = (uint32_t)c->value; break;
    }
}

static bool knows_port(const struct run *r, int side, uint16_t port)
{
    for (struct mpc *c = mp_stack_first(r->host[side]->stack); c; c = mp_stack_next(c)) {
        struct mpc_info i;
        mpc_get_info(c, &i);
        if ((side ? i.local.port : i.remote.port) == port) return true;
    }
    return false;
}

/* The client gave up, or left, before the server's application ever saw the connection: it never will. */
static void settle_unseen(struct run *r)
{
    for (int i = 0; i < r->app[1].n; i++) {
        struct sim_conn *k = &r->app[1].conn[i];
        if (!k->done && !k->started && r->app[0].conn[i].done && (k->cfg.may_fail || k->cfg.peer_aborts) &&
            !knows_port(r, 0, (uint16_t)(5000 + i)) && !knows_port(r, 1, (uint16_t)(5000 + i)) && !r->host[1]->stack->nhalf) k->done = true;
    }
}

static bool all_done(const struct run *r) { return sim_app_done(&r->app[0]) && sim_app_done(&r->app[1]); }

static struct sim_conn *conn_with(struct sim_app *a, const struct mpc *c)
{
    for (int i = 0; i < a->n; i++)
        if (a->conn[i].c == c) return &a->conn[i];
    return NULL;
}

/* Each connection of a host, newest first, also those whose application left. */
static int list_all(struct run *r, int side, struct mpc *c[])
{
    int n = 0;
    for (struct mpc *k = mp_stack_first(r->host[side]->stack); k && n < SIM_MAX_CONN; k = mp_stack_next(k)) c[n++] = k;
    return n;
}

/* One connection is saved whatever it has yet to send. Of several the stack's queue says who is asked first, and that is
 * no connection's: they send what they have before. */
static void settle(struct run *r, int side)
{
    if (mp_stack_live(r->host[side]->stack) < 2) return;
    sim_host_kick(r->host[side]);
    sim_run_until(&r->sim, r->sim.now);
}

/* In the order in which a new stack has them alike. */
static int save_all(struct run *r, int side, struct mpc *was[], FILE *f)
{
    int n = list_all(r, side, was);
    for (int i = n - 1; i >= 0; i--) {
        int rc = mpc_save(was[i], f);
        if (rc < 0) sim_fail(&r->sim, "mpc_save: %s", strerror(-rc));
    }
    return n;
}

static void listen_again(struct run *r, int side)
{
    struct sim_app *a = &r->app[side];
    for (int i = 0; i < a->n; i++) {
        struct mp_endpoint at = {.port = (uint16_t)(5000 + i)};
        if (a->conn[i].server && !a->conn[i].started) mp_stack_listen(r->host[side]->stack, &at, 3, 16, &a->conn[i].listener);
    }
}

/* Saves all connections of a host and goes on with copies in a new stack. */
static void save_and_load(struct run *r, int side)
{
    struct sim_host *h = r->host[side];
    struct mpc *was[SIM_MAX_CONN];
    FILE *f = tmpfile();
    if (!f) abort();
    int n = save_all(r, side, was, f);
    r->saved = h->stack->nstray ? 0 : n; /* resets that wait to be sent are the stack's, and lost with it */
    struct sim_conn *owner[SIM_MAX_CONN];
    for (int i = 0; i < n; i++) owner[i] = conn_with(&r->app[side], was[i]);
    struct sim_rng rng = h->rng;
    mp_stack_free(h->stack);
    h->stack = NULL;
    sim_host_start(h, side ? r->sc->set_server : r->sc->set_client);
    listen_again(r, side);
    rewind(f);
    for (int i = n - 1; i >= 0 && !sim_failed(&r->sim); i--) {
        struct mpc *c = mpc_load(h->stack, f, owner[i], r->sim.now);
        if (!c) sim_fail(&r->sim, "mpc_load: connection %d of %d", n - i, n);
        if (owner[i]) owner[i]->c = c;
    }
    h->rng = rng; /* what follows draws the same numbers */
    fclose(f);
    sim_host_kick(h);
}

/* A loaded connection is asked at once whether it has something to send; some of that depends on the time alone. */
static void touch_all(struct run *r, int side)
{
    struct mpc *c[SIM_MAX_CONN];
    for (int i = list_all(r, side, c) - 1; i >= 0; i--) conn_touch(c[i]);
    sim_host_kick(r->host[side]);
}

static void run_until(struct run *r, mp_time until)
{
    mp_time save_at = r->sc->save_load_at ? r->sc->save_load_at + SIM_START : MP_NEVER;
    while (r->sim.now < until && !sim_failed(&r->sim)) {
        mp_time stop = until;
        bool change = r->next_change < r->sc->nchanges;
        if (change) stop = mp_min(stop, mp_max(r->sim.now, r->sc->change[r->next_change].at + SIM_START));
        if (save_at > r->sim.now) stop = mp_min(stop, save_at);
        sim_run_until(&r->sim, stop);
        if (sim_failed(&r->sim)) return;
        if (r->sim.now == save_at) {
            settle(r, r->sc->save_load_server);
            if (sim_failed(&r->sim)) return;
            if (r->sc->only_touched) touch_all(r, r->sc->save_load_server);
            else save_and_load(r, r->sc->save_load_server);
            save_at = MP_NEVER;
        }
        if (change && r->sc->change[r->next_change].at + SIM_START <= r->sim.now)
            apply(r, &r->sc->change[r->next_change++]);
    }
}

static void fail_unfinished(struct run *r)
{
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < r->app[side].n; i++) {
            const struct sim_conn *k = &r->app[side].conn[i];
            if (k->done) continue;
            const struct sim_conn *o = &r->app[!side].conn[i];
            sim_fail(&r->sim,
                     "not finished in time: %s conn %d%s%s%s sent %llu/%llu, received %llu/%llu (the peer%s sent %llu)",
                     r->host[side]->node.name, i, k->connected ? "" : " not connected", k->shut ? " shut" : "",
                     k->eof ? " eof" : "", (unsigned long long)k->tx, (unsigned long long)k->cfg.bytes,
                     (unsigned long long)k->rx, (unsigned long long)k->expect_rx, o->done ? ", done," : "",
                     (unsigned long long)o->tx);
        }
}

mp_dur sim_watch_every;

static void watch_side(const struct run *r, int side)
{
    const struct sim_conn *k = &r->app[side].conn[0];
    struct mpc_subflow_info v[SIM_MAX_PATHS];
    int n = k->c ? mpc_get_subflows(k->c, v, SIM_MAX_PATHS) : 0;
    printf("%10.3f %s sent %llu received %llu\n", (double)(r->sim.now - SIM_START) / 1e9, r->host[side]->node.name,
           (unsigned long long)k->tx, (unsigned long long)k->rx);
    for (int i = 0; i < n; i++)
        printf("             %s %-11s%s%s cwnd %llu ssthresh %lld flight %llu srtt %.1f ms sent %llu again %llu received %llu\n",
               v[i].ifname, v[i].state, v[i].backup ? " backup" : "", v[i].stale ? " stale" : "", (unsigned long long)v[i].cwnd,
               (long long)v[i].ssthresh, (unsigned long long)v[i].flight, (double)v[i].srtt / 1e6, (unsigned long long)v[i].bytes_sent,
               (unsigned long long)v[i].bytes_retrans, (unsigned long long)v[i].bytes_received);
}

static void watch(const struct run *r)
{
    if (!sim_watch_every || (r->sim.now - SIM_START) % sim_watch_every) return;
    for (int side = 0; side < 2; side++) watch_side(r, side);
}

static void note_box(struct run *r)
{
    if (r->box_acted || !r->box[0][0] || !r->box[0][0]->touched) return;
    r->box_acted = true;
    if (r->box[0][0]->first_at < SIM_START + MP_MS(50)) return; /* from the start */
    for (int i = 0; i < r->sc->npaths; i++)
        for (int d = 0; d < 2; d++) r->before_bytes[i][d] = r->link[i][d]->stats.bytes_out;
}

static void note_back(struct run *r)
{
    const struct sim_scen *sc = r->sc;
    uint64_t n = r->link[sc->back_path][0]->stats.bytes_out + r->link[sc->back_path][1]->stats.bytes_out;
    if (!sc->back_at) return;
    if (r->sim.now == SIM_START + sc->back_at) r->back_bytes = n;
    if (r->sim.now == SIM_START + sc->back_at + sc->back_within && n - r->back_bytes < 30000)
        sim_fail(&r->sim, "path %d carried %llu bytes in %.0f ms after its return", sc->back_path, (unsigned long long)(n - r->back_bytes),
                 (double)sc->back_within / 1e6);
}

static void watch_stacks(struct run *r)
{
    for (int side = 0; side < 2; side++) sim_watch_stack(r->host[side]->watch, r->host[side]);
}

static void note_stall(struct run *r, struct sim_result *res)
{
    uint64_t progress = r->app[0].progress + r->app[1].progress;
    mp_time from = mp_max(r->progress_at, SIM_START + r->sc->calm_from);
    if (progress != r->progress) {
        r->progress = progress;
        r->progress_at = r->sim.now;
    }
    if (r->sim.now < from + res->calm_stall) return;
    res->calm_stall = r->sim.now - from;
    if (r->sc->calm_stall_max && res->calm_stall > r->sc->calm_stall_max)
        sim_fail(&r->sim, "nothing moved for %.1f s, and every path works", (double)res->calm_stall / 1e9);
}

static void note_mtu(const struct run *r, struct sim_result *res)
{
    for (int side = 0; side < 2; side++) {
        uint32_t most = 0;
        for (struct mpc *c = mp_stack_first(r->host[side]->stack); c; c = mp_stack_next(c))
            for (const struct sf *s = c->sfs; s; s = s->next) most = (uint32_t)mp_max(most, s->v.mtu);
        if (most) res->mtu[side] = most;
    }
}

static void transfer(struct run *r, struct sim_result *res)
{
    mp_time bound = SIM_START + r->sc->within;
    /* In steps, so that the end is seen soon; the steps change nothing in the run itself. */
    while (!all_done(r) && r->sim.now < bound && !sim_failed(&r->sim)) {
        run_until(r, mp_min(bound, r->sim.now + MP_MS(50)));
        watch(r);
        note_box(r);
        note_back(r);
        watch_stacks(r);
        settle_unseen(r);
        note_stall(r, res);
        note_mtu(r, res);
    }
    if (!all_done(r)) fail_unfinished(r);
}

/* ---- what must hold ---- */

static void aftermath(struct run *r)
{
    for (mp_time end = r->sim.now + AFTERMATH; r->sim.now < end && !sim_failed(&r->sim); watch_stacks(r))
        run_until(r, mp_min(end, r->sim.now + MP_SEC(5)));
    for (int i = 0; i < 2; i++) {
        struct sim_host *h = r->host[i];
        const char *who = h->node.name;
        int live = mp_stack_live(h->stack);
        mp_time next = mp_stack_deadline(h->stack);
        uint64_t memory = mp_stack_memory(h->stack, NULL);
        if (memory) sim_fail(&r->sim, "%s: %llu bytes of memory still counted", who, (unsigned long long)memory);
        if (live) sim_fail(&r->sim, "%s: %d connections left at the end", who, live);
        if (h->flows_open) sim_fail(&r->sim, "%s: %d flows left open", who, h->flows_open);
        if (h->ports_held) sim_fail(&r->sim, "%s: %d ports left held", who, h->ports_held);
        if (next != MP_NEVER) sim_fail(&r->sim, "%s: a deadline is left", who);
    }
    /* A proxy whose sender left in the middle of a hole keeps what is behind it: no matter of the hosts. */
    for (int i = 0; i < r->sc->npaths; i++)
        for (int k = 0; k < r->sc->path[i].nbox; k++) sim_box_forget(r->box[i][k]);
    if (r->sim.packets_live)
        sim_fail(&r->sim, "%lld packets left on the way", (long long)r->sim.packets_live);
}

static void check_expectations(struct run *r, const struct sim_result *res)
{
    const struct sim_scen *sc = r->sc;
    struct sim *s = &r->sim;
    if (res->took < sc->not_before)
        sim_fail(s, "took %.3f s, less than is possible (%.3f s)", (double)res->took / 1e9, (double)sc->not_before / 1e9);
    if (sc->stall_max && res->stall > sc->stall_max)
        sim_fail(s, "stalled for %.0f ms from %.3f s on, allowed are %.0f", (double)res->stall / 1e6,
                 (double)(res->stall_at - SIM_START) / 1e9, (double)sc->stall_max / 1e6);
    if (res->subflows < sc->subflows) sim_fail(s, "%d subflows, expected %d", res->subflows, sc->subflows);
    for (int i = 0; sc->why && i < r->app[0].n; i++) {
        enum mp_plain_why why = r->app[0].conn[i].info.why;
        if ((int)why != sc->why - 1)
            sim_fail(s, "client conn %d: \"%s\", expected \"%s\"", i, mp_plain_why_text(why), mp_plain_why_text(sc->why - 1));
    }
    for (int i = 0; i < sc->npaths; i++)
        if (sc->path_used >> i & 1 && res->link_bytes[i][0] < 65536 && res->link_bytes[i][1] < 65536)
            sim_fail(s, "path %d was not used: %llu bytes up, %llu down", i, (unsigned long long)res->link_bytes[i][0],
                     (unsigned long long)res->link_bytes[i][1]);
    for (int side = 0; side < 2; side++)
        if (mp_stack_counter(r->host[side]->stack, MP_E_fallback_strange))
            sim_fail(s, "%s: an event that core/fallback.def holds for impossible", r->host[side]->node.name);
    if (sc->must_change && !res->changed) sim_fail(s, "no byte was changed by the middlebox");
}

static void collect(const struct run *r, struct sim_result *res)
{
    res->saved = r->saved;
    mp_time end = 0;
    uint64_t bytes = 0;
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < r->app[side].n; i++) {
            const struct sim_conn *k = &r->app[side].conn[i];
            end = mp_max(end, k->done_at);
            bytes += k->rx;
            res->changed += k->changed;
            res->inserted += k->inserted + k->removed;
            res->reinjected += k->info.reinjected;
            if (k->longest_stall <= res->stall) continue;
            res->stall = k->longest_stall;
            res->stall_at = k->stall_at;
        }
    res->took = end > SIM_START ? end - SIM_START : 0;
    res->goodput_bps = res->took ? (double)bytes * 8e9 / (double)res->took : 0;
    res->subflows = r->app[0].conn[0].subflows_max;
    res->why = r->app[0].conn[0].info.why;
    res->why_server = r->app[1].conn[0].info.why;
    for (int i = 0; i < r->sc->npaths; i++)
        for (int d = 0; d < 2; d++) {
            res->link_bytes[i][d] = r->link[i][d]->stats.bytes_out;
            res->after_bytes[i][d] = res->link_bytes[i][d] - r->before_bytes[i][d];
        }
    if (r->box[0][0]) res->touched = r->box[0][0]->touched;
    for (int side = 0; side < 2; side++) {
        mp_stack_memory(r->host[side]->stack, &res->memory_peak[side]);
        for (int e = 0; e < MP_E_COUNT; e++) res->counter[side][e] = mp_stack_counter(r->host[side]->stack, e);
    }
}

static void fini(struct run *r, struct sim_result *res)
{
    res->hash = r->sim.hash;
    res->events = r->sim.events;
    res->packets = r->sim.packets;
    res->ok = !sim_failed(&r->sim);
    if (!res->ok) {
        snprintf(res->failure, sizeof res->failure, "%s", r->sim.failure);
        res->failed_at = r->sim.failure_at - SIM_START;
    }
    sim_fini(&r->sim);
    if (res->ok && r->sim.packets_live) {
        res->ok = false;
        snprintf(res->failure, sizeof res->failure, "%lld packets leaked", (long long)r->sim.packets_live);
    }
    sim_app_fini(&r->app[0]);
    sim_app_fini(&r->app[1]);
}

bool sim_scen_run(const struct sim_scen *sc, uint64_t seed, FILE *trace, const char *pcap, struct sim_result *res)
{
    struct run r = {.sc = sc};
    *res = (struct sim_result){0};
    sim_init(&r.sim, seed);
    r.sim.trace = trace;
    r.sim.pcap = pcap;
    build(&r);
    transfer(&r, res);
    collect(&r, res);
    if (!sim_failed(&r.sim)) check_expectations(&r, res);
    if (!sim_failed(&r.sim)) aftermath(&r);
    fini(&r, res);
    return res->ok;
}
