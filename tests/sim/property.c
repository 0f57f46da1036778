/* Over many random networks (sim/random.c): both streams arrive whole and unchanged, within a bound, and nothing is
 * left afterwards. MPSHIM_SIM_SEEDS=A..B chooses the seeds. A sanitizer build runs fewer: it is slower. */
#include <stdlib.h>

#include "report.h"

#ifdef __SANITIZE_ADDRESS__
enum { SEEDS = 300 };
#else
enum { SEEDS = 3000 };
#endif

int main(void)
{
    unsigned long long from = 1, to = SEEDS;
    const char *env = getenv("MPSHIM_SIM_SEEDS");
    if (env && sscanf(env, "%llu..%llu", &from, &to) != 2) {
        fprintf(stderr, "MPSHIM_SIM_SEEDS: \"%s\" is not A..B\n", env);
        return 2;
    }
    int failed = 0;
    uint64_t multipath = 0, packets = 0;
    for (uint64_t seed = from; seed <= to; seed++) {
        struct sim_scen sc = sim_scen_random(seed);
        struct sim_result r;
        if (!sim_scen_run(&sc, seed, NULL, NULL, &r)) {
            report_failure(stdout, &sc, seed, &r);
            failed++;
        }
        multipath += r.subflows > 1;
        packets += r.packets;
    }
    printf("sim_property: seeds %llu..%llu, %llu with several subflows, %llu packets, %d failed\n", from, to,
           (unsigned long long)multipath, (unsigned long long)packets, failed);
    return failed != 0;
}
