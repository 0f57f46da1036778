/* A segment arrives at a subflow: RFC 9293 3.10.7 in its order of checks. */
#include "core/stack_int.h"

#include <errno.h>

#include "core/crypto.h"

/* RFC 5961: an ACK that makes an honest peer resynchronise and tells an attacker nothing. */
static void challenge(struct sf *s)
{
    if (s->v.challenged_at && s->st->now - s->v.challenged_at < MP_MS(10)) return; /* RFC 5961 7 */
    s->v.challenged_at = s->st->now;
    st_count(s->st, MP_E_challenge_ack, 1, s->c);
    s->v.ack_now = true;
}

/* A segment that does not fit is answered; one without data seldom, or two ends whose numbers have come apart (a box
 * that began to rewrite them) would answer each other's answers for ever (RFC 5961 7; Linux: 500 ms). */
static void answer_misfit(struct sf *s, uint32_t seglen, mp_time now)
{
    rescue_misfit(s, now);
    if (!seglen && s->v.misfit_at && now - s->v.misfit_at < MP_MS(500)) return;
    if (!seglen) s->v.misfit_at = now;
    s->v.ack_now = true;
}

/* ---- opening ---- */

/* 0: sent twice, it may have a time-out in it, ours or of a lost SYN/ACK. Of a joining client's third ACK it may have the
 * client's, and who sent an ACK before it (a proxy, or the client, whose option was lost) is not known: too long, it is
 * mended by the first data (conn_opt.c). */
static mp_dur handshake_time(const struct sf *s, mp_time now)
{
    const struct sf_seg *synack = s->v.passive && !s->v.initial ? s->seg_head : NULL; /* the ACK of it is not counted yet */
    if (synack && synack->syn) return synack->sent_count == 1 ? now - synack->sent : 0;
    return s->v.rtt_ack ? s->v.srtt : 0;
}

static void established(struct sf *s, mp_time now)
{
    sf_set_state(s, SF_ESTABLISHED, now);
    s->v.cc.active = true;
    s->v.last_progress = now;
    s->v.round_end = s->v.snd_nxt;
    s->v.rtt_syn = handshake_time(s, now);
    if (s->c->v.keepalive) sf_arm(s, SFT_KEEPALIVE, now + MP_SEC(s->c->v.keepidle_s ? s->c->v.keepidle_s : 7200));
    conn_sf_established(s->c, s, now);
}

static void initial_synack_options(struct sf *s, const struct mp_opts *o, mp_time now)
{
    struct mpc *c = s->c;
    if (!conn_mp(c)) return; /* the SYN that was answered had no option */
    const struct mp_opt_capable *m = &o->capable;
    bool has = (o->mp & MP_OPT_HAS(MP_CAPABLE)) && m->nkeys == 1;
    if (has && m->version == c->v.version && !m->bflag && m->hmac_sha256) {
        c->v.csum = c->v.csum || m->csum_req; /* RFC 8684 3.1: either side's A flag asks for them */
        c->v.no_join_initial = c->v.version && m->no_join_initial;
        conn_set_peer_key(c, m->key_snd);
        s->v.send_capable_ack = true;
        conn_fallback(c, s, FB_HANDSHAKE_DONE, MP_WHY_MULTIPATH, now);
        return;
    }
    if (has) st_count(s->st, MP_E_capable_version, 1, c);
    conn_fallback(c, s, has ? FB_VERSION_UNKNOWN : FB_SYNACK_WITHOUT_OPTION, has ? MP_WHY_VERSION : MP_WHY_NO_OPTION_SYNACK, now);
}

static void join_synack_options(struct sf *s, const struct mp_opts *o, mp_time now)
{
    struct mpc *c = s->c;
    uint8_t h[32];
    if (!(o->mp & MP_OPT_HAS(MP_JOIN)) || o->join.form != MP_JOIN_SYNACK) {
        st_count(s->st, MP_E_join_no_option, 1, c);
        sf_abort(s, MP_RST_MPTCP, false, now);
        return;
    }
    s->v.nonce_remote = o->join.nonce;
    s->v.backup_remote = o->join.backup;
    s->v.addr_id_remote = o->join.addr_id;
    conn_join_hmac(c, false, s->v.nonce_local, s->v.nonce_remote, h);
    if (!mp_equal_ct(h, o->join.hmac, 8)) {
        st_count(s->st, MP_E_join_hmac_bad, 1, c);
        sf_abort(s, MP_RST_MPTCP, false, now);
        return;
    }
    s->v.syn_tries = 0;
    s->v.ack_now = true; /* the third ACK carries our HMAC and is sent again until the fourth */
    sf_arm(s, SFT_JOIN_ACK, now + sf_rto_now(s));
}

/* RFC 8684 3.6: T clear says that the condition lasts. Reason 0 says nothing, and some set it with every reset. */
static void note_reason(struct sf *s, const struct mp_opts *o)
{
    if (!(o->mp & MP_OPT_HAS(MP_TCPRST)) || !conn_mp(s->c) || !s->c->v.version) return;
    s->v.reset_reason = o->tcprst.reason; /* pm_sf_failed heeds it */
    s->v.barred = !o->tcprst.transient && o->tcprst.reason != MP_RST_UNSPECIFIED;
}

/* RFC 9293 3.10.7.3 */
static void syn_sent_in(struct sf *s, struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    mp_ssn ack = (uint32_t)(p->ack - s->v.iss);
    bool ack_ok = (p->flags & MP_ACK) && ack == s->v.snd_nxt && ack > 0;
    if ((p->flags & MP_ACK) && !ack_ok) { /* the peer holds a connection of these ports from before: end that one */
        st_count(s->st, MP_E_ack_unsent, 1, s->c);
        st_stray_rst(s->st, p, -1);
        return;
    }
    if (p->flags & MP_RST) {
        if (!ack_ok) return;
        note_reason(s, o);
        if (!s->v.mute) st_count(s->st, MP_E_subflow_reset_in, 1, s->c);
        sf_die(s, ECONNREFUSED, now);
        return;
    }
    if (!(p->flags & MP_SYN)) return;
    if (!ack_ok && !s->v.initial) return; /* nobody joins a port that he joins from: RFC 8684 3.2 knows no simultaneous open */
    s->v.last_recv = now;
    if (s->v.initial) race_over(s->c, s, now);
    sf_synack_in(s, p, o, now);
    if (s->v.mute) { /* another path was quicker: the peer keeps nothing */
        sf_abort(s, MP_RST_UNSPECIFIED, false, now);
        return;
    }
    if (!ack_ok) { /* simultaneous open: RFC 8684 3.1 lets MPTCP go */
        if (s->v.initial) conn_fallback(s->c, s, FB_SIMULTANEOUS_OPEN, MP_WHY_SIMOPEN, now);
        sf_set_state(s, SF_SYN_RCVD, now);
        while (s->seg_head) sf_seg_drop(s, s->seg_head); /* goes out again as SYN/ACK */
        s->v.snd_nxt = 0;
        s->v.pipe = 0;
        return;
    }
    sf_on_ack(s, ack, o, now);
    s->v.backoff = 0;
    s->v.ack_now = true;
    if (s->v.initial)
        initial_synack_options(s, o, now);
    else
        join_synack_options(s, o, now);
    if (s->v.reset_pending || s->v.dead) return; /* refused: in SYN_SENT that ends it at once */
    s->v.join_done = s->v.initial;
    s->v.fully = s->v.initial;
    sf_update_mss(s);
    established(s, now);
}

/* This ACK says nothing about MP_CAPABLE, but one that does may follow: a later data segment overtook it and the first, whose
 * retransmission brings the option or proves it lost. Or a client that has nothing to say but its DATA_FIN, whose third ACK
 * was lost, still knows of MPTCP; when our SYN/ACK comes again it answers with the option. */
static bool capable_may_follow(const struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn)
{
    enum { SYNACKS = 3 }; /* answered without it, it never gets through */
    if (ssn > 1) return p->data.len || o->mp;
    return o->mp && !p->data.len && s->seg_head && s->seg_head->sent_count <= SYNACKS;
}

/* s is up. What the peer had closed before, and was kept as the last one, ends now. */
static void close_abandoned(struct sf *s, mp_time now)
{
    for (struct sf *o = s->c->sfs; o; o = o->next)
        if (o != s && conn_abandoned(o)) sf_close(o, now);
}

/* The third ACK of a connection that we accept. false: segment not to be looked at further. */
static bool initial_third_ack(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now)
{
    struct mpc *c = s->c;
    if (!conn_mp(c)) return true;
    if ((o->mp & MP_OPT_HAS(MP_CAPABLE)) && o->capable.nkeys == 2) {
        bool ours = o->capable.key_rcv == c->v.key_local && o->capable.version == c->v.version;
        if (!ours || (c->v.peer_key_known && o->capable.key_snd != c->v.key_remote)) return false; /* not meant for this handshake */
        conn_set_peer_key(c, o->capable.key_snd);
        conn_fallback(c, s, FB_HANDSHAKE_DONE, MP_WHY_MULTIPATH, now);
        return true;
    }
    if (!c->v.version && (o->mp & MP_OPT_HAS(MP_DSS))) { /* RFC 6824 3.1: that ACK was lost; the keys are known without it */
        conn_fallback(c, s, FB_HANDSHAKE_DONE, MP_WHY_MULTIPATH, now);
        return true;
    }
    if (capable_may_follow(s, p, o, ssn)) return false;
    st_count(s->st, MP_E_capable_no_ack, 1, c);
    conn_fallback(c, s, FB_ACK_WITHOUT_OPTION, MP_WHY_NO_OPTION_ACK, now);
    return true;
}

static bool join_third_ack(struct sf *s, const struct mp_opts *o, mp_time now)
{
    struct mpc *c = s->c;
    uint8_t h[32];
    if (!(o->mp & MP_OPT_HAS(MP_JOIN)) || o->join.form != MP_JOIN_ACK) return false; /* wait for its retransmission */
    conn_join_hmac(c, false, s->v.nonce_local, s->v.nonce_remote, h);
    if (!mp_equal_ct(h, o->join.hmac, 20)) {
        st_count(s->st, MP_E_join_hmac_bad, 1, c);
        sf_abort(s, MP_RST_MPTCP, false, now);
        return false;
    }
    s->v.ack_now = true; /* the fourth ACK */
    rescue_established(s, now);
    return true;
}

static bool syn_rcvd_ack(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now)
{
    if (s->v.passive && !(s->v.initial ? initial_third_ack(s, p, o, ssn, now) : join_third_ack(s, o, now))) {
        if (!s->v.ack_seen) sf_time_synack(s, now);
        s->v.ack_seen = true;
        return false;
    }
    s->v.join_done = true;
    s->v.fully = true;
    s->v.backoff = 0;
    sf_update_mss(s);
    established(s, now);
    close_abandoned(s, now);
    if (s->v.initial && s->c->v.server) {
        s->v.ack_now = conn_mp(s->c); /* a DATA_ACK must reach the client before it trusts the path (RFC 8684 3.1) */
        st_accepted(s->c);
        s->c->v.established = true;
        conn_event(s->c, MP_EV_ACCEPT);
    }
    return true;
}

/* ---- checks ---- */

static bool paws_ok(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    if (!s->v.ts_on || !o->has_ts || (p->flags & MP_RST)) return true;
    if ((int32_t)(o->ts_val - s->v.ts_recent) >= 0) return true;
    if (now - s->v.ts_recent_at > MP_SEC(24 * 86400ull)) return true; /* RFC 7323 5.5 */
    st_count(s->st, MP_E_paws, 1, s->c);
    return false;
}

/* RFC 9293 3.10.7.4 first: is any of it in the window? */
static bool seq_ok(const struct sf *s, mp_ssn ssn, uint32_t seglen)
{
    mp_ssn edge = mp_max(s->v.rcv_adv, s->v.rcv_nxt);
    /* RFC 8684 3.3.5: the window belongs to the connection: a peer may use here what it was told elsewhere. */
    if (conn_mp(s->c)) edge = mp_max(edge, s->v.rcv_nxt + s->c->v.rcvbuf);
    if (seglen == 0) return ssn <= edge && ssn >= s->v.last_ack_sent; /* older: a probe, to be answered */
    return ssn <= edge && ssn + seglen > s->v.rcv_nxt;
}

/* The SYN/ACK of a join is answered by a host that has no such subflow, for it gave the join up before: the reset has no ACK.
 * Or the only one by a host that fell back meanwhile: Linux refuses the join then, by a reset without the option (RFC 8684 3.6)
 * that one who still speaks MPTCP gives it. Neither ever held two subflows, and we may fall back as well. An ACK before it may
 * have been the third one, its option lost on the way. (A host without such a subflow may have had it, and no third ACK of it
 * came here: then neither end has sent data over it, and one who had two subflows resets what falls back.) */
static bool join_never_was(const struct sf *s, const struct mp_pkt *p, const struct mp_opts *o)
{
    if (s->v.state != SF_SYN_RCVD || s->v.initial || !s->seg_head) return false;
    bool once = s->seg_head->sent_count == 1;
    if (!(p->flags & MP_ACK)) return once || !s->v.ack_seen;
    return once && s->c->v.version && !o->mp && !s->v.ack_seen;
}

/* RFC 5961 3.2: the exact next number; or the end of the last SACK block, as Linux takes it too: one who answers our challenge
 * on behalf of a peer that is gone, and acknowledges ahead of us (a proxy), never gets to the first. */
static bool exact(const struct sf *s, mp_ssn ssn)
{
    return ssn == s->v.rcv_nxt || (s->ooo.n && ssn == mp_rangemap_max(&s->ooo));
}

static void rst_in(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now)
{
    struct mpc *c = s->c;
    /* The key proves the peer, wherever the reset falls: it may have overtaken data. */
    bool proven = (o->mp & MP_OPT_HAS(MP_FASTCLOSE)) && conn_mp(c) && c->v.peer_key_known && o->fastclose_key == c->v.key_local;
    if (!exact(s, ssn) && !proven) {
        if (!seq_ok(s, ssn, 0)) return;
        challenge(s);
        return;
    }
    if (join_never_was(s, p, o)) c->v.joins_answered--;
    st_count(s->st, MP_E_subflow_reset_in, 1, c);
    note_reason(s, o);
    if ((o->mp & MP_OPT_HAS(MP_FAIL)) && conn_mp(c)) st_count(s->st, MP_E_fail_in, 1, c); /* RFC 8684 3.7: one of several went bad */
    if ((o->mp & MP_OPT_HAS(MP_FASTCLOSE)) && conn_mp(c)) {
        if (o->fastclose_key == c->v.key_local) {
            st_count(s->st, MP_E_fastclose_in, 1, c);
            sf_die(s, ECONNRESET, now);
            conn_fail(c, ECONNRESET, now);
            return;
        }
        st_count(s->st, MP_E_fastclose_bad, 1, c);
    }
    sf_die(s, ECONNRESET, now);
}

/* ---- data ---- */

static void note_ooo(struct sf *s, mp_ssn at)
{
    if (s->v.sack_recent[0] == at) return;
    if (s->v.sack_recent[1] != at) s->v.sack_recent[2] = s->v.sack_recent[1];
    s->v.sack_recent[1] = s->v.sack_recent[0];
    s->v.sack_recent[0] = at;
}

/* All of it is old: told by D-SACK (RFC 2883). */
static void note_duplicate(struct sf *s, mp_ssn ssn, uint32_t len)
{
    st_count(s->st, MP_E_dup_data, len, s->c);
    s->v.dsack = s->v.sack_on;
    s->v.dsack_l = ssn;
    s->v.dsack_r = ssn + len;
}

static bool deliver(struct sf *s, struct mp_slice *d, mp_time now)
{
    mp_ssn at = s->v.rcv_nxt;
    s->v.rcv_nxt += d->len;
    s->v.ack_bytes += d->len;
    return conn_sf_data(s->c, s, at, d, now);
}

static bool drain_ooo(struct sf *s, mp_time now)
{
    struct mp_slice d;
    uint64_t tag;
    while (s->ooo.n && mp_rangemap_pop(&s->ooo, s->v.rcv_nxt, &d, &tag)) {
        s->v.draining = true;
        bool ok = deliver(s, &d, now);
        s->v.draining = false;
        mp_slice_put(&d);
        if (!ok) return false;
    }
    return true;
}

/* false: the subflow ended on the way. */
static bool data_in(struct sf *s, struct mp_pkt *p, mp_ssn ssn, mp_time now)
{
    struct mp_slice d = p->data;
    if (sf_doubts(s)) return true; /* as if it had been lost */
    /* Plain TCP has no second chance: what we cannot keep must not be acknowledged (RFC 9293 3.10.7.4). */
    if (s->c->v.rx_plain && ssn + d.len > s->v.rcv_adv) {
        st_count(s->st, MP_E_beyond_window, ssn + d.len - s->v.rcv_adv, s->c);
        s->v.ack_now = true;
        if (ssn >= s->v.rcv_adv) return true;
        mp_slice_cut(&d, (uint32_t)(s->v.rcv_adv - ssn));
    }
    if (ssn + d.len <= s->v.rcv_nxt) { /* with a FIN behind it, that is new; else misfit_in has it */
        note_duplicate(s, ssn, d.len);
        s->v.ack_now = true;
        return true;
    }
    /* As if it had been lost: what is not acknowledged comes again when there is room. */
    if (mem_refuses(s->c, ssn > s->v.rcv_nxt)) {
        st_count(s->st, MP_E_memory_dropped, d.len, s->c);
        return true;
    }
    if (ssn > s->v.rcv_nxt) {
        st_count(s->st, MP_E_ooo_subflow, 1, s->c);
        conn_cut_joined(s->c, s, ssn, &d);
        if (mp_rangemap_insert(&s->ooo, ssn, &d, 0) < 0) st_count(s->st, MP_E_no_memory, 1, s->c);
        note_ooo(s, ssn);
        s->v.ack_now = true; /* RFC 5681 4.2 */
        return true;
    }
    mp_slice_skip(&d, (uint32_t)(s->v.rcv_nxt - ssn));
    bool filled = s->ooo.n > 0;
    if (!deliver(s, &d, now)) return false;
    if (filled) {
        s->v.ack_now = true;
        if (!drain_ooo(s, now)) return false;
    }
    /* RFC 9293 3.8.6.3: at least every second full segment; quickly at the start, where the sender's window is small. */
    if (s->v.quick_acks > 0) {
        s->v.quick_acks--;
        s->v.ack_now = true;
    } else if (s->v.ack_bytes >= 2 * (s->v.mss < 1000 ? s->v.mss : 1000))
        s->v.ack_now = true;
    else if (s->v.timer[SFT_DELACK] == MP_NEVER)
        sf_arm(s, SFT_DELACK, now + MP_MS(40));
    return true;
}

/* A FIN that bears no option, on the only subflow, before our DATA_FIN was acknowledged: no MPTCP host sends that. */
static bool fin_means_fallback(const struct sf *s)
{
    const struct mpc *c = s->c;
    if (!conn_mp(c) || !s->v.initial || c->v.closing || c->v.fin_acked) return false;
    return c->v.fb == FB_UNCONFIRMED || (s->v.fin_bare && conn_single(c));
}

static void fin_in(struct sf *s, mp_time now)
{
    if (!s->v.fin_received || s->v.rcv_nxt != s->v.fin_ssn_in || sf_doubts(s)) return;
    s->v.rcv_nxt++;
    s->v.ack_now = true;
    if (fin_means_fallback(s)) conn_fallback(s->c, s, FB_FIN_WITHOUT_DSS, MP_WHY_NO_DSS, now);
    switch (s->v.state) {
    case SF_SYN_RCVD:
    case SF_ESTABLISHED:
        sf_set_state(s, SF_CLOSE_WAIT, now);
        break;
    case SF_FIN_WAIT_1:
        sf_set_state(s, s->v.fin_acked ? SF_TIME_WAIT : SF_CLOSING, now);
        break;
    case SF_FIN_WAIT_2:
        sf_set_state(s, SF_TIME_WAIT, now);
        break;
    default:
        break;
    }
    if (s->c->v.rx_plain || !conn_mp(s->c))
        conn_plain_eof(s->c, now);
    else if (s->c->v.closing || conn_any_other(s->c, s))
        sf_close(s, now); /* RFC 8684 3.3.3: a subflow's FIN ends the subflow, not the data; the last one carries ours on */
    else if (conn_abandoned(s)) {
        conn_orphan_look(s->c, now);
        pm_run(s->c, now);
    }
    conn_close_check(s->c, now);
}

/* Our FIN is acknowledged. */
static void fin_acked(struct sf *s, mp_time now)
{
    s->v.fin_acked = true;
    switch (s->v.state) {
    case SF_FIN_WAIT_1:
        sf_set_state(s, SF_FIN_WAIT_2, now);
        /* A subflow's FIN is only housekeeping (also where a DATA_FIN came before the fallback): a peer that never sends its own is not waited for. */
        if (conn_mp(s->c) || s->c->v.fin_consumed) sf_arm(s, SFT_TIME_WAIT, now + MP_SEC(s->st->set.time_wait_s));
        break;
    case SF_CLOSING:
        sf_set_state(s, SF_TIME_WAIT, now);
        break;
    case SF_LAST_ACK:
        st_count(s->st, MP_E_subflow_closed, 1, s->c);
        sf_die(s, 0, now);
        break;
    default:
        break;
    }
}

/* ---- the main line ---- */

/* A bare ACK that fits is not answered: two ends that closed at once would answer each other for a minute. A SYN that cannot be
 * told from an old one (stack_in.c: its timestamps are of another clock, as those of hosts behind one NAT are, and of the
 * kernel beside an engine) is answered by an ACK (RFC 9293 3.10.7.4); who knows of no connection resets that (3.10.7.3), and
 * its next SYN opens a new one. */
static void time_wait_in(struct sf *s, const struct mp_pkt *p, mp_time now)
{
    uint32_t seglen = p->data.len + !!(p->flags & MP_SYN) + !!(p->flags & MP_FIN);
    if (p->flags & MP_RST) { /* RFC 1337: not believed, unless our answer to a new SYN of these ports has asked for it */
        if (s->v.tw_asked && mp_expand32(s->v.rcv_nxt, p->seq - s->v.irs) == s->v.rcv_nxt) sf_die(s, 0, now);
        return;
    }
    s->v.tw_asked |= (p->flags & (MP_SYN | MP_ACK)) == MP_SYN;
    if (seglen || mp_expand32(s->v.rcv_nxt, p->seq - s->v.irs) != s->v.rcv_nxt) answer_misfit(s, seglen, now);
    if (p->flags & MP_FIN) sf_arm(s, SFT_TIME_WAIT, now + MP_SEC(s->st->set.time_wait_s));
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

static bool ack_in(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now)
{
    mp_ssn ack = mp_expand32(s->v.snd_una, p->ack - s->v.iss);
    if (!ack_ok(s, ack)) {
        st_count(s->st, MP_E_ack_unsent, 1, s->c);
        st_count(s->st, MP_E_challenge_ack, 1, s->c);
        answer_misfit(s, p->data.len, now);
        return false;
    }
    if (s->v.state == SF_SYN_RCVD) {
        if (ack < 1 || !syn_rcvd_ack(s, p, o, ssn, now)) return false;
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
    if (s->v.fin_sent && !s->v.fin_acked && ack == s->v.snd_nxt && !s->seg_head) fin_acked(s, now);
    return !s->v.dead;
}

/* In a synchronised state: a repeated SYN of the peer, which our answer did not reach, or RFC 5961 4. */
static void syn_again_in(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now)
{
    if (s->v.state != SF_SYN_RCVD || ssn != 0) {
        challenge(s);
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

/* Outside of the window, or older than what came before. An old duplicate may still be the peer asking for a lost ACK of
 * ours; its ACK field is not used. */
static void misfit_in(struct sf *s, const struct mp_pkt *p, mp_ssn ssn, uint32_t seglen, mp_time now)
{
    if (p->data.len && ssn + p->data.len <= s->v.rcv_nxt) note_duplicate(s, ssn, p->data.len);
    else if (seglen) st_count(s->st, MP_E_out_of_window, 1, s->c);
    answer_misfit(s, seglen, now);
}

/* The fourth ACK: RFC 8684 3.2. false: the join is not wanted any more. */
static bool join_confirmed(struct sf *s, mp_time now)
{
    s->v.join_done = s->v.fully = true;
    s->v.backoff = 0; /* the third ACK's: data has not waited yet */
    sf_arm(s, SFT_JOIN_ACK, MP_NEVER);
    st_count(s->st, MP_E_join_up, 1, s->c);
    s->c->v.timer[CT_ORPHAN] = MP_NEVER;
    conn_doubt_look(s->c, now);
    close_abandoned(s, now);
    return rescue_established(s, now);
}

/* false: nothing more of the segment counts. */
static bool payload_in(struct sf *s, struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now)
{
    bool ends = s->v.fin_received && ssn + p->data.len > s->v.fin_ssn_in;
    if (ends || s->v.state == SF_TIME_WAIT) return false;
    s->v.bytes_received += p->data.len;
    s->v.data_recv_at = now;
    rescue_data(s, p->data.len, now);
    ecn_data_in(s, p);
    if (!conn_sf_mapping(s->c, s, o, ssn, now) || s->v.dead || s->v.reset_pending) return false;
    return data_in(s, p, ssn, now) && !s->v.dead && !s->v.reset_pending;
}

static void synced_in(struct sf *s, struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    mp_ssn ssn = mp_expand32(s->v.rcv_nxt, p->seq - s->v.irs);
    uint32_t seglen = p->data.len + !!(p->flags & MP_SYN) + !!(p->flags & MP_FIN);
    if (p->flags & MP_RST) {
        rst_in(s, p, o, ssn, now);
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
    if (!paws_ok(s, p, o, now) || !seq_ok(s, ssn, seglen)) {
        misfit_in(s, p, ssn, seglen, now);
        return;
    }
    if (!(p->flags & MP_ACK)) return;
    s->v.keep_probes = 0;
    sf_alive(s);
    if (s->v.ts_on && o->has_ts && ssn <= s->v.last_ack_sent && (int32_t)(o->ts_val - s->v.ts_recent) >= 0) { /* RFC 7323 4.3 */
        s->v.ts_recent = o->ts_val;
        s->v.ts_recent_at = now;
    }
    if (!ack_in(s, p, o, ssn, now)) return;
    rescue_heard(s, now); /* only now: numbers that do not fit ours are no sign of life for this subflow */
    if (!s->v.join_done && !join_confirmed(s, now)) return;
    if (!conn_options_in(s->c, s, p, o, now)) return;
    if (p->data.len && !payload_in(s, p, o, ssn, now)) return;
    if ((p->flags & MP_FIN) && !s->v.fin_received) {
        s->v.fin_received = true;
        s->v.fin_bare = !o->mp;
        s->v.fin_ssn_in = ssn + p->data.len;
    }
    if ((p->flags & MP_FIN) && s->v.fin_ssn_in < s->v.rcv_nxt) s->v.ack_now = true; /* sent again: our ACK was lost */
    fin_in(s, now);
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
        syn_sent_in(s, p, o, now);
        return;
    case SF_TIME_WAIT:
        time_wait_in(s, p, now);
        return;
    default:
        synced_in(s, p, o, now);
    }
}
