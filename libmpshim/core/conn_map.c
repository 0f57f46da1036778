/* A subflow's bytes get their data sequence numbers from mappings (RFC 8684 3.3.1), and are held until a mapping's checksum is right. */
#include "core/stack_int.h"

#include <errno.h>
#include <stdlib.h>

#include "core/wire.h"

/* ---- mappings ---- */

static struct sf_mapping *map_at(const struct sf *s, uint32_t i) { return &s->map[(s->v.map_head + i) & (s->v.map_cap - 1)]; }

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

bool conn_sf_mapping(struct mpc *c, struct sf *s, const struct mp_opts *o, mp_ssn ssn, mp_time now)
{
    struct sf_mapping m = { 0 };
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
        conn_receive(c, at, s->hold[i], now);
        at += s->hold[i].len;
    }
    sf_drop_held(s);
    if (m->fin) conn_peer_fin(c, at, now);
}

void conn_flush_held(struct mpc *c, struct sf *s, mp_time now)
{
    for (uint32_t i = 0; i < s->v.nhold; i++) conn_receive(c, c->v.rcv_nxt, s->hold[i], now);
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
    conn_autotune(s->c, len, now);
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
        conn_receive(c, m->dsn + (ssn - m->ssn), d, now);
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
        conn_receive(c, c->v.rcv_nxt, rest, now);
    }
    return !s->v.dead && !s->v.reset_pending;
}
