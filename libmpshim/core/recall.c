/* A server that has removed an address for silence (silence.c) calls its client back to it. Only the client opens subflows,
 * and it takes REMOVE_ADDR (RFC 8684 3.4.2) for final until an ADD_ADDR comes. Whether it takes those nobody can ask, but
 * one that has joined an address which it could know by ADD_ADDR alone does; no other client is told anything.
 *
 * The address is announced again at once. A Linux client tries it once for each ADD_ADDR: with SYNs that it repeats (after
 * 1, 2, 3, 4, 5, 7, 11 s; before 6.5: 1, 3, 7), or not at all if its route is gone at that moment. So we also ask the path, by
 * a segment on the subflow that was removed, which any TCP answers, and once something comes over it the address is removed
 * and announced anew: Linux passes an ADD_ADDR over while it has a SYN out to that address. Where nobody answers such
 * segments (a firewall that has seen the FIN), the same is done ever more seldom.
 *
 * Linux since 6.11 (and long-term kernels since August 2024) takes an ADD_ADDR of id 0, if it names the initial address, even
 * at its limit of accepted addresses; others count against that limit, and a REMOVE_ADDR gives them back. Older ones never
 * return to the initial address, under whatever id. */
#include "core/stack_int.h"

enum { MOST = 10 };
#define GAP MP_MS(100)      /* Linux handles what it finds together in another order: ADD_ADDR before REMOVE_ADDR */
#define JOINING MP_MS(500)  /* so long a client that was told may take until its join is here */
#define AGAIN MP_SEC(8)     /* doubled each time */
#define ASK MP_MS(300)

/* Another path may be slower, and the REMOVE_ADDR that goes over it must not come after what is announced over a fast one. */
static mp_dur gap(const struct mpc *c)
{
    mp_dur d = GAP;
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (sf_can_carry(s) && !s->v.stale) d = mp_max(d, s->v.srtt);
    return mp_min(d, MP_SEC(1));
}

bool recall_possible(const struct mpc *c, const struct sf *s)
{
    if (!c->v.takes_addrs || s->v.addr_id_local == PM_NO_ID) return false;
    return s->v.addr_id_local || !c->st->set.no_join_initial; /* RFC 8684 3.1: our flag C forbids it to come back there */
}

static void look_at(struct mpc *c, struct pm_announce *a, mp_time when)
{
    a->recall_at = when;
    c->v.timer[CT_RECALL] = mp_min(c->v.timer[CT_RECALL], when);
}

static void remove_again(struct mpc *c, struct pm_announce *a, mp_time now)
{
    pm_tell_removed(c, a->id);
    a->pending = false;
    a->echoed = a->removed = true;
    a->recalls++;
    look_at(c, a, now + gap(c));
}

void recall_begin(struct sf *s, mp_time now)
{
    struct mpc *c = s->c;
    struct pm_announce *a = pm_announce_of(c, s->v.addr_id_local);
    s->v.stale = true;
    s->v.removed_at = now;
    sf_arm(s, SFT_ASK, now + ASK);
    conn_reinject(c, s, now);
    if (!a) {
        pm_tell_removed(c, s->v.addr_id_local);
        return;
    }
    *a = (struct pm_announce){ .id = s->v.addr_id_local, .at = { s->v.local.ip, 0 }, .tries = 1 };
    remove_again(c, a, now);
}

/* SFT_ASK: at first twice in the time that a path may take to be in use again, ever more seldom when it stays away. */
void recall_ask(struct sf *s, mp_time now)
{
    if (!s->v.silent) return;
    s->v.probes = 1; /* one segment below the window, RFC 9293 3.8.4 */
    sf_arm(s, SFT_ASK, now + mp_min(mp_max(ASK, (now - s->v.removed_at) / 16), MP_SEC(60)));
}

static bool joined(const struct mpc *c, const struct pm_announce *a)
{
    for (const struct sf *s = c->sfs; s; s = s->next) {
        if (s->v.dead || s->v.silent || s->v.reset_pending || !mp_addr_eq(&s->v.local.ip, &a->at.ip)) continue;
        if (s->v.state >= SF_SYN_RCVD && s->v.state <= SF_CLOSE_WAIT) return true;
    }
    return false;
}

static void step(struct mpc *c, struct pm_announce *a, mp_time now)
{
    if (a->removed) {
        a->removed = false;
        a->told_at = now;
        pm_announce_now(c, a, now);
        look_at(c, a, now + mp_min(AGAIN << (a->recalls - 1), MP_SEC(60)));
    } else if (joined(c, a))
        look_at(c, a, now + JOINING); /* a half-open one may fail yet: recall_joined() ends it */
    else if (a->recalls < MOST)
        remove_again(c, a, now);
    else
        a->recalls = 0;
}

/* CT_RECALL */
void recall_tick(struct mpc *c, mp_time now)
{
    if (!conn_mp(c) || c->v.fb != FB_CONFIRMED || c->v.closing) return;
    for (int i = 0; i < PM_MAX_REMOTE; i++) {
        struct pm_announce *a = &c->v.announce[i];
        if (a->recalls && a->recall_at <= now) step(c, a, now);
        if (a->recalls) c->v.timer[CT_RECALL] = mp_min(c->v.timer[CT_RECALL], a->recall_at);
    }
}

/* The path of a subflow that was removed lives; who removed the address closes it. */
static void close_removed(struct sf *s, mp_time now)
{
    silence_answered(s->c, now - s->v.removed_at);
    s->v.silent = false;
    sf_abort(s, MP_RST_PERFORMANCE, true, now);
}

/* Something came over s. What it brings is repeated elsewhere. */
void recall_heard(struct sf *s, mp_time now)
{
    struct mpc *c = s->c;
    if (!s->v.silent || !c->v.server) return;
    struct pm_announce *a = pm_announce_of(c, s->v.addr_id_local);
    if (a && a->at.ip.family && a->recalls && !a->removed) {
        a->recalls = 1; /* in patience too, it begins anew */
        look_at(c, a, mp_max(now, a->told_at + JOINING));
    }
    close_removed(s, now);
}

/* A join is up. Does it come to where an ADD_ADDR has called it? */
void recall_joined(struct sf *s, mp_time now)
{
    struct mpc *c = s->c;
    if (!c->v.server || s->v.initial) return;
    for (int i = 0; i < PM_MAX_REMOTE; i++) {
        struct pm_announce *a = &c->v.announce[i];
        if (!mp_addr_eq(&a->at.ip, &s->v.local.ip)) continue;
        c->v.takes_addrs |= a->id != 0;
        if (a->recalls) st_count(c->st, MP_E_address_recalled, 1, c);
        a->recalls = 0;
    }
    for (struct sf *o = c->sfs; o; o = o->next)
        if (o != s && !o->v.dead && o->v.silent && mp_addr_eq(&o->v.local.ip, &s->v.local.ip)) close_removed(o, now);
}
