/* engine/relay.c: a carrier's bytes, both ways, straight between the kernel socket and the stack's own memory. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "engine/carrier.h"

enum { RELAY_IOV = 16, RELAY_FIRST = 2 /* places for the first read of a turn: most find little */, RELAY_BUDGET = 1 << 20 /* bytes a turn and direction: others wait meanwhile */ };

/* net -> program. false: the program's socket is reset or gone. */
static bool to_prog(struct carrier *c, mp_time now)
{
    struct mp_iov iov[RELAY_IOV];
    size_t moved = 0;
    while (c->may_write && moved < RELAY_BUDGET) {
        int n = mpc_peek(c->mpc, iov, RELAY_IOV);
        if (n <= 0)
            return true;
        struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n };
        ssize_t r = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (r > 0) {
            mpc_consume(c->mpc, (uint64_t)r, now);
            moved += (size_t)r;
        } else if (r < 0 && errno == EAGAIN) {
            c->may_write = false;
        } else if (r < 0 && errno != EINTR) {
            return false;
        }
    }
    return true;
}

static void pass_eof(struct carrier *c)
{
    if (c->peer_eof || !mpc_eof(c->mpc))
        return;
    c->peer_eof = true;
    if (c->prog_eof && !c->err)
        return; /* both ends are said: close() follows, and says it */
    shutdown(c->fd, SHUT_WR); /* fails only when the program is gone, which reading shows */
}

static size_t iov_bytes(const struct mp_iov *iov, int n)
{
    size_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += iov[i].len;
    return sum;
}

static void prog_ended(struct carrier *c, mp_time now)
{
    c->may_read = false;
    c->prog_eof = true;
    mpc_shutdown(c->mpc, now);
}

/* program -> net */
static bool from_prog(struct carrier *c, mp_time now)
{
    struct mp_iov iov[RELAY_IOV];
    size_t moved = 0;
    while (c->may_read && !c->prog_eof && moved < RELAY_BUDGET && mpc_write_space(c->mpc) > 0) {
        int n = mpc_write_iov(c->mpc, iov, moved ? RELAY_IOV : RELAY_FIRST);
        if (n <= 0)
            return true;
        ssize_t r = readv(c->fd, (struct iovec *)iov, n);
        if (r > 0) {
            mpc_write_commit(c->mpc, (uint64_t)r, now);
            moved += (size_t)r;
            /* A short read emptied the socket, unless an end or urgent data waits behind it: its edge may have come already. */
            if ((size_t)r < iov_bytes(iov, n) && !c->hup && !c->urgent)
                c->may_read = false;
        } else if (r == 0) {
            prog_ended(c, now);
        } else if (errno == EAGAIN) {
            c->may_read = false;
        } else if (errno != EINTR) {
            return false;
        }
    }
    mpc_write_idle(c->mpc);
    return true;
}

enum relay_end eng_relay(struct carrier *c, mp_time now)
{
    if (!from_prog(c, now) || !to_prog(c, now))
        return RELAY_RESET;
    pass_eof(c);
    /* An error that no read can meet: the direction is at its end, or the queue is full for now. TCP itself would
     * have reset the peer at this moment. */
    if (c->sock_err && (c->prog_eof || mpc_write_space(c->mpc) == 0))
        return RELAY_RESET;
    return RELAY_ON;
}

bool eng_relay_more(const struct carrier *c)
{
    return (c->may_write && mpc_readable(c->mpc) > 0) ||
           (c->may_read && !c->prog_eof && mpc_write_space(c->mpc) > 0);
}
