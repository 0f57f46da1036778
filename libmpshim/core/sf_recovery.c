/* Recovery from loss: how much may be sent in it (PRR, RFC 9937), how much reordering is borne before (RFC 8985 6.2),
 * and how one that was needless is found out: by timestamps (Eifel, RFC 3522), by D-SACK (RFC 2883, RFC 3708), because
 * nothing was sent again, and after a time-out without timestamps by F-RTO (RFC 5682). */
#include "core/stack_int.h"

enum { REO_WND_PERSIST = 16 }; /* recoveries, RFC 8985 6.2 */

/* ---- proportional rate reduction, RFC 9937 6 ---- */

uint64_t sf_cwnd(const struct sf *s) { return s->v.in_recovery ? s->v.prr_cwnd : s->v.cc.cwnd + duplex_credit(s); }

static uint64_t minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

void sf_prr(struct sf *s, uint64_t delivered, bool safe)
{
    uint64_t aim = s->v.cc.ssthresh + mp_min(s->v.prr_credit, duplex_credit(s)), may;
    s->v.prr_delivered += delivered;
    if (s->v.pipe > aim) /* rounded up */
        may = minus((uint64_t)((double)s->v.prr_delivered * (double)aim / (double)mp_max(s->v.prr_flight, 1)) + 1, s->v.prr_out);
    else { /* conservative bound; one segment more while the recovery makes progress without new loss */
        may = mp_max(minus(s->v.prr_delivered, s->v.prr_out), delivered) + (safe ? s->v.mss : 0);
        may = mp_min(may, aim - s->v.pipe);
    }
    if (!s->v.prr_out) may = mp_max(may, s->v.mss); /* the first retransmission waits for nothing */
    s->v.prr_cwnd = s->v.pipe + may;
}

/* ---- entering and leaving ---- */

/* The congestion control sees the window after the reduction at once, as coupled siblings should (RFC 6356 3); only
 * sending comes down to it by and by. */
void sf_enter_recovery(struct sf *s, uint64_t delivered, mp_time now)
{
    if (s->v.in_recovery || s->v.in_rto) return;
    s->v.in_recovery = true;
    s->v.cc.in_recovery = true;
    s->v.recovery_point = s->v.snd_nxt;
    sf_undo_begin(s);
    st_count(s->st, MP_E_recovery, 1, s->c);
    struct mp_cc_group g = conn_cc_group(s->c, s);
    s->c->cc->on_loss(&g, now);
    ecn_missed(s);
    ecn_reduced(s);
    s->v.probe_out = false;
    s->v.probe_end = 0;
    s->v.prr_delivered = s->v.prr_out = 0;
    s->v.prr_credit = duplex_credit(s); /* less arrives in a recovery: its rate would be too much */
    /* RecoverFS: what was not delivered before this ACK */
    s->v.prr_flight = minus(s->v.snd_nxt - s->v.snd_una, s->v.sacked_bytes) + delivered;
    sf_prr(s, 0, false);
}

static void end_recovery(struct sf *s)
{
    s->v.in_recovery = s->v.in_rto = s->v.cc.in_recovery = s->v.by_dup_acks = false;
    s->v.rexmit_ts = 0;
    s->v.frto = SF_FRTO_OFF;
}

bool sf_leave_recovery(struct sf *s)
{
    if (!(s->v.in_recovery || s->v.in_rto) || s->v.snd_una < s->v.recovery_point) return false;
    end_recovery(s);
    if (s->v.reo_wnd_persist && !--s->v.reo_wnd_persist) s->v.reo_wnd_mult = 0;
    return true;
}

/* ---- reordering window ---- */

mp_dur sf_reorder_window(const struct sf *s)
{
    /* RFC 8985 6.2: none while no reordering was seen and duplicate ACKs speak clearly. */
    if (!s->v.reordering_seen && (s->v.in_recovery || s->v.in_rto || s->v.sacked_bytes >= 3ull * s->v.mss)) return 0;
    return mp_min((1 + s->v.reo_wnd_mult) * (s->v.min_rtt / 4), s->v.srtt);
}

/* Once a round trip; kept for REO_WND_PERSIST recoveries without another. */
static void widen_reorder_window(struct sf *s)
{
    s->v.reo_wnd_persist = REO_WND_PERSIST;
    if (s->v.dsack_round > s->v.snd_una) return;
    s->v.dsack_round = s->v.snd_nxt;
    if (s->v.reo_wnd_mult < 255) s->v.reo_wnd_mult++;
}

/* ---- D-SACK ---- */

/* RFC 2883 4: the first block is below the ACK, or within the second. */
static bool is_dsack(const struct sf *s, mp_ssn ack, const struct mp_opts *o, mp_ssn *l, mp_ssn *r)
{
    if (!o->nsack) return false;
    *l = mp_expand32(s->v.snd_una, o->sack[0].left - s->v.iss);
    *r = mp_expand32(s->v.snd_una, o->sack[0].right - s->v.iss);
    if (*l >= *r || *r > s->v.snd_nxt) return false;
    if (*r <= ack) return true;
    if (o->nsack < 2) return false;
    return *l >= mp_expand32(s->v.snd_una, o->sack[1].left - s->v.iss) && *r <= mp_expand32(s->v.snd_una, o->sack[1].right - s->v.iss);
}

bool sf_dsack_in(struct sf *s, mp_ssn ack, const struct mp_opts *o)
{
    mp_ssn l, r;
    if (!s->v.sack_on || !is_dsack(s, ack, o, &l, &r)) return false;
    st_count(s->st, MP_E_dsack_in, 1, s->c);
    s->v.dsack_bytes += r - l;
    if (s->v.dsack_bytes > s->v.bytes_retrans) return true; /* the network's duplicates, not ours: RFC 3708 2 */
    if (s->v.probe_end) return true; /* the probe was one too many, which says nothing about reordering */
    widen_reorder_window(s);
    s->v.reordering_seen = true;
    if (s->v.undo_on && l >= s->v.undo_from && r <= s->v.recovery_point) s->v.undo_bytes = minus(s->v.undo_bytes, r - l);
    return true;
}

/* ---- needless recoveries ---- */

void sf_undo_begin(struct sf *s)
{
    s->v.undo_on = true;
    s->v.undo_from = s->v.snd_una;
    s->v.undo_sent = s->v.undo_bytes = 0;
    s->v.rexmit_ts = 0;
}

/* In a recovery: counts what is sent again, and when that began. */
void sf_sent_in_recovery(struct sf *s, const struct sf_seg *g, bool again, mp_time now)
{
    if (s->v.in_recovery) s->v.prr_out += g->end - g->start;
    if (!again || !(s->v.in_recovery || s->v.in_rto)) return;
    s->v.undo_sent += g->end - g->start;
    s->v.undo_bytes += g->end - g->start;
    if (s->v.rexmit_ts) return;
    s->v.rexmit_ts = sf_ts(s, now);
    s->v.rexmit_ssn = g->start;
}

/* The recovery ends; its reduction is taken back too, unless marks asked for one meanwhile (sf_ecn.c). */
static void undo(struct sf *s, mp_time now)
{
    bool take_back = s->v.undo_on && s->c->cc->on_undo;
    st_count(s->st, MP_E_spurious, 1, s->c);
    for (struct sf_seg *g = s->seg_head; g && (s->v.in_recovery || s->v.in_rto); g = g->next)
        if (g->lost && !g->sacked) {
            g->lost = false;
            s->v.pipe += g->end - g->start;
        }
    end_recovery(s);
    s->v.undo_on = false;
    s->v.reordering_seen = true;
    struct mp_cc_group g = conn_cc_group(s->c, s);
    if (take_back) s->c->cc->on_undo(&g, now);
}

/* RFC 3522: the ACK was drawn by the original, sent before our first retransmission: not lost, only late. An echo that is
 * older than the original says nothing: a box takes timestamps out, and the peer repeats the last that it saw. */
static bool eifel(const struct sf *s, const struct mp_opts *o)
{
    if ((int32_t)(o->ts_ecr - s->v.original_ts) < 0) return false;
    return s->v.rexmit_ts && s->v.ts_on && o->has_ts && s->v.snd_una > s->v.rexmit_ssn && (int32_t)(o->ts_ecr - s->v.rexmit_ts) < 0;
}

/* All that was sent again had arrived before. The reports may come when the recovery is over. */
static bool all_duplicates(const struct sf *s) { return s->v.undo_on && s->v.undo_sent && !s->v.undo_bytes; }

/* Nothing was sent again, and all has arrived that was on its way when the recovery began: an ACK told of a gap, and before
 * anything could be sent another one, read with it, of the late segments. */
static bool sent_nothing_again(const struct sf *s)
{
    return s->v.in_recovery && !s->v.undo_sent && s->v.snd_una >= s->v.recovery_point;
}

/* RFC 5682 3.1: after a time-out the head is sent again, then new data; if the ACKs go on past what was not sent again,
 * they are the originals'. */
static bool frto(struct sf *s, bool advanced, bool original)
{
    if (!s->v.frto) return false;
    if (original) return true;
    if (s->v.frto == SF_FRTO_NEW || !advanced || conn_any_other(s->c, s) || !conn_queued(s->c) || s->v.snd_una + s->v.snd_wnd < s->v.snd_nxt + 2 * s->v.mss)
        s->v.frto = SF_FRTO_OFF;
    else
        s->v.frto = SF_FRTO_NEW;
    return false;
}

void sf_undo_check(struct sf *s, const struct mp_opts *o, bool advanced, bool original, mp_time now)
{
    bool recovering = s->v.in_recovery || s->v.in_rto;
    if ((recovering && advanced && eifel(s, o)) || all_duplicates(s) || sent_nothing_again(s) || (s->v.in_rto && frto(s, advanced, original)))
        undo(s, now);
}

/* RFC 8985 7.4.2: all is acknowledged that was sent until the probe, and no D-SACK says that the probe was one too many:
 * it mended a loss, which is one for the congestion control too. Nor does an echo from between the original and the
 * probe (RFC 3522 3.2): where the round trip jumps, the D-SACK may be later than what is sent next. */
void sf_probe_acked(struct sf *s, mp_ssn ack, bool dsack, uint32_t echo, mp_time now)
{
    if (!s->v.probe_end || ack < s->v.probe_end) return;
    bool original = echo && (int32_t)(echo - s->v.probe_ts) < 0 && (int32_t)(echo - s->v.probed_ts) >= 0;
    s->v.probe_needless |= dsack || original;
    if (!dsack && ack == s->v.probe_end) return; /* the D-SACK may be still to come */
    s->v.probe_end = 0;
    if (s->v.probe_needless || s->v.in_recovery || s->v.in_rto || !s->v.sack_on) return;
    st_count(s->st, MP_E_tlp_loss, 1, s->c);
    struct mp_cc_group g = conn_cc_group(s->c, s);
    s->c->cc->on_loss(&g, now);
    ecn_reduced(s);
}
