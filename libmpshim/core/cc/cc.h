/* core/cc/cc.h: congestion control as a vtable of functions over a snapshot. One file an algorithm,
 * one line in mp_cc_all. An algorithm sees its own subflow's state and read-only views of its siblings. */
#ifndef MP_CC_H
#define MP_CC_H

#include "core/base.h"

#define MP_CC_MAX_PATHS 8

struct mp_cc_state { /* per subflow; owned by the subflow, saved and loaded with it */
    uint64_t cwnd;       /* bytes */
    uint64_t ssthresh;   /* bytes; UINT64_MAX at first */
    uint32_t mss;        /* bytes of payload a segment */
    mp_dur srtt, min_rtt, last_rtt; /* ns; 0: unknown */
    bool in_recovery;    /* loss recovery: cwnd does not grow */
    bool active;         /* established and usable: counts in coupled sums */
    uint64_t acked_since_grow; /* bytes, for whole-byte growth (appropriate byte counting) */
    uint64_t priv[24];   /* the algorithm's own, zero at init */
};

struct mp_cc_group {     /* all subflows of the connection */
    int n, self;         /* self: index of the subflow that the event is about */
    struct mp_cc_state *s[MP_CC_MAX_PATHS]; /* only s[self] may be written */
};

struct mp_cc_ack {       /* the facts of one ACK */
    mp_time now;
    uint64_t acked;      /* bytes newly acknowledged, cumulatively or selectively */
    uint64_t flight;     /* bytes in flight before this ACK */
    bool app_limited;    /* cwnd was not the limit: do not grow (RFC 7661's idea) */
    bool round_start;    /* first ACK of a new round trip */
};

struct mp_cc {
    const char *name, *source, *summary;
    bool coupled;        /* takes from a shared bottleneck, over all subflows, about what one flow would */
    bool delay_based;    /* backs off before losses: such a flow is pushed aside by others */
    void (*init)(struct mp_cc_state *s, mp_time now);           /* cwnd and mss already set; may be NULL */
    void (*on_ack)(struct mp_cc_group *g, const struct mp_cc_ack *a); /* not called in recovery */
    void (*on_loss)(struct mp_cc_group *g, mp_time now);        /* entering recovery (once per window): sets ssthresh, and cwnd = ssthresh */
    void (*on_rto)(struct mp_cc_group *g, uint64_t flight, mp_time now); /* sets ssthresh and cwnd (one segment) */
    void (*on_idle)(struct mp_cc_group *g, mp_dur idle, mp_dur rto); /* restart after idle (RFC 5681 4.1, RFC 2861); may be NULL */
    void (*on_undo)(struct mp_cc_group *g, mp_time now);        /* spurious loss: restore; may be NULL */
};

extern const struct mp_cc *const mp_cc_all[]; /* NULL-terminated; the first is the default (lia) */
const struct mp_cc *mp_cc_find(const char *name);

/* Shared by the algorithms (RFC 5681, 3465, 6928). */
uint64_t mp_cc_initial_window(uint32_t mss);  /* 10 segments */
bool mp_cc_slow_start(struct mp_cc_state *s, uint64_t acked); /* grows while cwnd < ssthresh; true: it did */

#endif
