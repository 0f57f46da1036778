/* core/sf_out.h: what the makers of segments share. sf_out.c header, SYN, RST; sf_data.c data and FIN; sf_ack.c pure ACKs. */
#ifndef MP_SF_OUT_H
#define MP_SF_OUT_H

#include "core/stack_int.h"

/* RFC 8684 3.7: a peer that falls back sends an infinite mapping, which is as long as any DSS (28 bytes: DATA_ACK and DSN of 64
 * bits, checksum). Linux (6.18) fills that segment as plain TCP does and adds the mapping on top: longer by this than the MSS it
 * was told, it exceeds the MTU and is never sent. So who offers or takes MPTCP tells an MSS with room for it; a join
 * tells the same, for a small window is then used up in whole segments of one size. */
enum { MSS_ROOM = 28 };

/* What a SYN or SYN/ACK tells on a link of this MTU; mp: it offers or takes MPTCP, or joins. */
static inline uint32_t out_mss(uint32_t mtu, uint8_t family, bool mp)
{
    uint32_t m = mtu - mp_header_len(family) - (mp ? MSS_ROOM : 0);
    return m > 65495 ? 65495 : m;
}

/* A segment: begun, options added to o (data first, what may be cut short last), then finished. */
void out_begin(struct sf *s, struct mp_pkt *out, mp_ssn ssn, uint8_t flags);
void out_timestamps(struct sf *s, struct mp_opts *o, mp_time now);
void out_data_ack(struct mpc *c, struct mp_opts *o);
void out_data_fin(const struct mpc *c, struct mp_opts *o);
void out_sack(struct sf *s, struct mp_opts *o, uint32_t room); /* as many blocks as `room` bytes of options hold */
void out_finish(struct sf *s, struct mp_pkt *out, struct mp_opts *o, mp_time now);

/* ---- sf_data.c ---- */
bool sf_emit_rexmit(struct sf *s, struct mp_pkt *out, mp_time now); /* false: nothing is due, or no memory */
bool sf_fin_due(const struct sf *s);
bool sf_emit_fin(struct sf *s, struct mp_pkt *out, mp_time now);

/* ---- sf_ack.c ---- */
bool sf_ack_due(struct sf *s);
bool sf_emit_ack(struct sf *s, struct mp_pkt *out, mp_time now);

#endif
