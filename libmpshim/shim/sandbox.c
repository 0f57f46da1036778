/* A program that restricts itself: a seccomp filter may refuse, or kill the program for, calls that it never made before
 * and that we need for an engine. The engine inside, if any, goes to the helper before the filter comes; afterwards new
 * connections and listeners are the kernel's, and nobody is asked anything any more. (A filter that was there when the
 * program started, as in a container, is the environment's: what it refuses is found out.) */
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shim/shim.h"

bool shim_is_restricted;

/* What the program may ask later is known by then. */
static void learn_names(void)
{
    for (int fd = 0; fd < shim_fd_top(); fd++) {
        struct shim_fd *f = shim_find(fd);
        union ctl_addr a;
        socklen_t n = sizeof a;
        if (f && f->kind == SHIM_CARRIER) w_getpeername(fd, &a.sa, &n);
    }
}

static void restrict_us(void)
{
    int saved = errno;
    learn_names();
    if (shim_hosts_inside()) shim_leave_inside();
    shim_watch_stop();
    shim_is_restricted = true;
    errno = saved;
}

int w_prctl(int op, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
    bool sandbox = (op == PR_SET_SECCOMP || op == PR_SET_NO_NEW_PRIVS) && a; /* the latter comes before any filter (seccomp(2)) */
    if (SHIM_UNLIKELY(sandbox) && !shim_is_engine && !shim_is_borrowed() && !shim_is_restricted) restrict_us();
    return REAL(prctl)(op, a, b, c, d);
}

/* ---- another root: what lies under our names there is anybody's ---- */

bool shim_is_uprooted;

int w_chroot(const char *path)
{
    int r = REAL(chroot)(path);
    if (r == 0 && !shim_is_borrowed()) shim_is_uprooted = true;
    return r;
}

/* ---- what only a process with one thread may do ---- */

#define THREAD_ENDS_MS 500
#define NS_GET_NSTYPE_REQUEST 0xb703 /* linux/nsfs.h */

static int threads(void)
{
    struct stat st;
    return syscall(SYS_newfstatat, AT_FDCWD, "/proc/self/task", &st, 0) ? 0 : (int)st.st_nlink - 2;
}

/* unshare(2), setns(2): a process with threads gets no other user namespace (EINVAL). Where the only other threads are our
 * engine's and our watch's, all that the engine carries goes to the helper first. */
static void be_alone(void)
{
    struct timespec ms = {.tv_nsec = 1000000};
    int saved = errno;
    if (shim_is_engine || shim_is_borrowed()) return;
    int ours = shim_hosts_inside() + shim_watches();
    if (!ours || threads() != 1 + ours) return;
    if (shim_hosts_inside()) shim_leave_inside();
    shim_watch_stop();
    for (int i = 0; !shim_hosts_inside() && threads() > 1 && i < THREAD_ENDS_MS; i++) syscall(SYS_nanosleep, &ms, NULL);
    errno = saved;
}

int w_unshare(int flags)
{
    if (flags & CLONE_NEWUSER) be_alone();
    return REAL(unshare)(flags);
}

int w_setns(int fd, int type)
{
    int saved = errno, what = type ? type : (int)syscall(SYS_ioctl, fd, NS_GET_NSTYPE_REQUEST);
    if (what == CLONE_NEWUSER) be_alone();
    errno = saved;
    int r = REAL(setns)(fd, type);
    if (r == 0 && what > 0 && what & CLONE_NEWNS && !shim_is_borrowed()) shim_is_uprooted = true;
    return r;
}
