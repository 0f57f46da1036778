/* core/opt_emit.c: see opt.h. Written once, for length and for bytes: the same walk with a NULL pointer only counts. */
#include "core/opt.h"

#include "core/opt_bits.h"

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
    while (n-- > 0) out8(w, OPT_NOP);
}
/* Linux ends each MPTCP option on a multiple of 4, with NOPs after it. */
static void out_pad(struct out *w)
{
    while (w->n % 4) out8(w, OPT_NOP);
}
static void out_head(struct out *w, enum mp_subtype subtype, size_t len, bool low_bit)
{
    out8(w, OPT_MPTCP);
    out8(w, (uint8_t)len);
    out8(w, (uint8_t)(subtype << 4 | low_bit));
}

/* Linux' tcp_options_write(): MSS; SACK permitted in place of the timestamps' two NOPs, or with two NOPs of
 * its own; window scale; SACK blocks. */
static void out_tcp(struct out *w, const struct mp_opts *o)
{
    bool sack_ok_with_ts = o->sack_ok && o->has_ts;

    if (o->has_mss) {
        out16(w, OPT_MSS << 8 | 4);
        out16(w, o->mss);
    }
    if (o->sack_ok && !sack_ok_with_ts) out_nops(w, 2);
    if (o->sack_ok) out16(w, OPT_SACK_OK << 8 | 2);
    if (o->has_ts) {
        if (!sack_ok_with_ts) out_nops(w, 2);
        out16(w, OPT_TS << 8 | 10);
        out32(w, o->ts_val);
        out32(w, o->ts_ecr);
    }
    if (o->has_wscale) {
        out_nops(w, 1);
        out16(w, OPT_WSCALE << 8 | 3);
        out8(w, o->wscale);
    }
    if (o->nsack) {
        out_nops(w, 2);
        out16(w, (uint16_t)(OPT_SACK << 8 | (2 + 8 * o->nsack)));
        for (int i = 0; i < o->nsack; i++) {
            out32(w, o->sack[i].left);
            out32(w, o->sack[i].right);
        }
    }
}

static void out_capable(struct out *w, const struct mp_opt_capable *c)
{
    size_t len = 4 + 8u * c->nkeys + (c->has_data_len ? 2 : 0) + (c->has_csum ? 2 : 0);

    out8(w, OPT_MPTCP);
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

    out8(w, OPT_MPTCP);
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

size_t mp_opts_len(const struct mp_opts *o)
{
    struct out w = { NULL, 0 };

    out_tcp(&w, o);
    out_mptcp(&w, o);
    return w.n;
}

void mp_opts_emit(uint8_t *p, const struct mp_opts *o)
{
    struct out w = { p, 0 };

    out_tcp(&w, o);
    out_mptcp(&w, o);
}
