/* engine/drain.c: a process ends and waits, within its limit, until what it wrote has been delivered. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/carrier.h"

struct drain {
    struct drain *next;
    int fd;             /* reply socket; owned */
    bool leave;         /* nothing may be alive, in other processes neither */
    mp_time until;      /* the limit */
    mp_time done_since; /* 0: data is still out */
    ev_timer timer;
    struct engine *e;
};

/* All data was acknowledged: connections that are closing get this long to finish in order, for with this process go
 * its port guards, and the kernel would answer the peer's last FINs with resets. Mostly it is one round trip. */
#define CLOSE_GRACE MP_MS(500)

static void drain_end(struct drain *d, int result)
{
    struct ctl_rep rep = { .version = CTL_VERSION, .op = d->leave ? CTL_LEAVE : CTL_DRAIN, .result = result };
    if (d->fd >= 0) {
        (void)send(d->fd, &rep, sizeof rep, MSG_NOSIGNAL | MSG_DONTWAIT);
        close(d->fd);
    }
    ev_timer_stop(d->e->loop, &d->timer);
    for (struct drain **p = &d->e->drains; *p; p = &(*p)->next)
        if (*p == d) {
            *p = d->next;
            break;
        }
    free(d);
}

static bool all_delivered(struct engine *e)
{
    if (!eng_carriers_delivered(e, false))
        return false;
    for (struct mpc *m = mp_stack_first(e->stack); m; m = mp_stack_next(m))
        if (!mpc_owner(m) && !mpc_send_done(m) && mpc_error(m) == 0)
            return false; /* released: its carrier is gone, its data is not */
    return true;
}

/* More than this does not leave in the moment that a process may be kept waiting. */
#define FEW_BYTES (64 << 10)

static bool has_much_to_send(struct engine *e)
{
    uint64_t sum = 0;
    for (struct carrier *c = e->all; c; c = c->next) {
        struct ctl_rep rep;
        if (c->mpc)
            eng_carrier_facts(c, &rep), sum += rep.unacked_bytes;
    }
    for (struct mpc *m = mp_stack_first(e->stack); m; m = mp_stack_next(m)) {
        struct mpc_info i;
        mpc_get_info(m, &i);
        sum += mpc_owner(m) ? 0 : i.bytes_written - i.bytes_acked;
    }
    return sum > FEW_BYTES;
}

static bool leave_step(struct drain *d, mp_time now)
{
    struct engine *e = d->e;
    bool alive = eng_carriers_held(e) || eng_port_any(e);
    if (!alive && all_delivered(e) && eng_carriers_delivered(e, true) && !mp_stack_closing(e->stack)) {
        drain_end(d, 0);
        return true;
    }
    if (!alive && now < d->until && !has_much_to_send(e))
        return false;
    drain_end(d, -EINPROGRESS);
    return true;
}

static bool drain_step(struct drain *d, mp_time now)
{
    if (d->leave)
        return leave_step(d, now);
    if (now >= d->until) {
        drain_end(d, d->done_since ? 0 : -ETIMEDOUT);
        return true;
    }
    if (!all_delivered(d->e)) {
        d->done_since = 0;
        return false;
    }
    if (!d->done_since)
        d->done_since = now;
    if ((!eng_carriers_delivered(d->e, true) || mp_stack_closing(d->e->stack)) && now - d->done_since < CLOSE_GRACE)
        return false;
    drain_end(d, 0);
    return true;
}

static void on_drain(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop, (void)events;
    drain_step(w->data, eng_now());
}

void eng_drain_add(struct engine *e, int fd, uint64_t ms, bool leave)
{
    struct drain *d = calloc(1, sizeof *d);
    if (!d) {
        close(fd);
        return;
    }
    d->e = e;
    d->leave = leave;
    d->fd = fd;
    d->until = eng_now() + MP_MS(ms);
    d->next = e->drains;
    e->drains = d;
    ev_timer_init(&d->timer, on_drain, 0.005, 0.005);
    d->timer.data = d;
    ev_timer_start(e->loop, &d->timer);
    if (leave)
        eng_port_check(e, 0);
    /* What the process wrote and how it ended may wait in sockets that the loop has not looked at yet. */
    eng_carriers_on_ready(e);
    eng_carriers_poke(e, NULL);
    eng_carriers_run(e);
    eng_touch(e);
}

void eng_drain_check(struct engine *e, mp_time now)
{
    struct drain *d = e->drains, *next;
    for (; d; d = next) {
        next = d->next;
        drain_step(d, now);
    }
}

void eng_drain_free(struct engine *e)
{
    while (e->drains)
        drain_end(e->drains, -ECANCELED);
}
