/* Pacing: new data leaves at a rate above what the path carries, instead of a window in one burst that a short queue drops.
 * As Linux does: twice the window a round trip in slow start, 1.2 times it afterwards, so that the window stays the limit.
 *
 * In quanta of a millisecond, which is what the host's timers can do: until a quantum ahead of its time a subflow may send,
 * then it waits for all of it. Paths whose round trip is not much longer are not paced, nor are the first 24 segments in
 * flight: an initial window goes at once (RFC 6928), so does every short answer, and a window that loss keeps small only
 * fills later (sim_rough, loss-1-late-10, 24 seeds: 7.67 Mbit/s with ten, 8.07 with 24, 8.10 unpaced). */
#include "core/stack_int.h"

#define QUANTUM MP_MS(1)
#define SHORT_RTT MP_MS(4)
enum { FREE_SEGMENTS = 24 };

/* Bytes a second; 0: not paced. */
static double pace_rate(const struct sf *s)
{
    if (!s->st->set.pacing || s->v.srtt < SHORT_RTT || s->v.in_recovery) return 0;
    double gain = s->v.cc.cwnd < s->v.cc.ssthresh ? 2 : 1.2;
    return gain * (double)mp_max(sf_cwnd(s), s->v.pipe) * 1e9 / (double)s->v.srtt;
}

/* May s send now? If not, it is woken when it may; being asked before that changes nothing. */
bool pace_allows(struct sf *s, mp_time now)
{
    if (s->v.pipe < FREE_SEGMENTS * s->v.mss) return true;
    if (s->v.timer[SFT_PACE] != MP_NEVER) return false;
    if (s->v.pace_next <= now + QUANTUM) return true;
    sf_arm(s, SFT_PACE, s->v.pace_next);
    return false;
}

/* A slice is a quantum's bytes at the most, and two segments at the least. */
uint32_t pace_slice(const struct sf *s, uint32_t most)
{
    double r = pace_rate(s) * (double)QUANTUM / 1e9;
    return r > 0 ? (uint32_t)mp_min(most, mp_max((uint64_t)r, 2 * s->v.mss)) : most;
}

/* A timer may come a quantum late: that much is made up for. */
void pace_sent(struct sf *s, uint32_t len, mp_time now)
{
    double r = pace_rate(s);
    s->v.pace_next = r > 0 ? mp_max(s->v.pace_next, now - QUANTUM) + (mp_dur)((double)len * 1e9 / r) : 0;
}
