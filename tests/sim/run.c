/* sim_run: runs simulated scenarios by name or seed.
 *
 *   sim_run                       all named scenarios, as a table
 *   sim_run --scenario NAME       one of them; --list names them
 *   sim_run --seed N              the random scenario of that seed, described
 *   sim_run --seeds A..B          all of these; failures are told with their seed
 *   with one run: --watch MS      subflows as they are, each MS milliseconds (a multiple of 50)
 *                 --save-load MS  the client's connections are saved and loaded then; --touch MS: only asked for packets then,
 *                                 which must give the same run (property.c)
 *                 --trace         every event; --pcap PREFIX a capture per link, PREFIX-<link>.pcap
 *   --keep-going                  does not stop after 20 failures */
#include <stdlib.h>

#include "report.h"

struct options {
    const char *scenario, *pcap;
    uint64_t seed, to, save_ms;
    bool random, range, trace, list, keep_going, touch;
};

static int usage(void)
{
    fputs("usage: sim_run [--scenario NAME] [--seed N | --seeds A..B] [--watch MS] [--save-load MS | --touch MS] [--trace] [--pcap PREFIX] [--list] [--keep-going]\n", stderr);
    return 2;
}

static bool parse_range(const char *text, struct options *o)
{
    char *end;
    o->seed = strtoull(text, &end, 0);
    if (strncmp(end, "..", 2) != 0) return false;
    o->to = strtoull(end + 2, &end, 0);
    o->range = true;
    return !*end && o->to >= o->seed;
}

static bool parse(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(a, "--trace") == 0) o->trace = true;
        else if (strcmp(a, "--list") == 0) o->list = true;
        else if (strcmp(a, "--keep-going") == 0) o->keep_going = true;
        else if (!v) return false;
        else if (strcmp(a, "--scenario") == 0) o->scenario = v, i++;
        else if (strcmp(a, "--pcap") == 0) o->pcap = v, i++;
        else if (strcmp(a, "--save-load") == 0) o->save_ms = strtoull(v, NULL, 0), i++;
        else if (strcmp(a, "--touch") == 0) o->save_ms = strtoull(v, NULL, 0), o->touch = true, i++;
        else if (strcmp(a, "--watch") == 0) sim_watch_every = MP_MS(strtoull(v, NULL, 0)), i++;
        else if (strcmp(a, "--seed") == 0) o->seed = strtoull(v, NULL, 0), o->random = true, i++;
        else if (strcmp(a, "--seeds") == 0 && parse_range(v, o)) i++;
        else return false;
    }
    return true;
}

static bool run_one(const struct sim_scen *named, const struct options *o)
{
    struct sim_scen copy = *named, *sc = &copy;
    struct sim_result r;
    if (o->save_ms) sc->save_load_at = MP_MS(o->save_ms) + 7; /* as property.c */
    sc->only_touched = o->touch;
    printf("seed %llu\n", (unsigned long long)o->seed);
    sim_scen_print(sc, stdout);
    if (o->random) sim_scen_run_random(sc, o->seed, o->trace ? stdout : NULL, o->pcap, &r);
    else sim_scen_run(sc, o->seed, o->trace ? stdout : NULL, o->pcap, &r);
    if (r.excused) printf("excused, as no way was left to go on: %s at %.6f s\n", r.failure, (double)r.failed_at / 1e9);
    report_head(stdout);
    report_row(stdout, sc, &r);
    printf("%llu events, %llu packets, trace hash %016llx\n", (unsigned long long)r.events, (unsigned long long)r.packets,
           (unsigned long long)r.hash);
    if (!r.ok) report_failure(stdout, sc, o->seed, &r);
    return r.ok;
}

static bool run_table(uint64_t seed)
{
    int failed = 0;
    report_head(stdout);
    for (int i = 0; i < sim_table_n; i++) {
        struct sim_result r;
        bool ok = sim_scen_run(&sim_table[i], seed, NULL, NULL, &r);
        report_row(stdout, &sim_table[i], &r);
        if (!ok) report_failure(stdout, &sim_table[i], seed, &r);
        failed += !ok;
        fflush(stdout);
    }
    printf("%d scenarios, %d failed\n", sim_table_n, failed);
    return !failed;
}

static bool run_seeds(const struct options *o)
{
    int failed = 0;
    for (uint64_t seed = o->seed; seed <= o->to; seed++) {
        const struct sim_scen *named = o->scenario ? sim_table_find(o->scenario) : NULL;
        struct sim_scen sc = named ? *named : sim_scen_random(seed);
        struct sim_result r;
        if (named ? sim_scen_run(&sc, seed, NULL, NULL, &r) : sim_scen_run_random(&sc, seed, NULL, NULL, &r)) continue;
        report_failure(stdout, &sc, seed, &r);
        fflush(stdout);
        if (++failed == 20 && !o->keep_going) {
            printf("stopped after 20 failures, at seed %llu\n", (unsigned long long)seed);
            return false;
        }
    }
    printf("seeds %llu..%llu: %d failed\n", (unsigned long long)o->seed, (unsigned long long)o->to, failed);
    return !failed;
}

int main(int argc, char **argv)
{
    struct options o = {.seed = 1};
    if (!parse(argc, argv, &o)) return usage();
    if (o.list) {
        for (int i = 0; i < sim_table_n; i++) puts(sim_table[i].name);
        return 0;
    }
    if (o.scenario && !sim_table_find(o.scenario)) {
        fprintf(stderr, "no scenario \"%s\"; --list names them\n", o.scenario);
        return 2;
    }
    if (o.range) return !run_seeds(&o);
    if (o.scenario) return !run_one(sim_table_find(o.scenario), &o);
    if (!o.random) return !run_table(o.seed);
    struct sim_scen sc = sim_scen_random(o.seed);
    return !run_one(&sc, &o);
}
