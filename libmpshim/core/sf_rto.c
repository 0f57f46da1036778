/* No ACK arrives: the tail loss probe (RFC 8985 7), the retransmission time-out (RFC 6298), and when it is given up. */
#include "core/stack_int.h"

#include <errno.h>

static mp_dur probe_timeout(const struct sf *s)
{
    mp_dur pto = 2 * s->v.srtt; /* RFC 8985 7.2 */
    /* One segment in flight: the peer may be delaying its ACK (Linux: 40 ms at the least, 200 at the most). */
    if (s->v.pipe <= s->v.mss) pto += MP_MS(conn_any_other(s->c, s) ? 40 : 200);
    else pto += MP_MS(2);
    return mp_min(pto, sf_rto_now(s));
}

void sf_arm_rexmit(struct sf *s, mp_time now)
{
    if (!s->seg_head || s->v.dead) {
        sf_arm(s, SFT_REXMIT, MP_NEVER);
        sf_arm(s, SFT_PROBE, MP_NEVER);
        sf_arm(s, SFT_STALL, MP_NEVER);
        return;
    }
    sf_arm(s, SFT_REXMIT, now + sf_rto_now(s));
    /* RFC 8985 7.2: one probe, until all that was sent before it is acknowledged. A SACK of the probe alone is no reason
     * for another one: each would bring one more segment from the tail, and the time-out never. */
    bool probed = s->v.probe_out || s->v.snd_una < s->v.probe_end;
    bool probe = s->v.srtt && s->v.state >= SF_ESTABLISHED && !s->v.in_recovery && !s->v.in_rto && !probed && !s->v.backoff;
    sf_arm(s, SFT_PROBE, probe ? now + probe_timeout(s) : MP_NEVER);
}

/* ---- time-outs ---- */

/* RFC 8985 7.3: the last segment again draws a SACK that shows what is missing; meanwhile the other paths get ready. */
void sf_on_probe_timer(struct sf *s, mp_time now)
{
    struct sf_seg *g = s->seg_tail;
    while (g && (g->sacked || g->lost)) g = g->prev;
    if (!g || s->v.probe_out) return;
    if (g->len > s->v.mss) {
        struct sf_seg *b = sf_seg_split(s, g, g->end - s->v.mss - g->fin);
        if (b) g = b;
    }
    st_count(s->st, MP_E_tlp, 1, s->c);
    ecn_missed(s);
    s->v.probe_out = true;
    s->v.probe_end = s->v.snd_nxt;
    s->v.probe_ts = sf_ts(s, now);
    s->v.probed_ts = sf_ts(s, g->sent);
    s->v.probe_needless = false;
    g->probed = true;
    sf_arm(s, SFT_REXMIT, now + sf_rto_now(s));
    overdue_probe(s, now);
}

/* Data waits, and no path has heard of the peer for as long as any time-out lasts: an idle subflow is no proof of life. */
static bool all_silent(const struct mpc *c, mp_time now)
{
    mp_time heard = 0;
    for (const struct sf *s = c->sfs; s; s = s->next) heard = mp_max(heard, s->v.last_recv);
    return c->v.snd_una < c->v.snd_end && now - heard > MP_SEC(15) * c->st->set.data_tries;
}

enum { KNOCKS = 120 }; /* SYNs over a path that fell silent: a minute */
static bool give_up(struct sf *s, mp_time now)
{
    struct mpc *c = s->c;
    if (s->v.state == SF_SYN_SENT || s->v.state == SF_SYN_RCVD) {
        if (race_is_lost(s)) {
            sf_die(s, ECONNREFUSED, now);
            return true;
        }
        if (++s->v.syn_tries <= (int)(s->v.silent ? KNOCKS : s->st->set.syn_tries)) return false;
        st_count(s->st, MP_E_syn_timeout, 1, c);
        sf_die(s, ETIMEDOUT, now);
        return true;
    }
    uint64_t limit = c->v.user_timeout_ms ? MP_MS(c->v.user_timeout_ms) : 0;
    bool many = s->v.backoff - s->v.reverts > (int)s->st->set.data_tries;
    many |= s->v.reverts && now - s->v.last_progress > MP_SEC(60) * s->st->set.data_tries; /* as long as if each had doubled the wait */
    /* Probed twice a second, because others stood in for it or its link was gone: the number of tries says nothing. */
    if (s->v.stale && now - s->v.last_progress <= MP_SEC(15) * s->st->set.data_tries) many = false;
    if (!many && !(limit && now - s->v.last_progress > limit)) return false;
    if (s->v.stale && conn_any_other(c, s) && !all_silent(c, now)) return false; /* a cheap probe of a path that others stand in for */
    st_count(s->st, MP_E_subflow_timeout, 1, c);
    sf_die(s, ETIMEDOUT, now);
    return true;
}

void sf_on_rto(struct sf *s, mp_time now)
{
    if (!s->seg_head || give_up(s, now)) return;
    st_count(s->st, MP_E_rto, 1, s->c);
    if (!s->v.backoff++) s->v.reverts = 0;
    if (s->v.backoff == 1) ecn_missed(s);
    ecn_reduced(s);
    pmtu_timeout(s);
    rescue_timeout(s, now);
    bool was_recovering = s->v.in_recovery || s->v.in_rto;
    s->v.in_recovery = s->v.cc.in_recovery = s->v.by_dup_acks = false;
    s->v.dup_acks = 0;
    uint64_t flight = s->v.snd_nxt - s->v.snd_una; /* what was lost before counts: it was sent too */
    if (s->seg_head->sacked) { /* RFC 2018 8: told to be there, and not acknowledged in all this time: given up again */
        for (struct sf_seg *g = s->seg_head; g; g = g->next) g->sacked = false;
        s->v.sacked_bytes = 0;
    }
    for (struct sf_seg *g = s->seg_head; g; g = g->next)
        if (!g->sacked && !g->lost) sf_mark_lost(s, g);
    s->v.pipe = 0;
    if (s->v.state >= SF_ESTABLISHED) {
        if (s->v.backoff > 1) /* RFC 5681 3.1: the same segment again: ssthresh stays */
            s->v.cc.cwnd = s->v.mss;
        else {
            struct mp_cc_group grp = conn_cc_group(s->c, s);
            s->c->cc->on_rto(&grp, flight, now);
        }
        s->v.in_rto = true;
        if (s->v.backoff == 1) sf_undo_begin(s);
        s->v.frto = s->v.backoff == 1 && !was_recovering && !s->v.ts_on ? SF_FRTO_HEAD : SF_FRTO_OFF;
        s->v.recovery_point = s->v.snd_nxt;
        s->v.rack_xmit = 0;
        if (!s->v.stale && conn_any_other(s->c, s)) overdue_hand_over(s, now);
    }
    s->v.probe_out = false;
    s->v.probe_end = 0;
    sf_arm_rexmit(s, now);
}

/* RFC 6069 3.1: a router had no way for what a time-out has repeated. So it was not lost in a full queue, and its time-out is
 * taken back: when the way is there again, the next try is not half a minute off. */
void sf_no_way(struct sf *s, mp_time now)
{
    if (s->v.state < SF_ESTABLISHED || !s->seg_head || s->v.backoff <= s->v.reverts) return;
    s->v.reverts++;
    st_count(s->st, MP_E_rto_reverted, 1, s->c);
    if (!s->seg_head->lost) sf_arm(s, SFT_REXMIT, mp_max(now, s->seg_head->sent + sf_rto_now(s)));
}
