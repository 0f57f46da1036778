/* What a connection's figures are (TCP_INFO, TCP_MAXSEG, IP_MTU, SIOCOUTQ): the carrier's own describe the loopback. */
#include <asm/ioctls.h> /* TIOCOUTQ */
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "shim/shim.h"

#ifndef IPV6_MTU
#define IPV6_MTU 24
#endif

bool shim_is_info(int level, int opt)
{
    return (level == IPPROTO_TCP && (opt == TCP_INFO || opt == TCP_MAXSEG)) || (level == IPPROTO_IP && opt == IP_MTU) ||
           (level == IPPROTO_IPV6 && opt == IPV6_MTU);
}

/* ---- TCP_INFO ---- */

static uint32_t segments(uint64_t bytes, uint32_t mss) { return (uint32_t)((bytes + mss - 1) / mss); }
static uint32_t mss_of(const struct ctl_subflow *s) { return s->mss ? s->mss : 536; }

uint32_t shim_ms_since(uint64_t at_ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t now = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
    return at_ms && at_ms < now ? (uint32_t)(now - at_ms) : 0;
}

/* One subflow. What the engine does not count stays 0, as on a kernel that does not know the field. */
void shim_info_subflow(const struct ctl_subflow *s, struct tcp_info *i)
{
    uint32_t mss = mss_of(s), headers = s->local.sa.sa_family == AF_INET6 ? 60 : 40;
    *i = (struct tcp_info){
        .tcpi_state = s->state,
        .tcpi_options = (uint8_t)((s->timestamps ? TCPI_OPT_TIMESTAMPS : 0) | (s->sack ? TCPI_OPT_SACK : 0) |
                                  (s->wscale ? TCPI_OPT_WSCALE : 0) | (s->ecn ? TCPI_OPT_ECN : 0)),
        .tcpi_snd_wscale = s->wscale ? 8 : 0, .tcpi_rcv_wscale = s->wscale ? 8 : 0,
        .tcpi_rto = s->rto_us, .tcpi_ato = 40000, .tcpi_snd_mss = mss, .tcpi_rcv_mss = mss,
        .tcpi_unacked = segments(s->flight, mss),
        .tcpi_last_data_sent = shim_ms_since(s->sent_at_ms), .tcpi_last_data_recv = shim_ms_since(s->recv_at_ms),
        .tcpi_last_ack_recv = shim_ms_since(s->heard_at_ms), .tcpi_pmtu = s->mtu, .tcpi_rtt = s->srtt_us, .tcpi_rttvar = s->rttvar_us,
        .tcpi_snd_ssthresh = s->ssthresh > INT32_MAX ? INT32_MAX : segments(s->ssthresh, mss), .tcpi_snd_cwnd = segments(s->cwnd, mss),
        .tcpi_advmss = s->mtu > headers ? s->mtu - headers - (s->timestamps ? 12 : 0) : 0, .tcpi_reordering = 3, .tcpi_total_retrans = segments(s->bytes_retrans, mss),
        .tcpi_pacing_rate = UINT64_MAX, .tcpi_max_pacing_rate = UINT64_MAX,
        .tcpi_bytes_acked = s->bytes_acked, .tcpi_bytes_received = s->bytes_received,
        .tcpi_segs_out = segments(s->bytes_sent, mss), .tcpi_segs_in = segments(s->bytes_received, mss),
        .tcpi_min_rtt = s->min_rtt_us, .tcpi_data_segs_in = segments(s->bytes_received, mss), .tcpi_data_segs_out = segments(s->bytes_sent, mss),
        .tcpi_delivery_rate = s->srtt_us ? s->cwnd * 1000000 / s->srtt_us : 0,
        .tcpi_delivered = segments(s->bytes_acked, mss), .tcpi_bytes_sent = s->bytes_sent, .tcpi_bytes_retrans = s->bytes_retrans,
        .tcpi_snd_wnd = (uint32_t)(s->snd_wnd > UINT32_MAX ? UINT32_MAX : s->snd_wnd),
    };
}

static uint32_t latest(uint32_t a, uint32_t b) { return !a || (b && b < a) ? b : a; } /* ms ago; 0: never */

static void add(struct tcp_info *sum, const struct tcp_info *i)
{
    sum->tcpi_snd_cwnd += i->tcpi_snd_cwnd;
    sum->tcpi_unacked += i->tcpi_unacked;
    sum->tcpi_total_retrans += i->tcpi_total_retrans;
    sum->tcpi_segs_out += i->tcpi_segs_out;
    sum->tcpi_segs_in += i->tcpi_segs_in;
    sum->tcpi_data_segs_in += i->tcpi_data_segs_in;
    sum->tcpi_data_segs_out += i->tcpi_data_segs_out;
    sum->tcpi_delivery_rate += i->tcpi_delivery_rate;
    sum->tcpi_delivered += i->tcpi_delivered;
    sum->tcpi_bytes_retrans += i->tcpi_bytes_retrans;
    sum->tcpi_last_data_sent = latest(sum->tcpi_last_data_sent, i->tcpi_last_data_sent);
    sum->tcpi_last_data_recv = latest(sum->tcpi_last_data_recv, i->tcpi_last_data_recv);
    sum->tcpi_last_ack_recv = latest(sum->tcpi_last_ack_recv, i->tcpi_last_ack_recv);
    if (i->tcpi_pmtu < sum->tcpi_pmtu) sum->tcpi_pmtu = i->tcpi_pmtu;
    if (i->tcpi_snd_mss < sum->tcpi_snd_mss) sum->tcpi_snd_mss = sum->tcpi_rcv_mss = i->tcpi_snd_mss;
}

static uint32_t in_own_queue(int fd)
{
    int n = 0;
    return REAL(ioctl)(fd, SIOCOUTQ, &n) == 0 && n > 0 ? (uint32_t)n : 0;
}

/* Windows and counts are the subflows' together; times those of the first subflow; bytes the program's. The state is
 * the program's own socket's, which follows both ends. */
static SHIM_APART void tcp_info(int fd, const struct ctl_info *c, struct tcp_info *out, socklen_t room)
{
    struct tcp_info sum, one;
    if (!c->n) return;
    shim_info_subflow(&c->sf[0], &sum);
    for (uint32_t k = 1; k < c->n; k++) {
        shim_info_subflow(&c->sf[k], &one);
        if (!c->sf[k].mss) one.tcpi_snd_mss = sum.tcpi_snd_mss; /* a join on its way has none to say */
        add(&sum, &one);
    }
    uint64_t held = c->rep.unacked_bytes + c->conn.bytes_acked - c->rep.bytes_sent; /* taken by the engine's socket only */
    sum.tcpi_state = out->tcpi_state;
    sum.tcpi_bytes_acked = c->conn.bytes_acked + 1; /* the kernel counts the SYN */
    sum.tcpi_bytes_received = c->rep.bytes_received + c->conn.unread;
    sum.tcpi_bytes_sent = c->rep.bytes_sent - c->conn.unsent + c->conn.bytes_retrans;
    sum.tcpi_notsent_bytes = (uint32_t)(c->conn.unsent + held) + in_own_queue(fd);
    memcpy(out, &sum, room < sizeof sum ? room : sizeof sum);
}

/* ---- the other figures ---- */

static uint32_t least(const struct ctl_info *c, bool mtu)
{
    uint32_t v = 0;
    for (uint32_t k = 0; k < c->n; k++) {
        uint32_t one = mtu ? c->sf[k].mtu : c->sf[k].mss;
        if (one && (!v || one < v)) v = one;
    }
    return v;
}

void shim_info_get(int fd, struct shim_fd *f, int level, int opt, void *v, socklen_t n)
{
    struct ctl_info c;
    if (shim_query_info(fd, f, &c) || !c.n) return;
    if (level == IPPROTO_TCP && opt == TCP_INFO) {
        tcp_info(fd, &c, v, n);
        return;
    }
    int value = (int)least(&c, level != IPPROTO_TCP);
    if (n == sizeof value && value) memcpy(v, &value, sizeof value);
}

/* ---- IP_PKTINFO of a TCP socket: its own address (getsockopt IP_PKTOPTIONS, IPv6's by RFC 2292) ---- */

bool shim_is_packet_options(int level, int opt)
{
    return (level == IPPROTO_IP && opt == IP_PKTOPTIONS) || (level == IPPROTO_IPV6 && opt == IPV6_2292PKTOPTIONS);
}

static void put_own_address(const union ctl_addr *own, unsigned ifindex, struct cmsghdr *c)
{
    union ctl_addr mapped;
    struct in6_pktinfo *p6 = (struct in6_pktinfo *)(void *)CMSG_DATA(c);
    struct in_pktinfo *p4 = (struct in_pktinfo *)(void *)CMSG_DATA(c);
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO && c->cmsg_len >= CMSG_LEN(sizeof *p4) && own->sa.sa_family == AF_INET)
        p4->ipi_addr = p4->ipi_spec_dst = own->v4.sin_addr;
    if (c->cmsg_level != IPPROTO_IPV6 || (c->cmsg_type != IPV6_PKTINFO && c->cmsg_type != IPV6_2292PKTINFO) || c->cmsg_len < CMSG_LEN(sizeof *p6)) return;
    shim_addr_for(&mapped, own, AF_INET6);
    *p6 = (struct in6_pktinfo){.ipi6_addr = mapped.v6.sin6_addr, .ipi6_ifindex = ifindex};
}

void shim_packet_options(int fd, struct shim_fd *f, void *v, socklen_t n)
{
    struct msghdr m = {.msg_control = v, .msg_controllen = n};
    struct ctl_info c;
    if (shim_query_info(fd, f, &c) || !c.rep.local.sa.sa_family) return;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) put_own_address(&c.rep.local, c.n ? c.sf[0].ifindex : 0, h);
}

/* SIOCOUTQ: bytes that the peer has not acknowledged; SIOCOUTQNSD: those not sent yet. Part of them lies in the
 * program's own socket, the rest is the engine's. */
static SHIM_APART void set_queued(int fd, unsigned long request, int *v)
{
    struct shim_fd *f = shim_find(fd);
    struct ctl_info c;
    if (!f || f->kind != SHIM_CARRIER || shim_query_info(fd, f, &c)) return;
    uint64_t held = c.rep.unacked_bytes + c.conn.bytes_acked - c.rep.bytes_sent;
    uint64_t sum = in_own_queue(fd) + (request == SIOCOUTQ ? c.rep.unacked_bytes : c.conn.unsent + held);
    *v = sum > INT32_MAX ? INT32_MAX : (int)sum;
}

int w_ioctl(int fd, unsigned long request, void *arg)
{
    int saved = errno, r = REAL(ioctl)(fd, request, arg);
    if (SHIM_LIKELY(request != SIOCOUTQ && request != SIOCOUTQNSD) || r < 0 || !arg) return r;
    set_queued(fd, request, arg);
    errno = saved;
    return r;
}
