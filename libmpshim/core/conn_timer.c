/* The connection's timers: what is due when, and what is done then. */
#include "core/stack_int.h"

#include <errno.h>

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

static mp_dur fin_patience(const struct mpc *c, int tries)
{
    return mp_min(slowest_rto(c) << mp_min((uint64_t)tries, conn_single(c) ? 4 : 8), MP_SEC(60));
}

/* Of the only subflow the peer has all, answers what we ask it, with DATA_ACKs, and four DATA_FINs have not come through: a box
 * takes the options out on the way to it, and it goes on waiting for our data. A plain FIN ends the stream. */
static bool data_fin_stuck(const struct mpc *c, mp_time now)
{
    bool asked = c->v.data_rexmits > 6 && c->v.data_rexmits % 2; /* the last turn was a segment that any TCP answers */
    return asked && c->v.fb == FB_CONFIRMED && conn_single(c) && sf_can_carry(c->sfs) && c->v.snd_una == c->v.snd_end &&
           now - c->v.data_ack_heard < fin_patience(c, c->v.data_rexmits - 1);
}

static void data_fin_tick(struct mpc *c, mp_time now)
{
    if (!c->v.fin_sent || c->v.fin_acked || c->v.tx_plain) return;
    st_count(c->st, MP_E_data_fin_rexmit, 1, c);
    c->v.data_rexmits++;
    /* It answers, and has not taken all that is in front of the DATA_FIN: Linux does not while its program does not read. That is
     * no reason to give up (RFC 9293 3.8.6.1 says so of a shut window): the reset would take from it what it has not read. */
    bool slow_reader = c->v.snd_una < c->v.snd_end && now - c->v.data_ack_heard < MP_SEC(120);
    if (c->v.data_rexmits > (int)c->st->set.data_tries && !slow_reader) { /* a bare DATA_FIN is no data to the subflows: nobody else gives up */
        conn_fail(c, ETIMEDOUT, now);
        return;
    }
    if (data_fin_stuck(c, now)) {
        conn_fallback(c, c->sfs, FB_DATA_FIN_STUCK, MP_WHY_NO_OPTION_ACK, now);
        return;
    }
    /* A path that strips options and a peer that went on as plain TCP leave a bare DATA_FIN unanswered for ever:
     * every other time, and after such an answer each time, a segment that any TCP answers, to see whether that has options. */
    if ((c->v.fb == FB_UNCONFIRMED || conn_single(c)) && (c->v.data_rexmits % 2 == 0 || (c->sfs && c->sfs->v.bare_acks))) {
        for (struct sf *s = c->sfs; s; s = s->next) s->v.probes = 1;
    } else
        conn_send_data_fin(c);
    c->v.timer[CT_DATA_FIN] = now + fin_patience(c, c->v.data_rexmits);
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
    /* The peer may have fallen back (conn_opt.c): sending twice would take that way out from us, and give it wrong bytes. So
     * it is if nothing but ACKs without DSS ever came, which a proxy may have made, and all that we may send is acknowledged. */
    bool doubt = c->sfs && c->sfs->v.initial && (c->sfs->v.bare_acks || c->v.fb == FB_UNCONFIRMED) && !conn_any_other(c, c->sfs);
    if (!held && doubt && !conn_join_open(c) && ((conn_unheard(c) && conn_bare_for_long(c->sfs, now)) || ++c->v.data_rexmits > 2)) {
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

/* Each subflow looks at its own data when it retransmits (sf_rto.c); a connection of several, or of none for the moment, has
 * this. Looked at late: an ACK need not touch the timer. */
void conn_arm_user_timeout(struct mpc *c)
{
    bool due = c->v.user_timeout_ms && c->v.snd_una < c->v.snd_nxt && !c->v.err;
    c->v.timer[CT_USER] = due ? c->v.unacked_since + MP_MS(c->v.user_timeout_ms) : MP_NEVER;
}

static void user_timeout_tick(struct mpc *c, mp_time now)
{
    conn_arm_user_timeout(c);
    if (c->v.timer[CT_USER] > now) return;
    st_count(c->st, MP_E_user_timeout, 1, c);
    conn_fail(c, ETIMEDOUT, now);
}

/* As long as the peer takes what was written it is delivered, however slowly: so do the kernel's orphans. */
static void linger_tick(struct mpc *c, mp_time now)
{
    if (conn_finished(c)) return;
    if (c->v.linger && c->v.last_data_ack + c->v.linger > now)
        c->v.timer[CT_LINGER] = c->v.last_data_ack + c->v.linger;
    else
        conn_fail(c, ETIMEDOUT, now);
}

/* A peer that has closed its last subflow and takes our data over it all the same is not gone. */
static void orphan_tick(struct mpc *c, mp_time now)
{
    mp_time taken = c->v.last_data_ack + MP_SEC(c->st->set.orphan_s);
    if (conn_nlive(c) && taken > now) {
        c->v.timer[CT_ORPHAN] = taken;
        return;
    }
    st_count(c->st, MP_E_orphan_timeout, 1, c);
    conn_fail(c, ETIMEDOUT, now);
}

void conn_tick(struct mpc *c, mp_time now)
{
    for (struct sf *s = c->sfs; s; s = s->next) sf_tick(s, now);
    if (fired(c, CT_DATA_FIN, now)) data_fin_tick(c, now);
    if (fired(c, CT_DATA_REXMIT, now)) data_rexmit_tick(c, now);
    if (fired(c, CT_ADD_ADDR, now)) pm_tick_add_addr(c, now);
    if (fired(c, CT_SILENCE, now)) silence_tick(c, now);
    if (fired(c, CT_RECALL, now)) recall_tick(c, now);
    if (fired(c, CT_PM, now)) pm_run(c, now);
    if (fired(c, CT_RACE, now)) race_tick(c, now);
    if (fired(c, CT_DOUBT, now)) conn_doubt_tick(c, now);
    if (fired(c, CT_USER, now)) user_timeout_tick(c, now);
    if (fired(c, CT_ORPHAN, now) && !conn_nsync(c)) orphan_tick(c, now);
    if (fired(c, CT_LINGER, now)) linger_tick(c, now);
    conn_close_check(c, now);
}
