/* sim/rng.h: the simulator's seeded random numbers (splitmix64). One stream per user, so that one part drawing
 * more numbers does not change what another part sees. */
#ifndef SIM_RNG_H
#define SIM_RNG_H

#include "core/base.h"

struct sim_rng {
    uint64_t state;
};

static inline uint64_t sim_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline struct sim_rng sim_rng_new(uint64_t seed, uint64_t stream)
{
    return (struct sim_rng){sim_mix(seed + 0x9e3779b97f4a7c15u) ^ sim_mix(stream * 0xd1342543de82ef95u + 1)};
}

static inline uint64_t sim_rng_next(struct sim_rng *r) { return sim_mix(r->state += 0x9e3779b97f4a7c15u); }

/* Evenly in [lo, hi], both included. */
static inline uint64_t sim_rng_range(struct sim_rng *r, uint64_t lo, uint64_t hi)
{
    return lo + sim_rng_next(r) % (hi - lo + 1);
}

/* True n times in a million; n of 0 draws nothing, so that an unused knob leaves the stream alone. */
static inline bool sim_rng_ppm(struct sim_rng *r, uint32_t n) { return n && sim_rng_next(r) % 1000000 < n; }

static inline void sim_rng_fill(struct sim_rng *r, void *p, size_t n)
{
    uint8_t *b = p;
    for (size_t i = 0; i < n; i++) b[i] = (uint8_t)(sim_rng_next(r) >> 32);
}

#endif
