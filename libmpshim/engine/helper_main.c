/* engine/helper_main.c: mpshim-engine, the engine in a process of its own (docs/architecture.md, hosts).
 *
 * Started by the shim on demand. Forks itself away from its starter, so that no program ever reaps it, takes the
 * lock of its control socket, and says on --ready-fd when it serves. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/ctl.h"
#include "engine/ctlpath.h"
#include "engine/engine.h"
#include "engine/helper.h"
#include "engine/keeper.h"

enum { IDLE_DEFAULT_S = 10, SETTINGS_MAX = 64 };

struct args {
    char ctl[PATH_ROOM];
    int idle_s, ready_fd, verbose;
    bool replace;     /* the helper that runs */
    bool foreground, check;
    bool dir_is_ours; /* closed to everybody else */
    const char *settings[SETTINGS_MAX + 1];
    int nsettings;
};

static const char usage[] =
    "usage: mpshim-engine [--ctl PATH] [--idle SECONDS] [--setting NAME=VALUE]... [--ready-fd N] [--replace] [--foreground] [-v]\n"
    "       mpshim-engine --check [--setting NAME=VALUE]...\n"
    "The helper of libmpshim: carries TCP connections of programs started by mptcp-run. Started on demand.\n"
    "  --ctl PATH      control socket (default: one per user and network namespace)\n"
    "  --idle SECONDS  end when nothing was alive that long (default 10; 0: never)\n"
    "  --ready-fd N    write \"1\" there when serving, or why not\n"
    "  --replace       take the place of the helper that runs, with all its connections; where it is of another build, programs\n"
    "                  that run stay with it and new ones come here\n"
    "  --foreground    stay with the terminal, messages to standard error\n"
    "  --check         tell what this machine has and lacks, with the privileges of this program (mptcp-run --check)\n";

static int bad_usage(const char *what)
{
    dprintf(2, "mpshim-engine: %s\n%s", what, usage);
    return 2;
}

static int take_option(struct args *a, const char *name, const char *value)
{
    if (!value)
        return bad_usage("an option lacks its value");
    if (strcmp(name, "--ctl") == 0) {
        if (snprintf(a->ctl, sizeof a->ctl, "%s", value) >= (int)sizeof a->ctl)
            return bad_usage("the path of the control socket is too long");
    } else if (strcmp(name, "--idle") == 0) {
        a->idle_s = atoi(value);
    } else if (strcmp(name, "--ready-fd") == 0) {
        a->ready_fd = atoi(value);
    } else if (strcmp(name, "--setting") == 0 && a->nsettings < SETTINGS_MAX) {
        a->settings[a->nsettings++] = value;
    } else {
        return bad_usage("unknown option");
    }
    return 0;
}

/* -1: go on; otherwise the exit status. */
static int parse(struct args *a, int argc, char **argv)
{
    *a = (struct args){ .idle_s = IDLE_DEFAULT_S, .ready_fd = -1 };
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            printf("%s", usage);
            return 0;
        } else if (strcmp(argv[i], "--foreground") == 0) {
            a->foreground = true;
        } else if (strcmp(argv[i], "--replace") == 0) {
            a->replace = true;
        } else if (strcmp(argv[i], "--check") == 0) {
            a->check = true;
        } else if (strcmp(argv[i], "-v") == 0) {
            a->verbose++;
        } else {
            int r = take_option(a, argv[i], argv[i + 1]);
            if (r)
                return r;
            i++;
        }
    }
    return -1;
}

/* ---- what the starter hears ---- */

static void ready(void *arg)
{
    struct args *a = arg;
    if (a->ready_fd < 0)
        return;
    if (write(a->ready_fd, "1", 1) < 0)
        a->ready_fd = -1;
    else
        close(a->ready_fd);
}

/* Anything but a first byte '1' is the reason, in words, for the one who waits. */
static void failed(void *arg, const char *why)
{
    struct args *a = arg;
    if (a->ready_fd >= 0 && write(a->ready_fd, why, strlen(why)) >= 0)
        close(a->ready_fd);
    a->ready_fd = -1;
}

static int complain(const char *what, int err)
{
    dprintf(2, "mpshim-engine: %s: %s\n", what, strerror(-err));
    return 1;
}

static int cannot(struct args *a, const char *what, int err)
{
    char why[96];
    snprintf(why, sizeof why, "%s: %s", what, strerror(-err));
    failed(a, why);
    return complain(what, err);
}

static struct eng_cfg config(struct args *a)
{
    return (struct eng_cfg){
        .ctl_fd = -1, .is_listening = 1, .verbose = a->verbose, .settings = a->settings, .idle_exit_s = a->idle_s,
        .log_fd = a->foreground ? dup(2) : -1, .ready = ready, .failed = failed, .ready_arg = a,
    };
}

static int run(struct args *a)
{
    int lock_fd = helper_lock(a->ctl);
    if (lock_fd == -EAGAIN) {
        ready(a);
        return 0;
    }
    if (lock_fd < 0)
        return cannot(a, "cannot lock the control socket", lock_fd);
    int fd = helper_serve_on(a->ctl);
    if (fd < 0)
        return cannot(a, "cannot make the control socket", fd);
    struct eng_cfg cfg = config(a);
    cfg.ctl_fd = fd;
    cfg.lock_fd = lock_fd;
    if (a->dir_is_ours)
        helper_remove_stale(a->ctl);
    int status = mpshim_engine_main(&cfg);
    if (status == ENGINE_REPLACED)
        return 0;
    helper_remove(a->ctl); /* the lock is still held */
    return status;
}

/* Our end of a new connection, of which the running helper has the other; -errno. */
static int ask_to_replace(const char *path)
{
    struct ctl_req q = { .version = CTL_VERSION, .op = CTL_REPLACE };
    union { struct cmsghdr h; char b[CMSG_SPACE(2 * sizeof(int))]; } c = { 0 };
    struct sockaddr_un a = helper_address(path);
    struct iovec v = { &q, sizeof q };
    struct msghdr mh = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c };
    int pair[2], to = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP); /* shows that we may */
    if (to < 0 || raw < 0 || connect(to, (struct sockaddr *)&a, sizeof a) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -errno; /* the process ends */
    c.h.cmsg_level = SOL_SOCKET;
    c.h.cmsg_type = SCM_RIGHTS;
    c.h.cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(&c.h), (int[]){ pair[1], raw }, 2 * sizeof(int));
    int err = sendmsg(to, &mh, MSG_NOSIGNAL) < 0 ? -errno : 0;
    close(pair[1]);
    close(raw);
    close(to);
    return err ? err : pair[0];
}

/* Takes the running helper's place, with all its connections. */
static int replace(struct args *a)
{
    struct eng_cfg cfg = config(a);
    cfg.take_fd = ask_to_replace(a->ctl);
    if (cfg.take_fd == -ENOENT || cfg.take_fd == -ECONNREFUSED)
        return run(a); /* there is none */
    if (cfg.take_fd < 0)
        return cannot(a, "cannot speak to the running helper", cfg.take_fd);
    int status = mpshim_engine_main(&cfg);
    if (status == 0)
        helper_remove(a->ctl);
    return status == ENGINE_REPLACED ? 0 : status;
}

int main(int argc, char **argv)
{
    struct args a;
    if (argc == 3 && strcmp(argv[1], "--keep") == 0) /* the helper's word to itself (keeper.c) */
        return mpshim_keeper_main(3, argv[2]);
    int r = parse(&a, argc, argv);
    if (r >= 0)
        return r;
    if (a.check)
        return mpshim_engine_check(1, a.settings);
    bool own_place = a.ctl[0] == 0;
    if (own_place && (r = mpshim_ctl_path(a.ctl, sizeof a.ctl)) < 0)
        return cannot(&a, "no safe place for the control socket", r);
    r = mpshim_ctl_dir(a.ctl);
    if (r < 0 && (own_place || r != -EPERM)) /* a path that was asked for may lie in a directory that others can enter */
        return cannot(&a, "no safe place for the control socket", r);
    a.dir_is_ours = r == 0;
    if (!a.foreground)
        helper_detach(&a.ready_fd);
    helper_secure();
    return a.replace ? replace(&a) : run(&a);
}
