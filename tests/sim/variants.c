/* Every scenario of the table and some hundred random networks once more, in other ways of speaking the protocol: what
 * holds in the usual one holds in them.
 *   version 0: the client offers RFC 6824
 *   cookies:   the server keeps nothing of any SYN (core/cookie.c). Not where handshakes get lost: a SYN/ACK is not sent
 *              again, and a server that is to speak first knows nothing of a client whose third ACK was lost (RFC 4987
 *              3.6); nor where a few bytes of MSS decide who leaves slow start first. */
#include "report.h"

#ifdef __SANITIZE_ADDRESS__
enum { SEEDS = 60, STEP = 3 }; /* one scenario in three: each runs as it is in sim_scenarios, sanitized too */
#else
enum { SEEDS = 400, STEP = 1 };
#endif

static const struct variant {
    const char *name, *client, *server;
    int seeds;
    const char *skip[4];
} variants[] = {
    { "version 0", "mptcp-version=0", NULL, SEEDS, { 0 } },
    { "cookies", NULL, "syn-backlog=0", 0, { "loss-of-first-syn", "simult-15-5" } },
};

static bool skips(const struct variant *v, const char *name)
{
    for (int i = 0; i < 4 && v->skip[i]; i++)
        if (strcmp(v->skip[i], name) == 0) return true;
    return false;
}

static void add(const char **list, const char *setting)
{
    for (int i = 0; setting && i < SIM_SCEN_SETTINGS - 1; i++)
        if (!list[i]) {
            list[i] = setting;
            return;
        }
}

static bool run(struct sim_scen sc, const struct variant *v, uint64_t seed)
{
    struct sim_result r;
    add(sc.set_client, v->client);
    add(sc.set_server, v->server);
    bool ok = sim_scen_run_random(&sc, seed, NULL, NULL, &r);
    if (!ok) {
        printf("with %s:\n", v->name);
        report_failure(stdout, &sc, seed, &r);
    }
    return ok;
}

int main(void)
{
    int failed = 0;
    for (size_t k = 0; k < sizeof variants / sizeof *variants; k++) {
        for (int i = 0; i < sim_table_n; i += STEP)
            if (!skips(&variants[k], sim_table[i].name)) failed += !run(sim_table[i], &variants[k], 1);
        for (uint64_t seed = 1; seed <= (uint64_t)variants[k].seeds; seed++) failed += !run(sim_scen_random(seed), &variants[k], seed);
    }
    printf("sim_variants: %d scenarios in each, %d seeds, %d failed\n", (sim_table_n + STEP - 1) / STEP, SEEDS, failed);
    return failed != 0;
}
