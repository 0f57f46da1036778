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

/* Runs it once as it is, and once for each of the moments with a save and load there. Same hash: same packets at the
 * same moments. */
static void save_load(struct sim_scen sc, uint64_t seed, const mp_time *at, int n)
{
    struct sim_result plain = run(&sc, seed);
    for (int i = 0; i < n; i++) {
        sc.save_load_at = at[i];
        struct sim_result r = run(&sc, seed);
        if (r.hash == plain.hash && r.took == plain.took && r.packets == plain.packets) continue;
        fprintf(stderr, "%s, saved and loaded at %.3f s: took %.6f s and %llu packets, without %.6f s and %llu\n", sc.name,
                (double)at[i] / 1e9, (double)r.took / 1e9, (unsigned long long)r.packets, (double)plain.took / 1e9,
                (unsigned long long)plain.packets);
        check_failures++;
    }
}

static void save_load_at(const char *name, uint64_t seed, const mp_time *at, int n) { save_load(*sim_table_find(name), seed, at, n); }

TEST(saving_and_loading_changes_nothing)
{
    static const mp_time at[] = {MP_MS(5), MP_MS(35), MP_MS(75), MP_MS(130), MP_MS(400), MP_MS(777)};
    save_load_at("one-path", 1, at, 6);
    save_load_at("two-paths-download", 1, at, 6);
    save_load_at("two-paths-upload", 1, at, 6);
    save_load_at("loss-1-percent-lia", 3, at, 6);
    save_load_at("strip-all", 1, at, 6);
    save_load_at("late-reader", 1, at, 6);
    save_load_at("splitting", 1, at, 6);
    save_load_at("fifty-connections", 1, at, 6);
}

/* All that is lost at one moment is due again at one moment: whose turn is first must not depend on who was loaded when. */
TEST(equal_deadlines_keep_their_order)
{
    static const mp_time at[] = {MP_MS(500), MP_MS(1500)};
    struct sim_scen sc = *sim_table_find("fifty-connections");
    sc.conn_gap = 0;
    sc.within = MP_SEC(20);
    for (int path = 0; path < 2; path++) {
        sc.change[sc.nchanges++] = (struct sim_change){0, path, SIM_CH_BLACKHOLE, 1};
        sc.change[sc.nchanges++] = (struct sim_change){MP_MS(2000), path, SIM_CH_BLACKHOLE, 0};
    }
    save_load(sc, 1, at, 2);
}

/* A link that was down when the others came up is the last to be told of; which path is joined first does not show it. */
TEST(paths_keep_their_order)
{
    static const mp_time at[] = {MP_MS(600)};
    struct sim_scen sc = *sim_table_find("two-paths-download");
    sc.npaths = 3;
    sc.path[2] = sc.path[1];
    sc.path[2].client_iface = 2;
    sc.path[1].server_iface = sc.path[2].server_iface = 0; /* one address of the server: two joins at the same moment */
    sc.path_used = 1;
    sc.nconn = 4;
    sc.conn_gap = MP_MS(250); /* the last two begin afterwards */
    sc.within = MP_SEC(60);
    sc.change[sc.nchanges++] = (struct sim_change){MP_MS(100), 1, SIM_CH_CLIENT_LINK, 0};
    sc.change[sc.nchanges++] = (struct sim_change){MP_MS(200), 1, SIM_CH_CLIENT_LINK, 1};
    save_load(sc, 1, at, 1);
}

/* Of connections for which options die late, those that have a way on. */
TEST(nothing_is_excused_that_has_a_way_on)
{
    static const uint64_t seeds[] = {480382, 533360, 589223};
    for (int i = 0; i < 3; i++) {
        struct sim_scen sc = sim_scen_random(seeds[i]);
        struct sim_result r;
        CHECK(sc.options_may_die);
        CHECK(sim_scen_run_random(&sc, seeds[i], NULL, NULL, &r));
        CHECK(!r.excused);
    }
}

TEST(other_seeds_give_other_runs)
{
    const struct sim_scen *sc = sim_table_find("loss-1-percent-lia");
    CHECK(run(sc, 1).hash != run(sc, 2).hash);
}
