/* sim/box_opt.c: boxes that treat TCP options: take them out, drop what carries them, move them about. */
#include "sim/box_int.h"

static bool has_mptcp(struct mp_pkt *h, uint32_t subtypes)
{
    for (uint8_t *o = box_next_option(h, NULL); o; o = box_next_option(h, o))
        if (box_is_mptcp(o, subtypes)) return true;
    return false;
}

/* Takes n bytes at o out of the header; NOPs at the end keep its length a multiple of four. */
static void cut_out(struct mp_pkt *h, uint8_t *o)
{
    uint8_t n = o[1], *end = h->opt + h->optlen;
    memmove(o, o + n, (size_t)(end - o - n));
    h->optlen -= n;
    while (h->optlen % 4) h->opt[h->optlen++] = OPT_NOP;
}

/* Removes an option, or turns it into NOPs, as boxes do that keep the header's length. */
static void take_away(struct mp_pkt *h, uint8_t *o, bool out)
{
    if (out) cut_out(h, o);
    else memset(o, OPT_NOP, o[1]);
}

bool box_strip_mptcp(struct mp_pkt *h, uint32_t subtypes, bool out)
{
    bool did = false;
    for (uint8_t *o = box_next_option(h, NULL); o;) {
        if (!box_is_mptcp(o, subtypes)) {
            o = box_next_option(h, o);
            continue;
        }
        did = true;
        take_away(h, o, out);
        o = box_next_option(h, NULL);
    }
    return did;
}

static void strip_if(struct sim_box *b, int dir, struct sim_pkt *p, bool applies, uint32_t subtypes)
{
    if (applies && box_strip_mptcp(&p->h, subtypes, b->cfg.cut_out)) box_touch(b, dir, "strip", p);
    box_emit(b, dir, p);
}

void box_strip_syn(struct sim_box *b, int d, struct sim_pkt *p) { strip_if(b, d, p, box_is_syn(&p->h), UINT32_MAX); }
void box_strip_synack(struct sim_box *b, int d, struct sim_pkt *p) { strip_if(b, d, p, box_is_synack(&p->h), UINT32_MAX); }
void box_strip_nonsyn(struct sim_box *b, int d, struct sim_pkt *p) { strip_if(b, d, p, !(p->h.flags & MP_SYN), UINT32_MAX); }
void box_strip_all(struct sim_box *b, int d, struct sim_pkt *p) { strip_if(b, d, p, true, UINT32_MAX); }
void box_strip_add_addr(struct sim_box *b, int d, struct sim_pkt *p) { strip_if(b, d, p, true, MP_OPT_HAS(MP_ADD_ADDR)); }
void box_strip_join(struct sim_box *b, int d, struct sim_pkt *p) { strip_if(b, d, p, p->h.flags & MP_SYN, MP_OPT_HAS(MP_JOIN)); }

static void drop_if(struct sim_box *b, int dir, struct sim_pkt *p, uint32_t subtypes)
{
    if (p->h.flags & MP_SYN && has_mptcp(&p->h, subtypes)) box_drop(b, dir, p);
    else box_emit(b, dir, p);
}

void box_drop_syn(struct sim_box *b, int dir, struct sim_pkt *p) { drop_if(b, dir, p, UINT32_MAX); }
void box_drop_join(struct sim_box *b, int dir, struct sim_pkt *p) { drop_if(b, dir, p, MP_OPT_HAS(MP_JOIN)); }

static void strip_kind(struct sim_box *b, int dir, struct sim_pkt *p, uint8_t kind)
{
    bool did = false;
    for (uint8_t *o = box_next_option(&p->h, NULL); o;) {
        if (*o != kind) {
            o = box_next_option(&p->h, o);
            continue;
        }
        did = true;
        take_away(&p->h, o, b->cfg.cut_out);
        o = box_next_option(&p->h, NULL);
    }
    if (did) box_touch(b, dir, "strip", p);
    box_emit(b, dir, p);
}

void box_strip_ts(struct sim_box *b, int dir, struct sim_pkt *p) { strip_kind(b, dir, p, OPT_TS); }
void box_strip_sack_ok(struct sim_box *b, int dir, struct sim_pkt *p) { strip_kind(b, dir, p, OPT_SACK_OK); }
void box_strip_sack(struct sim_box *b, int dir, struct sim_pkt *p) { strip_kind(b, dir, p, OPT_SACK); }
void box_strip_wscale(struct sim_box *b, int dir, struct sim_pkt *p) { strip_kind(b, dir, p, OPT_WSCALE); }

/* A receiver may rely on no order (RFC 9293 3.1). */
void box_opt_order(struct sim_box *b, int dir, struct sim_pkt *p)
{
    uint8_t copy[sizeof p->h.opt], *end = copy + sizeof copy, *to = end;
    unsigned n = 0;
    for (uint8_t *o = box_next_option(&p->h, NULL); o; o = box_next_option(&p->h, o)) {
        if (*o == OPT_NOP) continue;
        to -= o[1];
        memcpy(to, o, o[1]);
        n++;
    }
    if (n > 1) {
        memset(p->h.opt, OPT_NOP, p->h.optlen);
        memcpy(p->h.opt + p->h.optlen - (end - to), to, (size_t)(end - to));
        box_touch(b, dir, "order", p);
    }
    box_emit(b, dir, p);
}

void box_opt_dup(struct sim_box *b, int dir, struct sim_pkt *p)
{
    uint8_t *last = NULL;
    for (uint8_t *o = box_next_option(&p->h, NULL); o; o = box_next_option(&p->h, o))
        if (box_is_mptcp(o, UINT32_MAX)) last = o;
    if (last && (p->h.optlen + last[1] + 3u) / 4 * 4 <= sizeof p->h.opt) {
        memcpy(p->h.opt + p->h.optlen, last, last[1]);
        p->h.optlen += last[1];
        while (p->h.optlen % 4) p->h.opt[p->h.optlen++] = OPT_NOP;
        box_touch(b, dir, "twice", p);
    }
    box_emit(b, dir, p);
}

void box_mss(struct sim_box *b, int dir, struct sim_pkt *p)
{
    for (uint8_t *o = box_next_option(&p->h, NULL); o && p->h.flags & MP_SYN; o = box_next_option(&p->h, o))
        if (*o == OPT_MSS && (o[2] << 8 | o[3]) > (int)b->cfg.size) {
            o[2] = (uint8_t)(b->cfg.size >> 8);
            o[3] = (uint8_t)b->cfg.size;
            box_touch(b, dir, "mss", p);
        }
    box_emit(b, dir, p);
}
