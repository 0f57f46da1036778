/* Socket options of carriers: the kernel's socket keeps them all; those that mean the network go to the engine too. */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <stddef.h>

#include "core/stack.h"
#include "shim/shim.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef SO_PEERNAME
#define SO_PEERNAME 28
#endif
enum { BUF_LOCK_SND = 1, BUF_LOCK_RCV = 2 }; /* SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK */

static const struct { int level, opt; enum mpc_opt to; } forwarded[] = {
    {IPPROTO_TCP, TCP_NODELAY, MPC_NODELAY},
    {IPPROTO_TCP, TCP_CORK, MPC_CORK},
    {SOL_SOCKET, SO_KEEPALIVE, MPC_KEEPALIVE},
    {IPPROTO_TCP, TCP_KEEPIDLE, MPC_KEEPIDLE_S},
    {IPPROTO_TCP, TCP_KEEPINTVL, MPC_KEEPINTVL_S},
    {IPPROTO_TCP, TCP_KEEPCNT, MPC_KEEPCNT},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, MPC_USER_TIMEOUT_MS},
    {SOL_SOCKET, SO_RCVBUF, MPC_RCVBUF},
    {SOL_SOCKET, SO_SNDBUF, MPC_SNDBUF},
    {IPPROTO_IP, IP_TOS, MPC_TOS},
    {IPPROTO_IPV6, IPV6_TCLASS, MPC_TOS},
};

/* ---- before connect() ---- */

static int get(int fd, int level, int opt)
{
    int v = 0;
    socklen_t n = sizeof v;
    return REAL(getsockopt)(fd, level, opt, &v, &n) == 0 ? v : 0;
}

void shim_options_read(int fd, int family, struct ctl_req *q)
{
    int lock = get(fd, SOL_SOCKET, SO_BUF_LOCK);
    if (get(fd, IPPROTO_TCP, TCP_NODELAY)) q->flags |= CTL_F_NODELAY;
    if (get(fd, IPPROTO_TCP, TCP_CORK)) q->flags |= CTL_F_CORK;
    if (get(fd, SOL_SOCKET, SO_KEEPALIVE)) {
        q->flags |= CTL_F_KEEPALIVE;
        q->keepidle_s = get(fd, IPPROTO_TCP, TCP_KEEPIDLE);
        q->keepintvl_s = get(fd, IPPROTO_TCP, TCP_KEEPINTVL);
        q->keepcnt = get(fd, IPPROTO_TCP, TCP_KEEPCNT);
    }
    q->user_timeout_ms = get(fd, IPPROTO_TCP, TCP_USER_TIMEOUT);
    /* The kernel doubles what was asked for. */
    if (lock & BUF_LOCK_RCV) q->rcvbuf = (uint32_t)get(fd, SOL_SOCKET, SO_RCVBUF) / 2;
    if (lock & BUF_LOCK_SND) q->sndbuf = (uint32_t)get(fd, SOL_SOCKET, SO_SNDBUF) / 2;
    q->tos = (uint8_t)(family == AF_INET6 ? get(fd, IPPROTO_IPV6, IPV6_TCLASS) : get(fd, IPPROTO_IP, IP_TOS));
    if (family == AF_INET6 && get(fd, IPPROTO_IPV6, IPV6_V6ONLY)) q->flags |= CTL_F_V6ONLY;
}

/* Over loopback, autotuning gives the program's socket megabytes at once, behind which the engine's queue waits: a
 * program that counts what it wrote (progress bars, iperf3 -n) was 4.8 MB ahead of a 100 Mbit/s network, where the
 * kernel's TCP lets it be as far ahead as the windows are wide. This much keeps 10 Gbit/s busy over loopback. */
enum { CARRIER_SNDBUF = 96 * 1024 };

void shim_bound_sndbuf(int fd)
{
    int v = CARRIER_SNDBUF;
    if (!(get(fd, SOL_SOCKET, SO_BUF_LOCK) & BUF_LOCK_SND)) REAL(setsockopt)(fd, SOL_SOCKET, SO_SNDBUF, &v, sizeof v);
}

/* ---- afterwards ---- */

static int forward_of(int level, int opt)
{
    for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++)
        if (forwarded[i].level == level && forwarded[i].opt == opt) return (int)i;
    return -1;
}

/* Only where an engine may be concerned: something is in the table, or was made by a process before exec. */
static void forward(int fd, enum mpc_opt opt, int value)
{
    struct ctl_req q;
    struct shim_fd *f = shim_find(fd);
    shim_req_init(&q, CTL_SETOPT);
    if (!shim_is_carrier(fd, f, &q.identity, &q.local)) {
        if (!f || f->kind != SHIM_CARRIER || f->cookie != shim_cookie(fd)) return;
        q.identity = f->identity, q.local = f->local; /* still connecting */
    }
    if (!f) shim_host_existing();
    q.opt = opt;
    q.value = (uint64_t)value;
    shim_tell(f ? f->host : SHIM_HOST_ANY, &q);
}

/* Signed segments and checkpoints need the kernel's own TCP: such a socket is never carried. */
static bool is_kernel_only(int level, int opt)
{
    return level == IPPROTO_TCP && (opt == TCP_MD5SIG || opt == TCP_MD5SIG_EXT || opt == TCP_REPAIR || (opt >= 38 && opt <= 42)); /* TCP_AO_* */
}

static void leave_to_kernel(int fd)
{
    struct shim_fd v = {.kind = SHIM_KERNEL, .cookie = shim_cookie(fd)};
    if (!shim_find(fd) && !shim_is_borrowed()) shim_put(fd, &v);
}

int w_setsockopt(int fd, int level, int opt, const void *v, socklen_t n)
{
    int saved = errno, r = REAL(setsockopt)(fd, level, opt, v, n), value;
    if (r < 0 || n < sizeof value || shim_is_engine) return r;
    if (SHIM_UNLIKELY(is_kernel_only(level, opt))) leave_to_kernel(fd);
    int i = forward_of(level, opt);
    if (i < 0) return r;
    memcpy(&value, v, sizeof value);
    forward(fd, forwarded[i].to, value);
    errno = saved;
    return r;
}

#define PATCH(info, room, field, v)                                                                     \
    do {                                                                                                \
        if (room >= offsetof(struct tcp_info, field) + sizeof (info)->field) (info)->field = (v);       \
    } while (0)

/* The carrier's own figures describe the loopback; those of the connection are the engine's. */
static void tcp_info(int fd, struct shim_fd *f, struct tcp_info *i, socklen_t room)
{
    struct ctl_rep rep;
    if (shim_query(fd, f, &rep)) return;
    uint32_t mss = rep.mss ? (uint32_t)rep.mss : 1460;
    PATCH(i, room, tcpi_rtt, (uint32_t)rep.srtt_us);
    PATCH(i, room, tcpi_rttvar, (uint32_t)rep.rttvar_us);
    PATCH(i, room, tcpi_snd_mss, mss);
    PATCH(i, room, tcpi_snd_cwnd, (uint32_t)(rep.cwnd_bytes / mss));
    PATCH(i, room, tcpi_unacked, (uint32_t)((rep.unacked_bytes + mss - 1) / mss));
    PATCH(i, room, tcpi_bytes_sent, rep.bytes_sent);
    PATCH(i, room, tcpi_bytes_received, rep.bytes_received);
}

int w_getsockopt(int fd, int level, int opt, void *v, socklen_t *n)
{
    int saved = errno, r = REAL(getsockopt)(fd, level, opt, v, n);
    if (r < 0 || !v || !n) return r;
    struct shim_fd *f = shim_find(fd);
    if (!f || f->kind != SHIM_CARRIER) return r;
    if (level == SOL_SOCKET && opt == SO_ERROR && *n == sizeof(int) && *(int *)v != 0) *(int *)v = shim_true_error(fd, f, *(int *)v);
    if (level == IPPROTO_TCP && opt == TCP_INFO) tcp_info(fd, f, v, *n);
    if (level == SOL_SOCKET && opt == SO_PEERNAME) w_getpeername(fd, v, n);
    errno = saved;
    return r;
}
