/* A listener with the filter "only over loopback" is deaf when its helper dies (engine/listener.c), and the helper's keeper,
 * which starts another (engine/keeper.c), may die at the same moment: an administrator's kill, a cgroup's end. Nothing in the
 * kernel then wakes a program that sleeps in accept() or epoll_wait() but a signal, which would show as EINTR, or a thread.
 * So a process with such a listener, and no other, has a thread that sleeps in poll() on the control connection; when its
 * far end is gone it takes the listeners to another helper, or gives them to the kernel.
 *
 * It is no hindrance: it leaves what only a process with one thread may do (sandbox.c), blocks all signals, has a root and a
 * working directory of its own (setns() to a mount namespace wants those unshared), ends at exec, and is not in a forked
 * child until that accepts. Of its process's rights it has no more than the first thread. */
#include <linux/capability.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "shim/shim.h"

#define STACK_BYTES (256 * 1024) /* address space; the program's thread-local variables lie there too */
#define RETRY_MS 1000            /* where no helper can be had now, and the listeners may not be the kernel's */

static atomic_bool runs;
static bool never;     /* the program is to be alone */
static bool is_forked; /* from a process that has a thread of its own, perhaps */
static _Atomic int stop_fd = -1; /* a socket: shut down, it wakes the thread for its end */
static _Atomic int is_apart;     /* the thread has a working directory of its own: a futex */
static ino_t stop_ino;           /* of it: another file under this number is not ours */

/* A process may give up rights for one thread only (capset(2)): the first one's count. */
static void follow_rights(void)
{
    struct __user_cap_header_struct first = {_LINUX_CAPABILITY_VERSION_3, shim_pid}, self = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2] = {0};
    if (syscall(SYS_capget, &first, d) == 0) syscall(SYS_capset, &self, d);
}

/* true: the connection ended, or it is time to look again. false: this thread is to end. */
static bool sleep_well(void)
{
    struct pollfd p[2] = {{.fd = shim_host_fd(SHIM_HOST_HELPER)}, {.fd = atomic_load(&stop_fd)}};
    struct timespec retry = {RETRY_MS / 1000, 0};
    long r;
    do r = shim_neg(syscall(SYS_ppoll, p, 2, p[0].fd < 0 ? &retry : NULL, NULL, 0));
    while (r == -EINTR);
    return r >= 0 && !p[1].revents;
}

/* Fifty workers wake at the same moment. One helper serves them all: they find it when their parent has started it, or the
 * first of them. */
static void give_way(void)
{
    struct timespec t = {.tv_nsec = (50 + shim_pid % 16 * 10) * 1000000L};
    if (is_forked) syscall(SYS_nanosleep, &t, NULL);
}

static void *watch(void *none)
{
    syscall(SYS_unshare, CLONE_FS);
    atomic_store(&is_apart, 1);
    syscall(SYS_futex, &is_apart, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    syscall(SYS_prctl, PR_SET_NAME, "mpshim-watch", 0, 0, 0);
    while (sleep_well() && !shim_is_restricted && shim_any_filtered()) {
        follow_rights();
        give_way();
        if (shim_host_fd(SHIM_HOST_HELPER) >= 0) shim_host_check(SHIM_HOST_HELPER);
        else shim_helper_retry(), shim_listen_again();
    }
    atomic_store(&runs, false);
    return none;
}

static bool start(void)
{
    pthread_attr_t attr;
    pthread_t t;
    sigset_t all, program;
    if (pthread_attr_init(&attr)) return false;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &program);
    atomic_store(&is_apart, 0);
    bool ok = pthread_create(&t, &attr, watch, NULL) == 0;
    while (ok && !atomic_load(&is_apart)) syscall(SYS_futex, &is_apart, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0); /* setns() may be next */
    pthread_sigmask(SIG_SETMASK, &program, NULL);
    pthread_attr_destroy(&attr);
    return ok;
}

static bool stop_is_ours(void)
{
    struct stat st;
    int fd = atomic_load(&stop_fd);
    return fd >= 0 && syscall(SYS_fstat, fd, &st) == 0 && st.st_ino == stop_ino && S_ISSOCK(st.st_mode);
}

static bool stop_open(void)
{
    struct stat st;
    if (stop_is_ours()) return true;
    int fd = (int)shim_neg(syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (fd < 0) return false;
    fd = shim_own_high(fd);
    stop_ino = syscall(SYS_fstat, fd, &st) ? 0 : st.st_ino;
    atomic_store(&stop_fd, fd);
    shim_own_add(&stop_fd);
    return true;
}

void shim_watch(void)
{
    if (SHIM_LIKELY(atomic_load(&runs)) || never || shim_is_restricted || shim_is_borrowed() || atomic_exchange(&runs, true)) return;
    int saved = errno;
    if (!stop_open() || !start()) atomic_store(&runs, false); /* the next accept() tries again */
    errno = saved;
}

/* A daemon's parent called listen() and ends, and the thread with it. The child does what only daemons do, or puts something in
 * the place of its standard streams. (Who then execs instead has the thread for that long.) */
void shim_watch_daemon(void)
{
    if (SHIM_UNLIKELY(is_forked) && !shim_is_borrowed() && shim_any_filtered()) shim_watch();
}

pid_t w_setsid(void)
{
    pid_t r = REAL(setsid)();
    if (r >= 0) shim_watch_daemon();
    return r;
}

bool shim_watches(void) { return atomic_load(&runs); }

void shim_watch_stop(void)
{
    never = true;
    if (shim_watches() && stop_is_ours()) syscall(SYS_shutdown, atomic_load(&stop_fd), SHUT_RDWR);
}

void shim_watch_in_child(void)
{
    is_forked |= atomic_exchange(&runs, false);
    if (stop_is_ours()) syscall(SYS_close, atomic_load(&stop_fd)); /* the parent's thread listens to it too */
    if (atomic_exchange(&stop_fd, -1) >= 0) shim_own_add(&stop_fd);
}
