/* A path that is full in both directions. ACKs ride on data and wait with it in the other direction's queue, so the round trip
 * is both queues together, and each end takes the other's queue for its own: HyStart++ leaves slow start for a delay that is
 * not ours, and a window that is less than both queues hold leaves ours empty, while the direction with the larger one has the
 * rate. Nor may windows be steered by the round trip: both would follow the difference of the queues, which follows the
 * difference of the windows, and they swing.
 *
 * The timestamps tell the directions apart (RFC 7323): what the peer's clock said when a segment arrived, less what ours said
 * when it left, above the least such difference of late, is the queue on the way there; what ours says when an ACK arrives,
 * less what the peer's said when it left, the queue on the way back. While a subflow receives as well as it sends, slow start
 * goes by the former, and ends when QUEUED segments of ours wait there. And by the latter it is known what the peer has
 * although it counts as in flight: what arrived there within that time. It comes on top of the congestion window, which so
 * has to fill our own queue only, and does what it would do if nothing came the other way; but while our queue is empty, nobody
 * waits for us, and it grows on. Clocks that do not tick milliseconds are not used. The receive window's part: conn_window.c. */
#include "core/stack_int.h"

enum { LATELY_S = 10, QUEUED = 40, BULK = 8, EMPTY_GROWTH = 16 };
#define EMPTY MP_MS(6) /* the clocks' ticks and delayed ACKs make so much of none */

static void way_sample(struct sf_way *w, int32_t took, mp_time now)
{
    if (now - w->least_at > MP_SEC(LATELY_S)) {
        w->least_before = w->least;
        w->least = took;
        w->least_at = now;
    }
    if (took < w->least) w->least = took;
    if (took < w->least_before) w->least_before = took;
    int32_t least = w->least < w->least_before ? w->least : w->least_before;
    w->queue = MP_MS((uint32_t)took - (uint32_t)least); /* a peer may say anything: not within an int32_t */
}

/* What the round trip took above the least of all, and did not take on the way there. A clock of the peer that stood still (a
 * suspended machine) shows as a longer way back, but the round trip knows nothing of it. */
static mp_dur back_at_most(const struct sf *s, const struct mp_opts *o, mp_time now)
{
    int32_t ms = (int32_t)(sf_ts(s, now) - o->ts_ecr);
    mp_dur rtt = ms > 0 ? MP_MS((uint64_t)ms) : 0, elsewhere = s->v.min_rtt + s->v.duplex.there.queue;
    return rtt > elsewhere ? rtt - elsewhere : 0;
}

/* An ACK of something new: the peer's clock, and ours of the segment that drew it. */
void duplex_sample(struct sf *s, const struct mp_opts *o, mp_time now)
{
    struct sf_duplex *d = &s->v.duplex;
    if (!s->v.ts_on || !o->has_ts || !o->ts_ecr || d->odd) return;
    if (s->v.state < SF_ESTABLISHED) return; /* the clock of a SYN cookie is set back to hold options */
    if (!d->at) {
        d->at = d->there.least_at = d->back.least_at = now;
        d->ts_val = o->ts_val;
        d->ts_ecr = o->ts_ecr;
    }
    int64_t here = (int64_t)((now - d->at) / 1000000), there = (int64_t)(uint32_t)(o->ts_val - d->ts_val);
    if (there > here + here / 4 + 500 || there + 500 < here - here / 4) {
        d->odd = true;
        d->on = false;
        return;
    }
    d->peer_ms = (uint32_t)there;
    way_sample(&d->there, (int32_t)(d->peer_ms - (o->ts_ecr - d->ts_ecr)), now);
    way_sample(&d->back, (int32_t)((uint32_t)here - d->peer_ms), now);
    d->back.queue = s->seg_head ? mp_min(d->back.queue, back_at_most(s, o, now)) : 0; /* none in flight: all ACKs are here */
    d->queue = (7 * d->queue + d->there.queue) / 8;
}

static bool is_bulk_both_ways(struct sf *s)
{
    struct sf_duplex *d = &s->v.duplex;
    uint64_t in = s->v.bytes_received - d->received, out = s->v.bytes_acked - d->acked;
    d->received = s->v.bytes_received;
    d->acked = s->v.bytes_acked;
    return in >= BULK * s->v.mss && in >= out / 8;
}

/* A round trip's, by the peer's clock: ACKs that come in bunches while the queue on the way back drains make it no faster. What
 * a round trip delivers is what was in flight when it began, so one alone would make every other window small for ever. */
static void note_rate(struct sf *s)
{
    struct sf_duplex *d = &s->v.duplex;
    int32_t took = (int32_t)(d->peer_ms - d->rate_ms);
    if (took <= 0) return;
    uint64_t rate = (s->v.delivered - d->rate_mark) / (uint32_t)took;
    d->rate = mp_max(rate, d->rate_last);
    d->rate_last = rate;
    d->rate_ms = d->peer_ms;
    d->rate_mark = s->v.delivered;
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
    if (a->round_start) {
        d->on = is_bulk_both_ways(s) && d->at && !d->odd;
        note_rate(s);
    }
    if (!d->on) return;
    s->v.cc.last_rtt = s->v.min_rtt + d->there.queue;
    if (d->queue <= EMPTY && s->v.cc.cwnd >= s->v.cc.ssthresh && !a->app_limited) s->v.cc.cwnd += a->acked / EMPTY_GROWTH;
    if (s->v.cc.ssthresh != UINT64_MAX || d->queue <= EMPTY || queued(s) <= QUEUED * s->v.mss) return;
    s->v.cc.ssthresh = s->v.cc.cwnd = s->v.cc.cwnd / 2; /* seen a round trip late: that has doubled the window */
}

/* No more than a round trip delivers by our clock: timestamps made up for it gain what slow start gains, and a path that is full
 * delivers no more. */
uint64_t duplex_credit(const struct sf *s)
{
    const struct sf_duplex *d = &s->v.duplex;
    if (!d->on || s->v.in_rto) return 0;
    return mp_min(d->rate * (d->back.queue / MP_MS(1)), (uint64_t)((double)s->v.rate * (double)s->v.srtt / 1e9));
}

bool duplex_any(const struct mpc *c)
{
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (s->v.duplex.on && sf_can_carry(s)) return true;
    return false;
}
