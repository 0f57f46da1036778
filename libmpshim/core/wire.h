/* core/wire.h: TCP header and Internet checksum codec (RFC 9293 3.1, RFC 1071). Pure functions. */
#ifndef MP_WIRE_H
#define MP_WIRE_H

#include "core/pkt.h"

/* Parses a TCP segment (header, options, payload) of n bytes into p: seq, ack, wnd, urg, flags, opt, data.
 * data points into tcp with data.buf NULL: a caller that owns a counted buffer sets data.buf afterwards.
 * Addresses, ifindex, tos, flow, gso_size are the caller's. Returns 0 or -EBADMSG (p untouched). */
int mp_tcp_parse(struct mp_pkt *p, const uint8_t *tcp, size_t n);

/* Writes the TCP header with options, checksum zero; returns its length (20 + optlen). buf holds 60. */
size_t mp_tcp_emit(uint8_t *buf, const struct mp_pkt *p);

/* One's complement sum of n bytes added to `sum` (unfolded, big-endian 16-bit words; odd tail padded).
 * Fast on long runs (64-bit accumulation). Call on even offsets only, or use mp_csum_at. */
uint64_t mp_csum_add(uint64_t sum, const void *p, size_t n);
/* The same where the run starts at byte offset `off` of the summed stream (odd offsets swap). */
uint64_t mp_csum_at(uint64_t sum, const void *p, size_t n, uint64_t off);
uint16_t mp_csum_fold(uint64_t sum);              /* folds, not complemented, as a host-order number of the big-endian word */
uint64_t mp_csum_pseudo(const struct mp_addr *src, const struct mp_addr *dst, uint8_t proto, uint32_t len);

#endif
