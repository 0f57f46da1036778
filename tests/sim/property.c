/* Over many random networks (sim/random.c): both streams arrive whole and unchanged, within a bound, nothing stands still
 * longer than stated once the network works, windows, timers and memory keep their limits at every moment (sim/watch.h),
 * nothing is left afterwards, and the counters count. Of eight seeds one is run again and must give the same trace, and one
 * is run again with its connections saved and loaded at some moment, and must give the same trace too.
 * MPSHIM_SIM_SEEDS=A..B chooses the seeds. A sanitizer build runs fewer: it is slower. */
#include <stdlib.h>

#include "report.h"

#ifdef __SANITIZE_ADDRESS__
enum { SEEDS = 200 };
#else
enum { SEEDS = 2400 };
#endif

static bool again(const struct sim_scen *sc, uint64_t seed, const struct sim_result *was)
{
    struct sim_result r;
    sim_scen_run(sc, seed, NULL, NULL, &r);
    if (r.hash == was->hash && r.events == was->events && r.took == was->took) return true;
    printf("seed %llu: a second run differs: %llu events, not %llu\n", (unsigned long long)seed, (unsigned long long)r.events, (unsigned long long)was->events);
    return false;
}

/* The moment follows from the seed. A server's only when its one connection is up: those in the middle of their handshake
 * are not handed over. */
static bool saved_and_loaded(struct sim_scen sc, uint64_t seed, const struct sim_result *first)
{
    struct sim_result was, r;
    uint64_t ms = first->took / MP_MS(1) + 2;
    sc.save_load_at = MP_MS(1 + sim_mix(seed) % ms) + 7;
    sc.only_touched = true;
    sim_scen_run(&sc, seed, NULL, NULL, &was);
    sc.only_touched = false;
    sim_scen_run(&sc, seed, NULL, NULL, &r);
    if (r.ok && r.hash == was.hash) return true;
    /* Answers to segments of nobody that wait to be sent are not a connection's: then only the streams must be whole. */
    if (r.ok && was.ok && !r.saved) return true;
    printf("seed %llu: saved and loaded at %.3f s it differs: %s, took %.6f s and %llu packets, not %.6f s and %llu (%d connections)\n",
           (unsigned long long)seed, (double)sc.save_load_at / 1e9, r.ok ? "ok" : r.failure, (double)r.took / 1e9,
           (unsigned long long)r.packets, (double)was.took / 1e9, (unsigned long long)was.packets, r.saved);
    return false;
}

static bool counted[MP_E_COUNT]; /* by some run */

static void note_counters(const struct sim_result *r)
{
    for (int e = 0; e < MP_E_COUNT; e++) counted[e] |= r->counter[0][e] || r->counter[1][e];
}

/* What random networks do not do, or too seldom to rely on: tests/unit has it. */
static bool is_seldom(int event)
{
    static const int seldom[] = {
        MP_E_opt_list_broken, MP_E_csum_mismatch, MP_E_map_conflict, MP_E_map_overflow, MP_E_beyond_window, MP_E_ack_unsent, MP_E_data_ack_unsent,
        MP_E_join_hmac_bad, MP_E_join_dropped, MP_E_join_token_unknown, MP_E_add_addr_hmac_bad, MP_E_fastclose_bad, MP_E_capable_version,
        MP_E_cookie_in, MP_E_cookie_out, MP_E_cookie_bad, MP_E_memory_refused, MP_E_backlog_full, MP_E_memory_dropped, MP_E_time_wait_reused,
        MP_E_subflow_timeout, MP_E_subflow_withheld, MP_E_user_timeout, MP_E_orphan_timeout, MP_E_syn_timeout, MP_E_address_recalled,
        MP_E_conn_rexmit, MP_E_hol_rationed, MP_E_hol_taken_back, MP_E_remove_addr_alive, MP_E_infinite_in, MP_E_keepalive,
        MP_E_no_memory, MP_E_fallback_strange /* never */
    };
    for (size_t i = 0; i < sizeof seldom / sizeof *seldom; i++)
        if (seldom[i] == event) return true;
    return false;
}

/* A counter that nothing counts any more tells people that nothing of the kind happens. */
static int silent_counters(void)
{
    int n = 0;
    for (int e = 0; e < MP_E_COUNT; e++) {
        if (counted[e] || is_seldom(e)) continue;
        printf("no seed counts %s: %s\n", mp_events[e].name, mp_events[e].meaning);
        n++;
    }
    return n;
}

int main(void)
{
    unsigned long long from = 1, to = SEEDS;
    const char *env = getenv("MPSHIM_SIM_SEEDS");
    if (env && sscanf(env, "%llu..%llu", &from, &to) != 2) {
        fprintf(stderr, "MPSHIM_SIM_SEEDS: \"%s\" is not A..B\n", env);
        return 2;
    }
    int failed = 0;
    uint64_t multipath = 0, packets = 0, excused = 0;
    mp_dur stall = 0;
    for (uint64_t seed = from; seed <= to; seed++) {
        struct sim_scen sc = sim_scen_random(seed);
        struct sim_result r;
        bool ok = sim_scen_run_random(&sc, seed, NULL, NULL, &r);
        if (r.excused) printf("excused: seed %llu: %s\n", (unsigned long long)seed, r.failure);
        excused += r.excused;
        if (!ok) report_failure(stdout, &sc, seed, &r);
        else if (seed % 8 == 0) ok = again(&sc, seed, &r);
        else if (seed % 8 == 4) ok = saved_and_loaded(sc, seed, &r);
        failed += !ok;
        note_counters(&r);
        multipath += r.subflows > 1;
        packets += r.packets;
        if (sc.calm_stall_max) stall = mp_max(stall, r.calm_stall);
        if (getenv("SIM_STALLS")) printf("%.1f %llu\n", (double)r.calm_stall / 1e9, (unsigned long long)seed);
        fflush(stdout);
    }
    printf("sim_property: seeds %llu..%llu, %llu with several subflows, %llu packets, %llu excused, longest stall %.1f s, %d failed\n", from, to,
           (unsigned long long)multipath, (unsigned long long)packets, (unsigned long long)excused, (double)stall / 1e9, failed);
    if (!env && SEEDS >= 2400) failed += silent_counters();
    return failed != 0;
}
