/* Path management (RFC 8684 3.4, RFC 6182 3.5): one subflow for each usable interface and reachable peer address. */
#include "core/stack_int.h"

#include <errno.h>
#include <stdlib.h>

#include "core/crypto.h"

/* ---- address ids ---- */

static bool address_in_use(const struct mpc *c, const struct mp_addr *ip)
{
    for (int i = 0; i < c->st->nlocal; i++)
        if (mp_addr_eq(&c->st->local[i].ip, ip)) return true;
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (!s->v.dead && mp_addr_eq(&s->v.local.ip, ip)) return true;
    for (int i = 0; i < PM_MAX_REMOTE; i++)
        if (mp_addr_eq(&c->v.announce[i].at.ip, ip)) return true;
    return false;
}

/* The address of the first subflow is 0, whatever a list calls it; others get the next free number and keep it. A host that
 * roams for weeks has had more addresses than there are numbers: then one that is gone leaves its own to the new one. */
uint8_t pm_local_id(struct mpc *c, const struct mp_addr *ip)
{
    if (mp_addr_eq(ip, &c->v.local.ip)) return 0;
    int i = 0;
    while (i < PM_MAX_LOCAL && c->v.id_map[i].family && !mp_addr_eq(&c->v.id_map[i], ip)) i++;
    if (i == PM_MAX_LOCAL) {
        i = 0;
        while (i < PM_MAX_LOCAL && address_in_use(c, &c->v.id_map[i])) i++;
        if (i == PM_MAX_LOCAL) return PM_NO_ID;
        pm_withdraw_removal(c, (uint8_t)(i + 1));
    }
    c->v.id_map[i] = *ip;
    return (uint8_t)(i + 1);
}

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

static struct mp_addr *barred(struct mpc *c, const struct mp_addr *ip)
{
    for (int i = 0; i < PM_MAX_LOCAL; i++)
        if (mp_addr_eq(&c->v.barred[i], ip)) return &c->v.barred[i];
    return NULL;
}
bool pm_is_barred(struct mpc *c, const struct mp_addr *ip) { return barred(c, ip) != NULL; }

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
    *when = !t ? 0 : t->barred && conn_nlive(c) ? MP_NEVER : t->not_before;
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

void pm_sf_failed(struct mpc *c, struct sf *s, bool was_up, mp_time now)
{
    if (c->v.server || s->v.passive) return;
    struct pm_retry *t = retry_of(c, &s->v.local.ip, s->v.ifindex, &s->v.remote);
    if (!t) return;
    /* The path itself is the matter: again soon, once, for some boxes act once; then seldom. */
    if (s->v.reset_reason == MP_RST_MIDDLEBOX) t->fails = 2 * t->fails + 2;
    else t->fails = was_up ? 1 : t->fails + 1;
    t->up |= was_up;
    t->spoils |= was_up && s->v.reset_reason == MP_RST_MIDDLEBOX;
    t->silent = was_up && s->v.silent;
    t->barred |= s->v.barred;
    t->not_before = now + mp_min(MP_MS(100) << mp_min((uint64_t)t->fails, 10), MP_SEC(60));
    if (!conn_nlive(c)) t->not_before = now; /* nothing else is left */
    if (!conn_nlive(c) && !was_up && t->fails > 1) t->not_before = now + MP_SEC(1);
    if (!conn_nsync(c)) hurry(c, now);
    if (c->v.barren > 3) t->not_before = now + mp_min(MP_MS(100) << mp_min((uint64_t)c->v.barren, 10), MP_SEC(10));
    c->v.timer[CT_PM] = mp_min(c->v.timer[CT_PM], t->not_before);
}

/* ---- announcing ---- */

struct pm_announce *pm_announce_of(struct mpc *c, uint8_t id)
{
    struct pm_announce *free = NULL;
    for (int i = 0; i < PM_MAX_REMOTE; i++) {
        struct pm_announce *a = &c->v.announce[i];
        if (a->at.ip.family && a->id == id) return a;
        if (!a->at.ip.family && !free) free = a;
    }
    return free;
}

void pm_announce_now(struct mpc *c, struct pm_announce *a, mp_time now)
{
    a->pending = true;
    a->echoed = false;
    a->tries = 1;
    c->v.timer[CT_ADD_ADDR] = mp_min(c->v.timer[CT_ADD_ADDR], now + MP_SEC(1));
}

/* One at a time, the next after the echo: the kernel drops what arrives while it handles one. The first subflow's family
 * goes first, for that is the address that a host without the other family can use. */
static void announce_next(struct mpc *c, mp_time now)
{
    struct pm_announce *best = NULL;
    for (int i = 0; i < PM_MAX_REMOTE; i++) {
        struct pm_announce *a = &c->v.announce[i];
        if (!a->at.ip.family || a->tries) continue;
        if (!best || (a->at.ip.family == c->v.local.ip.family && best->at.ip.family != a->at.ip.family)) best = a;
    }
    if (!best) return;
    pm_announce_now(c, best, now);
}

static bool announce_waits(const struct mpc *c)
{
    for (int i = 0; i < PM_MAX_REMOTE; i++)
        if (c->v.announce[i].at.ip.family && c->v.announce[i].tries == 1 && !c->v.announce[i].echoed) return true;
    return false;
}

static void announce(struct mpc *c, const struct mp_local *l)
{
    bool known = mp_addr_eq(&l->ip, &c->v.local.ip) && !c->v.initial_removed;
    if (!c->v.server || !l->announce || known || pm_is_barred(c, &l->ip)) return;
    if (!(c->v.families & (l->ip.family == 4 ? 1 : 2))) return; /* nobody listens there: the kernel would refuse */
    uint8_t id = pm_local_id(c, &l->ip);
    struct pm_announce *a = pm_announce_of(c, id);
    if (a) *a = (struct pm_announce){ .id = id, .at = { l->ip, 0 } };
}

static void announce_all(struct mpc *c, mp_time now)
{
    for (int i = 0; i < c->st->nlocal; i++) announce(c, &c->st->local[i]);
    announce_next(c, now);
}

/* No echo: again, five times; meanwhile the next ones have their turn (an unreachable one must not hold them up). */
void pm_tick_add_addr(struct mpc *c, mp_time now)
{
    mp_time again = MP_NEVER;
    if (!conn_mp(c) || c->v.closing) return;
    for (int i = 0; i < PM_MAX_REMOTE; i++) {
        struct pm_announce *a = &c->v.announce[i];
        if (!a->at.ip.family || a->echoed || !a->tries || a->tries >= 5) continue;
        a->pending = true;
        a->tries++;
        again = mp_min(again, now + (MP_SEC(1) << a->tries));
    }
    c->v.timer[CT_ADD_ADDR] = again;
    announce_next(c, now);
}

bool pm_control_pending(const struct mpc *c)
{
    if (c->v.necho) return true;
    for (int i = 0; i < PM_MAX_REMOTE; i++)
        if (c->v.announce[i].pending) return true;
    return false;
}

void pm_ready(struct mpc *c, mp_time now)
{
    if (c->v.server)
        announce_all(c, now);
    else
        pm_run(c, now);
}

/* ---- the peer's addresses ---- */

/* An address that the peer had taken back is there again: what failed on the way to it has nothing to say any more. */
static void forget_failures(struct mpc *c, const struct mp_endpoint *at)
{
    for (int i = 0; i < c->v.nretry; i++)
        if (mp_endpoint_eq(&c->retry[i].remote, at)) c->retry[i].not_before = 0;
}

static void learn(struct mpc *c, const struct mp_opt_add_addr *a)
{
    struct pm_remote *free = NULL;
    struct mp_endpoint at = { a->ip, a->port ? a->port : c->v.remote.port };
    for (int i = 1; i < PM_MAX_REMOTE; i++) {
        struct pm_remote *r = &c->v.remotes[i];
        if (r->used && (r->id == a->addr_id || mp_endpoint_eq(&r->at, &at))) {
            r->id = a->addr_id;
            r->at = at;
            return;
        }
        if (!r->used && !free) free = r;
    }
    if (mp_endpoint_eq(&c->v.remote, &at)) free = &c->v.remotes[0];
    else if (!a->addr_id) return; /* RFC 8684 3.2: the initial subflow's address has the id 0, no other one */
    if (!free) return;
    if (!free->used) forget_failures(c, &at);
    *free = (struct pm_remote){ a->addr_id, true, at };
}

void pm_add_addr_in(struct mpc *c, const struct mp_opt_add_addr *a, mp_time now)
{
    if (!c->v.peer_key_known) return;
    if (a->echo) {
        st_count(c->st, MP_E_add_addr_echo_in, 1, c);
        for (int i = 0; i < PM_MAX_REMOTE; i++)
            if (c->v.announce[i].at.ip.family && c->v.announce[i].id == a->addr_id) c->v.announce[i].echoed = true;
        if (!announce_waits(c)) announce_next(c, now);
        return;
    }
    if (a->v0 != !c->v.version) {
        st_count(c->st, MP_E_add_addr_hmac_bad, 1, c);
        return;
    }
    if (!a->v0 && mp_add_addr_hmac(c->v.key_remote, c->v.key_local, a->addr_id, &a->ip, a->port) != a->hmac) {
        st_count(c->st, MP_E_add_addr_hmac_bad, 1, c);
        return;
    }
    st_count(c->st, MP_E_add_addr_in, 1, c);
    if (!a->v0 && c->v.necho < (int)(sizeof c->v.echo / sizeof *c->v.echo)) {
        c->v.echo[c->v.necho].id = a->addr_id;
        c->v.echo[c->v.necho].ip = a->ip;
        c->v.echo[c->v.necho++].port = a->port;
    }
    learn(c, a);
    pm_run(c, now);
}

/* ---- own addresses ---- */

/* A path is back: whatever waited for a timer goes now. A SYN begins anew, as what was sent without a link says nothing about
 * the peer; in its first minute only, or a link that comes and goes would keep it for ever. */
void pm_kick(struct sf *s, mp_time now)
{
    s->v.backoff = s->v.persists = 0;
    if (s->v.state == SF_SYN_SENT && now - s->v.created < MP_SEC(60)) s->v.syn_tries = 0;
    if (s->v.aside) s->v.probes = 1; /* has the peer given it up meanwhile? */
    if (s->v.send_capable_ack && s->c->v.fb == FB_UNCONFIRMED) s->v.ack_now = true; /* the server may wait for its third ACK */
    if (s->seg_head) sf_arm(s, SFT_REXMIT, now);
    if (s->v.timer[SFT_PERSIST] != MP_NEVER) sf_arm(s, SFT_PERSIST, now);
}

static void tell_removed(struct sf *s, uint8_t id)
{
    if (s->v.addr_id_local == id || s->v.nrm == (int)sizeof s->v.rm_ids) return;
    for (int i = 0; i < s->v.nrm; i++)
        if (s->v.rm_ids[i] == id) return;
    s->v.rm_ids[s->v.nrm++] = id;
}

/* RFC 8684 3.4.2: told over every subflow but those it removes; it has no acknowledgment of its own. */
void pm_tell_removed(struct mpc *c, uint8_t id)
{
    c->v.initial_removed |= id == 0; /* its return is announced, as any other address's */
    for (struct sf *s = c->sfs; s; s = s->next)
        if (sf_can_carry(s)) tell_removed(s, id);
}

/* When they were set aside there was nothing to tell it over. */
void pm_tell_aside(struct mpc *c, struct sf *s)
{
    for (const struct sf *o = c->sfs; o; o = o->next)
        if (o != s && !o->v.dead && o->v.aside) tell_removed(s, o->v.addr_id_local);
}

void pm_withdraw_removal(struct mpc *c, uint8_t id)
{
    for (struct sf *s = c->sfs; s; s = s->next)
        for (int i = s->v.nrm - 1; i >= 0; i--)
            if (s->v.rm_ids[i] == id) s->v.rm_ids[i] = s->v.rm_ids[--s->v.nrm];
}

void pm_local_added(struct mpc *c, const struct mp_local *l, mp_time now)
{
    if (pm_is_barred(c, &l->ip)) return;
    for (struct sf *s = c->sfs; s; s = s->next)
        if (!s->v.dead && s->v.ifindex == l->ifindex && mp_addr_eq(&s->v.local.ip, &l->ip)) {
            /* Back: a subflow that was set aside has lost its window and perhaps its peer; with another one working, a
             * fresh one is faster than waiting for the old one's retransmissions, ours or the peer's. */
            if (s->v.aside && !c->v.server && conn_any_other(c, s))
                sf_abort(s, MP_RST_PERFORMANCE, true, now);
            else if (s->v.backoff || s->v.persists || s->v.aside)
                pm_kick(s, now);
            s->v.prio_now |= s->v.backup_local != l->backup;
            s->v.backup_local = l->backup;
        }
    race_look(c, now);
    if (!conn_mp(c) || c->v.fb != FB_CONFIRMED) return;
    for (int i = 0; i < c->v.nretry; i++)
        if (c->retry[i].ifindex == l->ifindex) {
            c->retry[i].not_before = 0;
            c->retry[i].barred = false;
        }
    pm_withdraw_removal(c, pm_local_id(c, &l->ip));
    announce(c, l);
    if (!announce_waits(c)) announce_next(c, now);
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

/* Not ended: the peer may at the same time lose another path and keep just this one. Its data goes elsewhere, it is
 * probed when the link returns, and given up only when that takes long. */
void pm_set_aside(struct mpc *c, struct sf *s, mp_time now)
{
    s->v.aside = s->v.stale = true;
    sf_arm(s, SFT_TIME_WAIT, mp_min(s->v.timer[SFT_TIME_WAIT], now + MP_SEC(2 * c->st->set.orphan_s))); /* closing already: sooner */
    if (conn_any_other(c, s)) conn_reinject(c, s, now); /* else when one comes up: conn_sf_established */
}

void pm_local_removed(struct mpc *c, int ifindex, const struct mp_addr *ip, mp_time now)
{
    bool aside = false;
    if (!conn_mp(c)) return; /* plain TCP waits for the link, as the kernel's does */
    for (struct sf *s = c->sfs; s; s = s->next) {
        if (s->v.dead || s->v.ifindex != ifindex || !mp_addr_eq(&s->v.local.ip, ip)) continue;
        if (s->v.initial && !c->v.established) { /* its SYN goes on trying */
            race_hurry(c, now);
            continue;
        }
        st_count(c->st, MP_E_subflow_link_down, 1, c);
        aside = true;
        if (s->v.join_done)
            pm_set_aside(c, s, now);
        else
            sf_die(s, ENETDOWN, now);
    }
    if (aside) pm_tell_removed(c, pm_local_id(c, ip));
    for (int i = 0; i < PM_MAX_REMOTE; i++) {
        struct pm_announce *a = &c->v.announce[i];
        if (!a->at.ip.family || !mp_addr_eq(&a->at.ip, ip)) continue;
        if (!aside) pm_tell_removed(c, a->id);
        memset(a, 0, sizeof *a);
    }
}

/* ---- the owner's wish ---- */

static const struct mp_local *local_of(const struct mp_stack *st, const struct mp_addr *ip)
{
    for (int i = 0; i < st->nlocal; i++)
        if (mp_addr_eq(&st->local[i].ip, ip)) return &st->local[i];
    return NULL;
}

static bool carried_elsewhere(const struct mpc *c, const struct mp_addr *ip)
{
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (sf_can_carry(s) && !s->v.aside && !mp_addr_eq(&s->v.local.ip, ip)) return true;
    return false;
}

/* RFC 8684 3.4.2 and 3.6: the peer forgets the address; its subflows end with the reason that fits. */
static void leave_local(struct mpc *c, const struct mp_addr *ip, mp_time now)
{
    pm_tell_removed(c, pm_local_id(c, ip));
    for (struct sf *s = c->sfs; s; s = s->next)
        if (!s->v.dead && mp_addr_eq(&s->v.local.ip, ip)) sf_abort(s, MP_RST_PROHIBITED, false, now);
    for (int i = 0; i < PM_MAX_REMOTE; i++)
        if (mp_addr_eq(&c->v.announce[i].at.ip, ip)) memset(&c->v.announce[i], 0, sizeof c->v.announce[i]);
}

int mpc_use_local(struct mpc *c, const struct mp_addr *ip, bool use, mp_time now)
{
    static const struct mp_addr none;
    const struct mp_local *l = local_of(c->st, ip);
    struct mp_addr *b = barred(c, ip);
    if (!conn_mp(c)) return -EOPNOTSUPP;
    if (!l) return -EADDRNOTAVAIL;
    if (use) {
        if (b) *b = none;
        pm_local_added(c, l, now);
    } else if (!b) {
        if (!carried_elsewhere(c, ip)) return -EBUSY;
        b = barred(c, &none);
        if (!b) return -ENOSPC;
        *b = *ip;
        leave_local(c, ip, now);
    }
    conn_touch(c);
    return 0;
}
