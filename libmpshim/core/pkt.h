/* core/pkt.h: one TCP segment (or GSO/GRO super-segment) as core/ sees it, in and out. */
#ifndef MP_PKT_H
#define MP_PKT_H

#include "core/base.h"
#include "core/buf.h"

enum { MP_FIN = 0x01, MP_SYN = 0x02, MP_RST = 0x04, MP_PSH = 0x08, MP_ACK = 0x10, MP_URG = 0x20, MP_ECE = 0x40, MP_CWR = 0x80 };

#define MP_PKT_MAX_IOV 4
#define MP_SLICE_MAX 64000 /* most payload bytes in one mp_pkt; IP total length is 16 bits */

/* Bytes of an IP header and a TCP header without options. */
static inline uint32_t mp_header_len(uint8_t family) { return (family == 4 ? 20 : 40) + 20; }

struct mpc;

/* The TCP header's fields in host order, options as bytes in wire form. */
struct mp_pkt {
    struct mp_endpoint src, dst;
    int ifindex;         /* interface it arrived on / must leave by */
    const struct mpc *conn; /* out: whose it is; NULL: of no connection */
    void *flow;          /* out: the io flow handle (stack.h flow_open); in: NULL */
    uint32_t seq, ack;
    uint16_t wnd;        /* as on the wire, unscaled */
    uint16_t urg;
    uint8_t flags;
    uint8_t tos;         /* IP TOS / traffic class byte */
    uint8_t ttl;         /* out: time to live / hop limit; 0: the host's default */
    uint32_t mark, priority; /* out: SO_MARK and SO_PRIORITY, for the host's own rules, routes and queues; 0: none */
    uint8_t optlen;      /* bytes used in opt, a multiple of 4 when sent */
    uint8_t opt[40];
    uint16_t gso_size;   /* payload bytes per wire segment; 0: payload is one segment */
    uint32_t len;        /* payload bytes */
    /* out: the payload, borrowed until the output function returns */
    uint8_t niov;
    struct mp_iov iov[MP_PKT_MAX_IOV];
    /* in: the payload; buf is borrowed for the call (core takes references), NULL: must be copied to keep */
    struct mp_slice data;
};

#endif
