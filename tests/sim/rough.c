/* TCP alone (the peer's options are stripped) with CUBIC over one path that loses, reorders or both: goodput in virtual
 * time. The floor of each row is a part of what the link carries, or of what RFC 9438 5.1 expects at that loss rate
 * where that is less. The same networks against the kernel's TCP: lab.bench, table 8.
 *
 *   sim_rough                     all rows
 *   sim_rough ROW [SEED [MS]]     one of them; with MS, the subflow as it is each MS milliseconds */
#include <stdlib.h>

#include "report.h"

enum { RATE = 50000000 };

/* A sanitizer build runs each row too, but what it would say of the rates the plain one has said: time is virtual. */
#ifdef __SANITIZE_ADDRESS__
enum { SEEDS = 3, JUDGED = false };
#else
enum { SEEDS = 24, JUDGED = true };
#endif

struct rough {
    const char *name;
    uint32_t loss_ppm, late_ppm;
    unsigned late_ms;
    uint64_t bytes;
    double least_mbit_s;
};

static const struct rough rows[] = {
    {"clean", 0, 0, 0, 20000000, 44},
    {"loss-0.1", 1000, 0, 0, 30000000, 20},
    {"loss-1", 10000, 0, 0, 10000000, 6},
    {"loss-5", 50000, 0, 0, 3000000, 2.9},
    {"late-3", 0, 50000, 3, 20000000, 40},
    {"late-10", 0, 50000, 10, 20000000, 45},
    {"late-30", 0, 50000, 30, 20000000, 40},
    {"loss-0.1-late-30", 1000, 50000, 30, 20000000, 25},
    {"loss-1-late-10", 10000, 50000, 10, 10000000, 8.3},
    {"loss-2-late-30", 20000, 50000, 30, 5000000, 5.2},
    {"loss-5-late-30", 50000, 50000, 30, 3000000, 2.9},
};

static double run(const struct rough *w, uint64_t seed)
{
    struct sim_link_cfg link = {.rate_bps = RATE, .delay = MP_MS(10), .queue_bytes = 250000, .loss_ppm = w->loss_ppm,
                                .reorder_ppm = w->late_ppm, .reorder_by = MP_MS(w->late_ms)};
    struct sim_scen sc = {.name = w->name, .npaths = 1, .conn = {.client = {.bytes = w->bytes}}, .within = MP_SEC(120),
                          .set_client = {"cc=cubic"}, .set_server = {"cc=cubic"}};
    sc.path[0] = (struct sim_path_cfg){.up = link, .down = link, .box = {{SIM_BOX_STRIP_ALL}}, .nbox = 1};
    struct sim_result r;
    bool ok = sim_scen_run(&sc, seed, NULL, NULL, &r);
    printf("%-18s seed %llu %6.2f Mbit/s  recoveries %4llu undone %4llu time-outs %3llu sent again %5llu\n", w->name,
           (unsigned long long)seed, r.goodput_bps / 1e6, (unsigned long long)r.counter[0][MP_E_recovery],
           (unsigned long long)r.counter[0][MP_E_spurious], (unsigned long long)r.counter[0][MP_E_rto],
           (unsigned long long)r.counter[0][MP_E_seg_rexmit]);
    if (!ok) report_failure(stdout, &sc, seed, &r);
    return ok ? r.goodput_bps / 1e6 : -1;
}

static bool row_holds(const struct rough *w)
{
    double sum = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        double got = run(w, seed);
        if (got < 0) return false;
        sum += got;
    }
    bool ok = !JUDGED || sum / SEEDS >= w->least_mbit_s;
    printf("%-18s mean   %6.2f Mbit/s: %s%.1f\n", w->name, sum / SEEDS, !JUDGED ? "not judged, " : ok ? "at least " : "LESS THAN ", w->least_mbit_s);
    return ok;
}

int main(int argc, char **argv)
{
    int n = sizeof rows / sizeof *rows, failed = 0;
    if (argc > 3) sim_watch_every = MP_MS(strtoull(argv[3], NULL, 0));
    for (int i = 0; i < n; i++) {
        if (argc > 1 && strcmp(argv[1], rows[i].name)) continue;
        if (argc > 2)
            run(&rows[i], strtoull(argv[2], NULL, 0));
        else
            failed += !row_holds(&rows[i]);
    }
    printf("sim_rough: %d rows failed\n", failed);
    return failed != 0;
}
