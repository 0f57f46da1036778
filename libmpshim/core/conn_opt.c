/* MPTCP options on a synchronised subflow (RFC 8684 3.3 to 3.6). */
#include "core/stack_int.h"

#include <errno.h>

/* The peer has this data, so it was the peer that acknowledged it, in this time. The handshake may have taken longer for a
 * third ACK that was lost, or for its option, and sent again: its own ACKs would all pass for a proxy's (made_on_the_way). */
static void know_peer(const struct mpc *c, struct sf *s)
{
    if (s->v.acked_new && s->v.rtt_ack && s->v.acked_dsn <= c->v.snd_una) s->v.rtt_syn = mp_min(s->v.rtt_syn, s->v.rtt_ack);
}

static void dss_in(struct mpc *c, struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    if (c->v.fb == FB_UNCONFIRMED) conn_fallback(c, s, FB_DSS_SEEN, MP_WHY_MULTIPATH, now);
    if (o->dss.has_ack && !c->v.tx_plain) {
        conn_data_ack(c, s, o->dss.data_ack, o->dss.ack64, now);
        know_peer(c, s);
    }
    if (!o->dss.has_map || p->data.len) return;
    if (o->dss.data_fin && o->dss.len == 1) { /* bare DATA_FIN */
        mp_dsn at = o->dss.dsn64 ? o->dss.dsn : mp_expand32(c->v.rcv_nxt, (uint32_t)o->dss.dsn);
        bool again = c->v.peer_fin; /* our ACK was lost, or is on its way */
        conn_peer_fin(c, at, now);
        if (again || !c->v.fin_consumed) s->v.ack_now = true;
    }
}

/* Sooner than the handshake's answer came, nobody but a proxy between us can have acknowledged (RFC 3135 3.1.2): its ACKs
 * say nothing about the peer, whose own follow. */
static bool made_on_the_way(const struct sf *s)
{
    return s->v.acked_new && s->v.rtt_syn && s->v.rtt_ack && s->v.rtt_ack < s->v.rtt_syn / 4 * 3;
}

/* A proxy's ACK is not always so early: where we or it are slow for a moment, it looks like the peer's. The peer's own, with
 * its options, then follows within a round trip and the time that an ACK may be delayed. */
enum { PEER_IS_LATE_MS = 100 };

static mp_dur bare_wait(const struct sf *s) { return mp_min(s->v.srtt + MP_MS(PEER_IS_LATE_MS), s->v.rto); }

bool conn_bare_for_long(const struct sf *s, mp_time now) { return s->v.bare_acks && now - s->v.bare_since >= bare_wait(s); }

/* Until that is known the window is the subflow's, in order as on plain TCP: a proxy between has a buffer of its own, and the
 * peer of a path that strips options will never tell another. */
static void window_of_bare(struct mpc *c, const struct sf *s)
{
    conn_set_edge(c, c->v.snd_nxt - (s->v.snd_nxt - s->v.snd_una) + s->v.snd_wnd);
}

/* Our DATA_FIN goes unheard, and this may answer a probe (or be an ACK that an ADD_ADDR was cut out of). Or we asked for the
 * window, which only a DATA_ACK opens, and this has an open one (simulation seed 1220556). */
static bool answers_probe(const struct sf *s, const struct mp_pkt *p)
{
    const struct mpc *c = s->c;
    if (p->data.len || p->flags & MP_FIN) return false;
    bool shut = c->v.fb == FB_CONFIRMED && s->v.persists && c->v.snd_edge <= c->v.snd_nxt && s->v.snd_una == s->v.snd_nxt;
    return (c->v.fin_sent && c->v.data_rexmits > 1) || (shut && p->wnd);
}

/* The peer acknowledges data without a DATA_ACK: options die on the way (RFC 8684 3.7). At the start, and while DSSs come but no
 * DATA_ACK of data ever did, such ACKs tell when they are all that comes in that time, or data with one, which nobody but the peer
 * makes; later three in a row on the only subflow there ever was, for a proxy may make ACKs of its own. */
static bool stripped(struct mpc *c, struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    if (o->mp) s->v.bare_acks = 0;
    if (!o->mp && made_on_the_way(s)) return false;
    /* The client repeats its third ACK however often we send a DATA_FIN: it has seen no DSS of ours. */
    if (c->v.server && c->v.fb == FB_UNCONFIRMED && o->mp == MP_OPT_HAS(MP_CAPABLE) && c->v.fin_sent && c->v.data_rexmits > 3) return true;
    if (!s->v.initial || o->mp) return false;
    bool probed = answers_probe(s, p), counts = (s->v.acked_new && s->v.snd_una > 1) || probed;
    if (counts && !s->v.bare_acks++) s->v.bare_since = now;
    bool confirmed = c->v.fb == FB_CONFIRMED;
    if (confirmed) {
        if (!conn_single(c)) return false;
        if (s->v.bare_acks >= 3) return true;
        if (probed || !conn_unheard(c)) return false;
    } else if (probed)
        return s->v.bare_acks > 1;
    if (counts && !confirmed && !c->v.fin_sent && c->v.sf_ever == 1) window_of_bare(c, s);
    if (counts && s->v.bare_acks == 1 && !c->v.fin_sent) c->v.timer[CT_DATA_REXMIT] = now + bare_wait(s); /* conn_timer.c: nothing more comes */
    return s->v.bare_acks && (p->data.len || p->flags & MP_FIN || conn_bare_for_long(s, now));
}

/* The same on a joined subflow, which cannot fall back. */
static bool stripped_join(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o)
{
    if (o->mp) s->v.bare_acks = 0;
    if (!o->mp && !p->data.len && s->v.acked_new && s->v.snd_una > 1 && !made_on_the_way(s)) s->v.bare_acks++;
    return s->v.bare_acks >= 3;
}

/* One more answer like this to our DATA_FIN or zero window probe, and it is decided: not left to a timer that has backed off. */
static void ask_again(struct sf *s, mp_time now)
{
    mp_time *fin = &s->c->v.timer[CT_DATA_FIN], persist = s->v.timer[SFT_PERSIST];
    if (*fin != MP_NEVER) *fin = mp_min(*fin, now + s->v.rto);
    if (persist != MP_NEVER) sf_arm(s, SFT_PERSIST, mp_min(persist, now + s->v.rto));
}

static void fail_in(struct mpc *c, struct sf *s, mp_time now)
{
    st_count(c->st, MP_E_fail_in, 1, c);
    if (c->v.sf_ever > 1) return; /* comes with a reset of the subflow, whose data goes elsewhere */
    conn_fallback(c, s, FB_PEER_FAIL, MP_WHY_PEER_FAIL, now);
}

/* RFC 8684 3.3.8: of this subflow, in three bytes. Version 0 may name another address in a fourth (RFC 6824 3.3.8); what version 1
 * does not have is malformed there. */
static void prio_in(struct mpc *c, struct sf *s, const struct mp_opt_prio *r)
{
    if (r->has_id && c->v.version) {
        st_count(c->st, MP_E_opt_bad, 1, c);
        return;
    }
    st_count(c->st, MP_E_prio_in, 1, c);
    for (struct sf *x = c->sfs; x; x = x->next)
        if (r->has_id ? x->v.addr_id_remote == r->addr_id : x == s) x->v.backup_remote = r->backup;
}

/* We are plain TCP and have told so by MP_FAIL, which is sent once and may be lost; the peer goes on with MPTCP. (DATA_ACKs it
 * sends also when it has heard: see acks_go_on.) */
static bool deaf(const struct mpc *c, const struct mp_opts *o)
{
    return c->v.mp_fail_told && (o->mp & MP_OPT_HAS(MP_DSS)) && (o->dss.has_map ? o->dss.len : o->dss.has_ack && !c->v.peer_failed);
}

/* How far the peer's own fallback has come (RFC 8684 3.7). Linux, told by MP_FAIL, falls back with the next new data; it has no
 * room to send or to keep any while the data before is not DATA_ACKed. So DATA_ACKs go on, with the numbers that an infinite
 * mapping would give, until one comes. */
static void peer_fallback(struct mpc *c, const struct mp_opts *o)
{
    bool infinite = (o->mp & MP_OPT_HAS(MP_DSS)) && o->dss.has_map && !o->dss.len;
    c->v.peer_failed |= infinite || o->mp & MP_OPT_HAS(MP_FAIL);
    c->v.acks_go_on &= !infinite;
}

/* Our FIN is acknowledged, and something without data came and says nothing new: perhaps it was the peer's DATA_FIN, whose option
 * died. When that is acknowledged its FIN follows, which is the end; a DATA_ACK of what was not sent is passed over (RFC 8684 3.3.2). */
static void bare_ack_of_untold(struct mpc *c, struct sf *s, const struct mp_pkt *p, const struct mp_opts *o)
{
    if (!conn_untold(c) || !s->v.fin_acked || s->v.acked_new || o->mp || p->data.len || p->flags & MP_FIN) return;
    c->v.ack_its_end = s->v.ack_now = true;
}

bool conn_options_in(struct mpc *c, struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    peer_fallback(c, o);
    c->v.mp_fail_pending |= !conn_mp(c) && deaf(c, o);
    if (!conn_mp(c) && o->mp) c->v.mp_fail_more = 0; /* its options come through: they tell whether it has heard */
    if (!conn_mp(c)) {
        bare_ack_of_untold(c, s, p, o);
        return true;
    }
    int bare = s->v.bare_acks;
    if (stripped(c, s, p, o, now) && !conn_join_open(c)) {
        conn_fallback(c, s, FB_ACK_WITHOUT_DSS, MP_WHY_NO_OPTION_ACK, now);
        if (c->v.tx_plain) conn_plain_ack(c, s, now);
        return !s->v.dead && !s->v.reset_pending;
    }
    if (s->v.bare_acks > bare) ask_again(s, now);
    if (!s->v.initial && !s->v.fully) return true;
    if (!s->v.initial && stripped_join(s, p, o)) { /* RFC 8684 3.7 */
        sf_abort(s, MP_RST_MIDDLEBOX, true, now);
        return false;
    }
    if (o->mp & MP_OPT_HAS(MP_DSS)) dss_in(c, s, p, o, now);
    if ((o->mp & MP_OPT_HAS(MP_JOIN)) && s->v.passive) s->v.ack_now = true; /* third ACK again: ours was lost */
    if (o->mp & MP_OPT_HAS(MP_ADD_ADDR)) pm_add_addr_in(c, &o->add_addr, now);
    if (o->mp & MP_OPT_HAS(MP_REMOVE_ADDR)) {
        st_count(c->st, MP_E_remove_addr_in, 1, c);
        for (int i = 0; i < o->remove_addr.n; i++) pm_remove_addr_in(c, o->remove_addr.id[i], now);
    }
    if (o->mp & MP_OPT_HAS(MP_PRIO)) prio_in(c, s, &o->prio);
    if (o->mp & MP_OPT_HAS(MP_FAIL)) fail_in(c, s, now);
    if (o->mp & MP_OPT_HAS(MP_FASTCLOSE)) { /* RFC 8684 3.5: on an ACK as well */
        if (o->fastclose_key == c->v.key_local) {
            st_count(c->st, MP_E_fastclose_in, 1, c);
            conn_fail(c, ECONNRESET, now);
        } else
            st_count(c->st, MP_E_fastclose_bad, 1, c);
    }
    return !s->v.dead && !s->v.reset_pending;
}
