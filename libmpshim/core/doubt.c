/* A wrong DSS checksum on the only subflow: is another path about to come? (RFC 8684 3.7) */
#include "core/stack_int.h"

/* The RFC lets a connection with one subflow go on as plain TCP then, which gives the program what the box made of the
 * bytes. It need not: in the first round trips the join may be on its way, and over its path the stream arrives as it was
 * sent. So the mapping waits with its bytes, and what comes behind it counts as lost. Once a second subflow is up, this one
 * is reset (with MP_FAIL); when none has come, the connection falls back with what was kept. Neither does any harm to a peer
 * that thinks otherwise: no byte of it was given to the program or acknowledged by DATA_ACK. */
#define DOUBT_LEAST MP_MS(100) /* for our DATA_ACK to arrive there, and the join's SYN here, over a longer path perhaps */
#define DOUBT_MOST MP_MS(500)
#define DOUBT_JOIN MP_SEC(1)   /* while a join is on its way */

bool sf_doubts(const struct sf *s) { return s->v.doubted && !s->v.reset_pending && !s->c->v.rx_plain; }

static bool another_works(const struct mpc *c, const struct sf *self)
{
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (s != self && s->v.fully && !s->v.dead && !s->v.reset_pending) return true;
    return false;
}

/* Until its fourth ACK: Linux that is told MP_FAIL before the join is up falls back, and refuses it. */
static bool join_under_way(const struct mpc *c)
{
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (!s->v.initial && !s->v.fully && !s->v.dead && !s->v.mute && !s->v.reset_pending && s->v.state <= SF_ESTABLISHED) return true;
    return false;
}

static mp_time doubt_end(const struct mpc *c, const struct sf *s)
{
    if (join_under_way(c)) return s->v.doubted + DOUBT_JOIN;
    return s->v.doubted + mp_min(mp_max(3 * s->v.srtt, DOUBT_LEAST), DOUBT_MOST);
}

bool conn_doubt(struct mpc *c, struct sf *s, mp_time now)
{
    bool may_come = c->v.sf_ever == 1 && !c->v.joins_answered && !c->v.peer_twice && c->st->set.max_subflows > 1;
    if (s->v.doubted || c->v.closing || another_works(c, s) || !(may_come || join_under_way(c))) return false;
    /* Bytes behind it are taken back, which may not be done to those from behind a hole (RFC 2018 8). */
    if (s->v.draining || s->ooo.n) return false;
    st_count(c->st, MP_E_csum_awaited, 1, c);
    s->v.doubted = now;
    s->v.ack_now = true; /* a client does not join before the first DATA_ACK */
    c->v.timer[CT_DOUBT] = doubt_end(c, s);
    return true;
}

void conn_doubt_look(struct mpc *c, mp_time now)
{
    if (c->v.timer[CT_DOUBT] != MP_NEVER) c->v.timer[CT_DOUBT] = now;
}

void conn_doubt_tick(struct mpc *c, mp_time now)
{
    struct sf *s = c->sfs;
    while (s && (s->v.dead || !sf_doubts(s))) s = s->next;
    if (!s) return;
    mp_time end = doubt_end(c, s);
    if (!another_works(c, s) && now < end)
        c->v.timer[CT_DOUBT] = end;
    else
        conn_mapping_done(c, s, now); /* doubted once: it decides now */
}
