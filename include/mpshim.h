/* mpshim.h: a program's own say about its Multipath TCP connections under libmpshim: RFC 6897's calls (section 5.3).
 *
 * They are socket options of a level of their own, which libmpshim.so answers: nothing is linked, and without libmpshim
 * (or on a socket that the kernel carries) each call fails with ENOPROTOOPT or EOPNOTSUPP and the program goes on with
 * TCP. Most programs need none of this: mptcp-run makes their connections multipath by itself.
 *
 *     uint32_t id;
 *     if (mpshim_connection_id(fd, &id) == 0) printf("multipath, connection %08x\n", id);
 *
 * All return 0 or a count, or -1 with errno. */
#ifndef MPSHIM_H
#define MPSHIM_H

#include <stdint.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SOL_MPSHIM 0x4d50
enum {
    MPSHIM_ENABLE = 1,   /* int, get and set: TCP_MULTIPATH_ENABLE */
    MPSHIM_ADD = 2,      /* struct sockaddr, set: TCP_MULTIPATH_ADD */
    MPSHIM_REMOVE = 3,   /* struct sockaddr, set: TCP_MULTIPATH_REMOVE */
    MPSHIM_SUBFLOWS = 4, /* struct mpshim_subflow[], get: TCP_MULTIPATH_SUBFLOWS */
    MPSHIM_CONNID = 5,   /* uint32_t, get: TCP_MULTIPATH_CONNID */
};

enum { MPSHIM_SF_INITIAL = 1, MPSHIM_SF_BACKUP = 2, MPSHIM_SF_STALE = 4 /* set aside: it makes no progress */ };
struct mpshim_subflow {
    struct sockaddr_storage local, remote;
    char interface[16];
    uint32_t ifindex, flags, state; /* state: TCP_ESTABLISHED, ... of netinet/tcp.h */
    uint32_t srtt_us, mss, reserved; /* mss 0: not answered yet */
    uint64_t cwnd, bytes_sent, bytes_received; /* bytes; sent: acknowledged by the peer */
};

/* Before connect() or listen(): may this socket's connections use MPTCP? (They may unless told otherwise.) Afterwards:
 * EISCONN. */
static inline int mpshim_enable(int fd, int on) { return setsockopt(fd, SOL_MPSHIM, MPSHIM_ENABLE, &on, sizeof on); }

/* Before connect(): 1 if it may. Afterwards: 1 if this connection uses MPTCP, 0 if it is plain TCP. */
static inline int mpshim_is_enabled(int fd)
{
    int on = 0;
    socklen_t n = sizeof on;
    return getsockopt(fd, SOL_MPSHIM, MPSHIM_ENABLE, &on, &n) ? -1 : on;
}

/* A connection leaves a local address of this host, for as long as it is not added again: EBUSY if it has no other path;
 * EADDRNOTAVAIL if no path of the host has this address. The port does not matter. */
static inline int mpshim_remove(int fd, const struct sockaddr *local, socklen_t n) { return setsockopt(fd, SOL_MPSHIM, MPSHIM_REMOVE, local, n); }
static inline int mpshim_add(int fd, const struct sockaddr *local, socklen_t n) { return setsockopt(fd, SOL_MPSHIM, MPSHIM_ADD, local, n); }

/* The subflows, at most max; their number. */
static inline int mpshim_subflows(int fd, struct mpshim_subflow *v, int max)
{
    socklen_t n = (socklen_t)((uint32_t)max * sizeof *v);
    return getsockopt(fd, SOL_MPSHIM, MPSHIM_SUBFLOWS, v, &n) ? -1 : (int)(n / sizeof *v);
}

/* An identifier that no other connection of this host has while it lives: MPTCP's token (RFC 8684 3.1). */
static inline int mpshim_connection_id(int fd, uint32_t *id)
{
    socklen_t n = sizeof *id;
    return getsockopt(fd, SOL_MPSHIM, MPSHIM_CONNID, id, &n);
}

#ifdef __cplusplus
}
#endif
#endif
