/* REMOVE_ADDR from the peer (RFC 8684 3.4.2). It bears no HMAC, so anybody on the path may say it: a subflow whose path answers
 * a keep-alive is not ended. Its data goes elsewhere at once all the same, for mostly the address is gone. */
#include "core/stack_int.h"

enum { REMOVED_PROBES = 3 };
static void ask_removed(struct sf *s, mp_time now)
{
    s->v.probes = 1;
    s->v.removed_probes++;
    sf_arm(s, SFT_REMOVED, now + s->v.rto);
}

void pm_remove_addr_in(struct mpc *c, uint8_t id, mp_time now)
{
    for (int i = 0; i < PM_MAX_REMOTE; i++)
        if (c->v.remotes[i].used && c->v.remotes[i].id == id) c->v.remotes[i].used = false;
    for (struct sf *s = c->sfs; s; s = s->next) {
        if (s->v.dead || s->v.addr_id_remote != id || s->v.timer[SFT_REMOVED] != MP_NEVER || !conn_any_other(c, s)) continue;
        if (!sf_can_carry(s)) { /* a join that is not yet one, or it is closing anyway */
            sf_abort(s, MP_RST_UNSPECIFIED, true, now);
            continue;
        }
        s->v.stale = true; /* its data goes elsewhere at once, whatever the answer */
        conn_reinject(c, s, now);
        s->v.removed_at = now;
        s->v.removed_probes = 0;
        ask_removed(s, now);
    }
}

/* SFT_REMOVED. An answer takes a round trip; what comes sooner was on its way. */
void pm_tick_removed(struct sf *s, mp_time now)
{
    if (!sf_can_carry(s)) return;
    if (s->v.last_recv >= s->v.removed_at + s->v.min_rtt) { /* its owner closes it, or thinks better of it */
        st_count(s->st, MP_E_remove_addr_alive, 1, s->c);
        if (!s->seg_head) s->v.stale = false;
    } else if (s->v.removed_probes < REMOVED_PROBES)
        ask_removed(s, now);
    else if (conn_any_other(s->c, s)) {
        s->v.silent = !s->c->v.server; /* announced again, it is knocked at as what we found silent ourselves (silence.c) */
        sf_abort(s, MP_RST_UNSPECIFIED, true, now);
    }
}
