/* sim/scen_int.h: a run of a scenario, as the files that make it share it. scen.c the run itself, scen_build.c hosts and paths,
 * scen_save.c connections saved and loaded, scen_check.c what must hold. */
#ifndef SIM_SCEN_INT_H
#define SIM_SCEN_INT_H

#include "sim/scen.h"

struct run {
    int saved;
    const struct sim_scen *sc;
    struct sim sim;
    struct sim_host *host[2]; /* client, server */
    struct sim_app app[2];
    struct sim_link *link[SIM_SCEN_PATHS][2];
    struct sim_box *box[SIM_SCEN_PATHS][SIM_SCEN_BOXES];
    struct sim_link *bottleneck[2];
    int next_change;
    uint64_t back_bytes;                          /* what back_path had delivered at back_at */
    uint64_t progress;                            /* of all applications, when last looked at */
    mp_time progress_at;                          /* it changed last */
    bool box_acted;                               /* box[0][0] has touched a packet */
    uint64_t before_bytes[SIM_SCEN_PATHS][2];     /* what the links had delivered then */
};

/* ---- scen_build.c ---- */
void sim_scen_build(struct run *r); /* r->sc and r->sim are set: hosts, paths, connections */

/* ---- scen_save.c ---- */
void sim_scen_settle(struct run *r, int side);        /* before either of the following */
void sim_scen_save_and_load(struct run *r, int side); /* all connections of a host go on as copies in a new stack */
void sim_scen_touch_all(struct run *r, int side);     /* what loading alone does to them: the run to compare with */

/* ---- scen_check.c: each fails the simulation with what is wrong ---- */
void sim_scen_check_finished(struct run *r);          /* at the end of its time */
void sim_scen_check_back(struct run *r);              /* at each step: is the path that came back used? */
void sim_scen_check_stall(struct run *r, struct sim_result *res); /* at each step; keeps res->calm_stall */
void sim_scen_check(struct run *r, const struct sim_result *res); /* what the scenario expects of the whole run */
void sim_scen_check_nothing_left(struct run *r);      /* when all had time to go away */

#endif
