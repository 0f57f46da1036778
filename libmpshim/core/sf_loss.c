/* An ACK arrives: what it says is there and what is lost (SACK, RFC 2018; RACK, RFC 8985; NewReno, RFC 6582), the round trip and
 * rate that it measures. The scoreboard: sf_board.c. Time-outs: sf_rto.c. */
#include "core/stack_int.h"

/* ---- loss ---- */

/* True: something was found lost. delivered: what the ACK at hand brought, for PRR. */
static bool detect_loss(struct sf *s, uint64_t delivered, mp_time now)
{
    mp_dur wnd = sf_reorder_window(s);
    mp_time wait = 0;
    bool lost = false;
    for (struct sf_seg *g = s->seg_head; g; g = g->next) {
        if (g->sacked || g->lost) continue;
        if (g->sent > s->v.rack_xmit || (g->sent == s->v.rack_xmit && g->end >= s->v.rack_end)) continue;
        mp_time at = g->sent + s->v.rack_rtt + wnd;
        if (at <= now) {
            lost |= !g->mtu_probe;
            sf_mark_lost(s, g);
        } else if (at > wait)
            wait = at;
    }
    sf_arm(s, SFT_REORDER, wait ? wait : MP_NEVER);
    if (lost) sf_enter_recovery(s, delivered, now);
    return lost;
}

/* RFC 6582 3.2, for who gets no SACK: the third duplicate ACK tells that the oldest segment is lost, and in the recovery that
 * follows an ACK of a part tells the same of the next. Without this each loss costs a time-out (a stream behind a box that
 * takes SACK-permitted out got no further than 5 KB a second: simulation seed 15784). */
static bool newreno(struct sf *s, bool advanced, mp_time now)
{
    struct sf_seg *g = s->seg_head;
    bool first = s->v.dup_acks == 3 && !s->v.in_recovery && !s->v.in_rto;
    bool next = advanced && s->v.in_recovery && s->v.by_dup_acks;
    if (!g || g->lost || g->sacked || !(first || next)) return false;
    if (next && g->sent_count > 1 && now - g->sent < s->v.srtt) return false; /* on its way again */
    sf_mark_lost(s, g);
    sf_enter_recovery(s, 0, now);
    s->v.by_dup_acks = true;
    return true;
}

void sf_on_reorder_timer(struct sf *s, mp_time now)
{
    if (detect_loss(s, 0, now)) sf_prr(s, 0, false);
}

/* ---- ACKs ---- */

struct ack_facts {
    uint64_t delivered; /* bytes newly acknowledged or sacked */
    mp_dur rtt;         /* of a segment sent once; 0: none */
    mp_time latest;     /* when the one that was sent last was sent; 0: none */
    mp_time first;      /* when that one was sent the first time */
    bool again;         /* that one was sent more than once */
    uint32_t echo;      /* our timestamp that the peer repeats; 0: none */
    mp_ssn fack;        /* as it was before */
    bool original;      /* something that the time-out called lost was delivered without having been sent again */
};

/* RFC 8985 6.2, RFC 7323 4.1: the peer has seen what was sent then, or something later. */
static bool echoed(const struct sf *s, const struct ack_facts *f, mp_time sent) { return f->echo && (int32_t)(f->echo - sf_ts(s, sent)) >= 0; }

static void rack_update(struct sf *s, const struct sf_seg *g, struct ack_facts *f, mp_time now)
{
    mp_dur rtt = now - g->sent;
    if (g->sent_count > 1 && !echoed(s, f, g->sent) && s->v.min_rtt && rtt < s->v.min_rtt) return; /* likely the original's ACK */
    if (g->sent > s->v.rack_xmit || (g->sent == s->v.rack_xmit && g->end > s->v.rack_end)) {
        s->v.rack_xmit = g->sent;
        s->v.rack_end = g->end;
        s->v.rack_rtt = rtt;
    }
    if (g->sent_count == 1 && g->end < f->fack) s->v.reordering_seen = true;
    if (g->end > s->v.fack) s->v.fack = g->end;
}

/* The first ACK of a SYN/ACK times it, used otherwise or not: the third ACK that is may have been sent again. */
void sf_time_synack(struct sf *s, mp_time now)
{
    const struct sf_seg *synack = s->seg_head;
    if (synack && synack->syn && synack->sent_count == 1) sf_rtt_sample(s, mp_max(now - synack->sent, 1)); /* Karn's rule */
}

static void seg_delivered(struct sf *s, struct sf_seg *g, struct ack_facts *f, mp_time now)
{
    if (g->sacked) return;
    f->delivered += sf_seg_bytes(g);
    if (g->lost && g->sent_count == 1) f->original = true;
    if (g->len && g->sent_count == 1) ecn_delivered(s);
    if (g->mtu_probe) pmtu_passed(s);
    g->mtu_probe = false;
    if (!g->lost) s->v.pipe -= mp_min(s->v.pipe, sf_seg_bytes(g));
    bool timed = g->syn && s->v.ack_seen;
    if (g->sent_count == 1 && !timed) f->rtt = mp_max(now - g->sent, 1); /* 0: none */
    if (g->sent > f->latest && !timed) {
        f->latest = g->sent;
        f->first = g->first;
        f->again = g->sent_count > 1;
        s->v.acked_dsn = g->dsn + g->len;
    }
    rack_update(s, g, f, now);
}

static void cumulative(struct sf *s, mp_ssn ack, struct ack_facts *f, mp_time now)
{
    while (s->seg_head && s->seg_head->start < ack) {
        struct sf_seg *g = s->seg_head;
        if (g->end > ack && !sf_seg_split(s, g, ack)) return; /* no memory: taken with a later ACK */
        seg_delivered(s, g, f, now);
        if (g->sacked) s->v.sacked_bytes -= mp_min(s->v.sacked_bytes, sf_seg_bytes(g));
        s->v.bytes_acked += g->len;
        sf_seg_drop(s, g);
    }
    if (!s->seg_head) s->v.pipe = 0; /* a SYN/ACK that was to be sent again left its byte */
}

/* What an honest peer tells ends where a segment of ours does. One that picks single bytes would have the scoreboard become as
 * long as the data in flight, and each of its ACKs walks that (CVE-2019-11478 of another TCP). */
static bool may_split(const struct sf *s) { return s->nseg < 64 + 2 * (s->v.snd_nxt - s->v.snd_una) / s->v.mss; }

static void sack_block(struct sf *s, mp_ssn left, mp_ssn right, struct ack_facts *f, mp_time now)
{
    if (left >= right || left < s->v.snd_una || right > s->v.snd_nxt) return;
    for (struct sf_seg *g = s->seg_head; g && g->start < right; g = g->next) {
        if (g->end <= left || g->sacked) continue;
        if (g->start < left) {
            if (may_split(s)) sf_seg_split(s, g, left);
            continue; /* the back part is the next one */
        }
        if (g->end > right && !(may_split(s) && sf_seg_split(s, g, right))) return;
        seg_delivered(s, g, f, now);
        g->sacked = true;
        g->lost = false;
        s->v.sacked_bytes += sf_seg_bytes(g);
    }
}

/* What was sent during the recovery that ended may be lost as well: that is a new one. */
static void resume_recovery(struct sf *s, mp_time now)
{
    for (struct sf_seg *g = s->seg_head; g; g = g->next)
        if (g->lost && !g->sacked) {
            sf_enter_recovery(s, 0, now);
            return;
        }
}

/* Time-outs count from the latest sign of life; a stale subflow that moves again is trusted again. */
static void progress(struct sf *s, mp_time now)
{
    s->v.last_progress = now;
    s->v.backoff = 0;
    s->v.syn_tries = 0;
    s->v.probe_out = false;
    pmtu_progress(s, now);
    overdue_over(s, now);
}

static void congestion(struct sf *s, const struct ack_facts *f, uint64_t flight, mp_time now)
{
    if (!f->delivered || s->v.in_recovery) return;
    struct mp_cc_ack a = { .now = now, .acked = f->delivered, .flight = flight, .app_limited = !s->v.cwnd_limited };
    if (s->v.snd_una >= s->v.round_end) {
        a.round_start = true;
        s->v.round_end = s->v.snd_nxt;
    }
    struct mp_cc_group g = conn_cc_group(s->c, s);
    duplex_before(s, &a);
    s->c->cc->on_ack(&g, &a);
    if (a.round_start) s->v.cwnd_limited = false;
}

/* A round trip's rate: no ACKs that come in a bunch make it shorter than srtt. More than before is always believed; less
 * only where the congestion window was in the way, not the data. */
static void note_rate(struct sf *s, uint64_t delivered, mp_time now)
{
    s->v.delivered += delivered;
    if (s->v.snd_una < s->v.rate_end) return;
    mp_dur took = mp_max(now - s->v.rate_at, s->v.srtt);
    if (s->v.rate_at && took) {
        uint64_t sample = (uint64_t)((double)(s->v.delivered - s->v.rate_mark) * 1e9 / (double)took);
        if (sample > s->v.rate)
            s->v.rate = sample;
        else if (s->v.cwnd_limited)
            s->v.rate -= (s->v.rate - sample) / 8;
    }
    s->v.rate_mark = s->v.delivered;
    s->v.rate_at = s->v.pipe ? now : 0;
    s->v.rate_end = s->v.snd_nxt;
}

/* A round trip is timed by the segment that drew the ACK: the latest of those that it acknowledges. One that was sent
 * before an outage and acknowledged after it would else make the outage a round trip, and the RTO a minute. */
static void time_round_trip(struct sf *s, const struct ack_facts *f, bool advanced, mp_time now)
{
    s->v.rtt_ack = f->again ? 0 : f->rtt;
    if (s->v.rtt_ack) {
        sf_rtt_sample(s, f->rtt);
        return;
    }
    uint32_t ms = sf_ts(s, now) - f->echo;
    if (!advanced || !f->latest || f->latest == now || !f->echo || ms >= 600000) return; /* RFC 7323 4.1; RFC 6298 3: Karn's rule */
    if (echoed(s, f, f->latest)) {
        sf_rtt_sample(s, now - f->latest);
        return;
    }
    /* Drawn by an earlier transmission, whose round trip was long, or by nothing of ours: the peer sent on its own and
     * repeats what it saw before an outage, or has seen none since the handshake, for a box takes ours out (simulation seed 1027056:
     * an RTO of a minute). Longer than a time-out, or from before the first one, it is no sample; the RTO is then as careful as
     * before any (RFC 6298 5.7). */
    if (ms && MP_MS(ms) <= s->v.rto && echoed(s, f, f->first)) sf_rtt_sample(s, MP_MS(ms));
    else s->v.rto = mp_max(s->v.rto, mp_min(2 * MP_MS(ms), MP_SEC(3)));
}

void sf_on_ack(struct sf *s, mp_ssn ack, const struct mp_opts *o, mp_time now)
{
    struct ack_facts f = { .fack = s->v.fack, .echo = s->v.ts_on && o->has_ts ? o->ts_ecr : 0 };
    uint64_t flight = s->v.pipe;
    bool advanced = ack > s->v.snd_una, dsack = sf_dsack_in(s, ack, o);
    s->v.acked_new = advanced;
    if (advanced) {
        cumulative(s, ack, &f, now);
        s->v.snd_una = ack;
    }
    for (int i = dsack; i < o->nsack; i++)
        sack_block(s, mp_expand32(s->v.snd_una, o->sack[i].left - s->v.iss), mp_expand32(s->v.snd_una, o->sack[i].right - s->v.iss), &f, now);
    time_round_trip(s, &f, advanced, now);
    if (advanced) duplex_sample(s, o, now);
    if (!advanced && !f.delivered && !dsack) {
        newreno(s, false, now);
        return;
    }
    if (advanced || f.delivered) progress(s, now);
    sf_undo_check(s, o, advanced, f.original, now);
    sf_probe_acked(s, ack, dsack, f.echo, now);
    bool left = sf_leave_recovery(s), lost = false;
    if (o->nsack || s->v.sacked_bytes || s->v.in_recovery) lost = detect_loss(s, f.delivered, now);
    if (left) resume_recovery(s, now);
    if (newreno(s, advanced, now)) lost = true;
    note_rate(s, f.delivered, now);
    if (s->v.in_recovery) sf_prr(s, f.delivered, advanced && !lost);
    congestion(s, &f, flight, now);
    overdue_arm(s, now);
    /* RFC 6298 5.3. A SACK counts only if it tells of what was sent before the oldest segment was (again): the time-out of
     * that one would else be put off for as long as anything else arrives. */
    if (advanced || (f.delivered && s->seg_head && f.latest < s->seg_head->sent)) sf_arm_rexmit(s, now);
    if (advanced && s->c->v.tx_plain) conn_plain_ack(s->c, s, now);
}
