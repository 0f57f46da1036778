/* Routing has changed under a connection, and sends a subflow's packets another way now: a VPN came up, and its policy rule
 * with it. Nothing may leave beside that; io/ drops what such a subflow would say. The connection goes on over what is
 * allowed, most of all by a join through the tunnel, where the peer hears by REMOVE_ADDR (RFC 8684 3.4.2) that the old
 * address leads nowhere. Where that cannot be (plain TCP, a server, a peer that is not behind the tunnel), it waits as the
 * kernel's TCP does, and goes on if the VPN goes before its time-outs. */
#include "core/stack_int.h"

#include <errno.h>

static void withhold(struct mpc *c, struct sf *s, mp_time now)
{
    st_count(c->st, MP_E_subflow_withheld, 1, c);
    if (s->v.initial && !c->v.established)
        race_hurry(c, now); /* its SYN waits; another path's may go */
    else if (conn_mp(c) && s->v.state >= SF_ESTABLISHED) /* a join too that waits for its fourth ACK: the peer has it up already */
        pm_set_aside(c, s, now);
    else if (conn_mp(c))
        sf_die(s, ENETDOWN, now);
}

/* The peer may have ended it meanwhile; with another one working, a fresh one is faster than finding out. */
static void release(struct mpc *c, struct sf *s, mp_time now)
{
    if (conn_mp(c) && !c->v.server && s->v.aside && conn_any_other(c, s))
        sf_abort(s, MP_RST_PERFORMANCE, true, now);
    else
        pm_kick(s, now);
    pm_withdraw_removal(c, s->v.addr_id_local);
}

/* A peer that is told of the address ends every subflow over it. */
static bool address_in_use(const struct mpc *c, uint8_t id)
{
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (sf_can_carry(s) && !s->v.withheld && s->v.addr_id_local == id) return true;
    return false;
}

void withheld_look(struct mpc *c, mp_time now)
{
    const struct mp_stack_ops *ops = &c->st->ops;
    for (struct sf *s = c->sfs; s && ops->withheld; s = s->next) {
        if (s->v.dead || !s->flow || s->v.withheld == ops->withheld(c->st->arg, s->flow, c->v.mark)) continue;
        s->v.withheld = !s->v.withheld;
        if (s->v.mute || s->v.state == SF_TIME_WAIT) continue;
        if (s->v.withheld)
            withhold(c, s, now);
        else
            release(c, s, now);
    }
    for (struct sf *s = c->sfs; s; s = s->next)
        if (s->v.withheld && s->v.aside && !address_in_use(c, s->v.addr_id_local)) pm_tell_removed(c, s->v.addr_id_local);
}
