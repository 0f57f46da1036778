/* Segments with data, and the FIN: new or again, with their mappings. */
#include "core/sf_out.h"

#include "core/wire.h"

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
    out_begin(s, out, g->start, flags);
    if (fresh && g->len) ecn_mark_new_data(s, out);
    payload(out, g);
    out_timestamps(s, &o, now);
    if (has_mapping(s, g)) {
        if (conn_mp(c)) out_data_ack(c, &o);
        if (g->len && fresh && !c->v.tx_plain) make_mapping(s, g, data_fin, out);
        if (g->len && g->map_len)
            add_mapping(s, &o, g);
        else if (g->len && (c->v.infinite_pending || g->infinite))
            add_infinite(c, &o, g);
    }
    if (g->fin && conn_untold(c)) {
        out_data_ack(c, &o);
        out_data_fin(c, &o);
    }
    uint32_t full = (uint32_t)mp_min(g->len, mss) + mp_header_len(s->v.local.ip.family);
    out_sack(s, &o, s->v.mtu > full ? s->v.mtu - full : 0);
    out->gso_size = g->len > mss ? (uint16_t)mss : 0;
    s->v.bytes_sent += g->len;
    s->v.data_sent_at = now;
    if (!fresh && !s->v.rexmit_ts) s->v.original_ts = sf_ts(s, g->sent);
    g->sent = now;
    if (!g->sent_count) g->first = now;
    if (g->sent_count < 255) g->sent_count++;
    sf_sent_in_recovery(s, g, !fresh, now);
    out_finish(s, out, &o, now);
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
    if (g == s->seg_head) s->v.last_progress = now; /* what went before has got there: patience (RFC 5482) counts from here */
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
    if (s->v.timer[SFT_STALL] == MP_NEVER) overdue_arm(s, now);
    sf_arm(s, SFT_PERSIST, MP_NEVER);
    s->v.persists = 0;
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

bool sf_emit_rexmit(struct sf *s, struct mp_pkt *out, mp_time now)
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

bool sf_emit_fin(struct sf *s, struct mp_pkt *out, mp_time now)
{
    struct sf_seg *g = sf_seg_add(s, s->v.snd_nxt, s->v.snd_nxt + 1);
    if (!g) return false;
    g->fin = true;
    if (g == s->seg_head) s->v.last_progress = now;
    s->v.fin_sent = true;
    s->v.snd_nxt++;
    s->v.pipe++;
    sf_set_state(s, s->v.state == SF_CLOSE_WAIT ? SF_LAST_ACK : SF_FIN_WAIT_1, now);
    emit_seg(s, out, g, true, false, now);
    sf_arm_rexmit(s, now);
    return true;
}

bool sf_fin_due(const struct sf *s)
{
    return s->v.fin_queued && !s->v.fin_sent && (s->v.state == SF_ESTABLISHED || s->v.state == SF_CLOSE_WAIT);
}
