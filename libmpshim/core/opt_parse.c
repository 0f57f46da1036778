/* core/opt_parse.c: see opt.h. One function an option, which gets a whole option (kind, length, value) and returns false when it
 * is malformed, having stored nothing. */
#include "core/opt.h"

#include <errno.h>

#include "core/opt_bits.h"
#include "core/pkt.h"

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
    case OPT_MSS:     return parse_mss(o, p, n, flags);
    case OPT_WSCALE:  return parse_wscale(o, p, n, flags);
    case OPT_SACK_OK: return parse_sack_ok(o, n, flags);
    case OPT_SACK:    return parse_sack(o, p, n, flags);
    case OPT_TS:      return parse_ts(o, p, n);
    case OPT_MPTCP:   return parse_mptcp(o, p, n, flags);
    }
    return true; /* RFC 9293 3.2: unknown kinds are passed over */
}

/* RFC 9293 3.2: each option but EOL and NOP has a length that covers itself. */
static bool list_is_whole(const uint8_t *p, size_t n)
{
    size_t i = 0;

    while (i < n && p[i] != OPT_EOL) {
        if (p[i] == OPT_NOP) {
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
    while (i < n && p[i] != OPT_EOL) {
        if (p[i] == OPT_NOP) {
            i++;
            continue;
        }
        if (!parse_one(o, p + i, p[i + 1], flags) && o->bad < UINT8_MAX) o->bad++;
        i += p[i + 1];
    }
    return 0;
}
