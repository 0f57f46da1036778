/* A connection goes on as plain TCP, or may not (RFC 8684 3.7): fallback.def says when, this says how. */
#include "core/stack_int.h"

#include <errno.h>

static void go_plain(struct mpc *c, struct sf *s, enum mp_plain_why why)
{
    st_count(c->st, MP_E_fallback, 1, c);
    c->v.why = why;
    c->v.tx_plain = c->v.rx_plain = true;
    /* One subflow carried everything, so data and subflow numbers differ by a constant. */
    c->v.tx_plain_off = c->v.snd_nxt - mp_max(s->v.snd_nxt - s->v.fin_sent, 1);
    c->v.fin_sent = c->v.fin_acked = s->v.data_fin_now = false;
    c->v.peer_fin &= c->v.fin_consumed; /* where a DATA_FIN would be no byte need stand now: the FIN ends it (an ALG made it longer) */
    c->v.snd_edge = UINT64_MAX; /* the subflow's window is the window now */
    conn_reinject_drop(c);             /* what waits to be sent again would be new bytes to a plain receiver */
    for (int i = 0; i < CT_COUNT; i++)
        if (i != CT_LINGER && i != CT_RACE) c->v.timer[i] = MP_NEVER;
    for (struct sf *o = c->sfs; o; o = o->next) /* a join on its way is too late */
        if (o != s && !o->v.dead && !o->v.initial && !o->v.mute) sf_give_up_join(o, c->st->now);
    sf_update_mss(s);
    conn_flush_held(c, s, c->st->now);
    if (s->v.fin_received && s->v.rcv_nxt > s->v.fin_ssn_in) conn_plain_eof(c, c->st->now); /* it came while it was only the subflow's */
    conn_plain_ack(c, s, c->st->now); /* what the subflow acknowledged counts from here on */
}

/* We are plain TCP, and have had no data for the infinite mapping that makes the peer so: it may wait for DATA_FINs. */
bool conn_untold(const struct mpc *c) { return c->v.acks_go_on && c->v.infinite_pending; }

/* What came over s and what the stream has got of it are the same bytes. (In the middle of a segment they are not yet.) */
static bool received_all(const struct mpc *c, const struct sf *s)
{
    if (!c->v.peer_key_known) return true;
    mp_ssn at = s->v.rcv_nxt - (s->v.fin_received && s->v.rcv_nxt > s->v.fin_ssn_in);
    return c->v.rcv_nxt - c->v.fin_consumed + s->v.hold_bytes - c->v.idsn_remote == at;
}

/* RFC 8684 3.7: only a single subflow can go on as plain TCP. What was sent twice on it under two subflow numbers cannot
 * be told apart without mappings. */
static bool can_go_plain(const struct mpc *c, const struct sf *s, enum fb_event e)
{
    if (c->v.sent_twice || c->v.sf_ever > 1) return false;
    /* The peer says so: it has one subflow only, whatever joins we answered. */
    if (e == FB_PEER_FAIL || e == FB_PEER_INFINITE) return received_all(c, s);
    return !c->v.joins_answered && !c->v.peer_twice;
}

enum fb_action conn_fallback(struct mpc *c, struct sf *s, enum fb_event e, enum mp_plain_why why, mp_time now)
{
    struct fb_step step = fb_lookup(c->v.fb, e);
    enum fb_state was = c->v.fb;
    if (!step.source) st_count(c->st, MP_E_fallback_strange, 1, c);
    if (step.next == FB_PLAIN && was != FB_PLAIN && !can_go_plain(c, s, e)) step.action = FB_reset_subflow;
    if (step.action == FB_reset_subflow) {
        st_count(c->st, MP_E_fallback_refused, 1, c);
        sf_abort(s, MP_RST_MIDDLEBOX, true, now);
        return step.action;
    }
    if (step.next == FB_PLAIN && was != FB_PLAIN && c->v.strict) { /* RFC 8684 3.7 allows falling back, it does not ask for it */
        st_count(c->st, MP_E_fallback_refused, 1, c);
        c->v.why = why;
        conn_fail(c, EPROTONOSUPPORT, now);
        return FB_reset_subflow;
    }
    c->v.fb = step.next;
    if (step.next == FB_PLAIN && was != FB_PLAIN) {
        if (step.action == FB_send_fail) {
            if (e != FB_CSUM_BAD_SINGLE) c->v.mp_fail_dsn = c->v.rcv_nxt;
            c->v.mp_fail_pending = c->v.mp_fail_told = true;
            c->v.acks_go_on = c->v.peer_key_known;
            if (e == FB_ACK_WITHOUT_DSS || e == FB_DATA_WITHOUT_DSS_SINGLE) c->v.mp_fail_more = 2; /* the first may be lost */
        }
        c->v.infinite_pending = step.action == FB_send_fail || step.action == FB_send_infinite;
        if (was == FB_UNCONFIRMED) conn_event(c, MP_EV_PLAIN);
        go_plain(c, s, why);
    }
    if (step.next == FB_CONFIRMED && was != FB_CONFIRMED) {
        c->v.why = MP_WHY_MULTIPATH;
        pm_ready(c, now);
    }
    return step.action;
}
