/* Connection life: made, freed; subflows that come and go, and questions about them. */
#include "core/stack_int.h"

#include <errno.h>
#include <stdlib.h>

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
    conn_reinject_drop(c);
    for (uint32_t i = 0; i < c->rxq_n; i++) mp_slice_put(&c->rxq[(c->rxq_head + i) % c->rxq_cap]);
    free(c->rxq);
    free(c->paths);
    free(c->retry);
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
    for (const struct sf *s = c->sfs; s; s = s->next) n += sf_is_open(s) && s->v.join_done && !s->v.silent && !conn_abandoned(s);
    return n;
}

bool conn_abandoned(const struct sf *s)
{
    return s->v.state == SF_CLOSE_WAIT && conn_mp(s->c) && !s->c->v.fin_consumed;
}

bool conn_any_other(const struct mpc *c, const struct sf *s)
{
    for (const struct sf *o = c->sfs; o; o = o->next)
        if (o != s && sf_can_carry(o) && !o->v.stale) return true;
    return false;
}

/* One that has sent its FIN brings nothing more to the coupling, and those of a peer that acknowledges none may be many. */
struct mp_cc_group conn_cc_group(struct mpc *c, struct sf *self)
{
    struct mp_cc_group g = { .n = 1, .s = { &self->v.cc } };
    for (struct sf *s = c->sfs; s && g.n < MP_CC_MAX_PATHS; s = s->next) {
        if (s == self || s->v.dead || !s->v.cc.active || s->v.fin_sent) continue;
        g.s[g.n++] = &s->v.cc;
    }
    return g;
}

bool conn_single(const struct mpc *c) { return c->v.sf_ever == 1 && !c->v.joins_answered && !c->v.sent_twice && c->sfs && c->sfs->v.initial; }

/* A peer that has one subflow may go on as plain TCP at any time, and then takes whatever comes for new bytes, also data
 * that it has. That a second one came up here, it knows: it has answered it, or opened it and seen our answer. */
bool conn_may_send_twice(const struct mpc *c) { return c->v.sf_ever > 1; }

/* One that was asked for and has no answer yet counts for as long as that may take on a path that works: its SYN may be there
 * already, and the peer then does not fall back with us (simulation seed 613306). */
bool conn_join_open(const struct mpc *c)
{
    for (const struct sf *s = c->sfs; s; s = s->next) {
        if (s->v.initial || s->v.dead || s->v.mute) continue;
        if (s->v.state == SF_SYN_RCVD) return true;
        if (s->v.state == SF_SYN_SENT && !s->v.syn_tries && c->st->now - s->v.created < MP_SEC(1)) return true;
    }
    return false;
}

bool conn_unheard(const struct mpc *c) { return c->v.snd_una == c->v.idsn_local + 1; }

/* ---- subflows come and go ---- */

void conn_sf_established(struct mpc *c, struct sf *s, mp_time now)
{
    st_count(c->st, MP_E_subflow_up, 1, c);
    c->v.sf_ever++;
    c->v.timer[CT_ORPHAN] = MP_NEVER;
    conn_doubt_look(c, now);
    pm_path(c, s);
    if (s->v.passive && !s->v.initial) {
        st_count(c->st, MP_E_join_up, 1, c);
        conn_ask_window(c);
    }
    if (!s->v.initial) {
        silence_ended(s, now);
        recall_joined(s, now);
        pm_tell_aside(c, s);
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

/* RFC 8684 3.3.3: subflows that ended without a DATA_FIN end the connection after a time-out, until which a new one may come. */
void conn_orphan_look(struct mpc *c, mp_time now)
{
    if (c->v.timer[CT_ORPHAN] == MP_NEVER && !conn_nsync(c)) c->v.timer[CT_ORPHAN] = now + MP_SEC(c->st->set.orphan_s);
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
    if (err == ECONNRESET) recall_heard(s, now);
    conn_doubt_look(c, now);
    conn_reinject(c, s, now);
    if (err && up && !c->v.closing) conn_reinject_gaps(c, s->v.id);
    if (!up && !s->v.passive) st_count(c->st, MP_E_join_failed, 1, c);
    if (c->v.closing || conn_finished(c)) return;
    if (s->v.state >= SF_ESTABLISHED && barren(c, now)) {
        conn_fail(c, ETIMEDOUT, now);
        return;
    }
    pm_sf_failed(c, s, up, err, now);
    conn_orphan_look(c, now);
    if (conn_nlive(c)) return;
    /* RFC 8684 3.1: until the peer has shown by an option that it has our key nothing can be joined: as in plain TCP. */
    if (!c->v.server && c->v.fb == FB_UNCONFIRMED) {
        conn_fail(c, err ? err : ECONNRESET, now);
        return;
    }
    /* The peer does not know the token any more. Where a box takes options out, a reset without a reason only says that a SYN
     * without MP_JOIN came to where nobody listens. */
    bool believed = s->v.reset_reason || !pm_path_spoils(c, s);
    if (!up && err == ECONNREFUSED && believed) {
        conn_fail(c, ECONNRESET, now);
        return;
    }
}
