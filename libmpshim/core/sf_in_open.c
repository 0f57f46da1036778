/* A segment arrives during the handshake: RFC 9293 3.10.7.3 and the ACK that ends SYN-RECEIVED; RFC 8684 3.1 and 3.2. */
#include "core/sf_in.h"

#include <errno.h>

#include "core/crypto.h"

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
    pm_answered(c, s);
    s->v.syn_tries = 0;
    s->v.ack_now = true; /* the third ACK carries our HMAC and is sent again until the fourth */
    sf_arm(s, SFT_JOIN_ACK, now + sf_rto_now(s));
}

/* RFC 9293 3.10.7.3: the peer holds a connection of these ports from before, which our reset ends. Our SYN was taken for one of that:
 * it goes again, behind the reset. (Its time-out would be a second, and the next SYN might already do without MP_CAPABLE.) */
static void old_answer_in(struct sf *s, const struct mp_pkt *p)
{
    enum { OLD_ANSWERS = 3 };
    st_count(s->st, MP_E_ack_unsent, 1, s->c);
    st_stray_rst(s->st, p, -1);
    if (!(p->flags & MP_RST) && s->seg_head && s->v.old_answers++ < OLD_ANSWERS) s->seg_head->lost = true;
}

/* RFC 9293 3.10.7.3 */
void in_syn_sent(struct sf *s, struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    mp_ssn ack = (uint32_t)(p->ack - s->v.iss);
    bool ack_ok = (p->flags & MP_ACK) && ack == s->v.snd_nxt && ack > 0;
    if ((p->flags & MP_ACK) && !ack_ok) {
        old_answer_in(s, p);
        return;
    }
    if (p->flags & MP_RST) {
        if (!ack_ok) return;
        in_reset_reason(s, o);
        if (!s->v.mute) st_count(s->st, MP_E_subflow_reset_in, 1, s->c);
        sf_die(s, ECONNREFUSED, now);
        return;
    }
    if (!(p->flags & MP_SYN)) return;
    if (!ack_ok && !s->v.initial) return; /* nobody joins a port that he joins from: RFC 8684 3.2 knows no simultaneous open */
    s->v.last_recv = s->v.last_fit = now;
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

bool in_third_ack(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now)
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

/* The fourth ACK: RFC 8684 3.2. */
void in_fourth_ack(struct sf *s, mp_time now)
{
    s->v.join_done = s->v.fully = true;
    s->v.backoff = 0; /* the third ACK's: data has not waited yet */
    sf_arm(s, SFT_JOIN_ACK, MP_NEVER);
    st_count(s->st, MP_E_join_up, 1, s->c);
    s->c->v.timer[CT_ORPHAN] = MP_NEVER;
    conn_doubt_look(s->c, now);
    close_abandoned(s, now);
    rescue_established(s, now);
}
