/* core/base.h: words shared by all of the engine: time, addresses, sequence spaces.
 *
 * core/ makes no system call, reads no clock and draws no random number (docs/architecture.md). */
#ifndef MP_BASE_H
#define MP_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t mp_time; /* ns on a monotonic clock; 0 is "never happened" */
typedef uint64_t mp_dur;  /* ns */
#define MP_NEVER UINT64_MAX
#define MP_US(n) ((mp_dur)(n) * 1000u)
#define MP_MS(n) ((mp_dur)(n) * 1000000u)
#define MP_SEC(n) ((mp_dur)(n) * 1000000000u)

/* Sequence spaces. Inside core/ every one of them is expanded to 64 bits at the packet border and
 * never wraps, so that "<" is always right:
 *   mp_ssn  subflow sequence relative to the initial one: SYN is 0, the first byte is 1 (RFC 8684 3.3.1)
 *   mp_dsn  data sequence number (RFC 8684 3.3.1) */
typedef uint64_t mp_ssn;
typedef uint64_t mp_dsn;

/* Expands the low 32 bits `low` of a 64-bit number to the value nearest to `near`. */
static inline uint64_t mp_expand32(uint64_t near, uint32_t low)
{
    return near + (uint64_t)(int64_t)(int32_t)(low - (uint32_t)near);
}

/* IPv4 or IPv6 address. family is 4 or 6 (0: none); IPv4 uses the first four bytes, the rest zero. */
struct mp_addr {
    uint8_t family;
    uint8_t b[16]; /* network order */
};

struct mp_endpoint {
    struct mp_addr ip;
    uint16_t port; /* host order */
};

static inline bool mp_addr_eq(const struct mp_addr *a, const struct mp_addr *b)
{
    return a->family == b->family && memcmp(a->b, b->b, a->family == 4 ? 4 : 16) == 0;
}

static inline bool mp_endpoint_eq(const struct mp_endpoint *a, const struct mp_endpoint *b)
{
    return a->port == b->port && mp_addr_eq(&a->ip, &b->ip);
}

static inline uint64_t mp_min(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t mp_max(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* Layout of POSIX struct iovec, so that io/ may cast. */
struct mp_iov {
    const void *base;
    size_t len;
};

/* strdup() takes the allocator that a program brings (jemalloc), where free() of an engine inside it is libc's. NULL: no memory. */
static inline char *mp_text_copy(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = (char *)malloc(n);
    return copy ? (char *)memcpy(copy, text, n) : NULL;
}

#endif
