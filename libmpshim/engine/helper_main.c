/* engine/helper_main.c: mpshim-engine, the engine in a process of its own (docs/architecture.md, hosts).
 *
 * Started by the shim on demand. Forks itself away from its starter, so that no program ever reaps it, takes the
 * lock of its control socket, and says on --ready-fd when it serves. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
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

#include "engine/ctl.h"
#include "engine/ctlpath.h"
#include "engine/engine.h"
#include "engine/keeper.h"

enum { IDLE_DEFAULT_S = 10, SETTINGS_MAX = 64, PATH_ROOM = 108, LOCK_TRIES = 60 };

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

/* ---- becoming a process of its own ---- */

static void leave(pid_t child)
{
    if (child > 0)
        _exit(0);
    if (child < 0)
        _exit(1);
}

/* Started by hand: the terminal gets its word and the exit status when the helper serves, or cannot. */
static void tell_starter(int fd)
{
    char said[128];
    ssize_t n = read(fd, said, sizeof said);
    if (n > 0 && said[0] == '1')
        _exit(0);
    dprintf(2, "mpshim-engine: %.*s\n", n > 0 ? (int)n : 15, n > 0 ? said : "could not start");
    _exit(1);
}

static void detach(struct args *a)
{
    int word[2];
    if (a->ready_fd < 0) {
        if (pipe2(word, O_CLOEXEC))
            _exit(1);
        pid_t child = fork();
        if (child) {
            close(word[1]);
            tell_starter(word[0]);
        }
        close(word[0]);
        a->ready_fd = word[1];
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        for (int fd = 0; fd < 3 && null >= 0; fd++)
            dup2(null, fd); /* whose pipes would else stay open */
    } else {
        leave(fork());
    }
    setsid();
    leave(fork()); /* no session leader: never gets a terminal */
    if (chdir("/"))
        _exit(1);
}

/* It serves all programs of the user: what the one was limited to that happened to start it, is not meant for it. */
static void lift_limits(void)
{
    static const struct { int what; rlim_t enough; } limits[] = {
        { RLIMIT_CPU, RLIM_INFINITY }, { RLIMIT_FSIZE, RLIM_INFINITY }, { RLIMIT_DATA, RLIM_INFINITY },
        { RLIMIT_AS, RLIM_INFINITY }, { RLIMIT_STACK, 8 << 20 },
    };
    struct sched_param normal = { 0 };
    cpu_set_t all;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit rl = { limits[i].enough, limits[i].enough };
        if (setrlimit(limits[i].what, &rl) == 0 || getrlimit(limits[i].what, &rl))
            continue;
        rl.rlim_cur = rl.rlim_max < limits[i].enough ? rl.rlim_max : limits[i].enough; /* as far as it may go */
        setrlimit(limits[i].what, &rl);
    }
    memset(&all, 0xff, sizeof all);
    sched_setaffinity(0, sizeof all, &all);
    sched_setscheduler(0, SCHED_OTHER, &normal);
    setpriority(PRIO_PROCESS, 0, 0);
}

static void secure(void)
{
    struct rlimit rl;
    prctl(PR_SET_DUMPABLE, 0); /* keys of many programs: no core dump, no ptrace by the user's other processes */
    lift_limits();
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    rl.rlim_cur = rl.rlim_max = 1 << 20; /* root may; two descriptors a connection, and one its port's guard */
    if (setrlimit(RLIMIT_NOFILE, &rl) && getrlimit(RLIMIT_NOFILE, &rl) == 0) {
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

/* Anything but a first byte '1' is the reason, in words, for the one who waits. */
static void failed(void *arg, const char *why)
{
    struct args *a = arg;
    if (a->ready_fd >= 0 && write(a->ready_fd, why, strlen(why)) >= 0)
        close(a->ready_fd);
    a->ready_fd = -1;
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

static void lock_name(char name[PATH_ROOM + 8], const char *path) { snprintf(name, PATH_ROOM + 8, "%s.lock", path); }

/* A lock counts only while its file still has its name: the one who holds it may remove it. */
static bool is_named(int fd, const char *name)
{
    struct stat mine, there;
    return fstat(fd, &mine) == 0 && stat(name, &there) == 0 && mine.st_ino == there.st_ino && mine.st_dev == there.st_dev;
}

/* fd; -EAGAIN: held by another; -errno. */
static int try_lock(const char *path)
{
    char name[PATH_ROOM + 8];
    lock_name(name, path);
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_named(fd, name))
        return fd;
    close(fd);
    return -EAGAIN;
}

/* The lock decides who serves; it goes with the process. fd, or -EAGAIN: another one serves already. */
static int lock(const char *path)
{
    struct timespec pause = { .tv_nsec = 50 * 1000 * 1000 };
    int fd = try_lock(path);
    for (int i = 1; i < LOCK_TRIES && fd == -EAGAIN && !somebody_serves(path); i++) {
        nanosleep(&pause, NULL); /* it is starting, or ending */
        fd = try_lock(path);
    }
    return fd;
}

static void remove_both(const char *path)
{
    char name[PATH_ROOM + 8];
    unlink(path);
    lock_name(name, path);
    unlink(name); /* last: who holds it speaks for the socket */
}

/* Helpers that were killed leave their files, and nobody comes back for those of a network namespace that is gone. */
static void remove_if_stale(const char *path)
{
    int fd = try_lock(path);
    if (fd < 0)
        return;
    remove_both(path);
    close(fd);
}

/* "ctl-4026531840", "ctl-4026531840-1a2b3c4d" */
static bool is_socket_name(const char *name)
{
    return strncmp(name, "ctl-", 4) == 0 && name[4] && !name[4 + strspn(name + 4, "0123456789abcdef-")];
}

/* Beside our own socket, which nobody else may write to; sockets first made their locks, so those with a lock are all. */
static void remove_stale(const char *own)
{
    char dir[PATH_ROOM], path[PATH_ROOM];
    size_t n = (size_t)(strrchr(own, '/') - own);
    memcpy(dir, own, n);
    dir[n] = 0;
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));) {
        char *end = strstr(f->d_name, ".lock");
        if (!end || end[5])
            continue;
        *end = 0;
        if (is_socket_name(f->d_name) && strcmp(f->d_name, own + n + 1) &&
            snprintf(path, sizeof path, "%s/%s", dir, f->d_name) < (int)sizeof path)
            remove_if_stale(path);
    }
    if (d)
        closedir(d);
}

static int serve_on(const char *path)
{
    struct sockaddr_un a = address(path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    unlink(path); /* left by one that was killed: we hold the lock */
    if (bind(fd, (struct sockaddr *)&a, sizeof a)) {
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
    int lock_fd = lock(a->ctl);
    if (lock_fd == -EAGAIN) {
        ready(a);
        return 0;
    }
    if (lock_fd < 0)
        return cannot(a, "cannot lock the control socket", lock_fd);
    int fd = serve_on(a->ctl);
    if (fd < 0)
        return cannot(a, "cannot make the control socket", fd);
    struct eng_cfg cfg = config(a);
    cfg.ctl_fd = fd;
    cfg.lock_fd = lock_fd;
    if (a->dir_is_ours)
        remove_stale(a->ctl);
    int status = mpshim_engine_main(&cfg);
    if (status == ENGINE_REPLACED)
        return 0;
    remove_both(a->ctl); /* the lock is still held */
    return status;
}

/* Our end of a new connection, of which the running helper has the other; -errno. */
static int ask_to_replace(const char *path)
{
    struct ctl_req q = { .version = CTL_VERSION, .op = CTL_REPLACE };
    union { struct cmsghdr h; char b[CMSG_SPACE(2 * sizeof(int))]; } c = { 0 };
    struct sockaddr_un a = address(path);
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
        remove_both(a->ctl);
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
        detach(&a);
    secure();
    return a.replace ? replace(&a) : run(&a);
}
