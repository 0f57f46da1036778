/* A receive buffer smaller than the paths need together (RFC 6182 5.3: the sum of their rates times the longest round trip,
 * and again for recovery), and a sender that fills the window over a slow path all the same: the stream then waits for that
 * path, with the window shut, and the fast one idles. Linux is such a sender (NSDI 2012's network, 128 KB: 4.7 Mbit/s, where
 * the better path alone has 7.6). The receiver may ask it to keep the slow path as a backup (MP_PRIO, RFC 8684 3.3.8).
 *
 * It is a trial: asked when the window was filled behind a hole in most of a few round trips, kept if more comes afterwards than did
 * before, taken back if not. Our own data in the other direction goes where it went. */
#include "core/stack_int.h"

enum { HOL_NONE, HOL_TRIAL, HOL_KEPT, HOL_REFUSED };
/* In round trips of the slow path. One with the window full behind a hole counts HIT, one without takes a point off; at
 * EVIDENCE it is enough. SETTLE for what is still on its way over the slow path, then COMPARED. */
enum { HIT = 2, EVIDENCE = 6, SETTLE = 4, COMPARED = 4 };

static bool usable(const struct sf *s)
{
    return sf_can_carry(s) && !s->v.stale && s->v.min_rtt && !s->v.backup_local && !s->v.backup_remote && !s->v.backup_asked;
}

/* The slowest path, if another has half its round-trip time or less. */
static struct sf *slow_path(const struct mpc *c)
{
    struct sf *slow = NULL;
    mp_dur least = MP_NEVER;
    for (struct sf *s = c->sfs; s; s = s->next) {
        if (!usable(s)) continue;
        least = mp_min(least, s->v.min_rtt);
        if (!slow || s->v.min_rtt > slow->v.min_rtt) slow = s;
    }
    return slow && least <= slow->v.min_rtt / 2 ? slow : NULL;
}

static void ask(struct sf *s, bool backup)
{
    s->v.backup_asked = backup;
    s->v.prio_now = true;
    st_count(s->st, backup ? MP_E_hol_asked : MP_E_hol_taken_back, 1, s->c);
}

static void take_back(struct mpc *c, int state)
{
    for (struct sf *s = c->sfs; s; s = s->next)
        if (s->v.backup_asked) ask(s, false);
    c->v.hol.state = state;
    c->v.hol.spans = c->v.hol.score = 0;
}

/* Twice what the paths deliver in the longest round trip, less a quarter: at 1.2 of it Linux already gains by both. */
static bool too_small(const struct mpc *c, mp_dur rtt, double rate) { return (double)c->v.rcvbuf < 1.5 * rate * (double)rtt; }

/* Since the mark a span has passed; rate: bytes a nanosecond in it. */
static void judge(struct mpc *c, double rate, mp_dur rtt, struct sf *slow)
{
    switch (c->v.hol.state) {
    case HOL_NONE:
        if (c->v.hol.edge_hit && too_small(c, rtt, c->v.rx_rate)) c->v.hol.score += HIT;
        else if (c->v.hol.score) c->v.hol.score--;
        c->v.hol.spans = c->v.hol.score ? c->v.hol.spans + 1 : 0;
        c->v.hol.before = c->v.hol.spans <= 2 ? rate : (3 * c->v.hol.before + rate) / 4;
        if (c->v.hol.score < EVIDENCE) break;
        c->v.hol.state = HOL_TRIAL;
        c->v.hol.spans = 0;
        ask(slow, true);
        break;
    case HOL_TRIAL:
        if (++c->v.hol.spans <= SETTLE) break;
        c->v.hol.after = (c->v.hol.spans == SETTLE + 1 ? 0 : c->v.hol.after) + rate / COMPARED;
        if (c->v.hol.spans < SETTLE + COMPARED) break;
        if (c->v.hol.after > c->v.hol.before) c->v.hol.state = HOL_KEPT;
        else take_back(c, HOL_REFUSED);
        break;
    default:
        break;
    }
}

static void next_span(struct mpc *c, mp_time now)
{
    c->v.hol.at = now;
    c->v.hol.bytes = 0;
    c->v.hol.edge_hit = false;
}

static bool is_asked(const struct mpc *c)
{
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (s->v.backup_asked && !s->v.dead) return true;
    return false;
}

void hol_data(struct mpc *c, mp_dsn end, uint32_t bytes, mp_time now)
{
    c->v.hol.bytes += bytes;
    if (end > c->v.rcv_nxt + bytes && end + 2 * 1500 > c->v.rcv_edge && c->v.rxq_bytes < c->v.rcvbuf / 4) c->v.hol.edge_hit = true;
    if (c->v.hol.state == HOL_REFUSED || now - c->v.hol.at < MP_MS(100)) return;
    if (c->v.hol.state != HOL_NONE && !is_asked(c)) c->v.hol.state = c->v.hol.spans = c->v.hol.score = 0; /* a fresh subflow in its place */
    struct sf *slow = c->v.hol.state == HOL_NONE ? slow_path(c) : NULL;
    if (slow) c->v.hol.rtt = slow->v.min_rtt;
    if (c->v.hol.state == HOL_NONE && !slow) {
        next_span(c, now);
        return;
    }
    if (now - c->v.hol.at < c->v.hol.rtt) return;
    judge(c, (double)c->v.hol.bytes / (double)(now - c->v.hol.at), c->v.hol.rtt, slow);
    next_span(c, now);
}

void hol_buffer_changed(struct mpc *c)
{
    if (c->v.hol.state != HOL_NONE && !too_small(c, c->v.hol.rtt, c->v.rx_rate)) take_back(c, HOL_NONE);
}
