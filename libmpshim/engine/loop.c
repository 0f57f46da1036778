/* engine/loop.c: the loop, the pump between the stack and the network, and the slow round.
 *
 * Whatever touched the stack marks it dirty; before the loop sleeps, one prepare watcher moves carriers' bytes, sends
 * what the stack has to send, reacts to its events, and sets the alarm. So work is done in batches, and nothing
 * re-enters anything. */
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "engine/host.h"

enum { PUMP_ROUNDS = 16, FREED_EXIT_LINGER_S = 60 };

/* ---- the pump ---- */

void eng_touch(struct engine *e) { e->dirty = true; }

void eng_flush(struct engine *e)
{
    struct mp_pkt p;
    mp_time now = eng_now();
    while (mp_stack_poll(e->stack, &p, now)) {
        eng_will_note(e, p.conn, p.flow);
        io_output(e->io, &p);
    }
}

static bool take_events(struct engine *e)
{
    struct mpc *c;
    unsigned bits;
    bool any = false;
    while (mp_stack_event(e->stack, &c, &bits)) {
        if (bits & MP_EV_ACCEPT)
            eng_will_note(e, c, NULL); /* it may be for the peer to speak first */
        eng_carrier_on_event(e, c, bits, eng_now());
        any = true;
    }
    return any;
}

static void alarm_set(struct engine *e)
{
    mp_time at = mp_stack_deadline(e->stack);
    if (at >= e->alarm_at)
        return; /* it rings early, finds nothing, and is set again: fewer system calls than moving it each time */
    if (at == 0)
        at = 1;
    struct itimerspec its = { .it_value = { .tv_sec = (time_t)(at / MP_SEC(1)), .tv_nsec = (long)(at % MP_SEC(1)) } };
    timerfd_settime(e->alarm_fd, TFD_TIMER_ABSTIME, &its, NULL);
    e->alarm_at = at;
}

static void pump(struct engine *e)
{
    e->dirty = false;
    mp_time now = eng_now();
    if (mp_stack_deadline(e->stack) <= now)
        mp_stack_tick(e->stack, now);
    for (int i = 0; i < PUMP_ROUNDS; i++) {
        eng_flush(e);
        bool any = take_events(e);
        any |= e->runq != NULL;
        eng_carriers_run(e);
        if (!any)
            break;
        e->dirty = i == PUMP_ROUNDS - 1;
    }
    if (e->dirty)
        eng_flush(e);
    alarm_set(e);
}

static bool has_work(const struct engine *e) { return e->dirty || e->runq; }

static void on_prepare(struct ev_loop *loop, ev_prepare *w, int events)
{
    (void)events;
    struct engine *e = w->data;
    if (has_work(e))
        pump(e);
    eng_drain_check(e, eng_now());
    if (has_work(e))
        ev_idle_start(loop, &e->idle);
    else
        ev_idle_stop(loop, &e->idle);
}

static void on_idle(struct ev_loop *loop, ev_idle *w, int events) { (void)loop, (void)w, (void)events; }

static void on_alarm(struct ev_loop *loop, ev_io *w, int events)
{
    (void)loop, (void)events;
    struct engine *e = w->data;
    uint64_t n;
    if (read(e->alarm_fd, &n, sizeof n) < 0 && errno == EAGAIN)
        return;
    e->alarm_at = MP_NEVER;
    e->dirty = true;
}

static void on_carriers(struct ev_loop *loop, ev_io *w, int events)
{
    (void)loop, (void)events;
    eng_carriers_on_ready(w->data);
    eng_touch(w->data);
}

/* ---- the slow round ---- */

/* Nothing left that needs this engine? */
static bool is_idle(struct engine *e)
{
    return e->nlive == 0 && mp_stack_live(e->stack) == 0 && !eng_port_any(e) && !e->heirs && !eng_ctl_any(e);
}

static void idle_check(struct engine *e, mp_time now)
{
    if (e->leaving && e->nlive == 0 && !eng_port_any(e) && !e->drains) {
        if (!e->idle_since)
            e->idle_since = now;
        if (mp_stack_live(e->stack) == 0 || now - e->idle_since > MP_SEC(FREED_EXIT_LINGER_S))
            ev_break(e->loop, EVBREAK_ALL);
        return;
    }
    if (!e->idle_exit_s || !is_idle(e)) {
        e->idle_since = 0;
        return;
    }
    if (!e->idle_since)
        e->idle_since = now;
    if (now - e->idle_since >= MP_SEC(e->idle_exit_s))
        ev_break(e->loop, EVBREAK_ALL);
}

static bool sweep_needed(const struct engine *e)
{
    return e->all || e->ports || e->leaving || e->idle_exit_s || eng_will_next(e) != MP_NEVER;
}

static void sweep_set(struct engine *e, mp_dur in)
{
    ev_timer_stop(e->loop, &e->sweep);
    ev_now_update(e->loop);
    ev_timer_set(&e->sweep, (double)in / 1e9, 0.);
    ev_timer_start(e->loop, &e->sweep);
}

static void on_sweep(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop, (void)events;
    struct engine *e = w->data;
    mp_time now = eng_now();
    eng_carriers_sweep(e, now);
    eng_identity_sweep(e, now);
    eng_port_check(e, now);
    eng_will_sweep(e, now);
    idle_check(e, now);
    if (!sweep_needed(e))
        return;
    mp_time at = mp_min(eng_carriers_next_look(e), eng_will_next(e));
    if (e->ports_again)
        at = mp_min(at, e->ports_again);
    sweep_set(e, at <= now ? MP_MS(1) : mp_min(at - now, MP_SEC(1)));
}

void eng_sweep_at(struct engine *e, mp_time at)
{
    mp_time now = eng_now();
    mp_dur in = at <= now ? MP_MS(1) : mp_min(at - now, MP_SEC(1));
    if (!ev_is_active(&e->sweep) || ev_timer_remaining(e->loop, &e->sweep) > (double)in / 1e9)
        sweep_set(e, in);
}

/* ---- its start ---- */

static void watch_fd(struct engine *e, ev_io *w, void (*cb)(struct ev_loop *, ev_io *, int), int fd)
{
    ev_io_init(w, cb, fd, EV_READ);
    w->data = e;
    ev_io_start(e->loop, w);
}

int eng_loop_open(struct engine *e, const char **why)
{
    *why = "no event loop";
    e->loop = ev_loop_new(EVFLAG_NOENV | EVBACKEND_EPOLL | EVFLAG_NOSIGMASK);
    if (!e->loop)
        return -ENOMEM;
    e->alarm_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    e->epfd = epoll_create1(EPOLL_CLOEXEC);
    e->reserve_fd = fcntl(e->epfd, F_DUPFD_CLOEXEC, 0);
    e->diag_fd = eng_diag_open();
    if (e->alarm_fd < 0 || e->epfd < 0 || e->diag_fd < 0)
        return -errno;
    watch_fd(e, &e->alarm, on_alarm, e->alarm_fd);
    watch_fd(e, &e->carriers, on_carriers, e->epfd);
    ev_prepare_init(&e->prepare, on_prepare);
    ev_idle_init(&e->idle, on_idle);
    ev_timer_init(&e->sweep, on_sweep, 1., 0.);
    e->prepare.data = e->idle.data = e->sweep.data = e;
    ev_prepare_start(e->loop, &e->prepare);
    return 0;
}
