/* How long descriptors live: close, dup and their relatives keep the table true and spare the shim's own. */
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>

#include "shim/shim.h"

int w_close(int fd)
{
    if (shim_is_own(fd) && !shim_is_borrowed()) {
        errno = EBADF; /* the program did not open it: it closes "all numbers" */
        return -1;
    }
    if (SHIM_LIKELY(!shim_find(fd))) return REAL(close)(fd);
    struct shim_fd carrier;
    uint64_t until = shim_linger(fd, &carrier);
    unsigned listened = shim_take(fd);
    int r = REAL(close)(fd);
    shim_unlisten(listened);
    if (SHIM_UNLIKELY(until)) shim_linger_wait(&carrier, until);
    return r;
}

/* Around the shim's own descriptors, in pieces. */
static int close_pieces(unsigned first, unsigned last, int flags)
{
    int own[SHIM_OWN_MAX], n = shim_own_sorted(own, SHIM_OWN_MAX), r = 0;
    for (int i = 0; i < n && r == 0; i++) {
        unsigned fd = (unsigned)own[i];
        if (fd < first || fd > last) continue;
        if (fd > first) r = REAL(close_range)(first, fd - 1, flags);
        first = fd + 1;
    }
    return r || first > last ? r : REAL(close_range)(first, last, flags);
}

int w_close_range(unsigned first, unsigned last, int flags)
{
    if (shim_is_engine || first > last || (flags & CLOSE_RANGE_CLOEXEC)) return REAL(close_range)(first, last, flags);
    unsigned listened = shim_take_range(first, last);
    int r = close_pieces(first, last, flags);
    shim_unlisten(listened);
    return r;
}

void w_closefrom(int first)
{
    if (shim_is_engine) {
        REAL(closefrom)(first);
        return;
    }
    w_close_range(first < 0 ? 0 : (unsigned)first, UINT_MAX, 0);
}

static int copied(int from, int to)
{
    if (to >= 0 && to != from && SHIM_UNLIKELY(atomic_load_explicit(&shim_fds, memory_order_relaxed) != NULL)) {
        int saved = errno;
        shim_copy(from, to);
        errno = saved;
    }
    return to;
}

int w_dup(int fd) { return copied(fd, REAL(dup)(fd)); }

/* The hosts to be told when what was under this number is closed. */
static unsigned make_way(int from, int to)
{
    unsigned listened = 0;
    if (from == to) return 0;
    int saved = errno;
    if (shim_is_own(to)) shim_own_dodge(to);
    if (SHIM_UNLIKELY(shim_find(to) != NULL) && REAL(fcntl)(from, F_GETFD, NULL) >= 0) listened = shim_take(to);
    errno = saved;
    return listened;
}

static int replaced(int from, int to, unsigned listened)
{
    shim_unlisten(listened);
    if (to >= 0 && to <= 2) shim_watch_daemon();
    return copied(from, to);
}

int w_dup2(int fd, int to)
{
    unsigned listened = make_way(fd, to);
    return replaced(fd, REAL(dup2)(fd, to), listened);
}

int w_dup3(int fd, int to, int flags)
{
    unsigned listened = make_way(fd, to);
    return replaced(fd, REAL(dup3)(fd, to, flags), listened);
}

int w_fcntl(int fd, int cmd, void *arg)
{
    int r = REAL(fcntl)(fd, cmd, arg);
    return cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC ? copied(fd, r) : r;
}

int w_fcntl64(int fd, int cmd, void *arg)
{
    int r = REAL(fcntl64)(fd, cmd, arg);
    return cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC ? copied(fd, r) : r;
}

/* The stream is remembered, so that what it holds is flushed before the process's carriers close at exit. */
FILE *w_fdopen(int fd, const char *mode)
{
    FILE *s = REAL(fdopen)(fd, mode);
    struct shim_fd *f = shim_find(fd);
    if (f && f->kind == SHIM_CARRIER && !shim_is_borrowed()) f->file = s;
    return s;
}
