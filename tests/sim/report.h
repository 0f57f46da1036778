/* tests/sim/report.h: how a simulated run is told. */
#ifndef TESTS_SIM_REPORT_H
#define TESTS_SIM_REPORT_H

#include "sim/scen.h"

static inline void report_head(FILE *f)
{
    fprintf(f, "%-30s %-4s %9s %8s %8s %3s  %s\n", "scenario", "", "seconds", "Mbit/s", "stall ms", "sf", "bytes per path, up/down");
}

static inline void report_row(FILE *f, const struct sim_scen *sc, const struct sim_result *r)
{
    fprintf(f, "%-30s %-4s %9.3f %8.2f %8.1f %3d ", sc->name, r->ok ? "ok" : "FAIL", (double)r->took / 1e9, r->goodput_bps / 1e6,
            (double)r->stall / 1e6, r->subflows);
    for (int i = 0; i < sc->npaths; i++)
        fprintf(f, " %llu/%llu", (unsigned long long)r->link_bytes[i][0], (unsigned long long)r->link_bytes[i][1]);
    fprintf(f, "  %s\n", r->why ? mp_plain_why_text((enum mp_plain_why)r->why) : "");
}

static inline void report_failure(FILE *f, const struct sim_scen *sc, uint64_t seed, const struct sim_result *r)
{
    bool random = strcmp(sc->name, "random") == 0;
    fprintf(f, "seed %llu: %s at %.6f s: %s\n", (unsigned long long)seed, sc->name, (double)r->failed_at / 1e9, r->failure);
    fprintf(f, "  again, traced: make replay SEED=%llu%s%s%s\n", (unsigned long long)seed, random ? "" : " ARGS=\"--scenario ",
            random ? "" : sc->name, random ? "" : "\"");
}

#endif
