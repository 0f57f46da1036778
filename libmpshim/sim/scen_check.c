/* sim/scen_check.c: what must hold in a run, while it goes on and at its end. */
#include "sim/scen_int.h"

void sim_scen_check_finished(struct run *r)
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

void sim_scen_check_back(struct run *r)
{
    const struct sim_scen *sc = r->sc;
    uint64_t n = r->link[sc->back_path][0]->stats.bytes_out + r->link[sc->back_path][1]->stats.bytes_out;
    if (!sc->back_at) return;
    if (r->sim.now == SIM_START + sc->back_at) r->back_bytes = n;
    if (r->sim.now == SIM_START + sc->back_at + sc->back_within && n - r->back_bytes < 30000)
        sim_fail(&r->sim, "path %d carried %llu bytes in %.0f ms after its return", sc->back_path, (unsigned long long)(n - r->back_bytes),
                 (double)sc->back_within / 1e6);
}

void sim_scen_check_stall(struct run *r, struct sim_result *res)
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

void sim_scen_check(struct run *r, const struct sim_result *res)
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

void sim_scen_check_nothing_left(struct run *r)
{
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
