/* connect(): the program's own socket is connected over loopback to an identity of the engine (docs/carrier.md).
 *
 * The socket is not bound first: the kernel chooses its loopback port in connect(). So a failed attempt leaves the
 * socket as it was (a bind cannot be undone), ports are shared among identities, and the engine learns the port
 * from the SYN, which it sees on lo, so that its own SYN never comes too early. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/syscall.h>

#include "shim/shim.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51 /* Linux 6.3 */
#endif

#define ENGINE_TIMEOUT_MS 5000

static int get_int(int fd, int level, int opt)
{
    int v = 0;
    socklen_t n = sizeof v;
    return REAL(getsockopt)(fd, level, opt, &v, &n) == 0 ? v : 0;
}

uint64_t shim_cookie(int fd)
{
    uint64_t v = 0;
    socklen_t n = sizeof v;
    return REAL(getsockopt)(fd, SOL_SOCKET, SO_COOKIE, &v, &n) == 0 ? v : 0;
}

bool shim_is_tcp(int fd, int *family)
{
    if (get_int(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_TCP) return false; /* an MPTCP socket is the kernel's */
    *family = get_int(fd, SOL_SOCKET, SO_DOMAIN);
    return *family == AF_INET || *family == AF_INET6;
}

/* ---- may it be carried? ---- */

static bool is_destination(const union ctl_addr *a)
{
    if (!a->v4.sin_port) return false;
    if (a->sa.sa_family == AF_INET) {
        uint32_t ip = ntohl(a->v4.sin_addr.s_addr);
        return ip && ip >> 24 != 127 && ip >> 28 < 0xe; /* not unspecified, loopback, multicast, reserved, broadcast */
    }
    const struct in6_addr *ip = &a->v6.sin6_addr;
    return !IN6_IS_ADDR_UNSPECIFIED(ip) && !IN6_IS_ADDR_LOOPBACK(ip) && !IN6_IS_ADDR_MULTICAST(ip) && !IN6_IS_ADDR_LINKLOCAL(ip);
}

/* tried: a failed connect of ours left the port that the kernel had chosen. */
static bool is_bound(int fd, bool tried)
{
    struct sockaddr_storage ss;
    union ctl_addr a;
    socklen_t n = sizeof ss;
    if (REAL(getsockname)(fd, (struct sockaddr *)&ss, &n) || !shim_addr_in(&a, (struct sockaddr *)&ss, n)) return true;
    if (a.v4.sin_port && !tried) return true;
    return a.sa.sa_family == AF_INET ? a.v4.sin_addr.s_addr != 0 : !IN6_IS_ADDR_UNSPECIFIED(&a.v6.sin6_addr);
}

static bool is_tied(int fd) /* to a device, or to a range of ports */
{
    char dev[IFNAMSIZ] = "";
    socklen_t n = sizeof dev;
    return (REAL(getsockopt)(fd, SOL_SOCKET, SO_BINDTODEVICE, dev, &n) == 0 && n > 0 && dev[0]) || get_int(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE);
}

/* An address that this socket cannot connect to is refused by the kernel in its own words. */
static bool fits(int fd, int family, const struct sockaddr *sa, const union ctl_addr *remote)
{
    if (sa->sa_family != family) return false;
    return family == AF_INET || remote->sa.sa_family == AF_INET6 || !get_int(fd, IPPROTO_IPV6, IPV6_V6ONLY);
}

static int kernels_own(int fd, const struct sockaddr *sa, socklen_t n)
{
    struct shim_fd *f = shim_find(fd);
    if (f) f->cc = 0; /* what the kernel took of it stands */
    return (int)shim_neg(REAL(connect)(fd, sa, n));
}

static int by_kernel(int fd, const struct sockaddr *sa, socklen_t n, enum ctl_why why, const char *detail)
{
    union ctl_addr a;
    char text[64];
    if (shim_conf.verbose && shim_addr_in(&a, sa, n))
        shim_log(1, "%s: %s: %s", shim_addr_text(&a, text, sizeof text), shim_is_refused(why) ? "refused (strict)" : "kernel TCP",
                 detail ? detail : shim_why_text(why));
    if (shim_is_refused(why)) return -EPROTONOSUPPORT;
    return kernels_own(fd, sa, n);
}

/* ---- the carrier ---- */

static bool is_pending(int r) { return r == -EINPROGRESS || r == -EALREADY || r == -EINTR; }

/* Waits as a blocking connect() does, or asks how far it is. */
static int go_on(int fd, struct shim_fd *f, int family)
{
    union ctl_addr to;
    socklen_t n = shim_addr_for(&to, &f->identity, family);
    int r = (int)shim_neg(REAL(connect)(fd, &to.sa, n));
    if (is_pending(r)) return r;
    if (r == 0 || r == -EISCONN) {
        f->pending = 0;
        return r;
    }
    if (r != -ECONNABORTED) r = -shim_true_error(fd, f, -r); /* that: the error itself was taken by SO_ERROR or read() */
    if (!shim_is_borrowed()) atomic_store(&f->kind, SHIM_TRIED);
    return r;
}

/* Puts the socket into SYN_SENT towards the identity, without waiting. 0, or -errno with the socket as before. */
static int send_syn(int fd, struct shim_fd *f, int family)
{
    union ctl_addr to;
    struct sockaddr_storage own;
    socklen_t n = shim_addr_for(&to, &f->identity, family), own_n = sizeof own;
    int r = (int)shim_neg(syscall(SYS_connect, fd, &to.sa, n)); /* no cancellation point: O_NONBLOCK is not the program's */
    if (r && r != -EINPROGRESS) return r;
    REAL(getsockname)(fd, (struct sockaddr *)&own, &own_n);
    shim_addr_in(&f->local, (struct sockaddr *)&own, own_n);
    return 0;
}

static int carry(int fd, struct shim_fd *v, int family)
{
    int flags = REAL(fcntl)(fd, F_GETFL, NULL), zero = 0;
    bool blocking = !(flags & O_NONBLOCK);
    if (get_int(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT)) /* would put off the SYN until the first write */
        REAL(setsockopt)(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &zero, sizeof zero);
    if (blocking) REAL(fcntl)(fd, F_SETFL, (void *)(intptr_t)(flags | O_NONBLOCK));
    int r = send_syn(fd, v, family);
    if (blocking) REAL(fcntl)(fd, F_SETFL, (void *)(intptr_t)flags);
    if (r) return r;
    if (shim_is_borrowed() || !shim_put(fd, v)) return blocking ? go_on(fd, v, family) : -EINPROGRESS;
    if (!blocking) return -EINPROGRESS;
    r = go_on(fd, shim_find(fd), family);
    return r == -EALREADY ? -EINPROGRESS : r == -EISCONN ? 0 : r; /* SO_SNDTIMEO ran out; up at once */
}

/* marked: it has an SO_MARK. The engine reads that and SO_PRIORITY from the socket, by which the host's own rules, routes and queues go. */
static int ask(int fd, int host, int family, bool marked, const union ctl_addr *remote, struct ctl_rep *rep)
{
    struct ctl_req q;
    shim_req_init(&q, CTL_CONNECT);
    q.remote = *remote;
    shim_options_read(fd, remote->sa.sa_family, &q);
    if (family == AF_INET6 && get_int(fd, IPPROTO_IPV6, IPV6_V6ONLY)) q.flags |= CTL_F_V6ONLY;
    return shim_request(host, &q, marked || get_int(fd, SOL_SOCKET, SO_PRIORITY) ? fd : -1, rep, ENGINE_TIMEOUT_MS);
}

/* The engine may have ended since the last call (a helper killed, a parent's engine): once more with another. */
static int ask_some_host(int fd, int family, const union ctl_addr *remote, struct ctl_rep *rep, int *host, const char **detail)
{
    enum ctl_why why;
    int r = -EPIPE;
    for (int tries = 0; tries < 2 && r == -EPIPE; tries++) {
        bool marked = get_int(fd, SOL_SOCKET, SO_MARK);
        *host = shim_host_for_connect(marked, &why, detail);
        if (*host < 0) return (int)why;
        if (!shim_host_fits(*host, fd)) return *detail = SHIM_OTHER_NETWORK, CTL_NO_ENGINE;
        r = ask(fd, *host, family, marked, remote, rep);
    }
    if (r) return r == -EMFILE || r == -ENFILE ? CTL_RESOURCE : CTL_NO_ENGINE;
    return rep->result ? (rep->why ? (int)rep->why : CTL_RESOURCE) : CTL_OK;
}

static int first_connect(int fd, const struct sockaddr *sa, socklen_t n, const union ctl_addr *remote, const struct shim_fd *before)
{
    int family, host;
    const char *detail = NULL;
    struct ctl_rep rep;
    if (!shim_is_tcp(fd, &family) || !fits(fd, family, sa, remote)) return (int)shim_neg(REAL(connect)(fd, sa, n));
    if (shim_is_excluded(remote)) return by_kernel(fd, sa, n, CTL_EXCLUDED, NULL);
    if (is_bound(fd, before->kind == SHIM_TRIED) || is_tied(fd)) return by_kernel(fd, sa, n, CTL_BOUND, NULL);
    int why = ask_some_host(fd, family, remote, &rep, &host, &detail);
    if (why) return by_kernel(fd, sa, n, (enum ctl_why)why, detail);

    struct shim_fd v = {.kind = SHIM_CARRIER, .host = (uint8_t)host, .pending = 1, .cookie = shim_cookie(fd), .identity = rep.identity, .truth_remote = *remote, .mptcp = before->mptcp, .cc = before->cc};
    shim_bound_unsent(fd);
    int r = carry(fd, &v, family);
    if (r == -EADDRNOTAVAIL || r == -EAGAIN) return by_kernel(fd, sa, n, CTL_RESOURCE, NULL);
    return r;
}

/* connect(AF_UNSPEC) ends the connection or the attempt; the kernel frees the socket, and it may connect again. */
static int dissolve(int fd, struct shim_fd *f, const struct sockaddr *sa, socklen_t n)
{
    int r = (int)shim_neg(REAL(connect)(fd, sa, n));
    if (r == 0 && !shim_is_borrowed()) atomic_store(&f->kind, SHIM_TRIED);
    return r;
}

/* What is known of this very socket: TRIED, ASKED and KERNEL are remembered, a stale entry is not. */
static struct shim_fd known(int fd, struct shim_fd *f)
{
    static const struct shim_fd nothing;
    if (!f) return nothing;
    if (f->cookie == shim_cookie(fd)) return *f;
    shim_forget(fd);
    return nothing;
}

int shim_connect(int fd, const struct sockaddr *sa, socklen_t n)
{
    union ctl_addr remote;
    struct shim_fd *f = shim_find(fd), k = known(fd, f);
    if (k.kind == SHIM_CARRIER && sa && n >= sizeof sa->sa_family && sa->sa_family != AF_UNSPEC) return go_on(fd, f, get_int(fd, SOL_SOCKET, SO_DOMAIN));
    if (k.kind == SHIM_CARRIER) return dissolve(fd, f, sa, n);
    if (k.kind == SHIM_KERNEL || k.kind == SHIM_LISTENER || !shim_addr_in(&remote, sa, n) || !is_destination(&remote))
        return kernels_own(fd, sa, n);
    return first_connect(fd, sa, n, &remote, &k);
}

int w_connect(int fd, const struct sockaddr *sa, socklen_t n)
{
    if (shim_is_engine || n < sizeof sa->sa_family || !shim_is_readable(sa) || (sa->sa_family != AF_INET && sa->sa_family != AF_INET6 && !shim_find(fd)))
        return REAL(connect)(fd, sa, n);
    int saved = errno;
    return (int)shim_ret(shim_connect(fd, sa, n), saved);
}
