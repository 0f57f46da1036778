/* The read/write family: one dispatch point. On a descriptor that is not ours: a load, a branch, the real call.
 * On a carrier today it is the real call too, with the true errno of a failure; a shared ring would replace it here. */
#include <netinet/tcp.h>

#include "shim/shim.h"

/* A carrier that fails says ECONNRESET, whatever the network said. */
static ssize_t explain(int fd, ssize_t r)
{
    if (r >= 0 || (errno != ECONNRESET && errno != ETIMEDOUT)) return r;
    struct shim_fd *f = shim_find(fd);
    int err = errno;
    if (f && f->kind == SHIM_CARRIER) err = shim_true_error(fd, f, err);
    errno = err;
    return r;
}

#define DISPATCH(fd, call) (SHIM_LIKELY(!shim_find(fd)) ? (call) : explain(fd, call))

ssize_t w_read(int fd, void *p, size_t n) { return DISPATCH(fd, REAL(read)(fd, p, n)); }
ssize_t w_write(int fd, const void *p, size_t n) { return DISPATCH(fd, REAL(write)(fd, p, n)); }
ssize_t w_readv(int fd, const struct iovec *v, int n) { return DISPATCH(fd, REAL(readv)(fd, v, n)); }
ssize_t w_writev(int fd, const struct iovec *v, int n) { return DISPATCH(fd, REAL(writev)(fd, v, n)); }
ssize_t w_recv(int fd, void *p, size_t n, int flags) { return DISPATCH(fd, REAL(recv)(fd, p, n, flags)); }
ssize_t w_send(int fd, const void *p, size_t n, int flags) { return DISPATCH(fd, REAL(send)(fd, p, n, flags)); }

static ssize_t from_error_queue(int fd, struct msghdr *m, int flags)
{
    socklen_t room = shim_is_readable(m) ? m->msg_namelen : 0;
    int saved = errno;
    ssize_t r = explain(fd, REAL(recvmsg)(fd, m, flags));
    if (r < 0) return r;
    shim_error_queue(fd, m, room);
    errno = saved;
    return r;
}

ssize_t w_recvmsg(int fd, struct msghdr *m, int flags)
{
    if (SHIM_UNLIKELY(flags & MSG_ERRQUEUE) && shim_find(fd)) return from_error_queue(fd, m, flags);
    return DISPATCH(fd, REAL(recvmsg)(fd, m, flags));
}
int w_recvmmsg(int fd, struct mmsghdr *m, unsigned n, int flags, struct timespec *timeout)
{
    return (int)DISPATCH(fd, REAL(recvmmsg)(fd, m, n, flags, timeout));
}
int w_sendmmsg(int fd, struct mmsghdr *m, unsigned n, int flags) { return (int)DISPATCH(fd, REAL(sendmmsg)(fd, m, n, flags)); }

/* Linux gives no address with a TCP socket's data (the length becomes 0): nothing to put right. */
ssize_t w_recvfrom(int fd, void *p, size_t n, int flags, struct sockaddr *sa, socklen_t *sn)
{
    return DISPATCH(fd, REAL(recvfrom)(fd, p, n, flags, sa, sn));
}

ssize_t w___read_chk(int fd, void *p, size_t n, size_t room) { return DISPATCH(fd, REAL(__read_chk)(fd, p, n, room)); }
ssize_t w___recv_chk(int fd, void *p, size_t n, size_t room, int flags) { return DISPATCH(fd, REAL(__recv_chk)(fd, p, n, room, flags)); }
ssize_t w___recvfrom_chk(int fd, void *p, size_t n, size_t room, int flags, struct sockaddr *sa, socklen_t *sn)
{
    return DISPATCH(fd, REAL(__recvfrom_chk)(fd, p, n, room, flags, sa, sn));
}

/* ---- MSG_FASTOPEN: data with the SYN is an implicit connect() (RFC 7413) ---- */

/* true: *r is the answer. false: the socket is (now) connected, or not for us: send without the flag, or as asked.
 * Without a cookie the kernel, too, first connects and sends then. */
static bool fast_open(int fd, int *flags, const struct sockaddr *sa, socklen_t sn, ssize_t *r)
{
    int family, saved = errno;
    struct sockaddr_storage peer;
    socklen_t n = sizeof peer;
    if (!sa || shim_is_engine || !shim_is_tcp(fd, &family) || shim_is_loopback(sa) || REAL(getpeername)(fd, (struct sockaddr *)&peer, &n) == 0) {
        errno = saved;
        return false;
    }
    int c = shim_connect(fd, sa, sn);
    *r = shim_ret(c == -EISCONN ? 0 : c, saved);
    *flags &= ~MSG_FASTOPEN;
    return *r < 0;
}

ssize_t w_sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *sa, socklen_t sn)
{
    ssize_t r;
    if (SHIM_UNLIKELY(flags & MSG_FASTOPEN) && fast_open(fd, &flags, sa, sn, &r)) return r;
    return DISPATCH(fd, REAL(sendto)(fd, p, n, flags, sa, sn));
}

ssize_t w_sendmsg(int fd, const struct msghdr *m, int flags)
{
    ssize_t r;
    if (SHIM_UNLIKELY(flags & MSG_FASTOPEN) && fast_open(fd, &flags, m->msg_name, m->msg_namelen, &r)) return r;
    return DISPATCH(fd, REAL(sendmsg)(fd, m, flags));
}
