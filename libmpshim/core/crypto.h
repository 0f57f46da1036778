/* core/crypto.h: RFC 8684 key derivations (SHA-256; SHA-1 for version 0). Pure functions over OpenSSL. */
#ifndef MP_CRYPTO_H
#define MP_CRYPTO_H

#include "core/base.h"

/* 64-bit keys are numbers whose big-endian bytes are those on the wire. */
void mp_key_derive(uint64_t key, uint32_t *token, uint64_t *idsn); /* RFC 8684 3.1, 3.2 */
void mp_key_derive0(uint64_t key, uint32_t *token, uint64_t *idsn); /* version 0, SHA-1: RFC 6824 3.1, 3.2 */
/* MP_JOIN: HMAC-SHA256(key = key_a ‖ key_b, msg = nonce_a ‖ nonce_b), RFC 8684 3.2. Sender's values first. */
void mp_join_hmac(uint64_t key_a, uint64_t key_b, uint32_t nonce_a, uint32_t nonce_b, uint8_t out[32]);
void mp_join_hmac0(uint64_t key_a, uint64_t key_b, uint32_t nonce_a, uint32_t nonce_b, uint8_t out[20]); /* version 0: HMAC-SHA1, RFC 6824 3.2 */
/* ADD_ADDR: rightmost 64 bits of HMAC(key = sender key ‖ receiver key, id ‖ address ‖ port), port 0 when absent. */
uint64_t mp_add_addr_hmac(uint64_t key_sender, uint64_t key_receiver, uint8_t id, const struct mp_addr *a, uint16_t port);
void mp_mac(const uint8_t key[16], const void *msg, size_t n, uint64_t out[2]); /* 128 bits of HMAC-SHA256, for what only we check */
bool mp_equal_ct(const void *a, const void *b, size_t n); /* constant time */

#endif
