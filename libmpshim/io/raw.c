/* io/raw.c: the raw path: AF_INET/AF_INET6 raw sockets, one per (interface, local, remote address) for flows that we
 * open, one per interface and family for those that come to our listeners.
 *
 * What goes through here passes the host's routing, netfilter and IPsec policy in both directions: every SYN does. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <linux/in6.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <unistd.h>

#include "core/wire.h"
#include "io/internal.h"

#ifndef IPV6_HDRINCL
#define IPV6_HDRINCL 36
#endif
#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif

#define RCVBUF (16 << 20)
#define SNDBUF (1 << 20)

/* ---- opening ---- */

static int set_int(int fd, int level, int opt, int v) { return setsockopt(fd, level, opt, &v, sizeof v) ? -errno : 0; }

static void set_buffers(int fd)
{
    if (set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, RCVBUF)) set_int(fd, SOL_SOCKET, SO_RCVBUF, RCVBUF);
    if (set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, SNDBUF)) set_int(fd, SOL_SOCKET, SO_SNDBUF, SNDBUF);
}

static int bind_device(int fd, int ifindex)
{
    char name[IFNAMSIZ];
    int err = set_int(fd, SOL_SOCKET, SO_BINDTOIFINDEX, ifindex);

    if (err != -ENOPROTOOPT) return err;
    if (!if_indextoname((unsigned)ifindex, name)) return -errno;
    return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, sizeof name) ? -errno : 0;
}

static int set_options(int fd, uint8_t family, int ifindex)
{
    int err = bind_device(fd, ifindex);

    if (err) return err;
    set_buffers(fd);
    if (family == 4) {
        set_int(fd, IPPROTO_IP, IP_RECVERR, 1);
        return set_int(fd, IPPROTO_IP, IP_HDRINCL, 1);
    }
    set_int(fd, IPPROTO_IPV6, IPV6_RECVERR, 1);
    set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    set_int(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
    return set_int(fd, IPPROTO_IPV6, IPV6_HDRINCL, 1);
}

/* A raw socket receives from birth: it drops everything until it has its own filter. */
static int raw_open(uint8_t family, int ifindex)
{
    int fd = socket(family == 4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP), err;

    if (fd < 0) return -errno;
    err = io_attach_drop_all(fd);
    if (!err) err = set_options(fd, family, ifindex);
    if (!err) return fd;
    close(fd);
    return err;
}

static int bind_connect(int fd, const struct mp_addr *local, const struct mp_addr *remote, int ifindex)
{
    struct sockaddr_in6 sa;
    socklen_t n = io_sockaddr(&sa, local, 0, ifindex);

    if (bind(fd, (struct sockaddr *)&sa, n)) return -errno;
    n = io_sockaddr(&sa, remote, 0, ifindex);
    return connect(fd, (struct sockaddr *)&sa, n) ? -errno : 0;
}

static struct io_sock *find_client(struct io *io, int ifindex, const struct mp_addr *local, const struct mp_addr *remote)
{
    for (struct io_sock *s = io->socks; s; s = s->next)
        if (s->kind == IO_RAW_CLIENT && !s->dead && s->ifindex == ifindex && mp_addr_eq(&s->remote, remote) &&
            mp_addr_eq(&s->local, local))
            return s;
    return NULL;
}

struct io_sock *io_raw_client(struct io *io, int ifindex, const struct mp_addr *local, const struct mp_addr *remote, int *err)
{
    struct io_sock *s = find_client(io, ifindex, local, remote);
    int fd;

    *err = 0;
    if (s) {
        s->refs++;
        return s;
    }
    fd = raw_open(local->family, ifindex);
    if (fd < 0) {
        *err = -fd;
        return NULL;
    }
    *err = -bind_connect(fd, local, remote, ifindex);
    if (*err) {
        close(fd);
        return NULL;
    }
    s = io_sock_new(io, IO_RAW_CLIENT, fd, ifindex);
    if (!s) {
        *err = ENOMEM;
        return NULL;
    }
    s->family = local->family;
    s->local = *local;
    s->remote = *remote;
    return s;
}

struct io_sock *io_raw_listen(struct io *io, int ifindex, uint8_t family)
{
    struct io_sock *s = io_sock_find(io, IO_RAW_LISTEN, ifindex, family);
    int fd;

    if (s) {
        s->refs++;
        return s;
    }
    fd = raw_open(family, ifindex);
    if (fd < 0) {
        io->no_privilege = fd == -EPERM;
        return NULL;
    }
    s = io_sock_new(io, IO_RAW_LISTEN, fd, ifindex);
    if (s) s->family = family;
    return s;
}

/* ---- receiving ---- */

static void read_control6(struct mp_pkt *p, struct msghdr *h)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level != IPPROTO_IPV6) continue;
        if (c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo pi;

            memcpy(&pi, CMSG_DATA(c), sizeof pi);
            p->dst.ip.family = 6;
            memcpy(p->dst.ip.b, &pi.ipi6_addr, 16);
        } else if (c->cmsg_type == IPV6_TCLASS) {
            int tos;

            memcpy(&tos, CMSG_DATA(c), sizeof tos);
            p->tos = (uint8_t)tos;
        }
    }
}

/* Large receive offload leaves a checksum that fits nothing; the card verified each segment before it merged them. No
 * packet on the wire is larger than the MTU. (GRO, unlike it, leaves the sum of the pseudo-header.) */
static bool was_merged_by_card(const struct io_sock *s, size_t n)
{
    uint32_t mtu = io_mtu(s->io, s->ifindex);

    return mtu && n > mtu;
}

/* IPv4 comes with its header, IPv6 without: its addresses stand beside it. */
static int raw_parse(struct io_sock *s, const struct io_rx_msg *m, struct mp_pkt *p)
{
    const uint8_t *tcp = m->buf->data;
    size_t n = m->len;

    if (s->family == 4) {
        if (io_ip_parse(p, m->buf->data, m->len, &tcp, &n)) return -EBADMSG;
    } else {
        io_addr_from(&p->src.ip, m->h->msg_name);
        read_control6(p, m->h);
        if (p->dst.ip.family != 6) return -EBADMSG;
    }
    if (!io_csum_ok(&p->src.ip, &p->dst.ip, tcp, n) && !was_merged_by_card(s, n)) {
        s->io->n.rx_csum++;
        return -EBADMSG;
    }
    if (mp_tcp_parse(p, tcp, n)) return -EBADMSG;
    p->data.buf = m->buf;
    return 0;
}

static void raw_each(struct io_sock *s, const struct io_rx_msg *m, mp_time now)
{
    struct mp_pkt p;

    memset(&p, 0, offsetof(struct mp_pkt, opt));
    p.gso_size = 0; /* unknown of merged packets */
    p.ifindex = s->ifindex;
    if (raw_parse(s, m, &p)) {
        s->io->n.rx_bad++;
        return;
    }
    io_deliver(s, &p, now);
}

/* ---- ICMP errors ---- */

/* The packet that an ICMP error quotes is one of ours: its source is our end. At least 8 bytes of TCP follow IP. */
static bool parse_quoted(const uint8_t *b, size_t n, struct mp_endpoint *local, struct mp_endpoint *remote, uint32_t *seq)
{
    uint8_t family = n ? b[0] >> 4 : 0, alen = family == 4 ? 4 : 16;
    size_t hdr = family == 4 ? (size_t)(b[0] & 15) * 4 : 40;
    const uint8_t *t = b + hdr;

    if ((family != 4 && family != 6) || n < hdr + 8 || hdr < 20) return false;
    if (b[family == 4 ? 9 : 6] != IPPROTO_TCP) return false;
    memset(local, 0, sizeof *local);
    memset(remote, 0, sizeof *remote);
    local->ip.family = remote->ip.family = family;
    memcpy(local->ip.b, b + (family == 4 ? 12 : 8), alen);
    memcpy(remote->ip.b, b + (family == 4 ? 16 : 24), alen);
    local->port = (uint16_t)(t[0] << 8 | t[1]);
    remote->port = (uint16_t)(t[2] << 8 | t[3]);
    *seq = (uint32_t)t[4] << 24 | (uint32_t)t[5] << 16 | (uint32_t)t[6] << 8 | t[7];
    return true;
}

static const struct sock_extended_err *find_error(struct msghdr *h)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c))
        if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) ||
            (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR))
            return (const struct sock_extended_err *)(void *)CMSG_DATA(c);
    return NULL;
}

/* RFC 792, RFC 4443 3.1: net or host unreachable; no route or address unreachable. The errno says the same of a filter's refusals. */
static bool says_no_way(const struct sock_extended_err *e)
{
    if (e->ee_origin == SO_EE_ORIGIN_ICMP6)
        return e->ee_type == ICMP6_DST_UNREACH && (e->ee_code == ICMP6_DST_UNREACH_NOROUTE || e->ee_code == ICMP6_DST_UNREACH_ADDR);
    return e->ee_type == ICMP_UNREACH && (e->ee_code == ICMP_UNREACH_NET || e->ee_code == ICMP_UNREACH_HOST);
}

static void report_error(struct io_sock *s, const struct sock_extended_err *e, const uint8_t *b, size_t n, mp_time now)
{
    struct mp_endpoint local, remote;
    struct io_flow *f;
    uint32_t seq;

    if (e->ee_origin != SO_EE_ORIGIN_ICMP && e->ee_origin != SO_EE_ORIGIN_ICMP6) return;
    if (!parse_quoted(b, n, &local, &remote, &seq)) return;
    f = io_flow_find(s->io, s->ifindex, &local, &remote);
    if (!f || f->raw != s || !*s->io->stack) return;
    mp_stack_net_error(*s->io->stack, f, (int)e->ee_errno, seq, true, e->ee_errno == EMSGSIZE ? e->ee_info : 0, now);
    if (says_no_way(e)) mp_stack_no_way(*s->io->stack, f, seq, now);
}

/* Each is one ICMP message; what is not read keeps the socket readable. */
static void read_errors(struct io_sock *s)
{
    uint8_t quoted[256];
    union { char b[512]; struct cmsghdr align; } ctl;

    for (int i = 0; i < 64 && !s->dead; i++) {
        struct iovec v = { quoted, sizeof quoted };
        struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl.b, .msg_controllen = sizeof ctl.b };
        ssize_t n = recvmsg(s->fd, &h, MSG_ERRQUEUE | MSG_DONTWAIT);
        const struct sock_extended_err *e;

        if (n < 0) return;
        e = find_error(&h);
        if (e) report_error(s, e, quoted, (size_t)n, io_now());
    }
}

/* Readable without packets: an ICMP error waits. With packets as well, the socket stays readable and this comes later. */
void io_raw_read(struct io_sock *s)
{
    if (io_sock_read(s, raw_each) <= 0 && !s->dead) read_errors(s);
}

/* ---- sending ---- */

/* A listener's socket has no address of its own: routing by source needs to be told. */
static void add_source(struct msghdr *h, char *ctl, const struct mp_addr *src)
{
    struct cmsghdr *c = (struct cmsghdr *)(void *)ctl;

    if (src->family == 4) {
        struct in_pktinfo pi = { 0 };

        memcpy(&pi.ipi_spec_dst, src->b, 4);
        *c = (struct cmsghdr){ .cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO, .cmsg_len = CMSG_LEN(sizeof pi) };
        memcpy(CMSG_DATA(c), &pi, sizeof pi);
        h->msg_controllen = CMSG_SPACE(sizeof pi);
    } else {
        struct in6_pktinfo pi = { 0 };

        memcpy(&pi.ipi6_addr, src->b, 16);
        *c = (struct cmsghdr){ .cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_PKTINFO, .cmsg_len = CMSG_LEN(sizeof pi) };
        memcpy(CMSG_DATA(c), &pi, sizeof pi);
        h->msg_controllen = CMSG_SPACE(sizeof pi);
    }
    h->msg_control = ctl;
}

static int send_one(struct io *io, struct io_flow *f, const struct mp_pkt *p)
{
    uint8_t hdr[IO_HDR_MAX];
    union io_ctl ctl;
    struct sockaddr_in6 to;
    struct iovec v[1 + MP_PKT_MAX_IOV];
    struct msghdr h = { .msg_iov = v, .msg_iovlen = 1u + p->niov };

    v[0] = (struct iovec){ hdr, io_hdr_build(hdr, p, f, io->ttl4, IO_CSUM_FULL) };
    for (int i = 0; i < p->niov; i++) v[1 + i] = (struct iovec){ (void *)p->iov[i].base, p->iov[i].len };
    if (f->raw->kind == IO_RAW_LISTEN) {
        h.msg_namelen = io_sockaddr(&to, &p->dst.ip, 0, f->ifindex);
        h.msg_name = &to;
        add_source(&h, ctl.b, &p->src.ip);
    }
    io->n.tx_raw++;
    return io_sock_send_marked(f->raw, &h, &ctl, p);
}

/* The part [off, off + len) of p's payload. */
static void cut_payload(struct mp_pkt *out, const struct mp_pkt *p, uint32_t off, uint32_t len)
{
    size_t skip = off, want = len;

    out->niov = 0;
    out->len = len;
    for (int i = 0; i < p->niov && want; i++) {
        size_t n = p->iov[i].len;

        if (skip >= n) {
            skip -= n;
            continue;
        }
        n -= skip;
        if (n > want) n = want;
        out->iov[out->niov++] = (struct mp_iov){ (const uint8_t *)p->iov[i].base + skip, n };
        want -= n;
        skip = 0;
    }
}

/* Segmentation as a card does it: the same options on all, FIN and PSH on the last, CWR on the first. */
static int send_segments(struct io *io, struct io_flow *f, const struct mp_pkt *p)
{
    struct mp_pkt one = *p;
    int err = 0;

    one.gso_size = 0;
    for (uint32_t off = 0; off < p->len && !err; off += one.len) {
        uint32_t n = (uint32_t)mp_min(p->gso_size, p->len - off);

        cut_payload(&one, p, off, n);
        one.seq = p->seq + off;
        one.flags = p->flags;
        if (off + n < p->len) one.flags &= (uint8_t)~(MP_FIN | MP_PSH);
        if (off) one.flags &= (uint8_t)~MP_CWR;
        err = send_one(io, f, &one);
    }
    return err;
}

int io_raw_output(struct io *io, struct io_flow *f, const struct mp_pkt *p)
{
    return p->gso_size && p->len > p->gso_size ? send_segments(io, f, p) : send_one(io, f, p);
}
