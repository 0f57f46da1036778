/* SO_LINGER with a time: close() waits until the peer has acknowledged everything, at most so long, also on a non-blocking
 * socket. Over loopback the engine acknowledges at once; so it is asked, after the real close(), until the network has. */
#include <sys/syscall.h>
#include <time.h>

#include "shim/shim.h"

enum { FIRST_LOOK_US = 500, LONGEST_US = 20000 };

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Another number in this process has the same socket: close() of this one ends nothing. */
static bool has_others(int fd, const struct shim_fd *f)
{
    for (int i = 0; i < shim_fd_top(); i++) {
        struct shim_fd *o = shim_find(i);
        if (i != fd && o && o->kind == SHIM_CARRIER && o->cookie == f->cookie && shim_cookie(i) == f->cookie) return true;
    }
    return false;
}

/* Before close(): until when it may take (0: it does not wait); *w is what is asked about afterwards. */
uint64_t shim_linger(int fd, struct shim_fd *w)
{
    struct linger l = {0};
    socklen_t n = sizeof l;
    struct shim_fd *f = shim_find(fd);
    if (!f || f->kind != SHIM_CARRIER || shim_is_borrowed() || REAL(getsockopt)(fd, SOL_SOCKET, SO_LINGER, &l, &n) || !l.l_onoff || l.l_linger <= 0) return 0;
    if (f->cookie != shim_cookie(fd) || has_others(fd, f)) return 0;
    *w = *f;
    return now_us() + (uint64_t)l.l_linger * 1000000;
}

/* A signal ends it, as the kernel's. */
void shim_linger_wait(struct shim_fd *w, uint64_t end)
{
    struct ctl_rep rep;
    int saved = errno;
    uint64_t now;
    for (long us = FIRST_LOOK_US; shim_query(-1, w, &rep) == 0 && rep.unacked_bytes && (now = now_us()) < end; us = us * 2 < LONGEST_US ? us * 2 : LONGEST_US) {
        struct timespec t = {0, (end - now < (uint64_t)us ? (long)(end - now) : us) * 1000};
        if (syscall(SYS_nanosleep, &t, NULL) < 0) break;
    }
    errno = saved;
}
