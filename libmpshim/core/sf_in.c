/* A segment arrives at a subflow: RFC 9293 3.10.7, and 3.10.7.4 in its order of checks. */
#include "core/sf_in.h"

#include <errno.h>

/* RFC 5961: an ACK that makes an honest peer resynchronise and tells an attacker nothing. Nor does its limit, since subflows have
 * nothing in common there: a limit of the whole host could be used up, and what is left of it counted on a connection of one's
 * own (CVE-2016-5696). */
void in_challenge(struct sf *s)
{
    if (s->v.challenged_at && s->st->now - s->v.challenged_at < SF_CHALLENGE_EVERY) return;
    s->v.challenged_at = s->st->now;
    st_count(s->st, MP_E_challenge_ack, 1, s->c);
    s->v.ack_now = true;
}

/* A segment that does not fit is answered; one without data seldom, or two ends whose numbers have come apart (a box
 * that began to rewrite them) would answer each other's answers for ever (RFC 5961 7). */
void in_answer_misfit(struct sf *s, uint32_t seglen, mp_time now)
{
    if (!seglen && s->v.misfit_at && now - s->v.misfit_at < SF_CHALLENGE_EVERY) return;
    if (!seglen) s->v.misfit_at = now;
    s->v.ack_now = true;
}

/* RFC 7323 5 guards against segments of 2^32 bytes before. Its test by TS.Recent also refuses those that a retransmission
 * overtook: held back on the way, behind a hole, with an older timestamp than what filled the hole. Each would be lost, and its
 * retransmission lets the next ones die (5 % late by 10 ms: one loss is followed by a row of them). What is new and not older
 * than TS.Recent was an eighth of a round of sequence numbers ago cannot be of the round before. */
static bool is_only_late(const struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn)
{
    return p->data.len && ssn + p->data.len > s->v.rcv_nxt && (int32_t)(o->ts_val - s->v.ts_old) >= 0;
}

static void note_timestamp(struct sf *s, uint32_t ts, mp_time now)
{
    enum { STEP = 1 << 28 }; /* bytes */
    if (s->v.rcv_nxt - s->v.ts_mark_at >= STEP) { /* ts_old: from between one and two steps ago */
        s->v.ts_old = s->v.ts_mark;
        s->v.ts_mark = s->v.ts_recent;
        s->v.ts_mark_at = s->v.rcv_nxt;
    }
    s->v.ts_recent = ts;
    s->v.ts_recent_at = now;
}

static bool paws_ok(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now)
{
    if (!s->v.ts_on || !o->has_ts || (p->flags & MP_RST)) return true;
    if ((int32_t)(o->ts_val - s->v.ts_recent) >= 0 || is_only_late(s, p, o, ssn)) return true;
    if (now - s->v.ts_recent_at > MP_SEC(24 * 86400ull)) return true; /* RFC 7323 5.5 */
    st_count(s->st, MP_E_paws, 1, s->c);
    return false;
}

/* RFC 9293 3.10.7.4 first: is any of it in the window? */
bool in_window(const struct sf *s, mp_ssn ssn, uint32_t seglen)
{
    mp_ssn edge = mp_max(s->v.rcv_adv, s->v.rcv_nxt);
    /* RFC 8684 3.3.5: the window belongs to the connection: a peer may use here what it was told elsewhere. */
    if (conn_mp(s->c)) edge = mp_max(edge, s->v.rcv_nxt + s->c->v.rcvbuf);
    if (seglen == 0) return ssn <= edge && ssn >= s->v.last_ack_sent; /* older: a probe, to be answered */
    return ssn <= edge && ssn + seglen > s->v.rcv_nxt;
}

/* RFC 5681 2: it acknowledges what was acknowledged before, while data is on its way, and has no other purpose. With SACK
 * it would say what has arrived (RFC 2018 4); without, or where a box takes the blocks out, it is all that tells of a
 * hole. ACKs that are sent for another option's sake than DSS are no sign of loss (RFC 8684). */
static bool is_duplicate(const struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ack)
{
    bool signals = (o->mp & ~MP_OPT_HAS(MP_DSS)) || ((o->mp & MP_OPT_HAS(MP_DSS)) && o->dss.has_map);
    return ack == s->v.snd_una && s->seg_head && !p->data.len && !(p->flags & MP_FIN) && !o->nsack && !signals &&
           (uint64_t)p->wnd << s->v.snd_wscale == s->v.snd_wnd;
}

/* RFC 5961 5: no more than was sent, and no older than a window. A blind attacker's data would else be taken with every second
 * number that he guesses. */
static bool ack_ok(const struct sf *s, mp_ssn ack)
{
    return (int64_t)(ack - s->v.snd_nxt) <= 0 && (int64_t)(s->v.snd_una - ack) <= (int64_t)mp_min(s->v.snd_wnd_max, s->v.snd_una);
}

/* RFC 5961 5.2, and 7: for data, too, that is no more than a challenge; for a bare ACK less (in_answer_misfit). */
static void answer_wrong_ack(struct sf *s, const struct mp_opts *o, uint32_t len, mp_time now)
{
    st_count(s->st, MP_E_ack_unsent, 1, s->c);
    rescue_misfit(s, o, now);
    if (len) {
        in_challenge(s);
        return;
    }
    st_count(s->st, MP_E_challenge_ack, 1, s->c);
    in_answer_misfit(s, 0, now);
}

/* Of numbers that we have used, or have about a window ago (RFC 2883)? A box that rewrites sequence numbers may leave those in
 * the blocks as they are. */
static bool sack_fits(const struct sf *s, const struct mp_opts *o)
{
    for (int i = 0; i < o->nsack; i++) {
        int64_t left = (int64_t)mp_expand32(s->v.snd_una, o->sack[i].left - s->v.iss), right = (int64_t)mp_expand32(s->v.snd_una, o->sack[i].right - s->v.iss);
        if (right > (int64_t)s->v.snd_nxt || left < (int64_t)s->v.snd_una - (int64_t)mp_min(s->v.snd_wnd_max, s->v.snd_una)) return false;
    }
    return true;
}

static bool ack_in(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now)
{
    struct mp_opts bare;
    if (o->nsack && !sack_fits(s, o)) { /* then it says what one without SACK says (RFC 5681 3.2), or each loss would cost a time-out */
        bare = *o;
        bare.nsack = 0;
        o = &bare;
    }
    mp_ssn ack = mp_expand32(s->v.snd_una, p->ack - s->v.iss);
    if (!ack_ok(s, ack)) {
        answer_wrong_ack(s, o, p->data.len, now);
        return false;
    }
    if (s->v.state == SF_SYN_RCVD) {
        if (ack < 1 || !in_third_ack(s, p, o, ssn, now)) return false;
    }
    s->v.dup_acks = is_duplicate(s, p, o, ack) ? s->v.dup_acks + 1 : ack > s->v.snd_una || o->nsack ? 0 : s->v.dup_acks;
    if (ssn > s->v.snd_wl1 || (ssn == s->v.snd_wl1 && ack >= s->v.snd_wl2)) { /* RFC 9293 3.10.7.4 fifth */
        s->v.snd_wnd = (uint64_t)p->wnd << s->v.snd_wscale;
        s->v.snd_wnd_max = mp_max(s->v.snd_wnd_max, s->v.snd_wnd);
        s->v.snd_wl1 = ssn;
        s->v.snd_wl2 = ack;
    }
    ecn_ack_in(s, p, ack, now);
    sf_on_ack(s, ack, o, now);
    if (s->v.fin_sent && !s->v.fin_acked && ack == s->v.snd_nxt && !s->seg_head) in_fin_acked(s, now);
    return !s->v.dead;
}

/* In a synchronised state: a repeated SYN of the peer, which our answer did not reach, or RFC 5961 4. */
static void syn_again_in(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now)
{
    if (s->v.state != SF_SYN_RCVD || ssn != 0) {
        in_challenge(s);
        return;
    }
    if (s->v.passive && s->v.initial && conn_mp(s->c) && !(o->mp & MP_OPT_HAS(MP_CAPABLE)))
        conn_fallback(s->c, s, FB_SYN_WITHOUT_OPTION, MP_WHY_SYN_DROPPED, now); /* asked again without it */
    ecn_syn_again(s, p);
    if (s->v.ts_on && o->has_ts) s->v.ts_recent = o->ts_val; /* RFC 7323 4.3; the echo times the round trip */
    if (s->seg_head) s->seg_head->lost = true;
}

/* Simultaneous open, RFC 9293 3.5 figure 7: the peer's SYN is known, this one acknowledges ours. Answered by the SYN/ACK again,
 * two ends of our kind went on so for ever. */
static bool is_crossed_synack(const struct sf *s, const struct mp_pkt *p, mp_ssn ssn)
{
    bool synack = (p->flags & (MP_SYN | MP_ACK)) == (MP_SYN | MP_ACK);
    return synack && s->v.state == SF_SYN_RCVD && !s->v.passive && ssn == 0 && p->ack == s->v.iss + 1 && s->v.snd_nxt == 1;
}

/* A keep-alive (RFC 1122 4.2.3.6: no data, or a byte of garbage) of a peer whose numbers fit ours; no repetition of its last byte. */
static bool is_keepalive(const struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn)
{
    bool mapped = (o->mp & MP_OPT_HAS(MP_DSS)) && o->dss.has_map;
    if (ssn + 1 != s->v.rcv_nxt || p->data.len > 1 || mapped || (p->flags & (MP_ACK | MP_FIN)) != MP_ACK) return false;
    return ack_ok(s, mp_expand32(s->v.snd_una, p->ack - s->v.iss));
}

/* Outside of the window, or older than what came before. An old duplicate may still be the peer asking for a lost ACK of
 * ours; its ACK field is not used. */
static void misfit_in(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, uint32_t seglen, mp_time now)
{
    if (p->data.len && ssn + p->data.len <= s->v.rcv_nxt) in_duplicate(s, ssn, p->data.len);
    else if (seglen) st_count(s->st, MP_E_out_of_window, 1, s->c);
    if (is_keepalive(s, p, o, ssn)) s->v.misfits = 0;
    else rescue_misfit(s, o, now);
    in_answer_misfit(s, seglen, now);
}

static void synced_in(struct sf *s, struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    mp_ssn ssn = mp_expand32(s->v.rcv_nxt, p->seq - s->v.irs);
    uint32_t seglen = p->data.len + !!(p->flags & MP_SYN) + !!(p->flags & MP_FIN);
    if (p->flags & MP_RST) {
        in_rst(s, p, o, ssn, now);
        return;
    }
    if (is_crossed_synack(s, p, ssn)) {
        p->flags &= (uint8_t)~MP_SYN;
        p->seq++;
        p->wnd >>= s->v.snd_wscale; /* never scaled in a SYN, RFC 7323 2.2 */
        seglen--;
        ssn++;
        s->v.ack_now = true;
    }
    if (p->flags & MP_SYN) {
        syn_again_in(s, p, o, ssn, now);
        return;
    }
    if (!paws_ok(s, p, o, ssn, now) || !in_window(s, ssn, seglen)) {
        misfit_in(s, p, o, ssn, seglen, now);
        return;
    }
    if (!(p->flags & MP_ACK)) return;
    s->v.keep_probes = 0;
    sf_alive(s);
    if (s->v.ts_on && o->has_ts && ssn <= s->v.last_ack_sent && (int32_t)(o->ts_val - s->v.ts_recent) >= 0) /* RFC 7323 4.3 */
        note_timestamp(s, o->ts_val, now);
    if (!ack_in(s, p, o, ssn, now)) return;
    rescue_heard(s, o, ssn, p->data.len, now); /* only now: numbers that do not fit ours are no sign of life for this subflow */
    if (!s->v.join_done) in_fourth_ack(s, now);
    if (!conn_options_in(s->c, s, p, o, now)) return;
    if (p->data.len) silence_echo(s, o, now);
    if (p->data.len && !in_data(s, p, o, ssn, now)) return;
    if ((p->flags & MP_FIN) && !s->v.fin_received) {
        s->v.fin_received = true;
        s->v.fin_bare = !o->mp;
        s->v.fin_ssn_in = ssn + p->data.len;
    }
    if ((p->flags & MP_FIN) && s->v.fin_ssn_in < s->v.rcv_nxt) s->v.ack_now = true; /* sent again: our ACK was lost */
    in_fin(s, now);
    if (!s->v.dead) conn_close_check(s->c, now);
}

void sf_input(struct sf *s, struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    if (s->v.dead || s->v.reset_pending) return;
    switch (s->v.state) {
    case SF_CLOSED:
        if (!s->v.reset_sent) return;
        if (p->flags & MP_RST) {
            sf_die(s, ECONNABORTED, now);
            return;
        }
        s->v.reset_seq = p->ack;
        s->v.reset_pending = true;
        return;
    case SF_SYN_SENT:
        in_syn_sent(s, p, o, now);
        return;
    case SF_TIME_WAIT:
        in_time_wait(s, p, now);
        return;
    default:
        synced_in(s, p, o, now);
    }
}
