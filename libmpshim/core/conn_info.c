/* What the owner asks and sets: facts about a connection for people and for getsockopt, options. */
#include "core/stack_int.h"

#include <errno.h>

const char *mp_plain_why_text(enum mp_plain_why w)
{
    switch (w) {
    case MP_WHY_MULTIPATH: return "MPTCP is in use";
    case MP_WHY_PENDING: return "not known yet";
    case MP_WHY_NO_OPTION_SYNACK: return "the peer or the path has no MPTCP (no MP_CAPABLE in the handshake)";
    case MP_WHY_SYN_DROPPED: return "SYNs with the MPTCP option were not answered, one without was";
    case MP_WHY_NO_OPTION_ACK: return "MPTCP options vanished on the path after the handshake";
    case MP_WHY_NO_DSS: return "data came without MPTCP mapping";
    case MP_WHY_CHECKSUM: return "payload was changed on the way (DSS checksum)";
    case MP_WHY_PEER_FAIL: return "the peer asked for it (MP_FAIL or infinite mapping)";
    case MP_WHY_VERSION: return "the peer speaks another MPTCP version";
    case MP_WHY_SIMOPEN: return "simultaneous open";
    case MP_WHY_SETTING: return "by setting";
    }
    return "unknown";
}

void mpc_get_info(const struct mpc *c, struct mpc_info *i)
{
    memset(i, 0, sizeof *i);
    i->local = c->v.local;
    i->remote = c->v.remote;
    i->server = c->v.server;
    i->established = c->v.established;
    i->multipath = conn_mp(c) && c->v.fb == FB_CONFIRMED;
    i->why = c->v.why;
    i->token = c->v.token_local;
    i->bytes_written = c->v.snd_end - (c->v.idsn_local + 1);
    i->bytes_acked = c->v.snd_una - (c->v.idsn_local + 1);
    i->bytes_read = c->v.bytes_read;
    i->snd_nxt = c->v.snd_nxt + c->v.fin_sent;
    i->snd_una = c->v.snd_una + c->v.fin_acked;
    i->rcv_nxt = c->v.rcv_nxt + (c->v.fin_consumed && !c->v.rx_plain);
    i->fin_acked = c->v.fin_acked;
    i->peer_key_known = c->v.peer_key_known;
    i->reinjected = c->v.reinjected_bytes;
    i->unsent = conn_queued(c);
    i->unread = c->v.rxq_bytes;
    i->snd_wnd = c->v.snd_edge > c->v.snd_nxt ? c->v.snd_edge - c->v.snd_nxt : 0;
    i->rcv_wnd = c->v.rcv_edge > c->v.rcv_nxt ? c->v.rcv_edge - c->v.rcv_nxt : 0;
    i->opened = c->v.opened;
    i->last_sent = c->v.data_sent_at ? c->v.data_sent_at : c->v.opened;
    i->last_recv = c->v.data_recv_at ? c->v.data_recv_at : c->v.opened;
    i->last_ack = c->v.last_data_ack ? c->v.last_data_ack : c->v.opened;
    i->rexmits = c->v.data_rexmits;
    for (int k = 0; k < PM_MAX_REMOTE; k++) {
        i->addr_signalled += c->v.announce[k].at.ip.family && c->v.announce[k].tries;
        i->addr_accepted += k && c->v.remotes[k].used;
    }
    i->subflows_max = (int)c->st->set.max_subflows;
    i->nsubflows = conn_nlive(c);
    i->subflows_ever = c->v.sf_ever;
    i->cc = c->cc->name;
    i->sched = c->sched->name;
    i->csum = c->v.csum;
}

int mpc_get_subflows(const struct mpc *c, struct mpc_subflow_info *v, int max)
{
    int n = 0;
    for (const struct sf *s = c->sfs; s && n < max; s = s->next) {
        if (s->v.dead || s->v.mute) continue;
        struct mpc_subflow_info *i = &v[n++];
        *i = (struct mpc_subflow_info){ .local = s->v.local, .remote = s->v.remote, .ifindex = s->v.ifindex,
            .state = sf_state_name(s->v.state), .backup = s->v.backup_local || s->v.backup_remote || s->v.backup_asked, .stale = s->v.stale,
            .initial = s->v.initial, .id = s->v.id, .last_sent = s->v.data_sent_at,
            .last_recv = s->v.data_recv_at, .last_heard = s->v.last_recv, .addr_id_local = s->v.addr_id_local, .addr_id_remote = s->v.addr_id_remote,
            .srtt = s->v.srtt, .rttvar = s->v.rttvar, .min_rtt = s->v.min_rtt, .cwnd = s->v.cc.cwnd,
            .ssthresh = s->v.cc.ssthresh, .flight = s->v.pipe, .bytes_sent = s->v.bytes_sent, .bytes_acked = s->v.bytes_acked,
            .bytes_received = s->v.bytes_received, .bytes_retrans = s->v.bytes_retrans, .mss = s->v.state == SF_SYN_SENT ? 0 : s->v.mss, .mtu = s->v.mtu,
            .rto = s->v.rto, .snd_wnd = s->v.snd_wnd, .wscale = s->v.snd_wscale || s->v.rcv_wscale, .timestamps = s->v.ts_on,
            .sack = s->v.sack_on, .ecn = s->v.ecn_on };
        memcpy(i->ifname, s->v.ifname, sizeof i->ifname);
    }
    return n;
}

int mpc_get_paths(const struct mpc *c, struct mpc_path_info *v, int max)
{
    int n = 0;
    for (; n < c->v.npaths && n < max; n++) v[n] = c->paths[n];
    for (const struct sf *s = c->sfs; s; s = s->next) {
        if (s->v.dead) continue;
        for (int i = 0; i < n; i++)
            if (strcmp(v[i].ifname, s->v.ifname) == 0 && mp_addr_eq(&v[i].local, &s->v.local.ip)) {
                v[i].bytes_sent += s->v.bytes_acked;
                v[i].bytes_received += s->v.bytes_received;
                v[i].live |= s->v.state >= SF_ESTABLISHED && s->v.state != SF_TIME_WAIT;
                break;
            }
    }
    return n;
}

void *mpc_owner(const struct mpc *c) { return c->owner; }
void mpc_set_owner(struct mpc *c, void *owner) { c->owner = owner; }

static int use_cc(struct mpc *c, uint64_t number, mp_time now)
{
    const struct mp_cc *cc = number ? NULL : mp_cc_find(c->st->set.cc);
    for (uint64_t i = 0; mp_cc_all[i]; i++)
        if (i + 1 == number) cc = mp_cc_all[i];
    if (!cc) return -ENOENT;
    if (cc == c->cc) return 0;
    c->cc = cc;
    for (struct sf *s = c->sfs; s; s = s->next) { /* windows stay; what the other one kept for itself does not */
        memset(s->v.cc.priv, 0, sizeof s->v.cc.priv);
        s->v.cc.acked_since_grow = 0;
        if (cc->init && s->v.cc.cwnd) cc->init(&s->v.cc, now);
    }
    return 0;
}

int mpc_setopt(struct mpc *c, enum mpc_opt opt, uint64_t v, mp_time now)
{
    switch (opt) {
    case MPC_NODELAY: c->v.nodelay = v; break;
    case MPC_CORK: c->v.cork = v; break;
    case MPC_KEEPALIVE: c->v.keepalive = v; break;
    case MPC_KEEPIDLE_S: c->v.keepidle_s = (uint32_t)v; break;
    case MPC_KEEPINTVL_S: c->v.keepintvl_s = (uint32_t)v; break;
    case MPC_KEEPCNT: c->v.keepcnt = (uint32_t)v; break;
    case MPC_USER_TIMEOUT_MS:
        c->v.user_timeout_ms = (uint32_t)v;
        conn_arm_user_timeout(c);
        break;
    case MPC_RCVBUF:
        c->v.rcvbuf = mp_max(16384, mp_min(v, 1u << 30));
        hol_buffer_changed(c, now);
        break;
    case MPC_SNDBUF: c->v.sndbuf = mp_max(16384, mp_min(v, 1u << 30)); break;
    case MPC_STRICT: c->v.strict = v; break;
    case MPC_TOS: c->v.tos = (uint8_t)v & 0xfc; break; /* the ECN bits are the transport's */
    case MPC_MAXSEG: c->v.max_seg = (uint32_t)mp_max(88, mp_min(v, 65535)); break; /* of subflows that open from now on */
    case MPC_TTL: c->v.ttl = (uint8_t)v; break;
    case MPC_PRIORITY: c->v.priority = (uint32_t)v; break;
    case MPC_MARK:
        if (c->v.mark == (uint32_t)v) break;
        c->v.mark = (uint32_t)v;
        pm_routes_changed(c, now); /* the host may route by it */
        break;
    case MPC_CC: return use_cc(c, v, now);
    default: return -EINVAL;
    }
    if (opt == MPC_KEEPALIVE || opt == MPC_KEEPIDLE_S)
        for (struct sf *s = c->sfs; s; s = s->next)
            sf_arm(s, SFT_KEEPALIVE, c->v.keepalive && sf_is_open(s) ? s->v.last_recv + MP_SEC(c->v.keepidle_s ? c->v.keepidle_s : 7200) : MP_NEVER);
    conn_touch(c);
    return 0;
}
