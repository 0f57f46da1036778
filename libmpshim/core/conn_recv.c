/* The connection's receive side: bytes with data sequence numbers become one stream in order, which its owner reads. */
#include "core/stack_int.h"

#include <errno.h>
#include <stdlib.h>

/* ---- in-order queue to the owner ---- */

static bool rxq_grow(struct mpc *c)
{
    uint32_t cap = c->rxq_cap ? c->rxq_cap * 2 : 4;
    struct mp_slice *q = malloc(cap * sizeof *q);
    if (!q) return false;
    for (uint32_t i = 0; i < c->rxq_n; i++) q[i] = c->rxq[(c->rxq_head + i) % c->rxq_cap];
    free(c->rxq);
    c->rxq = q;
    c->rxq_cap = cap;
    c->rxq_head = 0;
    return true;
}

#define GATHER 16384 /* bytes of a buffer that small segments share */

/* Appends d to the last buffer of the queue when that is a gathering one with room. */
static bool rxq_gather(struct mpc *c, const struct mp_slice *d)
{
    if (!c->rxq_n) return false;
    struct mp_slice *t = &c->rxq[(c->rxq_head + c->rxq_n - 1) % c->rxq_cap];
    if (t->buf->size != GATHER || t->buf->refs != 1) return false;
    uint8_t *end = (uint8_t *)(uintptr_t)t->p + t->len;
    if ((size_t)(t->buf->data + GATHER - end) < d->len) return false;
    memcpy(end, d->p, d->len);
    t->len += d->len;
    return true;
}

/* MTU-sized pieces are copied together: fewer system calls and allocations than one buffer each. The first of them may
 * stay alone, as a request or an answer does: it gets a buffer of its size. */
static struct mp_slice rxq_keep(const struct mpc *c, const struct mp_slice *d)
{
    struct mp_slice k = { NULL, NULL, 0 };
    if (d->len > GATHER / 4 || !c->rxq_n) return mp_slice_keep(d);
    k.buf = mp_buf_new(GATHER);
    if (!k.buf) return k;
    memcpy(k.buf->data, d->p, d->len);
    k.p = k.buf->data;
    k.len = d->len;
    return k;
}

static bool rxq_push(struct mpc *c, const struct mp_slice *d)
{
    if (rxq_gather(c, d)) {
        c->v.rxq_bytes += d->len;
        return true;
    }
    if (c->rxq_n == c->rxq_cap && !rxq_grow(c)) return false;
    struct mp_slice k = rxq_keep(c, d);
    if (!k.buf) return false;
    c->rxq[(c->rxq_head + c->rxq_n++) % c->rxq_cap] = k;
    c->v.rxq_bytes += k.len;
    return true;
}

int mpc_peek(const struct mpc *c, struct mp_iov *iov, int n)
{
    int k = 0;
    for (; k < n && (uint32_t)k < c->rxq_n; k++) {
        const struct mp_slice *s = &c->rxq[(c->rxq_head + (uint32_t)k) % c->rxq_cap];
        iov[k].base = s->p;
        iov[k].len = s->len;
    }
    return k;
}

uint64_t mpc_readable(const struct mpc *c) { return c->v.rxq_bytes; }

void mpc_consume(struct mpc *c, uint64_t bytes, mp_time now)
{
    (void)now;
    c->v.bytes_read += bytes;
    while (bytes && c->rxq_n) {
        struct mp_slice *s = &c->rxq[c->rxq_head];
        uint32_t n = (uint32_t)mp_min(bytes, s->len);
        c->v.rxq_bytes -= n;
        bytes -= n;
        if (n < s->len) {
            mp_slice_skip(s, n);
            break;
        }
        mp_slice_put(s);
        c->rxq_head = (c->rxq_head + 1) % c->rxq_cap;
        c->rxq_n--;
    }
    conn_touch(c); /* the window may have opened */
}

bool mpc_eof(const struct mpc *c) { return c->v.fin_consumed && !c->v.rxq_bytes; }

/* ---- reassembly ---- */

static void ack_everywhere(struct mpc *c)
{
    for (struct sf *s = c->sfs; s; s = s->next)
        if (sf_can_carry(s)) s->v.ack_now = true;
}

/* The owner hears of the peer's end now, and often ends its own direction at once: one segment says both. */
static void ack_with_our_end(struct mpc *c)
{
    for (struct sf *s = c->sfs; s; s = s->next)
        if (sf_can_carry(s)) sf_ack_soon(s, c->st->now);
}

static void check_fin(struct mpc *c)
{
    if (!c->v.peer_fin || c->v.fin_consumed || c->v.rcv_nxt != c->v.peer_fin_dsn) return;
    c->v.rcv_nxt++; /* DATA_FIN takes one */
    c->v.fin_consumed = true;
    if (c->v.shut) ack_everywhere(c);
    else ack_with_our_end(c);
    conn_event(c, MP_EV_READABLE);
}

/* As far as data is taken beyond the window, and why: conn_receive. */
static mp_dsn furthest(struct mpc *c) { return conn_rcv_edge(c) + c->v.rcvbuf; }

void conn_peer_fin(struct mpc *c, mp_dsn at, mp_time now)
{
    (void)now;
    if (!c->v.peer_fin) {
        if (at < c->v.rcv_nxt) return;
        if (at > furthest(c)) { /* the first counts: a wrong one would hide the true end, as a FIN out of the window does not */
            st_count(c->st, MP_E_beyond_window, 1, c);
            return;
        }
        st_count(c->st, MP_E_data_fin_in, 1, c);
        c->v.peer_fin = true;
        c->v.peer_fin_dsn = at;
    }
    check_fin(c);
}

void conn_plain_eof(struct mpc *c, mp_time now)
{
    (void)now;
    if (c->v.fin_consumed) return;
    c->v.peer_fin = c->v.fin_consumed = true;
    conn_event(c, MP_EV_READABLE);
}

/* Out of order: waits. */
static void keep_for_later(struct mpc *c, mp_dsn dsn, const struct mp_slice *d, mp_time now)
{
    st_count(c->st, MP_E_ooo_conn, d->len, c);
    if (!mem_has_room_for_holes(c)) { /* acknowledged on its subflow: it comes again by the connection's timer */
        st_count(c->st, MP_E_memory_dropped, d->len, c);
        return;
    }
    if (!c->ooo.n) silence_hole(c, now);
    if (mp_rangemap_insert(&c->ooo, dsn, d, 0) < 0) st_count(c->st, MP_E_no_memory, 1, c);
}

/* false: there is no room for it. */
static bool take_in_order(struct mpc *c, const struct mp_slice *d, mp_time now)
{
    /* Of the only subflow nothing is dropped that was acknowledged there: its peer may yet go on as plain TCP. */
    if (!c->v.rx_plain && c->v.sf_ever > 1 && !mem_has_room_for_more(c)) {
        st_count(c->st, MP_E_memory_dropped, d->len, c);
        return false;
    }
    if (!rxq_push(c, d)) {
        st_count(c->st, MP_E_no_memory, 1, c);
        if (c->v.rx_plain) conn_fail(c, ENOMEM, now); /* already acknowledged; else not DATA_ACKed: it comes again */
        return false;
    }
    c->v.rcv_nxt += d->len;
    return true;
}

/* The hole before them is filled. */
static void take_those_that_waited(struct mpc *c)
{
    struct mp_slice o;
    uint64_t tag;
    while (c->ooo.n && mp_rangemap_pop(&c->ooo, c->v.rcv_nxt, &o, &tag)) {
        bool ok = rxq_push(c, &o);
        if (ok) c->v.rcv_nxt += o.len;
        mp_slice_put(&o);
        if (!ok) break;
    }
}

/* In-order or not, new or old: what is new goes to the owner or waits. */
void conn_receive(struct mpc *c, mp_dsn dsn, struct mp_slice d, mp_time now)
{
    if (dsn + d.len <= c->v.rcv_nxt || c->v.fin_consumed) {
        st_count(c->st, MP_E_dup_conn, d.len, c);
        return;
    }
    if (c->v.released) { /* RFC 9293 3.6.1: nobody is there to read it */
        conn_fail(c, ECONNABORTED, now);
        return;
    }
    if (dsn < c->v.rcv_nxt) {
        uint32_t old = (uint32_t)(c->v.rcv_nxt - dsn);
        mp_slice_skip(&d, old);
        dsn += old;
    }
    /* Taken beyond the edge as well, within reason: Linux adds a new DATA_ACK to the window of an older segment and
     * so oversteps while our window shrinks; what is dropped here was acknowledged on its subflow and comes again only
     * by the connection's timer (a 3 GB fetch crept at that pace). */
    mp_dsn edge = furthest(c);
    if (!c->v.rx_plain && dsn + d.len > edge) {
        st_count(c->st, MP_E_beyond_window, dsn + d.len - edge, c);
        if (dsn >= edge) return;
        mp_slice_cut(&d, (uint32_t)(edge - dsn));
    }
    c->v.data_recv_at = now;
    if (dsn > c->v.rcv_nxt) {
        keep_for_later(c, dsn, &d, now);
        return;
    }
    if (!take_in_order(c, &d, now)) return;
    /* RFC 5681 4.2, one level up: a sender that repairs a hole piece by piece waits for each to be acknowledged (Linux). */
    if (c->ooo.n && now - c->v.stuck_since > MP_MS(20)) ack_everywhere(c);
    c->v.stuck_since = now;
    take_those_that_waited(c);
    conn_event(c, MP_EV_READABLE);
    check_fin(c);
}
