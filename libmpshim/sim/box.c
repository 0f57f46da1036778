/* sim/box.c: see box.h. */
#include "sim/box_int.h"

void box_emit(struct sim_box *b, int dir, struct sim_pkt *p)
{
    struct sim_node *out = b->half[dir]->node.out;
    if (out) sim_send(out, p);
    else sim_pkt_free(b->sim, p);
}

void box_touch(struct sim_box *b, int dir, const char *what, const struct sim_pkt *p)
{
    b->touched++;
    b->changed_in[dir]++;
    if (!b->first_at) b->first_at = b->sim->now;
    sim_trace_pkt(b->sim, &b->half[dir]->node, what, &p->h);
}

void box_drop(struct sim_box *b, int dir, struct sim_pkt *p)
{
    box_touch(b, dir, "drop", p);
    b->changed_in[dir]--;
    b->dropped_in[dir]++;
    sim_pkt_free(b->sim, p);
}

/* Calls back for each option of the header. Broken lists end the walk. */
uint8_t *box_next_option(struct mp_pkt *h, uint8_t *at)
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

uint8_t *box_find_option(struct mp_pkt *h, uint8_t kind, uint8_t len)
{
    for (uint8_t *o = box_next_option(h, NULL); o; o = box_next_option(h, o))
        if (*o == kind && o[1] == len) return o;
    return NULL;
}

/* ---- flows ---- */

struct sim_box_flow *box_flow_of(struct sim_box *b, int dir, const struct mp_pkt *h, bool make)
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
    f->nat_port = b->flows ? b->flows->nat_port + 1 : (uint16_t)(40000 + b->cfg.first);
    f->list = b->flows;
    return b->flows = f;
}

static struct sim_box_flow *flow_of_nat_port(struct sim_box *b, const struct mp_pkt *h)
{
    for (struct sim_box_flow *f = b->flows; f; f = f->list)
        if (!f->forgotten && f->nat_port == h->dst.port && mp_endpoint_eq(&f->server, &h->src)) return f;
    return NULL;
}

/* ---- kinds ---- */

static void box_nat(struct sim_box *b, int dir, struct sim_pkt *p)
{
    if (p->h.dst.ip.family != b->cfg.nat_ip.family) {
        box_emit(b, dir, p);
        return;
    }
    struct sim_box_flow *f = dir == 0 ? box_flow_of(b, 0, &p->h, true) : flow_of_nat_port(b, &p->h);
    if (f && dir == 0 && box_is_syn(&p->h)) f->forgotten = false; /* a new connection with an old one's ports */
    if (!f || f->forgotten) {
        box_drop(b, dir, p); /* a NAT has no entry for what nobody inside opened */
        return;
    }
    if (dir == 0) p->h.src = (struct mp_endpoint){b->cfg.nat_ip, f->nat_port};
    else p->h.dst = f->client;
    /* Those that change in mid-connection count from then on. */
    if (b->cfg.what == SIM_BOX_NAT) box_touch(b, dir, "nat", p);
    box_emit(b, dir, p);
}

/* At its time, once. */
static bool nat_event(struct sim_box *b, int dir, const struct sim_pkt *p)
{
    if (b->sim->now < b->cfg.from || b->counted[0]) return false;
    b->counted[0] = 1;
    box_touch(b, dir, "nat", p);
    return true;
}

static void box_nat_rebind(struct sim_box *b, int dir, struct sim_pkt *p)
{
    if (nat_event(b, dir, p))
        for (struct sim_box_flow *f = b->flows; f; f = f->list) f->nat_port += 20000;
    box_nat(b, dir, p);
}

static void box_nat_expire(struct sim_box *b, int dir, struct sim_pkt *p)
{
    if (nat_event(b, dir, p))
        for (struct sim_box_flow *f = b->flows; f; f = f->list) f->forgotten = true;
    box_nat(b, dir, p);
}

/* Both halves have to do with one direction's numbers: its packets, and the ACKs of them. */
static void seq(struct sim_box *b, int dir, struct sim_pkt *p, bool sacks)
{
    struct sim_box_flow *f = box_flow_of(b, dir, &p->h, true);
    uint32_t add = box_acts(b, dir) ? f->seq_add[dir] : 0, sub = box_acts(b, !dir) ? f->seq_add[!dir] : 0;
    p->h.seq += add;
    if (p->h.flags & MP_ACK) p->h.ack -= sub;
    for (uint8_t *o = box_next_option(&p->h, NULL); o && sacks; o = box_next_option(&p->h, o)) {
        if (*o != OPT_SACK) continue;
        for (int i = 2; i + 4 <= o[1]; i += 4) store32(o + i, load32(o + i) - sub);
    }
    if (add || sub) box_touch(b, dir, "seq", p);
    box_emit(b, dir, p);
}

static void box_seq(struct sim_box *b, int dir, struct sim_pkt *p) { seq(b, dir, p, true); }
static void box_seq_no_sack(struct sim_box *b, int dir, struct sim_pkt *p) { seq(b, dir, p, false); }

static void split(struct sim_box *b, int dir, struct sim_pkt *p, bool first_only)
{
    uint32_t cut = b->cfg.size;
    if (p->h.len <= cut || p->h.flags & MP_SYN) {
        box_emit(b, dir, p);
        return;
    }
    box_touch(b, dir, "split", p);
    struct sim_pkt *rest = sim_pkt_dup(b->sim, p);
    if (first_only) box_strip_mptcp(&rest->h, UINT32_MAX, true);
    mp_slice_skip(&rest->h.data, cut);
    rest->h.len -= cut;
    rest->h.seq += cut;
    mp_slice_cut(&p->h.data, cut);
    p->h.len = cut;
    p->h.flags &= (uint8_t) ~(MP_FIN | MP_PSH);
    box_emit(b, dir, p);
    split(b, dir, rest, first_only);
}

static void box_split(struct sim_box *b, int dir, struct sim_pkt *p) { split(b, dir, p, false); }
static void box_split_first(struct sim_box *b, int dir, struct sim_pkt *p) { split(b, dir, p, true); }

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
    if (p) box_emit(b, dir, p);
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
    if (a && (!b->cfg.most || b->touched < b->cfg.most) && can_merge(b, a, p, any)) {
        mp_time until = a->at;
        p = merged(b, a, p);
        p->at = until;
        b->held[dir] = p;
        box_touch(b, dir, "merge", p);
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
        /* Always upwards: changes both ways may cancel in the checksum of a mapping of many packets. */
        uint8_t *d = sim_pkt_own_payload(b->sim, p);
        uint32_t at = p->h.len / 2;
        while (d[at] == 0xff && at + 1 < p->h.len) at++;
        d[at]++;
        box_touch(b, dir, "payload", p);
    }
    box_emit(b, dir, p);
}

/* It knows what went by before it acts: a hole of then is filled once, and what is behind it never comes again (seed 946156). */
static void box_holes(struct sim_box *b, int dir, struct sim_pkt *p)
{
    struct sim_box_flow *f = box_flow_of(b, dir, &p->h, true);
    uint32_t end = p->h.seq + p->h.len + !!(p->h.flags & MP_SYN) + !!(p->h.flags & MP_FIN);
    if (p->h.flags & MP_SYN || !f->seen[dir]) {
        f->seen[dir] = true;
        f->next[dir] = end;
    } else if (p->h.len && (int32_t)(p->h.seq - f->next[dir]) > 0 && box_acts(b, dir)) {
        box_drop(b, dir, p);
        return;
    } else if ((int32_t)(end - f->next[dir]) > 0) {
        f->next[dir] = end;
    }
    box_emit(b, dir, p);
}

static const struct sim_box_kind kinds[SIM_BOX_COUNT] = {
    [SIM_BOX_STRIP_SYN] = {"strip-syn", "MPTCP options in SYNs made NOPs", box_strip_syn},
    [SIM_BOX_STRIP_SYNACK] = {"strip-synack", "MPTCP options in SYN/ACKs made NOPs", box_strip_synack},
    [SIM_BOX_STRIP_NONSYN] = {"strip-nonsyn", "MPTCP options in all but SYNs made NOPs", box_strip_nonsyn},
    [SIM_BOX_STRIP_ALL] = {"strip-all", "MPTCP options in all packets made NOPs", box_strip_all},
    [SIM_BOX_STRIP_ADD_ADDR] = {"strip-add-addr", "ADD_ADDR made NOPs", box_strip_add_addr},
    [SIM_BOX_STRIP_JOIN] = {"strip-join", "MP_JOIN in SYNs made NOPs", box_strip_join},
    [SIM_BOX_DROP_SYN] = {"drop-syn", "SYNs with MPTCP options dropped", box_drop_syn},
    [SIM_BOX_DROP_JOIN] = {"drop-join", "SYNs with MP_JOIN dropped", box_drop_join},
    [SIM_BOX_NAT] = {"nat", "address and port translated", box_nat},
    [SIM_BOX_NAT_REBIND] = {"nat-rebind", "NAT that changes its ports", box_nat_rebind, .sees_all = true},
    [SIM_BOX_NAT_EXPIRE] = {"nat-expire", "NAT that forgets its flows", box_nat_expire, .sees_all = true},
    [SIM_BOX_SEQ] = {"seq", "sequence numbers moved, SACK blocks too", box_seq, .sees_all = true},
    [SIM_BOX_SEQ_NO_SACK] = {"seq-no-sack", "sequence numbers moved, SACK blocks not", box_seq_no_sack, .sees_all = true},
    [SIM_BOX_SPLIT] = {"split", "segments split, options on both parts", box_split},
    [SIM_BOX_SPLIT_FIRST] = {"split-first", "segments split, options on the first part", box_split_first},
    [SIM_BOX_MERGE] = {"merge", "segments with equal options joined", box_merge},
    [SIM_BOX_MERGE_ANY] = {"merge-any", "segments joined, the first one's options kept", box_merge_any},
    [SIM_BOX_PAYLOAD] = {"payload", "a byte of data packets changed", box_payload},
    [SIM_BOX_ALG] = {"alg", "bytes inserted once, numbers mended", box_alg, .sees_all = true},
    [SIM_BOX_ALG_SHRINK] = {"alg-shrink", "bytes taken out once, numbers mended", box_alg, .sees_all = true},
    [SIM_BOX_PROXY] = {"proxy", "data acknowledged ahead, without MPTCP options", box_proxy, .sees_all = true},
    [SIM_BOX_ANSWER] = {"answer", "a proxy that answers for both sides, without MPTCP options", box_proxy, .sees_all = true},
    [SIM_BOX_HOLES] = {"holes", "data after a hole dropped", box_holes, .sees_all = true},
    [SIM_BOX_ACK_UNSEEN] = {"ack-unseen", "ACKs of unseen data dropped", box_ack_unseen, .sees_all = true},
    [SIM_BOX_CLAMP] = {"clamp", "windows made smaller", box_clamp, .sees_all = true},
    [SIM_BOX_MSS] = {"mss", "the MSS option made smaller", box_mss},
    [SIM_BOX_STRIP_TS] = {"strip-ts", "timestamps taken out", box_strip_ts},
    [SIM_BOX_STRIP_SACK_OK] = {"strip-sack-ok", "SACK-permitted taken out", box_strip_sack_ok},
    [SIM_BOX_STRIP_SACK] = {"strip-sack", "SACK blocks taken out", box_strip_sack},
    [SIM_BOX_STRIP_WSCALE] = {"strip-wscale", "the window scale taken out", box_strip_wscale},
    [SIM_BOX_OPT_ORDER] = {"opt-order", "options in reverse order", box_opt_order},
    [SIM_BOX_OPT_DUP] = {"opt-dup", "an MPTCP option twice", box_opt_dup},
    [SIM_BOX_DUP] = {"dup", "packets twice", box_dup},
    [SIM_BOX_DELAY] = {"delay", "packets later", box_delay},
    [SIM_BOX_REORDER] = {"reorder", "some packets later", box_reorder},
    [SIM_BOX_CORRUPT] = {"corrupt", "checksums wrong", box_corrupt},
    [SIM_BOX_BIG] = {"big", "large packets lost, no ICMP", box_big},
    [SIM_BOX_BIG_ICMP] = {"big-icmp", "large packets lost, told by ICMP", box_big_icmp},
    [SIM_BOX_ICMP_LIES] = {"icmp-lies", "ICMP errors for packets that went on", box_icmp_lies},
};

const char *sim_box_name(enum sim_box_what what) { return kinds[what].name; }
const char *sim_box_text(enum sim_box_what what) { return kinds[what].text; }

bool sim_box_find(const char *name, enum sim_box_what *what)
{
    for (int i = 0; i < SIM_BOX_COUNT; i++)
        if (strcmp(kinds[i].name, name) == 0) {
            *what = (enum sim_box_what)i;
            return true;
        }
    return false;
}

bool sim_box_is_nat(enum sim_box_what what)
{
    return what == SIM_BOX_NAT || what == SIM_BOX_NAT_REBIND || what == SIM_BOX_NAT_EXPIRE;
}

void box_later(struct sim_box *b, int dir, struct sim_pkt *p, mp_time at)
{
    p->at = at;
    struct sim_pkt **l = &b->later[dir];
    while (*l && (*l)->at <= at) l = &(*l)->next;
    p->next = *l;
    *l = p;
}

/* ---- the node ---- */

static void half_forward(struct sim_node *n, struct sim_pkt *p)
{
    struct sim_box_half *h = (struct sim_box_half *)n;
    struct sim_box *b = h->box;
    if (b->kind->sees_all || box_acts(b, h->dir)) b->kind->forward(b, h->dir, p);
    else box_emit(b, h->dir, p);
}

static mp_time half_next_run_at(const struct sim_node *n)
{
    const struct sim_box_half *h = (const struct sim_box_half *)n;
    const struct sim_pkt *p = h->box->held[h->dir], *q = h->box->later[h->dir];
    mp_time t = mp_min(p ? p->at : MP_NEVER, q ? q->at : MP_NEVER);
    return h->box->kind->forward == box_proxy ? mp_min(t, box_proxy_next(h->box, h->dir)) : t;
}

static void half_run(struct sim_node *n)
{
    struct sim_box_half *h = (struct sim_box_half *)n;
    struct sim_box *b = h->box;
    if (b->held[h->dir] && b->held[h->dir]->at <= n->sim->now) release(b, h->dir);
    while (b->later[h->dir] && b->later[h->dir]->at <= n->sim->now) {
        struct sim_pkt *p = b->later[h->dir];
        b->later[h->dir] = p->next;
        p->next = NULL;
        box_emit(b, h->dir, p);
    }
    if (b->kind->forward == box_proxy) box_proxy_run(b, h->dir);
}

void sim_box_forget(struct sim_box *b)
{
    for (struct sim_box_flow *f = b->flows; f; f = f->list)
        for (int dir = 0; dir < 2; dir++) box_proxy_free(b, &f->proxy[dir]);
}

static void half_free(struct sim_node *n)
{
    struct sim_box_half *h = (struct sim_box_half *)n;
    struct sim_box *b = h->box;
    if (b->held[h->dir]) sim_pkt_free(n->sim, b->held[h->dir]);
    while (b->later[h->dir]) {
        struct sim_pkt *p = b->later[h->dir];
        b->later[h->dir] = p->next;
        sim_pkt_free(n->sim, p);
    }
    free(h);
    if (--b->halves_left) return;
    while (b->flows) {
        struct sim_box_flow *f = b->flows;
        b->flows = f->list;
        for (int dir = 0; dir < 2; dir++) box_proxy_free(b, &f->proxy[dir]);
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
    if (!b->cfg.size) b->cfg.size = cfg->what == SIM_BOX_SPLIT || cfg->what == SIM_BOX_SPLIT_FIRST ? 700 : 16000;
    if (!b->cfg.hold) b->cfg.hold = MP_US(300);
    for (int dir = 0; dir < 2; dir++) {
        struct sim_box_half *h = calloc(1, sizeof *h);
        if (!h) abort();
        h->box = b;
        h->dir = dir;
        char text[40];
        snprintf(text, sizeof text, "%.20s.%d", name, dir);
        sim_node_add(s, &h->node, &half_ops, text);
        h->node.out = dir == 0 ? out0 : out1;
        b->half[dir] = h;
    }
    return b;
}
