/* tests/unit/opt.c: the option codec. */
#include "core/opt.h"

#include <errno.h>

#include "core/pkt.h"
#include "opt_property.h"
#include "test.h"

enum { SYN = MP_SYN, SYNACK = MP_SYN | MP_ACK, ACK = MP_ACK };

/* Option bytes that Linux 6.18 sent (captured between two network namespaces), whole: order and padding too. */
static const struct kernel_row { const char *name, *hex; uint8_t flags; uint32_t mp; } kernel[] = {
    { "MP_CAPABLE SYN", "020405b40402080ae2a88441000000000103030a1e040101", SYN, MP_OPT_HAS(MP_CAPABLE) },
    { "MP_CAPABLE SYN/ACK", "020405b40402080ac37d1fd0e2a884410103030a1e0c0101ad765eeadffb4571", SYNACK, MP_OPT_HAS(MP_CAPABLE) },
    { "MP_CAPABLE ACK", "0101080ae2a88442c37d1fd01e14010179b2db5dcc561b9fad765eeadffb4571", ACK, MP_OPT_HAS(MP_CAPABLE) },
    { "MP_CAPABLE with data", "0101080a8057e90994463db31e160101990355b6305a54a306f8fe7da4bceddf0bb80101", ACK, MP_OPT_HAS(MP_CAPABLE) },
    { "MP_JOIN SYN", "020405b40402080a77775ec0000000000103030a1e0c10011eec24f44d94d60b", SYN, MP_OPT_HAS(MP_JOIN) },
    { "MP_JOIN SYN backup", "020405b40402080a16d5cb62000000000103030a1e0c11016468b0e91b6f69ee", SYN, MP_OPT_HAS(MP_JOIN) },
    { "MP_JOIN SYN/ACK", "020405b40402080a9a1dfc7b3f6d107d0103030a1e101001b0403fc5aa65a4dcb93a81fc", SYNACK, MP_OPT_HAS(MP_JOIN) },
    { "MP_JOIN ACK", "0101080a3f6d107d9a1dfc7b1e181000ba69cc72b929692e722ec71c267be7106662d881", ACK, MP_OPT_HAS(MP_JOIN) },
    { "DSS ack32", "0101080a9a1dfc7b3f6d107d1e082001d27c570b", ACK, MP_OPT_HAS(MP_DSS) },
    { "DSS ack64", "0101080ac37d1fd1e2a884421e0c200305b81144f47e0c7a", ACK, MP_OPT_HAS(MP_DSS) },
    { "DSS ack32 map64", "0101080ae2a88442c37d1fd01e16200d80f263c805b81144f47e06ea000000010bb80101", ACK, MP_OPT_HAS(MP_DSS) },
    { "DSS ack64 map64", "0101080ac37d1fd1e2a884421e1a200f05b81144f47e12a21cd5974580f263c80000000117700101", ACK, MP_OPT_HAS(MP_DSS) },
    { "DSS ack32 map64 checksum", "0101080ac2ca239ce646acbd1e18200d0f0cd16a288a7f193359a96b000000010bb88dfc", ACK, MP_OPT_HAS(MP_DSS) },
    { "DSS ack64 map64 checksum", "0101080ae646acbdc2ca239c1e1c200f288a7f193359b5237f3499130f0cd16a0000000117702c0c", ACK, MP_OPT_HAS(MP_DSS) },
    { "DATA_FIN", "0101080ae2a88778c37d21611e1a201f1cd5974580f2c18805b81144f47e35ca0000000000010101", ACK, MP_OPT_HAS(MP_DSS) },
    { "DATA_FIN checksum", "0101080ac2ca26c4e646ae4e1e1c201f7f3499130f0d2f2a288a7f193359d84b0000000000014cb6", ACK, MP_OPT_HAS(MP_DSS) },
    { "ADD_ADDR", "0101080ac37d1fd1e2a884421e1030010a4d0202f46f6243905d5d9f", ACK, MP_OPT_HAS(MP_ADD_ADDR) },
    { "ADD_ADDR echo", "0101080ae2a88442c37d1fd11e0831010a4d0202", ACK, MP_OPT_HAS(MP_ADD_ADDR) },
    { "ADD_ADDR port", "0101080a5e4b2c32ef633bbd1e1230010a4d02022382f9a04fc7264536840101", ACK, MP_OPT_HAS(MP_ADD_ADDR) },
    { "ADD_ADDR port echo", "0101080aef633bbd5e4b2c321e0a31010a4d020223820101", ACK, MP_OPT_HAS(MP_ADD_ADDR) },
    { "ADD_ADDR IPv6", "0101080aeeeb5bf3d7f9f9571e1c3001fd770002000000000000000000000002a0eb9bbd30b8e98c", ACK, MP_OPT_HAS(MP_ADD_ADDR) },
    { "ADD_ADDR IPv6 echo", "0101080ad7f9f957eeeb5bf31e143101fd770002000000000000000000000002", ACK, MP_OPT_HAS(MP_ADD_ADDR) },
    { "DSS, REMOVE_ADDR", "0101080ac37d2161e2a885d21e0c200305b81144f47e35ca1e044001", ACK, MP_OPT_HAS(MP_DSS) | MP_OPT_HAS(MP_REMOVE_ADDR) },
    { "DSS, MP_PRIO", "0101080ad9c5bcf2c755a8ef1e0c2003855079e1afe4338d1e035101", ACK, MP_OPT_HAS(MP_DSS) | MP_OPT_HAS(MP_PRIO) },
    { "MP_FASTCLOSE, MP_TCPRST", "0101080ae5a719c21a79c4fd1e0c7000f82b8f45bba057591e048000", MP_RST | ACK, MP_OPT_HAS(MP_FASTCLOSE) | MP_OPT_HAS(MP_TCPRST) },
    { "timestamps", "0101080a9a1dffaa3f6d13ac", ACK, 0 },
};

TEST(kernel_headers_are_read_and_written_byte_for_byte)
{
    uint8_t in[40], out[40];
    struct mp_opts o;

    for (size_t i = 0; i < sizeof kernel / sizeof *kernel; i++) {
        size_t n = test_unhex(in, sizeof in, kernel[i].hex);

        ROW("%s", kernel[i].name);
        CHECK_EQ(mp_opts_parse(&o, in, n, kernel[i].flags), 0);
        CHECK_EQ(o.bad, 0);
        CHECK_EQ(o.mp, kernel[i].mp);
        CHECK_EQ(mp_opts_len(&o), n);
        mp_opts_emit(out, &o);
        CHECK_MEM(out, in, n);
    }
}

#define TS .has_ts = true, .ts_val = 0x01020304, .ts_ecr = 0x05060708
#define TS_HEX "0101080a0102030405060708"

/* Each form by its fields; hex written by hand from the RFC's drawings. */
static const struct field_row { const char *name, *hex; uint8_t flags; struct mp_opts o; } fields[] = {
    { "plain SYN", "020405b4 0402080a0102030400000000 0103030e", SYN,
      { .has_mss = true, .mss = 1460, .sack_ok = true, .has_ts = true, .ts_val = 0x01020304, .has_wscale = true, .wscale = 14 } },
    { "plain SYN without timestamps", "020405b4 01010402 01030307", SYN,
      { .has_mss = true, .mss = 1460, .sack_ok = true, .has_wscale = true, .wscale = 7 } },
    { "SACK before DSS", "0101050a0000000100000002 1e0820010000002a", ACK,
      { .nsack = 1, .sack = { { 1, 2 } }, .mp = MP_OPT_HAS(MP_DSS), .dss = { .has_ack = true, .data_ack = 42 } } },
    { "timestamps, two SACKs, DSS ack32: all 40 bytes", TS_HEX "01010512 0000000100000002 fffffffe00000003 1e0820010000002a", ACK,
      { TS, .nsack = 2, .sack = { { 1, 2 }, { 0xfffffffe, 3 } }, .mp = MP_OPT_HAS(MP_DSS), .dss = { .has_ack = true, .data_ack = 42 } } },
    { "MP_CAPABLE SYN, A, B, C, H", "1e0401e1", SYN,
      { .mp = MP_OPT_HAS(MP_CAPABLE), .capable = { .version = 1, .csum_req = true, .bflag = true, .no_join_initial = true, .hmac_sha256 = true } } },
    { "MP_CAPABLE SYN of version 0", "1e0c0081 0102030405060708", SYN,
      { .mp = MP_OPT_HAS(MP_CAPABLE), .capable = { .csum_req = true, .hmac_sha256 = true, .nkeys = 1, .key_snd = 0x0102030405060708 } } },
    { "MP_CAPABLE with data and checksum", "1e180181 0102030405060708 1112131415161718 05b4abcd", ACK,
      { .mp = MP_OPT_HAS(MP_CAPABLE), .capable = { .version = 1, .csum_req = true, .hmac_sha256 = true, .nkeys = 2,
        .key_snd = 0x0102030405060708, .key_rcv = 0x1112131415161718, .has_data_len = true, .data_len = 1460, .has_csum = true, .csum = 0xabcd } } },
    { "MP_JOIN SYN/ACK backup", "1e101107 0102030405060708 0a0b0c0d", SYNACK,
      { .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_SYNACK, .backup = true, .addr_id = 7, .nonce = 0x0a0b0c0d, .hmac = { 1, 2, 3, 4, 5, 6, 7, 8 } } } },
    { "DSS map32", "1e0e2004 00000010 00000020 0030 0101", ACK,
      { .mp = MP_OPT_HAS(MP_DSS), .dss = { .has_map = true, .dsn = 16, .ssn = 32, .len = 48 } } },
    { "DSS map32 checksum fin", "1e102014 00000010 00000020 0030 0102", ACK,
      { .mp = MP_OPT_HAS(MP_DSS), .dss = { .has_map = true, .dsn = 16, .ssn = 32, .len = 48, .data_fin = true, .has_csum = true, .csum = 0x0102 } } },
    { "DSS ack32 map32", "1e122005 fffffff0 00000010 00000020 0030 0101", ACK,
      { .mp = MP_OPT_HAS(MP_DSS), .dss = { .has_ack = true, .data_ack = 0xfffffff0, .has_map = true, .dsn = 16, .ssn = 32, .len = 48 } } },
    { "DSS ack64 map32", "1e162007 01000000fffffff0 00000010 00000020 0030 0101", ACK,
      { .mp = MP_OPT_HAS(MP_DSS), .dss = { .has_ack = true, .ack64 = true, .data_ack = 0x01000000fffffff0, .has_map = true, .dsn = 16, .ssn = 32, .len = 48 } } },
    { "DSS map64", "1e12200c 0200000000000010 00000020 0030 0101", ACK,
      { .mp = MP_OPT_HAS(MP_DSS), .dss = { .has_map = true, .dsn64 = true, .dsn = 0x0200000000000010, .ssn = 32, .len = 48 } } },
    { "DSS empty", "1e042000", ACK, { .mp = MP_OPT_HAS(MP_DSS) } },
    { "MP_FAIL before an infinite mapping", "1e0c6000 0102030405060708 1e0e2004 00000010 00000020 0000 0101", ACK,
      { .mp = MP_OPT_HAS(MP_DSS) | MP_OPT_HAS(MP_FAIL), .fail_dsn = 0x0102030405060708, .dss = { .has_map = true, .dsn = 16, .ssn = 32 } } },
    { "ADD_ADDR IPv6 port, without timestamps", "1e1e3009 20010db8000000000000000000000001 01bb 0102030405060708 0101", ACK,
      { .mp = MP_OPT_HAS(MP_ADD_ADDR), .add_addr = { .addr_id = 9, .ip = { 6, { 0x20, 1, 0xd, 0xb8, [15] = 1 } }, .port = 443, .hmac = 0x0102030405060708 } } },
    { "ADD_ADDR IPv6 port echo", "1e163109 20010db8000000000000000000000001 01bb 0101", ACK,
      { .mp = MP_OPT_HAS(MP_ADD_ADDR), .add_addr = { .echo = true, .addr_id = 9, .ip = { 6, { 0x20, 1, 0xd, 0xb8, [15] = 1 } }, .port = 443 } } },
    { "ADD_ADDR of version 0, IPv4", "1e083409 c6336407", ACK,
      { .mp = MP_OPT_HAS(MP_ADD_ADDR), .add_addr = { .v0 = true, .addr_id = 9, .ip = { 4, { 198, 51, 100, 7 } } } } },
    { "ADD_ADDR of version 0, IPv6 and port", "1e163609 20010db8000000000000000000000001 01bb 0101", ACK,
      { .mp = MP_OPT_HAS(MP_ADD_ADDR), .add_addr = { .v0 = true, .addr_id = 9, .ip = { 6, { 0x20, 1, 0xd, 0xb8, [15] = 1 } }, .port = 443 } } },
    { "REMOVE_ADDR of three", "1e064001 0203 0101", ACK, { .mp = MP_OPT_HAS(MP_REMOVE_ADDR), .remove_addr = { 3, { 1, 2, 3 } } } },
    { "MP_PRIO clear", "1e035001", ACK, { .mp = MP_OPT_HAS(MP_PRIO) } },
    { "MP_PRIO of version 0", "1e045105", ACK, { .mp = MP_OPT_HAS(MP_PRIO), .prio = { .backup = true, .has_id = true, .addr_id = 5 } } },
    { "MP_TCPRST transient middlebox", "1e048106", MP_RST, { .mp = MP_OPT_HAS(MP_TCPRST), .tcprst = { .transient = true, .reason = MP_RST_MIDDLEBOX } } },
};

TEST(every_form_is_read_and_written_by_its_fields)
{
    uint8_t in[40], out[40];
    struct mp_opts o;

    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const struct field_row *r = &fields[i];
        size_t n = test_unhex(in, sizeof in, r->hex);

        ROW("%s", r->name);
        CHECK_EQ(mp_opts_parse(&o, in, n, r->flags), 0);
        CHECK_MEM(&o, &r->o, sizeof o);
        CHECK_EQ(mp_opts_len(&r->o), n);
        mp_opts_emit(out, &r->o);
        CHECK_MEM(out, in, n);
    }
}

/* Some values that byte-for-byte copies would not notice. */
TEST(kernel_headers_mean_what_the_kernel_meant)
{
    uint8_t in[40];
    struct mp_opts o;

    mp_opts_parse(&o, in, test_unhex(in, sizeof in, kernel[1].hex), SYNACK);
    CHECK(o.has_mss && o.mss == 1460 && o.sack_ok && o.has_wscale && o.wscale == 10);
    CHECK_EQ(o.ts_val, 0xc37d1fd0);
    CHECK_EQ(o.capable.version, 1);
    CHECK(o.capable.hmac_sha256 && !o.capable.csum_req && !o.capable.no_join_initial);
    CHECK_EQ(o.capable.key_snd, 0xad765eeadffb4571);
    mp_opts_parse(&o, in, test_unhex(in, sizeof in, kernel[14].hex), ACK);
    CHECK(o.dss.data_fin && o.dss.has_map && o.dss.len == 1 && o.dss.ssn == 0);
    CHECK_EQ(o.dss.data_ack, 0x1cd5974580f2c188);
    CHECK_EQ(o.dss.dsn, 0x05b81144f47e35ca);
}

static const struct { const char *name, *hex; uint8_t flags, bad; uint32_t mp; int result; } odd[] = {
    { "nothing", "", ACK, 0, 0, 0 },
    { "NOPs and end", "01010100", ACK, 0, 0, 0 },
    { "bytes after the end are not looked at", "00ff0001", ACK, 0, 0, 0 },
    { "length 0", "1e000000", ACK, 0, 0, -EBADMSG },
    { "length 1", "0801", ACK, 0, 0, -EBADMSG },
    { "length past the end", "1e0c2003", ACK, 0, 0, -EBADMSG },
    { "length one past the end", "1e052000", ACK, 0, 0, -EBADMSG },
    { "kind without length", "0101011e", ACK, 0, 0, -EBADMSG },
    { "unknown kind passed over", "fd060102030401011e048106", ACK, 0, MP_OPT_HAS(MP_TCPRST), 0 },
    { "MPTCP without subtype", "1e020101", ACK, 1, 0, 0 },
    { "unknown subtype", "1e04f000", ACK, 1, 0, 0 },
    { "subtype 9", "1e049000", ACK, 1, 0, 0 },
    { "second DSS", "1e082001000000011e08200100000002", ACK, 1, MP_OPT_HAS(MP_DSS), 0 },
    { "SYN's MP_CAPABLE in an ACK", "1e040101", ACK, 1, 0, 0 },
    { "SYN's MP_CAPABLE in a SYN/ACK", "1e040101", SYNACK, 1, 0, 0 },
    { "v1 SYN with a key", "1e0c01010102030405060708", SYN, 1, 0, 0 },
    { "v0 with data length", "1e160001010203040506070811121314151617180101", ACK, 1, 0, 0 },
    { "MP_CAPABLE of 21", "1e1501010102030405060708111213141516171801", ACK, 1, 0, 0 },
    { "SYN's MP_JOIN in an ACK", "1e0c10011eec24f44d94d60b", ACK, 1, 0, 0 },
    { "DSS shorter than its flags", "1e082003d27c570b", ACK, 1, 0, 0 },
    { "DSS longer than its flags", "1e0c2001d27c570b00000000", ACK, 1, 0, 0 },
    { "DSS checksum without mapping", "1e0a2001d27c570bffff", ACK, 1, 0, 0 },
    { "DSS of 3", "1e0320", ACK, 1, 0, 0 },
    { "ADD_ADDR echo with HMAC", "1e1031010a4d0202f46f6243905d5d9f", ACK, 1, 0, 0 },
    { "ADD_ADDR without HMAC", "1e0830010a4d0202", ACK, 1, 0, 0 },
    { "ADD_ADDR of 4", "1e043001", ACK, 1, 0, 0 },
    { "REMOVE_ADDR of none", "1e0340", ACK, 1, 0, 0 },
    { "REMOVE_ADDR of seventeen", "1e14400102030405060708090a0b0c0d0e0f1011", ACK, 1, 0, 0 },
    { "MP_PRIO of 5", "1e05500000", ACK, 1, 0, 0 },
    { "MP_FAIL of 8", "1e08600001020304", ACK, 1, 0, 0 },
    { "MP_FASTCLOSE of 20", "1e1470000102030405060708111213141516171801", ACK, 1, 0, 0 },
    { "MP_TCPRST of 3", "1e0380", ACK, 1, 0, 0 },
    { "MSS outside a SYN", "020405b4", ACK, 1, 0, 0 },
    { "MSS 0", "02040000", SYN, 1, 0, 0 },
    { "SACK of 9", "0509010203040506ff", ACK, 1, 0, 0 },
    { "second SACK", "050a0000000100000002050a0000000300000004", ACK, 1, 0, 0 },
    { "second timestamps", "080a0000000100000002080a0000000300000004", ACK, 1, 0, 0 },
    { "SACK without blocks", "0502", ACK, 1, 0, 0 },
    { "malformed option does not hide the next", "0509010203040506ff1e082001d27c570b", ACK, 1, MP_OPT_HAS(MP_DSS), 0 },
};

TEST(odd_headers)
{
    uint8_t in[40];
    struct mp_opts o;

    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        size_t n = test_unhex(in, sizeof in, odd[i].hex);
        int r;

        ROW("%s", odd[i].name);
        memset(&o, 0, sizeof o);
        r = mp_opts_parse(&o, in, n, odd[i].flags);
        CHECK(r == odd[i].result);
        CHECK_EQ(o.bad, odd[i].bad);
        CHECK_EQ(o.mp, odd[i].mp);
    }
}

TEST(window_scale_above_14_is_14)
{
    static const uint8_t in[] = { 3, 3, 15 };
    struct mp_opts o;

    CHECK_EQ(mp_opts_parse(&o, in, sizeof in, SYN), 0);
    CHECK_EQ(o.wscale, 14);
}

static void check_cuts_and_changes(uint8_t *b, size_t n, uint8_t flags)
{
    const char *broken;

    for (size_t cut = 0; cut <= n; cut++)
        if ((broken = opt_property(b, cut, flags))) test_fail(__FILE__, __LINE__, "cut at %zu: %s", cut, broken);
    for (size_t i = 0; i < n; i++) {
        uint8_t was = b[i];

        for (int v = 0; v < 256; v++) {
            b[i] = (uint8_t)v;
            if ((broken = opt_property(b, n, flags))) test_fail(__FILE__, __LINE__, "byte %zu = %d: %s", i, v, broken);
        }
        b[i] = was;
    }
}

TEST(every_cut_and_every_changed_byte_is_safe)
{
    static const uint8_t flags[] = { SYN, SYNACK, ACK };
    uint8_t b[40];

    for (size_t i = 0; i < sizeof kernel / sizeof *kernel; i++)
        for (size_t f = 0; f < sizeof flags; f++) {
            ROW("%s, flags %02x", kernel[i].name, flags[f]);
            check_cuts_and_changes(b, test_unhex(b, sizeof b, kernel[i].hex), flags[f]);
        }
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        ROW("%s", fields[i].name);
        check_cuts_and_changes(b, test_unhex(b, sizeof b, fields[i].hex), fields[i].flags);
    }
}

TEST(random_option_lists_are_safe)
{
    uint64_t seed = 9;

    for (int round = 0; round < 200000; round++) {
        uint8_t b[40];
        size_t n = test_random(&seed) % 41, i = 0;
        const char *broken;

        while (i < n) { /* likely options, so that more than the first is reached */
            uint64_t r = test_random(&seed);

            b[i++] = r & 3 ? 30 : (uint8_t)(r >> 8 & 31);
            if (i < n) b[i++] = (uint8_t)(2 + (r >> 16 & 31));
            if (i < n) b[i++] = (uint8_t)(r >> 24);
            for (r >>= 32; i < n && r & 7; r >>= 3) b[i++] = (uint8_t)r;
        }
        ROW("round %d", round);
        if ((broken = opt_property(b, n, (uint8_t)test_random(&seed)))) test_fail(__FILE__, __LINE__, "%s", broken);
    }
}
