/* What connections are opened from, by and for: local addresses, subflows, listeners. */
#include "core/stack_int.h"

#include <errno.h>
#include <stdlib.h>

/* ---- local addresses ---- */

static bool is_before(const struct mp_local *a, const struct mp_local *b)
{
    return a->ifindex != b->ifindex ? a->ifindex < b->ifindex : a->ip.family < b->ip.family;
}

/* Room for l where it belongs, -1: none. Whose turn is first, of several paths to join or to race over, must not depend on
 * which link was down last: a connection that is loaded into another stack finds the addresses in the order of that one. */
static int local_place(struct mp_stack *st, const struct mp_local *l)
{
    int i = st->nlocal;
    if (i == ST_MAX_LOCAL) return -1;
    for (; i > 0 && is_before(l, &st->local[i - 1]); i--) st->local[i] = st->local[i - 1];
    st->nlocal++;
    return i;
}

void mp_stack_local_add(struct mp_stack *st, const struct mp_local *l, mp_time now)
{
    int i = 0;
    while (i < st->nlocal && !(st->local[i].ifindex == l->ifindex && mp_addr_eq(&st->local[i].ip, &l->ip))) i++;
    if (i == st->nlocal && (i = local_place(st, l)) < 0) return;
    st->local[i] = *l;
    st->now = now;
    for (struct mpc *c = st->all; c; c = c->next) {
        pm_local_added(c, l, now);
        conn_touch(c);
    }
}

void mp_stack_local_del(struct mp_stack *st, int ifindex, const struct mp_addr *ip, mp_time now)
{
    for (int i = 0; i < st->nlocal; i++)
        if (st->local[i].ifindex == ifindex && mp_addr_eq(&st->local[i].ip, ip)) {
            memmove(&st->local[i], &st->local[i + 1], (size_t)(st->nlocal - i - 1) * sizeof st->local[0]);
            st->nlocal--;
            break;
        }
    st->now = now;
    for (struct mpc *c = st->all; c; c = c->next) {
        pm_local_removed(c, ifindex, ip, now);
        conn_touch(c);
    }
}

void mp_stack_routes_changed(struct mp_stack *st, mp_time now)
{
    st->now = now;
    for (struct mpc *c = st->all; c; c = c->next) {
        pm_routes_changed(c, now);
        conn_touch(c);
    }
}

static const char *local_name(const struct mp_stack *st, int ifindex)
{
    for (int i = 0; i < st->nlocal; i++)
        if (st->local[i].ifindex == ifindex) return st->local[i].name;
    return "";
}

bool st_has_local(const struct mp_stack *st, int ifindex, const struct mp_addr *ip)
{
    for (int i = 0; i < st->nlocal; i++)
        if (st->local[i].ifindex == ifindex && mp_addr_eq(&st->local[i].ip, ip)) return true;
    return false;
}

static bool local_backup(const struct mp_stack *st, int ifindex, const struct mp_addr *ip)
{
    for (int i = 0; i < st->nlocal; i++)
        if (st->local[i].ifindex == ifindex && mp_addr_eq(&st->local[i].ip, ip)) return st->local[i].backup;
    return false;
}

/* ---- opening ---- */

struct sf *st_sf_make(struct mpc *c, int ifindex, const struct mp_endpoint *local, const struct mp_endpoint *remote,
                          bool passive, mp_time now)
{
    struct mp_stack *st = c->st;
    void *flow = st->ops.flow_open(st->arg, ifindex, local, remote, passive);
    if (!flow) return NULL;
    struct sf *s = sf_new(st, c, local, remote, ifindex, flow, now);
    if (!s) {
        st->ops.flow_close(st->arg, flow);
        return NULL;
    }
    strncpy(s->v.ifname, local_name(st, ifindex), sizeof s->v.ifname - 1);
    s->v.backup_local = local_backup(st, ifindex, &local->ip);
    s->v.passive = passive;
    s->v.id = c->v.sf_ids++;
    struct sf **end = &c->sfs;
    while (*end) end = &(*end)->next;
    *end = s;
    st_hash_add(st, s);
    return s;
}

/* RFC 6191 and RFC 9293 3.6.1: the 4-tuple of a connection in TIME_WAIT may be used again by one with later timestamps and
 * sequence numbers, which its old segments cannot be taken for. Without it, ports would bound the rate of connections. */
static bool can_follow(const struct sf *old, mp_time now)
{
    uint32_t offset = ts_offset(old->st, &old->v.local.ip, &old->v.remote.ip); /* of the new one; the old one may have come from another stack */
    return old->v.state == SF_TIME_WAIT && old->v.ts_on && (int32_t)(ts_at(offset, now) - sf_ts(old, old->v.last_sent)) > 0;
}

/* Its place is needed; the rest of it is freed with its connection's next turn. */
static void give_way(struct mp_stack *st, struct sf *old, mp_time now)
{
    st_hash_del(st, old);
    st->ops.flow_close(st->arg, old->flow);
    old->flow = NULL;
    sf_die(old, 0, now);
    conn_touch(old->c);
}

struct sf *st_sf_open(struct mpc *c, int ifindex, const struct mp_addr *local, const struct mp_endpoint *remote, mp_time now, int *err)
{
    struct mp_stack *st = c->st;
    struct mp_endpoint l = { *local, 0 };
    *err = EADDRNOTAVAIL;
    for (int tries = 0; tries < 4; tries++) {
        l.port = st->ops.port_get(st->arg, local->family, tries >= 2);
        if (!l.port) return NULL;
        struct sf *old = st_find(st, &l, remote);
        if (old && !can_follow(old, now)) { /* the port is in use towards this very peer */
            st->ops.port_put(st->arg, local->family, l.port);
            continue;
        }
        uint32_t end = old ? isn_end(old) : 0;
        if (old) {
            st_count(st, MP_E_time_wait_reused, 1, c);
            give_way(st, old, now);
        }
        struct sf *s = st_sf_make(c, ifindex, &l, remote, false, now);
        if (s && old) isn_follow(s, end);
        if (s) return s;
        st->ops.port_put(st->arg, local->family, l.port); /* refused, or the 4-tuple is somebody's outside of the stack */
        *err = EACCES;
    }
    return NULL;
}

struct mpc *mp_stack_connect(struct mp_stack *st, const struct mp_endpoint *remote, const struct mp_addr *local, int ifindex,
                             unsigned flags, void *owner, mp_time now, int *err)
{
    st->now = now;
    *err = ENOMEM;
    struct mpc *c = conn_new(st, false, now);
    if (!c) return NULL;
    c->owner = owner;
    c->v.nodelay |= !!(flags & MP_OPEN_NODELAY);
    c->v.keepalive = !!(flags & MP_OPEN_KEEPALIVE);
    c->v.remote = *remote;
    c->v.offered = true;
    conn_new_keys(c);
    struct sf *s = st_sf_open(c, ifindex, local, remote, now, err);
    if (!s) {
        conn_free(c);
        return NULL;
    }
    s->v.initial = true;
    c->v.local = s->v.local;
    c->v.remotes[0] = (struct pm_remote){ .id = 0, .used = true, .at = *remote, .answered = true };
    sf_connect(s, now);
    race_start(c, ifindex, now);
    conn_touch(c);
    return c;
}

/* ---- listeners ---- */

#define KEEP_WITHOUT_LISTENER MP_MS(250)

/* One has come or gone: what waits at each of them. */
static void listeners_changed(struct mp_stack *st, mp_time keep_until)
{
    for (struct listener *l = st->listeners; l; l = l->next) l->pending = 0;
    half_listeners_changed(st, keep_until);
    for (struct mpc *c = st->all; c; c = c->next) {
        if (!c->v.server || c->v.established) continue;
        struct listener *l = st->listeners;
        while (l && l->owner != c->owner) l = l->next;
        if (l) l->pending++;
    }
}

int mp_stack_listen(struct mp_stack *st, const struct mp_endpoint *at, unsigned families, int backlog, void *owner)
{
    struct listener *l = calloc(1, sizeof *l);
    if (!l) return -ENOMEM;
    l->at = *at;
    l->families = families;
    l->backlog = backlog > 0 ? backlog : 128;
    l->owner = owner;
    l->next = st->listeners;
    st->listeners = l;
    listeners_changed(st, MP_NEVER);
    return 0;
}

void mp_stack_listen_setopt(struct mp_stack *st, void *owner, enum mpc_opt opt, uint64_t v)
{
    for (struct listener *l = st->listeners; l; l = l->next) {
        if (l->owner != owner) continue;
        switch (opt) {
        case MPC_TOS: l->tos = (uint8_t)v & 0xfc; break;
        case MPC_TTL: l->ttl = (uint8_t)v; break;
        case MPC_MARK: l->mark = (uint32_t)v; break;
        case MPC_PRIORITY: l->priority = (uint32_t)v; break;
        default: break;
        }
    }
}

void mp_stack_settle(struct mp_stack *st, mp_time now) { half_settle(st, now); }

void mp_stack_unlisten(struct mp_stack *st, void *owner, mp_time now)
{
    for (struct listener **p = &st->listeners; *p;) {
        struct listener *l = *p;
        if (l->owner != owner) {
            p = &l->next;
            continue;
        }
        *p = l->next;
        free(l);
    }
    for (struct mpc *c = st->all; c; c = c->next)
        if (c->owner == owner && c->v.server) { /* nobody will accept it any more */
            mpc_abort(c, now);
            mpc_release(c, 0, now);
        }
    listeners_changed(st, now + KEEP_WITHOUT_LISTENER);
}

void st_accepted(struct mpc *c)
{
    for (struct listener *l = c->st->listeners; l; l = l->next)
        if (l->owner == c->owner && l->pending > 0) {
            l->pending--;
            return;
        }
}
