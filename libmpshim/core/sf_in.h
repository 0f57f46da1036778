/* core/sf_in.h: what the takers of segments share. Inside core/ only.
 *
 * A segment goes through sf_input (sf_in.c), which asks RFC 9293 3.10.7's questions in its order and hands it to the file that
 * knows the answer: sf_in_open.c handshakes, sf_in_rst.c resets, sf_in_data.c data, sf_in_fin.c FINs and TIME-WAIT.
 * ssn is the expanded number of the segment's first byte, relative to the peer's initial one; seglen counts SYN and FIN. */
#ifndef MP_SF_IN_H
#define MP_SF_IN_H

#include "core/stack_int.h"

/* ---- sf_in.c ---- */
/* RFC 5961: an ACK that makes an honest peer resynchronise and tells an attacker nothing. At most one in 10 ms. */
void in_challenge(struct sf *s);
void in_answer_misfit(struct sf *s, uint32_t seglen, mp_time now); /* an ACK to what does not fit; without data one in 500 ms */
bool in_window(const struct sf *s, mp_ssn ssn, uint32_t seglen);   /* RFC 9293 3.10.7.4 first: is any of it in the window? */

/* ---- sf_in_open.c ---- */
void in_syn_sent(struct sf *s, struct mp_pkt *p, const struct mp_opts *o, mp_time now); /* any segment in SYN-SENT */
/* An ACK of our SYN/ACK in SYN-RECEIVED. false: it does not end the handshake, and the segment is not to be looked at further. */
bool in_third_ack(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now);
void in_fourth_ack(struct sf *s, mp_time now); /* RFC 8684 3.2: of a join of ours */

/* ---- sf_in_rst.c ---- */
void in_rst(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now); /* in a synchronised state */
void in_reset_reason(struct sf *s, const struct mp_opts *o); /* MP_TCPRST of a reset that is believed is kept for the path manager */

/* ---- sf_in_data.c ---- */
/* A segment with data that passed all checks and whose options were taken. false: nothing more of it counts. */
bool in_data(struct sf *s, struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now);
void in_duplicate(struct sf *s, mp_ssn ssn, uint32_t len); /* so many bytes came twice: counted, told by D-SACK (RFC 2883) */

/* ---- sf_in_fin.c ---- */
void in_fin(struct sf *s, mp_time now);       /* after data: is it the turn of a FIN that came? then the state moves on */
void in_fin_acked(struct sf *s, mp_time now); /* ours, for the first time. May end the subflow (s->v.dead) */
void in_time_wait(struct sf *s, const struct mp_pkt *p, mp_time now); /* any segment in TIME-WAIT */

#endif
