/* Initial sequence numbers, RFC 6528 3: a clock that ticks every 4 us, plus a keyed hash of the 4-tuple. Nobody who does not
 * know the key can tell one connection's number from another's, and on one 4-tuple the numbers go upwards, so that a
 * connection which takes the place of one in TIME_WAIT is past what that one used (RFC 9293 3.6.1). The key is the stack's
 * own, drawn when it is made. */
#include "core/stack_int.h"

#include "core/crypto.h"

#define ISN_TICK MP_US(4) /* RFC 9293 3.4.1 */

uint32_t isn_new(struct mp_stack *st, const struct mp_endpoint *local, const struct mp_endpoint *remote, mp_time now)
{
    uint8_t m[36];
    uint64_t w[2];
    memcpy(m, local->ip.b, 16);
    memcpy(m + 16, remote->ip.b, 16);
    memcpy(m + 32, &local->port, 2);
    memcpy(m + 34, &remote->port, 2);
    mp_mac(st->isn_key, m, sizeof m, w);
    return (uint32_t)w[0] + (uint32_t)(now / ISN_TICK);
}

uint32_t isn_end(const struct sf *s) { return s->v.iss + (uint32_t)s->v.snd_nxt; }

/* The clock makes 250,000 numbers a second, a fast connection uses more. */
void isn_follow(struct sf *s, uint32_t end)
{
    if ((int32_t)(s->v.iss - end) <= 0) s->v.iss = end + 65536;
}
