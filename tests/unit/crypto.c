/* tests/unit/crypto.c: key derivations. Wanted values from Python's hashlib and hmac. */
#include "core/crypto.h"

#include "test.h"

struct key_row { uint64_t key; uint32_t token; uint64_t idsn; };

static void derives(void (*derive)(uint64_t key, uint32_t *token, uint64_t *idsn), const struct key_row *row, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t token;
        uint64_t idsn;

        ROW("key %016" PRIx64, row[i].key);
        derive(row[i].key, &token, &idsn);
        CHECK_EQ(token, row[i].token);
        CHECK_EQ(idsn, row[i].idsn);
    }
}

/* Python: d = hashlib.sha256(key.to_bytes(8,'big')).digest(); d[:4].hex(), d[24:].hex() */
TEST(token_and_idsn_of_known_keys)
{
    static const struct key_row row[] = {
        { 0x0000000000000000, 0xaf5570f5, 0xe5b2328de0e83dfc },
        { 0x0000000000000001, 0xcd266215, 0x19ec509083d00a50 },
        { 0x0123456789abcdef, 0x55c53f5d, 0x570762cd38be9818 },
        { 0x8000000000000000, 0xb1b0bee5, 0x8e13d367c47404a9 },
        { 0xffffffffffffffff, 0x12a3ae44, 0x57fb595bbbacf0ca },
    };

    derives(mp_key_derive, row, sizeof row / sizeof *row);
}

/* hmac.new(a.to_bytes(8,'big')+b.to_bytes(8,'big'), na.to_bytes(4,'big')+nb.to_bytes(4,'big'), 'sha256') */
TEST(join_hmac_of_known_values)
{
    static const struct { uint64_t key_a, key_b; uint32_t nonce_a, nonce_b; const char *hmac; } row[] = {
        { 0x0000000000000001, 0x0000000000000002, 0x00000003, 0x00000004,
          "e5c5265ef877e59438bc6c934ea109a8fb18ad68f4de068ce0ef02c643316fdf" },
        { 0x0123456789abcdef, 0xfedcba9876543210, 0xdeadbeef, 0x01020304,
          "b31b72218c9cccc47721ed25d6c5f20b5908ee986bad48680be0eec63400f615" },
        { 0xffffffffffffffff, 0xffffffffffffffff, 0xffffffff, 0xffffffff,
          "1a883dbb5066fea110496036d071503447d710de4ee22739d2feb8227c7564b2" },
    };
    uint8_t want[32], got[32];

    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        ROW("row %zu", i);
        test_unhex(want, sizeof want, row[i].hmac);
        mp_join_hmac(row[i].key_a, row[i].key_b, row[i].nonce_a, row[i].nonce_b, got);
        CHECK_MEM(got, want, 32);
    }
}

/* hmac.new(keys, bytes([id]) + address + port.to_bytes(2,'big'), 'sha256').digest()[24:] */
TEST(add_addr_hmac_of_known_values)
{
    static const struct mp_addr v4 = { 4, { 198, 51, 100, 7 } };
    static const struct mp_addr v6 = { 6, { 0x20, 0x01, 0x0d, 0xb8, [15] = 0x42 } };
    static const struct { uint8_t id; const struct mp_addr *a; uint16_t port; uint64_t hmac; } row[] = {
        { 1, &v4, 0, 0x2a170616380630b0 },
        { 1, &v4, 8080, 0xf91ea34defcb659a },
        { 200, &v6, 0, 0xf2f114066a0c3291 },
        { 200, &v6, 443, 0xe2d83239198bc429 },
    };

    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        ROW("row %zu", i);
        CHECK_EQ(mp_add_addr_hmac(0x1122334455667788, 0x99aabbccddeeff00, row[i].id, row[i].a, row[i].port), row[i].hmac);
    }
}

TEST(constant_time_comparison)
{
    CHECK(mp_equal_ct("abcd", "abcd", 4));
    CHECK(!mp_equal_ct("abcd", "abce", 4));
    CHECK(mp_equal_ct("abcd", "abce", 3));
    CHECK(mp_equal_ct("", "", 0));
}

/* What Linux 6.18 sent between two network namespaces: two connections, keys from MP_CAPABLE. */
TEST(kernel_tokens_and_hmacs)
{
    static const uint64_t client = 0xbf2d69c5617a7ede, server = 0xd7df457f9e90118c;
    static const struct mp_addr second = { 4, { 10, 77, 2, 2 } };
    uint8_t want[20], got[32];
    uint32_t token;
    uint64_t idsn;

    mp_key_derive(server, &token, &idsn);
    CHECK_EQ(token, 0x9ecfdc55);
    mp_join_hmac(server, client, 0x054e1a1a, 0x7d5fbf01, got); /* in the SYN/ACK */
    test_unhex(want, sizeof want, "c85652ffde35cf75");
    CHECK_MEM(got, want, 8);
    mp_join_hmac(client, server, 0x7d5fbf01, 0x054e1a1a, got); /* in the third ACK */
    test_unhex(want, sizeof want, "5de496b25f22ff7e8512a531f2d457870920e737");
    CHECK_MEM(got, want, 20);

    mp_key_derive(0xad765eeadffb4571, &token, &idsn);
    CHECK_EQ(token, 0x1eec24f4);
    mp_key_derive(0x79b2db5dcc561b9f, &token, &idsn);
    CHECK_EQ(idsn + 1, 0x05b81144f47e06ea); /* the first mapping's DSN */
    CHECK_EQ(mp_add_addr_hmac(0xad765eeadffb4571, 0x79b2db5dcc561b9f, 1, &second, 0), 0xf46f6243905d5d9f);
}

/* Version 0. Python: d = hashlib.sha1(key.to_bytes(8,'big')).digest(); d[:4].hex(), d[12:].hex() */
TEST(token_and_idsn_of_known_keys_in_version_0)
{
    static const struct key_row row[] = {
        { 0x0000000000000000, 0x05fe4057, 0xac558654f107c7e9 },
        { 0x0000000000000001, 0xcb473678, 0x38f11011007ad27d },
        { 0x0123456789abcdef, 0x0ca2eadb, 0xe3df8ee121f10547 },
        { 0x8000000000000000, 0xe19f8c60, 0x01baf61235724b1e },
        { 0xffffffffffffffff, 0xbe673e8a, 0x866701c11ef8e089 },
    };

    derives(mp_key_derive0, row, sizeof row / sizeof *row);
}

/* hmac.new(a.to_bytes(8,'big')+b.to_bytes(8,'big'), na.to_bytes(4,'big')+nb.to_bytes(4,'big'), 'sha1') */
TEST(join_hmac_of_known_values_in_version_0)
{
    static const struct { uint64_t key_a, key_b; uint32_t nonce_a, nonce_b; const char *hmac; } row[] = {
        { 0x0000000000000001, 0x0000000000000002, 0x00000003, 0x00000004, "3e9d3c463abd55f71a0858f079f8bae4b5599f26" },
        { 0x0123456789abcdef, 0xfedcba9876543210, 0xdeadbeef, 0x01020304, "fe9e028cf58bfc56be51aa1b3b5520785483d291" },
    };
    uint8_t want[20], got[20];

    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        ROW("row %zu", i);
        test_unhex(want, sizeof want, row[i].hmac);
        mp_join_hmac0(row[i].key_a, row[i].key_b, row[i].nonce_a, row[i].nonce_b, got);
        CHECK_MEM(got, want, 20);
    }
}
