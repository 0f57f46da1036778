/* A path that has gone silent, noticed by the receiver. The sender learns of it by time-outs, which never come sooner than
 * a fifth of a second (RFC 6298 2.4; Linux moves a dead path's data even later: 290 ms at 2 x 20 Mbit/s, 20 ms). We see the
 * stream stand still while the other paths go on, ask the silent path (a segment that any TCP answers), and when no answer
 * comes, tell the peer by REMOVE_ADDR over the others (RFC 8684 3.4.2) that this address has become unusable: it ends the
 * subflow and sends its data elsewhere at once. The client knocks at the path with joins until it answers again; a server,
 * which opens no subflows, calls it back (recall.c).
 *
 * A path may be merely slow. So patience grows with what it has shown: its round trip, how long it made the stream wait
 * before, and twofold with each verdict that turned out wrong. Who only receives has timed the round trip once, before the
 * queue grew: the time that data needs to echo what we sent, the peer's thinking included, says what it is now. */
#include "core/stack_int.h"

enum { FLOW_SEGMENTS = 4, HASTY_MOST = 6 };
#define LONGEST MP_SEC(1)     /* that what a path has shown makes us wait for */
#define ASK MP_MS(10)         /* at the least */
#define ANSWER MP_MS(40)      /* at the least */
#define ASK_AGAIN MP_MS(600)  /* hosts answer misfits seldom (RFC 5961 7; Linux: once in 500 ms) */
#define FORGET MP_SEC(10)     /* the longest wait counts half after that long */

static bool watched(const struct mpc *c)
{
    return c->ooo.n && conn_mp(c) && c->v.fb == FB_CONFIRMED && (!c->v.server || c->v.takes_addrs) && !c->v.rx_plain && !c->v.closing && !c->v.err && c->sfs && c->sfs->next;
}

static mp_dur peak(const struct sf *s, mp_time now) { return s->v.wait_peak >> mp_min((now - s->v.wait_peak_at) / FORGET, 63); }

/* So long may the stream wait for s until it is asked, */
static mp_dur ask_after(const struct sf *s, mp_time now) { return mp_max(ASK << s->c->v.hasty, peak(s, now)); }

/* and so long may the answer take. */
static mp_dur answer_within(const struct sf *s, mp_time now)
{
    mp_dur shown = mp_max(2 * peak(s, now), s->v.echo + s->v.echo / 4); /* the queue may grow on */
    return mp_max(mp_max(ANSWER << s->c->v.hasty, 2 * s->v.srtt), shown);
}

void silence_echo(struct sf *s, const struct mp_opts *o, mp_time now)
{
    if (!s->v.ts_on || !o->has_ts || !o->ts_ecr) return;
    uint32_t ms = sf_ts(s, now) - o->ts_ecr;
    s->v.echo = ms < 600000 ? mp_min(MP_MS(ms), LONGEST) : 0; /* else it echoes nothing of ours */
}

static mp_time silent_since(const struct sf *s) { return mp_max(s->c->v.stuck_since, s->v.last_recv); }

/* The stream stands still from now on. */
void silence_hole(struct mpc *c, mp_time now)
{
    c->v.stuck_since = now;
    if (c->v.timer[CT_SILENCE] == MP_NEVER) c->v.timer[CT_SILENCE] = now + ASK;
}

/* s is heard; did the stream wait for it? */
void silence_over(struct sf *s, mp_time now)
{
    struct mpc *c = s->c;
    if (!c->ooo.n) return;
    mp_dur wait = now - silent_since(s);
    if (wait < peak(s, now)) return;
    s->v.wait_peak = mp_min(wait, LONGEST);
    s->v.wait_peak_at = now;
}

/* REMOVE_ADDR ends all subflows of the address: not if another one is in use. */
static bool alone_on_address(const struct sf *s)
{
    for (const struct sf *o = s->c->sfs; o; o = o->next)
        if (o != s && sf_can_carry(o) && o->v.addr_id_local == s->v.addr_id_local) return false;
    return true;
}

static bool suspect(const struct mpc *c, const struct sf *s)
{
    if (c->v.server && !recall_possible(c, s)) return false;
    return sf_can_carry(s) && !s->v.stale && !s->v.aside && !s->v.silent && s->v.bytes_received >= FLOW_SEGMENTS * s->v.mss && conn_any_other(c, s) && alone_on_address(s);
}

static void verdict(struct mpc *c, struct sf *s, mp_time now)
{
    st_count(c->st, MP_E_path_silent, 1, c);
    s->v.silent = true;
    if (c->v.server) {
        recall_begin(s, now);
        return;
    }
    pm_tell_removed(c, s->v.addr_id_local);
    sf_abort(s, MP_RST_PERFORMANCE, true, now);
}

/* When to look at s again. */
static mp_time look(struct mpc *c, struct sf *s, mp_time now)
{
    mp_time since = silent_since(s);
    mp_dur ask = ask_after(s, now), answer = answer_within(s, now);
    if (now < since + ask) return since + ask;
    if (s->v.asked_at <= since) {
        if (s->v.asked_at && now < s->v.asked_at + ASK_AGAIN) return s->v.asked_at + ASK_AGAIN;
        s->v.asked_at = now;
        s->v.asked_rx = c->v.rx_total;
        s->v.probes = 1; /* one segment below the window, RFC 9293 3.8.4 */
        return now + answer;
    }
    if (now < s->v.asked_at + answer) return s->v.asked_at + answer;
    if (c->v.rx_total - s->v.asked_rx < FLOW_SEGMENTS * s->v.mss) { /* it may be the peer that is slow, not the path */
        s->v.asked_rx = c->v.rx_total;
        return now + answer;
    }
    verdict(c, s, now);
    return MP_NEVER;
}

/* At once: then it was only slow. */
void silence_answered(struct mpc *c, mp_dur after)
{
    if (after >= SILENCE_KNOCK) return;
    st_count(c->st, MP_E_path_not_silent, 1, c);
    if (c->v.hasty < HASTY_MOST) c->v.hasty++;
}

/* A join over a path that was called silent is answered. */
void silence_ended(struct sf *s, mp_time now)
{
    if (!s->v.silent) return;
    s->v.silent = false;
    silence_answered(s->c, now - s->v.created);
}

void silence_tick(struct mpc *c, mp_time now)
{
    mp_time next = now + MP_SEC(1);
    if (!watched(c)) return; /* the next hole starts it again */
    for (struct sf *s = c->sfs; s; s = s->next)
        if (suspect(c, s)) next = mp_min(next, look(c, s, now));
    c->v.timer[CT_SILENCE] = mp_max(next, now + MP_MS(1));
}
