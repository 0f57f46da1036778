/* Who gets a segment, or an error of the network; what is answered to those of nobody. */
#include "core/stack_int.h"

#include <errno.h>

/* ---- segments of nobody ---- */

/* RFC 9293 3.10.7.1: a segment for no connection is answered by a reset that the sender will believe. */
struct mp_pkt *st_stray(struct mp_stack *st, const struct mp_pkt *p)
{
    if (st->nstray == ST_MAX_STRAY) return NULL;
    struct mp_pkt *r = &st->stray[st->nstray++];
    memset(r, 0, sizeof *r);
    r->src = p->dst;
    r->dst = p->src;
    r->ifindex = p->ifindex;
    return r;
}

void st_stray_rst(struct mp_stack *st, const struct mp_pkt *p, int reason)
{
    if (p->flags & MP_RST) {
        st_count(st, MP_E_no_flow_ignored, 1, NULL);
        return;
    }
    struct mp_pkt *r = st_stray(st, p);
    if (!r) return;
    r->flags = MP_RST;
    if (p->flags & MP_ACK)
        r->seq = p->ack;
    else {
        r->flags |= MP_ACK;
        r->ack = p->seq + p->len + !!(p->flags & MP_SYN) + !!(p->flags & MP_FIN);
    }
    if (reason >= 0) {
        struct mp_opts o = { .mp = MP_OPT_HAS(MP_TCPRST), .tcprst = { .reason = (uint8_t)reason } };
        r->optlen = (uint8_t)mp_opts_len(&o);
        mp_opts_emit(r->opt, &o);
    }
}

/* ---- in ---- */

/* RFC 6191 2, RFC 9293 3.6.1: a SYN with a later timestamp, or a number past what was received, is no old duplicate. */
static bool can_be_followed(const struct sf *old, const struct mp_pkt *p, const struct mp_opts *o)
{
    if (old->v.state != SF_TIME_WAIT || (p->flags & (MP_SYN | MP_ACK | MP_RST)) != MP_SYN) return false;
    if (!old->v.ts_on && o->has_ts) return true; /* old segments have none, and would be refused (RFC 7323 3.2) */
    if (old->v.ts_on && o->has_ts && o->ts_val != old->v.ts_recent) return (int32_t)(o->ts_val - old->v.ts_recent) > 0;
    return (int32_t)(p->seq - (old->v.irs + (uint32_t)old->v.rcv_nxt)) >= 0;
}

static void follow_time_wait(struct mp_stack *st, struct sf *old, struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    uint32_t end = isn_end(old);
    st_count(st, MP_E_time_wait_reused, 1, old->c);
    sf_die(old, 0, now);
    conn_reap(old->c, now);
    st->follow_end = end;
    st->follows = true;
    st_syn_in(st, p, o, now);
    st->follows = false;
    struct sf *s = st_find(st, &p->dst, &p->src);
    if (s) isn_follow(s, end); /* a join */
}

void mp_stack_input(struct mp_stack *st, struct mp_pkt *p, mp_time now)
{
    struct mp_opts o;
    st->now = now;
    st->counter[MP_E_pkt_in]++;
    if (mp_opts_parse(&o, p->opt, p->optlen, p->flags) < 0) {
        st_count(st, MP_E_opt_list_broken, 1, NULL);
        return;
    }
    if (o.bad) st_count(st, MP_E_opt_bad, o.bad, NULL);
    struct sf *s = st_find(st, &p->dst, &p->src);
    if (s && s->v.dead) { /* over, only not cleared away yet */
        conn_reap(s->c, now);
        s = NULL;
    }
    if (s && s->v.passive && can_be_followed(s, p, &o)) {
        follow_time_wait(st, s, p, &o, now);
        return;
    }
    if (!s && (half_input(st, p, &o, &s, now) || cookie_input(st, p, &o, &s, now)) && !s) return;
    if (s) {
        struct mpc *c = s->c;
        conn_dsn_in(c, &o);
        sf_input(s, p, &o, now);
        conn_touch(c);
        return;
    }
    if ((p->flags & (MP_SYN | MP_ACK | MP_RST | MP_FIN)) == MP_SYN)
        st_syn_in(st, p, &o, now);
    else {
        st_count(st, MP_E_no_flow, 1, NULL);
        st_stray_rst(st, p, -1);
    }
}

void mp_stack_input_unowned(struct mp_stack *st, struct mp_pkt *p, mp_time now)
{
    struct mp_opts o;
    struct sf *s = NULL;
    if ((!st->cookies_at && !st->nhalf) || st_find(st, &p->dst, &p->src) || mp_opts_parse(&o, p->opt, p->optlen, p->flags) < 0) return;
    st->now = now;
    if (!half_input(st, p, &o, &s, now)) cookie_input(st, p, &o, &s, now);
    if (!s) return;
    st->counter[MP_E_pkt_in]++;
    conn_dsn_in(s->c, &o);
    sf_input(s, p, &o, now);
    conn_touch(s->c);
}

static struct sf *of_flow(const struct mp_stack *st, const void *flow)
{
    for (struct mpc *c = st->all; c; c = c->next)
        for (struct sf *s = c->sfs; s; s = s->next)
            if (s->flow == flow && !s->v.dead) return s;
    return NULL;
}

void mp_stack_net_error(struct mp_stack *st, void *flow, int err, uint32_t seq, bool must_match, uint32_t mtu, mp_time now)
{
    struct sf *s = of_flow(st, flow);
    st->now = now;
    if (!s) return;
    st_count(st, MP_E_net_error, 1, s->c);
    mp_ssn at = mp_expand32(s->v.snd_una, seq - s->v.iss);
    if (must_match && (at < s->v.snd_una || at >= s->v.snd_nxt)) return; /* RFC 5927 4: not in flight */
    if (err == EMSGSIZE)
        pmtu_told(s, mtu);
    else if (s->v.state == SF_SYN_SENT)
        sf_die(s, err, now); /* RFC 9293 3.9.2.2: hard while opening, soft afterwards */
    conn_touch(s->c);
}

void mp_stack_no_way(struct mp_stack *st, void *flow, uint32_t seq, mp_time now)
{
    struct sf *s = of_flow(st, flow);
    st->now = now;
    if (!s || seq - s->v.iss != (uint32_t)s->v.snd_una) return;
    sf_no_way(s, now);
    conn_touch(s->c);
}
