/* Both ends' addresses (RFC 8684 3.4): numbered, announced, learned, gone, left. */
#include "core/stack_int.h"

#include <errno.h>

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

/* An echo takes a round trip. Soon again the first time: the only path may be dead when a second has passed, and then nobody
 * tells of another one. */
static mp_dur echo_wait(const struct mpc *c)
{
    mp_dur srtt = c->sfs ? c->sfs->v.srtt : 0;
    return srtt ? mp_min(2 * srtt + MP_MS(10), MP_SEC(1)) : MP_SEC(1);
}

/* Over the only path an address is told twice within the first round trip: where that is lost and the path dies before it is
 * time to tell it again, the peer knows of no other. */
static mp_dur copy_wait(const struct mpc *c)
{
    return conn_nlive(c) == 1 && c->sfs->v.srtt ? mp_min(c->sfs->v.srtt / 4, MP_MS(100)) : 0;
}

void pm_announce_now(struct mpc *c, struct pm_announce *a, mp_time now)
{
    mp_dur copy = copy_wait(c);
    a->pending = true;
    a->echoed = a->told = false;
    a->copied = !copy;
    a->tries = 1;
    a->due = now + (copy ? copy : echo_wait(c));
    c->v.timer[CT_ADD_ADDR] = mp_min(c->v.timer[CT_ADD_ADDR], a->due);
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

void pm_announce_all(struct mpc *c, mp_time now)
{
    for (int i = 0; i < c->st->nlocal; i++) announce(c, &c->st->local[i]);
    announce_next(c, now);
}

static void announce_again(struct mpc *c, struct pm_announce *a, mp_time now)
{
    a->pending = true;
    if (a->copied) a->due = now + (MP_SEC(1) << a->tries++);
    else a->due = now + echo_wait(c);
    a->copied = true;
}

/* No echo: again, five times; meanwhile the next ones have their turn (an unreachable one must not hold them up). */
void pm_tick_add_addr(struct mpc *c, mp_time now)
{
    bool waits = announce_waits(c);
    if (!conn_mp(c) || c->v.closing) return;
    c->v.timer[CT_ADD_ADDR] = MP_NEVER;
    for (int i = 0; i < PM_MAX_REMOTE; i++) {
        struct pm_announce *a = &c->v.announce[i];
        if (!a->at.ip.family || a->echoed || !a->tries || a->tries >= 5) continue;
        if (a->due <= now) {
            waits &= !a->copied;
            announce_again(c, a, now);
        }
        if (a->tries < 5) c->v.timer[CT_ADD_ADDR] = mp_min(c->v.timer[CT_ADD_ADDR], a->due);
    }
    if (!waits) announce_next(c, now);
}

bool pm_control_pending(const struct mpc *c)
{
    if (c->v.necho) return true;
    for (int i = 0; i < PM_MAX_REMOTE; i++)
        if (c->v.announce[i].pending) return true;
    return false;
}

/* ---- the peer's addresses ---- */

/* Announced: it may be tried, also once more (RFC 8684 3.4.1). An address that the peer had taken back and that is there again,
 * at once: what failed on the way to it has nothing to say any more. */
static void forget_failures(struct mpc *c, const struct mp_endpoint *at, bool returned)
{
    for (int i = 0; i < c->v.nretry; i++) {
        if (!mp_endpoint_eq(&c->retry[i].remote, at)) continue;
        c->retry[i].vain = false;
        if (returned) c->retry[i].not_before = 0;
    }
}

static void learn(struct mpc *c, const struct mp_opt_add_addr *a)
{
    struct pm_remote *free = NULL;
    struct mp_endpoint at = { a->ip, a->port ? a->port : c->v.remote.port };
    for (int i = 1; i < PM_MAX_REMOTE; i++) {
        struct pm_remote *r = &c->v.remotes[i];
        if (r->used && (r->id == a->addr_id || mp_endpoint_eq(&r->at, &at))) {
            forget_failures(c, &at, false);
            *r = (struct pm_remote){ a->addr_id, true, at, r->answered && mp_endpoint_eq(&r->at, &at) };
            return;
        }
        if (!r->used && (!free || mp_endpoint_eq(&r->at, &at))) free = r;
    }
    if (mp_endpoint_eq(&c->v.remote, &at)) free = &c->v.remotes[0];
    else if (!a->addr_id) return; /* RFC 8684 3.2: the initial subflow's address has the id 0, no other one */
    if (!free) return;
    forget_failures(c, &at, !free->used);
    *free = (struct pm_remote){ a->addr_id, true, at, free->answered && mp_endpoint_eq(&free->at, &at) };
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

/* A path is back: whatever waited for a timer goes now. A handshake begins anew, as what was sent without a link says nothing about
 * the peer; in its first minute only, or a link that comes and goes would keep it for ever. */
void pm_kick(struct sf *s, mp_time now)
{
    s->v.backoff = s->v.reverts = s->v.persists = 0;
    bool opening = s->v.state == SF_SYN_SENT || s->v.state == SF_SYN_RCVD || !s->v.join_done;
    if (opening && now - s->v.created < MP_SEC(60)) s->v.syn_tries = 0;
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
            c->retry[i].barred = c->retry[i].vain = false;
        }
    pm_vain_over(c, now);
    pm_withdraw_removal(c, pm_local_id(c, &l->ip));
    announce(c, l);
    if (!announce_waits(c)) announce_next(c, now);
    pm_run(c, now);
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
        else if (s->v.state != SF_SYN_RCVD) /* else its peer's reset may still say that it never was (sf_in_rst.c) */
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

static struct mp_addr *barred(struct mpc *c, const struct mp_addr *ip)
{
    for (int i = 0; i < PM_MAX_LOCAL; i++)
        if (mp_addr_eq(&c->v.barred[i], ip)) return &c->v.barred[i];
    return NULL;
}
bool pm_is_barred(struct mpc *c, const struct mp_addr *ip) { return barred(c, ip) != NULL; }


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
