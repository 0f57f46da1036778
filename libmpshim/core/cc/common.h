/* core/cc/common.h: what the algorithms share, and who owns which word of mp_cc_state.priv. */
#ifndef MP_CC_COMMON_H
#define MP_CC_COMMON_H

#include "core/cc/cc.h"

enum { /* words of priv */
    P_PRIOR_CWND, P_PRIOR_SSTHRESH,           /* before the last reduction, for on_undo; cwnd 0: nothing to undo */
    P_REDUCED_TO,                             /* cwnd as the last loss left it; equal to cwnd: not grown since */
    P_ROUND_MIN_RTT, P_LAST_ROUND_MIN_RTT,    /* HyStart++, ns, 0: none yet */
    P_ROUND_SAMPLES, P_ROUND_APP_LIMITED, P_CSS_BASELINE_RTT, P_CSS_ROUNDS,
    P_ALGORITHM                               /* the first that an algorithm may use for itself */
};

static inline struct mp_cc_state *mp_cc_self(const struct mp_cc_group *g) { return g->s[g->self]; }

/* Slow start with HyStart++ (RFC 9406), and nothing for an ACK of a window that was not full. True: the ACK
 * needs no further growth. */
bool mp_cc_hystart_ack(struct mp_cc_state *s, const struct mp_cc_ack *a);
/* One segment for every `threshold` bytes acknowledged (RFC 3465 2.1 with threshold = cwnd). */
void mp_cc_grow_by_bytes(struct mp_cc_state *s, uint64_t acked, uint64_t threshold);

/* Growth in fractions of a segment, and shrinking: the algorithm's word holds what is not a whole segment yet, in
 * 1/65536 byte; bytes < 0 shrinks, not below two segments. */
void mp_cc_change(struct mp_cc_state *s, uint64_t *fraction, double bytes);
/* A subflow that belongs into coupled sums, and its window there: ssthresh stands for cwnd in fast recovery (RFC 6356 3). */
bool mp_cc_counts(const struct mp_cc_state *s);
double mp_cc_coupled_window(const struct mp_cc_state *s);

/* Remembers cwnd and ssthresh for mp_cc_undo. */
void mp_cc_remember(struct mp_cc_state *s);
/* False: nothing to undo. */
bool mp_cc_undo(struct mp_cc_state *s);
/* Sets ssthresh to the given value, but no less than two segments, and cwnd to it (RFC 5681 3.2). */
void mp_cc_reduce(struct mp_cc_state *s, uint64_t ssthresh);

/* Reno's reactions, which LIA shares (RFC 6356 3). */
void mp_cc_reno_ack(struct mp_cc_group *g, const struct mp_cc_ack *a);
void mp_cc_reno_loss(struct mp_cc_group *g, mp_time now);
void mp_cc_reno_rto(struct mp_cc_group *g, uint64_t flight, mp_time now);
void mp_cc_reno_idle(struct mp_cc_group *g, mp_dur idle, mp_dur rto);
void mp_cc_reno_undo(struct mp_cc_group *g, mp_time now);

/* RTO for any multiplicative decrease num/den: ssthresh from the flight, one segment of window. */
void mp_cc_timeout(struct mp_cc_state *s, uint64_t flight, unsigned num, unsigned den);

extern const struct mp_cc mp_cc_lia, mp_cc_cubic, mp_cc_reno, mp_cc_olia, mp_cc_balia, mp_cc_wvegas;

#endif
