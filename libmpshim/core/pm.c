/* Path management (RFC 8684 3.2, RFC 6182 3.5): one subflow for each usable interface and reachable peer address. The
 * addresses themselves: pm_addr.c. */
#include "core/stack_int.h"

#include <errno.h>
#include <stdlib.h>

/* The table with room for another entry; it is as it was, and NULL returned, where there is none. */
static void *one_more(void *table, int n, size_t size)
{
    return n < PM_MAX_PATHS ? realloc(table, (size_t)(n + 1) * size) : NULL;
}

struct mpc_path_info *pm_path(struct mpc *c, const struct sf *s)
{
    for (int i = 0; i < c->v.npaths; i++)
        if (strcmp(c->paths[i].ifname, s->v.ifname) == 0 && mp_addr_eq(&c->paths[i].local, &s->v.local.ip)) return &c->paths[i];
    struct mpc_path_info *p = one_more(c->paths, c->v.npaths, sizeof *p);
    if (!p) return NULL;
    c->paths = p;
    p += c->v.npaths++;
    memset(p, 0, sizeof *p);
    memcpy(p->ifname, s->v.ifname, sizeof p->ifname);
    p->local = s->v.local.ip;
    return p;
}

/* ---- joins ---- */

/* It leaves its pair of addresses to another. */
static bool is_past(const struct sf *s)
{
    return s->v.dead || s->v.mute || s->v.reset_pending || s->v.state > SF_CLOSE_WAIT || s->v.fin_queued || conn_abandoned(s);
}

static bool pair_in_use(const struct mpc *c, const struct mp_local *l, const struct mp_endpoint *r)
{
    for (const struct sf *s = c->sfs; s; s = s->next) {
        if (is_past(s)) continue;
        if (s->v.ifindex == l->ifindex && mp_addr_eq(&s->v.local.ip, &l->ip) && mp_endpoint_eq(&s->v.remote, r)) return true;
    }
    return false;
}

static struct pm_retry *retry_find(const struct mpc *c, const struct mp_addr *local, int ifindex, const struct mp_endpoint *r)
{
    for (int i = 0; i < c->v.nretry; i++) {
        struct pm_retry *t = &c->retry[i];
        if (t->ifindex == ifindex && mp_addr_eq(&t->local, local) && mp_endpoint_eq(&t->remote, r)) return t;
    }
    return NULL;
}

/* A new entry, or that of the pair whose turn came first. NULL: no memory for the first one. */
static struct pm_retry *retry_take(struct mpc *c)
{
    struct pm_retry *t = one_more(c->retry, c->v.nretry, sizeof *t), *oldest = c->retry;
    if (t) {
        c->retry = t;
        return t + c->v.nretry++;
    }
    for (int i = 1; i < c->v.nretry; i++)
        if (c->retry[i].not_before < oldest->not_before) oldest = &c->retry[i];
    return oldest;
}

static struct pm_retry *retry_of(struct mpc *c, const struct mp_addr *local, int ifindex, const struct mp_endpoint *r)
{
    struct pm_retry *t = retry_find(c, local, ifindex, r);
    if (!t && (t = retry_take(c))) *t = (struct pm_retry){ .ifindex = ifindex, .local = *local, .remote = *r };
    return t;
}

/* false: no memory to remember how it went. */
static bool join(struct mpc *c, const struct mp_local *l, const struct pm_remote *r, mp_time now)
{
    int err;
    if (!retry_of(c, &l->ip, l->ifindex, &r->at)) return false;
    struct sf *s = st_sf_open(c, l->ifindex, &l->ip, &r->at, now, &err);
    struct pm_retry *t = retry_of(c, &l->ip, l->ifindex, &r->at); /* anew: an older subflow that gave way may have moved the table */
    if (t->up) st_count(c->st, MP_E_path_retry, 1, c);
    if (!s) {
        t->fails++;
        t->not_before = now + MP_SEC(5);
        return true;
    }
    s->v.addr_id_local = pm_local_id(c, &l->ip);
    s->v.addr_id_remote = r->id;
    s->v.nonce_local = st_rand32(c->st);
    s->v.backup_local = l->backup;
    s->v.silent = t->silent;
    t->silent = false;
    sf_connect(s, now);
    conn_touch(c);
    return true;
}

static bool may_join(const struct mpc *c)
{
    /* Clients open subflows; a server's clients are often behind a NAT, and it tells its addresses instead. */
    return !c->v.server && conn_mp(c) && c->v.fb == FB_CONFIRMED && !c->v.closing && !c->v.err && !(c->v.fin_acked && c->v.fin_consumed);
}

#define LATE MP_SEC(1) /* a join that is not up by then keeps no other one back where none is up */

/* How much a pair would add: 2 an interface without any subflow, 1 a peer address without any when the peer has more
 * addresses than we have interfaces, 0 nothing new. Several subflows of one connection over the same two interfaces
 * compete with each other, and coupled windows keep the losers small for seconds. */
static int pair_worth(const struct mpc *c, const struct mp_local *l, const struct pm_remote *r)
{
    bool if_used = false, remote_used = false, alone = !conn_nsync(c);
    for (const struct sf *s = c->sfs; s; s = s->next) {
        if (alone && c->st->now - s->v.created >= LATE) continue; /* its path may let no join through (simulation seed 506361) */
        if (is_past(s) || s->v.aside) continue;
        if_used |= s->v.ifindex == l->ifindex;
        remote_used |= mp_addr_eq(&s->v.remote.ip, &r->at.ip);
    }
    if (!if_used) return remote_used ? 2 : 3;
    return remote_used ? 0 : 1;
}

static int count_interfaces(const struct mpc *c, uint8_t family)
{
    int n = 0;
    for (int i = 0; i < c->st->nlocal; i++) n += c->st->local[i].ip.family == family;
    return n;
}

static int count_remotes(const struct mpc *c, uint8_t family)
{
    int n = 0;
    for (int i = 0; i < PM_MAX_REMOTE; i++) n += c->v.remotes[i].used && c->v.remotes[i].at.ip.family == family;
    return n;
}

/* One that has time-outs in a row is open for a quarter of an hour more, and may be all that is left. */
static bool any_works(const struct mpc *c)
{
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (sf_is_open(s) && s->v.join_done && !s->v.silent && !conn_abandoned(s) && !s->v.stale && s->v.backoff < PM_RESCUE) return true;
    return false;
}

/* May this pair be tried, now or at *when? */
static bool pair_usable(struct mpc *c, const struct mp_local *l, const struct pm_remote *r, mp_time *when)
{
    struct mp_stack *st = c->st;
    /* An address that the peer took back is tried again when no other subflow is up, which a join on its way is not (simulation
     * seed 471986): it may be back, and nobody could say so. */
    if (!r->used && conn_nsync(c)) return false;
    if (r->at.ip.family != l->ip.family || pair_in_use(c, l, &r->at) || pm_is_barred(c, &l->ip)) return false;
    if (r->id == 0 && c->v.no_join_initial) return false; /* RFC 8684 3.1 C flag */
    if (!st->ops.route(st->arg, l->ifindex, &l->ip, &r->at.ip, c->v.mark)) return false;
    struct pm_retry *t = retry_find(c, &l->ip, l->ifindex, &r->at);
    bool given_up = t && ((t->barred && conn_nlive(c)) || (t->vain && !r->answered && any_works(c)));
    *when = !t ? 0 : given_up ? MP_NEVER : t->not_before;
    return true;
}

/* The best pair that may be tried now; *again is lowered to when another one may. */
static int best_pair(struct mpc *c, const struct mp_local **l, const struct pm_remote **r, mp_time *again, mp_time now)
{
    int best = 0;
    for (int i = 0; i < PM_MAX_REMOTE; i++)
        for (int j = 0; j < c->st->nlocal; j++) {
            const struct mp_local *lj = &c->st->local[j];
            const struct pm_remote *ri = &c->v.remotes[i];
            mp_time when;
            if (!pair_usable(c, lj, ri, &when)) continue;
            int worth = pair_worth(c, lj, ri);
            if (worth == 1 && count_remotes(c, ri->at.ip.family) <= count_interfaces(c, ri->at.ip.family)) worth = 0;
            if (!worth) continue;
            if (when > now) {
                *again = mp_min(*again, when);
                continue;
            }
            /* The connection's own family first: the peer surely has it. */
            worth = worth * 2 + (ri->at.ip.family == c->v.remote.ip.family);
            if (worth <= best) continue;
            best = worth;
            *l = lj;
            *r = ri;
        }
    return best;
}

/* See rescue.c. If the path itself is dead, it costs SYNs. */
bool pm_rescue(struct mpc *c, const struct sf *s, mp_time now)
{
    if (!may_join(c) || s->v.withheld || conn_nlive(c) >= (int)c->st->set.max_subflows) return false;
    for (const struct sf *o = c->sfs; o; o = o->next)
        if (o != s && !o->v.dead && !o->v.mute && o->v.ifindex == s->v.ifindex && mp_addr_eq(&o->v.remote.ip, &s->v.remote.ip)) return false;
    const struct pm_retry *t = retry_find(c, &s->v.local.ip, s->v.ifindex, &s->v.remote);
    if (t && t->not_before > now) return false;
    for (int i = 0; i < PM_MAX_REMOTE; i++)
        for (int j = 0; j < c->st->nlocal; j++) {
            const struct mp_local *l = &c->st->local[j];
            const struct pm_remote *r = &c->v.remotes[i];
            if (!r->used || !mp_endpoint_eq(&r->at, &s->v.remote) || (r->id == 0 && c->v.no_join_initial)) continue;
            if (l->ifindex != s->v.ifindex || !mp_addr_eq(&l->ip, &s->v.local.ip)) continue;
            return join(c, l, r, now);
        }
    return false;
}

void pm_run(struct mpc *c, mp_time now)
{
    mp_time again = MP_NEVER;
    const struct mp_local *l;
    const struct pm_remote *r;
    c->v.timer[CT_PM] = MP_NEVER;
    if (!may_join(c)) return;
    for (int tries = 0; tries < PM_MAX_PATHS && conn_nlive(c) < (int)c->st->set.max_subflows; tries++) {
        again = MP_NEVER;
        if (!best_pair(c, &l, &r, &again, now)) break;
        if (join(c, l, r, now)) continue;
        again = now + MP_SEC(1);
        break;
    }
    c->v.timer[CT_PM] = conn_nsync(c) ? again : mp_min(again, now + LATE);
}

/* What is left alone while anything works may be tried now. */
void pm_in_trouble(struct mpc *c, mp_time now)
{
    if (may_join(c) && !any_works(c)) c->v.timer[CT_PM] = mp_min(c->v.timer[CT_PM], now);
}

bool pm_path_spoils(struct mpc *c, const struct sf *s)
{
    const struct pm_retry *t = retry_find(c, &s->v.local.ip, s->v.ifindex, &s->v.remote);
    return t && t->spoils;
}

/* Only joins are left, and one of them may never come up: no path waits for long. */
static void hurry(struct mpc *c, mp_time now)
{
    for (int i = 0; i < c->v.nretry; i++) c->retry[i].not_before = mp_min(c->retry[i].not_before, now + MP_SEC(2));
}

/* 0.1 s, doubled n times, but no more than `most`. */
static mp_dur doubled(int n, mp_dur most) { return mp_min(MP_MS(100) << mp_min((uint64_t)n, 10), most); }

#define LIVED MP_SEC(10) /* what comes and goes more seldom than that is no waste */

/* Nothing is left, and so long the path that ended last rests: not at all the first time. A box that lets joins pass and breaks
 * what follows would see one for each round trip (simulation seed 413089: 3,400 in 288 s): while the stream does not move in
 * either direction the rest grows to an eighth of that time, so that one who looks at the clock sees a path in use again soon
 * after it is back. A link that comes up ends it (pm_vain_over). */
static mp_dur vain_rest(struct mpc *c, const struct sf *s, bool was_up, mp_time now)
{
    uint64_t at = c->v.snd_una + c->v.rcv_nxt;
    if (at != c->v.vain_at || (was_up && now - s->v.created > LIVED)) {
        c->v.vain_at = at;
        pm_vain_over(c, now);
        return 0;
    }
    mp_dur first = doubled(++c->v.vain, MP_SEC(1));
    return mp_max(first, mp_min((now - c->v.vain_since) / 8, MP_SEC(10)));
}

void pm_vain_over(struct mpc *c, mp_time now)
{
    c->v.vain = 0;
    c->v.vain_since = now;
}

void pm_answered(struct mpc *c, const struct sf *s)
{
    for (int i = 0; i < PM_MAX_REMOTE; i++)
        if (mp_endpoint_eq(&c->v.remotes[i].at, &s->v.remote)) c->v.remotes[i].answered = true;
}

/* It never left this host, or made way to another: that says nothing about the peer's address. Nor does a router that had no way,
 * or an own gateway that ARP did not find (EHOSTUNREACH, too), and no stranger got that SYN. */
static bool is_own_failure(int err)
{
    return !err || err == ENETDOWN || err == ENETUNREACH || err == EHOSTUNREACH || err == EPERM || err == EACCES;
}

/* RFC 8684 3.4.1: an announced address that cannot be connected to is left alone until it is announced again. It may be somebody
 * else's (a private one, or a lie), who would get our SYNs for as long as the connection lives. Three exceptions: when nothing
 * else works there is nothing to lose; an own link or address that is new is another path; and where the peer itself answered, be
 * it over another path or by a reset that calls its reason transient (3.6), there is no stranger. */
void pm_sf_failed(struct mpc *c, struct sf *s, bool was_up, int err, mp_time now)
{
    if (c->v.server || s->v.passive) return;
    struct pm_retry *t = retry_of(c, &s->v.local.ip, s->v.ifindex, &s->v.remote);
    if (!t) return;
    t->vain = !was_up && !s->v.reset_transient && !is_own_failure(err);
    /* The path itself is the matter: again soon, once, for some boxes act once; then seldom. */
    if (s->v.reset_reason == MP_RST_MIDDLEBOX) t->fails = 2 * t->fails + 2;
    else t->fails = was_up ? 1 : t->fails + 1;
    t->up |= was_up;
    t->spoils |= was_up && s->v.reset_reason == MP_RST_MIDDLEBOX;
    t->silent = was_up && s->v.silent;
    t->barred |= s->v.barred;
    t->not_before = now + doubled(t->fails, MP_SEC(60));
    if (!conn_nsync(c)) hurry(c, now);
    if (!conn_nlive(c)) {
        mp_dur rest = vain_rest(c, s, was_up, now);
        t->not_before = now + (!was_up && t->fails > 1 ? mp_max(rest, MP_SEC(1)) : rest);
    }
    if (c->v.barren > 3) t->not_before = now + doubled(c->v.barren, MP_SEC(10));
    c->v.timer[CT_PM] = mp_min(c->v.timer[CT_PM], t->not_before);
}

void pm_ready(struct mpc *c, mp_time now)
{
    if (c->v.server)
        pm_announce_all(c, now);
    else
        pm_run(c, now);
}

/* An interface is told as up before the routes over it exist (the kernel adds them after that message, DHCP or a script
 * later still): what was not reachable then may be now. Events come in bursts. */
void pm_routes_changed(struct mpc *c, mp_time now)
{
    withheld_look(c, now);
    race_look(c, now);
    if (may_join(c)) c->v.timer[CT_PM] = mp_min(c->v.timer[CT_PM], now + MP_MS(10));
}
