/* sim/box.c: see box.h. */
#include "sim/box.h"

#include <stdlib.h>

#include "core/opt.h"

enum { OPT_EOL = 0, OPT_NOP = 1, OPT_SACK = 5, OPT_MPTCP = 30 };

/* What a box remembers of one connection, named by what the client sends. */
struct sim_box_flow {
    struct mp_endpoint client, server;
    uint16_t nat_port;
    uint32_t seq_add[2];     /* SEQ: added to the numbers of packets of that direction */
    uint32_t next[2];        /* HOLES: the next sequence number expected */
    bool seen[2];
    struct sim_box_flow *list;
};

static void emit(struct sim_box *b, int dir, struct sim_pkt *p)
{
    struct sim_node *out = b->half[dir]->node.out;
    if (out) sim_send(out, p);
    else sim_pkt_free(b->sim, p);
}

static void touch(struct sim_box *b, int dir, const char *what, const struct sim_pkt *p)
{
    b->touched++;
    sim_trace_pkt(b->sim, &b->half[dir]->node, what, &p->h);
}

static void drop(struct sim_box *b, int dir, struct sim_pkt *p)
{
    touch(b, dir, "drop", p);
    sim_pkt_free(b->sim, p);
}

/* Calls back for each option of the header. Broken lists end the walk. */
static uint8_t *next_option(struct mp_pkt *h, uint8_t *at)
{
    uint8_t *end = h->opt + h->optlen;
    if (!at) at = h->opt;
    else if (*at == OPT_NOP) at++;
    else at += at[1];
    if (at >= end || *at == OPT_EOL) return NULL;
    if (*at == OPT_NOP) return at;
    if (at + 1 >= end || at[1] < 2 || at + at[1] > end) return NULL;
    return at;
}

static bool is_mptcp(const uint8_t *o, uint32_t subtypes)
{
    return *o == OPT_MPTCP && o[1] >= 3 && subtypes >> (o[2] >> 4) & 1;
}

static bool has_mptcp(struct mp_pkt *h)
{
    for (uint8_t *o = next_option(h, NULL); o; o = next_option(h, o))
        if (is_mptcp(o, UINT32_MAX)) return true;
    return false;
}

/* Turns options into NOPs, as boxes do that keep the header's length. */
static bool strip(struct mp_pkt *h, uint32_t subtypes)
{
    bool did = false;
    for (uint8_t *o = next_option(h, NULL); o; o = next_option(h, o)) {
        if (!is_mptcp(o, subtypes)) continue;
        memset(o, OPT_NOP, o[1]);
        did = true;
    }
    return did;
}

/* ---- flows ---- */

static struct sim_box_flow *flow_of(struct sim_box *b, int dir, const struct mp_pkt *h, bool make)
{
    const struct mp_endpoint *client = dir == 0 ? &h->src : &h->dst, *server = dir == 0 ? &h->dst : &h->src;
    for (struct sim_box_flow *f = b->flows; f; f = f->list)
        if (mp_endpoint_eq(&f->client, client) && mp_endpoint_eq(&f->server, server)) return f;
    if (!make) return NULL;
    struct sim_box_flow *f = calloc(1, sizeof *f);
    if (!f) abort();
    f->client = *client;
    f->server = *server;
    struct sim_rng r = sim_rng_new(b->sim->seed, (uint64_t)client->port << 32 | server->port);
    f->seq_add[0] = (uint32_t)sim_rng_next(&r);
    f->seq_add[1] = (uint32_t)sim_rng_next(&r);
    f->nat_port = b->flows ? b->flows->nat_port + 1 : 40000;
    f->list = b->flows;
    return b->flows = f;
}

static struct sim_box_flow *flow_of_nat_port(struct sim_box *b, const struct mp_pkt *h)
{
    for (struct sim_box_flow *f = b->flows; f; f = f->list)
        if (f->nat_port == h->dst.port && mp_endpoint_eq(&f->server, &h->src)) return f;
    return NULL;
}

/* ---- kinds ---- */

static void strip_if(struct sim_box *b, int dir, struct sim_pkt *p, bool applies, uint32_t subtypes)
{
    if (applies && strip(&p->h, subtypes)) touch(b, dir, "strip", p);
    emit(b, dir, p);
}

static bool is_syn(const struct sim_pkt *p) { return (p->h.flags & (MP_SYN | MP_ACK)) == MP_SYN; }
static bool is_synack(const struct sim_pkt *p) { return (p->h.flags & (MP_SYN | MP_ACK)) == (MP_SYN | MP_ACK); }

static void box_strip_syn(struct sim_box *b, int d, struct sim_pkt *p) { strip_if(b, d, p, is_syn(p), UINT32_MAX); }
static void box_strip_synack(struct sim_box *b, int d, struct sim_pkt *p) { strip_if(b, d, p, is_synack(p), UINT32_MAX); }
static void box_strip_nonsyn(struct sim_box *b, int d, struct sim_pkt *p)
{
    strip_if(b, d, p, !(p->h.flags & MP_SYN), UINT32_MAX);
}
static void box_strip_all(struct sim_box *b, int d, struct sim_pkt *p) { strip_if(b, d, p, true, UINT32_MAX); }
static void box_strip_add_addr(struct sim_box *b, int d, struct sim_pkt *p)
{
    strip_if(b, d, p, true, MP_OPT_HAS(MP_ADD_ADDR));
}

static void box_drop_syn(struct sim_box *b, int dir, struct sim_pkt *p)
{
    if (p->h.flags & MP_SYN && has_mptcp(&p->h)) drop(b, dir, p);
    else emit(b, dir, p);
}

static void box_nat(struct sim_box *b, int dir, struct sim_pkt *p)
{
    if (p->h.dst.ip.family != b->cfg.nat_ip.family) {
        emit(b, dir, p);
        return;
    }
    struct sim_box_flow *f = dir == 0 ? flow_of(b, 0, &p->h, true) : flow_of_nat_port(b, &p->h);
    if (!f) {
        drop(b, dir, p); /* a NAT has no entry for what nobody inside opened */
        return;
    }
    if (dir == 0) p->h.src = (struct mp_endpoint){b->cfg.nat_ip, f->nat_port};
    else p->h.dst = f->client;
    touch(b, dir, "nat", p);
    emit(b, dir, p);
}

static uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static void box_seq(struct sim_box *b, int dir, struct sim_pkt *p)
{
    struct sim_box_flow *f = flow_of(b, dir, &p->h, true);
    p->h.seq += f->seq_add[dir];
    if (p->h.flags & MP_ACK) p->h.ack -= f->seq_add[!dir];
    for (uint8_t *o = next_option(&p->h, NULL); o; o = next_option(&p->h, o)) {
        if (*o != OPT_SACK) continue;
        for (int i = 2; i + 4 <= o[1]; i += 4) store32(o + i, load32(o + i) - f->seq_add[!dir]);
    }
    touch(b, dir, "seq", p);
    emit(b, dir, p);
}

static void box_split(struct sim_box *b, int dir, struct sim_pkt *p)
{
    uint32_t cut = b->cfg.size;
    if (p->h.len <= cut || p->h.flags & MP_SYN) {
        emit(b, dir, p);
        return;
    }
    touch(b, dir, "split", p);
    struct sim_pkt *rest = sim_pkt_dup(b->sim, p);
    mp_slice_skip(&rest->h.data, cut);
    rest->h.len -= cut;
    rest->h.seq += cut;
    mp_slice_cut(&p->h.data, cut);
    p->h.len = cut;
    p->h.flags &= (uint8_t) ~(MP_FIN | MP_PSH);
    emit(b, dir, p);
    box_split(b, dir, rest);
}

static bool can_merge(const struct sim_box *b, const struct sim_pkt *a, const struct sim_pkt *p, bool any)
{
    if (!mp_endpoint_eq(&a->h.src, &p->h.src) || !mp_endpoint_eq(&a->h.dst, &p->h.dst)) return false;
    if (a->h.seq + a->h.len != p->h.seq || a->h.flags & (MP_FIN | MP_SYN | MP_RST)) return false;
    if (p->h.flags & (MP_SYN | MP_RST) || !p->h.len || a->h.len + p->h.len > b->cfg.size) return false;
    return any || (a->h.optlen == p->h.optlen && memcmp(a->h.opt, p->h.opt, a->h.optlen) == 0);
}

static void release(struct sim_box *b, int dir)
{
    struct sim_pkt *p = b->held[dir];
    b->held[dir] = NULL;
    if (p) emit(b, dir, p);
}

static struct sim_pkt *merged(struct sim_box *b, struct sim_pkt *a, struct sim_pkt *p)
{
    struct mp_pkt h = a->h;
    h.gso_size = a->h.gso_size ? a->h.gso_size : (uint16_t)a->h.len;
    h.flags |= p->h.flags;
    h.ack = p->h.ack;
    h.wnd = p->h.wnd;
    struct sim_pkt *k = sim_pkt_new(b->sim, &h, NULL, a->h.len + p->h.len);
    uint8_t *to = sim_pkt_own_payload(b->sim, k);
    memcpy(to, a->h.data.p, a->h.len);
    memcpy(to + a->h.len, p->h.data.p, p->h.len);
    sim_pkt_free(b->sim, a);
    sim_pkt_free(b->sim, p);
    return k;
}

static void merge(struct sim_box *b, int dir, struct sim_pkt *p, bool any)
{
    struct sim_pkt *a = b->held[dir];
    if (a && can_merge(b, a, p, any)) {
        mp_time until = a->at;
        p = merged(b, a, p);
        p->at = until;
        b->held[dir] = p;
        touch(b, dir, "merge", p);
    } else {
        release(b, dir);
        p->at = b->sim->now + b->cfg.hold;
        b->held[dir] = p;
    }
    /* Only plain data may wait: an ACK, SYN or FIN must not. */
    if (!p->h.len || p->h.flags & (MP_SYN | MP_FIN | MP_RST)) release(b, dir);
}

static void box_merge(struct sim_box *b, int dir, struct sim_pkt *p) { merge(b, dir, p, false); }
static void box_merge_any(struct sim_box *b, int dir, struct sim_pkt *p) { merge(b, dir, p, true); }

static void box_payload(struct sim_box *b, int dir, struct sim_pkt *p)
{
    uint64_t i = p->h.len ? b->counted[dir]++ : 0;
    if (p->h.len && i >= b->cfg.first && (i - b->cfg.first) % b->cfg.nth == 0) {
        uint8_t *d = sim_pkt_own_payload(b->sim, p);
        d[p->h.len / 2] ^= 0x20;
        touch(b, dir, "payload", p);
    }
    emit(b, dir, p);
}

static void box_holes(struct sim_box *b, int dir, struct sim_pkt *p)
{
    struct sim_box_flow *f = flow_of(b, dir, &p->h, true);
    uint32_t end = p->h.seq + p->h.len + !!(p->h.flags & MP_SYN) + !!(p->h.flags & MP_FIN);
    if (p->h.flags & MP_SYN || !f->seen[dir]) {
        f->seen[dir] = true;
        f->next[dir] = end;
    } else if (p->h.len && (int32_t)(p->h.seq - f->next[dir]) > 0) {
        drop(b, dir, p);
        return;
    } else if ((int32_t)(end - f->next[dir]) > 0) {
        f->next[dir] = end;
    }
    emit(b, dir, p);
}

static const struct sim_box_kind kinds[SIM_BOX_COUNT] = {
    [SIM_BOX_STRIP_SYN] = {"strip-syn", box_strip_syn},
    [SIM_BOX_STRIP_SYNACK] = {"strip-synack", box_strip_synack},
    [SIM_BOX_STRIP_NONSYN] = {"strip-nonsyn", box_strip_nonsyn},
    [SIM_BOX_STRIP_ALL] = {"strip-all", box_strip_all},
    [SIM_BOX_STRIP_ADD_ADDR] = {"strip-add-addr", box_strip_add_addr},
    [SIM_BOX_DROP_SYN] = {"drop-syn", box_drop_syn},
    [SIM_BOX_NAT] = {"nat", box_nat},
    [SIM_BOX_SEQ] = {"seq", box_seq},
    [SIM_BOX_SPLIT] = {"split", box_split},
    [SIM_BOX_MERGE] = {"merge", box_merge},
    [SIM_BOX_MERGE_ANY] = {"merge-any", box_merge_any},
    [SIM_BOX_PAYLOAD] = {"payload", box_payload},
    [SIM_BOX_HOLES] = {"holes", box_holes},
};

const char *sim_box_name(enum sim_box_what what) { return kinds[what].name; }

/* ---- the node ---- */

static void half_forward(struct sim_node *n, struct sim_pkt *p)
{
    struct sim_box_half *h = (struct sim_box_half *)n;
    struct sim_box *b = h->box;
    bool works = n->sim->now >= b->cfg.from && (!b->cfg.dirs || b->cfg.dirs >> h->dir & 1);
    if (works) b->kind->forward(b, h->dir, p);
    else emit(b, h->dir, p);
}

static mp_time half_next_run_at(const struct sim_node *n)
{
    const struct sim_box_half *h = (const struct sim_box_half *)n;
    const struct sim_pkt *p = h->box->held[h->dir];
    return p ? p->at : MP_NEVER;
}

static void half_run(struct sim_node *n)
{
    struct sim_box_half *h = (struct sim_box_half *)n;
    release(h->box, h->dir);
}

static void half_free(struct sim_node *n)
{
    struct sim_box_half *h = (struct sim_box_half *)n;
    struct sim_box *b = h->box;
    if (b->held[h->dir]) sim_pkt_free(n->sim, b->held[h->dir]);
    free(h);
    if (--b->halves_left) return;
    while (b->flows) {
        struct sim_box_flow *f = b->flows;
        b->flows = f->list;
        free(f);
    }
    free(b);
}

static const struct sim_node_ops half_ops = {half_forward, half_next_run_at, half_run, half_free};

struct sim_box *sim_box_new(struct sim *s, const char *name, const struct sim_box_cfg *cfg, struct sim_node *out0,
                            struct sim_node *out1)
{
    struct sim_box *b = calloc(1, sizeof *b);
    if (!b) abort();
    b->sim = s;
    b->cfg = *cfg;
    b->kind = &kinds[cfg->what];
    b->halves_left = 2;
    if (!b->cfg.nth) b->cfg.nth = 1;
    if (!b->cfg.size) b->cfg.size = cfg->what == SIM_BOX_SPLIT ? 700 : 16000;
    if (!b->cfg.hold) b->cfg.hold = MP_US(300);
    for (int dir = 0; dir < 2; dir++) {
        struct sim_box_half *h = calloc(1, sizeof *h);
        if (!h) abort();
        h->box = b;
        h->dir = dir;
        char text[24];
        snprintf(text, sizeof text, "%.20s.%d", name, dir);
        sim_node_add(s, &h->node, &half_ops, text);
        h->node.out = dir == 0 ? out0 : out1;
        b->half[dir] = h;
    }
    return b;
}
