/* Segments out of a subflow: what is due, how a header is filled; SYN and RST. */
#include "core/sf_out.h"

#include <errno.h>

/* ---- header ---- */

void out_begin(struct sf *s, struct mp_pkt *out, mp_ssn ssn, uint8_t flags)
{
    memset(out, 0, sizeof *out);
    out->src = s->v.local;
    out->dst = s->v.remote;
    out->ifindex = s->v.ifindex;
    out->flow = s->flow;
    out->conn = s->c;
    out->seq = s->v.iss + (uint32_t)ssn;
    out->flags = flags;
    out->tos = s->c->v.tos;
    out->ttl = s->c->v.ttl;
    out->mark = s->c->v.mark;
    out->priority = s->c->v.priority;
    if (flags & MP_ACK) out->ack = s->v.irs + (uint32_t)s->v.rcv_nxt;
    if (!(flags & MP_SYN)) out->wnd = (uint16_t)sf_wire_window(s);
}

void out_timestamps(struct sf *s, struct mp_opts *o, mp_time now)
{
    if (!s->v.ts_on) return;
    o->has_ts = true;
    o->ts_val = sf_ts(s, now);
    o->ts_ecr = s->v.ts_recent;
}

void out_finish(struct sf *s, struct mp_pkt *out, struct mp_opts *o, mp_time now)
{
    conn_dsn_out(s->c, o);
    out->optlen = (uint8_t)mp_opts_len(o);
    mp_opts_emit(out->opt, o);
    s->v.last_sent = now;
    if (out->flags & MP_ACK) {
        s->v.ack_now = false;
        s->v.ack_bytes = 0;
        s->v.dsack = false;
        s->v.last_ack_sent = s->v.rcv_nxt;
        sf_arm(s, SFT_DELACK, MP_NEVER);
    }
}

/* false: there is no room, nor for any other. */
static bool push_sack(struct sf *s, struct mp_opts *o, mp_ssn l, mp_ssn r, uint32_t room)
{
    if (o->nsack == MP_MAX_SACK) return false;
    uint32_t left = s->v.irs + (uint32_t)l, right = s->v.irs + (uint32_t)r;
    for (int i = s->v.dsack; i < o->nsack; i++) /* the D-SACK lies within one of them: RFC 2883 4 */
        if (o->sack[i].left == left) return true;
    o->sack[o->nsack].left = left;
    o->sack[o->nsack++].right = right;
    if (mp_opts_len(o) <= room) return true;
    o->nsack--;
    return false;
}

/* RFC 2018 4: the most recent first; RFC 2883: a duplicate before all. Filled into `room` bytes of options. */
void out_sack(struct sf *s, struct mp_opts *o, uint32_t room)
{
    uint64_t l, r;
    if (room > 40) room = 40;
    if (!s->v.sack_on) return;
    if (s->v.dsack) push_sack(s, o, s->v.dsack_l, s->v.dsack_r, room);
    if (!s->ooo.n) return;
    for (int i = 0; i < 3; i++)
        if (s->v.sack_recent[i] > s->v.rcv_nxt && mp_rangemap_run(&s->ooo, s->v.sack_recent[i], &l, &r)) push_sack(s, o, l, r, room);
    mp_ssn at = s->v.rcv_nxt;
    while (mp_rangemap_run(&s->ooo, at, &l, &r) && push_sack(s, o, l, r, room)) at = r;
}

void out_data_ack(struct mpc *c, struct mp_opts *o)
{
    if (!c->v.peer_key_known || (c->v.rx_plain && !c->v.acks_go_on)) return;
    o->mp |= MP_OPT_HAS(MP_DSS);
    o->dss.has_ack = true;
    o->dss.ack64 = c->v.ack64;
    o->dss.data_ack = c->v.rcv_nxt + c->v.ack_its_end;
    c->v.ack_its_end = false;
    if (!o->dss.ack64) o->dss.data_ack &= 0xffffffffu;
}

/* RFC 8684 3.3.3: a bare DATA_FIN has SSN 0 and length 1. */
void out_data_fin(const struct mpc *c, struct mp_opts *o)
{
    o->mp |= MP_OPT_HAS(MP_DSS);
    o->dss.has_map = o->dss.dsn64 = o->dss.data_fin = true;
    o->dss.dsn = c->v.snd_end;
    o->dss.len = 1;
    o->dss.has_csum = c->v.csum;
    if (c->v.csum) o->dss.csum = mp_dss_csum(0, c->v.snd_end + c->v.tx_off, 0, 1);
}

/* ---- SYN ---- */

static uint32_t syn_mss(const struct sf *s, bool mp)
{
    uint32_t m = out_mss(s->v.mtu, s->v.local.ip.family, mp);
    return s->c->v.max_seg && s->c->v.max_seg < m ? s->c->v.max_seg : m;
}

static void syn_capable(struct sf *s, struct mp_opts *o)
{
    struct mpc *c = s->c;
    o->mp |= MP_OPT_HAS(MP_CAPABLE);
    o->capable = (struct mp_opt_capable){ .version = c->v.version, .hmac_sha256 = true };
    o->capable.csum_req = s->v.passive ? c->v.csum : s->st->set.checksum;
    o->capable.no_join_initial = c->v.version && s->st->set.no_join_initial;
    if (s->v.passive || !c->v.version) { /* RFC 6824 3.1: the client's key is in its SYN */
        o->capable.nkeys = 1;
        o->capable.key_snd = c->v.key_local;
    }
}

static void syn_join(struct sf *s, struct mp_opts *o)
{
    struct mpc *c = s->c;
    o->mp |= MP_OPT_HAS(MP_JOIN);
    o->join = (struct mp_opt_join){ .form = s->v.passive ? MP_JOIN_SYNACK : MP_JOIN_SYN, .backup = s->v.backup_local,
                                    .addr_id = s->v.addr_id_local, .nonce = s->v.nonce_local };
    if (!s->v.passive) {
        o->join.token = c->v.token_remote;
        return;
    }
    uint8_t h[32];
    conn_join_hmac(c, true, s->v.nonce_local, s->v.nonce_remote, h);
    memcpy(o->join.hmac, h, 8);
}

/* A receive buffer that the program made small needs no large unit. Linux cuts its segments where the window ends: with
 * edges at multiples of 256 many are short, and of two short ones in flight the second waits for the ACK of the first
 * (Nagle), a round trip on a path that brings three segments at a time. */
static uint8_t small_wscale(const struct mpc *c)
{
    uint8_t shift = 2;
    while (shift < WSCALE && (65535ull << shift) < c->v.rcvbuf + 65536) shift++;
    return shift;
}

static bool emit_syn(struct sf *s, struct mp_pkt *out, mp_time now)
{
    struct mpc *c = s->c;
    struct mp_opts o = { .has_mss = true };
    bool answer = s->v.state == SF_SYN_RCVD;
    out_begin(s, out, 0, (uint8_t)((answer ? MP_SYN | MP_ACK : MP_SYN) | ecn_syn_flags(s)));
    out->wnd = (uint16_t)mp_min(65535, conn_rcv_edge(c) - c->v.rcv_nxt);
    s->v.rcv_adv = 1 + (uint64_t)out->wnd;
    o.has_wscale = answer ? s->v.rcv_wscale > 0 : true;
    if (!answer && !s->seg_head) s->v.syn_wscale = small_wscale(s->c);
    o.wscale = answer ? s->v.rcv_wscale : s->v.syn_wscale;
    o.sack_ok = answer ? s->v.sack_on : true;
    if (answer)
        out_timestamps(s, &o, now);
    else {
        o.has_ts = true;
        o.ts_val = sf_ts(s, now);
    }
    if (s->v.initial && !answer && conn_mp(c) && !c->v.strict && s->v.syn_tries >= (int)s->st->set.syn_mp_tries) {
        st_count(s->st, MP_E_syn_no_option, 1, c);
        conn_fallback(c, s, FB_SYN_WITHOUT_OPTION, MP_WHY_SYN_DROPPED, now);
        race_without_option(c, now);
    }
    if (!s->v.initial)
        syn_join(s, &o);
    else if (conn_mp(c))
        syn_capable(s, &o);
    o.mss = (uint16_t)syn_mss(s, o.mp & (MP_OPT_HAS(MP_CAPABLE) | MP_OPT_HAS(MP_JOIN)));
    struct sf_seg *g = s->seg_head;
    if (!g) {
        g = sf_seg_add(s, 0, 1);
        if (!g) return false;
        g->syn = true;
        s->v.snd_nxt = 1;
        if (!s->v.initial && !s->v.passive) st_count(s->st, MP_E_join_syn_out, 1, c);
    } else
        st_count(s->st, MP_E_seg_rexmit, 1, c);
    s->v.pipe = 1;
    g->lost = false;
    g->sent = now;
    if (!g->sent_count) g->first = now;
    if (g->sent_count < 255) g->sent_count++;
    out_finish(s, out, &o, now);
    sf_arm_rexmit(s, now);
    return true;
}

static bool syn_due(const struct sf *s)
{
    if (s->v.mute || (s->v.state != SF_SYN_SENT && s->v.state != SF_SYN_RCVD)) return false;
    return !s->seg_head || s->seg_head->lost;
}

/* ---- RST ---- */

static bool emit_rst(struct sf *s, struct mp_pkt *out, mp_time now)
{
    struct mpc *c = s->c;
    struct mp_opts o = { 0 };
    bool never_answered = s->v.state == SF_CLOSED && !s->v.rcv_nxt; /* sf_give_up_join: there is nothing to acknowledge */
    /* RFC 6824 3.5: the fast close of version 0 is an ACK; the peer answers with a reset. */
    bool by_ack = !c->v.version && s->v.reset_fastclose && conn_mp(c);
    out_begin(s, out, s->v.snd_nxt, by_ack ? MP_ACK : never_answered ? MP_RST : MP_RST | MP_ACK);
    if (s->v.reset_sent) out->seq = s->v.reset_seq;
    if (s->v.reset_fastclose) {
        o.mp |= MP_OPT_HAS(MP_FASTCLOSE);
        o.fastclose_key = c->v.key_remote;
        st_count(s->st, MP_E_fastclose_out, 1, c);
    } else if (conn_mp(c)) {
        if (c->v.version) o.mp |= MP_OPT_HAS(MP_TCPRST);
        o.tcprst.reason = s->v.reset_reason;
        o.tcprst.transient = s->v.reset_transient;
        if (c->v.mp_fail_pending && s->v.reset_reason == MP_RST_MIDDLEBOX) {
            o.mp |= MP_OPT_HAS(MP_FAIL);
            o.fail_dsn = c->v.mp_fail_dsn;
            c->v.mp_fail_pending = false;
            st_count(s->st, MP_E_fail_out, 1, c);
        }
    }
    out_finish(s, out, &o, now);
    s->v.reset_pending = false;
    if (c->v.err && s->v.reset_fastclose && s->v.state != SF_CLOSED) {
        /* RFC 8684 3.5: the reset may be lost or overtake data, and a plain one would only end the subflow: say it
         * again, with the option, to whatever still comes. */
        s->v.reset_sent = true;
        sf_set_state(s, SF_CLOSED, now);
        while (s->seg_head) sf_seg_drop(s, s->seg_head);
        for (int i = 0; i < SFT_COUNT; i++) sf_arm(s, (enum sf_timer)i, MP_NEVER);
        sf_arm(s, SFT_TIME_WAIT, now + mp_min(mp_max(MP_SEC(1), 4 * s->v.rto), MP_SEC(60)));
    }
    if (!s->v.reset_sent) sf_die(s, ECONNABORTED, now);
    return true;
}

bool sf_poll(struct sf *s, struct mp_pkt *out, mp_time now)
{
    if (s->v.dead) return false;
    if (s->v.reset_pending) return emit_rst(s, out, now);
    if (syn_due(s)) return emit_syn(s, out, now);
    if (s->v.state < SF_ESTABLISHED) return false;
    if (s->seg_head && sf_emit_rexmit(s, out, now)) return true;
    if (sf_fin_due(s)) return sf_emit_fin(s, out, now);
    if (sf_ack_due(s)) return sf_emit_ack(s, out, now);
    return false;
}
