/* Socket options of carriers: the kernel's socket keeps them all; those that mean the network go to the engine too.
 * TCP_CORK and MSG_MORE are not among them: the program's own socket holds the bytes back, with the kernel's limit of
 * 200 ms, and a second cork behind it would hold what the first one let go. */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>

#include "core/stack.h"
#include "mpshim.h"
#include "shim/shim.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef SO_PEERNAME
#define SO_PEERNAME 28
#endif
enum { BUF_LOCK_SND = 1, BUF_LOCK_RCV = 2 }; /* SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK */

/* Unsent bytes that a carrier's program may be ahead; odd, so that no program asks for just as many. */
enum { CARRIER_UNSENT = (1 << 20) - 1, UNSET_MSS = 536 /* what a socket answers that is not connected */ };

static const struct { int level, opt; enum mpc_opt to; } forwarded[] = {
    {IPPROTO_TCP, TCP_NODELAY, MPC_NODELAY},
    {SOL_SOCKET, SO_KEEPALIVE, MPC_KEEPALIVE},
    {IPPROTO_TCP, TCP_KEEPIDLE, MPC_KEEPIDLE_S},
    {IPPROTO_TCP, TCP_KEEPINTVL, MPC_KEEPINTVL_S},
    {IPPROTO_TCP, TCP_KEEPCNT, MPC_KEEPCNT},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, MPC_USER_TIMEOUT_MS},
    {SOL_SOCKET, SO_RCVBUF, MPC_RCVBUF},
    {SOL_SOCKET, SO_SNDBUF, MPC_SNDBUF},
    {IPPROTO_IP, IP_TOS, MPC_TOS},
    {IPPROTO_IPV6, IPV6_TCLASS, MPC_TOS},
    {IPPROTO_IP, IP_TTL, MPC_TTL},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, MPC_TTL},
    {SOL_SOCKET, SO_MARK, MPC_MARK},
    {SOL_SOCKET, SO_PRIORITY, MPC_PRIORITY},
};

/* ---- before connect() ---- */

static int get(int fd, int level, int opt)
{
    int v = 0;
    socklen_t n = sizeof v;
    return REAL(getsockopt)(fd, level, opt, &v, &n) == 0 ? v : 0;
}

/* family: of the addresses on the network. TTL and the segment size are told only where the program set them: the
 * kernel's answers are its defaults. */
void shim_options_read(int fd, int family, struct ctl_req *q)
{
    bool v6 = family == AF_INET6;
    int lock = get(fd, SOL_SOCKET, SO_BUF_LOCK), mss = get(fd, IPPROTO_TCP, TCP_MAXSEG);
    if (get(fd, IPPROTO_TCP, TCP_NODELAY)) q->flags |= CTL_F_NODELAY;
    if (get(fd, SOL_SOCKET, SO_KEEPALIVE)) q->flags |= CTL_F_KEEPALIVE;
    if (q->flags & CTL_F_KEEPALIVE) {
        q->keepidle_s = get(fd, IPPROTO_TCP, TCP_KEEPIDLE);
        q->keepintvl_s = get(fd, IPPROTO_TCP, TCP_KEEPINTVL);
        q->keepcnt = get(fd, IPPROTO_TCP, TCP_KEEPCNT);
    }
    q->user_timeout_ms = get(fd, IPPROTO_TCP, TCP_USER_TIMEOUT);
    /* The kernel doubles what was asked for, for what it keeps beside the data. What we keep out of order costs little more
     * than its bytes: the memory is the same, and the window may be twice as wide. */
    if (lock & BUF_LOCK_RCV) q->rcvbuf = (uint32_t)get(fd, SOL_SOCKET, SO_RCVBUF);
    if (lock & BUF_LOCK_SND) q->sndbuf = (uint32_t)get(fd, SOL_SOCKET, SO_SNDBUF) / 2;
    q->tos = (uint8_t)(v6 ? get(fd, IPPROTO_IPV6, IPV6_TCLASS) : get(fd, IPPROTO_IP, IP_TOS));
    q->ttl = (uint8_t)(v6 ? get(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS) : get(fd, IPPROTO_IP, IP_TTL));
    q->maxseg = (uint16_t)(mss == UNSET_MSS ? 0 : mss);
    struct shim_fd *f = shim_find(fd);
    q->cc = f && f->cookie == shim_cookie(fd) ? f->cc : 0;
}

/* Over loopback, autotuning gives the program's socket megabytes at once, behind which the engine's queue waits: a
 * program that counts what it wrote (progress bars, iperf3 -n) was 4.8 MB ahead of a 100 Mbit/s network, where the
 * kernel's TCP lets it be as far ahead as the windows are wide. So what waits there is bounded; not by SO_SNDBUF, which
 * net.core.wmem_max keeps at 208 KB: a program that blocked in one send() of six lost bytes where it takes no care of
 * partial ones (ncat --sh-exec, whose child's end interrupts the last: one run of eight, by the kernel's TCP of 24). */
void shim_bound_unsent(int fd)
{
    int v = CARRIER_UNSENT;
    if (!(get(fd, SOL_SOCKET, SO_BUF_LOCK) & BUF_LOCK_SND) && !get(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT))
        REAL(setsockopt)(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &v, sizeof v);
}

/* ---- afterwards ---- */

static int forward_of(int level, int opt)
{
    for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++)
        if (forwarded[i].level == level && forwarded[i].opt == opt) return (int)i;
    return -1;
}

/* IP options of an IPv6 socket mean its IPv4 connections, and the other way round. */
static bool is_other_family(const struct shim_fd *f, int level)
{
    int family = f ? f->truth_remote.sa.sa_family : 0;
    return (level == IPPROTO_IPV6 && family == AF_INET) || (level == IPPROTO_IP && family == AF_INET6);
}

static bool is_mark(uint32_t opt) { return opt == MPC_MARK || opt == MPC_PRIORITY; }

/* A mark is read from the socket itself, and holds for what is written after setsockopt(): an answer is waited for. */
static void send_option(int fd, const struct shim_fd *f, struct ctl_req *q)
{
    int shown = is_mark(q->opt) ? fd : -1;
    struct ctl_rep rep;
    if (q->opt == MPC_MARK && q->value && f && f->host == SHIM_HOST_INSIDE && shim_conf.engine == SHIM_AUTO && shim_pid != 1) shim_hand_over(); /* as pick_for_marked() */
    if (f && f->host < SHIM_HOSTS) {
        if (shown >= 0) shim_request(f->host, q, shown, &rep, 1000);
        else shim_tell(f->host, q);
        return;
    }
    if (shim_request_stranger(q, shown, &rep, sizeof rep, 1000) == 0) return; /* another process made it */
    shim_host_existing();
    for (int host = 0; shown >= 0 && host < SHIM_HOSTS; host++) shim_request(host, q, shown, &rep, 1000);
    if (shown < 0) shim_tell(SHIM_HOST_ANY, q);
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
    q.opt = opt;
    q.value = value < 0 ? 0 : (uint64_t)value; /* -1: the default */
    send_option(fd, f, &q);
}

void shim_option_tell(int fd, int opt, int value)
{
    struct shim_fd *f = shim_find(fd);
    if (f && f->kind == SHIM_LISTENER) shim_listen_options(fd, f);
    else forward(fd, (enum mpc_opt)opt, value);
}

/* The kernel derives SO_PRIORITY from IP_TOS. */
static void tell_priority(int fd)
{
    struct shim_fd *f = shim_find(fd);
    if (f && f->kind == SHIM_CARRIER) forward(fd, MPC_PRIORITY, 0);
}

/* Signed segments and checkpoints need the kernel's own TCP: such a socket is never carried. */
static const char *kernel_only(int level, int opt)
{
    if (level != IPPROTO_TCP) return NULL;
    if (opt == TCP_MD5SIG || opt == TCP_MD5SIG_EXT) return "TCP_MD5SIG";
    return opt == TCP_REPAIR ? "TCP_REPAIR" : opt >= 38 && opt <= 42 ? "TCP_AO" : NULL;
}

/* After connect() it is too late: a kernel that does not know the option says ENOPROTOOPT. */
static int refuse_option(const char *name)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&told)) shim_log(1, "%s: not possible on a connection that the engine carries", name);
    errno = ENOPROTOOPT;
    return -1;
}

static int set_kernel_only(int fd, int level, int opt, const void *v, socklen_t n)
{
    struct shim_fd *f = shim_find(fd), kernel = {.kind = SHIM_KERNEL, .cookie = shim_cookie(fd)};
    if (f && f->kind == SHIM_CARRIER && f->cookie == kernel.cookie) return refuse_option(kernel_only(level, opt));
    int r = REAL(setsockopt)(fd, level, opt, v, n);
    if (r == 0 && (!f || f->kind != SHIM_LISTENER) && !shim_is_borrowed()) shim_put(fd, &kernel);
    return r;
}

/* Most of these options take a whole int; IP's also a single byte. */
static bool value_of(int level, const void *v, socklen_t n, int *value)
{
    if (n >= sizeof *value) memcpy(value, v, sizeof *value);
    else if (level == IPPROTO_IP && n >= 1) *value = *(const uint8_t *)v;
    else return false;
    return true;
}

int w_setsockopt(int fd, int level, int opt, const void *v, socklen_t n)
{
    if (shim_is_engine) return REAL(setsockopt)(fd, level, opt, v, n);
    if (SHIM_UNLIKELY(kernel_only(level, opt) != NULL)) return set_kernel_only(fd, level, opt, v, n);
    if (SHIM_UNLIKELY(level == SOL_MPSHIM)) return shim_mpshim_set(fd, opt, v, n);
    if (SHIM_UNLIKELY(level == IPPROTO_TCP && opt == TCP_CONGESTION)) return shim_congestion_set(fd, v, n);
    int saved = errno, r = REAL(setsockopt)(fd, level, opt, v, n), value, i = r == 0 ? forward_of(level, opt) : -1;
    if (i < 0 || !value_of(level, v, n, &value)) return r;
    if (forwarded[i].to == MPC_RCVBUF) value = get(fd, SOL_SOCKET, SO_RCVBUF); /* as shim_options_read */
    if (!is_other_family(shim_find(fd), level)) shim_option_tell(fd, forwarded[i].to, value);
    if (level == IPPROTO_IP && opt == IP_TOS) tell_priority(fd);
    errno = saved;
    return r;
}

/* ---- questions ---- */

/* The kernel has answered about the carrier; what it cannot know is put right. Also for a carrier that another process
 * made (f NULL): those few questions are worth asking whose socket it is. */
static void carrier_get(int fd, struct shim_fd *f, int level, int opt, void *v, socklen_t *n)
{
    if (f && f->kind != SHIM_CARRIER) return;
    if (level == SOL_SOCKET && opt == SO_ERROR && f && *n == sizeof(int) && *(int *)v != 0)
        *(int *)v = shim_true_error(fd, f, *(int *)v);
    else if (level == IPPROTO_TCP && opt == TCP_NOTSENT_LOWAT && *n == sizeof(int) && *(int *)v == CARRIER_UNSENT)
        *(int *)v = 0; /* ours, not the program's */
    else if (level == SOL_SOCKET && opt == SO_PEERNAME)
        w_getpeername(fd, v, n);
    else if (shim_is_info(level, opt))
        shim_info_get(fd, f, level, opt, v, *n);
    else if (shim_is_packet_options(level, opt))
        shim_packet_options(fd, f, v, *n);
    else if (level == IPPROTO_TCP && opt == TCP_SAVED_SYN)
        *n = 0; /* it came over loopback; the client's is not kept */
}

int w_getsockopt(int fd, int level, int opt, void *v, socklen_t *n)
{
    if (SHIM_UNLIKELY(level == SOL_MPTCP || level == SOL_MPSHIM) && !shim_is_engine) return shim_mptcp_get(fd, level, opt, v, n);
    int saved = errno, r = REAL(getsockopt)(fd, level, opt, v, n);
    if (r < 0 || !v || !n || shim_is_engine) return r;
    struct shim_fd *f = shim_find(fd);
    if (f && f->mptcp && level == SOL_SOCKET && opt == SO_PROTOCOL && *n == sizeof(int) && f->cookie == shim_cookie(fd))
        *(int *)v = IPPROTO_MPTCP;
    if (f && f->guarded && level == SOL_SOCKET && opt == SO_REUSEPORT && *n == sizeof(int) && f->cookie == shim_cookie(fd))
        *(int *)v = 0; /* it is ours: listen.c */
    if (f && f->cc && level == IPPROTO_TCP && opt == TCP_CONGESTION && f->cookie == shim_cookie(fd)) shim_congestion_get(f, v, *n);
    if ((f && f->kind == SHIM_CARRIER) || shim_is_info(level, opt)) carrier_get(fd, f, level, opt, v, n);
    errno = saved;
    return r;
}
