/* FINs: the peer's arrives (RFC 9293 3.10.7.4 eighth), ours is acknowledged, and what comes in TIME-WAIT. */
#include "core/sf_in.h"

/* A FIN that bears no option, on the only subflow, while a DATA_FIN of either side is missing or unacknowledged: no MPTCP host
 * sends that. */
static bool fin_means_fallback(const struct sf *s)
{
    const struct mpc *c = s->c;
    if (!conn_mp(c) || !s->v.initial || c->v.closing || (c->v.fin_acked && c->v.peer_fin)) return false;
    return c->v.fb == FB_UNCONFIRMED || (s->v.fin_bare && conn_single(c));
}

void in_fin(struct sf *s, mp_time now)
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
void in_fin_acked(struct sf *s, mp_time now)
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

/* A bare ACK that fits is not answered: two ends that closed at once would answer each other for a minute. A SYN that cannot be
 * told from an old one (stack_in.c: its timestamps are of another clock, as those of hosts behind one NAT are, and of the
 * kernel beside an engine) is answered by an ACK (RFC 9293 3.10.7.4); who knows of no connection resets that (3.10.7.3), and
 * its next SYN opens a new one. */
void in_time_wait(struct sf *s, const struct mp_pkt *p, mp_time now)
{
    uint32_t seglen = p->data.len + !!(p->flags & MP_SYN) + !!(p->flags & MP_FIN);
    if (p->flags & MP_RST) { /* RFC 1337: not believed, unless our answer to a new SYN of these ports has asked for it */
        if (s->v.tw_asked && mp_expand32(s->v.rcv_nxt, p->seq - s->v.irs) == s->v.rcv_nxt) sf_die(s, 0, now);
        return;
    }
    s->v.tw_asked |= (p->flags & (MP_SYN | MP_ACK)) == MP_SYN;
    if (seglen || mp_expand32(s->v.rcv_nxt, p->seq - s->v.irs) != s->v.rcv_nxt) in_answer_misfit(s, seglen, now);
    bool again = (p->flags & MP_FIN) && mp_expand32(s->v.rcv_nxt, p->seq + seglen - s->v.irs) == s->v.rcv_nxt; /* and not made up */
    if (again) sf_arm(s, SFT_TIME_WAIT, now + sf_time_wait(s->st));
}
