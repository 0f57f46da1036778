/* core/sched/sched.h: which subflow gets the next bytes: a pure function over a snapshot. */
#ifndef MP_SCHED_H
#define MP_SCHED_H

#include "core/base.h"

#define MP_SCHED_MAX_PATHS 16

struct mp_sched_path {
    mp_dur srtt;          /* ns; 0: no sample yet (counts as slow) */
    mp_dur rttvar;
    uint64_t cwnd, flight;/* bytes */
    uint64_t room;        /* bytes it may send now: min(cwnd - flight, peer's window share); 0: none */
    uint32_t mss;
    bool backup;          /* used only when no usable non-backup path exists */
    bool stale;           /* has made no progress lately: avoid while another works */
};
struct mp_sched_view {
    int n;
    struct mp_sched_path path[MP_SCHED_MAX_PATHS];
    uint64_t queued;      /* bytes not yet given to any subflow */
    uint64_t conn_window; /* bytes the peer's connection-level window leaves */
};
struct mp_sched {
    const char *name, *source, *summary;
    int (*pick)(const struct mp_sched_view *v); /* index into path, or -1: wait */
};
extern const struct mp_sched *const mp_sched_all[]; /* NULL-terminated; the first is the default (minrtt) */
const struct mp_sched *mp_sched_find(const char *name);

#endif
