/* Connection life: opening, fallback, closing, the owner's verbs. */
#include "core/stack_int.h"

#include <errno.h>
#include <stdlib.h>

#include "core/crypto.h"

/* ---- making ---- */

static void give_back(struct mp_stack *st, struct mpc *c)
{
    if (st->ops.conn_free) st->ops.conn_free(st->arg, c);
    else free(c);
}

struct mpc *conn_new(struct mp_stack *st, bool server, mp_time now)
{
    struct mpc *c = st->ops.conn_alloc ? st->ops.conn_alloc(st->arg, sizeof *c) : calloc(1, sizeof *c);
    if (!c) return NULL;
    c->st = st;
    c->v.server = server;
    c->v.opened = now;
    c->v.version = (uint8_t)st->set.mptcp_version;
    c->v.fb = FB_OFFERED;
    c->v.why = MP_WHY_PENDING;
    c->v.nodelay = st->set.nodelay;
    c->v.csum = !server && st->set.checksum;
    c->v.rcvbuf = (uint64_t)st->set.rcvbuf_kb * 1024;
    c->v.sndbuf = (uint64_t)st->set.sndbuf_kb * 1024;
    c->v.rcv_space = 1024 * 1024;
    c->cc = mp_cc_find(st->set.cc);
    if (!c->cc) c->cc = mp_cc_all[0];
    c->sched = mp_sched_find(st->set.scheduler);
    if (!c->sched) c->sched = mp_sched_all[0];
    c->v.idsn_local = st_rand32(st); /* replaced with the key's when MPTCP is offered */
    c->v.snd_una = c->v.snd_nxt = c->v.snd_end = c->v.idsn_local + 1;
    c->v.snd_edge = c->v.snd_nxt;
    c->v.rcv_nxt = 1;
    for (int i = 0; i < CT_COUNT; i++) c->v.timer[i] = MP_NEVER;
    mp_rangemap_init(&c->ooo, st_rand32(st));
    if (!conn_link(st, c)) {
        give_back(st, c);
        return NULL;
    }
    return c;
}

static void drop_reinj(struct mpc *c)
{
    while (c->reinj) {
        struct reinj *r = c->reinj;
        c->reinj = r->next;
        free(r);
    }
}

static void free_queue(struct mpc *c)
{
    while (c->snd_first) {
        struct mp_chunk *k = c->snd_first;
        c->snd_first = k->next;
        chunk_put(c->st, k);
    }
    while (c->spare) {
        struct mp_chunk *k = c->spare;
        c->spare = k->next;
        chunk_put(c->st, k);
    }
    drop_reinj(c);
    for (uint32_t i = 0; i < c->rxq_n; i++) mp_slice_put(&c->rxq[(c->rxq_head + i) % c->rxq_cap]);
    free(c->rxq);
    mp_rangemap_fini(&c->ooo);
}

void conn_free(struct mpc *c)
{
    if (c->v.server && !c->v.established) st_accepted(c);
    while (c->sfs) {
        struct sf *s = c->sfs;
        c->sfs = s->next;
        sf_free(s);
    }
    free_queue(c);
    st_conn_gone(c);
    give_back(c->st, c);
}

void conn_key_derive(const struct mpc *c, uint64_t key, uint32_t *token, uint64_t *idsn)
{
    if (c->v.version == 0) mp_key_derive0(key, token, idsn);
    else mp_key_derive(key, token, idsn);
}

void conn_join_hmac(const struct mpc *c, bool ours, uint32_t nonce_own, uint32_t nonce_peer, uint8_t out[32])
{
    uint64_t a = ours ? c->v.key_local : c->v.key_remote, b = ours ? c->v.key_remote : c->v.key_local;
    uint32_t na = ours ? nonce_own : nonce_peer, nb = ours ? nonce_peer : nonce_own;
    if (c->v.version == 0) mp_join_hmac0(a, b, na, nb, out);
    else mp_join_hmac(a, b, na, nb, out);
}

bool conn_use_key(struct mpc *c, uint64_t key)
{
    c->v.key_local = key;
    conn_key_derive(c, key, &c->v.token_local, &c->v.idsn_local);
    if (st_token_find(c->st, c->v.token_local)) return false;
    st_token_add(c->st, c);
    c->v.tx_off = c->v.idsn_local & DSN_TOP;
    c->v.idsn_local &= ~DSN_TOP;
    c->v.snd_una = c->v.snd_nxt = c->v.snd_end = c->v.idsn_local + 1; /* MP_CAPABLE takes one, RFC 8684 3.1 */
    c->v.snd_edge = c->v.snd_nxt;
    return true;
}

void conn_new_keys(struct mpc *c)
{
    uint64_t key;
    do c->st->ops.random(c->st->arg, &key, sizeof key);
    while (!conn_use_key(c, key));
}

void conn_set_peer_key(struct mpc *c, uint64_t key)
{
    if (c->v.peer_key_known) return;
    c->v.peer_key_known = true;
    c->v.key_remote = key;
    conn_key_derive(c, key, &c->v.token_remote, &c->v.idsn_remote);
    c->v.rx_off = c->v.idsn_remote & DSN_TOP;
    c->v.idsn_remote &= ~DSN_TOP;
    c->v.rcv_nxt = c->v.idsn_remote + 1;
    c->v.rcv_edge = 0;
    c->v.ack64 = true;
}

void conn_dsn_in(const struct mpc *c, struct mp_opts *o)
{
    if (o->dss.dsn64) o->dss.dsn -= c->v.rx_off;
    if (o->dss.ack64) o->dss.data_ack -= c->v.tx_off;
    o->fail_dsn -= c->v.tx_off;
}

void conn_dsn_out(const struct mpc *c, struct mp_opts *o)
{
    if (o->dss.dsn64) o->dss.dsn += c->v.tx_off;
    if (o->dss.ack64) o->dss.data_ack += c->v.rx_off;
    o->fail_dsn += c->v.rx_off;
}

/* ---- questions ---- */

int conn_nlive(const struct mpc *c)
{
    int n = 0;
    for (const struct sf *s = c->sfs; s; s = s->next)
        n += !s->v.dead && !s->v.mute && !s->v.reset_pending && s->v.state >= SF_SYN_SENT && s->v.state <= SF_CLOSE_WAIT;
    return n;
}

int conn_nsync(const struct mpc *c)
{
    int n = 0;
    for (const struct sf *s = c->sfs; s; s = s->next) n += sf_is_open(s) && s->v.join_done;
    return n;
}

bool conn_any_other(const struct mpc *c, const struct sf *s)
{
    for (const struct sf *o = c->sfs; o; o = o->next)
        if (o != s && sf_can_carry(o) && !o->v.stale) return true;
    return false;
}

struct mp_cc_group conn_cc_group(struct mpc *c, struct sf *self)
{
    struct mp_cc_group g = { 0 };
    for (struct sf *s = c->sfs; s && g.n < MP_CC_MAX_PATHS; s = s->next) {
        if (s != self && (s->v.dead || !s->v.cc.active)) continue;
        if (s == self) g.self = g.n;
        g.s[g.n++] = &s->v.cc;
    }
    return g;
}

bool conn_single(const struct mpc *c) { return c->v.sf_ever == 1 && !c->v.joins_answered && !c->v.sent_twice && c->sfs && c->sfs->v.initial; }

/* A peer that has one subflow may go on as plain TCP at any time, and then takes whatever comes for new bytes, also data
 * that it has. That a second one came up here, it knows: it has answered it, or opened it and seen our answer. */
bool conn_may_send_twice(const struct mpc *c) { return c->v.sf_ever > 1; }

bool conn_join_open(const struct mpc *c)
{
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (!s->v.initial && !s->v.dead && s->v.state == SF_SYN_RCVD) return true;
    return false;
}

bool conn_unheard(const struct mpc *c) { return c->v.snd_una == c->v.idsn_local + 1; }

static bool tx_done(const struct mpc *c)
{
    if (!c->v.shut || c->v.snd_una < c->v.snd_end) return false;
    if (!c->v.tx_plain) return c->v.fin_acked;
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (s->v.initial) return s->v.fin_acked || s->v.dead;
    return true;
}

static bool rx_done(const struct mpc *c) { return c->v.fin_consumed; }

bool conn_finished(const struct mpc *c) { return c->v.err || (tx_done(c) && rx_done(c)); }
bool mpc_send_done(const struct mpc *c) { return c->v.err || (c->v.snd_una >= c->v.snd_end && (!c->v.shut || tx_done(c))); }
int mpc_error(const struct mpc *c) { return c->v.err; }

/* ---- fallback ---- */

static void go_plain(struct mpc *c, struct sf *s, enum mp_plain_why why)
{
    st_count(c->st, MP_E_fallback, 1, c);
    c->v.why = why;
    c->v.tx_plain = c->v.rx_plain = true;
    /* One subflow carried everything, so data and subflow numbers differ by a constant. */
    c->v.tx_plain_off = c->v.snd_nxt - mp_max(s->v.snd_nxt - s->v.fin_sent, 1);
    c->v.fin_sent = c->v.fin_acked = s->v.data_fin_now = false;
    c->v.peer_fin &= c->v.fin_consumed; /* where a DATA_FIN would be no byte need stand now: the FIN ends it (an ALG made it longer) */
    c->v.snd_edge = UINT64_MAX; /* the subflow's window is the window now */
    drop_reinj(c);              /* what waits to be sent again would be new bytes to a plain receiver */
    for (int i = 0; i < CT_COUNT; i++)
        if (i != CT_LINGER && i != CT_RACE) c->v.timer[i] = MP_NEVER;
    for (struct sf *o = c->sfs; o; o = o->next) /* a join on its way is too late */
        if (o != s && !o->v.dead && !o->v.initial && !o->v.mute) sf_give_up_join(o, c->st->now);
    sf_update_mss(s);
    conn_flush_held(c, s, c->st->now);
    conn_plain_ack(c, s, c->st->now); /* what the subflow acknowledged counts from here on */
}

/* What came over s and what the stream has got of it are the same bytes. (In the middle of a segment they are not yet.) */
static bool received_all(const struct mpc *c, const struct sf *s)
{
    if (!c->v.peer_key_known) return true;
    mp_ssn at = s->v.rcv_nxt - (s->v.fin_received && s->v.rcv_nxt > s->v.fin_ssn_in);
    return c->v.rcv_nxt - c->v.fin_consumed + s->v.hold_bytes - c->v.idsn_remote == at;
}

/* RFC 8684 3.7: only a single subflow can go on as plain TCP. What was sent twice on it under two subflow numbers cannot
 * be told apart without mappings. */
static bool can_go_plain(const struct mpc *c, const struct sf *s, enum fb_event e)
{
    if (c->v.sent_twice || c->v.sf_ever > 1) return false;
    /* The peer says so: it has one subflow only, whatever joins we answered. */
    if (e == FB_PEER_FAIL || e == FB_PEER_INFINITE) return received_all(c, s);
    return !c->v.joins_answered && !c->v.peer_twice;
}

enum fb_action conn_fallback(struct mpc *c, struct sf *s, enum fb_event e, enum mp_plain_why why, mp_time now)
{
    struct fb_step step = fb_lookup(c->v.fb, e);
    enum fb_state was = c->v.fb;
    if (step.next == FB_PLAIN && was != FB_PLAIN && !can_go_plain(c, s, e)) step.action = FB_reset_subflow;
    if (step.action == FB_reset_subflow) {
        st_count(c->st, MP_E_fallback_refused, 1, c);
        sf_abort(s, MP_RST_MIDDLEBOX, true, now);
        return step.action;
    }
    if (step.next == FB_PLAIN && was != FB_PLAIN && c->v.strict) { /* RFC 8684 3.7 allows falling back, it does not ask for it */
        st_count(c->st, MP_E_fallback_refused, 1, c);
        c->v.why = why;
        conn_fail(c, EPROTONOSUPPORT, now);
        return FB_reset_subflow;
    }
    c->v.fb = step.next;
    if (step.next == FB_PLAIN && was != FB_PLAIN) {
        if (step.action == FB_send_fail) {
            if (e != FB_CSUM_BAD_SINGLE) c->v.mp_fail_dsn = c->v.rcv_nxt;
            c->v.mp_fail_pending = c->v.mp_fail_told = true;
        }
        c->v.infinite_pending = step.action == FB_send_fail || step.action == FB_send_infinite;
        go_plain(c, s, why);
    }
    if (step.next == FB_CONFIRMED && was != FB_CONFIRMED) {
        c->v.why = MP_WHY_MULTIPATH;
        pm_ready(c, now);
    }
    return step.action;
}

/* ---- subflows come and go ---- */

void conn_sf_established(struct mpc *c, struct sf *s, mp_time now)
{
    st_count(c->st, MP_E_subflow_up, 1, c);
    c->v.sf_ever++;
    c->v.timer[CT_ORPHAN] = MP_NEVER;
    conn_doubt_look(c, now);
    pm_path(c, s);
    if (s->v.passive && !s->v.initial) st_count(c->st, MP_E_join_up, 1, c);
    if (!s->v.initial) {
        silence_ended(s, now);
        for (struct sf *o = c->sfs; o; o = o->next) {
            if (o == s || o->v.dead) continue;
            o->v.stale |= o->v.backoff >= PM_RESCUE; /* nobody could stand in for it before */
            if (o->v.stale) conn_reinject(c, o, now);
        }
        return;
    }
    if (!conn_mp(c)) {
        c->v.fb = FB_PLAIN;
        if (c->v.why == MP_WHY_PENDING) c->v.why = MP_WHY_NO_OPTION_SYNACK;
        if (!c->v.tx_plain) c->v.tx_plain_off = c->v.snd_nxt - 1;
        c->v.tx_plain = c->v.rx_plain = true;
        c->v.snd_edge = UINT64_MAX;
        st_count(c->st, MP_E_connect_plain, 1, c);
        sf_update_mss(s);
    } else {
        conn_set_edge(c, c->v.snd_nxt + s->v.snd_wnd);
        st_count(c->st, MP_E_connect_mp, 1, c);
    }
    if (!c->v.server) {
        c->v.established = true;
        conn_event(c, MP_EV_CONNECTED | MP_EV_WRITABLE);
    }
}

static void opening_failed(struct mpc *c, int err, mp_time now)
{
    if (!c->v.err) c->v.err = c->v.race_err && err != ECONNREFUSED ? c->v.race_err : err ? err : ECONNABORTED;
    race_over(c, NULL, now);
    conn_event(c, MP_EV_CLOSED);
}

/* A path that lets handshakes pass and spoils all data (an ALG, RFC 8684 3.7) would see subflows come and go for ever. */
static bool barren(struct mpc *c, mp_time now)
{
    if (c->v.snd_una >= c->v.snd_nxt) return false;
    if (!c->v.barren++) c->v.barren_since = now;
    return c->v.barren >= 10 && now - c->v.barren_since > MP_SEC(15) * c->st->set.data_tries;
}

void conn_sf_gone(struct mpc *c, struct sf *s, int err, mp_time now)
{
    bool up = s->v.join_done && s->v.state >= SF_ESTABLISHED;
    if (s->v.mute) return;
    if (s->v.initial && !c->v.established) {
        if (!c->v.server && race_goes_on(c, s, err, now)) return;
        if (!c->v.server) opening_failed(c, err, now);
        else c->v.released = c->v.closing = true; /* nobody has seen it */
        return;
    }
    /* A subflow may be the last thing that the closing waited for: look when it is gone. */
    struct mpc_path_info *p = pm_path(c, s);
    if (p) {
        p->bytes_sent += s->v.bytes_acked;
        p->bytes_received += s->v.bytes_received;
    }
    if (!conn_mp(c)) {
        if (s->v.initial && !conn_finished(c)) {
            c->v.err = err ? err : ECONNRESET;
            conn_event(c, MP_EV_CLOSED);
        }
        conn_close_check(c, now);
        return;
    }
    conn_doubt_look(c, now);
    conn_reinject(c, s, now);
    if (err && up && !c->v.closing) conn_reinject_gaps(c, s->v.id);
    if (!up && !s->v.passive) st_count(c->st, MP_E_join_failed, 1, c);
    if (c->v.closing || conn_finished(c)) return;
    if (s->v.state >= SF_ESTABLISHED && barren(c, now)) {
        conn_fail(c, ETIMEDOUT, now);
        return;
    }
    pm_sf_failed(c, s, up, now);
    if (c->v.timer[CT_ORPHAN] == MP_NEVER && !conn_nsync(c)) c->v.timer[CT_ORPHAN] = now + MP_SEC(c->st->set.orphan_s);
    if (conn_nlive(c)) return;
    /* The peer does not know the token any more. Where a box takes options out, a reset without a reason only says that a SYN
     * without MP_JOIN came to where nobody listens. */
    bool believed = s->v.reset_reason || !pm_path_spoils(c, s);
    if (!up && err == ECONNREFUSED && believed) {
        conn_fail(c, ECONNRESET, now);
        return;
    }
}

void conn_fail(struct mpc *c, int err, mp_time now)
{
    if (!c->v.err) c->v.err = err;
    for (struct sf *s = c->sfs; s; s = s->next) {
        if (s->v.dead || s->v.state == SF_TIME_WAIT) continue;
        bool fast = conn_mp(c) && s->v.fully && err != ECONNRESET;
        sf_abort(s, MP_RST_UNSPECIFIED, false, now);
        if (fast && s->v.reset_pending) s->v.reset_fastclose = true;
    }
    c->v.closing = true;
    for (int i = 0; i < CT_COUNT; i++) c->v.timer[i] = MP_NEVER;
    conn_event(c, MP_EV_CLOSED);
    conn_touch(c);
}

/* ---- closing, RFC 8684 3.3.3 ---- */

/* What a finished connection need not keep through TIME_WAIT. */
static void trim(struct mpc *c)
{
    mpc_write_idle(c);
    if (c->rxq_n || !c->v.released) return;
    free(c->rxq);
    c->rxq = NULL;
    c->rxq_cap = c->rxq_head = 0;
    for (struct sf *s = c->sfs; s; s = s->next) {
        if (s->v.nmap) continue;
        free(s->map);
        s->map = NULL;
        s->v.map_cap = s->v.map_head = 0;
    }
}

static void close_subflows(struct mpc *c, mp_time now)
{
    if (c->v.closing) return;
    c->v.closing = true;
    for (int i = 0; i < CT_COUNT; i++) c->v.timer[i] = MP_NEVER;
    for (struct sf *s = c->sfs; s; s = s->next) {
        if (s->v.dead || s->v.mute) continue;
        if (s->v.state < SF_ESTABLISHED || !s->v.join_done || s->v.stale)
            sf_abort(s, MP_RST_UNSPECIFIED, false, now);
        else {
            sf_close(s, now);
            /* Both streams are complete; a path that dies now is not worth minutes of retransmitted FINs. */
            sf_arm(s, SFT_TIME_WAIT, now + MP_SEC(c->st->set.time_wait_s));
        }
    }
}

void conn_close_check(struct mpc *c, mp_time now)
{
    if (c->v.err) return;
    if (c->v.tx_plain && c->v.shut && c->v.snd_nxt == c->v.snd_end)
        for (struct sf *s = c->sfs; s; s = s->next)
            if (s->v.initial) sf_close(s, now);
    if (!tx_done(c)) return;
    if (c->v.released && c->v.timer[CT_LINGER] == MP_NEVER && !rx_done(c)) c->v.timer[CT_LINGER] = now + MP_SEC(60); /* the peer's FIN is its own business, not for ever ours */
    if (!rx_done(c)) return;
    if (!c->v.tx_plain) close_subflows(c, now);
    conn_event(c, MP_EV_CLOSED);
}

void conn_reap(struct mpc *c, mp_time now)
{
    for (struct sf **p = &c->sfs; *p;) {
        struct sf *s = *p;
        if (!s->v.dead) {
            p = &s->next;
            continue;
        }
        *p = s->next;
        sf_free(s);
    }
    (void)now;
    if (c->v.shut || c->v.err) trim(c);
    if (c->sfs || !c->v.released) return;
    if (conn_finished(c) || !conn_mp(c) || c->v.closing) conn_free(c);
}

/* ---- time ---- */

mp_time conn_deadline(const struct mpc *c)
{
    mp_time min = MP_NEVER;
    for (int i = 0; i < CT_COUNT; i++) min = mp_min(min, c->v.timer[i]);
    for (const struct sf *s = c->sfs; s; s = s->next) min = mp_min(min, sf_deadline(s));
    return min;
}

static bool fired(struct mpc *c, enum conn_timer t, mp_time now)
{
    if (c->v.timer[t] > now) return false;
    c->v.timer[t] = MP_NEVER;
    return true;
}

static mp_dur slowest_rto(const struct mpc *c)
{
    mp_dur r = 0;
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (sf_can_carry(s) && !s->v.stale) r = mp_max(r, s->v.rto);
    return r ? r : MP_SEC(1);
}

static void data_fin_tick(struct mpc *c, mp_time now)
{
    if (!c->v.fin_sent || c->v.fin_acked || c->v.tx_plain) return;
    st_count(c->st, MP_E_data_fin_rexmit, 1, c);
    c->v.data_rexmits++;
    if (c->v.data_rexmits > (int)c->st->set.data_tries) { /* a bare DATA_FIN is no data to the subflows: nobody else gives up */
        conn_fail(c, ETIMEDOUT, now);
        return;
    }
    /* A path that strips options and a peer that went on as plain TCP leave a bare DATA_FIN unanswered for ever:
     * every other time a segment that any TCP answers, to see whether the answer has options. */
    if ((c->v.fb == FB_UNCONFIRMED || conn_single(c)) && c->v.data_rexmits % 2 == 0) {
        for (struct sf *s = c->sfs; s; s = s->next) s->v.probes = 1;
    } else
        conn_send_data_fin(c);
    c->v.timer[CT_DATA_FIN] = now + mp_min(slowest_rto(c) << mp_min((uint64_t)c->v.data_rexmits, conn_single(c) ? 4 : 8), MP_SEC(60));
}

/* Is the byte at dsn, or the rest of its mapping, still on its way? With checksums the peer cannot take the one before
 * the other. */
static bool holds(const struct sf_seg *g, mp_dsn dsn)
{
    if (!g->len) return false;
    if (g->dsn <= dsn && dsn < g->dsn + g->len) return true;
    return g->map_len && g->map_dsn <= dsn && dsn < g->map_dsn + g->map_len;
}

/* The only subflow has delivered everything, and the DATA_ACK does not follow. Nothing can be lost between the two at a
 * peer with one subflow; but where a box took bytes out (an ALG that writes a shorter address), the last mapping never
 * becomes full, and its checksum is never looked at (RFC 8684 3.7). Sending the data once more would fill it with wrong
 * bytes. A peer may also be slow to take data from its subflow (Linux, when its reader is): a small window says so. */
static void data_stuck(struct mpc *c, mp_time now)
{
    bool slow_reader = c->v.snd_edge - c->v.snd_nxt < c->v.snd_nxt - c->v.snd_una;
    bool decided = c->sfs && c->sfs->v.initial && sf_can_carry(c->sfs) && !conn_join_open(c) && (conn_single(c) || !slow_reader);
    if (++c->v.data_stuck > (slow_reader ? 5 : 2) && decided)
        conn_fallback(c, c->sfs, FB_DATA_ACK_STUCK, MP_WHY_CHECKSUM, now);
    else
        for (struct sf *s = c->sfs; s; s = s->next) s->v.probes |= sf_can_carry(s); /* the ACK may be lost */
}

/* RFC 8684 3.3.6: the subflows are satisfied, the connection is not: somebody on the way acknowledged what he lost. */
static void data_rexmit_tick(struct mpc *c, mp_time now)
{
    if (c->v.snd_una >= c->v.snd_nxt || c->v.tx_plain) return;
    bool held = false;
    for (struct sf *s = c->sfs; s && !held; s = s->next) {
        if (s->v.dead || (s->v.stale && conn_any_other(c, s))) continue; /* its data went elsewhere already */
        for (struct sf_seg *g = s->seg_head; g && !held; g = g->next)
            held = holds(g, c->v.snd_una);
    }
    /* The peer may have fallen back (conn_opt.c): sending twice would take that way out from us, and give it wrong bytes. */
    bool doubt = c->sfs && c->sfs->v.initial && c->sfs->v.bare_acks && !conn_any_other(c, c->sfs);
    if (!held && doubt && !conn_join_open(c) && ++c->v.data_rexmits > 2) {
        conn_fallback(c, c->sfs, FB_ACK_WITHOUT_DSS, MP_WHY_NO_OPTION_ACK, now);
        return;
    }
    if (!held && !c->reinj && c->v.fb == FB_CONFIRMED && !doubt) {
        c->v.data_rexmits++;
        if (conn_may_send_twice(c)) {
            st_count(c->st, MP_E_conn_rexmit, 1, c);
            conn_reinject_range(c, c->v.snd_una, mp_min(c->v.snd_una + 65536, c->v.snd_nxt), -1);
        } else
            data_stuck(c, now);
    }
    conn_arm_data_timer(c, now);
}

void conn_arm_data_timer(struct mpc *c, mp_time now)
{
    bool due = !c->v.tx_plain && c->v.snd_una < c->v.snd_nxt && !c->v.err;
    c->v.timer[CT_DATA_REXMIT] = due ? now + mp_min(slowest_rto(c) << mp_min((uint64_t)c->v.data_rexmits, 6), MP_SEC(30)) : MP_NEVER;
}

void conn_tick(struct mpc *c, mp_time now)
{
    for (struct sf *s = c->sfs; s; s = s->next) sf_tick(s, now);
    if (fired(c, CT_DATA_FIN, now)) data_fin_tick(c, now);
    if (fired(c, CT_DATA_REXMIT, now)) data_rexmit_tick(c, now);
    if (fired(c, CT_ADD_ADDR, now)) pm_tick_add_addr(c, now);
    if (fired(c, CT_SILENCE, now)) silence_tick(c, now);
    if (fired(c, CT_PM, now)) pm_run(c, now);
    if (fired(c, CT_RACE, now)) race_tick(c, now);
    if (fired(c, CT_DOUBT, now)) conn_doubt_tick(c, now);
    if (fired(c, CT_ORPHAN, now) && !conn_nsync(c)) {
        st_count(c->st, MP_E_orphan_timeout, 1, c);
        conn_fail(c, ETIMEDOUT, now);
    }
    if (fired(c, CT_LINGER, now) && !conn_finished(c)) conn_fail(c, ETIMEDOUT, now);
    conn_close_check(c, now);
}

/* ---- the owner ---- */

void *mpc_owner(const struct mpc *c) { return c->owner; }
void mpc_set_owner(struct mpc *c, void *owner) { c->owner = owner; }

void mpc_shutdown(struct mpc *c, mp_time now)
{
    if (c->v.shut || c->v.err) return;
    c->v.shut = true;
    conn_close_check(c, now);
    conn_touch(c);
}

void mpc_abort(struct mpc *c, mp_time now)
{
    if (!conn_finished(c)) conn_fail(c, ECONNABORTED, now);
}

void mpc_release(struct mpc *c, mp_dur linger, mp_time now)
{
    if (c->v.released) return;
    bool unread = c->v.rxq_bytes > 0;
    c->v.released = true;
    c->owner = NULL;
    if (!conn_finished(c) && (unread || !c->v.established))
        conn_fail(c, ECONNABORTED, now); /* RFC 9293 3.6.1: data was lost: reset */
    else {
        mpc_shutdown(c, now);
        if (linger && !conn_finished(c)) c->v.timer[CT_LINGER] = now + linger;
    }
    conn_close_check(c, now);
    conn_touch(c);
}

static int use_cc(struct mpc *c, uint64_t number, mp_time now)
{
    const struct mp_cc *cc = number ? NULL : mp_cc_find(c->st->set.cc);
    for (uint64_t i = 0; mp_cc_all[i]; i++)
        if (i + 1 == number) cc = mp_cc_all[i];
    if (!cc) return -ENOENT;
    if (cc == c->cc) return 0;
    c->cc = cc;
    for (struct sf *s = c->sfs; s; s = s->next) { /* windows stay; what the other one kept for itself does not */
        memset(s->v.cc.priv, 0, sizeof s->v.cc.priv);
        s->v.cc.acked_since_grow = 0;
        if (cc->init && s->v.cc.cwnd) cc->init(&s->v.cc, now);
    }
    return 0;
}

int mpc_setopt(struct mpc *c, enum mpc_opt opt, uint64_t v, mp_time now)
{
    switch (opt) {
    case MPC_NODELAY: c->v.nodelay = v; break;
    case MPC_CORK: c->v.cork = v; break;
    case MPC_KEEPALIVE: c->v.keepalive = v; break;
    case MPC_KEEPIDLE_S: c->v.keepidle_s = (uint32_t)v; break;
    case MPC_KEEPINTVL_S: c->v.keepintvl_s = (uint32_t)v; break;
    case MPC_KEEPCNT: c->v.keepcnt = (uint32_t)v; break;
    case MPC_USER_TIMEOUT_MS: c->v.user_timeout_ms = (uint32_t)v; break;
    case MPC_RCVBUF:
        c->v.rcvbuf = mp_max(16384, mp_min(v, 1u << 30));
        hol_buffer_changed(c);
        break;
    case MPC_SNDBUF: c->v.sndbuf = mp_max(16384, mp_min(v, 1u << 30)); break;
    case MPC_STRICT: c->v.strict = v; break;
    case MPC_TOS: c->v.tos = (uint8_t)v & 0xfc; break; /* the ECN bits are the transport's */
    case MPC_MAXSEG: c->v.max_seg = (uint32_t)mp_max(88, mp_min(v, 65535)); break; /* of subflows that open from now on */
    case MPC_TTL: c->v.ttl = (uint8_t)v; break;
    case MPC_CC: return use_cc(c, v, now);
    default: return -EINVAL;
    }
    if (opt == MPC_KEEPALIVE || opt == MPC_KEEPIDLE_S)
        for (struct sf *s = c->sfs; s; s = s->next)
            sf_arm(s, SFT_KEEPALIVE, c->v.keepalive && sf_is_open(s) ? s->v.last_recv + MP_SEC(c->v.keepidle_s ? c->v.keepidle_s : 7200) : MP_NEVER);
    (void)now;
    conn_touch(c);
    return 0;
}
