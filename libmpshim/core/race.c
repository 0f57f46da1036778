/* The first SYN raced over the interfaces: when the path that routing chose stays silent, the next one is asked as
 * well, and the first that answers carries the connection (RFC 8305's idea, over paths instead of addresses).
 *
 * All attempts are one connection: the same key and, in version 1, nothing in a SYN that names it. They are `initial`
 * until one has an answer. The others stay, mute, for a while: a late SYN/ACK is answered with a reset, so that the
 * peer keeps no half-open connection.
 *
 * Where SYNs with MP_CAPABLE stay unanswered and one without does too, another one goes from a port of its own: the peer may
 * have the first, and repeats its answer with the option (Linux does), which a box on the way back drops each time. */
#include "core/stack_int.h"

#include <errno.h>

#define MUTE_FOR MP_SEC(5)    /* a SYN/ACK later than this finds nobody, which is answered with a reset as well */
#define BACKUP_AFTER MP_SEC(1) /* a metered path is asked when the others missed a retransmission too */
#define REFUSED_WAIT 2        /* SYNs of the first path, after another one was refused there */

static bool racing(const struct mpc *c) { return !c->v.server && !c->v.established && !c->v.err && !c->v.released; }

static bool asked(const struct mpc *c, int ifindex)
{
    for (int i = 0; i < c->v.nrace; i++)
        if (c->v.race_if[i] == ifindex) return true;
    return c->v.nrace == (int)(sizeof c->v.race_if / sizeof *c->v.race_if);
}

/* The next interface to ask, or NULL; *wait: only backups are left, and it is early for them. */
static const struct mp_local *candidate(struct mpc *c, bool *wait, mp_time now)
{
    struct mp_stack *st = c->st;
    const struct mp_local *backup = NULL;
    for (int i = 0; i < st->nlocal; i++) {
        const struct mp_local *l = &st->local[i];
        if (l->ip.family != c->v.remote.ip.family || asked(c, l->ifindex)) continue;
        if (!st->ops.route(st->arg, l->ifindex, &l->ip, &c->v.remote.ip, c->v.mark)) continue;
        if (!l->backup) return l;
        if (!backup) backup = l;
    }
    *wait = backup && now < c->v.opened + BACKUP_AFTER;
    return *wait ? NULL : backup;
}

static bool ask(struct mpc *c, int ifindex, const struct mp_addr *from, mp_time now)
{
    int err;
    struct sf *s = st_sf_open(c, ifindex, from, &c->v.remote, now, &err);
    if (!s) return false;
    s->v.initial = true;
    st_count(c->st, MP_E_syn_raced, 1, c);
    sf_connect(s, now);
    conn_touch(c);
    return true;
}

static bool ask_next(struct mpc *c, mp_time now)
{
    bool wait = false;
    const struct mp_local *l;
    while ((l = candidate(c, &wait, now))) {
        bool is_out = ask(c, l->ifindex, &l->ip, now);
        c->v.race_if[c->v.nrace++] = l->ifindex;
        if (!is_out) continue;
        c->v.timer[CT_RACE] = now + MP_MS(c->st->set.syn_race_ms);
        return true;
    }
    if (wait) c->v.timer[CT_RACE] = c->v.opened + BACKUP_AFTER;
    return false;
}

static void ask_from_another_port(struct mpc *c, mp_time now)
{
    if (c->v.race_fresh || c->v.why != MP_WHY_SYN_DROPPED) return;
    c->v.race_fresh = true;
    ask(c, c->v.race_if[0], &c->v.local.ip, now);
}

void race_start(struct mpc *c, int ifindex, mp_time now)
{
    c->v.race_if[c->v.nrace++] = ifindex;
    race_look(c, now);
}

void race_look(struct mpc *c, mp_time now)
{
    if (racing(c) && c->st->set.syn_race_ms)
        c->v.timer[CT_RACE] = mp_min(c->v.timer[CT_RACE], mp_max(now, c->v.opened + MP_MS(c->st->set.syn_race_ms)));
}

void race_hurry(struct mpc *c, mp_time now)
{
    if (racing(c) && c->st->set.syn_race_ms) c->v.timer[CT_RACE] = now;
}

void race_tick(struct mpc *c, mp_time now)
{
    if (racing(c) && !ask_next(c, now) && c->v.timer[CT_RACE] == MP_NEVER) ask_from_another_port(c, now);
}

void race_without_option(struct mpc *c, mp_time now)
{
    if (c->st->set.syn_race_ms) c->v.timer[CT_RACE] = now + MP_MS(c->st->set.syn_race_ms);
}

/* s answered (NULL: the connection is given up). */
void race_over(struct mpc *c, struct sf *s, mp_time now)
{
    c->v.timer[CT_RACE] = MP_NEVER;
    for (struct sf *o = c->sfs; o; o = o->next) {
        if (o == s || o->v.dead || !o->v.initial) continue;
        o->v.initial = false;
        o->v.mute = true;
        while (o->seg_head) sf_seg_drop(o, o->seg_head);
        for (int i = 0; i < SFT_COUNT; i++) sf_arm(o, (enum sf_timer)i, MP_NEVER);
        sf_arm(o, SFT_TIME_WAIT, now + MUTE_FOR);
    }
    if (!s || s == c->sfs) return;
    for (struct sf **p = &c->sfs; *p; p = &(*p)->next) /* the first subflow is the first of the list */
        if (*p == s) {
            *p = s->next;
            s->next = c->sfs;
            c->sfs = s;
            break;
        }
    c->v.local = s->v.local;
}

/* An attempt ended. Do others go on? */
bool race_goes_on(struct mpc *c, const struct sf *s, int err, mp_time now)
{
    if (!racing(c)) return false;
    /* The host's answer over the path that routing chose is its answer; over another one it may be a firewall's. */
    bool first = mp_addr_eq(&s->v.local.ip, &c->v.local.ip) && s->v.local.port == c->v.local.port;
    if (err == ECONNREFUSED && first) return false;
    if (!c->v.race_err || first) c->v.race_err = err;
    for (const struct sf *o = c->sfs; o; o = o->next)
        if (o != s && !o->v.dead && o->v.initial) return true;
    return c->st->set.syn_race_ms && ask_next(c, now);
}

/* Refused elsewhere and silent here: the silence is not worth minutes. */
bool race_is_lost(const struct sf *s)
{
    const struct mpc *c = s->c;
    return s->v.initial && s->v.state == SF_SYN_SENT && c->v.race_err == ECONNREFUSED && s->v.syn_tries >= REFUSED_WAIT;
}
