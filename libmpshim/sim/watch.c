/* sim/watch.c: see watch.h. */
#include "sim/watch.h"

#include <stdlib.h>

#include "core/opt.h"
#include "core/stack_int.h"

#define SLOTS 4096 /* power of two; SIM_MAX_CONN and some that linger */
/* The longest: RTO, orphans, TIME_WAIT and paths tried again have 60 s; a subflow whose link is gone, more (pm.c). */
#define TIMER_MAX MP_SEC(61)
#define KEEPALIVE_MAX MP_SEC(7201)
#define ASIDE_MAX MP_SEC(121)
#define QUIET_MAX MP_SEC(181) /* three RTOs */
#define SUBFLOWS_MAX 64 /* also dead ones that are not cleared away yet: more cannot be saved */

/* The furthest that a connection ever was. */
struct shadow {
    uint64_t idsn;      /* of which; 0: free. Stays the same when it is saved and loaded */
    bool peer_key_known, plain;
    mp_dsn snd_una, snd_nxt, snd_end, snd_edge, rcv_nxt, rcv_edge;
    uint64_t window;    /* the largest told, bytes: the owner may have lowered the limit since */
    mp_dsn wire_edge;   /* right edge told to the peer: DATA_ACK + window, or ACK + window of plain TCP */
};

struct sim_watch {
    struct shadow slot[SLOTS];
    int used;
};

struct sim_watch *sim_watch_new(void)
{
    struct sim_watch *w = calloc(1, sizeof *w);
    if (!w) abort();
    return w;
}

void sim_watch_free(struct sim_watch *w) { free(w); }

static struct shadow *shadow_of(struct sim_watch *w, const struct mpc *c)
{
    uint64_t key = c->v.idsn_local ? c->v.idsn_local : 1;
    struct shadow *d = &w->slot[sim_mix(key) % SLOTS];
    for (; d->idsn && d->idsn != key; d = d == &w->slot[SLOTS - 1] ? w->slot : d + 1);
    bool plain = c->v.rx_plain;
    if (d->idsn && d->peer_key_known == c->v.peer_key_known && d->plain == plain) return d;
    if (!d->idsn && w->used++ > SLOTS / 2) abort();
    /* Other numbers count from here on: the peer's key is known, or a subflow's numbers took the place of the data's. */
    *d = (struct shadow){.idsn = key, .peer_key_known = c->v.peer_key_known, .plain = plain};
    return d;
}

static struct sim *sim_of(struct sim_host *h) { return h->node.sim; }

/* ---- windows, RFC 9293 3.8.6.2.2, RFC 8684 3.3.5 ---- */

void sim_watch_packet(struct sim_watch *w, struct sim_host *h, const struct mp_pkt *p)
{
    struct sf *s = st_find(h->stack, &p->src, &p->dst);
    struct mp_opts o;
    if (p->wnd == 65535) return; /* all that the field can say: a subflow without scaling says less than others told */
    if (!s || !(p->flags & MP_ACK) || (p->flags & (MP_SYN | MP_RST)) || mp_opts_parse(&o, p->opt, p->optlen, p->flags)) return;
    const struct mpc *c = s->c;
    mp_dsn at;
    if (c->v.rx_plain) at = mp_expand32(s->v.rcv_nxt, p->ack - s->v.irs);
    else if ((o.mp & MP_OPT_HAS(MP_DSS)) && o.dss.has_ack) at = o.dss.ack64 ? o.dss.data_ack : mp_expand32(c->v.rcv_nxt, (uint32_t)o.dss.data_ack);
    else return;
    struct shadow *d = shadow_of(w, c);
    mp_dsn edge = at + ((uint64_t)p->wnd << s->v.rcv_wscale), step = 1u << s->v.rcv_wscale; /* RFC 7323 2.4: rounded down */
    if (edge + step <= d->wire_edge)
        sim_fail(sim_of(h), "%s: the window's edge moves back by %llu", h->node.name, (unsigned long long)(d->wire_edge - edge));
    d->wire_edge = mp_max(d->wire_edge, edge);
    d->window = mp_max(d->window, edge - at);
}

/* ---- numbers ---- */

static bool grew(mp_dsn *was, mp_dsn now)
{
    bool ok = now >= *was;
    *was = now;
    return ok;
}

static const char *numbers_wrong(struct shadow *d, const struct mpc *c)
{
    if (c->v.snd_una > c->v.snd_nxt || c->v.snd_nxt > c->v.snd_end) return "snd_una <= snd_nxt <= snd_end does not hold";
    if (!c->v.tx_plain && c->v.established && c->v.snd_nxt > c->v.snd_edge) return "sent beyond the window's edge";
    if (!grew(&d->snd_una, c->v.snd_una)) return "snd_una went back";
    if (!grew(&d->snd_nxt, c->v.snd_nxt)) return "snd_nxt went back";
    if (!grew(&d->snd_end, c->v.snd_end)) return "snd_end went back";
    if (!grew(&d->snd_edge, c->v.snd_edge)) return "snd_edge went back";
    if (!grew(&d->rcv_nxt, c->v.rcv_nxt)) return "rcv_nxt went back";
    if (!grew(&d->rcv_edge, c->v.rcv_edge)) return "rcv_edge went back";
    return NULL;
}

static const char *subflow_wrong(const struct sf *s)
{
    if (s->v.dead) return NULL;
    if (s->v.snd_una > s->v.snd_nxt) return "subflow: snd_una beyond snd_nxt";
    if (s->v.pipe > s->v.snd_nxt - s->v.snd_una) return "subflow: more in the pipe than in flight";
    if (s->v.cc.active && s->v.cc.cwnd < s->v.mss / 2) return "subflow: no congestion window"; /* the MSS may grow meanwhile */
    if (s->v.srtt && s->v.rto > MP_SEC(60)) return "subflow: RTO above 60 s";
    return NULL;
}

/* ---- timers ---- */

static mp_dur most_of(const struct sf *s, int timer)
{
    if (timer == SFT_QUIET) return QUIET_MAX;
    return timer == SFT_KEEPALIVE ? KEEPALIVE_MAX : timer == SFT_TIME_WAIT && s->v.aside ? ASIDE_MAX : TIMER_MAX;
}

static const char *timers_wrong(const struct mpc *c, mp_time now)
{
    if (conn_deadline(c) < now) return "a timer was missed";
    for (int i = 0; i < CT_COUNT; i++)
        if (c->v.timer[i] != MP_NEVER && c->v.timer[i] > now + TIMER_MAX) return "a connection's timer is too far away";
    for (const struct sf *s = c->sfs; s; s = s->next)
        for (int i = 0; i < SFT_COUNT && !s->v.dead; i++)
            if (s->v.timer[i] != MP_NEVER && s->v.timer[i] > now + most_of(s, i)) return "a subflow's timer is too far away";
    return NULL;
}

/* ---- memory ---- */

static const char *memory_wrong(const struct shadow *d, const struct mpc *c)
{
    uint64_t in = c->ooo.mem_bytes, out = 0, segs = 0;
    int n = 0;
    for (uint32_t i = 0; i < c->rxq_n; i++) in += c->rxq[(c->rxq_head + i) % c->rxq_cap].len;
    for (const struct mp_chunk *k = c->snd_first; k; k = k->next) out += MP_CHUNK_SIZE;
    for (const struct sf *s = c->sfs; s; s = s->next, n++) {
        in += s->ooo.mem_bytes + s->v.hold_bytes;
        for (const struct sf_seg *g = s->seg_head; g; g = g->next) segs++;
    }
    if (n > SUBFLOWS_MAX) return "too many subflows";
    /* What is out of order lies at the subflow or at the connection, within a window each (conn_recv.c takes one more). */
    if (in > 3 * mp_max(c->v.rcvbuf, d->window) + 64 * 1024) return "more memory than the receive buffer allows";
    if (out > mp_max(c->v.sndbuf, 512 * 1024) + 3 * MP_CHUNK_SIZE) return "more memory than the send buffer allows";
    if (segs > 65536) return "too many segments on the scoreboard";
    return NULL;
}

void sim_watch_stack(struct sim_watch *w, struct sim_host *h)
{
    mp_time now = sim_of(h)->now, first = MP_NEVER;
    if (!h->stack) return;
    for (struct mpc *c = mp_stack_first(h->stack); c; c = mp_stack_next(c)) {
        struct shadow *d = shadow_of(w, c);
        const char *wrong = numbers_wrong(d, c);
        if (!wrong) wrong = timers_wrong(c, now);
        if (!wrong) wrong = memory_wrong(d, c);
        for (const struct sf *s = c->sfs; s && !wrong; s = s->next) wrong = subflow_wrong(s);
        if (wrong) sim_fail(sim_of(h), "%s, connection of port %u: %s", h->node.name, c->v.local.port, wrong);
        first = mp_min(first, conn_deadline(c));
    }
    if (mp_min(first, half_deadline(h->stack)) != mp_stack_deadline(h->stack)) sim_fail(sim_of(h), "%s: the stack's deadline is not its connections' earliest", h->node.name);
}
