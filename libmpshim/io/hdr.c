/* io/hdr.c: IP headers, written and read. */
#include <arpa/inet.h>
#include <errno.h>

#include "core/wire.h"
#include "io/internal.h"

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

/* ---- out ---- */

static uint16_t wire_segments(const struct mp_pkt *p)
{
    return p->gso_size && p->len > p->gso_size ? (uint16_t)((p->len + p->gso_size - 1) / p->gso_size) : 1;
}

/* Identification counts wire segments, so that receivers' GRO, which wants consecutive ones, can merge (RFC 6864 lets
 * unfragmentable packets carry anything). */
static size_t ip4_build(uint8_t *o, const struct mp_pkt *p, struct io_flow *f, uint8_t ttl, size_t tcplen)
{
    memset(o, 0, 20);
    o[0] = 0x45;
    o[1] = p->tos;
    put16(o + 2, (uint32_t)(20 + tcplen));
    put16(o + 4, f->ip_id);
    f->ip_id = (uint16_t)(f->ip_id + wire_segments(p));
    o[6] = 0x40; /* do not fragment: path MTU discovery, RFC 1191 */
    o[8] = ttl;
    o[9] = IPPROTO_TCP;
    memcpy(o + 12, p->src.ip.b, 4);
    memcpy(o + 16, p->dst.ip.b, 4);
    put16(o + 10, (uint16_t)~mp_csum_fold(mp_csum_add(0, o, 20)));
    return 20;
}

static size_t ip6_build(uint8_t *o, const struct mp_pkt *p, const struct io_flow *f, uint8_t ttl, size_t tcplen)
{
    uint32_t first = 6u << 28 | (uint32_t)p->tos << 20 | f->flowlabel;

    put16(o, first >> 16);
    put16(o + 2, first & 0xffff);
    put16(o + 4, (uint32_t)tcplen);
    o[6] = IPPROTO_TCP;
    o[7] = ttl;
    memcpy(o + 8, p->src.ip.b, 16);
    memcpy(o + 24, p->dst.ip.b, 16);
    return 40;
}

static uint64_t payload_sum(uint64_t sum, const struct mp_pkt *p)
{
    uint64_t off = 0;

    for (int i = 0; i < p->niov; i++) {
        sum = mp_csum_at(sum, p->iov[i].base, p->iov[i].len, off);
        off += p->iov[i].len;
    }
    return sum;
}

size_t io_hdr_build(uint8_t *out, const struct mp_pkt *p, struct io_flow *f, uint8_t ttl, enum io_csum how)
{
    size_t iplen = p->src.ip.family == 4 ? 20 : 40;
    uint8_t *tcp = out + iplen;
    size_t hdr = mp_tcp_emit(tcp, p);
    uint64_t sum = mp_csum_pseudo(&p->src.ip, &p->dst.ip, IPPROTO_TCP, (uint32_t)(hdr + p->len));

    if (p->ttl) ttl = p->ttl;
    if (iplen == 20) ip4_build(out, p, f, ttl, hdr + p->len);
    else ip6_build(out, p, f, ttl, hdr + p->len);
    if (how == IO_CSUM_PARTIAL)
        put16(tcp + 16, mp_csum_fold(sum));
    else
        put16(tcp + 16, (uint16_t)~mp_csum_fold(payload_sum(mp_csum_add(sum, tcp, hdr), p)));
    return iplen + hdr;
}

/* ---- in ---- */

bool io_csum_ok(const struct mp_addr *src, const struct mp_addr *dst, const uint8_t *tcp, size_t n)
{
    uint64_t pseudo = mp_csum_pseudo(src, dst, IPPROTO_TCP, (uint32_t)n);

    if (n < 20) return false;
    if (get16(tcp + 16) == mp_csum_fold(pseudo)) return true;
    return mp_csum_fold(mp_csum_add(pseudo, tcp, n)) == 0xffff;
}

static void set_addr(struct mp_addr *a, uint8_t family, const uint8_t *b)
{
    *a = (struct mp_addr){ .family = family };
    memcpy(a->b, b, family == 4 ? 4 : 16);
}

static int ip4_parse(struct mp_pkt *p, const uint8_t *ip, size_t n, const uint8_t **tcp, size_t *tcplen)
{
    size_t ihl, total;

    if (n < 20 || ip[0] >> 4 != 4) return -EBADMSG;
    ihl = (size_t)(ip[0] & 15) * 4;
    total = get16(ip + 2);
    if (!total) total = n; /* larger than 64 KB (BIG TCP) */
    if (ihl < 20 || total < ihl || total > n) return -EBADMSG;
    if (ip[9] != IPPROTO_TCP || get16(ip + 6) & 0x3fff) return -EBADMSG;
    p->tos = ip[1];
    set_addr(&p->src.ip, 4, ip + 12);
    set_addr(&p->dst.ip, 4, ip + 16);
    *tcp = ip + ihl;
    *tcplen = total - ihl;
    return 0;
}

/* Extension headers before TCP do not come on the fast path; the raw path has had them taken off. */
static int ip6_parse(struct mp_pkt *p, const uint8_t *ip, size_t n, const uint8_t **tcp, size_t *tcplen)
{
    size_t payload;

    if (n < 40 || ip[0] >> 4 != 6 || ip[6] != IPPROTO_TCP) return -EBADMSG;
    payload = get16(ip + 4);
    if (!payload) payload = n - 40;
    if (payload > n - 40) return -EBADMSG;
    p->tos = (uint8_t)(get16(ip) >> 4);
    set_addr(&p->src.ip, 6, ip + 8);
    set_addr(&p->dst.ip, 6, ip + 24);
    *tcp = ip + 40;
    *tcplen = payload;
    return 0;
}

int io_ip_parse(struct mp_pkt *p, const uint8_t *ip, size_t n, const uint8_t **tcp, size_t *tcplen)
{
    if (!n) return -EBADMSG;
    return ip[0] >> 4 == 4 ? ip4_parse(p, ip, n, tcp, tcplen) : ip6_parse(p, ip, n, tcp, tcplen);
}

/* ---- socket addresses ---- */

socklen_t io_sockaddr(struct sockaddr_in6 *to, const struct mp_addr *a, uint16_t port, int ifindex)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)to;

    memset(to, 0, sizeof *to);
    if (a->family == 4) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        memcpy(&v4->sin_addr, a->b, 4);
        return sizeof *v4;
    }
    to->sin6_family = AF_INET6;
    to->sin6_port = htons(port);
    memcpy(&to->sin6_addr, a->b, 16);
    if (IN6_IS_ADDR_LINKLOCAL(&to->sin6_addr)) to->sin6_scope_id = (uint32_t)ifindex;
    return sizeof *to;
}

void io_addr_from(struct mp_addr *a, const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET)
        set_addr(a, 4, (const uint8_t *)&((const struct sockaddr_in *)sa)->sin_addr);
    else
        set_addr(a, 6, (const uint8_t *)&((const struct sockaddr_in6 *)sa)->sin6_addr);
}
