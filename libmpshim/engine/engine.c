/* engine/engine.c: an engine's parts come together: its services, its settings, its life. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "engine/host.h"

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

static bool is_pipe(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

/* Whoever reads the messages may stand still (a pager, a stopped terminal), and all connections of this engine, in a helper those of
 * other programs, must not wait for that: the line is lost. O_NONBLOCK would be the program's too. */
static void write_at_once(int fd, char *line, size_t n)
{
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    struct iovec v = { line, n };
    if (send(fd, line, n, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 || errno != ENOTSOCK)
        return;
    if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT))
        return;
    if (is_pipe(fd) && (pwritev2(fd, &v, 1, -1, RWF_NOWAIT) >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS)))
        return; /* the program may have filled it since */
    if (write(fd, line, n) < 0)
        return; /* the reader of the messages has gone: SIGPIPE is blocked here */
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
    write_at_once(fd, line, (size_t)n);
}

/* ---- what the stack asks for: the engine's own part here, the network's in io/ ---- */

static void op_random(void *arg, void *p, size_t n) { eng_random(arg, p, n); }
static void op_host_key(void *arg, uint8_t key[16]) { eng_host_key(arg, key); }
static void *op_flow_open(void *arg, int ifindex, const struct mp_endpoint *l, const struct mp_endpoint *r, bool passive)
{
    return io_flow_open(((struct engine *)arg)->io, ifindex, l, r, passive);
}
static void op_flow_close(void *arg, void *flow)
{
    struct engine *e = arg;
    eng_will_forget(e, flow);
    io_flow_close(e->io, flow);
}
static uint32_t op_slice_max(void *arg, void *flow, uint32_t mss) { return io_slice_max(((struct engine *)arg)->io, flow, mss); }
static bool op_writable(void *arg, void *flow) { return io_writable(((struct engine *)arg)->io, flow); }
static bool op_route(void *arg, int ifindex, const struct mp_addr *l, const struct mp_addr *r, uint32_t mark)
{
    return io_route(((struct engine *)arg)->io, ifindex, l, r, mark);
}
static bool op_withheld(void *arg, void *flow, uint32_t mark) { return io_withheld(((struct engine *)arg)->io, flow, mark); }
static uint32_t op_mtu(void *arg, int ifindex) { return io_mtu(((struct engine *)arg)->io, ifindex); }
static uint16_t op_port_get(void *arg, uint8_t family, bool fresh) { return io_port_get(((struct engine *)arg)->io, family, fresh); }
static void op_port_put(void *arg, uint8_t family, uint16_t port) { io_port_put(((struct engine *)arg)->io, family, port); }
static void op_port_hold(void *arg, uint8_t family, uint16_t port) { io_port_hold(((struct engine *)arg)->io, family, port); }

static bool op_listening(void *arg, void *owner)
{
    (void)arg;
    return eng_port_listens(owner);
}

static bool op_crowded(void *arg, void *owner)
{
    (void)arg;
    return eng_port_is_crowded(owner);
}

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
    .withheld = op_withheld, .listening = op_listening, .crowded = op_crowded, .host_key = op_host_key,
};

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
        e->strings[i] = mp_text_copy(v[i]);
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

void eng_free(struct engine *e)
{
    if (!e)
        return;
    eng_will_close(e);
    if (e->loop) {
        eng_heirs_free(e);
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
    int fds[] = { e->reserve_fd, e->alarm_fd, e->epfd, e->diag_fd, e->log_fd, e->ctl_fd, e->move_to, e->move_reply, e->lock_fd, e->take_fd };
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    strings_free(e);
    free(e->client_settings);
    free(e->kept);
    free(e);
}

struct engine *eng_new(const struct eng_cfg *cfg, int *err, const char **why)
{
    struct engine *e = calloc(1, sizeof *e);
    *why = "out of memory";
    *err = -ENOMEM;
    if (!e)
        return NULL;
    e->reserve_fd = e->alarm_fd = e->epfd = e->diag_fd = e->lo4 = e->lo6 = e->icmp4 = e->icmp6 = -1;
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
    *err = eng_will_init(e, cfg);
    if (!*err)
        *err = settings_take(e, cfg->settings, why);
    if (*err) {
        e->ctl_fd = e->log_fd = -1; /* still the caller's */
        eng_free(e);
        return NULL;
    }
    return e;
}

static void on_kick(void *arg) { eng_touch(arg); }

int eng_net_open_stack(struct engine *e, const char **why)
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

int eng_net_open(struct engine *e, const char **why)
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
    return eng_net_open_stack(e, why);
}

int eng_open(struct engine *e, const char **why)
{
    int err = eng_loop_open(e, why);
    if (!err)
        err = eng_net_open(e, why);
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

void eng_run(struct engine *e)
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
    char *copy = mp_text_copy(text), *save = NULL;
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
    e->client_settings = mp_text_copy(text);
    net_close(e);
    int err = settings_take_text(e, text);
    if (err) {
        strings_free(e);
        settings_take(e, NULL, &why);
    }
    if (eng_net_open_stack(e, &why))
        ev_break(e->loop, EVBREAK_ALL); /* without a network there is nothing to serve */
    eng_touch(e);
}
