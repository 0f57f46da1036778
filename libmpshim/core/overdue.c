/* A path whose ACKs are overdue: what it holds is wanted elsewhere, sooner than its time-out. Here nothing but the order of
 * sending changes: the congestion window stays, and what has not gone out elsewhere stays here when the path speaks again.
 * The path is stale until then: it is given nothing new, and probed by its own retransmissions. */
#include "core/stack_int.h"

/* The peer waits for s: the oldest byte that it does not have. */
static bool holds_stream(const struct sf *s)
{
    const struct sf_seg *g = s->seg_head;
    while (g && (g->sacked || !g->len || g->dsn + g->len <= s->c->v.snd_una)) g = g->next;
    return g && g->dsn <= s->c->v.snd_una;
}

static mp_dur variation(const struct sf *s, mp_dur least)
{
    if (s->v.duplex.on) least = mp_max(least, s->v.srtt); /* its ACKs wait in the peer's queue too */
    return mp_max(4 * s->v.rttvar, least);
}

/* The time-out of RFC 6298 counted from the segment's sending (RFC 7765), without its floor, which guards the congestion
 * window. While the peer waits for this path and nothing else, a few milliseconds' variation are enough; half a round trip
 * more, for a queue that is filling makes a path late by its own length. Two segments or fewer may wait for a delayed ACK
 * (Linux: 40 ms at the least): they have the tail loss probe, and one more round trip. */
static mp_time overdue_at(const struct sf *s)
{
    bool few = s->v.pipe <= 2 * s->v.mss;
    mp_time due = s->seg_head->sent + s->v.srtt, at = s->v.probe_out ? s->v.probe_due : MP_NEVER;
    if (!few) at = mp_min(at, mp_max(due, s->v.last_progress) + variation(s, MP_MS(50)));
    if (!holds_stream(s)) return at;
    due += variation(s, MP_MS(5)) + s->v.srtt / 2 + (few ? MP_MS(40) : 0);
    return mp_min(at, mp_max(due, s->c->v.last_data_ack + MP_MS(20) + s->v.srtt / 2));
}

/* To be looked at when that may be, at the soonest: what the peer waits for may be another matter by then. */
void overdue_arm(struct sf *s, mp_time now)
{
    if (!s->seg_head || s->v.stale || !conn_any_other(s->c, s)) return;
    mp_time due = s->seg_head->sent + s->v.srtt + variation(s, MP_MS(5)), stood = s->c->v.last_data_ack + MP_MS(20);
    sf_arm(s, SFT_STALL, mp_max(mp_max(due, stood) + s->v.srtt / 2, now + MP_MS(1)));
}

void overdue_probe(struct sf *s, mp_time now)
{
    s->v.probe_due = now + s->v.srtt + mp_max(4 * s->v.rttvar, MP_MS(10));
    if (conn_any_other(s->c, s)) sf_arm(s, SFT_STALL, mp_min(s->v.timer[SFT_STALL], s->v.probe_due));
}

/* SFT_STALL */
void overdue_tick(struct sf *s, mp_time now)
{
    if (!s->seg_head || s->v.stale || !conn_any_other(s->c, s)) return;
    mp_time at = overdue_at(s);
    if (at <= now)
        overdue_hand_over(s, now);
    else
        sf_arm(s, SFT_STALL, at);
}

void overdue_hand_over(struct sf *s, mp_time now)
{
    s->v.stale = true;
    st_count(s->st, MP_E_subflow_stale, 1, s->c);
    conn_reinject(s->c, s, now);
}

/* s makes progress again. What another holds whose time-out has passed, when nobody could stand in for it, need not wait
 * for the next one: doubled a few times that is seconds away, and its path may be back as well. */
void overdue_over(struct sf *s, mp_time now)
{
    sf_arm(s, SFT_STALL, MP_NEVER);
    if (!s->v.stale) return;
    s->v.stale = false;
    conn_reinject_cancel(s->c, s->v.id);
    st_count(s->st, MP_E_subflow_unstale, 1, s->c);
    for (struct sf *o = s->c->sfs; o; o = o->next) {
        if (o == s || o->v.stale || !o->v.backoff || !o->seg_head || !sf_can_carry(o)) continue;
        overdue_hand_over(o, now);
        sf_arm_rexmit(o, now);
    }
}
