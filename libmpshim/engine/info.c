/* engine/info.c: all that is known of one carrier's connection, for getsockopt() (CTL_INFO), and a program's say about its
 * paths (CTL_USE_LOCAL). */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include "engine/carrier.h"

static uint8_t state_of(const char *name)
{
    static const struct { const char *name; uint8_t state; } of[] = {
        { "ESTABLISHED", TCP_ESTABLISHED }, { "SYN-SENT", TCP_SYN_SENT }, { "SYN-RECEIVED", TCP_SYN_RECV },
        { "FIN-WAIT-1", TCP_FIN_WAIT1 }, { "FIN-WAIT-2", TCP_FIN_WAIT2 }, { "TIME-WAIT", TCP_TIME_WAIT },
        { "CLOSE-WAIT", TCP_CLOSE_WAIT }, { "LAST-ACK", TCP_LAST_ACK }, { "CLOSING", TCP_CLOSING },
    };
    for (size_t i = 0; name && i < sizeof of / sizeof *of; i++)
        if (!strcmp(name, of[i].name))
            return of[i].state;
    return TCP_CLOSE;
}

static uint32_t us(mp_dur d) { return d / 1000 > UINT32_MAX ? UINT32_MAX : (uint32_t)(d / 1000); }

static uint64_t ms(mp_time t) { return t / MP_MS(1); }

static void subflow(const struct mpc_subflow_info *s, struct ctl_subflow *o)
{
    *o = (struct ctl_subflow){
        .ifindex = (uint32_t)s->ifindex, .id_local = s->addr_id_local, .id_remote = s->addr_id_remote,
        .id = (uint16_t)s->id, .backup = s->backup, .stale = s->stale, .initial = s->initial, .state = state_of(s->state),
        .wscale = s->wscale, .timestamps = s->timestamps, .sack = s->sack, .ecn = s->ecn,
        .mss = s->mss, .mtu = s->mtu, .srtt_us = us(s->srtt), .rttvar_us = us(s->rttvar), .min_rtt_us = us(s->min_rtt),
        .rto_us = us(s->rto), .sent_at_ms = ms(s->last_sent), .recv_at_ms = ms(s->last_recv), .heard_at_ms = ms(s->last_heard), .cwnd = s->cwnd, .ssthresh = s->ssthresh, .flight = s->flight, .snd_wnd = s->snd_wnd,
        .bytes_sent = s->bytes_sent, .bytes_acked = s->bytes_acked, .bytes_received = s->bytes_received,
        .bytes_retrans = s->bytes_retrans,
    };
    memcpy(o->ifname, s->ifname, sizeof o->ifname);
    eng_to_sa(&s->local, AF_INET, &o->local);
    eng_to_sa(&s->remote, AF_INET, &o->remote);
}

void eng_conn_info(const struct mpc *m, struct ctl_conn_info *out)
{
    struct mpc_subflow_info sf[CTL_SUBFLOWS];
    struct mpc_info i;
    mpc_get_info(m, &i);
    *out = (struct ctl_conn_info){
        .flags = (i.server ? CTL_I_SERVER : 0u) | (i.established ? CTL_I_ESTABLISHED : 0u) | (i.multipath ? CTL_I_MULTIPATH : 0u) |
                 (i.csum ? CTL_I_CSUM : 0u) | (i.peer_key_known ? CTL_I_PEER_KEY : 0u) | (i.fin_acked ? CTL_I_FIN_ACKED : 0u),
        .token = i.token, .subflows_ever = (uint32_t)i.subflows_ever, .snd_nxt = i.snd_nxt, .snd_una = i.snd_una, .rcv_nxt = i.rcv_nxt,
        .bytes_acked = i.bytes_acked, .unsent = i.unsent, .unread = i.unread, .bytes_reinjected = i.reinjected, .bytes_retrans = i.reinjected,
        .sent_at_ms = ms(i.last_sent), .recv_at_ms = ms(i.last_recv), .acked_at_ms = ms(i.last_ack), .rexmits = (uint32_t)i.rexmits,
        .addr_signalled = (uint8_t)i.addr_signalled, .addr_accepted = (uint8_t)i.addr_accepted, .subflows_max = (uint8_t)i.subflows_max,
    };
    for (int k = 0, n = mpc_get_subflows(m, sf, CTL_SUBFLOWS); k < n; k++)
        out->bytes_retrans += sf[k].bytes_retrans;
}

static void subflows(const struct mpc *m, struct ctl_info *out)
{
    struct mpc_subflow_info sf[CTL_SUBFLOWS];
    out->n = (uint32_t)mpc_get_subflows(m, sf, CTL_SUBFLOWS);
    for (uint32_t k = 0; k < out->n; k++)
        subflow(&sf[k], &out->sf[k]);
}

void eng_carrier_info(struct engine *e, const struct ctl_req *q, struct ctl_info *out)
{
    eng_carrier_query(e, q, &out->rep);
    struct carrier *c = out->rep.result ? NULL : eng_carrier_named(e, q);
    if (!c)
        return;
    if (!c->mpc) {
        out->conn = c->last_conn;
        return;
    }
    eng_conn_info(c->mpc, &out->conn);
    subflows(c->mpc, out);
}

int eng_carrier_use_local(struct engine *e, const struct ctl_req *q)
{
    struct carrier *c = eng_carrier_named(e, q);
    struct mp_endpoint at;
    if (!c || !c->mpc)
        return -ENOTCONN;
    if (!eng_from_sa(&q->remote, &at))
        return -EINVAL;
    int err = mpc_use_local(c->mpc, &at.ip, q->value, eng_now());
    eng_touch(e);
    return err;
}
