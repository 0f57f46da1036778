/* io/packet.c: packet sockets. Sending: the fast path, with segmentation and checksums left to the card. Receiving: only
 * for flows whose packets strict rp_filter would hide (flow.c); no SYN is taken from here.
 *
 * Everything else is received from raw sockets: they get the same GRO-merged packets at the same cost, since a frame goes up
 * the host's IP path in any case, and the host's INPUT rules hold for each of them (docs/io.md).
 *
 * The sending socket is never bound: nothing is tapped, and the kernel waits for an RCU grace period (8 to 24 ms) when a
 * packet socket is bound again or closed. The receiving one is bound once, with its filter in place. */
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if_arp.h>
#include <unistd.h>

#include "core/wire.h"
#include "io/internal.h"

#define RCVBUF (16 << 20)
#define SNDBUF (4 << 20)

/* ---- opening ---- */

static int set_int(int fd, int level, int opt, int v) { return setsockopt(fd, level, opt, &v, sizeof v) ? -errno : 0; }

static int set_receiving(int fd, int ifindex)
{
    struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = ifindex };
    struct io_port_set none = { 0 };
    int err = io_filter_attach(fd, IO_FILTER_ETH, &none);

    if (err) return err;
    set_int(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1); /* Linux 4.20; else pkttype tells */
    if (set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, RCVBUF)) set_int(fd, SOL_SOCKET, SO_RCVBUF, RCVBUF);
    return bind(fd, (struct sockaddr *)&ll, sizeof ll) ? -errno : 0;
}

static int set_sending(int fd)
{
    if (set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, SNDBUF)) set_int(fd, SOL_SOCKET, SO_SNDBUF, SNDBUF);
    return 0;
}

static int packet_open(int ifindex, enum io_kind kind)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err;

    if (fd < 0) return -errno;
    err = set_int(fd, SOL_PACKET, PACKET_VNET_HDR, 1);
    if (!err) err = kind == IO_PACKET_RX ? set_receiving(fd, ifindex) : set_sending(fd);
    if (!err) return fd;
    close(fd);
    return err;
}

static struct io_sock *packet_get(struct io *io, int ifindex, enum io_kind kind)
{
    struct io_sock *s = io_sock_find(io, kind, ifindex, 0);
    const struct rtnl_link *l = rtnl_link(io->rtnl, ifindex);
    int fd;

    if (s) {
        s->refs++;
        return s;
    }
    if (!l || l->arptype != ARPHRD_ETHER || l->flags & IFF_NOARP) return NULL;
    fd = packet_open(ifindex, kind);
    if (fd < 0) return NULL;
    s = io_sock_new(io, kind, fd, ifindex);
    if (s) memcpy(s->mac, l->mac, 6);
    return s;
}

struct io_sock *io_packet_tx(struct io *io, int ifindex) { return packet_get(io, ifindex, IO_PACKET_TX); }
struct io_sock *io_packet_rx(struct io *io, int ifindex) { return packet_get(io, ifindex, IO_PACKET_RX); }

/* ---- receiving ---- */

static bool csum_known(const struct virtio_net_hdr *v)
{
    return v->flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID);
}

static int packet_parse(struct io_sock *s, const struct io_rx_msg *m, struct mp_pkt *p)
{
    const struct sockaddr_ll *ll = m->h->msg_name;
    const uint8_t *tcp;
    size_t n;

    if (ll->sll_pkttype != PACKET_HOST || m->len <= IO_ETH_LEN) return -EBADMSG;
    if (io_ip_parse(p, m->buf->data + IO_ETH_LEN, m->len - IO_ETH_LEN, &tcp, &n)) return -EBADMSG;
    if (!csum_known(m->vnet) && !io_csum_ok(&p->src.ip, &p->dst.ip, tcp, n)) {
        s->io->n.rx_csum++;
        return -EBADMSG;
    }
    if (mp_tcp_parse(p, tcp, n)) return -EBADMSG;
    if (m->vnet->gso_type != VIRTIO_NET_HDR_GSO_NONE) p->gso_size = m->vnet->gso_size;
    p->data.buf = m->buf;
    return 0;
}

static void packet_each(struct io_sock *s, const struct io_rx_msg *m, mp_time now)
{
    struct mp_pkt p;

    memset(&p, 0, offsetof(struct mp_pkt, opt));
    p.gso_size = 0;
    p.ifindex = s->ifindex;
    if (packet_parse(s, m, &p)) {
        s->io->n.rx_bad++;
        return;
    }
    io_deliver(s, &p, now);
}

/* ENETDOWN comes once when the link goes down; the socket goes on when it is up again. */
void io_packet_read(struct io_sock *s)
{
    io_sock_read(s, packet_each);
}

/* ---- sending ---- */

static uint16_t ether_type(const struct io_flow *f) { return htons(f->local.ip.family == 4 ? ETH_P_IP : ETH_P_IPV6); }

static size_t ether_build(uint8_t *o, const struct io_flow *f)
{
    uint16_t type = ether_type(f);

    memcpy(o, f->hop->mac, 6);
    memcpy(o + 6, f->fast->mac, 6);
    memcpy(o + 12, &type, 2);
    return IO_ETH_LEN;
}

static void vnet_build(struct virtio_net_hdr *v, const struct mp_pkt *p, size_t hdr)
{
    size_t ip = p->src.ip.family == 4 ? 20 : 40;

    *v = (struct virtio_net_hdr){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                  .hdr_len = (uint16_t)hdr,
                                  .csum_start = (uint16_t)(IO_ETH_LEN + ip),
                                  .csum_offset = 16 };
    if (!p->gso_size || p->len <= p->gso_size) return;
    v->gso_size = p->gso_size;
    v->gso_type = ip == 20 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
    if (p->flags & MP_CWR) v->gso_type |= VIRTIO_NET_HDR_GSO_ECN;
}

int io_packet_output(struct io *io, struct io_flow *f, const struct mp_pkt *p)
{
    struct virtio_net_hdr vnet;
    uint8_t hdr[IO_HDR_MAX];
    union io_ctl ctl;
    size_t n = ether_build(hdr, f);
    struct iovec v[2 + MP_PKT_MAX_IOV];
    struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_protocol = ether_type(f), .sll_ifindex = f->ifindex, .sll_halen = 6 };
    struct msghdr h = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = v, .msg_iovlen = 2u + p->niov };

    n += io_hdr_build(hdr + n, p, f, io->ttl4, IO_CSUM_PARTIAL);
    vnet_build(&vnet, p, n);
    v[0] = (struct iovec){ &vnet, sizeof vnet };
    v[1] = (struct iovec){ hdr, n };
    for (int i = 0; i < p->niov; i++) v[2 + i] = (struct iovec){ (void *)p->iov[i].base, p->iov[i].len };
    io->n.tx_fast++;
    return io_sock_send_marked(f->fast, &h, &ctl, p);
}
