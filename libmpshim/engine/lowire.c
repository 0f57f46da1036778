/* engine/lowire.c: the SYNs of programs whose connect() is pending, seen and answered over loopback.
 *
 * A pending program's SYN is dropped by the identity's filter, so TCP cannot answer it. A raw socket on the identity's
 * address sees it before that. It tells that the program has called connect() (so that our end may meet it), and its
 * sequence number, with which a failure can be told in TCP's own words: connect() returns the true errno, in any
 * process and through any interface, io_uring included. Measured: 2 to 250 us, where closing the identity would let
 * the program wait for its next SYN, a second later. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/wire.h"
#include "engine/eng.h"

enum { LO_IFINDEX = 1 };

/* Passes a SYN without ACK, nothing else. IPv4 raw sockets see the IP header, IPv6 ones do not. */
static int attach_syn_only(int fd, bool v6)
{
    struct sock_filter v4code[] = {
        BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0),
        BPF_STMT(BPF_LD | BPF_B | BPF_IND, 13),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, MP_SYN | MP_ACK | MP_RST),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MP_SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 128),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_filter v6code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, MP_SYN | MP_ACK | MP_RST),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MP_SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 128),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog p = { .len = 6, .filter = v4code };
    if (v6)
        p = (struct sock_fprog){ .len = 5, .filter = v6code };
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p) ? -errno : 0;
}

static int raw_socket(int family, int proto)
{
    int fd = socket(family, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, proto);
    return fd < 0 ? -errno : fd;
}

static int watch_setup(struct engine *e, int fd, bool v6)
{
    int err = attach_syn_only(fd, v6), big = 4 << 20;
    if (err)
        return err;
    struct mp_endpoint id = eng_identity_any(e, v6);
    union ctl_addr a;
    socklen_t n = eng_to_sa(&id, AF_INET, &a);
    if (bind(fd, &a.sa, n))
        return -errno;
    /* Room for the SYNs of thousands of connect() calls between two turns of the loop. */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
    return 0;
}

static int watch_open(struct engine *e, bool v6)
{
    int fd = raw_socket(v6 ? AF_INET6 : AF_INET, IPPROTO_TCP);
    if (fd < 0)
        return fd;
    int err = watch_setup(e, fd, v6), on = 1;
    if (!err && !v6 && setsockopt(fd, IPPROTO_IP, IP_HDRINCL, &on, sizeof on))
        err = -errno;
    int at = 16; /* of the checksum in the TCP header, for the kernel to fill in */
    if (!err && v6 && setsockopt(fd, IPPROTO_IPV6, IPV6_CHECKSUM, &at, sizeof at))
        err = -errno;
    if (err) {
        close(fd);
        return err;
    }
    return fd;
}

static void syn_in(struct engine *e, const struct mp_addr *src, const struct mp_addr *dst, const uint8_t *tcp, size_t n)
{
    struct tcphdr th;
    if (n < sizeof th)
        return;
    memcpy(&th, tcp, sizeof th);
    struct mp_endpoint prog = { .ip = *src, .port = ntohs(th.source) };
    struct mp_endpoint id = { .ip = *dst, .port = ntohs(th.dest) };
    eng_carrier_on_syn(e, &id, &prog, ntohl(th.seq));
}

static bool read4(struct engine *e)
{
    uint8_t b[160];
    ssize_t n = recv(e->lo4, b, sizeof b, MSG_DONTWAIT);
    if (n < 0)
        return errno == EINTR;
    size_t ihl = (size_t)(b[0] & 15) * 4;
    if (n < 20 || (size_t)n < ihl)
        return true;
    struct mp_addr src = { .family = 4 }, dst = { .family = 4 };
    memcpy(src.b, b + 12, 4);
    memcpy(dst.b, b + 16, 4);
    syn_in(e, &src, &dst, b + ihl, (size_t)n - ihl);
    return true;
}

static bool read6(struct engine *e)
{
    uint8_t b[160];
    struct sockaddr_in6 from;
    socklen_t fl = sizeof from;
    ssize_t n = recvfrom(e->lo6, b, sizeof b, MSG_DONTWAIT, (void *)&from, &fl);
    if (n < 0)
        return errno == EINTR;
    struct mp_endpoint one = eng_identity_any(e, true);
    struct mp_addr src = { .family = 6 };
    memcpy(src.b, &from.sin6_addr, 16);
    syn_in(e, &src, &one.ip, b, (size_t)n);
    return true;
}

void eng_lo_read(struct engine *e)
{
    if (e->lo4 >= 0)
        while (read4(e))
            ;
    if (e->lo6 >= 0)
        while (read6(e))
            ;
}

static void on_lo(struct ev_loop *loop, ev_io *w, int events)
{
    (void)loop, (void)events;
    eng_lo_read(w->data);
}

static void watch_start(struct engine *e, ev_io *w, int fd)
{
    ev_io_init(w, on_lo, fd, EV_READ);
    w->data = e;
    ev_io_start(e->loop, w);
}

/* Asked anew each time, since lo may go down under a running engine: 0.3 us. */
int eng_lo_is_up(struct engine *e)
{
    struct ifreq ifr = { .ifr_name = "lo" };
    int fd = e->lo4 >= 0 ? e->lo4 : e->diag_fd; /* any socket answers */
    if (ioctl(fd, SIOCGIFFLAGS, &ifr))
        return -errno;
    return ifr.ifr_flags & IFF_UP ? 0 : -ENETDOWN;
}

static int open_side(struct engine *e, bool v6, int *lo, ev_io *io, int *icmp)
{
    int fd = watch_open(e, v6);
    if (fd < 0)
        return fd;
    *lo = fd;
    watch_start(e, io, fd);
    fd = v6 ? raw_socket(AF_INET6, IPPROTO_ICMPV6) : raw_socket(AF_INET, IPPROTO_ICMP);
    if (fd < 0)
        return fd;
    *icmp = fd; /* only sends: what it would receive is dropped */
    return io_attach_drop_all(fd);
}

int eng_lo_open(struct engine *e) { return open_side(e, false, &e->lo4, &e->lo4_io, &e->icmp4); }
int eng_lo_need6(struct engine *e) { return e->lo6 >= 0 ? 0 : open_side(e, true, &e->lo6, &e->lo6_io, &e->icmp6); }

static void shut(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void eng_lo_close(struct engine *e)
{
    if (e->lo4 >= 0)
        ev_io_stop(e->loop, &e->lo4_io);
    if (e->lo6 >= 0)
        ev_io_stop(e->loop, &e->lo6_io);
    shut(&e->lo4);
    shut(&e->lo6);
    shut(&e->icmp4);
    shut(&e->icmp6);
}

/* ---- answers ---- */

static void send_to(int fd, const struct mp_endpoint *to, const void *p, size_t n)
{
    struct mp_endpoint ep = *to;
    union ctl_addr a;
    ep.port = 0; /* raw IPv6 sockets read a protocol number there */
    socklen_t len = eng_to_sa(&ep, AF_INET, &a);
    (void)sendto(fd, p, n, MSG_DONTWAIT, &a.sa, len); /* lost: the program's next SYN brings another */
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void ip4_header(uint8_t *ip, const struct mp_addr *src, const struct mp_addr *dst, uint8_t proto, size_t payload)
{
    memset(ip, 0, 20);
    ip[0] = 0x45;
    put16(ip + 2, (unsigned)(20 + payload));
    ip[8] = 64;
    ip[9] = proto;
    memcpy(ip + 12, src->b, 4);
    memcpy(ip + 16, dst->b, 4);
    put16(ip + 10, (uint16_t)~mp_csum_fold(mp_csum_add(0, ip, 20)));
}

/* RFC 9293 3.10.7.3: in SYN-SENT a reset counts if its ACK covers our SYN. */
static void send_rst(struct engine *e, const struct mp_endpoint *id, const struct mp_endpoint *prog, uint32_t isn)
{
    uint8_t b[40], *tcp = b + 20;
    struct mp_pkt p = { .src = *id, .dst = *prog, .ack = isn + 1, .flags = MP_RST | MP_ACK };
    mp_tcp_emit(tcp, &p);
    if (id->ip.family == 6) {
        send_to(e->lo6, prog, tcp, 20);
        return;
    }
    ip4_header(b, &id->ip, &prog->ip, IPPROTO_TCP, 20);
    put16(tcp + 16, (uint16_t)~mp_csum_fold(mp_csum_add(mp_csum_pseudo(&id->ip, &prog->ip, IPPROTO_TCP, 20), tcp, 20)));
    send_to(e->lo4, prog, b, 40);
}

/* The TCP header's first eight bytes are what an ICMP error must quote (RFC 792). */
static void quote_tcp(uint8_t *tcp, const struct mp_endpoint *id, const struct mp_endpoint *prog, uint32_t isn)
{
    put16(tcp, prog->port);
    put16(tcp + 2, id->port);
    put16(tcp + 4, isn >> 16);
    put16(tcp + 6, isn & 0xffff);
}

static void send_unreach4(struct engine *e, const struct mp_endpoint *id, const struct mp_endpoint *prog, uint32_t isn, bool net)
{
    uint8_t b[8 + 20 + 8] = { ICMP_DEST_UNREACH, net ? ICMP_NET_UNREACH : ICMP_HOST_UNREACH };
    ip4_header(b + 8, &prog->ip, &id->ip, IPPROTO_TCP, 20);
    quote_tcp(b + 28, id, prog, isn);
    put16(b + 2, (uint16_t)~mp_csum_fold(mp_csum_add(0, b, sizeof b)));
    send_to(e->icmp4, prog, b, sizeof b);
}

static void send_unreach6(struct engine *e, const struct mp_endpoint *id, const struct mp_endpoint *prog, uint32_t isn, bool net)
{
    uint8_t b[8 + 40 + 20] = { ICMP6_DST_UNREACH, net ? ICMP6_DST_UNREACH_NOROUTE : ICMP6_DST_UNREACH_ADDR };
    uint8_t *ip = b + 8;
    ip[0] = 0x60;
    put16(ip + 4, 20);
    ip[6] = IPPROTO_TCP;
    ip[7] = 64;
    memcpy(ip + 8, prog->ip.b, 16);
    memcpy(ip + 24, id->ip.b, 16);
    quote_tcp(ip + 40, id, prog, isn);
    send_to(e->icmp6, prog, b, sizeof b); /* the kernel fills in the ICMPv6 checksum */
}

void eng_lo_refuse(struct engine *e, const struct mp_endpoint *id, const struct mp_endpoint *prog, uint32_t isn, int err)
{
    bool unreach = err == EHOSTUNREACH || err == ENETUNREACH;
    if (!unreach)
        send_rst(e, id, prog, isn);
    else if (id->ip.family == 6)
        send_unreach6(e, id, prog, isn, err == ENETUNREACH);
    else
        send_unreach4(e, id, prog, isn, err == ENETUNREACH);
}
