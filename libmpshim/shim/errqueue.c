/* MSG_ERRQUEUE with IP_RECVERR: the engine passes a network's ICMP error on over loopback; where it shows, the truth. */
#include <string.h>
#include <time.h>
#include <linux/errqueue.h> /* needs time.h */
#include <linux/icmpv6.h>
#include <netinet/in.h>

#include "shim/shim.h"

/* Who sent the error is not known here: AF_UNSPEC (ip(7)). To an IPv6 destination it was an ICMPv6 message. */
static void put_right(const struct shim_fd *f, struct cmsghdr *c)
{
    bool v4 = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR, v6 = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR;
    struct sock_extended_err *e = (struct sock_extended_err *)(void *)CMSG_DATA(c);
    if ((!v4 && !v6) || c->cmsg_len < CMSG_LEN(sizeof *e) || (e->ee_origin != SO_EE_ORIGIN_ICMP && e->ee_origin != SO_EE_ORIGIN_ICMP6)) return;
    if (c->cmsg_len > CMSG_LEN(sizeof *e)) memset(e + 1, 0, c->cmsg_len - CMSG_LEN(sizeof *e));
    if (f->truth_remote.sa.sa_family != AF_INET6 || e->ee_origin == SO_EE_ORIGIN_ICMP6) return;
    e->ee_origin = SO_EE_ORIGIN_ICMP6;
    e->ee_type = ICMPV6_DEST_UNREACH;
    e->ee_code = e->ee_errno == ENETUNREACH ? ICMPV6_NOROUTE : e->ee_errno == EHOSTUNREACH ? ICMPV6_ADDR_UNREACH : ICMPV6_PORT_UNREACH;
}

void shim_error_queue(int fd, struct msghdr *m, socklen_t room)
{
    struct shim_fd *f = shim_find(fd);
    struct sockaddr *sa = m->msg_name;
    union ctl_addr a;
    if (!f || (f->kind != SHIM_CARRIER && f->kind != SHIM_TRIED) || f->cookie != shim_cookie(fd) || !f->truth_remote.sa.sa_family) return;
    if (sa && m->msg_namelen && room >= m->msg_namelen && shim_is_identity(sa, f)) {
        socklen_t n = shim_addr_for(&a, &f->truth_remote, sa->sa_family);
        memcpy(sa, &a, n < room ? n : room);
        m->msg_namelen = n;
    }
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) put_right(f, c);
}
