/* sim/box_proxy.c: a performance-enhancing proxy that acknowledges data before the receiver has it (RFC 3135), with
 * ACKs that carry no MPTCP option. What it has acknowledged it must deliver: it keeps copies and sends them again. */
#include "sim/box_int.h"

/* Its own congestion control: a fixed window of bytes towards the receiver, and a buffer that holds a little more. */
enum { FIRST_RTO_MS = 150, LAST_RTO_MS = 10000, GONE_S = 20, OUT_WINDOW = 30000, BUFFER = 60000 };

static void push(struct sim_box_copy **list, struct sim_pkt *p)
{
    while (*list && !seq_after((*list)->p->h.seq, p->h.seq)) list = &(*list)->next;
    struct sim_box_copy *c = malloc(sizeof *c);
    if (!c) abort();
    *c = (struct sim_box_copy){p, *list};
    *list = c;
}

static struct sim_pkt *shift(struct sim_box_copy **list)
{
    struct sim_box_copy *c = *list;
    struct sim_pkt *p = c->p;
    *list = c->next;
    free(c);
    return p;
}

void box_proxy_free(struct sim_box *b, struct sim_box_proxy *x)
{
    while (x->kept) sim_pkt_free(b->sim, shift(&x->kept));
    while (x->held) sim_pkt_free(b->sim, shift(&x->held));
}

/* What the sender may still send: as far as the receiver allows, and as there is room here. */
static uint16_t window_left(const struct sim_box_proxy *x)
{
    uint32_t right = x->una + ((uint32_t)x->wnd << x->wscale), room = x->una + BUFFER;
    if (seq_after(right, room)) right = room;
    return seq_after(right, x->next) ? (uint16_t)mp_min((right - x->next) >> x->wscale, 65535u) : 0;
}

/* Where the timestamp option's value is; NULL: there is none. */
static uint8_t *ts_at(struct mp_pkt *h)
{
    uint8_t *o = box_find_option(h, OPT_TS, 10);
    return o ? o + 2 : NULL;
}

/* An ACK in the receiver's name to who sent p. */
static void ack_ahead(struct sim_box *b, int dir, const struct sim_box_proxy *x, struct mp_pkt *data)
{
    struct mp_pkt h = {.src = data->dst, .dst = data->src, .seq = x->ack_seq, .ack = x->next, .flags = MP_ACK,
                       .wnd = window_left(x)};
    const uint8_t *ts = ts_at(data);
    if (ts) {
        h.optlen = 12;
        h.opt[0] = h.opt[1] = OPT_NOP;
        h.opt[2] = OPT_TS;
        h.opt[3] = 10;
        store32(h.opt + 4, x->ack_ts);
        memcpy(h.opt + 8, ts, 4);
    }
    struct sim_pkt *p = sim_pkt_new(b->sim, &h, NULL, 0);
    box_touch(b, !dir, "ack", p);
    box_emit(b, !dir, p);
}

static void send_kept(struct sim_box *b, int dir, const struct sim_box_proxy *x, struct sim_pkt *p)
{
    uint8_t *ts = ts_at(&p->h);
    if (ts) store32(ts, x->data_ts);
    p->h.ack = x->data_ack;
    box_emit(b, dir, p);
}

static void send_more(struct sim_box *b, int dir, struct sim_box_proxy *x)
{
    for (const struct sim_box_copy *k = x->kept; k;) {
        uint32_t end = k->p->h.seq + k->p->h.len;
        if (!seq_after(end, x->out)) {
            k = k->next;
            continue;
        }
        if (end - x->una > OUT_WINDOW) break;
        x->out = end;
        if (x->again == MP_NEVER) x->again = b->sim->now + x->rto;
        send_kept(b, dir, x, sim_pkt_dup(b->sim, k->p));
        k = x->kept; /* a proxy behind this one may have acknowledged it at once */
    }
}

static void keep(struct sim_box_proxy *x, struct sim_pkt *p)
{
    x->next = p->h.seq + p->h.len;
    push(&x->kept, p);
}

static void keep_held(struct sim_box *b, struct sim_box_proxy *x)
{
    while (x->held && !seq_after(x->held->p->h.seq, x->next)) {
        struct sim_pkt *k = shift(&x->held);
        if (seq_after(k->h.seq + k->h.len, x->next)) keep(x, k);
        else sim_pkt_free(b->sim, k);
    }
}

/* In order it goes on at once; beyond a gap it waits here, for the receiver must not see what we do not keep. */
static void take_data(struct sim_box *b, int dir, struct sim_box_proxy *x, struct sim_pkt *p)
{
    struct mp_pkt head = p->h;
    const uint8_t *ts = ts_at(&p->h);
    if (ts && seq_after(load32(ts), x->data_ts)) x->data_ts = load32(ts);
    if (seq_after(p->h.seq, x->next)) {
        push(&x->held, p);
    } else if (seq_after(p->h.seq + p->h.len, x->next)) {
        keep(x, p);
        keep_held(b, x);
        send_more(b, dir, x);
    } else {
        box_emit(b, dir, p); /* sent again by the sender itself: its option may be what matters */
    }
    ack_ahead(b, dir, x, &head);
}

/* A packet of the receiver: what it has now, and its number made no smaller than what we said for it. */
static void see_receiver(struct sim_box *b, int dir, struct sim_box_proxy *x, struct sim_pkt *p)
{
    const uint8_t *ts = ts_at(&p->h);
    x->heard = b->sim->now;
    x->ack_seq = p->h.seq + p->h.len + !!(p->h.flags & MP_FIN);
    if (ts) x->ack_ts = load32(ts);
    if (!(p->h.flags & MP_ACK) || seq_after(x->una, p->h.ack)) return;
    if (seq_after(p->h.ack, x->una)) x->rto = MP_MS(FIRST_RTO_MS);
    x->una = p->h.ack;
    x->wnd = p->h.wnd;
    bool progress = false;
    while (x->kept && !seq_after(x->kept->p->h.seq + x->kept->p->h.len, x->una)) {
        sim_pkt_free(b->sim, shift(&x->kept));
        progress = true;
    }
    if (!x->kept) x->again = MP_NEVER;
    else if (progress) x->again = b->sim->now + x->rto;
    if (seq_after(x->una, x->next)) { /* what passed before the proxy acted has arrived */
        x->next = x->una;
        x->out = x->una;
        keep_held(b, x);
    }
    if (seq_after(x->una, x->out)) x->out = x->una;
    send_more(b, !dir, x);
    if (seq_after(x->next, p->h.ack)) {
        p->h.wnd = window_left(x);
        p->h.ack = x->next;
    }
}

/* After a reset it has nothing to deliver any more, and acknowledges no more than the receiver itself: else who asks whether the reset was
 * meant (RFC 5961 3.2) would be answered by one with the number that the proxy made of the question, for ever. */
static void give_up(struct sim_box *b, struct sim_box_proxy *x)
{
    box_proxy_free(b, x);
    x->next = x->out = x->una;
}

/* in: of the data that its sender will acknowledge; out: of its own. Both ends must have sent a window scale (RFC 7323 2.2; another
 * box may have taken it out of the SYN). */
static void see_syn(struct sim_box_proxy *in, struct sim_box_proxy *out, struct sim_pkt *p)
{
    const uint8_t *scale = box_find_option(&p->h, OPT_WSCALE, 3);
    if (scale) in->wscale = scale[2];
    if (!scale && p->h.flags & MP_ACK) {
        out->wnd = (uint16_t)mp_min((uint32_t)out->wnd << out->wscale, 65535u);
        in->wscale = out->wscale = 0;
    }
    in->ack_seq = p->h.seq + 1;
    in->wnd = (uint16_t)mp_min(p->h.wnd >> in->wscale, 65535u); /* not scaled in a SYN (RFC 7323 2.2) */
    const uint8_t *ts = ts_at(&p->h);
    if (ts) in->ack_ts = load32(ts);
    if (p->h.flags & MP_ACK) in->una = p->h.ack;
}

void box_proxy(struct sim_box *b, int dir, struct sim_pkt *p)
{
    if (b->cfg.what == SIM_BOX_ANSWER && box_acts(b, dir) && box_strip_mptcp(&p->h, UINT32_MAX, true)) box_touch(b, dir, "strip", p);
    if (p->spoilt) { /* it checks sums, as who answers for others must (seed 1406715) */
        box_emit(b, dir, p);
        return;
    }
    struct sim_box_flow *f = box_flow_of(b, dir, &p->h, true);
    struct sim_box_proxy *out = &f->proxy[dir], *in = &f->proxy[!dir]; /* of p's own data, of the data it acknowledges */
    if (p->h.flags & (MP_SYN | MP_RST)) {
        if (p->h.flags & MP_SYN) see_syn(in, out, p);
        else give_up(b, out), give_up(b, in);
        box_emit(b, dir, p);
        return;
    }
    if (box_acts(b, !dir) && in->seen) see_receiver(b, dir, in, p);
    else {
        in->una = p->h.ack;
        in->wnd = p->h.wnd;
        in->ack_seq = p->h.seq + p->h.len;
        const uint8_t *ts = ts_at(&p->h);
        if (ts) in->ack_ts = load32(ts);
    }
    if (!out->seen || seq_after(p->h.ack, out->data_ack)) out->data_ack = p->h.ack;
    if (!p->h.len || !box_acts(b, dir) || p->h.flags & MP_FIN) {
        box_emit(b, dir, p);
        return;
    }
    if (!out->seen) {
        /* From the receiver's own edge on: there may be gaps before this segment. */
        out->seen = true;
        out->next = out->out = out->una;
        const uint8_t *ts = ts_at(&p->h);
        if (ts) out->data_ts = load32(ts);
        out->rto = MP_MS(FIRST_RTO_MS);
        out->again = MP_NEVER;
    }
    take_data(b, dir, out, p);
}

mp_time box_proxy_next(const struct sim_box *b, int dir)
{
    mp_time t = MP_NEVER;
    for (const struct sim_box_flow *f = b->flows; f; f = f->list)
        if (f->proxy[dir].kept) t = mp_min(t, f->proxy[dir].again);
    return t;
}

void box_proxy_run(struct sim_box *b, int dir)
{
    for (struct sim_box_flow *f = b->flows; f; f = f->list) {
        struct sim_box_proxy *x = &f->proxy[dir];
        if (!x->kept || x->again > b->sim->now) continue;
        x->rto = mp_min(x->rto * 2, MP_MS(LAST_RTO_MS));
        x->again = b->sim->now + x->rto;
        if (x->rto == MP_MS(LAST_RTO_MS) && b->sim->now - x->heard > MP_SEC(GONE_S)) { /* the receiver is gone; while it is heard, the data is owed to it */
            box_proxy_free(b, x);
            continue;
        }
        box_touch(b, dir, "again", x->kept->p);
        x->out = x->una;
        send_more(b, dir, x);
    }
}
