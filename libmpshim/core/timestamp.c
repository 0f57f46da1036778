/* Our timestamps (RFC 7323 3): milliseconds, from an offset of each pair of addresses. Without one, every packet would tell how long
 * the host has been up, and which connections come from one host (RFC 7323 5.4 and 7.1: a random offset).
 *
 * It is a keyed hash of the two addresses, not drawn for each connection, and the ports are not in it: one 4-tuple's timestamps
 * go upwards from one connection to the next, which is what one in TIME_WAIT gives way to, at either end (RFC 6191), and what a SYN
 * cookie put into a timestamp is compared with the same clock when it comes back (cookie.c). The key is the host's: the next
 * connection may be another process's. */
#include "core/stack_int.h"

#include "core/crypto.h"

uint32_t ts_offset(const struct mp_stack *st, const struct mp_addr *local, const struct mp_addr *remote)
{
    uint8_t m[32];
    uint64_t w[2];
    memcpy(m, local->b, 16);
    memcpy(m + 16, remote->b, 16);
    mp_mac(st->ts_key, m, sizeof m, w);
    return (uint32_t)w[0];
}

/* Never 0, which in an echo says that there is none (RFC 7323 3.2). */
uint32_t ts_at(uint32_t offset, mp_time at)
{
    uint32_t ts = offset + (uint32_t)(at / MP_MS(1));
    return ts ? ts : 1;
}

uint32_t sf_ts(const struct sf *s, mp_time at) { return ts_at(s->v.ts_offset, at); }
