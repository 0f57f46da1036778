/* core/opt.c: see opt.h. Parsing: one function an option, which gets a whole option (kind, length, value)
 * and returns false when it is malformed, having stored nothing. */
#include "core/opt.h"

#include <errno.h>

#include "core/pkt.h"

enum { /* kinds, IANA */
    K_EOL = 0, K_NOP = 1, K_MSS = 2, K_WSCALE = 3, K_SACK_OK = 4, K_SACK = 5, K_TS = 8, K_MPTCP = 30
};
enum { /* flag bits of MPTCP options */
    CAP_A = 0x80, CAP_B = 0x40, CAP_C = 0x20, CAP_H = 0x01,                       /* RFC 8684 3.1 */
    DSS_A = 0x01, DSS_a = 0x02, DSS_M = 0x04, DSS_m = 0x08, DSS_F = 0x10,         /* RFC 8684 3.3 */
    LOW_BIT = 0x01 /* MP_JOIN and MP_PRIO: B, ADD_ADDR: E (echo), MP_TCPRST: T, all beside the subtype */
};

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }
static uint64_t get64(const uint8_t *p) { return (uint64_t)get32(p) << 32 | get32(p + 4); }

/* ---- parsing: plain TCP ---- */

static bool parse_mss(struct mp_opts *o, const uint8_t *p, size_t n, uint8_t flags)
{
    if (n != 4 || !(flags & MP_SYN) || o->has_mss || get16(p + 2) == 0) return false;
    o->has_mss = true;
    o->mss = get16(p + 2);
    return true;
}

static bool parse_wscale(struct mp_opts *o, const uint8_t *p, size_t n, uint8_t flags)
{
    if (n != 3 || !(flags & MP_SYN) || o->has_wscale) return false;
    o->has_wscale = true;
    o->wscale = p[2] > 14 ? 14 : p[2]; /* RFC 7323 2.3 */
    return true;
}

static bool parse_sack_ok(struct mp_opts *o, size_t n, uint8_t flags)
{
    if (n != 2 || !(flags & MP_SYN) || o->sack_ok) return false;
    o->sack_ok = true;
    return true;
}

static bool parse_ts(struct mp_opts *o, const uint8_t *p, size_t n)
{
    if (n != 10 || o->has_ts) return false;
    o->has_ts = true;
    o->ts_val = get32(p + 2);
    o->ts_ecr = get32(p + 6);
    return true;
}

static bool parse_sack(struct mp_opts *o, const uint8_t *p, size_t n, uint8_t flags)
{
    size_t blocks = (n - 2) / 8;

    if (n != 2 + 8 * blocks || blocks < 1 || blocks > MP_MAX_SACK || (flags & MP_SYN) || o->nsack) return false;
    for (size_t i = 0; i < blocks; i++) {
        o->sack[i].left = get32(p + 2 + 8 * i);
        o->sack[i].right = get32(p + 6 + 8 * i);
    }
    o->nsack = (uint8_t)blocks;
    return true;
}

/* ---- parsing: MPTCP ---- */

/* Keys in an MP_CAPABLE of this length, given the segment that carries it; -1: no such form.
 * RFC 8684 3.1: SYN 4 (v0: 12), SYN/ACK 12, ACK 20, with data 22, with checksum 24 (v0: 20 only). */
static int capable_keys(uint8_t version, size_t n, uint8_t flags)
{
    if (!(flags & MP_SYN)) return n == 20 || (version > 0 && (n == 22 || n == 24)) ? 2 : -1;
    if (flags & MP_ACK) return n == 12 ? 1 : -1;
    if (version == 0) return n == 12 ? 1 : -1;
    return n == 4 ? 0 : -1;
}

static bool parse_capable(struct mp_opt_capable *c, const uint8_t *p, size_t n, uint8_t flags)
{
    int nkeys = capable_keys(p[2] & 15, n, flags);

    if (nkeys < 0) return false;
    c->version = p[2] & 15;
    c->csum_req = p[3] & CAP_A;
    c->bflag = p[3] & CAP_B;
    c->no_join_initial = p[3] & CAP_C;
    c->hmac_sha256 = p[3] & CAP_H;
    c->nkeys = (uint8_t)nkeys;
    c->key_snd = nkeys > 0 ? get64(p + 4) : 0;
    c->key_rcv = nkeys > 1 ? get64(p + 12) : 0;
    c->has_data_len = n >= 22;
    c->data_len = n >= 22 ? get16(p + 20) : 0;
    c->has_csum = n == 24;
    c->csum = n == 24 ? get16(p + 22) : 0;
    return true;
}

static bool parse_join(struct mp_opt_join *j, const uint8_t *p, size_t n, uint8_t flags)
{
    static const uint8_t length[] = { [MP_JOIN_SYN] = 12, [MP_JOIN_SYNACK] = 16, [MP_JOIN_ACK] = 24 };
    enum mp_join_form form = !(flags & MP_SYN) ? MP_JOIN_ACK : flags & MP_ACK ? MP_JOIN_SYNACK : MP_JOIN_SYN;

    if (n != length[form]) return false;
    j->form = form;
    if (form == MP_JOIN_ACK) {
        memcpy(j->hmac, p + 4, 20);
        return true;
    }
    j->backup = p[2] & LOW_BIT;
    j->addr_id = p[3];
    j->nonce = get32(p + n - 4);
    if (form == MP_JOIN_SYN)
        j->token = get32(p + 4);
    else
        memcpy(j->hmac, p + 4, 8);
    return true;
}

/* RFC 8684 3.3: the flags say everything about the length but the checksum, which the length tells.
 * DATA_FIN means something only with a mapping. */
static bool parse_dss(struct mp_opt_dss *d, const uint8_t *p, size_t n)
{
    uint8_t f = n >= 4 ? p[3] : 0;
    size_t ack = !(f & DSS_A) ? 0 : f & DSS_a ? 8 : 4;
    size_t dsn = !(f & DSS_M) ? 0 : f & DSS_m ? 8 : 4;
    size_t want = 4 + ack + (dsn ? dsn + 6 : 0);
    bool has_csum = dsn && n == want + 2;

    if (n < 4 || (n != want && !has_csum)) return false;
    p += 4;
    d->has_ack = ack != 0;
    d->ack64 = ack == 8;
    d->data_ack = ack == 8 ? get64(p) : ack ? get32(p) : 0;
    if (!dsn) return true;
    p += ack;
    d->has_map = true;
    d->dsn64 = dsn == 8;
    d->data_fin = f & DSS_F;
    d->dsn = dsn == 8 ? get64(p) : get32(p);
    p += dsn;
    d->ssn = get32(p);
    d->len = get16(p + 4);
    d->has_csum = has_csum;
    d->csum = has_csum ? get16(p + 6) : 0;
    return true;
}

static bool parse_add_addr(struct mp_opt_add_addr *a, const uint8_t *p, size_t n)
{
    bool echo = n >= 4 && (p[2] & LOW_BIT);
    /* Without HMAC and echo flag it is version 0's, which names the IP version there (no length is both versions'). */
    bool v0 = n >= 4 && ((p[2] & 15) == 4 || (p[2] & 15) == 6) && n < ((p[2] & 15) == 4 ? 12 : 24);
    size_t bare = n - (echo || v0 ? 0 : 8); /* length without the HMAC: 8, 10 or 20, 22 */
    size_t ip;

    if (n < 8 || (bare != 8 && bare != 10 && bare != 20 && bare != 22)) return false;
    ip = bare <= 10 ? 4 : 16;
    if (v0 && (p[2] & 15) != (ip == 4 ? 4 : 6)) return false;
    a->v0 = v0;
    a->echo = echo;
    a->addr_id = p[3];
    a->ip.family = ip == 4 ? 4 : 6;
    memcpy(a->ip.b, p + 4, ip);
    a->port = bare > 4 + ip ? get16(p + 4 + ip) : 0;
    a->hmac = echo || v0 ? 0 : get64(p + n - 8);
    return true;
}

static bool parse_remove_addr(struct mp_opt_remove_addr *r, const uint8_t *p, size_t n)
{
    if (n < 4 || n > 3 + sizeof r->id) return false;
    r->n = (uint8_t)(n - 3);
    memcpy(r->id, p + 3, r->n);
    return true;
}

static bool parse_prio(struct mp_opt_prio *r, const uint8_t *p, size_t n)
{
    if (n != 3 && n != 4) return false;
    r->backup = p[2] & LOW_BIT;
    r->has_id = n == 4;
    r->addr_id = n == 4 ? p[3] : 0;
    return true;
}

static bool parse_u64(uint64_t *v, const uint8_t *p, size_t n)
{
    if (n != 12) return false;
    *v = get64(p + 4);
    return true;
}

static bool parse_tcprst(struct mp_opt_tcprst *r, const uint8_t *p, size_t n)
{
    if (n != 4) return false;
    r->transient = p[2] & LOW_BIT;
    r->reason = p[3];
    return true;
}

static bool parse_mptcp_value(struct mp_opts *o, const uint8_t *p, size_t n, uint8_t flags)
{
    switch (p[2] >> 4) {
    case MP_CAPABLE:     return parse_capable(&o->capable, p, n, flags);
    case MP_JOIN:        return parse_join(&o->join, p, n, flags);
    case MP_DSS:         return parse_dss(&o->dss, p, n);
    case MP_ADD_ADDR:    return parse_add_addr(&o->add_addr, p, n);
    case MP_REMOVE_ADDR: return parse_remove_addr(&o->remove_addr, p, n);
    case MP_PRIO:        return parse_prio(&o->prio, p, n);
    case MP_FAIL:        return parse_u64(&o->fail_dsn, p, n);
    case MP_FASTCLOSE:   return parse_u64(&o->fastclose_key, p, n);
    case MP_TCPRST:      return parse_tcprst(&o->tcprst, p, n);
    }
    return false;
}

static bool parse_mptcp(struct mp_opts *o, const uint8_t *p, size_t n, uint8_t flags)
{
    if (n < 3 || (o->mp & MP_OPT_HAS(p[2] >> 4)) || !parse_mptcp_value(o, p, n, flags)) return false;
    o->mp |= MP_OPT_HAS(p[2] >> 4);
    return true;
}

static bool parse_one(struct mp_opts *o, const uint8_t *p, size_t n, uint8_t flags)
{
    switch (p[0]) {
    case K_MSS:     return parse_mss(o, p, n, flags);
    case K_WSCALE:  return parse_wscale(o, p, n, flags);
    case K_SACK_OK: return parse_sack_ok(o, n, flags);
    case K_SACK:    return parse_sack(o, p, n, flags);
    case K_TS:      return parse_ts(o, p, n);
    case K_MPTCP:   return parse_mptcp(o, p, n, flags);
    }
    return true; /* RFC 9293 3.2: unknown kinds are passed over */
}

/* RFC 9293 3.2: each option but EOL and NOP has a length that covers itself. */
static bool list_is_whole(const uint8_t *p, size_t n)
{
    size_t i = 0;

    while (i < n && p[i] != K_EOL) {
        if (p[i] == K_NOP) {
            i++;
            continue;
        }
        if (i + 1 >= n || p[i + 1] < 2 || p[i + 1] > n - i) return false;
        i += p[i + 1];
    }
    return true;
}

int mp_opts_parse(struct mp_opts *o, const uint8_t *p, size_t n, uint8_t flags)
{
    size_t i = 0;

    if (!list_is_whole(p, n)) return -EBADMSG;
    memset(o, 0, sizeof *o);
    while (i < n && p[i] != K_EOL) {
        if (p[i] == K_NOP) {
            i++;
            continue;
        }
        if (!parse_one(o, p + i, p[i + 1], flags) && o->bad < UINT8_MAX) o->bad++;
        i += p[i + 1];
    }
    return 0;
}

/* ---- emission ----
 * Written once, for length and for bytes: the same walk with a NULL pointer only counts. */
struct out {
    uint8_t *p; /* NULL: count only */
    size_t n;
};

static void out8(struct out *w, uint8_t v)
{
    if (w->p) w->p[w->n] = v;
    w->n++;
}
static void out16(struct out *w, uint16_t v)
{
    out8(w, (uint8_t)(v >> 8));
    out8(w, (uint8_t)v);
}
static void out32(struct out *w, uint32_t v)
{
    out16(w, (uint16_t)(v >> 16));
    out16(w, (uint16_t)v);
}
static void out64(struct out *w, uint64_t v)
{
    out32(w, (uint32_t)(v >> 32));
    out32(w, (uint32_t)v);
}
static void out_bytes(struct out *w, const uint8_t *b, size_t n)
{
    if (w->p) memcpy(w->p + w->n, b, n);
    w->n += n;
}
static void out_nops(struct out *w, int n)
{
    while (n-- > 0) out8(w, K_NOP);
}
/* Linux ends each MPTCP option on a multiple of 4, with NOPs after it. */
static void out_pad(struct out *w)
{
    while (w->n % 4) out8(w, K_NOP);
}
static void out_head(struct out *w, enum mp_subtype subtype, size_t len, bool low_bit)
{
    out8(w, K_MPTCP);
    out8(w, (uint8_t)len);
    out8(w, (uint8_t)(subtype << 4 | low_bit));
}

/* Linux' tcp_options_write(): MSS; SACK permitted in place of the timestamps' two NOPs, or with two NOPs of
 * its own; window scale; SACK blocks. */
static void out_tcp(struct out *w, const struct mp_opts *o)
{
    bool sack_ok_with_ts = o->sack_ok && o->has_ts;

    if (o->has_mss) {
        out16(w, K_MSS << 8 | 4);
        out16(w, o->mss);
    }
    if (o->sack_ok && !sack_ok_with_ts) out_nops(w, 2);
    if (o->sack_ok) out16(w, K_SACK_OK << 8 | 2);
    if (o->has_ts) {
        if (!sack_ok_with_ts) out_nops(w, 2);
        out16(w, K_TS << 8 | 10);
        out32(w, o->ts_val);
        out32(w, o->ts_ecr);
    }
    if (o->has_wscale) {
        out_nops(w, 1);
        out16(w, K_WSCALE << 8 | 3);
        out8(w, o->wscale);
    }
    if (o->nsack) {
        out_nops(w, 2);
        out16(w, (uint16_t)(K_SACK << 8 | (2 + 8 * o->nsack)));
        for (int i = 0; i < o->nsack; i++) {
            out32(w, o->sack[i].left);
            out32(w, o->sack[i].right);
        }
    }
}

static void out_capable(struct out *w, const struct mp_opt_capable *c)
{
    size_t len = 4 + 8u * c->nkeys + (c->has_data_len ? 2 : 0) + (c->has_csum ? 2 : 0);

    out8(w, K_MPTCP);
    out8(w, (uint8_t)len);
    out8(w, (uint8_t)(MP_CAPABLE << 4 | (c->version & 15)));
    out8(w, (uint8_t)((c->csum_req ? CAP_A : 0) | (c->bflag ? CAP_B : 0) | (c->no_join_initial ? CAP_C : 0) |
                      (c->hmac_sha256 ? CAP_H : 0)));
    if (c->nkeys > 0) out64(w, c->key_snd);
    if (c->nkeys > 1) out64(w, c->key_rcv);
    if (c->has_data_len) out16(w, c->data_len);
    if (c->has_csum) out16(w, c->csum);
}

static void out_join(struct out *w, const struct mp_opt_join *j)
{
    switch (j->form) {
    case MP_JOIN_SYN:
        out_head(w, MP_JOIN, 12, j->backup);
        out8(w, j->addr_id);
        out32(w, j->token);
        out32(w, j->nonce);
        break;
    case MP_JOIN_SYNACK:
        out_head(w, MP_JOIN, 16, j->backup);
        out8(w, j->addr_id);
        out_bytes(w, j->hmac, 8);
        out32(w, j->nonce);
        break;
    case MP_JOIN_ACK:
        out_head(w, MP_JOIN, 24, false);
        out8(w, 0);
        out_bytes(w, j->hmac, 20);
        break;
    }
}

static size_t dss_len(const struct mp_opt_dss *d)
{
    return 4 + (!d->has_ack ? 0 : d->ack64 ? 8u : 4u) +
           (!d->has_map ? 0 : (d->dsn64 ? 8u : 4u) + 6u + (d->has_csum ? 2u : 0));
}

static void out_dss(struct out *w, const struct mp_opt_dss *d)
{
    out_head(w, MP_DSS, dss_len(d), false);
    out8(w, (uint8_t)((d->has_ack ? DSS_A : 0) | (d->has_ack && d->ack64 ? DSS_a : 0) | (d->has_map ? DSS_M : 0) |
                      (d->has_map && d->dsn64 ? DSS_m : 0) | (d->has_map && d->data_fin ? DSS_F : 0)));
    if (d->has_ack && d->ack64) out64(w, d->data_ack);
    else if (d->has_ack) out32(w, (uint32_t)d->data_ack);
    if (!d->has_map) return;
    if (d->dsn64) out64(w, d->dsn);
    else out32(w, (uint32_t)d->dsn);
    out32(w, d->ssn);
    out16(w, d->len);
    if (d->has_csum) out16(w, d->csum);
}

static void out_add_addr(struct out *w, const struct mp_opt_add_addr *a)
{
    size_t ip = a->ip.family == 4 ? 4 : 16;

    out8(w, K_MPTCP);
    out8(w, (uint8_t)(4 + ip + (a->port ? 2 : 0) + (a->echo || a->v0 ? 0 : 8)));
    out8(w, (uint8_t)(MP_ADD_ADDR << 4 | (a->v0 ? (ip == 4 ? 4 : 6) : a->echo)));
    out8(w, a->addr_id);
    out_bytes(w, a->ip.b, ip);
    if (a->port) out16(w, a->port);
    if (!a->echo && !a->v0) out64(w, a->hmac);
}

static void out_u64(struct out *w, enum mp_subtype subtype, uint64_t v)
{
    out_head(w, subtype, 12, false);
    out8(w, 0);
    out64(w, v);
}

static void out_tcprst(struct out *w, const struct mp_opt_tcprst *r)
{
    out_head(w, MP_TCPRST, 4, r->transient);
    out8(w, r->reason);
}

static void out_prio(struct out *w, const struct mp_opt_prio *r)
{
    out_head(w, MP_PRIO, r->has_id ? 4 : 3, r->backup);
    if (r->has_id) out8(w, r->addr_id);
}

static void out_remove_addr(struct out *w, const struct mp_opt_remove_addr *r)
{
    out_head(w, MP_REMOVE_ADDR, 3u + r->n, false);
    out_bytes(w, r->id, r->n);
}

static void out_one_mptcp(struct out *w, const struct mp_opts *o, enum mp_subtype subtype)
{
    switch (subtype) {
    case MP_CAPABLE:     out_capable(w, &o->capable); break;
    case MP_JOIN:        out_join(w, &o->join); break;
    case MP_DSS:         out_dss(w, &o->dss); break;
    case MP_ADD_ADDR:    out_add_addr(w, &o->add_addr); break;
    case MP_REMOVE_ADDR: out_remove_addr(w, &o->remove_addr); break;
    case MP_PRIO:        out_prio(w, &o->prio); break;
    case MP_FAIL:        out_u64(w, MP_FAIL, o->fail_dsn); break;
    case MP_FASTCLOSE:   out_u64(w, MP_FASTCLOSE, o->fastclose_key); break;
    case MP_TCPRST:      out_tcprst(w, &o->tcprst); break;
    }
    out_pad(w);
}

static void out_mptcp(struct out *w, const struct mp_opts *o)
{
    static const uint8_t order[] = { /* Linux' mptcp_write_options() */
        MP_FAIL, MP_DSS, MP_CAPABLE, MP_JOIN, MP_ADD_ADDR, MP_FASTCLOSE, MP_TCPRST, MP_PRIO, MP_REMOVE_ADDR
    };

    for (size_t i = 0; i < sizeof order; i++)
        if (o->mp & MP_OPT_HAS(order[i])) out_one_mptcp(w, o, order[i]);
}

/* The flags decide nothing today: the forms are named in the set. */
size_t mp_opts_len(const struct mp_opts *o, uint8_t flags)
{
    struct out w = { NULL, 0 };

    (void)flags;
    out_tcp(&w, o);
    out_mptcp(&w, o);
    return w.n;
}

void mp_opts_emit(uint8_t *p, const struct mp_opts *o, uint8_t flags)
{
    struct out w = { p, 0 };

    (void)flags;
    out_tcp(&w, o);
    out_mptcp(&w, o);
}
