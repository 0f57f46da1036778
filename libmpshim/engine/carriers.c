/* engine/carriers.c: all of an engine's carriers: found by name, queued, looked at together. */
#include "engine/carrier.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- table ---- */

static unsigned bucket(const struct mp_endpoint *id) { return id->port & (ENG_HASH - 1); }

/* Newest first, so a ghost of the same names is never found instead of what lives. */
struct carrier *eng_carrier_find(struct engine *e, const struct mp_endpoint *id, const struct mp_endpoint *prog)
{
    for (struct carrier *c = e->hash[bucket(id)]; c; c = c->hash_next)
        if (mp_endpoint_eq(&c->identity, id) && mp_endpoint_eq(&c->prog, prog))
            return c;
    return NULL;
}

/* The one at this identity whose program has not sent its SYN yet: there is one at most. */
struct carrier *eng_carrier_find_awaited(struct engine *e, const struct mp_endpoint *id)
{
    for (struct carrier *c = e->hash[bucket(id)]; c; c = c->hash_next)
        if (!c->prog.port && mp_endpoint_eq(&c->identity, id))
            return c;
    return NULL;
}

void eng_carrier_hash_in(struct carrier *c)
{
    struct carrier **b = &c->e->hash[bucket(&c->identity)];
    c->hash_next = *b;
    c->hash_pprev = b;
    if (*b)
        (*b)->hash_pprev = &c->hash_next;
    *b = c;
}

void eng_carrier_hash_out(struct carrier *c)
{
    if (!c->hash_pprev)
        return;
    *c->hash_pprev = c->hash_next;
    if (c->hash_next)
        c->hash_next->hash_pprev = c->hash_pprev;
    c->hash_pprev = NULL;
}

struct carrier *eng_carrier_new(struct engine *e)
{
    struct carrier *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->e = e;
    c->fd = c->guard_fd = -1;
    c->born = eng_now();
    c->next_look = MP_NEVER;
    c->next = e->all;
    c->pprev = &e->all;
    if (e->all)
        e->all->pprev = &c->next;
    e->all = c;
    e->nlive++;
    c->counted = true;
    return c;
}

void eng_carrier_close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void unqueue(struct carrier *c)
{
    struct engine *e = c->e;
    for (struct carrier **p = &e->runq; c->queued && *p; p = &(*p)->run_next)
        if (*p == c) {
            *p = c->run_next;
            if (e->runq_tail == &c->run_next)
                e->runq_tail = p;
            c->queued = false;
            return;
        }
}

void eng_carrier_free(struct carrier *c)
{
    unqueue(c);
    eng_carrier_hash_out(c);
    *c->pprev = c->next;
    if (c->next)
        c->next->pprev = c->pprev;
    eng_carrier_close_fd(&c->fd);
    eng_carrier_close_fd(&c->guard_fd);
    if (c->counted)
        c->e->nlive--;
    else
        c->e->nghosts--;
    free(c);
}

void eng_carrier_queue(struct carrier *c)
{
    if (c->queued)
        return;
    c->queued = true;
    c->run_next = NULL;
    *c->e->runq_tail = c;
    c->e->runq_tail = &c->run_next;
}

void eng_carrier_look_in(struct carrier *c, mp_dur d, mp_time now)
{
    c->look_every = d;
    c->next_look = now + d;
    eng_sweep_at(c->e, c->next_look);
}

/* ---- all of them ---- */

mp_time eng_carriers_next_look(struct engine *e)
{
    mp_time at = MP_NEVER;
    for (struct carrier *c = e->all; c; c = c->next)
        at = mp_min(at, c->next_look);
    return at;
}

void eng_carriers_free(struct engine *e)
{
    while (e->all)
        eng_carrier_free(e->all);
}

/* ---- draining ---- */

static void poke(struct carrier *c)
{
    c->prog_left = eng_carrier_left(c);
    c->may_read = true; /* its end may be here though the loop has not heard of it */
    eng_carrier_queue(c);
}

void eng_carriers_poke(struct engine *e, const struct port *p)
{
    for (struct carrier *c = e->all; c; c = c->next)
        if (c->state == CR_OPEN && !c->prog_eof && (!p || c->port == p))
            poke(c);
}

/* Its program's side is open, as far as we have read. */
static bool is_open(const struct carrier *c)
{
    return c->state == CR_OPEN && !c->prog_eof && !c->may_read && !c->prog_left;
}

bool eng_carriers_held(struct engine *e)
{
    for (struct carrier *c = e->all; c; c = c->next)
        if (c->mpc && !c->closed && (is_open(c) || c->state == CR_PENDING || c->state == CR_MEETING))
            return true;
    return false;
}

bool eng_carriers_delivered(struct engine *e, bool and_closed)
{
    for (struct carrier *c = e->all; c; c = c->next) {
        if (!c->mpc || c->closed || is_open(c) || c->state == CR_PENDING || c->state == CR_MEETING)
            continue;
        if (!c->prog_eof || and_closed || !mpc_send_done(c->mpc))
            return false;
    }
    return true;
}
