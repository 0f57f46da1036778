/* Passive opening: SYNs of new connections and of joins, and what floods of them may cost. */
#include "core/stack_int.h"

#include <errno.h>

struct listener *st_listener_for(struct mp_stack *st, const struct mp_endpoint *to)
{
    struct listener *any = NULL;
    for (struct listener *l = st->listeners; l; l = l->next) {
        if (l->at.port != to->port) continue;
        if (l->at.ip.family && mp_addr_eq(&l->at.ip, &to->ip)) return l;
        if (!l->at.ip.family && (l->families & (to->ip.family == 4 ? 1u : 2u))) any = l;
    }
    return any;
}

/* Joins without their third ACK: how many, and one of them at random. */
static struct sf *half_open_join(struct mpc *c, int *n)
{
    struct sf *pick = NULL;
    for (struct sf *s = c->sfs; s; s = s->next) {
        if (s->v.dead || s->v.initial || !s->v.passive || s->v.state != SF_SYN_RCVD) continue;
        if (++*n == 1 || st_rand32(c->st) % (uint32_t)*n == 0) pick = s;
    }
    return pick;
}

static void join_in(struct mp_stack *st, struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    st_count(st, MP_E_join_syn_in, 1, NULL);
    struct mpc *c = st_token_find(st, o->join.token);
    /* A connection that fell back while the peer's join was on its way: Linux takes a reset of the join for one of the
     * connection (ECONNREFUSED where the data is whole); it gives the join up by itself. */
    if (c && !conn_mp(c)) {
        st_count(st, MP_E_join_refused, 1, c);
        return;
    }
    if (!c && half_has_token(st, o->join.token)) { /* sooner than the third ACK: RFC 8684 3.2 wants that first */
        st_count(st, MP_E_join_refused, 1, NULL);
        st_stray_rst(st, p, MP_RST_PROHIBITED);
        return;
    }
    if (!c && st->join_elsewhere) return;
    if (!c) { /* RFC 8684 3.2: unknown token: RST */
        st_count(st, MP_E_join_token_unknown, 1, NULL);
        st_stray_rst(st, p, MP_RST_MPTCP);
        return;
    }
    int half = 0;
    bool full = conn_nlive(c) >= (int)st->set.max_subflows;
    struct sf *victim = half_open_join(c, &half);
    if (!c->v.peer_key_known || c->v.fb == FB_OFFERED || c->v.closing || (full && !half) || pm_is_barred(c, &p->dst.ip)) {
        st_count(st, MP_E_join_refused, 1, c);
        st_stray_rst(st, p, MP_RST_PROHIBITED);
        return;
    }
    if (full) { /* whoever knows a token may fill these, and must not keep the peer's own join out */
        st_count(st, MP_E_join_dropped, 1, c);
        sf_die(victim, ECONNABORTED, now);
    }
    struct sf *s = st_sf_make(c, p->ifindex, &p->dst, &p->src, true, now);
    if (!s) return;
    s->v.addr_id_remote = o->join.addr_id;
    s->v.addr_id_local = pm_local_id(c, &p->dst.ip);
    s->v.backup_remote = o->join.backup;
    s->v.nonce_remote = o->join.nonce;
    s->v.nonce_local = st_rand32(st);
    c->v.joins_answered++;
    sf_accept_syn(s, p, o, now);
    conn_touch(c);
}

/* Flag B asks for what nobody has defined; flag H is HMAC-SHA256, in version 0 HMAC-SHA1. */
bool st_offer_ok(const struct mp_opts *o)
{
    return (o->mp & MP_OPT_HAS(MP_CAPABLE)) && !o->capable.bflag && o->capable.hmac_sha256;
}

/* key: told in a SYN/ACK already; NULL: to be drawn. */
static void offer_in(struct mpc *c, const struct mp_opts *o, const uint64_t *key)
{
    const struct mp_opt_capable *m = &o->capable;
    if (!(o->mp & MP_OPT_HAS(MP_CAPABLE))) {
        c->v.why = MP_WHY_NO_OPTION_SYNACK;
        return;
    }
    if (!st_offer_ok(o)) {
        st_count(c->st, MP_E_capable_version, 1, c);
        c->v.why = MP_WHY_VERSION;
        return;
    }
    /* RFC 8684 3.1: a lower version is answered with itself, a higher one with ours, and the client decides. */
    c->v.version = m->version ? 1 : 0;
    if (key && !conn_use_key(c, *key)) return; /* its token is another connection's: as if the option were lost, RFC 8684 3.7 */
    st_count(c->st, MP_E_capable_syn_in, 1, c);
    c->v.offered = true;
    c->v.fb = FB_OFFERED;
    c->v.why = MP_WHY_PENDING;
    c->v.csum = m->csum_req || c->st->set.checksum;
    c->v.no_join_initial = c->v.version && m->no_join_initial;
    if (!key) conn_new_keys(c);
    if (!c->v.version) conn_set_peer_key(c, m->key_snd); /* RFC 6824 3.1: in the SYN already */
}

bool st_may_open(struct mp_stack *st, const struct listener *l)
{
    bool full = mem_is_full(st), crowded = !full && l && st->ops.crowded && st->ops.crowded(st->arg, l->owner);
    if (full || crowded) st_count(st, full ? MP_E_memory_refused : MP_E_backlog_full, 1, NULL);
    return !full && !crowded;
}

struct sf *st_passive_open(struct mp_stack *st, const struct mp_pkt *p, const struct mp_opts *o, const uint64_t *key, mp_time now)
{
    struct listener *l = st_listener_for(st, &p->dst);
    struct mpc *c = l ? conn_new(st, true, now) : NULL;
    if (!c) return NULL;
    c->owner = l->owner;
    c->v.families = l->at.ip.family ? 0 : (uint8_t)l->families;
    c->v.local = p->dst;
    c->v.remote = p->src;
    c->v.tos = l->tos;
    c->v.ttl = l->ttl;
    c->v.mark = l->mark;
    c->v.priority = l->priority;
    c->v.fb = FB_PLAIN;
    offer_in(c, o, key);
    struct sf *s = st_sf_make(c, p->ifindex, &p->dst, &p->src, true, now);
    if (!s) {
        conn_free(c);
        return NULL;
    }
    s->v.initial = true;
    c->v.remotes[0] = (struct pm_remote){ .id = 0, .used = true, .at = p->src };
    st_count(st, MP_E_syn_in, 1, c);
    l->pending++;
    sf_accept_syn(s, p, o, now);
    if (st->follows) isn_follow(s, st->follow_end);
    conn_touch(c);
    return s;
}

void mp_stack_join_elsewhere(struct mp_stack *st, bool on) { st->join_elsewhere = on; }

void st_syn_in(struct mp_stack *st, struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    if (o->mp & MP_OPT_HAS(MP_JOIN)) {
        join_in(st, p, o, now);
        return;
    }
    struct listener *l = st_listener_for(st, &p->dst);
    if (!l || (st->ops.listening && !st->ops.listening(st->arg, l->owner))) {
        st_count(st, MP_E_listen_unmatched, 1, NULL);
        st_stray_rst(st, p, -1);
        return;
    }
    if (!st_may_open(st, l)) return;
    /* RFC 4987: what half-open connections may keep is bounded, and a flood of them keeps nobody out. */
    if (l->pending >= (int)mp_min(st->set.syn_backlog, (uint64_t)l->backlog * 2 + 16))
        cookie_answer(st, l, p, o, now);
    else
        half_syn(st, p, o, now);
}
