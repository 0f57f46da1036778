/* A server that receives removes the address of a path that fell silent, and calls its client back (core/recall.c). Here the
 * client is ours, and would notice by itself soon after; what a Linux client gains: lab.bench 6-link-down-server-up. */
#include "check.h"
#include "sim/scen.h"

#define MBIT 1000000u
#define MB 1000000u

static struct sim_scen upload(uint64_t bytes)
{
    struct sim_link_cfg link = {.rate_bps = 20 * MBIT, .delay = MP_MS(10), .queue_bytes = 100000};
    struct sim_scen sc = {.name = "recall", .npaths = 2, .conn = {.client = {.bytes = bytes}, .server = {.bytes = 100, .after_eof = true}},
                          .within = MP_SEC(60), .subflows = 2};
    for (int i = 0; i < 2; i++) sc.path[i] = (struct sim_path_cfg){.up = link, .down = link, .client_iface = i, .server_iface = i};
    return sc;
}

static void change(struct sim_scen *sc, mp_time at, int path, enum sim_change_what what, uint64_t value)
{
    sc->change[sc->nchanges++] = (struct sim_change){at, path, what, value};
}

static struct sim_result run(const struct sim_scen *sc, const char *what)
{
    struct sim_result r;
    CHECK(sim_scen_run(sc, 1, NULL, NULL, &r));
    if (!r.ok) printf("%s\n", r.failure);
    printf("  %-24s %5.2f s, longest stall %3.0f ms, called silent %llu, joined again %llu\n", what, (double)r.took / 1e9, (double)r.stall / 1e6,
           (unsigned long long)r.counter[1][MP_E_path_silent], (unsigned long long)r.counter[1][MP_E_address_recalled]);
    return r;
}

TEST(a_dead_path_is_removed_at_once_and_used_again_when_it_is_back)
{
    for (int path = 0; path < 2; path++) {
        struct sim_scen sc = upload(30 * MB);
        change(&sc, MP_SEC(1), path, SIM_CH_BLACKHOLE, 1);
        change(&sc, MP_SEC(4), path, SIM_CH_BLACKHOLE, 0);
        sc.back_path = path;
        sc.back_at = MP_SEC(4);
        sc.back_within = MP_SEC(1);
        sc.stall_max = MP_MS(150);
        struct sim_result r = run(&sc, path ? "second path" : "first path");
        CHECK_NUM(r.counter[1][MP_E_path_silent], ==, 1);
        CHECK_NUM(r.counter[1][MP_E_address_recalled], ==, 1);
    }
}

TEST(both_paths_in_turn_again_and_again)
{
    struct sim_scen sc = upload(60 * MB);
    for (int i = 0; i < 6; i++) {
        change(&sc, MP_SEC(1 + 3 * i), i % 2, SIM_CH_BLACKHOLE, 1);
        change(&sc, MP_SEC(3 + 3 * i), i % 2, SIM_CH_BLACKHOLE, 0);
    }
    sc.stall_max = MP_MS(200);
    struct sim_result r = run(&sc, "in turn");
    CHECK_NUM(r.counter[1][MP_E_path_silent], >=, 5);
    CHECK_NUM(r.counter[1][MP_E_address_recalled], ==, r.counter[1][MP_E_path_silent]);
}

/* The way that is left dies as well, after the other one was removed, and that one comes back first. */
TEST(the_removed_path_is_the_one_that_is_left)
{
    struct sim_scen sc = upload(20 * MB);
    change(&sc, MP_SEC(1), 0, SIM_CH_BLACKHOLE, 1);
    change(&sc, MP_SEC(2), 1, SIM_CH_BLACKHOLE, 1);
    change(&sc, MP_SEC(4), 0, SIM_CH_BLACKHOLE, 0);
    sc.within = MP_SEC(16);
    struct sim_result r = run(&sc, "the other one dies");
    CHECK_NUM(r.stall, <, MP_MS(4500));
}

/* The path becomes slow, and is called silent for it: that must not cost it. Behind a long queue it would be given more time. */
TEST(a_false_alarm_costs_little)
{
    struct sim_scen sc = upload(20 * MB);
    for (int i = 0; i < 2; i++) sc.path[i].up.queue_bytes = sc.path[i].down.queue_bytes = 40000;
    struct sim_result calm = run(&sc, "even");
    CHECK_NUM(calm.counter[1][MP_E_path_silent], ==, 0);
    change(&sc, MP_SEC(1), 0, SIM_CH_DELAY, MP_MS(150));
    change(&sc, MP_SEC(2), 0, SIM_CH_DELAY, MP_MS(10));
    struct sim_result r = run(&sc, "150 ms for a second");
    CHECK_NUM(r.counter[1][MP_E_path_silent], >=, 1); /* or it proves nothing */
    CHECK_NUM(r.counter[1][MP_E_address_recalled], ==, r.counter[1][MP_E_path_silent]);
    CHECK_NUM(r.took, <, calm.took + MP_MS(1000));
}
