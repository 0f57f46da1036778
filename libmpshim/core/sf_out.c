/* Segments out of a subflow: what is due, and how its header is filled. */
#include "core/stack_int.h"

#include <errno.h>

#include "core/crypto.h"
#include "core/wire.h"

/* ---- header ---- */

static void base(struct sf *s, struct mp_pkt *out, mp_ssn ssn, uint8_t flags)
{
    memset(out, 0, sizeof *out);
    out->src = s->v.local;
    out->dst = s->v.remote;
    out->ifindex = s->v.ifindex;
    out->flow = s->flow;
    out->seq = s->v.iss + (uint32_t)ssn;
    out->flags = flags;
    out->tos = s->c->v.tos;
    out->ttl = s->c->v.ttl;
    if (flags & MP_ACK) out->ack = s->v.irs + (uint32_t)s->v.rcv_nxt;
    if (!(flags & MP_SYN)) out->wnd = (uint16_t)sf_wire_window(s);
}

static void add_timestamps(struct sf *s, struct mp_opts *o, mp_time now)
{
    if (!s->v.ts_on) return;
    o->has_ts = true;
    o->ts_val = sf_ts_now(now);
    o->ts_ecr = s->v.ts_recent;
}

static void finish(struct sf *s, struct mp_pkt *out, struct mp_opts *o, mp_time now)
{
    conn_dsn_out(s->c, o);
    out->optlen = (uint8_t)mp_opts_len(o, out->flags);
    mp_opts_emit(out->opt, o, out->flags);
    s->v.last_sent = now;
    if (out->flags & MP_ACK) {
        s->v.ack_now = false;
        s->v.ack_bytes = 0;
        s->v.dsack = false;
        s->v.last_ack_sent = s->v.rcv_nxt;
        sf_arm(s, SFT_DELACK, MP_NEVER);
    }
}

static bool fits_in(const struct mp_opts *o, uint8_t flags, uint32_t room) { return mp_opts_len(o, flags) <= room; }
static bool fits(const struct mp_opts *o, uint8_t flags) { return fits_in(o, flags, 40); }

static void push_sack(struct sf *s, struct mp_opts *o, mp_ssn l, mp_ssn r, uint8_t flags, uint32_t room)
{
    if (o->nsack == MP_MAX_SACK) return;
    uint32_t left = s->v.irs + (uint32_t)l, right = s->v.irs + (uint32_t)r;
    for (int i = 0; i < o->nsack; i++)
        if (o->sack[i].left == left) return;
    o->sack[o->nsack].left = left;
    o->sack[o->nsack++].right = right;
    if (!fits_in(o, flags, room)) o->nsack--;
}

/* RFC 2018 4: the most recent first; RFC 2883: a duplicate before all. Filled into `room` bytes of options. */
static void add_sack(struct sf *s, struct mp_opts *o, uint8_t flags, uint32_t room)
{
    uint64_t l, r;
    if (room > 40) room = 40;
    if (!s->v.sack_on) return;
    if (s->v.dsack) push_sack(s, o, s->v.dsack_l, s->v.dsack_r, flags, room);
    if (!s->ooo.n) return;
    for (int i = 0; i < 3; i++)
        if (s->v.sack_recent[i] > s->v.rcv_nxt && mp_rangemap_run(&s->ooo, s->v.sack_recent[i], &l, &r)) push_sack(s, o, l, r, flags, room);
    mp_ssn at = s->v.rcv_nxt;
    while (o->nsack < MP_MAX_SACK && mp_rangemap_run(&s->ooo, at, &l, &r)) {
        push_sack(s, o, l, r, flags, room);
        at = r;
    }
}

static void add_data_ack(struct mpc *c, struct mp_opts *o)
{
    if (!c->v.peer_key_known || c->v.rx_plain) return;
    o->mp |= MP_OPT_HAS(MP_DSS);
    o->dss.has_ack = true;
    o->dss.ack64 = c->v.ack64;
    o->dss.data_ack = c->v.rcv_nxt;
    if (!o->dss.ack64) o->dss.data_ack &= 0xffffffffu;
}

/* ---- SYN ---- */

static uint32_t syn_mss(const struct sf *s)
{
    uint32_t m = s->v.mtu - (s->v.local.ip.family == 4 ? 40 : 60);
    if (s->c->v.max_seg && s->c->v.max_seg < m) m = s->c->v.max_seg;
    return m > 65495 ? 65495 : m;
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

static bool emit_syn(struct sf *s, struct mp_pkt *out, mp_time now)
{
    struct mpc *c = s->c;
    struct mp_opts o = { .has_mss = true, .mss = (uint16_t)syn_mss(s) };
    bool answer = s->v.state == SF_SYN_RCVD;
    base(s, out, 0, (uint8_t)((answer ? MP_SYN | MP_ACK : MP_SYN) | ecn_syn_flags(s)));
    out->wnd = (uint16_t)mp_min(65535, conn_rcv_edge(c) - c->v.rcv_nxt);
    s->v.rcv_adv = 1 + (uint64_t)out->wnd;
    o.has_wscale = answer ? s->v.rcv_wscale > 0 : true;
    o.wscale = 8;
    o.sack_ok = answer ? s->v.sack_on : true;
    if (answer)
        add_timestamps(s, &o, now);
    else {
        o.has_ts = true;
        o.ts_val = sf_ts_now(now);
    }
    if (s->v.initial && !answer && conn_mp(c) && !c->v.strict && s->v.syn_tries >= (int)s->st->set.syn_mp_tries) {
        st_count(s->st, MP_E_syn_no_option, 1, c);
        conn_fallback(c, s, FB_SYN_WITHOUT_OPTION, MP_WHY_SYN_DROPPED, now);
    }
    if (!s->v.initial)
        syn_join(s, &o);
    else if (conn_mp(c))
        syn_capable(s, &o);
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
    if (g->sent_count < 255) g->sent_count++;
    finish(s, out, &o, now);
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
    base(s, out, s->v.snd_nxt, by_ack ? MP_ACK : never_answered ? MP_RST : MP_RST | MP_ACK);
    if (s->v.reset_sent) out->seq = s->v.reset_seq;
    if (conn_mp(c)) {
        if (s->v.reset_fastclose) {
            o.mp |= MP_OPT_HAS(MP_FASTCLOSE);
            o.fastclose_key = c->v.key_remote;
            st_count(s->st, MP_E_fastclose_out, 1, c);
        } else {
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
    }
    finish(s, out, &o, now);
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

/* ---- data ---- */

static void payload(struct mp_pkt *out, const struct sf_seg *g)
{
    uint32_t left = g->len;
    mp_dsn at = g->dsn;
    const struct mp_chunk *const k[2] = { g->chunk, g->chunk2 };
    for (int i = 0; i < 2 && left; i++) {
        if (!k[i] || at >= k[i]->dsn + k[i]->len) continue;
        uint32_t off = (uint32_t)(at - k[i]->dsn), n = (uint32_t)mp_min(k[i]->len - off, left);
        out->iov[out->niov].base = k[i]->data + off;
        out->iov[out->niov++].len = n;
        at += n;
        left -= n;
    }
    out->len = g->len;
}

uint16_t mp_dss_csum(uint64_t sum, mp_dsn dsn, uint32_t ssn, uint16_t len)
{
    sum += (dsn >> 48) + (dsn >> 32 & 0xffff) + (dsn >> 16 & 0xffff) + (dsn & 0xffff) + (ssn >> 16) + (ssn & 0xffff) + len;
    return (uint16_t)~mp_csum_fold(sum);
}

static void make_mapping(struct sf *s, struct sf_seg *g, bool data_fin, const struct mp_pkt *out)
{
    g->map_ssn = g->start;
    g->map_dsn = g->dsn;
    g->map_len = (uint16_t)(g->len + data_fin);
    g->map_fin = data_fin;
    g->map_csum = 0;
    if (!s->c->v.csum) return;
    uint64_t sum = 0, off = 0;
    for (int i = 0; i < out->niov; i++) {
        sum = mp_csum_at(sum, out->iov[i].base, out->iov[i].len, off);
        off += out->iov[i].len;
    }
    g->map_csum = mp_dss_csum(sum, g->map_dsn + s->c->v.tx_off, (uint32_t)g->map_ssn, g->map_len);
}

static void add_mapping(struct sf *s, struct mp_opts *o, const struct sf_seg *g)
{
    struct mpc *c = s->c;
    /* RFC 8684 3.1: the client's first data carries MP_CAPABLE with the length in place of a DSS. */
    if (c->v.version && !c->v.server && s->v.initial && g->map_ssn == 1 && c->v.fb == FB_UNCONFIRMED && !g->map_fin) {
        o->mp = MP_OPT_HAS(MP_CAPABLE);
        memset(&o->dss, 0, sizeof o->dss);
        o->capable = (struct mp_opt_capable){ .version = c->v.version, .hmac_sha256 = true, .csum_req = c->v.csum,
            .no_join_initial = s->st->set.no_join_initial, .nkeys = 2, .key_snd = c->v.key_local, .key_rcv = c->v.key_remote, .has_data_len = true, .data_len = g->map_len,
            .has_csum = c->v.csum, .csum = g->map_csum };
        return;
    }
    o->mp |= MP_OPT_HAS(MP_DSS);
    o->dss.has_map = true;
    o->dss.dsn64 = true;
    o->dss.dsn = g->map_dsn;
    o->dss.ssn = (uint32_t)g->map_ssn;
    o->dss.len = g->map_len;
    o->dss.data_fin = g->map_fin;
    o->dss.has_csum = c->v.csum;
    o->dss.csum = g->map_csum;
}

static void add_infinite(struct mpc *c, struct mp_opts *o, struct sf_seg *g)
{
    o->mp |= MP_OPT_HAS(MP_DSS);
    o->dss = (struct mp_opt_dss){ .has_map = true, .dsn64 = true, .dsn = g->dsn, .ssn = (uint32_t)g->start, .has_csum = c->v.csum };
    c->v.infinite_pending = false;
    g->infinite = true;
    st_count(c->st, MP_E_infinite_out, 1, c);
}

/* A mapping is repeated with its data, also after a fallback: the infinite one is behind it, and may be lost. */
static bool has_mapping(const struct sf *s, const struct sf_seg *g)
{
    return conn_mp(s->c) || s->c->v.infinite_pending || g->infinite || g->map_len;
}

/* Payload bytes of one segment of g. */
static uint32_t seg_mss(const struct sf *s, const struct sf_seg *g)
{
    bool room = conn_mp(s->c) || s->c->v.infinite_pending; /* sf_update_mss has left it for a DSS */
    return room || !has_mapping(s, g) || s->v.mss <= 28 + 40 ? s->v.mss : s->v.mss - 28;
}

/* One segment of the scoreboard, new or again. */
static void emit_seg(struct sf *s, struct mp_pkt *out, struct sf_seg *g, bool fresh, bool data_fin, mp_time now)
{
    struct mpc *c = s->c;
    struct mp_opts o = { 0 };
    uint8_t flags = (uint8_t)(MP_ACK | (g->fin ? MP_FIN : 0) | ecn_ack_flags(s));
    uint32_t mss = g->mtu_probe ? g->len : seg_mss(s, g);
    if (g->len && (g->fin || g->dsn + g->len == c->v.snd_end || g->len > mss)) flags |= MP_PSH;
    base(s, out, g->start, flags);
    if (fresh && g->len) ecn_mark_new_data(s, out);
    payload(out, g);
    add_timestamps(s, &o, now);
    if (has_mapping(s, g)) {
        if (conn_mp(c)) add_data_ack(c, &o);
        if (g->len && fresh && !c->v.tx_plain) make_mapping(s, g, data_fin, out);
        if (g->len && g->map_len)
            add_mapping(s, &o, g);
        else if (g->len && (c->v.infinite_pending || g->infinite))
            add_infinite(c, &o, g);
    }
    uint32_t full = (uint32_t)mp_min(g->len, mss), hdr = s->v.local.ip.family == 4 ? 40 : 60;
    add_sack(s, &o, flags, s->v.mtu > full + hdr ? s->v.mtu - full - hdr : 0);
    out->gso_size = g->len > mss ? (uint16_t)mss : 0;
    s->v.bytes_sent += g->len;
    if (!fresh && !s->v.rexmit_ts) s->v.original_ts = sf_ts_now(g->sent);
    g->sent = now;
    if (g->sent_count < 255) g->sent_count++;
    sf_sent_in_recovery(s, g, !fresh, now);
    finish(s, out, &o, now);
    if (g->infinite) sf_update_mss(s); /* options are at an end */
}

bool sf_send_data(struct sf *s, struct mp_pkt *out, mp_dsn dsn, struct mp_chunk *from, uint32_t len, bool data_fin, mp_time now)
{
    struct sf_seg *g = sf_seg_add(s, s->v.snd_nxt, s->v.snd_nxt + len);
    if (!g) return false;
    g->dsn = dsn;
    g->len = len;
    g->chunk = from;
    from->refs++;
    if (dsn + len > from->dsn + from->len) {
        g->chunk2 = from->next;
        g->chunk2->refs++;
    }
    bool idle = !s->v.pipe && !s->seg_head->next;
    if (idle && s->v.last_sent && now - s->v.last_sent > s->v.rto && s->c->cc->on_idle) { /* RFC 5681 4.1 */
        struct mp_cc_group grp = conn_cc_group(s->c, s);
        s->c->cc->on_idle(&grp, now - s->v.last_sent, s->v.rto);
    }
    s->v.snd_nxt += len;
    s->v.pipe += len;
    pace_sent(s, len, now);
    if (s->v.mtu_next == len) pmtu_sent(s, g);
    s->v.mtu_next = 0;
    if (s->v.sacked_bytes && !s->v.in_recovery) st_count(s->st, MP_E_limited_transmit, 1, s->c);
    emit_seg(s, out, g, true, data_fin, now);
    if (idle || s->v.timer[SFT_REXMIT] == MP_NEVER)
        sf_arm_rexmit(s, now);
    else if (s->v.timer[SFT_PROBE] != MP_NEVER) { /* RFC 8985 7.2: counted from the latest data */
        mp_time rx = s->v.timer[SFT_REXMIT];
        sf_arm_rexmit(s, now);
        sf_arm(s, SFT_REXMIT, rx);
    }
    if (s->v.timer[SFT_STALL] == MP_NEVER) sf_arm_overdue(s, now);
    sf_arm(s, SFT_PERSIST, MP_NEVER);
    return true;
}

static struct sf_seg *rexmit_due(struct sf *s)
{
    bool room = s->v.pipe < sf_cwnd(s) || s->v.pipe == 0;
    if (s->v.frto == SF_FRTO_NEW) return NULL; /* new data first, RFC 5682 */
    for (struct sf_seg *g = s->seg_head; g; g = g->next) {
        if (g->probed && !g->sacked) return g;
        if (g->lost && !g->sacked && (room || g == s->seg_head)) return g;
        if (!s->v.in_recovery && !s->v.in_rto && !s->v.probe_out) return NULL;
    }
    return NULL;
}

static bool emit_rexmit(struct sf *s, struct mp_pkt *out, mp_time now)
{
    struct sf_seg *g = rexmit_due(s);
    if (!g) return false;
    uint32_t mss = seg_mss(s, g), most = s->st->ops.slice_max(s->st->arg, s->flow, mss);
    if (s->v.in_rto && s->v.backoff) most = mss;
    if (most < mss || !g->lost) most = mss;
    uint64_t room = sf_cwnd(s) > s->v.pipe ? sf_cwnd(s) - s->v.pipe : mss;
    if (most > room) most = room > mss ? (uint32_t)(room - room % mss) : mss;
    if (g->len > most && !sf_seg_split(s, g, g->start + most)) return false;
    if (g->lost) s->v.pipe += g->end - g->start;
    g->lost = false;
    g->probed = false;
    s->v.bytes_retrans += g->len;
    st_count(s->st, MP_E_seg_rexmit, 1, s->c);
    emit_seg(s, out, g, false, false, now);
    if (s->v.timer[SFT_REXMIT] == MP_NEVER)
        sf_arm_rexmit(s, now);
    else if (g == s->seg_head) /* the time-out is that of the oldest segment */
        sf_arm(s, SFT_REXMIT, now + sf_rto_now(s));
    return true;
}

static bool emit_fin(struct sf *s, struct mp_pkt *out, mp_time now)
{
    struct sf_seg *g = sf_seg_add(s, s->v.snd_nxt, s->v.snd_nxt + 1);
    if (!g) return false;
    g->fin = true;
    s->v.fin_sent = true;
    s->v.snd_nxt++;
    s->v.pipe++;
    sf_set_state(s, s->v.state == SF_CLOSE_WAIT ? SF_LAST_ACK : SF_FIN_WAIT_1, now);
    emit_seg(s, out, g, true, false, now);
    sf_arm_rexmit(s, now);
    return true;
}

static bool fin_due(const struct sf *s)
{
    return s->v.fin_queued && !s->v.fin_sent && (s->v.state == SF_ESTABLISHED || s->v.state == SF_CLOSE_WAIT);
}

/* ---- pure ACKs and control options ---- */

static bool take_remove_addr(struct sf *s, struct mp_opts *o)
{
    if (!s->v.nrm) return false;
    o->mp |= MP_OPT_HAS(MP_REMOVE_ADDR);
    o->remove_addr.n = (uint8_t)s->v.nrm;
    memcpy(o->remove_addr.id, s->v.rm_ids, (size_t)s->v.nrm);
    s->v.nrm = 0;
    st_count(s->st, MP_E_remove_addr_out, 1, s->c);
    return true;
}

/* Not over a path that does not answer: it would be heard a second later, from the next retransmission. */
static bool may_tell(const struct sf *s) { return !s->v.stale || !conn_any_other(s->c, s); }

static bool take_add_addr(struct sf *s, struct mp_opts *o)
{
    struct mpc *c = s->c;
    if (!may_tell(s)) return false;
    if (c->v.necho) {
        c->v.necho--;
        o->mp |= MP_OPT_HAS(MP_ADD_ADDR);
        o->add_addr = (struct mp_opt_add_addr){ .echo = true, .addr_id = c->v.echo[c->v.necho].id, .ip = c->v.echo[c->v.necho].ip, .port = c->v.echo[c->v.necho].port };
        return true;
    }
    for (int i = 0; i < PM_MAX_REMOTE; i++) {
        struct pm_announce *a = &c->v.announce[i];
        if (!a->pending) continue;
        a->pending = false;
        o->mp |= MP_OPT_HAS(MP_ADD_ADDR);
        o->add_addr = (struct mp_opt_add_addr){ .addr_id = a->id, .ip = a->at.ip, .port = a->at.port };
        o->add_addr.v0 = !c->v.version;
        if (o->add_addr.v0) { /* RFC 6824 3.4.1: told once, there is no echo; the next one soon */
            a->echoed = true;
            c->v.timer[CT_ADD_ADDR] = s->st->now + MP_MS(10);
        }
        o->add_addr.hmac = mp_add_addr_hmac(c->v.key_local, c->v.key_remote, a->id, &a->at.ip, a->at.port);
        st_count(s->st, a->tries > 1 ? MP_E_add_addr_rexmit : MP_E_add_addr_out, 1, c);
        return true;
    }
    return false;
}

/* Next time, then. */
static void hand_back_add_addr(struct mpc *c, struct mp_opts *o)
{
    if (!(o->mp & MP_OPT_HAS(MP_ADD_ADDR))) return;
    o->mp &= ~MP_OPT_HAS(MP_ADD_ADDR);
    if (o->add_addr.echo)
        c->v.necho++; /* still in its place */
    else
        for (int i = 0; i < PM_MAX_REMOTE; i++)
            if (c->v.announce[i].at.ip.family && c->v.announce[i].id == o->add_addr.addr_id) c->v.announce[i].pending = true;
}

/* The options that ride on one pure ACK, with what must give way for room: SACK is added last, a DATA_ACK and the
 * timestamps are left out of an ADD_ADDR that would not fit (IPv6 with port needs all of it). */
static void ack_options(struct sf *s, struct mp_opts *o, uint8_t flags, mp_time now)
{
    struct mpc *c = s->c;
    add_timestamps(s, o, now);
    if (!conn_mp(c) || !c->v.peer_key_known) {
        if (c->v.mp_fail_pending && c->v.fb == FB_PLAIN && c->v.offered) {
            o->mp |= MP_OPT_HAS(MP_FAIL);
            o->fail_dsn = c->v.mp_fail_dsn;
            c->v.mp_fail_pending = false;
            st_count(s->st, MP_E_fail_out, 1, c);
        }
        add_sack(s, o, flags, 40);
        return;
    }
    if (s->v.send_capable_ack && c->v.fb == FB_UNCONFIRMED && !s->v.data_fin_now) {
        o->mp |= MP_OPT_HAS(MP_CAPABLE);
        o->capable = (struct mp_opt_capable){ .version = c->v.version, .hmac_sha256 = true, .csum_req = c->v.csum,
            .no_join_initial = c->v.version && s->st->set.no_join_initial, .nkeys = 2, .key_snd = c->v.key_local, .key_rcv = c->v.key_remote };
        add_sack(s, o, flags, 40);
        return;
    }
    if (!s->v.initial && !s->v.passive && !s->v.join_done) {
        o->mp |= MP_OPT_HAS(MP_JOIN);
        o->join.form = MP_JOIN_ACK;
        uint8_t h[32];
        conn_join_hmac(c, true, s->v.nonce_local, s->v.nonce_remote, h);
        memcpy(o->join.hmac, h, 20);
        return;
    }
    add_data_ack(c, o);
    if (s->v.data_fin_now && s->v.fully) {
        o->dss.has_map = o->dss.dsn64 = o->dss.data_fin = true; /* RFC 8684 3.3.3: bare DATA_FIN: SSN 0, length 1 */
        o->dss.dsn = c->v.snd_end;
        o->dss.len = 1;
        o->dss.has_csum = c->v.csum;
        o->mp |= MP_OPT_HAS(MP_DSS);
        if (c->v.csum) {
            o->dss.csum = mp_dss_csum(0, c->v.snd_end + c->v.tx_off, 0, 1);
        }
        s->v.data_fin_now = false;
    } else if (s->v.prio_now) {
        o->mp |= MP_OPT_HAS(MP_PRIO);
        o->prio = (struct mp_opt_prio){ .backup = s->v.backup_local || s->v.backup_asked };
        s->v.prio_now = false;
        st_count(s->st, MP_E_prio_out, 1, c);
    } else if (s->v.fully && !take_remove_addr(s, o))
        take_add_addr(s, o);
    /* An ACK of something new keeps its DATA_ACK, or the peer would think that options die on the way. */
    if (!fits(o, flags) && s->v.last_ack_sent != s->v.rcv_nxt) hand_back_add_addr(c, o);
    if (!fits(o, flags)) o->mp &= ~MP_OPT_HAS(MP_DSS);
    if (!fits(o, flags)) o->has_ts = false;
    add_sack(s, o, flags, 40);
}

static bool emit_ack(struct sf *s, struct mp_pkt *out, mp_time now)
{
    struct mpc *c = s->c;
    struct mp_opts o = { 0 };
    mp_ssn ssn = s->v.snd_nxt;
    if (s->v.probes) { /* below the window: the peer must answer, RFC 9293 3.8.4 */
        s->v.probes = 0;
        ssn = s->v.snd_una - 1;
    }
    base(s, out, ssn, (uint8_t)(MP_ACK | ecn_ack_flags(s)));
    ack_options(s, &o, MP_ACK, now);
    bool no_room = conn_mp(c) && c->v.fb != FB_OFFERED && (o.mp & MP_OPT_HAS(MP_ADD_ADDR)) && !(o.mp & MP_OPT_HAS(MP_DSS));
    finish(s, out, &o, now);
    s->v.ack_now = no_room; /* the DATA_ACK that gave way follows */
    return true;
}

static bool window_update_due(const struct sf *s)
{
    struct mpc *c = s->c;
    if (s->v.state != SF_ESTABLISHED && s->v.state != SF_FIN_WAIT_1 && s->v.state != SF_FIN_WAIT_2) return false;
    uint64_t edge = conn_rcv_edge(c);
    if (edge <= s->v.adv_edge) return false;
    uint64_t left = s->v.adv_edge > c->v.rcv_nxt ? s->v.adv_edge - c->v.rcv_nxt : 0;
    /* RFC 9293 3.8.6.2.2: not in small steps; early enough that the sender does not stop. */
    uint64_t space = conn_rcv_space(c);
    return edge - s->v.adv_edge >= space / 2 || (left < space / 4 && edge - s->v.adv_edge >= space / 8);
}

static bool control_due(struct sf *s)
{
    struct mpc *c = s->c;
    if (!conn_mp(c)) return c->v.mp_fail_pending && c->v.offered;
    if (!s->v.fully || !c->v.peer_key_known) return false;
    if (s->v.data_fin_now && sf_is_open(s)) return true;
    if (c->v.fb != FB_CONFIRMED) return false;
    return s->v.nrm || s->v.prio_now || (may_tell(s) && pm_control_pending(c));
}

bool sf_poll(struct sf *s, struct mp_pkt *out, mp_time now)
{
    if (s->v.dead) return false;
    if (s->v.reset_pending) return emit_rst(s, out, now);
    if (syn_due(s)) return emit_syn(s, out, now);
    if (s->v.state < SF_ESTABLISHED) return false;
    if (s->seg_head && emit_rexmit(s, out, now)) return true;
    if (fin_due(s)) return emit_fin(s, out, now);
    if (s->v.ack_now || s->v.probes || control_due(s) || window_update_due(s)) return emit_ack(s, out, now);
    return false;
}
