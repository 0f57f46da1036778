/* engine/engine.c: the engine's start, its loop, and the pump between the stack and the network.
 *
 * Whatever touched the stack marks it dirty; before the loop sleeps, one prepare watcher moves carriers' bytes, sends
 * what the stack has to send, reacts to its events, and sets the alarm. So work is done in batches, and nothing
 * re-enters anything. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "engine/ctlpath.h"
#include "engine/eng.h"

enum { PUMP_ROUNDS = 16, FREED_EXIT_LINGER_S = 60 };

/* ---- small services ---- */

mp_time eng_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return MP_SEC(t.tv_sec) + (mp_time)t.tv_nsec;
}

static void random_fill(uint8_t *p, size_t n)
{
    while (n) {
        ssize_t r = getrandom(p, n, 0);
        if (r < 0 && errno != EINTR)
            abort(); /* keys without randomness are worse than no connection */
        if (r > 0) {
            p += r;
            n -= (size_t)r;
        }
    }
}

void eng_random(struct engine *e, void *p, size_t n)
{
    if (n > ENG_RANDOM) {
        random_fill(p, n);
        return;
    }
    if (e->rnd_left < n) {
        random_fill(e->rnd, ENG_RANDOM);
        e->rnd_left = ENG_RANDOM;
    }
    e->rnd_left -= (unsigned)n;
    memcpy(p, e->rnd + e->rnd_left, n);
    explicit_bzero(e->rnd + e->rnd_left, n);
}

void eng_log(int fd, const char *fmt, ...)
{
    char line[1024];
    if (fd < 0)
        return;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line - 1, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    if (n > (int)sizeof line - 2)
        n = (int)sizeof line - 2;
    line[n++] = '\n';
    if (write(fd, line, (size_t)n) < 0)
        return; /* the reader of the messages has gone: SIGPIPE is blocked here */
}

/* ---- what the stack asks for: the engine's own part here, the network's in io/ ---- */

static void op_random(void *arg, void *p, size_t n) { eng_random(arg, p, n); }
static void *op_flow_open(void *arg, int ifindex, const struct mp_endpoint *l, const struct mp_endpoint *r, bool passive)
{
    return io_flow_open(((struct engine *)arg)->io, ifindex, l, r, passive);
}
static void op_flow_close(void *arg, void *flow) { io_flow_close(((struct engine *)arg)->io, flow); }
static uint32_t op_slice_max(void *arg, void *flow, uint32_t mss) { return io_slice_max(((struct engine *)arg)->io, flow, mss); }
static bool op_writable(void *arg, void *flow) { return io_writable(((struct engine *)arg)->io, flow); }
static bool op_route(void *arg, int ifindex, const struct mp_addr *l, const struct mp_addr *r)
{
    return io_route(((struct engine *)arg)->io, ifindex, l, r);
}
static uint32_t op_mtu(void *arg, int ifindex) { return io_mtu(((struct engine *)arg)->io, ifindex); }
static uint16_t op_port_get(void *arg, uint8_t family, bool fresh) { return io_port_get(((struct engine *)arg)->io, family, fresh); }
static void op_port_put(void *arg, uint8_t family, uint16_t port) { io_port_put(((struct engine *)arg)->io, family, port); }
static void op_port_hold(void *arg, uint8_t family, uint16_t port) { io_port_hold(((struct engine *)arg)->io, family, port); }

static void op_trace(void *arg, int event, const struct mpc *c, const char *text)
{
    struct engine *e = arg;
    if (e->verbose >= 2)
        eng_log(e->log_fd, "mptcp-run: trace %llu.%03llu %p event %d: %s", (unsigned long long)(eng_now() / MP_SEC(1)),
                (unsigned long long)(eng_now() / MP_MS(1) % 1000), (const void *)c, event, text);
}

static void *op_conn_alloc(void *arg, size_t n) { return eng_secret_alloc(&((struct engine *)arg)->secrets, n); }
static void op_conn_free(void *arg, void *p) { eng_secret_free(&((struct engine *)arg)->secrets, p); }

static const struct mp_stack_ops stack_ops = {
    .random = op_random, .flow_open = op_flow_open, .flow_close = op_flow_close, .slice_max = op_slice_max,
    .writable = op_writable, .route = op_route, .mtu = op_mtu, .port_get = op_port_get, .port_put = op_port_put,
    .trace = op_trace, .conn_alloc = op_conn_alloc, .conn_free = op_conn_free, .port_hold = op_port_hold,
};

/* ---- the pump ---- */

void eng_touch(struct engine *e) { e->dirty = true; }

void eng_flush(struct engine *e)
{
    struct mp_pkt p;
    mp_time now = eng_now();
    while (mp_stack_poll(e->stack, &p, now))
        io_output(e->io, &p);
}

static bool take_events(struct engine *e)
{
    struct mpc *c;
    unsigned bits;
    bool any = false;
    while (mp_stack_event(e->stack, &c, &bits)) {
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

static void on_kick(void *arg) { eng_touch(arg); }

/* ---- the slow round ---- */

/* Nothing left that needs this engine? */
static bool is_idle(struct engine *e)
{
    return e->nlive == 0 && mp_stack_live(e->stack) == 0 && !eng_port_any(e) && !eng_ctl_any(e);
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
    return e->all || e->ports || e->leaving || e->idle_exit_s;
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
    idle_check(e, now);
    if (!sweep_needed(e))
        return;
    mp_time at = eng_carriers_next_look(e);
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

/* ---- settings ---- */

static int set_one(struct engine *e, char *text, const char **why)
{
    char *eq = strchr(text, '=');
    if (!eq) {
        *why = "a setting must be name=value";
        return -EINVAL;
    }
    *eq = 0;
    const char *name = text, *value = eq + 1;
    if (strcmp(name, "interfaces") == 0) {
        e->iocfg.interfaces = value;
    } else if (strcmp(name, "backup") == 0) {
        e->iocfg.backup = value;
    } else if (strcmp(name, "virtual") == 0) {
        e->iocfg.virtual_ok = strcmp(value, "off") && strcmp(value, "0") && strcmp(value, "no") && strcmp(value, "false");
    } else if (strcmp(name, "io") == 0) {
        e->iocfg.mode = strcmp(value, "raw") == 0 ? IO_RAW : strcmp(value, "fast") == 0 ? IO_FAST : IO_AUTO;
    } else {
        return mp_settings_set(&e->set, name, value, why);
    }
    return 0;
}

static int settings_take(struct engine *e, const char *const *v, const char **why)
{
    size_t n = 0;
    mp_settings_default(&e->set);
    while (v && v[n])
        n++;
    e->strings = calloc(n + 1, sizeof *e->strings);
    if (!e->strings)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        e->strings[i] = strdup(v[i]);
        int err = e->strings[i] ? set_one(e, e->strings[i], why) : -ENOMEM;
        if (err)
            return err;
    }
    return 0;
}

/* ---- life ---- */

static void net_close(struct engine *e)
{
    if (e->stack)
        mp_stack_free(e->stack);
    if (e->io)
        io_free(e->io);
    e->stack = NULL;
    e->io = NULL;
}

static void strings_free(struct engine *e)
{
    for (size_t i = 0; e->strings && e->strings[i]; i++)
        free(e->strings[i]);
    free(e->strings);
    e->strings = NULL;
}

static void engine_free(struct engine *e)
{
    if (!e)
        return;
    if (e->loop) {
        eng_keeper_end(e);
        eng_drain_free(e);
        eng_statsock_close(e);
        eng_asksock_close(e);
        eng_ctl_stop(e);
        eng_lo_close(e);
    }
    eng_identity_fini(e);
    eng_carriers_free(e); /* SO_LINGER {1,0}: programs see a reset */
    eng_port_free_all(e);
    eng_plain_free(e);
    net_close(e);
    eng_secrets_fini(&e->secrets);
    explicit_bzero(e->rnd, sizeof e->rnd);
    if (e->loop)
        ev_loop_destroy(e->loop);
    int fds[] = { e->alarm_fd, e->epfd, e->diag_fd, e->log_fd, e->ctl_fd, e->move_to, e->move_reply, e->lock_fd, e->take_fd };
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    strings_free(e);
    free(e->client_settings);
    free(e->kept);
    free(e);
}

static struct engine *engine_new(const struct eng_cfg *cfg, int *err, const char **why)
{
    struct engine *e = calloc(1, sizeof *e);
    *why = "out of memory";
    *err = -ENOMEM;
    if (!e)
        return NULL;
    e->alarm_fd = e->epfd = e->diag_fd = e->lo4 = e->lo6 = e->icmp4 = e->icmp6 = -1;
    e->move_to = e->move_reply = -1;
    e->lock_fd = cfg->lock_fd ? cfg->lock_fd : -1;
    e->take_fd = cfg->take_fd ? cfg->take_fd : -1;
    e->ready = cfg->ready;
    e->ready_arg = cfg->ready_arg;
    e->ctl_fd = cfg->ctl_fd;
    e->log_fd = cfg->log_fd;
    e->verbose = cfg->verbose;
    e->is_listening = cfg->is_listening;
    e->idle_exit_s = cfg->idle_exit_s;
    e->alarm_at = MP_NEVER;
    e->runq_tail = &e->runq;
    *err = settings_take(e, cfg->settings, why);
    if (*err) {
        e->ctl_fd = e->log_fd = -1; /* still the caller's */
        engine_free(e);
        return NULL;
    }
    return e;
}

static void watch_fd(struct engine *e, ev_io *w, void (*cb)(struct ev_loop *, ev_io *, int), int fd)
{
    ev_io_init(w, cb, fd, EV_READ);
    w->data = e;
    ev_io_start(e->loop, w);
}

static int loop_open(struct engine *e, const char **why)
{
    *why = "no event loop";
    e->loop = ev_loop_new(EVFLAG_NOENV | EVBACKEND_EPOLL | EVFLAG_NOSIGMASK);
    if (!e->loop)
        return -ENOMEM;
    e->alarm_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    e->epfd = epoll_create1(EPOLL_CLOEXEC);
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

static int net_open_stack(struct engine *e, const char **why)
{
    int err = 0;
    e->iocfg.kick = on_kick;
    e->iocfg.arg = e;
    *why = "cannot open the network";
    e->io = io_new(e->loop, &e->stack, &e->iocfg, &err);
    if (!e->io) {
        if (err == EPERM || err == -EPERM)
            *why = "no privilege to open raw sockets (CAP_NET_RAW)";
        return err < 0 ? err : err ? -err : -EIO;
    }
    e->stack = mp_stack_new(&stack_ops, e, &e->set);
    if (!e->stack)
        return -ENOMEM;
    io_paths_start(e->io);
    return 0;
}

static int net_open(struct engine *e, const char **why)
{
    int err = eng_lo_is_up(e);
    if (err) {
        *why = "the loopback interface (lo) is down";
        return err;
    }
    eng_identity_init(e);
    if ((err = eng_lo_open(e))) {
        *why = err == -EPERM ? "no privilege to open raw sockets (CAP_NET_RAW)" : "cannot open a raw socket on loopback";
        return err;
    }
    return net_open_stack(e, why);
}

static int engine_open(struct engine *e, const char **why)
{
    int err = loop_open(e, why);
    if (!err)
        err = net_open(e, why);
    if (!err) {
        *why = "cannot serve the control socket";
        err = eng_ctl_start(e);
    }
    if (!err) {
        eng_statsock_open(e);
        eng_asksock_open(e);
    }
    if (!err && e->idle_exit_s)
        eng_sweep_at(e, eng_now() + MP_SEC(1));
    eng_touch(e);
    return err;
}

static void engine_run(struct engine *e)
{
    do
        ev_run(e->loop, 0);
    while (e->move_to >= 0 && !eng_ctl_moved(e));
}

/* ---- settings of a helper's clients ---- */

static int settings_take_text(struct engine *e, const char *text)
{
    const char *v[64];
    size_t n = 0;
    char *copy = strdup(text), *save = NULL;
    if (!copy)
        return -ENOMEM;
    for (char *l = strtok_r(copy, "\n", &save); l && n < 63; l = strtok_r(NULL, "\n", &save))
        v[n++] = l;
    v[n] = NULL;
    const char *why = NULL;
    strings_free(e);
    e->iocfg = (struct io_cfg){ 0 };
    int err = settings_take(e, v, &why);
    free(copy);
    return err;
}

void eng_reconfigure(struct engine *e, const char *text)
{
    const char *why;
    bool same = e->client_settings ? strcmp(e->client_settings, text) == 0 : !*text;
    if (same || e->nlive || e->ports || mp_stack_live(e->stack))
        return;
    free(e->client_settings);
    e->client_settings = strdup(text);
    net_close(e);
    int err = settings_take_text(e, text);
    if (err) {
        strings_free(e);
        settings_take(e, NULL, &why);
    }
    if (net_open_stack(e, &why))
        ev_break(e->loop, EVBREAK_ALL); /* without a network there is nothing to serve */
    eng_touch(e);
}

/* ---- host: a thread of the program ---- */

struct start {
    struct engine *e;
    void (*thread_begin)(void);
    int err;
    const char *why;
    bool done;
    pthread_mutex_t lock;
    pthread_cond_t cond;
};

static int cmp_int(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static void close_between(int from, int to)
{
    if (from <= to)
        syscall(SYS_close_range, (unsigned)from, (unsigned)to, 0u);
}

/* In the thread's own file table: everything goes but what the engine was given. */
static void close_others(const int *keep_in, int n)
{
    int keep[4], from = 0, kept = 0;
    for (int i = 0; i < n; i++)
        if (keep_in[i] >= 0)
            keep[kept++] = keep_in[i];
    qsort(keep, (size_t)kept, sizeof *keep, cmp_int);
    for (int i = 0; i < kept; i++) {
        close_between(from, keep[i] - 1);
        from = keep[i] + 1;
    }
    syscall(SYS_close_range, (unsigned)from, ~0u, 0u);
}

static int own_files(struct engine *e, const char **why)
{
    if (unshare(CLONE_FILES | CLONE_FS)) {
        *why = "cannot have a file table of its own (unshare)";
        return -errno;
    }
    int keep[] = { e->ctl_fd, e->log_fd };
    close_others(keep, 2);
    return 0;
}

static void started(struct start *s, int err)
{
    pthread_mutex_lock(&s->lock);
    s->err = err;
    s->done = true;
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

/* Copies of keys stay on the stack for a while. With -vv it is dumped all the same, for who looks for a fault here. */
static void stack_in_dumps(int advice)
{
    pthread_attr_t a;
    void *at;
    size_t n;
    if (pthread_getattr_np(pthread_self(), &a))
        return;
    if (pthread_attr_getstack(&a, &at, &n) == 0)
        (void)madvise(at, n, advice);
    pthread_attr_destroy(&a);
}

static void *engine_thread(void *arg)
{
    struct start *s = arg;
    struct engine *e = s->e;
    if (e->verbose < 2)
        stack_in_dumps(MADV_DONTDUMP);
    if (s->thread_begin)
        s->thread_begin();
    prctl(PR_SET_NAME, "mpshim-engine");
    int err = own_files(e, &s->why);
    bool own = !err;
    if (!err)
        err = engine_open(e, &s->why);
    if (!own)
        e->ctl_fd = e->log_fd = -1; /* the starter closes them: one table still */
    started(s, err); /* s is gone from here on */
    if (!err)
        engine_run(e);
    engine_free(e);
    stack_in_dumps(MADV_DODUMP); /* it may become another thread's */
    return NULL;
}

static int thread_create(struct start *s)
{
    pthread_t t;
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    /* The C library keeps its own signals open in this set: setuid() in the program must still reach this thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = pthread_create(&t, &attr, engine_thread, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return -err;
}

static void wait_started(struct start *s)
{
    pthread_mutex_lock(&s->lock);
    while (!s->done)
        pthread_cond_wait(&s->cond, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static void close_cfg(const struct eng_cfg *cfg)
{
    if (cfg->ctl_fd >= 0)
        close(cfg->ctl_fd);
    if (cfg->log_fd >= 0)
        close(cfg->log_fd);
}

int mpshim_engine_start(const struct eng_cfg *cfg, const char **why)
{
    struct start s = { .thread_begin = cfg->thread_begin, .why = "" };
    const char *none;
    int err = 0;
    if (!why)
        why = &none;
    s.e = engine_new(cfg, &err, why);
    if (!s.e) {
        close_cfg(cfg);
        return err;
    }
    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.cond, NULL);
    err = thread_create(&s);
    if (err) {
        *why = "cannot create a thread";
        s.e->ctl_fd = s.e->log_fd = -1;
        engine_free(s.e);
    } else {
        wait_started(&s);
        err = s.err;
        *why = s.why;
    }
    close_cfg(cfg); /* the thread has its own copies */
    pthread_mutex_destroy(&s.lock);
    pthread_cond_destroy(&s.cond);
    return err;
}

/* ---- host: a process of its own ---- */

int mpshim_engine_main(const struct eng_cfg *cfg)
{
    const char *why = "";
    int err = 0;
    struct engine *e = engine_new(cfg, &err, &why);
    if (e)
        err = engine_open(e, &why);
    if (err) {
        dprintf(2, "mpshim-engine: %s: %s\n", why, strerror(-err));
        if (cfg->failed)
            cfg->failed(cfg->ready_arg, why);
    } else {
        engine_run(e);
    }
    bool never = !err && e->ctl_fd < 0 && !e->replaced; /* it was to replace another */
    if (never && cfg->failed)
        cfg->failed(cfg->ready_arg, "the running mpshim-engine keeps what it has");
    int status = err || never ? 1 : e->replaced ? ENGINE_REPLACED : 0;
    engine_free(e);
    return status;
}

/* ---- mptcp-run --check ---- */

struct check { int fd; int bad; };

static void check_line(void *arg, bool ok, const char *what, const char *remedy)
{
    struct check *k = arg;
    k->bad += !ok;
    dprintf(k->fd, "  %s %s\n", !ok ? "MISSING" : remedy ? "note   " : "ok     ", what);
    if (remedy)
        dprintf(k->fd, "          -> %s\n", remedy);
}

/* The host's facts, whatever the engine may and may not. */
static void check_host(struct engine *e, struct check *k)
{
    int err = 0;
    struct io_cfg cfg = e->iocfg;
    cfg.look_only = true;
    struct io *io = io_new(e->loop, &e->stack, &cfg, &err);
    if (!io)
        check_line(k, false, "links and routes cannot be read (rtnetlink)", "a kernel with CONFIG_NETLINK; no seccomp filter against AF_NETLINK");
    io_doctor(io, check_line, k);
    if (io)
        io_free(io);
}

/* Carriers are followed by it: who connects, who has gone. */
static void check_sockdiag(struct engine *e, struct check *k)
{
    struct mp_endpoint at = { .ip = { 4, { 127, 0, 0, 1 } }, .port = 1 }, from = at;
    struct diag_sock s;
    int err = eng_diag_find(e, &at, &from, &s);
    bool ok = err == 0 || err == -ENOENT;
    check_line(k, ok, ok ? "socket diagnosis (sock_diag): works" : "socket diagnosis (sock_diag): not in this kernel",
               ok ? NULL : "modprobe tcp_diag");
}

static void check_helper(struct check *k)
{
    char path[108], text[160];
    int err = mpshim_ctl_path(path, sizeof path);
    snprintf(text, sizeof text, "the helper's control socket: %s", err ? strerror(-err) : path);
    check_line(k, !err, text, err ? "its directory must be yours alone: rm -r it, or set XDG_RUNTIME_DIR" : NULL);
}

/* The whole, as a program would start it; what fails for a reason told above is not told again. */
static void check_start(struct engine *e, struct check *k)
{
    const char *why = "";
    int err = net_open(e, &why);
    if (!err)
        check_line(k, true, "the engine starts", NULL);
    else if (!k->bad)
        check_line(k, false, why, strerror(-err));
}

static void check_engine(struct engine *e, struct check *k)
{
    const char *why = "";
    int err = loop_open(e, &why);
    if (err) {
        check_line(k, false, why, strerror(-err));
        return;
    }
    check_host(e, k);
    check_sockdiag(e, k);
    check_helper(k);
    check_start(e, k);
}

int mpshim_engine_check(int fd, const char *const *settings)
{
    struct check k = { .fd = fd };
    struct eng_cfg cfg = { .ctl_fd = -1, .log_fd = -1, .settings = settings };
    const char *why = "";
    int err = 0;
    struct engine *e = engine_new(&cfg, &err, &why);
    if (!e) {
        check_line(&k, false, why, NULL);
        return 1;
    }
    check_engine(e, &k);
    engine_free(e);
    return k.bad ? 1 : 0;
}
