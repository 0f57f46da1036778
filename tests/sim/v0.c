/* Version 0 of MPTCP (RFC 6824): every scenario of the table and some hundred random networks, with a client that
 * offers it. What holds for version 1 holds here. */
#include "report.h"

#ifdef __SANITIZE_ADDRESS__
enum { SEEDS = 60 };
#else
enum { SEEDS = 400 };
#endif

static bool offer_v0(struct sim_scen *sc)
{
    for (int i = 0; i < SIM_SCEN_SETTINGS - 1; i++)
        if (!sc->set_client[i]) return sc->set_client[i] = "mptcp-version=0", true;
    return false;
}

static bool run(struct sim_scen sc, uint64_t seed)
{
    struct sim_result r;
    if (!offer_v0(&sc)) return true; /* no room for a setting more */
    bool ok = sim_scen_run(&sc, seed, NULL, NULL, &r);
    if (!ok) report_failure(stdout, &sc, seed, &r);
    return ok;
}

int main(void)
{
    int failed = 0;
    for (int i = 0; i < sim_table_n; i++) failed += !run(sim_table[i], 1);
    for (uint64_t seed = 1; seed <= SEEDS; seed++) failed += !run(sim_scen_random(seed), seed);
    printf("sim_v0: %d scenarios and %d seeds, %d failed\n", sim_table_n, SEEDS, failed);
    return failed != 0;
}
