/* core/crypto.c: see crypto.h.
 *
 * OpenSSL's block functions are used directly, not through EVP: they need no context from the heap, no
 * fetch by name, and no library state. The last matters most: a program that shares libcrypto with an
 * engine inside it runs OPENSSL_cleanup() from atexit() while the engine still sends what is left. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "core/crypto.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 3; i >= 0; i--, v >>= 8) p[i] = (uint8_t)v;
}
static void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)(v >> 32));
    put32(p + 4, (uint32_t)v);
}
static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static uint64_t get64(const uint8_t *p) { return (uint64_t)get32(p) << 32 | get32(p + 4); }

/* Either hash takes blocks of 64 bytes. */
enum { BLOCK = 64 };
_Static_assert(SHA256_CBLOCK == BLOCK && SHA_CBLOCK == BLOCK, "one HMAC serves both");
typedef void (*hash_fn)(uint8_t *out, const void *a, size_t an, const void *b, size_t bn);

static void sha256_of_two(uint8_t *out, const void *a, size_t an, const void *b, size_t bn)
{
    SHA256_CTX c;

    SHA256_Init(&c);
    SHA256_Update(&c, a, an);
    SHA256_Update(&c, b, bn);
    SHA256_Final(out, &c);
    OPENSSL_cleanse(&c, sizeof c);
}

static void sha1_of_two(uint8_t *out, const void *a, size_t an, const void *b, size_t bn)
{
    SHA_CTX c;

    SHA1_Init(&c);
    SHA1_Update(&c, a, an);
    SHA1_Update(&c, b, bn);
    SHA1_Final(out, &c);
    OPENSSL_cleanse(&c, sizeof c);
}

/* RFC 2104; the key is 16 bytes in all uses here, so never longer than a block. */
static void hmac(hash_fn hash, size_t size, uint8_t *out, const uint8_t key[16], const void *msg, size_t n)
{
    uint8_t ipad[BLOCK], opad[BLOCK], inner[32];

    for (size_t i = 0; i < sizeof ipad; i++) {
        uint8_t k = i < 16 ? key[i] : 0;

        ipad[i] = k ^ 0x36;
        opad[i] = k ^ 0x5c;
    }
    hash(inner, ipad, sizeof ipad, msg, n);
    hash(out, opad, sizeof opad, inner, size);
    OPENSSL_cleanse(ipad, sizeof ipad);
    OPENSSL_cleanse(opad, sizeof opad);
}

static void hmac_of_keys(hash_fn hash, size_t size, uint8_t *out, uint64_t key_a, uint64_t key_b, const void *msg, size_t n)
{
    uint8_t key[16];

    put64(key, key_a);
    put64(key + 8, key_b);
    hmac(hash, size, out, key, msg, n);
    OPENSSL_cleanse(key, sizeof key);
}

static void join_hmac(hash_fn hash, size_t size, uint64_t key_a, uint64_t key_b, uint32_t nonce_a, uint32_t nonce_b, uint8_t *out)
{
    uint8_t msg[8];

    put32(msg, nonce_a);
    put32(msg + 4, nonce_b);
    hmac_of_keys(hash, size, out, key_a, key_b, msg, sizeof msg);
}

/* RFC 8684 3.2: token, the most significant 32 bits; 3.1: IDSN, the least significant 64 bits. */
void mp_key_derive(uint64_t key, uint32_t *token, uint64_t *idsn)
{
    uint8_t k[8], d[32];

    put64(k, key);
    sha256_of_two(d, k, sizeof k, "", 0);
    *token = get32(d);
    *idsn = get64(d + 24);
}

void mp_key_derive0(uint64_t key, uint32_t *token, uint64_t *idsn)
{
    uint8_t k[8], d[SHA_DIGEST_LENGTH];

    put64(k, key);
    sha1_of_two(d, k, sizeof k, "", 0);
    *token = get32(d);
    *idsn = get64(d + sizeof d - 8);
}

void mp_join_hmac(uint64_t key_a, uint64_t key_b, uint32_t nonce_a, uint32_t nonce_b, uint8_t out[32])
{
    join_hmac(sha256_of_two, SHA256_DIGEST_LENGTH, key_a, key_b, nonce_a, nonce_b, out);
}

void mp_join_hmac0(uint64_t key_a, uint64_t key_b, uint32_t nonce_a, uint32_t nonce_b, uint8_t out[20])
{
    join_hmac(sha1_of_two, SHA_DIGEST_LENGTH, key_a, key_b, nonce_a, nonce_b, out);
}

uint64_t mp_add_addr_hmac(uint64_t key_sender, uint64_t key_receiver, uint8_t id, const struct mp_addr *a, uint16_t port)
{
    uint8_t msg[1 + 16 + 2], d[32];
    size_t n = a->family == 4 ? 4 : 16;

    msg[0] = id;
    memcpy(msg + 1, a->b, n);
    msg[1 + n] = (uint8_t)(port >> 8);
    msg[2 + n] = (uint8_t)port;
    hmac_of_keys(sha256_of_two, SHA256_DIGEST_LENGTH, d, key_sender, key_receiver, msg, n + 3);
    return get64(d + 24);
}

void mp_mac(const uint8_t key[16], const void *msg, size_t n, uint64_t out[2])
{
    uint8_t d[32];

    hmac(sha256_of_two, sizeof d, d, key, msg, n);
    out[0] = get64(d);
    out[1] = get64(d + 8);
}

bool mp_equal_ct(const void *a, const void *b, size_t n) { return CRYPTO_memcmp(a, b, n) == 0; }
