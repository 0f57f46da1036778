/* Closing: both streams complete (RFC 8684 3.3.3), in error, or left by the owner. */
#include "core/stack_int.h"

#include <errno.h>
#include <stdlib.h>

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

void conn_fail(struct mpc *c, int err, mp_time now)
{
    if (!c->v.err) c->v.err = err;
    for (struct sf *s = c->sfs; s; s = s->next) {
        if (s->v.dead || s->v.state == SF_TIME_WAIT) continue;
        bool fast = (conn_mp(c) || conn_untold(c)) && s->v.fully && err != ECONNRESET;
        sf_abort(s, MP_RST_UNSPECIFIED, false, now);
        if (fast && s->v.reset_pending) s->v.reset_fastclose = true;
    }
    c->v.closing = true;
    for (int i = 0; i < CT_COUNT; i++) c->v.timer[i] = MP_NEVER;
    conn_event(c, MP_EV_CLOSED);
    conn_touch(c);
}

static const struct sf *over(const struct mpc *c, const void *flow)
{
    const struct sf *s = c->sfs;
    while (s && flow && s->flow != flow) s = s->next;
    return s;
}

static enum mp_last_kind last_kind(const struct mpc *c)
{
    if (!c->v.peer_key_known || (!conn_mp(c) && !conn_untold(c))) return MP_LAST_RST;
    return c->v.version ? MP_LAST_FASTCLOSE : MP_LAST_FASTCLOSE_ACK;
}

bool mpc_last_words(const struct mpc *c, const void *flow, struct mp_last_words *w)
{
    const struct sf *s = over(c, flow);
    if (!s || s->v.dead || s->v.reset_sent || s->v.state < SF_SYN_RCVD || s->v.state == SF_TIME_WAIT || c->v.closing || c->v.err || tx_done(c)) return false;
    *w = (struct mp_last_words){
        .kind = last_kind(c), .flow = s->flow, .ifindex = s->v.ifindex, .local = s->v.local, .remote = s->v.remote,
        .seq = s->v.iss + (uint32_t)s->v.snd_nxt, .ack = s->v.irs + (uint32_t)s->v.rcv_nxt, .has_ts = s->v.ts_on,
        .ts_val = sf_ts(s, c->st->now), .ts_ecr = s->v.ts_recent,
        .wnd = (uint16_t)(s->v.rcv_adv > s->v.rcv_nxt ? mp_min(65535, (s->v.rcv_adv - s->v.rcv_nxt) >> s->v.rcv_wscale) : 0),
        .tos = c->v.tos, .ttl = c->v.ttl, .mark = c->v.mark, .priority = c->v.priority,
    };
    if (w->kind != MP_LAST_RST) w->key = c->v.key_remote;
    return true;
}

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
    if (c->v.released && !rx_done(c) && (c->v.linger || c->v.timer[CT_LINGER] == MP_NEVER)) {
        c->v.linger = 0;
        c->v.timer[CT_LINGER] = now + MP_SEC(60); /* the peer's FIN is its own business, not for ever ours */
    }
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
        if (linger && !conn_finished(c) && !tx_done(c)) {
            c->v.linger = linger;
            c->v.timer[CT_LINGER] = now + linger;
        }
    }
    conn_close_check(c, now);
    conn_touch(c);
}
