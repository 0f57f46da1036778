/* Starting mpshim-engine without the program noticing.
 *
 * A child with no exit signal makes a grandchild, which becomes mpshim-engine, and ends. It raises no SIGCHLD and plain
 * wait() does not see it (it takes __WCLONE); exec would give it back its signal, hence two of them. Both share the
 * program's memory, as vfork does, so that a large program pays nothing; they make system calls only. mpshim-engine
 * says on --ready-fd when it serves. */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "shim/host.h"

#define READY_TIMEOUT_MS 3000
#define STACK_BYTES 65536

struct start {
    char *const *argv;
    char *const *envp;
    int ready; /* becomes descriptor 3 */
    int null;
    char *stack; /* the grandchild's; the child's is above it */
    sigset_t mask;
    int err;
};

/* In the grandchild, on its own stack and in the program's memory: system calls only. */
static int grandchild(void *arg)
{
    struct start *s = arg;
    for (int sig = 1; sig < 32; sig++) { /* handlers must not run here; exec would reset them anyway */
        struct sigaction a;
        if (sigaction(sig, NULL, &a) == 0 && a.sa_handler != SIG_IGN && a.sa_handler != SIG_DFL) {
            a.sa_handler = SIG_DFL, a.sa_flags = 0;
            sigaction(sig, &a, NULL);
        }
    }
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &s->mask, NULL, 8);
    syscall(SYS_setsid);
    syscall(SYS_dup3, s->ready, 3, 0);
    for (int fd = 0; fd < 3; fd++) syscall(SYS_dup3, s->null, fd, 0);
    syscall(SYS_close_range, 4, UINT_MAX, 0);
    syscall(SYS_execve, s->argv[0], s->argv, s->envp);
    s->err = errno;
    syscall(SYS_exit, 127);
    return 0;
}

static int child(void *arg)
{
    struct start *s = arg;
    if (clone(grandchild, s->stack + STACK_BYTES, CLONE_VM | CLONE_VFORK, s) < 0) s->err = errno;
    syscall(SYS_exit, 0);
    return 0;
}

/* Descriptors above the ones that the child makes, so that its dup3() calls hit none of them. */
static int above(int fd)
{
    int r = fd < 0 ? fd : REAL(fcntl)(fd, F_DUPFD_CLOEXEC, (void *)8L);
    if (fd >= 0) syscall(SYS_close, fd);
    return r;
}

static int run_child(struct start *s)
{
    s->stack = mmap(NULL, 2 * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (s->stack == MAP_FAILED) return -ENOMEM;
    sigset_t all, program;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &program); /* a handler must not run in a child that shares our memory */
    sigemptyset(&s->mask);
    int pid = clone(child, s->stack + 2 * STACK_BYTES, CLONE_VM | CLONE_VFORK, s);
    int r = pid < 0 ? -errno : 0;
    while (pid > 0 && syscall(SYS_wait4, pid, NULL, __WCLONE, NULL) < 0 && errno == EINTR) {}
    sigprocmask(SIG_SETMASK, &program, NULL);
    munmap(s->stack, 2 * STACK_BYTES);
    return r ? r : -s->err;
}

/* The program's environment without LD_PRELOAD: the helper must not load us. In pages of its own, for a signal that ends the
 * process may have interrupted malloc(). */
static char **environment(size_t *size)
{
    extern char **environ;
    size_t n = 0, j = 0;
    while (environ && environ[n]) n++;
    *size = (n + 1) * sizeof *environ;
    char **e = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (e == MAP_FAILED) return NULL;
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], "LD_PRELOAD=", 11)) e[j++] = environ[i];
    return e;
}

char shim_helper_said[128];

/* A byte '1': it serves. Words: why it cannot. End of file: it died. */
static int await_ready(int fd)
{
    struct timespec left = {READY_TIMEOUT_MS / 1000, 0};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char said[96];
    long r;
    do r = shim_neg(syscall(SYS_ppoll, &p, 1, &left, NULL, 0));
    while (r == -EINTR);
    if (r == 0) return -ETIMEDOUT;
    long n = r > 0 ? syscall(SYS_read, fd, said, sizeof said) : 0;
    if (n > 0 && said[0] == '1') return 0;
    snprintf(shim_helper_said, sizeof shim_helper_said, "mpshim-engine could not start%s%.*s", n > 0 ? ": " : "", n > 0 ? (int)n : 0, said);
    return -ECHILD;
}

int shim_helper_spawn(const char *program, const char *path, bool replace, char *const *envp)
{
    char *argv[] = {(char *)program, "--ctl", (char *)path, "--ready-fd", "3", replace ? "--replace" : NULL, NULL};
    int ready[2];
    if (syscall(SYS_pipe2, ready, O_CLOEXEC) < 0) return -EMFILE;
    struct start s = {.argv = argv, .envp = envp, .ready = above(ready[1]), .null = above((int)shim_neg(syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC)))};
    int r = s.ready < 0 || s.null < 0 ? -EMFILE : run_child(&s);
    if (s.ready >= 0) syscall(SYS_close, s.ready);
    if (s.null >= 0) syscall(SYS_close, s.null);
    if (r == 0) return ready[0];
    syscall(SYS_close, ready[0]);
    return r;
}

int shim_helper_launch(const char *program, const char *path, bool replace)
{
    size_t size;
    char **envp = environment(&size);
    if (!envp) return -EMFILE;
    int fd = shim_helper_spawn(program, path, replace, envp), r = fd;
    munmap(envp, size);
    if (fd < 0) return r;
    r = await_ready(fd);
    syscall(SYS_close, fd);
    return r;
}
