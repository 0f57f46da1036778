/* sim/scen.c: see scen.h. */
#include "core/stack_int.h"
#include "sim/scen_int.h"
#include "sim/watch.h"

/* After the last connection is done: TIME_WAIT, delayed ACKs and orphans have this long to go away. One whose application
 * left may still have data for a peer that is gone. */
#define AFTERMATH SIM_GIVE_UP

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
            sim_scen_settle(r, r->sc->save_load_server);
            if (sim_failed(&r->sim)) return;
            if (r->sc->only_touched) sim_scen_touch_all(r, r->sc->save_load_server);
            else sim_scen_save_and_load(r, r->sc->save_load_server);
            save_at = MP_NEVER;
        }
        if (change && r->sc->change[r->next_change].at + SIM_START <= r->sim.now)
            apply(r, &r->sc->change[r->next_change++]);
    }
}

/* ---- looking on ---- */

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

static void watch_stacks(struct run *r)
{
    for (int side = 0; side < 2; side++) sim_watch_stack(r->host[side]->watch, r->host[side]);
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

/* ---- the run ---- */

static void transfer(struct run *r, struct sim_result *res)
{
    mp_time bound = SIM_START + r->sc->within;
    /* In steps, so that the end is seen soon; the steps change nothing in the run itself. */
    while (!all_done(r) && r->sim.now < bound && !sim_failed(&r->sim)) {
        run_until(r, mp_min(bound, r->sim.now + MP_MS(50)));
        watch(r);
        note_box(r);
        sim_scen_check_back(r);
        watch_stacks(r);
        settle_unseen(r);
        sim_scen_check_stall(r, res);
        note_mtu(r, res);
    }
    if (!all_done(r)) sim_scen_check_finished(r);
}

static void aftermath(struct run *r)
{
    for (mp_time end = r->sim.now + AFTERMATH; r->sim.now < end && !sim_failed(&r->sim); watch_stacks(r))
        run_until(r, mp_min(end, r->sim.now + MP_SEC(5)));
    sim_scen_check_nothing_left(r);
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
    sim_scen_build(&r);
    transfer(&r, res);
    collect(&r, res);
    if (!sim_failed(&r.sim)) sim_scen_check(&r, res);
    if (!sim_failed(&r.sim)) aftermath(&r);
    fini(&r, res);
    return res->ok;
}
