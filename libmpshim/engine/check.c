/* engine/check.c: mptcp-run --check: what an engine would find here. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/ctlpath.h"
#include "engine/host.h"

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
    int err = eng_net_open(e, &why);
    if (!err)
        check_line(k, true, "the engine starts", NULL);
    else if (!k->bad)
        check_line(k, false, why, strerror(-err));
}

static void check_engine(struct engine *e, struct check *k)
{
    const char *why = "";
    int err = eng_loop_open(e, &why);
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
    struct engine *e = eng_new(&cfg, &err, &why);
    if (!e) {
        check_line(&k, false, why, NULL);
        return 1;
    }
    check_engine(e, &k);
    eng_free(e);
    return k.bad ? 1 : 0;
}
