/* A reset arrives: RFC 9293 3.10.7.4 second, RFC 5961 3.2, and what MPTCP options say on it. */
#include "core/sf_in.h"

#include <errno.h>

/* RFC 8684 3.6: T clear says that the condition lasts. Reason 0 says nothing, and some set it with every reset. */
void in_reset_reason(struct sf *s, const struct mp_opts *o)
{
    if (!(o->mp & MP_OPT_HAS(MP_TCPRST)) || !conn_mp(s->c) || !s->c->v.version) return;
    s->v.reset_reason = o->tcprst.reason; /* pm_sf_failed heeds it */
    s->v.reset_transient = o->tcprst.transient;
    s->v.barred = !o->tcprst.transient && o->tcprst.reason != MP_RST_UNSPECIFIED;
}

/* The SYN/ACK of a join is answered by a host that has no such subflow, for it gave the join up before: the reset has no ACK.
 * Or the only one by a host that fell back meanwhile: Linux refuses the join then, by a reset without the option (RFC 8684 3.6)
 * that one who still speaks MPTCP gives it; or by one who found no MP_JOIN in it that he could take, and says so (reason 1). None
 * of them ever held two subflows, and we may fall back as well. An ACK before it may have been the third one, its option lost on
 * the way. (A host without such a subflow may have had it, and no third ACK of it
 * came here: then neither end has sent data over it, and one who had two subflows resets what falls back.) */
static bool join_never_was(const struct sf *s, const struct mp_pkt *p, const struct mp_opts *o)
{
    if (s->v.state != SF_SYN_RCVD || s->v.initial || !s->seg_head) return false;
    bool once = s->seg_head->sent_count == 1;
    if (!(p->flags & MP_ACK)) return once || !s->v.ack_seen;
    bool refused = !o->mp || ((o->mp & MP_OPT_HAS(MP_TCPRST)) && o->tcprst.reason == MP_RST_MPTCP);
    return once && s->c->v.version && refused && !s->v.ack_seen;
}

/* Our third ACK of a join was refused by one who has no such subflow: its reset has no ACK. Linux answers a join's SYN though it has
 * fallen back, and then says so (reason 3). Nothing went over it in either direction before the fourth ACK (RFC 8684 3.2), and the
 * peer held one subflow all the time: it may go on as plain TCP, and we with it. */
static bool join_was_refused(const struct sf *s, const struct mp_pkt *p)
{
    return !s->v.initial && !s->v.passive && !s->v.join_done && s->v.state == SF_ESTABLISHED && s->v.rcv_nxt == 1 && !(p->flags & MP_ACK);
}

/* RFC 5961 3.2: the exact next number; or the end of the last SACK block, as Linux takes it too: one who answers our challenge
 * on behalf of a peer that is gone, and acknowledges ahead of us (a proxy), never gets to the first. */
static bool exact(const struct sf *s, mp_ssn ssn)
{
    return ssn == s->v.rcv_nxt || (s->ooo.n && ssn == mp_rangemap_max(&s->ooo));
}

void in_rst(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now)
{
    struct mpc *c = s->c;
    /* The key proves the peer, wherever the reset falls: it may have overtaken data. */
    bool proven = (o->mp & MP_OPT_HAS(MP_FASTCLOSE)) && conn_mp(c) && c->v.peer_key_known && o->fastclose_key == c->v.key_local;
    if (!exact(s, ssn) && !proven) {
        if (!in_window(s, ssn, 0)) return;
        in_challenge(s);
        return;
    }
    if (join_never_was(s, p, o)) c->v.joins_answered--;
    if (join_was_refused(s, p)) c->v.sf_ever--;
    st_count(s->st, MP_E_subflow_reset_in, 1, c);
    in_reset_reason(s, o);
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
