/* tests/unit/wire.c: TCP header codec and Internet checksum. */
#include "core/wire.h"

#include <errno.h>
#include <time.h>

#include "test.h"

static uint16_t naive(const uint8_t *p, size_t n)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++) sum += i & 1 ? p[i] : (uint64_t)p[i] << 8;
    while (sum >> 16) sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t)sum;
}

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)test_random(&seed);
}

TEST(checksum_of_rfc1071_example)
{
    static const uint8_t b[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };

    CHECK_EQ(mp_csum_fold(mp_csum_add(0, b, sizeof b)), 0xddf2);
}

TEST(checksum_equals_naive_at_every_length_and_alignment)
{
    static uint8_t b[700];

    fill(b, sizeof b, 1);
    for (size_t off = 0; off < 17; off++)
        for (size_t n = 0; n <= sizeof b - off; n++) {
            ROW("offset %zu length %zu", off, n);
            CHECK_EQ(mp_csum_fold(mp_csum_add(0, b + off, n)), naive(b + off, n));
        }
}

TEST(checksum_of_all_ones_and_all_zeros)
{
    static uint8_t b[70000];

    CHECK_EQ(mp_csum_fold(mp_csum_add(0, b, sizeof b)), 0);
    memset(b, 0xff, sizeof b);
    CHECK_EQ(mp_csum_fold(mp_csum_add(0, b, sizeof b)), 0xffff);
}

TEST(checksum_in_pieces_with_odd_offsets)
{
    static uint8_t b[4000];
    uint64_t seed = 7;

    fill(b, sizeof b, 3);
    for (int round = 0; round < 2000; round++) {
        size_t n = test_random(&seed) % sizeof b, off = 0;
        uint64_t sum = 0;

        ROW("round %d length %zu", round, n);
        while (off < n) {
            size_t piece = 1 + test_random(&seed) % 300;

            if (piece > n - off) piece = n - off;
            sum = mp_csum_at(sum, b + off, piece, off);
            off += piece;
        }
        CHECK_EQ(mp_csum_fold(sum), naive(b, n));
    }
}

/* RFC 8684 3.3.1: DSN, SSN, length and a zero field, then the data; as Linux 6.18 sent them. */
TEST(dss_checksum_of_kernel_mappings)
{
    static const uint8_t map[16] = { 0x28, 0x8a, 0x7f, 0x19, 0x33, 0x59, 0xa9, 0x6b, 0, 0, 0, 1, 0x0b, 0xb8 };
    static const uint8_t fin[16] = { 0x28, 0x8a, 0x7f, 0x19, 0x33, 0x59, 0xd8, 0x4b, 0, 0, 0, 0, 0, 1 };
    static uint8_t data[3000];

    memset(data, 'x', sizeof data);
    CHECK_EQ((uint16_t)~mp_csum_fold(mp_csum_add(mp_csum_add(0, map, sizeof map), data, sizeof data)), 0x8dfc);
    CHECK_EQ((uint16_t)~mp_csum_fold(mp_csum_add(0, fin, sizeof fin)), 0x4cb6);
}

TEST(pseudo_header_ipv4_and_ipv6)
{
    struct mp_addr a4 = { 4, { 192, 0, 2, 1 } }, b4 = { 4, { 198, 51, 100, 77 } };
    struct mp_addr a6 = { 6, { 0x20, 1, 0xd, 0xb8, [15] = 1 } }, b6 = { 6, { 0xfd, 0, 0x12, 0x34, [14] = 9, [15] = 2 } };
    uint8_t p4[12] = { 192, 0, 2, 1, 198, 51, 100, 77, 0, 6, 0x05, 0xdc };
    uint8_t p6[40] = { 0 };

    CHECK_EQ(mp_csum_fold(mp_csum_pseudo(&a4, &b4, 6, 1500)), naive(p4, sizeof p4));
    memcpy(p6, a6.b, 16);
    memcpy(p6 + 16, b6.b, 16);
    memcpy(p6 + 32, "\x00\x01\x11\x70\x00\x00\x00\x06", 8);
    CHECK_EQ(mp_csum_fold(mp_csum_pseudo(&a6, &b6, 6, 70000)), naive(p6, sizeof p6));
}

static struct mp_pkt sample(void)
{
    struct mp_pkt p = { .seq = 0x01020304, .ack = 0xfffefdfc, .wnd = 0xabcd, .urg = 7, .flags = MP_ACK | MP_PSH, .optlen = 12 };

    p.src.port = 443;
    p.dst.port = 50001;
    memcpy(p.opt, "\x01\x01\x08\x0a\x00\x00\x00\x01\x00\x00\x00\x02", 12);
    return p;
}

TEST(header_round_trip)
{
    struct mp_pkt p = sample(), q;
    uint8_t b[70];

    memset(&q, 0, sizeof q);
    CHECK_EQ(mp_tcp_emit(b, &p), 32);
    memcpy(b + 32, "payload", 7);
    CHECK_EQ(mp_tcp_parse(&q, b, 39), 0);
    CHECK_EQ(q.src.port, 443);
    CHECK_EQ(q.dst.port, 50001);
    CHECK_EQ(q.seq, p.seq);
    CHECK_EQ(q.ack, p.ack);
    CHECK_EQ(q.wnd, p.wnd);
    CHECK_EQ(q.urg, p.urg);
    CHECK_EQ(q.flags, p.flags);
    CHECK_EQ(q.optlen, p.optlen);
    CHECK_MEM(q.opt, p.opt, 12);
    CHECK_EQ(q.len, 7);
    CHECK_EQ(q.data.len, 7);
    CHECK(q.data.buf == NULL);
    CHECK_MEM(q.data.p, "payload", 7);
}

TEST(truncated_or_lying_headers_leave_the_packet_untouched)
{
    struct mp_pkt p = sample(), q, before;
    uint8_t b[60];
    size_t n = mp_tcp_emit(b, &p);

    memset(&q, 0x5a, sizeof q);
    before = q;
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *exact = malloc(cut ? cut : 1); /* so that the sanitizer sees a read past the end */

        memcpy(exact, b, cut);
        ROW("cut at %zu", cut);
        CHECK(mp_tcp_parse(&q, exact, cut) == -EBADMSG);
        CHECK_MEM(&q, &before, sizeof q);
        free(exact);
    }
    for (int doff = 0; doff < 16; doff++) {
        ROW("data offset %d", doff);
        b[12] = (uint8_t)(doff << 4);
        CHECK_EQ(mp_tcp_parse(&q, b, n) == 0, doff >= 5 && doff <= 8);
    }
}

TEST(checksum_speed)
{
    static uint8_t b[65536];
    struct timespec t0, t1;
    uint64_t sum = 0;
    double s;

    fill(b, sizeof b, 5);
    clock_gettime(CLOCK_MONOTONIC, &t0);
    for (int i = 0; i < 2000; i++) sum = mp_csum_add(sum, b, sizeof b);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    s = (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9;
    printf("checksum: %.1f GB/s (%u)\n", 2000 * sizeof b / s / 1e9, mp_csum_fold(sum));
    CHECK(s < 10); /* printed to be read; a shared machine and sanitizers set no tighter bound */
}
