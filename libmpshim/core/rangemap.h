/* core/rangemap.h: disjoint ranges of a 64-bit sequence space, each with its bytes: out-of-order data of a
 * subflow (keyed by ssn) and of a connection (keyed by dsn). A balanced tree: hostile orders cost O(log n). */
#ifndef MP_RANGEMAP_H
#define MP_RANGEMAP_H

#include "core/buf.h"

struct mp_range {
    uint64_t start;
    struct mp_slice data;    /* counted; end is start + data.len */
    uint64_t tag;            /* the user's, kept with the piece (trimming keeps it) */
    /* tree links are rangemap.c's */
    struct mp_range *l, *r;
    uint32_t prio;
    uint32_t charge;         /* bytes of memory pinned by this piece, its share of mem_bytes */
    uint64_t lo, hi, sum;    /* of the subtree: first start, last end, bytes; no gap in it when hi - lo == sum */
};
struct mp_rangemap {
    struct mp_range *root;
    uint64_t bytes;          /* stored */
    uint64_t mem_bytes;      /* pinned, as charged against a limit */
    uint32_t n;
    uint32_t rnd;            /* tree balance, seeded by init */
};

void mp_rangemap_init(struct mp_rangemap *m, uint32_t seed);
void mp_rangemap_fini(struct mp_rangemap *m);
/* Stores [start, start+len) by mp_slice_keep, only where nothing is stored yet (first arrival wins).
 * Returns new bytes stored, or -ENOMEM (what fitted stays). */
int64_t mp_rangemap_insert(struct mp_rangemap *m, uint64_t start, const struct mp_slice *s, uint64_t tag);
/* Takes out the piece that holds `at`, trimmed to begin there; pieces wholly before `at` are dropped.
 * false: none. The slice's reference passes to the caller. */
bool mp_rangemap_pop(struct mp_rangemap *m, uint64_t at, struct mp_slice *out, uint64_t *tag);
/* The contiguous run [*left, *right) of stored pieces around or first after `at`; false: none. */
bool mp_rangemap_run(const struct mp_rangemap *m, uint64_t at, uint64_t *left, uint64_t *right);
/* The piece that holds `at`, else the first after it; NULL: none. For walking all: at = 0, then its end. */
const struct mp_range *mp_rangemap_next(const struct mp_rangemap *m, uint64_t at);
uint64_t mp_rangemap_max(const struct mp_rangemap *m); /* end of the last piece; 0: empty */

#endif
