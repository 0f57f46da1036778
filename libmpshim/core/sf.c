/* Subflow life: states, timers, RTT. */
#include "core/stack_int.h"

#include <errno.h>
#include <stdlib.h>

const char *sf_state_name(enum sf_state s)
{
    static const char *const name[] = { "CLOSED", "SYN-SENT", "SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2",
                                        "CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT" };
    return name[s];
}

struct sf *sf_new(struct mp_stack *st, struct mpc *c, const struct mp_endpoint *local, const struct mp_endpoint *remote,
                  int ifindex, void *flow, mp_time now)
{
    struct sf *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->st = st;
    s->c = c;
    s->flow = flow;
    s->v.local = *local;
    s->v.remote = *remote;
    s->v.ifindex = ifindex;
    s->v.iss = isn_new(st, local, remote, now);
    s->v.ts_offset = ts_offset(st, &local->ip, &remote->ip);
    s->v.rto = MP_SEC(1); /* RFC 6298 2.1 */
    s->v.peer_mss = local->ip.family == 4 ? 536 : 1220; /* RFC 9293 3.7.1 */
    s->v.created = s->v.last_recv = s->v.last_fit = s->v.data_sent_at = s->v.data_recv_at = now;
    uint32_t mtu = st->ops.mtu ? st->ops.mtu(st->arg, ifindex) : 0;
    s->v.mtu = s->v.mtu_link = mtu ? mtu : 1500;
    s->v.mtu_again = MP_NEVER;
    for (int i = 0; i < SFT_COUNT; i++) s->v.timer[i] = MP_NEVER;
    mp_rangemap_init(&s->ooo, st_rand32(st));
    return s;
}

void sf_free(struct sf *s)
{
    if (s->v.state == SF_TIME_WAIT) s->st->ntime_wait--;
    while (s->seg_head) sf_seg_drop(s, s->seg_head);
    sf_drop_held(s);
    mp_rangemap_fini(&s->ooo);
    free(s->map);
    free(s->hold);
    st_hash_del(s->st, s);
    if (s->flow) s->st->ops.flow_close(s->st->arg, s->flow);
    if (!s->v.passive) s->st->ops.port_put(s->st->arg, s->v.local.ip.family, s->v.local.port);
    free(s);
}

void sf_arm(struct sf *s, enum sf_timer t, mp_time at) { s->v.timer[t] = at; }

mp_time sf_deadline(const struct sf *s)
{
    mp_time min = MP_NEVER;
    if (s->v.dead) return min;
    for (int i = 0; i < SFT_COUNT; i++) min = mp_min(min, s->v.timer[i]);
    return min;
}

/* TIME_WAIT of one more subflow. A busy server that closes first would keep a minute's connections: beyond some number each
 * stays a shorter time, as every host's table of them is bounded (at 3000 connections/s: 15,000 of them, 5 s). */
mp_dur sf_time_wait(const struct mp_stack *st)
{
    double n = (double)st->ntime_wait / ST_TIME_WAIT_MANY;
    mp_dur full = MP_SEC(st->set.time_wait_s);
    return n <= 1 ? full : mp_max((mp_dur)((double)full / (n * n)), MP_SEC(1));
}

void sf_set_state(struct sf *s, enum sf_state state, mp_time now)
{
    if (s->v.state == state) return;
    if (state == SF_TIME_WAIT) s->st->ntime_wait++;
    s->v.state = state;
    if (state == SF_TIME_WAIT) {
        for (int i = 0; i < SFT_COUNT; i++) s->v.timer[i] = MP_NEVER;
        sf_arm(s, SFT_TIME_WAIT, now + sf_time_wait(s->st));
    }
}

/* ---- MSS ---- */

/* The largest payload of a segment: what the peer takes and the path carries, less the options at their largest
 * (timestamps 12, a full DSS 28), so that all segments are alike and a GSO run can be cut by one size. */
void sf_update_mss(struct sf *s)
{
    uint32_t hdr = mp_header_len(s->v.local.ip.family);
    uint32_t m = s->v.mtu > hdr + 88 ? s->v.mtu - hdr : 88;
    if (s->v.peer_mss < m) m = s->v.peer_mss;
    if (s->c->v.max_seg && s->c->v.max_seg < m) m = s->c->v.max_seg;
    uint32_t opts = (s->v.ts_on ? 12 : 0) + (conn_mp(s->c) || s->c->v.infinite_pending ? 28 : 0);
    m = m > opts + 40 ? m - opts : 40;
    s->v.mss = m;
    s->v.cc.mss = m;
}

/* ---- opening ---- */

void sf_connect(struct sf *s, mp_time now)
{
    s->v.snd_una = 0;
    s->v.snd_nxt = 0;
    s->v.snd_wnd = 65535;
    sf_update_mss(s);
    sf_set_state(s, SF_SYN_SENT, now);
    s->v.last_progress = now;
}

static void take_syn_options(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    s->v.irs = p->seq;
    s->v.rcv_nxt = 1;
    if (s->v.rcv_adv < 1) s->v.rcv_adv = 1;
    if (o->has_mss) s->v.peer_mss = o->mss < 88 ? 88 : o->mss;
    s->v.ts_on = o->has_ts;
    if (o->has_ts) {
        s->v.ts_recent = s->v.ts_old = s->v.ts_mark = o->ts_val;
        s->v.ts_recent_at = now;
    }
    s->v.sack_on = o->sack_ok;
    s->v.snd_wscale = o->has_wscale ? o->wscale : 0;
    s->v.rcv_wscale = !o->has_wscale ? 0 : s->v.syn_wscale ? s->v.syn_wscale : WSCALE;
    s->v.snd_wnd = s->v.snd_wnd_max = p->wnd; /* never scaled in a SYN, RFC 7323 2.2 */
    sf_update_mss(s);
    s->v.cc.cwnd = mp_cc_initial_window(s->v.mss);
    s->v.cc.ssthresh = UINT64_MAX;
    if (s->c->cc->init) s->c->cc->init(&s->v.cc, now);
}

void sf_accept_syn(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    take_syn_options(s, p, o, now);
    ecn_syn_in(s, p);
    s->v.snd_una = s->v.snd_nxt = 0;
    s->v.quick_acks = SF_QUICK_ACKS;
    sf_set_state(s, SF_SYN_RCVD, now);
}

void sf_synack_in(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    take_syn_options(s, p, o, now);
    ecn_synack_in(s, p);
    s->v.quick_acks = SF_QUICK_ACKS;
    s->v.snd_wl1 = 0;
    s->v.snd_wl2 = 1;
}

/* ---- ending ---- */

void sf_close(struct sf *s, mp_time now)
{
    if (s->v.dead || s->v.fin_queued) return;
    switch (s->v.state) {
    case SF_SYN_SENT:
    case SF_CLOSED:
        sf_die(s, 0, now);
        return;
    case SF_SYN_RCVD:
    case SF_ESTABLISHED:
    case SF_CLOSE_WAIT:
        s->v.fin_queued = true;
        return;
    default:
        return;
    }
}

void sf_abort(struct sf *s, uint8_t reason, bool transient, mp_time now)
{
    (void)now;
    if (s->v.dead || s->v.reset_pending) return;
    if ((s->v.state == SF_SYN_SENT && !s->v.rcv_nxt) || s->v.state == SF_TIME_WAIT) {
        sf_die(s, ECONNRESET, now);
        return;
    }
    s->v.reset_pending = true;
    s->v.reset_reason = reason;
    s->v.reset_transient = transient;
    s->v.fully = false;
    st_count(s->st, MP_E_subflow_reset_out, 1, s->c);
}

/* The peer may be about to answer, and would wait for its join's third ACK, a fallback with it: tell it, and tell it
 * again when its SYN/ACK comes. */
void sf_give_up_join(struct sf *s, mp_time now)
{
    if (s->v.state != SF_SYN_SENT || !s->v.snd_nxt) {
        sf_abort(s, MP_RST_MIDDLEBOX, false, now);
        return;
    }
    while (s->seg_head) sf_seg_drop(s, s->seg_head);
    for (int i = 0; i < SFT_COUNT; i++) sf_arm(s, (enum sf_timer)i, MP_NEVER);
    sf_set_state(s, SF_CLOSED, now);
    sf_arm(s, SFT_TIME_WAIT, now + MP_SEC(1));
    s->v.reset_sent = s->v.reset_pending = true;
    s->v.reset_seq = s->v.iss + 1;
    st_count(s->st, MP_E_subflow_reset_out, 1, s->c);
}

void sf_die(struct sf *s, int err, mp_time now)
{
    if (s->v.dead) return;
    s->v.dead = true;
    s->v.fully = false;
    s->v.cc.active = false;
    conn_sf_gone(s->c, s, err, now);
}

/* ---- predicates ---- */

void sf_alive(struct sf *s)
{
    if (!s->v.aside) return;
    /* What was still queued when the link went is no sign of life. Taken for one, the subflow was kept over the link's
     * return although the peer, told by REMOVE_ADDR, had ended it: both sides then waited for the other for ever. */
    if (s->v.withheld || !st_has_local(s->st, s->v.ifindex, &s->v.local.ip)) return;
    s->v.aside = false;
    if (s->v.state < SF_TIME_WAIT && !s->c->v.closing) sf_arm(s, SFT_TIME_WAIT, MP_NEVER);
    if (!s->seg_head) s->v.stale = false; /* nothing of ours is waiting for an ACK there */
}

bool sf_is_open(const struct sf *s)
{
    return !s->v.dead && !s->v.reset_pending && (s->v.state == SF_ESTABLISHED || s->v.state == SF_CLOSE_WAIT);
}

bool sf_can_carry(const struct sf *s)
{
    return sf_is_open(s) && s->v.fully && !s->v.fin_queued && !s->v.fin_sent;
}

/* ---- RTT, RFC 6298 ---- */

void sf_rtt_sample(struct sf *s, mp_dur rtt)
{
    if (!s->v.srtt) {
        s->v.srtt = rtt;
        s->v.rttvar = rtt / 2;
    } else {
        mp_dur d = s->v.srtt > rtt ? s->v.srtt - rtt : rtt - s->v.srtt;
        s->v.rttvar = (3 * s->v.rttvar + d) / 4;
        s->v.srtt = (7 * s->v.srtt + rtt) / 8;
    }
    if (!s->v.min_rtt || rtt < s->v.min_rtt) s->v.min_rtt = rtt;
    s->v.cc.srtt = s->v.srtt;
    s->v.cc.min_rtt = s->v.min_rtt;
    s->v.cc.last_rtt = rtt;
    s->v.rto = s->v.srtt + mp_max(4 * s->v.rttvar, MP_MS(s->st->set.rto_min_ms));
    if (s->v.rto > MP_SEC(60)) s->v.rto = MP_SEC(60);
}

mp_dur sf_rto_now(const struct sf *s)
{
    mp_dur r = s->v.rto;
    for (int i = s->v.reverts; i < s->v.backoff && r < MP_SEC(60); i++) r *= 2;
    /* The last SYN with MP_CAPABLE does not wait its full turn: if the path drops the option, the next one, without it,
     * connects (matrix, drop-syn: after 2.1 s; the kernel after 3.4). */
    if (s->v.state == SF_SYN_SENT && s->v.initial && conn_mp(s->c) && !s->c->v.strict && s->v.syn_tries &&
        s->v.syn_tries + 1 >= (int)s->st->set.syn_mp_tries)
        return mp_min(r, MP_MS(1100)); /* longer than a lost SYN/ACK of the second takes to come again */
    if (s->v.state == SF_SYN_SENT && s->v.initial && s->c->v.why == MP_WHY_SYN_DROPPED) r /= 2; /* that one did not count */
    if (s->v.state == SF_SYN_SENT && s->v.silent) return SILENCE_KNOCK;
    /* A path that others stand in for is probed often, so that its return is noticed: one small segment each half second. */
    mp_dur most = s->v.stale ? mp_max(MP_MS(500), s->v.rto) : MP_SEC(60);
    return mp_min(r, most);
}

/* RFC 9293 3.8.6.1: doubled, as time-outs are. Counted apart from these: a window that was shut for long says nothing about the
 * path, and what is sent when it opens is neither repeated a minute later nor a sign that the path is dead. */
mp_dur sf_persist_wait(const struct sf *s) { return mp_min(s->v.rto << mp_min(s->v.persists, 8), MP_SEC(60)); }

/* ---- receive window ---- */

uint32_t sf_wire_window(struct sf *s)
{
    struct mpc *c = s->c;
    uint64_t edge = conn_rcv_edge(c);
    uint64_t wnd = edge > c->v.rcv_nxt ? edge - c->v.rcv_nxt : 0;
    uint64_t unit = wnd >> s->v.rcv_wscale;
    if (unit > 65535) unit = 65535;
    mp_ssn adv = s->v.rcv_nxt + (unit << s->v.rcv_wscale);
    if (adv > s->v.rcv_adv) s->v.rcv_adv = adv;
    s->v.adv_edge = edge;
    return (uint32_t)unit;
}

/* ---- timers ---- */

static bool fired(struct sf *s, enum sf_timer t, mp_time now)
{
    if (s->v.timer[t] > now) return false;
    s->v.timer[t] = MP_NEVER;
    return true;
}

static void keepalive_tick(struct sf *s, mp_time now)
{
    struct mpc *c = s->c;
    mp_dur idle = MP_SEC(c->v.keepidle_s ? c->v.keepidle_s : 7200), intvl = MP_SEC(c->v.keepintvl_s ? c->v.keepintvl_s : 75);
    /* Also after our FIN (RFC 9293 3.8.4): half closed, a peer that vanished would be waited for without end. */
    if (!c->v.keepalive || s->v.reset_pending || s->v.state < SF_ESTABLISHED || s->v.state >= SF_TIME_WAIT) return;
    if (s->seg_head || now - s->v.last_recv < idle) {
        s->v.keep_probes = 0;
        sf_arm(s, SFT_KEEPALIVE, mp_max(s->v.last_recv + idle, now + MP_MS(100)));
        return;
    }
    if (s->v.keep_probes >= (int)(c->v.keepcnt ? c->v.keepcnt : 9)) {
        sf_abort(s, MP_RST_UNSPECIFIED, true, now);
        if (!conn_nsync(c)) conn_fail(c, ETIMEDOUT, now); /* each of the others asks its own path */
        return;
    }
    s->v.keep_probes++;
    s->v.probes = 1; /* one segment below the window, RFC 9293 3.8.4 */
    st_count(s->st, MP_E_keepalive, 1, c);
    sf_arm(s, SFT_KEEPALIVE, now + intvl);
}

static void persist_tick(struct sf *s, mp_time now)
{
    if (!sf_can_carry(s) || s->seg_head) return;
    /* RFC 9293 3.8.6.1: kept open as long as the peer answers, and not longer. */
    mp_dur silent = now - mp_max(s->v.last_recv, s->v.last_progress);
    if (s->v.persists > 3 && silent > MP_SEC(15) * s->st->set.data_tries) {
        st_count(s->st, MP_E_subflow_timeout, 1, s->c);
        sf_die(s, ETIMEDOUT, now);
        return;
    }
    s->v.probes = 1;
    s->v.persists++;
    st_count(s->st, MP_E_zero_window_probe, 1, s->c);
    sf_arm(s, SFT_PERSIST, now + sf_persist_wait(s));
}

void sf_tick(struct sf *s, mp_time now)
{
    if (s->v.dead) return;
    if (fired(s, SFT_TIME_WAIT, now)) {
        bool last = s->v.aside && s->v.state < SF_TIME_WAIT && !s->c->v.closing && !conn_any_other(s->c, s);
        if (!last) {
            sf_die(s, 0, now);
            return;
        }
        sf_arm(s, SFT_TIME_WAIT, now + MP_SEC(2 * s->st->set.orphan_s)); /* its link is gone: nothing else would wait for it */
    }
    if (fired(s, SFT_DELACK, now)) s->v.ack_now = true;
    fired(s, SFT_PACE, now); /* being asked again is all it takes */
    if (fired(s, SFT_REORDER, now)) sf_on_reorder_timer(s, now);
    if (fired(s, SFT_PROBE, now)) sf_on_probe_timer(s, now);
    if (fired(s, SFT_STALL, now)) overdue_tick(s, now);
    if (fired(s, SFT_REXMIT, now)) sf_on_rto(s, now);
    if (s->v.dead) return;
    if (fired(s, SFT_PERSIST, now)) persist_tick(s, now);
    if (fired(s, SFT_KEEPALIVE, now)) keepalive_tick(s, now);
    if (fired(s, SFT_QUIET, now)) rescue_tick(s, now);
    if (fired(s, SFT_REMOVED, now)) pm_tick_removed(s, now);
    if (fired(s, SFT_ASK, now)) recall_ask(s, now);
    if (fired(s, SFT_JOIN_ACK, now) && !s->v.join_done) {
        if (++s->v.syn_tries > (int)s->st->set.syn_tries)
            sf_abort(s, MP_RST_UNSPECIFIED, true, now);
        else {
            s->v.ack_now = true;
            s->v.backoff++;
            sf_arm(s, SFT_JOIN_ACK, now + sf_rto_now(s));
        }
    }
}
