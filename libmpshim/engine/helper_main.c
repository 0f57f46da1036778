/* engine/helper_main.c: mpshim-engine, the engine in a process of its own (docs/architecture.md, hosts).
 *
 * Started by the shim on demand. Forks itself away from its starter, so that no program ever reaps it, takes the
 * lock of its control socket, and says on --ready-fd when it serves. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "engine/ctlpath.c" /* the library keeps its own to itself */
#include "engine/engine.h"

enum { IDLE_DEFAULT_S = 10, SETTINGS_MAX = 64, PATH_ROOM = 108, LOCK_TRIES = 60 };

struct args {
    char ctl[PATH_ROOM];
    int idle_s, ready_fd, verbose;
    bool foreground;
    const char *settings[SETTINGS_MAX + 1];
    int nsettings;
};

static const char usage[] =
    "usage: mpshim-engine [--ctl PATH] [--idle SECONDS] [--setting NAME=VALUE]... [--ready-fd N] [--foreground] [-v]\n"
    "The helper of libmpshim: carries TCP connections of programs started by mptcp-run. Started on demand.\n"
    "  --ctl PATH      control socket (default: one per user and network namespace)\n"
    "  --idle SECONDS  end when nothing was alive that long (default 10; 0: never)\n"
    "  --ready-fd N    write one byte there when serving\n"
    "  --foreground    stay with the terminal, messages to standard error\n";

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

/* ---- becoming a process of its own ---- */

static void leave(pid_t child)
{
    if (child > 0)
        _exit(0);
    if (child < 0)
        _exit(1);
}

static void detach(void)
{
    leave(fork());
    setsid();
    leave(fork()); /* no session leader: never gets a terminal */
    if (chdir("/"))
        _exit(1);
}

static void secure(void)
{
    struct rlimit rl;
    prctl(PR_SET_DUMPABLE, 0); /* keys of many programs: no core dump, no ptrace by the user's other processes */
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max < 65536 ? rl.rlim_max : 65536;
        setrlimit(RLIMIT_NOFILE, &rl);
    }
}

/* ---- the control socket ---- */

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

static struct sockaddr_un address(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    memcpy(a.sun_path, path, strlen(path) + 1); /* both hold PATH_ROOM */
    return a;
}

static bool somebody_serves(const char *path)
{
    struct sockaddr_un a = address(path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    bool r = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0)
        close(fd);
    return r;
}

/* The lock decides who serves; it goes with the process. fd, or -EAGAIN: another one serves already. */
static int lock(const char *path)
{
    char name[PATH_ROOM + 8];
    struct timespec pause = { .tv_nsec = 50 * 1000 * 1000 };
    snprintf(name, sizeof name, "%s.lock", path);
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return fd;
        if (somebody_serves(path))
            break;
        nanosleep(&pause, NULL); /* it is starting, or ending */
    }
    close(fd);
    return -EAGAIN;
}

static int serve_on(const char *path)
{
    struct sockaddr_un a = address(path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    unlink(path); /* left by one that was killed: we hold the lock */
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 128)) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

static int complain(const char *what, int err)
{
    dprintf(2, "mpshim-engine: %s: %s\n", what, strerror(-err));
    return 1;
}

static int run(struct args *a)
{
    int lock_fd = lock(a->ctl);
    if (lock_fd == -EAGAIN) {
        ready(a);
        return 0;
    }
    if (lock_fd < 0)
        return complain("cannot lock the control socket", lock_fd);
    int fd = serve_on(a->ctl);
    if (fd < 0)
        return complain(a->ctl, fd);
    struct eng_cfg cfg = {
        .ctl_fd = fd, .is_listening = 1, .verbose = a->verbose, .settings = a->settings, .idle_exit_s = a->idle_s,
        .log_fd = a->foreground ? dup(2) : -1, .ready = ready, .ready_arg = a,
    };
    int status = mpshim_engine_main(&cfg);
    unlink(a->ctl);
    return status;
}

int main(int argc, char **argv)
{
    struct args a;
    int r = parse(&a, argc, argv);
    if (r >= 0)
        return r;
    bool own_place = a.ctl[0] == 0;
    if (own_place && (r = mpshim_ctl_path(a.ctl, sizeof a.ctl)) < 0)
        return complain("no safe place for the control socket", r);
    r = mpshim_ctl_dir(a.ctl);
    if (r < 0 && (own_place || r != -EPERM)) /* a path that was asked for may lie in a directory that others can enter */
        return complain("no safe place for the control socket", r);
    if (!a.foreground)
        detach();
    secure();
    return run(&a);
}
