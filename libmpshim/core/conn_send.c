/* What a connection sends next, and over which subflow. */
#include "core/stack_int.h"

/* ---- scheduling ---- */

struct view {
    struct mp_sched_view v;
    struct sf *sf[MP_SCHED_MAX_PATHS];
};

static bool is_shut(const struct sf *s) { return s->v.snd_una + s->v.snd_wnd <= s->v.snd_nxt; }

/* Its own window stayed shut though it was asked twice, while the connection's may be open: a box on the way has taken what it
 * cannot deliver. Backups are for that (simulation seed 1203328). */
static bool shut_for_long(const struct sf *s) { return s->v.persists > 1 && is_shut(s); }

static void make_view(struct mpc *c, struct view *w, int avoid, mp_time now)
{
    memset(&w->v, 0, sizeof w->v);
    w->v.now = now;
    w->v.mem = &c->v.sched_mem;
    w->v.queued = conn_queued(c);
    w->v.conn_window = c->v.snd_edge > c->v.snd_nxt ? c->v.snd_edge - c->v.snd_nxt : 0;
    w->v.window = c->v.snd_edge > c->v.snd_una ? c->v.snd_edge - c->v.snd_una : 0;
    w->v.blocked = c->v.window_blocked;
    for (struct sf *s = c->sfs; s && w->v.n < MP_SCHED_MAX_PATHS; s = s->next) {
        if (!sf_can_carry(s) || s->v.id == avoid) continue;
        struct mp_sched_path *p = &w->v.path[w->v.n];
        p->id = s->v.id;
        p->srtt = s->v.srtt;
        p->min_rtt = s->v.min_rtt;
        p->rate = s->v.rate;
        p->rttvar = s->v.rttvar;
        p->cwnd = sf_cwnd(s);
        p->flight = s->v.pipe;
        p->mss = s->v.mss;
        p->room = sf_room(s);
        /* No slivers: a part of a segment only into an empty pipe (RFC 9293 3.8.6.2.1). */
        if (p->room < s->v.mss && s->v.pipe) p->room = 0;
        if (!sf_writable(s) || (p->room && !pace_allows(s, now))) p->room = 0;
        p->backup = s->v.backup_local || s->v.backup_remote;
        p->stale = s->v.stale || shut_for_long(s);
        w->sf[w->v.n++] = s;
    }
}

/* For what is sent again: where it arrives soonest, whatever the scheduler thinks of new data. */
static int fastest(const struct view *w) { return mp_sched_fastest(&w->v, mp_sched_best_class(&w->v), true); }

/* A large slice now costs less than several small ones: wait for more room while ACKs are on their way. */
static bool defer(const struct sf *s, uint64_t room, uint64_t want, uint32_t most)
{
    if (most <= s->v.mss || want <= room || s->v.pipe == 0 || s->v.in_recovery) return false;
    return room < mp_min(most, s->v.cc.cwnd / 4);
}

static void note_limited(struct view *w)
{
    for (int i = 0; i < w->v.n; i++)
        if (sf_cwnd(w->sf[i]) <= w->sf[i]->v.pipe + w->sf[i]->v.mss) w->sf[i]->v.cwnd_limited = true;
}

/* The size of the next piece on s out of `want` bytes; 0: not now. */
static uint32_t piece(struct mpc *c, struct sf *s, uint64_t room, uint64_t want)
{
    uint32_t most = c->st->ops.slice_max(c->st->arg, s->flow, s->v.mss);
    if (most < s->v.mss) most = s->v.mss;
    most = pace_slice(s, (uint32_t)mp_min(most, MP_SLICE_MAX));
    if (defer(s, room, want, most)) {
        s->v.cwnd_limited = true;
        return 0;
    }
    uint64_t n = mp_min(mp_min(room, want), most);
    if (n > s->v.mss && n < want) n -= n % s->v.mss;
    return (uint32_t)n;
}

static void keep(struct view *w, bool (*good)(const struct sf *s))
{
    int n = 0;
    for (int i = 0; i < w->v.n; i++) {
        if (!good(w->sf[i])) continue;
        w->sf[n] = w->sf[i];
        w->v.path[n++] = w->v.path[i];
    }
    w->v.n = n;
}

/* Not for data that was sent before: a peer that answers without options may have fallen back, and would take it as new. */
static bool undoubted(const struct sf *s) { return !s->v.initial || !s->v.bare_acks; }

static bool has_flight(const struct sf *s) { return s->seg_head; }

/* RFC 8684 3.3.5: the window is relative to the DATA_ACK. Before its first DATA_ACK Linux takes that for no window at all, and
 * drops what comes out of order (its counter NoDSSInWindow) though the subflow has acknowledged it: 240 ms were lost until it
 * was sent again. So the first flight keeps to one subflow, and comes in order. */
static void keep_first_flight(const struct mpc *c, struct view *w)
{
    if (c->v.window_told || c->v.tx_plain) return;
    for (int i = 0; i < w->v.n; i++)
        if (has_flight(w->sf[i])) return keep(w, has_flight);
}

/* A segment from below the window asks for an ACK (RFC 9293 3.8.4), which brings a DATA_ACK before there is data to send. */
void conn_ask_window(struct mpc *c)
{
    if (c->v.window_told || c->v.tx_plain || c->v.snd_una < c->v.snd_nxt) return;
    for (struct sf *s = c->sfs; s; s = s->next)
        if (s->v.initial && sf_can_carry(s)) s->v.probes = 1;
}

static bool send_reinjected(struct mpc *c, struct mp_pkt *out, mp_time now)
{
    struct reinj *r = conn_reinject_next(c);
    struct view w;
    if (!r || !conn_may_send_twice(c)) return false;
    make_view(c, &w, r->from, now);
    keep(&w, undoubted);
    if (!w.v.n) return false; /* the one that holds it lives, and sends it again by itself */
    int i = fastest(&w);
    if (i < 0) return false;
    struct sf *s = w.sf[i];
    uint32_t n = piece(c, s, w.v.path[i].room, r->end - r->start);
    struct mp_chunk *k = conn_chunk_at(c, r->start);
    if (!k || !n) return false;
    if (!k->next) n = (uint32_t)mp_min(n, k->dsn + k->len - r->start);
    if (!sf_send_data(s, out, r->start, k, n, false, now)) return false;
    r->start += n;
    c->v.sent_twice = true;
    conn_arm_data_timer(c, now);
    return true;
}

/* RFC 9293 3.7.4, at connection level */
static bool nagle_holds(const struct mpc *c, uint64_t n, uint32_t mss)
{
    if (n >= mss || c->v.shut) return false;
    if (c->v.cork) return true;
    return !c->v.nodelay && c->v.snd_una < c->v.snd_nxt;
}

/* Over any of them an ACK may bring an open window. A stale one's does not come: what it holds went over another, and a window
 * that opened there unheard, for that ACK was lost, would be waited for as long as the path is dead. */
static bool counts(const struct view *w, int i)
{
    bool live = false;
    for (int k = 0; k < w->v.n; k++) live |= !w->v.path[k].stale;
    return !live || !w->v.path[i].stale;
}

static void wait_for_window(struct sf *s, mp_time now)
{
    if (!s->seg_head && s->v.timer[SFT_PERSIST] == MP_NEVER) sf_arm(s, SFT_PERSIST, now + sf_persist_wait(s));
}

static void arm_persist(struct view *w, mp_time now)
{
    for (int i = 0; i < w->v.n; i++)
        if (counts(w, i) && w->sf[i]->seg_head) return; /* an ACK is still to come */
    for (int i = 0; i < w->v.n; i++) wait_for_window(w->sf[i], now);
}

/* A path that may carry nothing for its own window, whatever the connection's says, is asked also while others go on: the ACK
 * that opened it may be lost, and a peer that sends nothing there would not say it again (Linux). */
static void ask_shut_paths(struct view *w, mp_time now)
{
    for (int i = 0; i < w->v.n; i++)
        if (is_shut(w->sf[i])) wait_for_window(w->sf[i], now);
}

static bool send_new(struct mpc *c, struct mp_pkt *out, mp_time now)
{
    uint64_t queued = conn_queued(c);
    struct view w;
    if (!queued) return false;
    make_view(c, &w, -1, now);
    keep_first_flight(c, &w);
    uint64_t n = mp_min(queued, w.v.conn_window);
    if (!n) {
        c->v.window_blocked += fastest(&w) >= 0;
        arm_persist(&w, now);
        return false;
    }
    ask_shut_paths(&w, now);
    int i = c->sched->pick(&w.v);
    if (i < 0) {
        note_limited(&w);
        return false;
    }
    struct sf *s;
    uint32_t len;
    do { /* a path that gathers room for a larger slice is passed over, not waited for */
        s = w.sf[i];
        if (n < s->v.mss && n < queued && c->v.snd_una < c->v.snd_nxt) return false; /* window sliver */
        if (nagle_holds(c, n, s->v.mss)) return false;
        int32_t probe = pmtu_probe(s, n, w.v.path[i].room, now);
        len = probe > 0 ? (uint32_t)probe : probe ? 0 : piece(c, s, w.v.path[i].room, n);
        w.v.path[i].room = 0;
    } while (!len && (i = c->sched->pick(&w.v)) >= 0);
    if (!len) return false;
    if (c->snd_cur && c->v.snd_nxt >= c->snd_cur->dsn + c->snd_cur->len) c->snd_cur = c->snd_cur->next;
    struct mp_chunk *k = c->snd_cur = conn_chunk_at(c, c->v.snd_nxt);
    if (!k) return false;
    bool capable_first = !c->v.server && s->v.initial && s->v.snd_nxt == 1 && c->v.fb == FB_UNCONFIRMED;
    /* RFC 8684 3.3.3 lets the DATA_FIN ride on data. Where that data has come over another subflow first, Linux notes the
     * DATA_FIN, does not act on it, and takes no notice of any later one: with several subflows it goes alone. */
    bool fin = c->v.shut && len == queued && !c->v.tx_plain && !capable_first && !c->v.fin_sent && conn_single(c);
    if (!sf_send_data(s, out, c->v.snd_nxt, k, len, fin, now)) return false;
    if (c->v.snd_una == c->v.snd_nxt) c->v.unacked_since = now;
    c->v.snd_nxt += len;
    c->v.data_sent_at = now;
    conn_arm_user_timeout(c);
    if (fin) {
        c->v.fin_sent = true;
        c->v.timer[CT_DATA_FIN] = now + mp_min(2 * s->v.rto, MP_SEC(60));
    }
    if (c->v.timer[CT_DATA_REXMIT] == MP_NEVER) conn_arm_data_timer(c, now);
    return true;
}

/* ---- everything over every path (a scheduler that repeats) ---- */

/* The first byte from `at` on that s is not carrying. */
static mp_dsn not_on(const struct sf *s, mp_dsn at)
{
    for (const struct sf_seg *g = s->seg_head; g; g = g->next)
        if (g->len && g->dsn <= at && at < g->dsn + g->len) at = g->dsn + g->len;
    return at;
}

/* Up to where a piece from `at` on may go without repeating what s carries. */
static mp_dsn gap_end(const struct sf *s, mp_dsn at, mp_dsn end)
{
    for (const struct sf_seg *g = s->seg_head; g; g = g->next)
        if (g->len && g->dsn > at) end = mp_min(end, g->dsn);
    return end;
}

/* Each path repeats, from the oldest unacknowledged byte on, what others were given first. Not before it is certain that
 * MPTCP works: data sent twice rules a fallback out (RFC 8684 3.7), ours and the peer's. */
static bool send_repeated(struct mpc *c, struct mp_pkt *out, mp_time now)
{
    struct view w;
    if (!c->sched->repeats || c->v.fb != FB_CONFIRMED || c->v.tx_plain || !conn_may_send_twice(c)) return false;
    make_view(c, &w, -1, now);
    for (int i = 0; i < w.v.n; i++) {
        struct sf *s = w.sf[i];
        mp_dsn at = not_on(s, mp_max(s->v.repeat_next, c->v.snd_una));
        if (!w.v.path[i].room || at >= c->v.snd_nxt) continue;
        struct mp_chunk *k = conn_chunk_at(c, at);
        uint32_t n = piece(c, s, w.v.path[i].room, gap_end(s, at, c->v.snd_nxt) - at);
        if (!k || !n || !sf_send_data(s, out, at, k, n, false, now)) continue;
        s->v.repeat_next = at + n;
        s->seg_tail->lent = true; /* not one more time, by opportunity */
        c->v.sent_twice = true;
        c->v.reinjected_bytes += n;
        st_count(c->st, MP_E_repeated, n, c);
        return true;
    }
    return false;
}

/* ---- opportunistic retransmission and penalisation (NSDI'12, M1 and M2) ---- */

/* The oldest unacknowledged segment that is on its way over another subflow than s and was not lent before. */
static struct sf_seg *oldest_elsewhere(struct mpc *c, const struct sf *s, struct sf **holder)
{
    struct sf_seg *best = NULL;
    for (struct sf *p = c->sfs; p; p = p->next) {
        if (p == s || p->v.dead) continue;
        struct sf_seg *g = p->seg_head;
        while (g && (!g->len || g->lent || g->sacked || g->dsn + g->len <= c->v.snd_una)) g = g->next;
        if (!g || (best && best->dsn <= g->dsn)) continue;
        best = g;
        *holder = p;
    }
    return best;
}

static void penalise(struct mpc *c, struct sf *p, const struct sf *fast, mp_time now)
{
    /* Only what is clearly slower, and never out of slow start: a peer that opens its window step by step blocks every
     * young connection, and a coupled window that was halved then stays small for seconds. */
    if (p->v.srtt <= 2 * fast->v.srtt || now - p->v.penalised < p->v.srtt) return;
    if (p->v.cc.cwnd < p->v.cc.ssthresh || p->v.cc.cwnd <= mp_cc_initial_window(p->v.mss)) return;
    p->v.penalised = now;
    p->v.cc.cwnd = mp_max(p->v.cc.cwnd / 2, mp_cc_initial_window(p->v.mss));
    if (p->v.cc.ssthresh > p->v.cc.cwnd) p->v.cc.ssthresh = p->v.cc.cwnd;
    st_count(c->st, MP_E_penalised, 1, c);
}

/* When the ACK of g should have come at the latest. */
static mp_time overdue(const struct sf *s, const struct sf_seg *g) { return g->sent + s->v.srtt + mp_max(4 * s->v.rttvar, MP_MS(5)); }

/* When the ACK of g may be expected: a round trip after it was sent, and where the path has become slower, when all before
 * it has gone through at the pace of the present round trip: its srtt and rate learn of that only when that is over. */
static mp_time expected(const struct sf *s, const struct sf_seg *g, mp_time now)
{
    mp_time due = g->sent + s->v.srtt;
    uint64_t got = s->v.delivered - s->v.rate_mark;
    mp_dur took = now - s->v.rate_at;
    if (!s->v.rate_at || took < 2 * s->v.min_rtt || !got) return due;
    return mp_max(due, now + (mp_dur)((double)(g->end - s->v.snd_una) * (double)took / (double)got));
}

/* A subflow has room and there is nothing new that may be sent: the window is full, or all was sent once. What holds
 * the stream up elsewhere and would arrive sooner here is worth sending twice. */
static bool send_opportunistic(struct mpc *c, struct mp_pkt *out, mp_time now)
{
    struct view w;
    struct sf *holder = NULL;
    if (c->v.fb != FB_CONFIRMED || c->v.snd_una >= c->v.snd_nxt || !c->sfs || !c->sfs->next || !conn_may_send_twice(c)) return false;
    bool queued = conn_queued(c) > 0, blocked = queued && c->v.snd_edge < c->v.snd_nxt + c->sfs->v.mss;
    if (queued && !blocked) return false; /* new data is only waiting for its turn */
    make_view(c, &w, -1, now);
    int i = fastest(&w);
    if (i < 0) return false;
    struct sf *s = w.sf[i];
    struct sf_seg *g = oldest_elsewhere(c, s, &holder);
    if (!g) return false;
    bool head = blocked && g->dsn <= c->v.snd_una && holder->v.srtt > 2 * s->v.srtt;
    mp_time due = expected(holder, g, now); /* the ACK here would come at now + srtt */
    if (blocked && holder->v.srtt > 2 * s->v.srtt && holder->v.pipe <= 8 * holder->v.mss) {
        /* A few segments alone (fit.c) hold nothing up before their turn, and come when they are due; their DATA_ACK over s. */
        if (g->dsn > c->v.snd_una) return false;
        head = false;
        due = mp_max(due, holder->v.min_rtt / 2) - holder->v.min_rtt / 2 + s->v.min_rtt / 2;
    }
    if (!head && !g->lost && now + s->v.srtt >= due && now < overdue(holder, g)) return false;
    bool rest = g->prev && g->prev->map_dsn == g->map_dsn; /* the part before it went with what is in front of it */
    mp_dsn from = rest ? mp_max(g->dsn, c->v.snd_una) : conn_needed_from(c, g);
    uint32_t n = piece(c, s, w.v.path[i].room, g->dsn + g->len - from);
    struct mp_chunk *k = conn_chunk_at(c, from);
    if (!k || !n) return false;
    /* A path with a smaller MSS takes the front only; the rest is its own matter, or the front would be lent again and again. */
    if (from + n < g->dsn + g->len) sf_seg_split(holder, g, g->start + (from + n - g->dsn));
    g->lent = true;
    if (!sf_send_data(s, out, from, k, n, false, now)) return false;
    s->seg_tail->lent = true; /* not back again */
    c->v.sent_twice = true;
    c->v.reinjected_bytes += n;
    st_count(c->st, MP_E_opportunistic, n, c);
    if (blocked) penalise(c, holder, s, now);
    return true;
}

bool conn_fin_due(const struct mpc *c)
{
    return c->v.shut && conn_mp(c) && !c->v.tx_plain && c->v.snd_nxt == c->v.snd_end && !c->v.fin_sent && c->v.established && !c->v.err;
}

void conn_send_data_fin(struct mpc *c)
{
    for (struct sf *s = c->sfs; s; s = s->next) s->v.data_fin_now = sf_can_carry(s);
}

bool conn_poll(struct mpc *c, struct mp_pkt *out, mp_time now)
{
    if (conn_fin_due(c)) {
        c->v.fin_sent = true;
        conn_send_data_fin(c);
        c->v.timer[CT_DATA_FIN] = now + MP_SEC(1);
        for (struct sf *s = c->sfs; s; s = s->next)
            if (s->v.srtt && sf_can_carry(s)) c->v.timer[CT_DATA_FIN] = mp_min(c->v.timer[CT_DATA_FIN], now + s->v.rto);
    }
    for (struct sf *s = c->sfs; s; s = s->next)
        if (sf_writable(s) && sf_poll(s, out, now)) return true;
    if (!c->v.established || c->v.err || c->v.closing) return false;
    if (send_reinjected(c, out, now)) return true;
    if (send_repeated(c, out, now) || send_new(c, out, now) || send_opportunistic(c, out, now)) return true;
    if (c->v.tx_plain && c->v.shut) { /* all sent: the FIN follows at once */
        conn_close_check(c, now);
        for (struct sf *s = c->sfs; s; s = s->next)
            if (sf_writable(s) && sf_poll(s, out, now)) return true;
    }
    return false;
}
