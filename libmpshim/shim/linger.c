/* SO_LINGER with a time: close() waits until the peer has acknowledged everything, at most so long, also on a non-blocking
 * socket. Over loopback the engine acknowledges at once; so it is asked, after the real close(), until the network has. */
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <stddef.h>
#include <string.h>
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

struct question { struct nlmsghdr h; struct inet_diag_req_v2 r; };
struct answer { struct nlmsghdr h; struct inet_diag_msg m; char attributes[1024]; };

static void put(const union ctl_addr *a, __be32 ip[4], __be16 *port)
{
    if (a->sa.sa_family == AF_INET6) memcpy(ip, &a->v6.sin6_addr, sizeof a->v6.sin6_addr);
    else memcpy(ip, &a->v4.sin_addr, sizeof a->v4.sin_addr);
    *port = a->v4.sin_port; /* at the same place in both */
}

/* Another process has the same socket: close() of ours ended nothing. It has an inode as long as somebody holds it. */
static bool is_held(const struct shim_fd *w)
{
    struct question q = {.h = {.nlmsg_len = sizeof q, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST},
                         .r = {.sdiag_family = (uint8_t)w->local.sa.sa_family, .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0u}};
    struct answer a = {0};
    put(&w->local, q.r.id.idiag_src, &q.r.id.idiag_sport);
    put(&w->identity, q.r.id.idiag_dst, &q.r.id.idiag_dport);
    q.r.id.idiag_cookie[0] = q.r.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    int fd = (int)syscall(SYS_socket, AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
    if (fd < 0) return false;
    bool told = syscall(SYS_write, fd, &q, sizeof q) == sizeof q && syscall(SYS_read, fd, &a, sizeof a) >= (long)offsetof(struct answer, attributes);
    syscall(SYS_close, fd);
    return told && a.h.nlmsg_type == SOCK_DIAG_BY_FAMILY && a.m.idiag_inode;
}

/* A signal ends it, as the kernel's. */
void shim_linger_wait(struct shim_fd *w, uint64_t end)
{
    struct ctl_rep rep;
    int saved = errno;
    uint64_t now;
    if (is_held(w)) return (void)(errno = saved);
    for (long us = FIRST_LOOK_US; shim_query(-1, w, &rep) == 0 && rep.unacked_bytes && (now = now_us()) < end; us = us * 2 < LONGEST_US ? us * 2 : LONGEST_US) {
        struct timespec t = {0, (end - now < (uint64_t)us ? (long)(end - now) : us) * 1000};
        if (syscall(SYS_nanosleep, &t, NULL) < 0) break;
    }
    errno = saved;
}
