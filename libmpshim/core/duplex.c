/* A path that is full in both directions. ACKs ride on data and wait with it in the other direction's queue, so the round trip
 * is both queues together, and each end takes the other's queue for its own: HyStart++ leaves slow start for a delay that is
 * not ours, and the window that was enough without that delay is then too small for seconds. And all that we queue is
 * delay for the peer: with deep queues the direction with the larger window halves the other's rate.
 *
 * The timestamps tell the directions apart (RFC 7323): what the peer's clock said when a segment arrived, less what ours said
 * when it left, above the least such difference of late, is the queue on the way there. While a subflow receives as well as
 * it sends, slow start goes by that queue, and ends when QUEUED segments of ours wait in it; afterwards the window grows
 * while it is empty, whatever the round trip says. Never below what congestion control alone would have: only what was given
 * here is taken back. Clocks that do not tick milliseconds are not used. The receive window's part: conn_window.c. */
#include "core/stack_int.h"

enum { LATELY_S = 10, QUEUED = 40, BULK = 8 };
#define EMPTY MP_MS(6) /* the clocks' ticks and delayed ACKs make so much of none */

/* An ACK of something new: the peer's clock, and ours of the segment that drew it. */
void duplex_sample(struct sf *s, const struct mp_opts *o, mp_time now)
{
    struct sf_duplex *d = &s->v.duplex;
    if (!s->v.ts_on || !o->has_ts || !o->ts_ecr || d->odd) return;
    if (s->v.state < SF_ESTABLISHED) return; /* the clock of a SYN cookie is set back to hold options */
    if (!d->at) {
        d->at = d->least_at = now;
        d->ts_val = o->ts_val;
        d->ts_ecr = o->ts_ecr;
    }
    int64_t here = (int64_t)((now - d->at) / 1000000), there = (int64_t)(uint32_t)(o->ts_val - d->ts_val);
    if (there > here + here / 4 + 500 || there + 500 < here - here / 4) d->odd = true;
    int32_t way = (int32_t)(o->ts_val - d->ts_val - (o->ts_ecr - d->ts_ecr));
    if (now - d->least_at > MP_SEC(LATELY_S)) {
        d->least_before = d->least;
        d->least = way;
        d->least_at = now;
    }
    if (way < d->least) d->least = way;
    if (way < d->least_before) d->least_before = way;
    d->latest = MP_MS((uint64_t)(way - (d->least < d->least_before ? d->least : d->least_before)));
    d->queue = (7 * d->queue + d->latest) / 8;
}

static bool is_bulk_both_ways(struct sf *s)
{
    struct sf_duplex *d = &s->v.duplex;
    uint64_t in = s->v.bytes_received - d->received, out = s->v.bytes_acked - d->acked;
    d->received = s->v.bytes_received;
    d->acked = s->v.bytes_acked;
    return in >= BULK * s->v.mss && in >= out / 8;
}

/* Of what this subflow has in flight, so much waits in the queue on the way there. */
static uint64_t queued(const struct sf *s)
{
    return s->v.srtt ? (uint64_t)((double)s->v.pipe * (double)s->v.duplex.queue / (double)s->v.srtt) : 0;
}

/* Before congestion control is told of an ACK. */
void duplex_before(struct sf *s, struct mp_cc_ack *a)
{
    struct sf_duplex *d = &s->v.duplex;
    if (a->round_start) d->on = is_bulk_both_ways(s) && d->at && !d->odd;
    if (!d->on) return;
    s->v.cc.last_rtt = s->v.min_rtt + d->latest;
    if (d->queue <= EMPTY || queued(s) <= QUEUED * s->v.mss) return;
    a->app_limited = true;
    if (s->v.cc.ssthresh != UINT64_MAX) return;
    s->v.cc.ssthresh = s->v.cc.cwnd; /* the end of slow start, which came a round trip too late: that doubled the window */
    d->lent = s->v.cc.cwnd / 2;
}

/* How many bytes the window should change by within a round trip, to keep QUEUED segments in the queue. */
static double wanted(const struct sf *s)
{
    double lack = (double)QUEUED * s->v.mss - (double)queued(s);
    if (s->v.duplex.queue <= EMPTY) return lack + (double)s->v.cc.cwnd / 16;
    return lack > 0 ? lack : lack / 2;
}

/* And after. Slow start ended, and the queue is empty all the same: on. What that was too much, for it is seen a round trip
 * later, is given back. After a loss nothing is lent for a full queue any more, but half a window may not be enough for the
 * peer's queue alone: while ours is empty, two round trips later, it still grows. */
void duplex_after(struct sf *s, const struct mp_cc_ack *a)
{
    struct sf_duplex *d = &s->v.duplex;
    bool lost = d->lost_at && a->now - d->lost_at < MP_SEC(LATELY_S);
    if (!d->on || s->v.cc.cwnd < s->v.cc.ssthresh || (lost && a->now - d->lost_at < 2 * s->v.srtt)) {
        d->lent = 0;
        return;
    }
    if (lost && d->queue > EMPTY) return;
    double change = wanted(s) * (double)a->acked / (double)s->v.cc.cwnd;
    if (change > 0 && a->app_limited) return;
    if (-change > (double)d->lent) change = -(double)d->lent;
    d->lent = (uint64_t)((double)d->lent + change);
    s->v.cc.cwnd = (uint64_t)((double)s->v.cc.cwnd + change);
    if (change < 0) s->v.cc.ssthresh = mp_min(s->v.cc.ssthresh, s->v.cc.cwnd); /* not into slow start again */
}

void duplex_lost(struct sf *s, mp_time now) { s->v.duplex.lost_at = now; }

bool duplex_any(const struct mpc *c)
{
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (s->v.duplex.on && sf_can_carry(s)) return true;
    return false;
}
