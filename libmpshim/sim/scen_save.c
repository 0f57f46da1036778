/* sim/scen_save.c: a host's connections saved, and loaded into a new stack, in the middle of a run (core/save.c). */
#include <stdlib.h>

#include "core/stack_int.h"
#include "sim/scen_int.h"

static struct sim_conn *conn_with(struct sim_app *a, const struct mpc *c)
{
    for (int i = 0; i < a->n; i++)
        if (a->conn[i].c == c) return &a->conn[i];
    return NULL;
}

/* Each connection of a host, newest first, also those whose application left. */
static int list_all(struct run *r, int side, struct mpc *c[])
{
    int n = 0;
    for (struct mpc *k = mp_stack_first(r->host[side]->stack); k && n < SIM_MAX_CONN; k = mp_stack_next(k)) c[n++] = k;
    return n;
}

/* One connection is saved whatever it has yet to send. Of several the stack's queue says who is asked first, and that is
 * no connection's: they send what they have before. */
void sim_scen_settle(struct run *r, int side)
{
    if (mp_stack_live(r->host[side]->stack) < 2) return;
    sim_host_kick(r->host[side]);
    sim_run_until(&r->sim, r->sim.now);
}

/* In the order in which a new stack has them alike. */
static int save_all(struct run *r, int side, struct mpc *was[], FILE *f)
{
    int n = list_all(r, side, was);
    for (int i = n - 1; i >= 0; i--) {
        int rc = mpc_save(was[i], f);
        if (rc < 0) sim_fail(&r->sim, "mpc_save: %s", strerror(-rc));
    }
    return n;
}

static void listen_again(struct run *r, int side)
{
    struct sim_app *a = &r->app[side];
    for (int i = 0; i < a->n; i++) {
        struct mp_endpoint at = {.port = (uint16_t)(5000 + i)};
        if (a->conn[i].server && !a->conn[i].started) mp_stack_listen(r->host[side]->stack, &at, 3, 16, &a->conn[i].listener);
    }
}

/* Saves all connections of a host and goes on with copies in a new stack. */
void sim_scen_save_and_load(struct run *r, int side)
{
    struct sim_host *h = r->host[side];
    struct mpc *was[SIM_MAX_CONN];
    FILE *f = tmpfile();
    if (!f) abort();
    int n = save_all(r, side, was, f);
    r->saved = h->stack->nstray ? 0 : n; /* resets that wait to be sent are the stack's, and lost with it */
    struct sim_conn *owner[SIM_MAX_CONN];
    for (int i = 0; i < n; i++) owner[i] = conn_with(&r->app[side], was[i]);
    struct sim_rng rng = h->rng;
    mp_stack_free(h->stack);
    h->stack = NULL;
    sim_host_start(h, side ? r->sc->set_server : r->sc->set_client);
    listen_again(r, side);
    rewind(f);
    for (int i = n - 1; i >= 0 && !sim_failed(&r->sim); i--) {
        struct mpc *c = mpc_load(h->stack, f, owner[i], r->sim.now);
        if (!c) sim_fail(&r->sim, "mpc_load: connection %d of %d", n - i, n);
        if (owner[i]) owner[i]->c = c;
    }
    h->rng = rng; /* what follows draws the same numbers */
    fclose(f);
    sim_host_kick(h);
}

/* A loaded connection is asked at once whether it has something to send; some of that depends on the time alone. */
void sim_scen_touch_all(struct run *r, int side)
{
    struct mpc *c[SIM_MAX_CONN];
    for (int i = list_all(r, side, c) - 1; i >= 0; i--) conn_touch(c[i]);
    sim_host_kick(r->host[side]);
}
