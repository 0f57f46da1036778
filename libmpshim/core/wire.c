/* core/wire.c: see wire.h. */
#include "core/wire.h"

#include <errno.h>

enum { TCP_HDR_MIN = 20 };

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }
static void put16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
static void put32(uint8_t *p, uint32_t v) { put16(p, (uint16_t)(v >> 16)); put16(p + 2, (uint16_t)v); }

int mp_tcp_parse(struct mp_pkt *p, const uint8_t *tcp, size_t n)
{
    size_t hdr;

    if (n < TCP_HDR_MIN) return -EBADMSG;
    hdr = (size_t)(tcp[12] >> 4) * 4;
    if (hdr < TCP_HDR_MIN || hdr > n || n - hdr > UINT32_MAX) return -EBADMSG;

    p->src.port = get16(tcp);
    p->dst.port = get16(tcp + 2);
    p->seq = get32(tcp + 4);
    p->ack = get32(tcp + 8);
    p->flags = tcp[13];
    p->wnd = get16(tcp + 14);
    p->urg = get16(tcp + 18);
    p->optlen = (uint8_t)(hdr - TCP_HDR_MIN);
    memcpy(p->opt, tcp + TCP_HDR_MIN, p->optlen);
    p->len = (uint32_t)(n - hdr);
    p->niov = 0;
    p->data = (struct mp_slice){ .buf = NULL, .p = tcp + hdr, .len = p->len };
    return 0;
}

size_t mp_tcp_emit(uint8_t *buf, const struct mp_pkt *p)
{
    size_t hdr = TCP_HDR_MIN + (size_t)p->optlen;

    put16(buf, p->src.port);
    put16(buf + 2, p->dst.port);
    put32(buf + 4, p->seq);
    put32(buf + 8, p->ack);
    buf[12] = (uint8_t)(hdr / 4 << 4);
    buf[13] = p->flags;
    put16(buf + 14, p->wnd);
    put16(buf + 16, 0);
    put16(buf + 18, p->urg);
    memcpy(buf + TCP_HDR_MIN, p->opt, p->optlen);
    return hdr;
}

/* The checksum. RFC 1071 2(B): the sum does not depend on byte order, so the run is added in the
 * machine's order and swapped once at the end; any word size will do, here 32-bit halves in 64-bit lanes,
 * which cannot overflow for 2^32 additions and which every compiler turns into vector code. */
typedef uint64_t lanes __attribute__((vector_size(16)));
enum { BLOCK = 64 };

static uint64_t fold_to_16(uint64_t sum)
{
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    return sum;
}

static uint16_t to_big_endian(uint16_t v)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return (uint16_t)(v >> 8 | v << 8);
#else
    return v;
#endif
}

static lanes halves(const uint8_t *p)
{
    lanes v;

    memcpy(&v, p, sizeof v);
    return (v & 0xffffffff) + (v >> 32);
}

static uint64_t sum_blocks(const uint8_t *p, size_t blocks)
{
    lanes a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };

    for (; blocks; blocks--, p += BLOCK) {
        a += halves(p);
        b += halves(p + 16);
        c += halves(p + 32);
        d += halves(p + 48);
    }
    a += b;
    c += d;
    a += c;
    return fold_to_16(a[0]) + fold_to_16(a[1]);
}

/* The rest of a run, less than a block, an odd byte padded with zero. */
static uint64_t sum_tail(const uint8_t *p, size_t n)
{
    uint64_t sum = 0;
    uint32_t w;
    uint16_t h;

    for (; n >= 4; n -= 4, p += 4) {
        memcpy(&w, p, 4);
        sum += w;
    }
    if (n >= 2) {
        memcpy(&h, p, 2);
        sum += h;
        n -= 2, p += 2;
    }
    if (n) {
        h = 0;
        memcpy(&h, p, 1);
        sum += h;
    }
    return sum;
}

static uint16_t sum_run(const uint8_t *p, size_t n)
{
    size_t blocks = n / BLOCK;
    uint64_t sum = blocks ? sum_blocks(p, blocks) : 0;

    sum += sum_tail(p + blocks * BLOCK, n % BLOCK);
    return to_big_endian((uint16_t)fold_to_16(sum));
}

uint64_t mp_csum_add(uint64_t sum, const void *p, size_t n)
{
    return sum + sum_run(p, n);
}

/* RFC 1071 2(B): a run that starts on an odd byte contributes its sum with the bytes swapped. */
uint64_t mp_csum_at(uint64_t sum, const void *p, size_t n, uint64_t off)
{
    uint16_t s = sum_run(p, n);

    return sum + (off & 1 ? (uint16_t)(s >> 8 | s << 8) : s);
}

uint16_t mp_csum_fold(uint64_t sum) { return (uint16_t)fold_to_16(sum); }

/* RFC 9293 3.1 and RFC 8200 8.1; both pseudo-headers have the same sum for the same fields. */
uint64_t mp_csum_pseudo(const struct mp_addr *src, const struct mp_addr *dst, uint8_t proto, uint32_t len)
{
    uint64_t sum = (uint64_t)proto + (len >> 16) + (len & 0xffff);

    sum = mp_csum_add(sum, src->b, src->family == 4 ? 4 : 16);
    return mp_csum_add(sum, dst->b, dst->family == 4 ? 4 : 16);
}
