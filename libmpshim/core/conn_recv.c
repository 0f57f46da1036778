/* The connection's receive side: from a subflow's bytes over mappings to one stream (RFC 8684 3.3.1). */
#include "core/stack_int.h"

#include <errno.h>
#include <stdlib.h>

#include "core/wire.h"

/* ---- window ---- */

uint64_t conn_rcv_space(const struct mpc *c) { return mp_min(mp_min(c->v.rcv_space, c->v.rcvbuf), mem_window(c)); }

/* The window follows what the paths deliver: five times the rate times the longest propagation delay (60 ms
 * at the least, for hosts are late too). Enough for full rate and one loss recovery; not so much that the sender fills
 * every queue on the way, nor its own: Linux hands a subflow all that the window allows, and what waits there is in
 * front of what must be sent again when another path dies (930 KB, 150 ms at 50 Mbit/s, with a window of 8 MB). At 2 x 20
 * Mbit/s, 20 ms, 640 instead of 1024 KB end that stall after 150 ms instead of 190. Slow flows never fill it: theirs stays
 * large, for boxes that cut the window scale off make a 256th of it. */
#define RCV_SPACE_MIN (1024u * 1024)
#define RCV_SPACE_MIN_FAST (640u * 1024)
#define RCV_SPACE_DUPLEX (400u * 1024)
#define FAST 2e-3 /* bytes per ns: 2 MB/s */

/* A window that its program does not use only lets more wait for it, in our memory, and says nothing to the peer of how slow
 * the program is. So it grows while the program keeps up, and by twice what that has taken at the most, as Linux' does; the
 * first of it may only have gone into a socket on the way. */
#define TAKEN_UNREAD (1280u * 1024)
static uint64_t rcv_space_most(const struct mpc *c, uint64_t arrived)
{
    if (c->v.rxq_bytes > arrived / 2) return c->v.rcv_space;
    return mp_max(c->v.rcv_space, RCV_SPACE_MIN + 2 * (mp_max(c->v.bytes_read, TAKEN_UNREAD) - TAKEN_UNREAD));
}

static void autotune(struct mpc *c, uint32_t bytes, mp_time now)
{
    mp_dur rtt = 0;
    c->v.rx_total += bytes;
    if (now - c->v.rx_mark_at < MP_MS(10)) return;
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (sf_can_carry(s) && !s->v.stale) rtt = mp_max(rtt, s->v.min_rtt);
    mp_dur span = now - c->v.rx_mark_at;
    if (span < rtt) return;
    uint64_t arrived = c->v.rx_total - c->v.rx_mark, most = rcv_space_most(c, arrived);
    double rate = (double)arrived / (double)span;
    c->v.rx_rate = rate > c->v.rx_rate * 0.95 ? rate : c->v.rx_rate * 0.95;
    c->v.rx_mark = c->v.rx_total;
    c->v.rx_mark_at = now;
    uint64_t want = mp_max(c->v.rx_rate > FAST ? RCV_SPACE_MIN_FAST : RCV_SPACE_MIN, (uint64_t)(c->v.rx_rate * (double)mp_max(5 * rtt, MP_MS(60))));
    if (duplex_any(c)) /* all that the peer queues delays our ACKs, and so it is with its own: not more than keeps the paths busy */
        want = mp_max(RCV_SPACE_DUPLEX, (uint64_t)(c->v.rx_rate * (double)(2 * rtt + MP_MS(160))));
    c->v.rcv_space = mp_min(want, most);
}

static struct sf_mapping *map_at(const struct sf *s, uint32_t i) { return &s->map[(s->v.map_head + i) & (s->v.map_cap - 1)]; }

mp_dsn conn_in_order(const struct mpc *c)
{
    mp_dsn to = c->v.rcv_nxt;
    for (const struct sf *s = c->sfs; s; s = s->next) {
        if (!s->v.hold_bytes || !s->v.nmap) continue;
        mp_dsn from = map_at(s, 0)->dsn;
        if (from <= c->v.rcv_nxt) to = mp_max(to, from + s->v.hold_bytes);
    }
    return to;
}

/* The most that a segment's window field can say. More than was told is no promise: where a box takes the window scale out, what
 * was offered in thought only would outlast the program's SO_RCVBUF (simulation seed 356306). */
static uint64_t told_at_most(const struct mpc *c)
{
    uint64_t most = 0;
    for (const struct sf *s = c->sfs; s; s = s->next) most = mp_max(most, (uint64_t)65535 << s->v.rcv_wscale);
    return most;
}

/* The window goes on from what waits in its order for the rest of a mapping, and its checksum: Linux maps 64 KB at once, and
 * a window that opens in such steps is given to one path after the other in such pieces. */
uint64_t conn_rcv_edge(struct mpc *c)
{
    uint64_t most = mp_min(conn_rcv_space(c), told_at_most(c)), space = most > c->v.rxq_bytes ? most - c->v.rxq_bytes : 0;
    uint64_t edge = conn_in_order(c) + space;
    if (edge > c->v.rcv_edge) c->v.rcv_edge = edge; /* never back: RFC 9293 3.8.6.2.2 */
    return c->v.rcv_edge;
}

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

static void check_fin(struct mpc *c)
{
    if (!c->v.peer_fin || c->v.fin_consumed || c->v.rcv_nxt != c->v.peer_fin_dsn) return;
    c->v.rcv_nxt++; /* DATA_FIN takes one */
    c->v.fin_consumed = true;
    ack_everywhere(c);
    conn_event(c, MP_EV_READABLE);
}

void conn_peer_fin(struct mpc *c, mp_dsn at, mp_time now)
{
    (void)now;
    if (!c->v.peer_fin) {
        if (at < c->v.rcv_nxt) return;
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

/* In-order or not, new or old: what is new goes to the owner or waits. */
static void receive(struct mpc *c, mp_dsn dsn, struct mp_slice d, mp_time now)
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
    mp_dsn edge = conn_rcv_edge(c) + c->v.rcvbuf;
    if (!c->v.rx_plain && dsn + d.len > edge) {
        st_count(c->st, MP_E_beyond_window, dsn + d.len - edge, c);
        if (dsn >= edge) return;
        mp_slice_cut(&d, (uint32_t)(edge - dsn));
    }
    c->v.data_recv_at = now;
    if (dsn > c->v.rcv_nxt) {
        st_count(c->st, MP_E_ooo_conn, d.len, c);
        if (!mem_has_room_for_holes(c)) { /* acknowledged on its subflow: it comes again by the connection's timer */
            st_count(c->st, MP_E_memory_dropped, d.len, c);
            return;
        }
        if (!c->ooo.n) silence_hole(c, now);
        if (mp_rangemap_insert(&c->ooo, dsn, &d, 0) < 0) st_count(c->st, MP_E_no_memory, 1, c);
        return;
    }
    /* Of the only subflow nothing is dropped that was acknowledged there: its peer may yet go on as plain TCP. */
    if (!c->v.rx_plain && c->v.sf_ever > 1 && !mem_has_room_for_more(c)) {
        st_count(c->st, MP_E_memory_dropped, d.len, c);
        return;
    }
    if (!rxq_push(c, &d)) {
        st_count(c->st, MP_E_no_memory, 1, c);
        if (c->v.rx_plain) conn_fail(c, ENOMEM, now); /* already acknowledged; else not DATA_ACKed: it comes again */
        return;
    }
    c->v.rcv_nxt += d.len;
    /* RFC 5681 4.2, one level up: a sender that repairs a hole piece by piece waits for each to be acknowledged (Linux). */
    if (c->ooo.n && now - c->v.stuck_since > MP_MS(20)) ack_everywhere(c);
    c->v.stuck_since = now;
    struct mp_slice o;
    uint64_t tag;
    while (c->ooo.n && mp_rangemap_pop(&c->ooo, c->v.rcv_nxt, &o, &tag)) {
        bool ok = rxq_push(c, &o);
        if (ok) c->v.rcv_nxt += o.len;
        mp_slice_put(&o);
        if (!ok) break;
    }
    conn_event(c, MP_EV_READABLE);
    check_fin(c);
}

/* ---- mappings ---- */

static void map_drop_first(struct sf *s)
{
    s->v.map_head = (s->v.map_head + 1) & (s->v.map_cap - 1);
    s->v.nmap--;
}

static bool map_grow(struct sf *s)
{
    uint32_t cap = s->v.map_cap ? s->v.map_cap * 2 : 4;
    struct sf_mapping *m = cap <= SF_MAX_MAPPINGS ? malloc(cap * sizeof *m) : NULL;
    if (!m) {
        st_count(s->st, MP_E_map_overflow, 1, s->c);
        return false;
    }
    for (uint32_t i = 0; i < s->v.nmap; i++) m[i] = *map_at(s, i);
    free(s->map);
    s->map = m;
    s->v.map_cap = cap;
    s->v.map_head = 0;
    return true;
}

static bool map_same(const struct sf_mapping *a, const struct sf_mapping *b)
{
    return a->ssn == b->ssn && a->dsn == b->dsn && a->len == b->len && a->fin == b->fin && a->has_csum == b->has_csum && a->csum == b->csum;
}

/* false: no room to remember it: its bytes must not be taken either. */
static bool map_add(struct sf *s, const struct sf_mapping *m)
{
    if (m->ssn + m->len <= s->v.rcv_nxt) return true; /* a repetition of what was consumed */
    uint32_t i = s->v.nmap;
    while (i > 0 && map_at(s, i - 1)->ssn > m->ssn) i--;
    if (i > 0) {
        struct sf_mapping *p = map_at(s, i - 1);
        if (map_same(p, m)) return true;
        if (p->ssn + p->len > m->ssn) { /* overlaps and differs: the first stands */
            st_count(s->st, MP_E_map_conflict, 1, s->c);
            return true;
        }
    }
    if (i < s->v.nmap && m->ssn + m->len > map_at(s, i)->ssn) {
        st_count(s->st, MP_E_map_conflict, 1, s->c);
        return true;
    }
    if (s->v.nmap == s->v.map_cap && !map_grow(s)) return false;
    for (uint32_t j = s->v.nmap; j > i; j--) *map_at(s, j) = *map_at(s, j - 1);
    *map_at(s, i) = *m;
    s->v.nmap++;
    return true;
}

/* The end of the run of mappings that ssn lies in; ssn: in none. */
static mp_ssn mapped_until(struct sf *s, mp_ssn ssn)
{
    uint32_t i = s->v.nmap;
    while (i > 0 && map_at(s, i - 1)->ssn > ssn) i--;
    for (i -= i > 0; i < s->v.nmap && map_at(s, i)->ssn <= ssn; i++) ssn = mp_max(ssn, map_at(s, i)->ssn + map_at(s, i)->len);
    return ssn;
}

static void peer_infinite(struct mpc *c, struct sf *s, mp_time now)
{
    st_count(c->st, MP_E_infinite_in, 1, c);
    conn_fallback(c, s, FB_PEER_INFINITE, MP_WHY_PEER_FAIL, now);
}

/* We are plain TCP, the peer still sends mappings: fine as long as they say what plain TCP assumes. */
static bool plain_mapping_ok(struct mpc *c, struct sf *s, const struct mp_opts *o, mp_time now)
{
    if (!c->v.peer_key_known || !(o->mp & MP_OPT_HAS(MP_DSS)) || !o->dss.has_map || o->dss.len == 0) return true;
    mp_dsn dsn = o->dss.dsn64 ? o->dss.dsn : mp_expand32(c->v.rcv_nxt, (uint32_t)o->dss.dsn);
    mp_ssn ssn = mp_expand32(s->v.rcv_nxt, o->dss.ssn);
    if (o->dss.ssn == 0 || dsn - ssn == c->v.idsn_remote) return true;
    st_count(c->st, MP_E_map_conflict, 1, c);
    conn_fail(c, ECONNRESET, now); /* anything else would give the program wrong bytes */
    return false;
}

bool conn_sf_mapping(struct mpc *c, struct sf *s, const struct mp_opts *o, uint32_t paylen, mp_ssn ssn, mp_time now)
{
    struct sf_mapping m = { 0 };
    (void)paylen;
    if (c->v.rx_plain || !conn_mp(c)) return plain_mapping_ok(c, s, o, now);
    if ((o->mp & MP_OPT_HAS(MP_CAPABLE)) && o->capable.has_data_len && s->v.initial) {
        m = (struct sf_mapping){ .ssn = 1, .dsn = c->v.idsn_remote + 1, .len = o->capable.data_len, .has_csum = o->capable.has_csum, .csum = o->capable.csum };
        if (c->v.fb == FB_UNCONFIRMED) conn_fallback(c, s, FB_DSS_SEEN, MP_WHY_MULTIPATH, now);
    } else if ((o->mp & MP_OPT_HAS(MP_DSS)) && o->dss.has_map) {
        if (o->dss.len == 0) {
            peer_infinite(c, s, now);
            return !s->v.dead && !s->v.reset_pending;
        }
        m.ssn = mp_expand32(ssn, o->dss.ssn);
        m.dsn = o->dss.dsn64 ? o->dss.dsn : mp_expand32(c->v.rcv_nxt, (uint32_t)o->dss.dsn);
        m.fin = o->dss.data_fin;
        m.len = o->dss.len - (uint32_t)m.fin;
        m.has_csum = o->dss.has_csum;
        m.csum = o->dss.csum;
        if (o->dss.dsn64) c->v.ack64 = true;
        if (m.len == 0) { /* a DATA_FIN alone in a segment with bytes of an earlier mapping */
            conn_peer_fin(c, m.dsn, now);
            return true;
        }
    } else
        return true; /* an earlier mapping may cover it: seen when the bytes are taken */
    /* A fallback is out of question then, ours too: what was sent twice would be delivered twice. */
    c->v.peer_twice |= s->v.initial && m.dsn - m.ssn != c->v.idsn_remote;
    if (c->v.csum != m.has_csum) { /* RFC 8684 3.3: either way it does not behave as was agreed */
        st_count(c->st, MP_E_csum_mismatch, 1, c);
        sf_abort(s, MP_RST_MPTCP, false, now);
        return false;
    }
    return map_add(s, &m);
}

/* ---- checksums: a mapping's bytes wait until all are here ---- */

enum { HOLD_KEPT = 4 }; /* pieces for which there is room between mappings: connections are idle most of the time */

static bool hold_room(struct sf *s)
{
    if (s->v.nhold < s->hold_cap) return true;
    uint32_t cap = s->hold_cap ? s->hold_cap * 2 : HOLD_KEPT;
    struct mp_slice *v = realloc(s->hold, cap * sizeof *v);
    if (!v) return false;
    s->hold = v;
    s->hold_cap = cap;
    return true;
}

void sf_drop_held(struct sf *s)
{
    for (uint32_t i = 0; i < s->v.nhold; i++) mp_slice_put(&s->hold[i]);
    s->v.nhold = 0;
    s->v.hold_bytes = 0;
    if (s->hold_cap <= HOLD_KEPT) return;
    free(s->hold);
    s->hold = NULL;
    s->hold_cap = 0;
}

static bool hold_compact(struct sf *s)
{
    struct mp_buf *b = mp_buf_new((uint32_t)s->v.hold_bytes + 1);
    if (!b) return false;
    uint32_t at = 0;
    for (uint32_t i = 0; i < s->v.nhold; i++) {
        memcpy(b->data + at, s->hold[i].p, s->hold[i].len);
        at += s->hold[i].len;
        mp_slice_put(&s->hold[i]);
    }
    s->hold[0] = (struct mp_slice){ b, b->data, at };
    s->v.nhold = 1;
    return true;
}

static bool hold_add(struct sf *s, const struct mp_slice *d)
{
    if (s->v.nhold == SF_MAX_HOLD ? !hold_compact(s) : !hold_room(s)) return false;
    struct mp_slice k = mp_slice_keep(d);
    if (!k.buf) return false;
    s->hold[s->v.nhold++] = k;
    s->v.hold_bytes += k.len;
    return true;
}

static bool held_csum_ok(const struct sf *s, const struct sf_mapping *m)
{
    uint64_t sum = 0, off = 0;
    for (uint32_t i = 0; i < s->v.nhold; i++) {
        sum = mp_csum_at(sum, s->hold[i].p, s->hold[i].len, off);
        off += s->hold[i].len;
    }
    return mp_dss_csum(sum, m->dsn + s->c->v.rx_off, (uint32_t)m->ssn, (uint16_t)(m->len + m->fin)) == m->csum;
}

static void deliver_held(struct mpc *c, struct sf *s, const struct sf_mapping *m, mp_time now)
{
    mp_dsn at = m->dsn;
    for (uint32_t i = 0; i < s->v.nhold; i++) {
        receive(c, at, s->hold[i], now);
        at += s->hold[i].len;
    }
    sf_drop_held(s);
    if (m->fin) conn_peer_fin(c, at, now);
}

void conn_flush_held(struct mpc *c, struct sf *s, mp_time now)
{
    for (uint32_t i = 0; i < s->v.nhold; i++) receive(c, c->v.rcv_nxt, s->hold[i], now);
    sf_drop_held(s);
}

/* RFC 8684 3.7: with other subflows this one is reset; the only one goes on as plain TCP and delivers what came. */
static bool csum_bad(struct mpc *c, struct sf *s, const struct sf_mapping *m, mp_time now)
{
    st_count(c->st, MP_E_csum_bad, 1, c);
    c->v.mp_fail_dsn = m->dsn;
    if (c->v.sf_ever > 1 || c->v.joins_answered || c->v.peer_twice) {
        c->v.mp_fail_pending = true;
        conn_fallback(c, s, FB_CSUM_BAD_MULTI, MP_WHY_CHECKSUM, now);
        sf_drop_held(s);
        return false;
    }
    conn_fallback(c, s, FB_CSUM_BAD_SINGLE, MP_WHY_CHECKSUM, now);
    if (c->v.fb != FB_PLAIN) return false;
    deliver_held(c, s, m, now);
    return true;
}

bool conn_mapping_done(struct mpc *c, struct sf *s, mp_time now)
{
    struct sf_mapping m = *map_at(s, 0);
    bool good = !c->v.csum || held_csum_ok(s, &m);
    if (!good && conn_doubt(c, s, now)) return false;
    map_drop_first(s);
    if (c->v.csum) {
        if (!good) return csum_bad(c, s, &m, now);
        deliver_held(c, s, &m, now);
    } else if (m.fin)
        conn_peer_fin(c, m.dsn + m.len, now);
    return true;
}

/* Before a checksum holds them: what waits for it would come in lumps of 64 KB, and the rate look several times what it is. */
static void arrived(struct sf *s, mp_dsn dsn, uint32_t len, mp_time now)
{
    if (dsn + len <= s->c->v.rcv_nxt) return;
    autotune(s->c, len, now);
    if (!s->c->v.rx_plain && s->c->sfs->next) hol_data(s, dsn, len, now);
}

/* Bytes at ssn, of which some lie in the first mapping: returns how many were taken; 0: no mapping; -1: memory. */
static int64_t take_mapped(struct mpc *c, struct sf *s, mp_ssn ssn, struct mp_slice d, mp_time now)
{
    while (s->v.nmap && map_at(s, 0)->ssn + map_at(s, 0)->len <= ssn) map_drop_first(s);
    if (!s->v.nmap || map_at(s, 0)->ssn > ssn) return 0;
    struct sf_mapping *m = map_at(s, 0);
    mp_slice_cut(&d, (uint32_t)mp_min(d.len, m->ssn + m->len - ssn));
    arrived(s, m->dsn + (ssn - m->ssn), d.len, now);
    if (!c->v.csum)
        receive(c, m->dsn + (ssn - m->ssn), d, now);
    else if (!hold_add(s, &d))
        return -1;
    return d.len;
}

/* A fallback or the loss of the subflow would only lead back to the same box. */
static bool no_way_round(const struct mpc *c, const struct sf *s)
{
    return (c->v.sf_ever > 1 || c->v.joins_answered) && !conn_any_other(c, s);
}

/* A box that joins segments keeps the first one's options. The bytes behind come again with their own mapping when they
 * are not taken, and a connection need not fall back, or lose a subflow, for such an accident. Seldom, for where boxes do so
 * all the time, that is slow; always where nothing else is left (a subflow for each initial window, one a minute: simulation
 * seed 46117). Bytes from behind a hole are not given back, for the sender has been told that they are here (RFC 2018 8). */
static bool joined_by_a_box(struct mpc *c, struct sf *s, bool front_mapped)
{
    if (!front_mapped || s->v.draining) return false;
    if (s->v.bytes_received < s->v.unmapped_until && !no_way_round(c, s)) return false;
    s->v.unmapped_until = s->v.bytes_received + 100ull * s->v.mss;
    s->v.ack_now = true;
    st_count(c->st, MP_E_map_awaited, 1, c);
    return true;
}

/* So the same is done beforehand, where it matters, with what comes behind a hole: only the bytes under the mapping that
 * its beginning has are taken. One without any may have it in another segment. */
void conn_cut_joined(struct mpc *c, struct sf *s, mp_ssn ssn, struct mp_slice *d)
{
    if (c->v.rx_plain || !no_way_round(c, s)) return;
    mp_ssn end = mapped_until(s, ssn);
    if (end == ssn || end >= ssn + d->len) return;
    mp_slice_cut(d, (uint32_t)(end - ssn));
    st_count(c->st, MP_E_map_awaited, 1, c);
}

bool conn_sf_data(struct mpc *c, struct sf *s, mp_ssn ssn, struct mp_slice *d, mp_time now)
{
    struct mp_slice rest = *d; /* borrowed from the caller */
    while (rest.len && !c->v.rx_plain) {
        int64_t n = take_mapped(c, s, ssn, rest, now);
        if (n < 0) {
            sf_abort(s, MP_RST_RESOURCE, true, now);
            return false;
        }
        if (n == 0) {
            if (joined_by_a_box(c, s, rest.len < d->len) || (c->v.sf_ever == 1 && conn_join_open(c))) { /* falling back or resetting: the join will tell; till then it is not taken */
                s->v.rcv_nxt -= rest.len;
                return false;
            }
            st_count(c->st, MP_E_map_missing, 1, c);
            /* The only subflow there ever was, and its numbers and the data's still run side by side? */
            bool single = c->v.sf_ever == 1 && !c->v.joins_answered && c->v.rcv_nxt + s->v.hold_bytes - c->v.idsn_remote == ssn;
            if (conn_fallback(c, s, single ? FB_DATA_WITHOUT_DSS_SINGLE : FB_DATA_WITHOUT_DSS, MP_WHY_NO_DSS, now) == FB_reset_subflow) return false;
            break;
        }
        ssn += (uint64_t)n;
        mp_slice_skip(&rest, (uint32_t)n);
        struct sf_mapping *m = map_at(s, 0);
        if (m->ssn + m->len == ssn && !conn_mapping_done(c, s, now)) {
            if (sf_doubts(s)) s->v.rcv_nxt -= rest.len;
            return false;
        }
        if (s->v.dead || s->v.reset_pending) return false;
    }
    if (rest.len) {
        arrived(s, c->v.rcv_nxt, rest.len, now);
        receive(c, c->v.rcv_nxt, rest, now);
    }
    return !s->v.dead && !s->v.reset_pending;
}

void conn_dss_finish(struct mpc *c, mp_time now) { conn_close_check(c, now); }
