/* core/sf_out.h: what the makers of segments share. sf_out.c header, SYN, RST; sf_data.c data and FIN; sf_ack.c pure ACKs. */
#ifndef MP_SF_OUT_H
#define MP_SF_OUT_H

#include "core/stack_int.h"

/* A segment: begun, options added to o (data first, what may be cut short last), then finished. */
void out_begin(struct sf *s, struct mp_pkt *out, mp_ssn ssn, uint8_t flags);
void out_timestamps(struct sf *s, struct mp_opts *o, mp_time now);
void out_data_ack(struct mpc *c, struct mp_opts *o);
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
