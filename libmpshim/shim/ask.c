/* Questions to an engine: one message over a control connection, the answer on a socket of its own (engine/ctl.h).
 *
 * Making such a pair, sending one end along and closing both takes a fifth of what a program spends on a connection, and keeps a
 * worker of the kernel's busy beside it (it looks for cycles of sockets on their way). So whoever connects more than once keeps its
 * pair. One question at a time uses it: another thread's, a signal handler's or a vfork child's has a pair of its own. */
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "shim/host.h"

long shim_send_message(int ctl, const void *p, size_t n, const int *fds, int nfds)
{
    union { struct cmsghdr h; char b[CMSG_SPACE(2 * sizeof(int))]; } c = {0};
    struct iovec v = {(void *)p, n};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    if (nfds > 0) {
        m.msg_control = &c;
        m.msg_controllen = CMSG_SPACE((size_t)nfds * sizeof(int));
        c.h.cmsg_level = SOL_SOCKET, c.h.cmsg_type = SCM_RIGHTS, c.h.cmsg_len = CMSG_LEN((size_t)nfds * sizeof(int));
        memcpy(CMSG_DATA(&c.h), fds, (size_t)nfds * sizeof(int));
    }
    long r;
    do r = shim_neg(syscall(SYS_sendmsg, ctl, &m, MSG_NOSIGNAL));
    while (r == -EINTR);
    return r;
}

static int answer_is(long r, size_t size) { return r == (long)size ? 0 : r < 0 ? (int)r : -EPIPE; }

int shim_await(int fd, void *rep, size_t size, int timeout_ms)
{
    struct timespec left = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    long r;
    do r = shim_neg(syscall(SYS_ppoll, &p, 1, &left, NULL, 0)); /* the kernel counts `left` down */
    while (r == -EINTR);
    if (r <= 0) return r ? (int)r : -ETIMEDOUT;
    return answer_is(shim_neg(syscall(SYS_recvfrom, fd, rep, size, MSG_DONTWAIT, NULL, NULL)), size);
}

static int open_pair(int pair[2])
{
    return (int)shim_neg(syscall(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
}

int shim_ask(int ctl, const void *msg, size_t n, int fd, void *rep, size_t size, int timeout_ms)
{
    int pair[2], fds[2], nfds = 1, r = open_pair(pair);
    if (r < 0) return r;
    fds[0] = pair[1];
    if (fd >= 0) fds[nfds++] = fd;
    r = (int)shim_send_message(ctl, msg, n, fds, nfds);
    shim_sys_close(pair[1]);
    if (r >= 0) r = shim_await(pair[0], rep, size, timeout_ms);
    shim_sys_close(pair[0]);
    return r;
}

/* ---- the pair that is kept ---- */

static bool is_there(const struct shim_answers *a)
{
    struct stat st;
    int fd = atomic_load(&a->fd);
    return fd >= 0 && syscall(SYS_fstat, fd, &st) == 0 && st.st_ino == a->ino && st.st_dev == a->dev;
}

static void let_go(struct shim_answers *a)
{
    bool ours = is_there(a);
    int fd = atomic_exchange(&a->fd, -1);
    if (ours) shim_sys_close(fd);
    if (fd >= 0) shim_own_add(&a->fd);
}

/* The engine's end tells when it closes, so that nothing has to be waited for in vain. */
static int ask_kept(struct shim_answers *a, int ctl, struct ctl_req *q, void *rep, size_t size, int timeout_ms)
{
    struct timeval limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    int fd = atomic_load(&a->fd);
    if (a->timeout_ms != timeout_ms && REAL(setsockopt)(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit)) return -EPIPE;
    a->timeout_ms = timeout_ms;
    q->flags |= CTL_F_KEPT;
    q->value = a->name;
    long r = shim_send_message(ctl, q, sizeof *q, NULL, 0);
    if (r >= 0) r = shim_neg(syscall(SYS_recvfrom, fd, rep, size, 0, NULL, NULL));
    q->flags &= ~CTL_F_KEPT;
    if (r == -EINTR) return shim_await(fd, rep, size, timeout_ms); /* a signal, for which the kernel does not count on */
    return r == -EAGAIN ? -ETIMEDOUT : answer_is(r, size);
}

static void keep(struct shim_answers *a, int fd, uint64_t name)
{
    struct stat st = {0};
    fd = shim_own_high(fd);
    syscall(SYS_fstat, fd, &st);
    a->ino = st.st_ino, a->dev = st.st_dev, a->name = name, a->timeout_ms = 0;
    atomic_store(&a->fd, fd);
    shim_own_add(&a->fd);
}

/* An answer's op tells that the engine keeps its end: an older one does not. */
static int ask_to_keep(struct shim_answers *a, int ctl, struct ctl_req *q, void *rep, size_t size, int timeout_ms)
{
    int pair[2], r = open_pair(pair);
    if (r < 0) return r;
    uint64_t name = shim_cookie(pair[1]);
    q->flags |= CTL_F_KEEP;
    q->value = name;
    r = (int)shim_send_message(ctl, q, sizeof *q, &pair[1], 1);
    shim_sys_close(pair[1]);
    if (r >= 0) r = shim_await(pair[0], rep, size, timeout_ms);
    q->flags &= ~CTL_F_KEEP;
    if (r == 0 && ((struct ctl_rep *)rep)->op & CTL_KEPT) keep(a, pair[0], name);
    else shim_sys_close(pair[0]);
    return r;
}

static bool is_often_asked(const struct ctl_req *q) { return q->op == CTL_CONNECT || q->op == CTL_QUERY || q->op == CTL_INFO; }

int shim_ask_often(struct shim_answers *a, int ctl, struct ctl_req *q, int fd, void *rep, size_t size, int timeout_ms)
{
    bool first = q->op == CTL_CONNECT && !atomic_exchange(&a->asked, true);
    if (fd >= 0 || first || !is_often_asked(q) || shim_is_borrowed() || atomic_exchange(&a->busy, true))
        return shim_ask(ctl, q, sizeof *q, fd, rep, size, timeout_ms);
    bool had = is_there(a);
    int r = had ? ask_kept(a, ctl, q, rep, size, timeout_ms) : -EPIPE;
    if (had && r) let_go(a); /* an answer that comes too late must not be taken for the next */
    if (r != -ETIMEDOUT && r) r = ask_to_keep(a, ctl, q, rep, size, timeout_ms);
    atomic_store(&a->busy, false);
    return r;
}

void shim_answers_end(struct shim_answers *a)
{
    if (atomic_load(&a->fd) < 0 || shim_is_borrowed() || atomic_exchange(&a->busy, true)) return; /* who uses it finds its end */
    let_go(a);
    atomic_store(&a->busy, false);
}

void shim_answers_leave(struct shim_answers *a)
{
    let_go(a);
    atomic_store(&a->busy, false);
}
