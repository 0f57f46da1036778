/* A receive buffer smaller than the paths need together (RFC 6182 5.3: the sum of their rates times the longest round trip,
 * and again for recovery), and a sender that fills the window over a slow path all the same: the stream then waits for that
 * path, with the window shut, and the fast one idles. Linux is such a sender (NSDI 2012's network, 128 KB: 4.7 Mbit/s, where
 * the better path alone has 7.6). The receiver may ask it to keep the slow path as a backup (MP_PRIO, RFC 8684 3.3.8).
 *
 * It is a trial: asked when the fast path idled in most of a few round trips, kept if hardly less comes without the slow path.
 * Then the slow path is rationed: a backup but for a moment now and then, in which the sender gives it some segments. As
 * long as the window lets the fast path go on until these have arrived, they come on top. The moments come more often while
 * nothing idles, and half as often when it does. All is taken back if in the end less comes than before.
 * Our own data in the other direction goes where it went. */
#include "core/stack_int.h"

enum { HOL_NONE, HOL_TRIAL, HOL_KEPT, HOL_REFUSED };
/* In round trips of the slow path. One of which the fast path idled a sixth counts HIT, one without takes a point off; at
 * EVIDENCE it is enough. SETTLE for what is still on its way over the slow path, then COMPARED; RATIONED at the end. */
enum { HIT = 2, EVIDENCE = 4, SETTLE = 3, COMPARED = 3, RATIONED = 24, MUCH = 6 };
#define SELDOM MP_SEC(2) /* between two moments, at the most */

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

/* The one that was asked for. */
static struct sf *spared_path(const struct mpc *c)
{
    struct sf *s = c->sfs;
    while (s && (s->v.id != c->v.hol.path || s->v.dead)) s = s->next;
    return s;
}

static void tell(struct sf *s, bool backup, mp_time now)
{
    s->v.backup_asked = backup;
    s->v.prio_now = true;
    s->c->v.hol.told = now;
}

static void begin(struct mpc *c, int state)
{
    c->v.hol.state = state;
    c->v.hol.spans = c->v.hol.score = 0;
}

static void take_back(struct mpc *c, int state, mp_time now)
{
    struct sf *s = spared_path(c);
    if (s) tell(s, false, now);
    st_count(c->st, MP_E_hol_taken_back, 1, c);
    begin(c, state);
}

/* More than that many times what the paths deliver in the longest round trip, and the window is not what is short. */
static bool too_small(const struct mpc *c) { return (double)c->v.rcvbuf < 2.5 * c->v.rx_rate * (double)c->v.hol.rtt; }

/* Data of another path than the slow one came, after a pause: the sender had filled the window, if what came before the
 * pause waits behind a hole. */
static void note_idle(struct mpc *c, mp_dsn dsn, mp_time now)
{
    mp_dur pause = now - c->v.hol.last;
    if (c->v.hol.waiting && pause > MP_MS(5) && (double)pause * c->v.rx_rate > 8 * 1500) c->v.hol.idle += pause;
    c->v.hol.waiting = dsn > conn_in_order(c) && c->v.rxq_bytes < c->v.rcvbuf / 4;
    c->v.hol.last = now;
}

/* ---- spans: a round trip of the slow path ---- */

static void look_for_evidence(struct mpc *c, double rate, struct sf *slow, mp_time now)
{
    if (c->v.hol.idle > (now - c->v.hol.at) / MUCH && too_small(c)) c->v.hol.score += HIT;
    else if (c->v.hol.score) c->v.hol.score--;
    c->v.hol.before = rate > 0.97 * c->v.hol.before ? rate : 0.97 * c->v.hol.before; /* the best of late */
    if (c->v.hol.score < EVIDENCE) return;
    begin(c, HOL_TRIAL);
    c->v.hol.path = slow->v.id;
    tell(slow, true, now);
    st_count(c->st, MP_E_hol_asked, 1, c);
}

static void look_at_trial(struct mpc *c, double rate, mp_time now)
{
    if (++c->v.hol.spans <= SETTLE) return;
    c->v.hol.after = (c->v.hol.spans == SETTLE + 1 ? 0 : c->v.hol.after) + rate / COMPARED;
    if (c->v.hol.spans < SETTLE + COMPARED) return;
    if (c->v.hol.after < 0.9 * c->v.hol.before) {
        take_back(c, HOL_REFUSED, now);
        return;
    }
    begin(c, HOL_KEPT);
    c->v.hol.every = 2 * c->v.hol.rtt;
}

static void look_at_ration(struct mpc *c, double rate, mp_time now)
{
    if (c->v.hol.idle) c->v.hol.every = mp_min(2 * c->v.hol.every, SELDOM);
    else c->v.hol.every = mp_max(c->v.hol.every - c->v.hol.every / 8, c->v.hol.rtt * 3 / 2);
    c->v.hol.after += (rate - c->v.hol.after) / 8;
    if (++c->v.hol.spans == RATIONED && c->v.hol.after < c->v.hol.before) take_back(c, HOL_REFUSED, now);
}

static void end_span(struct mpc *c, struct sf *slow, mp_time now)
{
    double rate = (double)c->v.hol.bytes / (double)(now - c->v.hol.at);
    if (c->v.hol.state == HOL_TRIAL) look_at_trial(c, rate, now);
    else if (c->v.hol.state == HOL_KEPT) look_at_ration(c, rate, now);
    else if (slow) look_for_evidence(c, rate, slow, now);
    c->v.hol.at = now;
    c->v.hol.bytes = 0;
    c->v.hol.idle = 0;
}

/* ---- the ration ---- */

/* Long enough for a twelfth of the window: it opens at the pace of the fast path, and all of that goes to the slow one. */
static mp_dur moment(const struct mpc *c)
{
    mp_dur m = (mp_dur)((double)c->v.rcvbuf / 12 / c->v.rx_rate);
    return mp_max(MP_MS(5), mp_min(m, c->v.hol.rtt / 4));
}

static void ration(struct mpc *c, struct sf *s, mp_time now)
{
    mp_dur since = now - c->v.hol.told;
    if (!s->v.backup_asked && since >= moment(c)) {
        tell(s, true, now);
    } else if (s->v.backup_asked && since >= c->v.hol.every && !c->ooo.n) {
        tell(s, false, now);
        st_count(c->st, MP_E_hol_rationed, 1, c);
    }
}

void hol_data(struct sf *s, mp_dsn dsn, uint32_t bytes, mp_time now)
{
    struct mpc *c = s->c;
    if (c->v.hol.state == HOL_REFUSED) return;
    struct sf *slow = c->v.hol.state == HOL_NONE ? slow_path(c) : spared_path(c);
    c->v.hol.bytes += bytes;
    if (s != slow) note_idle(c, dsn, now);
    if (c->v.hol.state != HOL_NONE && !slow) begin(c, HOL_NONE); /* another subflow in its place, or none */
    if (c->v.hol.state == HOL_KEPT) ration(c, slow, now);
    if (now - c->v.hol.at < mp_max(MP_MS(100), c->v.hol.rtt)) return;
    if (c->v.hol.state == HOL_NONE && slow) c->v.hol.rtt = slow->v.min_rtt;
    end_span(c, slow, now);
}

void hol_buffer_changed(struct mpc *c, mp_time now)
{
    if (c->v.hol.state != HOL_NONE && !too_small(c)) take_back(c, HOL_NONE, now);
}
