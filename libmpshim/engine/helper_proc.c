/* engine/helper_proc.c: the helper becomes a process of its own, and one that may hold other people's keys. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/helper.h"

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

void helper_detach(int *ready_fd)
{
    int word[2];
    if (*ready_fd < 0) {
        if (pipe2(word, O_CLOEXEC))
            _exit(1);
        pid_t child = fork();
        if (child) {
            close(word[1]);
            tell_starter(word[0]);
        }
        close(word[0]);
        *ready_fd = word[1];
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

void helper_secure(void)
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
