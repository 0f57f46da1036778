/* Explicit congestion notification, RFC 3168: a router with a queue marks packets (CE) instead of dropping them, the receiver
 * echoes that (ECE) until the sender says that it has slowed down (CWR). Each subflow agrees on it by itself.
 *
 *   TCP flags  SYN: ECE and CWR offer it, ECE alone in the SYN/ACK accepts
 *   IP header  ECT(0) on new data only: not on retransmissions (RFC 3168 6.1.5), pure ACKs (6.1.4) and probes (6.1.6) */
#include "core/stack_int.h"

enum { IP_ECT0 = 2, IP_CE = 3 };
/* A path that marks whatever comes, or a box that sets ECE in all ACKs, would keep the subflow at two segments for ever:
 * after so many windows in a row at the floor, each marked, it sends as if there were no ECN. */
enum { MARKED_WINDOWS = 6 };

static bool setting_is(const struct mp_stack *st, const char *word) { return strcmp(st->set.ecn, word) == 0; }
static uint8_t both(uint8_t flags) { return flags & (MP_ECE | MP_CWR); }

/* ---- agreeing, RFC 3168 6.1.1 ---- */

uint8_t ecn_syn_flags(struct sf *s)
{
    if (s->v.state == SF_SYN_RCVD) return s->v.ecn_on ? MP_ECE : 0;
    /* 6.1.1.1: no answer may mean that a firewall drops such SYNs. From then on no packet of ours is ECT. */
    if (!setting_is(s->st, "on") || s->v.syn_tries) {
        if (s->v.ecn_offered && !s->v.ecn_no_ect) st_count(s->st, MP_E_ecn_syn_plain, 1, s->c);
        s->v.ecn_no_ect = true;
        return 0;
    }
    s->v.ecn_offered = true;
    return MP_ECE | MP_CWR;
}

bool ecn_syn_asks(const struct mp_stack *st, const struct mp_pkt *p)
{
    /* A SYN is not ECT: somebody on the way uses these bits for something else. */
    return both(p->flags) == (MP_ECE | MP_CWR) && !(p->tos & IP_CE) && !setting_is(st, "off");
}

void ecn_syn_in(struct sf *s, const struct mp_pkt *p)
{
    s->v.ecn_on = ecn_syn_asks(s->st, p);
    if (s->v.ecn_on) st_count(s->st, MP_E_ecn_up, 1, s->c);
}

/* The same SYN again. Without the offer the first may have been dropped for it. */
void ecn_syn_again(struct sf *s, const struct mp_pkt *p)
{
    if (s->v.ecn_on && !ecn_syn_asks(s->st, p)) s->v.ecn_no_ect = true;
}

void ecn_synack_in(struct sf *s, const struct mp_pkt *p)
{
    s->v.ecn_on = s->v.ecn_offered && (p->flags & MP_ACK) && both(p->flags) == MP_ECE;
    if (s->v.ecn_on) st_count(s->st, MP_E_ecn_up, 1, s->c);
}

/* ---- receiving data, RFC 3168 6.1.3 ---- */

void ecn_data_in(struct sf *s, const struct mp_pkt *p)
{
    if (!s->v.ecn_on) return;
    if (p->flags & MP_CWR) s->v.ecn_echo = false; /* then what the same packet tells */
    if ((p->tos & IP_CE) != IP_CE) return;
    st_count(s->st, MP_E_ecn_ce_in, 1, s->c);
    if (!s->v.ecn_echo) s->v.ack_now = true; /* the sooner the sender knows, the shorter the queue */
    s->v.ecn_echo = true;
}

/* ---- sending ---- */

uint8_t ecn_ack_flags(const struct sf *s) { return s->v.ecn_echo ? MP_ECE : 0; }

void ecn_mark_new_data(struct sf *s, struct mp_pkt *out)
{
    if (!s->v.ecn_on || s->v.ecn_no_ect) return;
    out->tos |= IP_ECT0;
    if (s->v.ecn_cwr) out->flags |= MP_CWR; /* of a slice, its first segment has it: whoever cuts it sees to that */
    s->v.ecn_cwr = false;
}

/* The window was reduced, for whatever reason: what is on its way now was sent before that, and its marks ask for no
 * further one (RFC 3168 6.1.2). */
void ecn_reduced(struct sf *s)
{
    if (!s->v.ecn_on) return;
    s->v.ecn_cwr = true;
    s->v.ecn_point = s->v.snd_nxt;
}

static void stop_ect(struct sf *s)
{
    st_count(s->st, MP_E_ecn_given_up, 1, s->c);
    s->v.ecn_no_ect = true;
}

/* The window cannot become smaller, and each is marked all the same. */
static bool marks_mean_nothing(struct sf *s)
{
    s->v.ecn_floor = s->v.cc.cwnd > 2 * s->v.mss ? 0 : s->v.ecn_floor + 1;
    return s->v.ecn_floor == MARKED_WINDOWS;
}

/* An acceptable ACK; before it is taken, so that data which it lets go tells of the reduction at once. */
void ecn_ack_in(struct sf *s, const struct mp_pkt *p, mp_ssn ack, mp_time now)
{
    if (!s->v.ecn_on || s->v.ecn_no_ect) return;
    if (!(p->flags & MP_ECE)) {
        s->v.ecn_floor = 0;
        return;
    }
    if (s->v.in_recovery || s->v.in_rto) { /* the reduction that the marks ask for as well, needless though the recovery may be */
        s->v.undo_on = false;
        return;
    }
    if (ack <= s->v.ecn_point || !s->v.bytes_sent) return;
    struct mp_cc_group g = conn_cc_group(s->c, s);
    s->c->cc->on_loss(&g, now);
    s->v.undo_on = false; /* proof that an earlier loss was none does not take this back */
    st_count(s->st, MP_E_ecn_reduced, 1, s->c);
    ecn_reduced(s);
    if (marks_mean_nothing(s)) stop_ect(s);
}

void ecn_delivered(struct sf *s) { s->v.ecn_missed = 0; }

/* A loss, a time-out, a tail loss probe, and nothing that was sent once has arrived since the one before: the path may drop
 * ECT packets. What is sent again is not ECT and gets through, so that each new segment would be lost once. */
void ecn_missed(struct sf *s)
{
    if (s->v.ecn_on && !s->v.ecn_no_ect && s->v.bytes_sent && ++s->v.ecn_missed == 2) stop_ect(s);
}
