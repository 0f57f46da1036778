/* A program that restricts itself: a seccomp filter may refuse, or kill the program for, calls that it never made before
 * and that we need for an engine. The engine inside, if any, goes to the helper before the filter comes; afterwards new
 * connections and listeners are the kernel's, and nobody is asked anything any more. (A filter that was there when the
 * program started, as in a container, is the environment's: what it refuses is found out.) */
#include <sys/prctl.h>

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
    shim_is_restricted = true;
    errno = saved;
}

int w_prctl(int op, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
    bool sandbox = (op == PR_SET_SECCOMP || op == PR_SET_NO_NEW_PRIVS) && a; /* the latter comes before any filter (seccomp(2)) */
    if (SHIM_UNLIKELY(sandbox) && !shim_is_engine && !shim_is_borrowed() && !shim_is_restricted) restrict_us();
    return REAL(prctl)(op, a, b, c, d);
}
