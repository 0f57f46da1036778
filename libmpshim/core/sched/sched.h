/* core/sched/sched.h: which subflow gets the next bytes: a function over a snapshot, and what it remembers. */
#ifndef MP_SCHED_H
#define MP_SCHED_H

#include "core/base.h"

#define MP_SCHED_MAX_PATHS 16

struct mp_sched_path {
    int id;               /* the subflow's, for its whole life */
    mp_dur srtt;          /* ns; 0: no sample yet (counts as slow) */
    mp_dur rttvar, min_rtt;
    uint64_t cwnd, flight;/* bytes */
    uint64_t room;        /* bytes it may send now: min(cwnd - flight, peer's window share); 0: none */
    uint64_t rate;        /* bytes a second, as delivered lately; 0: not known yet */
    uint32_t mss;
    bool backup;          /* used only when no usable non-backup path exists */
    bool stale;           /* has made no progress lately: avoid while another works */
};

struct mp_sched_mem {     /* of one connection; zero at first, saved and loaded with it; meanings are the scheduler's */
    uint64_t w[8];
};

struct mp_sched_view {
    mp_time now;
    int n;
    struct mp_sched_path path[MP_SCHED_MAX_PATHS];
    uint64_t queued;      /* bytes not yet given to any subflow */
    uint64_t conn_window; /* bytes the peer's connection-level window leaves */
    uint64_t window;      /* the whole of that window: from the oldest byte not yet acknowledged to its right edge */
    uint64_t blocked;     /* times so far that this window, and nothing else, stopped new data */
    struct mp_sched_mem *mem;
};

struct mp_sched {
    const char *name, *source, *summary;
    bool repeats;         /* paths with room send again what is only on its way over others */
    int (*pick)(const struct mp_sched_view *v); /* index into path, or -1: wait for an ACK */
};
extern const struct mp_sched *const mp_sched_all[]; /* NULL-terminated; the first is the default */
const struct mp_sched *mp_sched_find(const char *name);

/* Shared by the schedulers. Paths have classes in the order of preference: working, working backup (RFC 8684 3.3.8), stale,
 * stale backup. Only the best class that is present is used: data waits for a working path that is full rather than go
 * to a backup, or to a path that has stopped answering. */
int mp_sched_class(const struct mp_sched_path *p);
int mp_sched_best_class(const struct mp_sched_view *v);
/* The path of that class with the least smoothed RTT; with room, if that is asked for; -1: none. */
int mp_sched_fastest(const struct mp_sched_view *v, int class, bool with_room);
/* BLEST's correction of an estimate that says whether the window will be full: from 1 to max, up when the window blocked the
 * connection all the same, slowly down again, at most once in rtt. Uses the first three words of the memory. */
double mp_sched_lambda(const struct mp_sched_view *v, mp_dur rtt, double max);

#endif
