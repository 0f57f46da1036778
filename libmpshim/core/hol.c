/* A receive buffer smaller than the paths need together (RFC 6182 5.3: the sum of their rates times the longest round trip,
 * and again for recovery), and a sender that fills the window over a slow path all the same: the stream then waits for that
 * path, with the window shut, and the fast one idles. Linux is such a sender (NSDI 2012's network, 128 KB: 4.7 Mbit/s, where
 * the better path alone has 7.6). The receiver may ask it to keep the slow path as a backup (MP_PRIO, RFC 8684 3.3.8).
 *
 * That is when the fast path idles a fifth of the time. The slow path is then rationed: a backup but for a moment now and
 * then, in which the sender gives it some segments. As long as the window lets the fast path go on until these have
 * arrived, they come on top. The moments come more often while nothing idles, and half as often when it does. It is a trial:
 * all is taken back, for a while, if after a few round trips clearly less comes than before, and later if any less does.
 * Our own data in the other direction goes where it went. */
#include "core/stack_int.h"

enum { HOL_NONE, HOL_TRIAL, HOL_KEPT, HOL_REFUSED };
/* In spans, round trips of the slow path. SETTLE: what is still on its way over the slow path, and what a moment does, is not
 * seen earlier; then COMPARED; RATIONED at the end. */
enum { SETTLE = 3, COMPARED = 3, RATIONED = 24 };
#define IDLING 0.2           /* of the time, lately */
#define SELDOM MP_SEC(2)     /* between two moments, at the most */
#define REFUSED_FOR MP_SEC(30)

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
    c->v.hol.spans = 0;
    c->v.hol.idling = 0;
}

static void take_back(struct mpc *c, int state, mp_time now)
{
    struct sf *s = spared_path(c);
    if (s) tell(s, false, now);
    st_count(c->st, MP_E_hol_taken_back, 1, c);
    begin(c, state);
}

/* Bytes that the paths deliver in the longest round trip when nothing is in their way: how few come while the stream is held
 * up says nothing of that. */
static double per_round_trip(const struct mpc *c) { return c->v.hol.best * (double)c->v.hol.rtt; }
static bool too_small(const struct mpc *c) { return (double)c->v.rcvbuf < 2.5 * per_round_trip(c); }
static bool large_enough(const struct mpc *c) { return (double)c->v.rcvbuf > 4 * per_round_trip(c); }

/* Data of another path than the slow one came, after a pause: the sender had filled the window, if what came before the
 * pause waits behind a hole, and that hole is not the path's own (it lost something). */
static void note_idle(const struct sf *s, mp_dsn dsn, mp_time now)
{
    struct mpc *c = s->c;
    mp_dur pause = now - c->v.hol.last;
    if (c->v.hol.waiting && !s->ooo.n && pause > MP_MS(5) && (double)pause * c->v.rx_rate > 8 * 1500) c->v.hol.idle += pause;
    mp_dsn in_order = conn_in_order(c);
    c->v.hol.waiting = dsn > in_order && in_order >= c->v.hol.from && c->v.rxq_bytes < c->v.rcvbuf / 4;
    c->v.hol.last = now;
}

/* ---- spans: a round trip of the slow path ---- */

static void begin_span(struct mpc *c, mp_time now)
{
    c->v.hol.at = now;
    c->v.hol.bytes = 0;
    c->v.hol.idle = 0;
}

static void look_for_evidence(struct mpc *c, double rate, double idle, struct sf *slow, mp_time now)
{
    c->v.hol.idling += (idle - c->v.hol.idling) / 8; /* a busy host makes one span idle */
    c->v.hol.before += (rate - c->v.hol.before) / (c->v.hol.before > 0 ? 4 : 1);
    if (c->v.hol.idling < IDLING || !too_small(c)) return;
    begin(c, HOL_TRIAL);
    c->v.hol.path = slow->v.id;
    c->v.hol.every = c->v.hol.rtt;
    c->v.hol.unseen = SETTLE;
    c->v.hol.over = c->v.hol.all = 0;
    c->v.hol.fits = false;
    tell(slow, true, now);
    st_count(c->st, MP_E_hol_asked, 1, c);
}

/* Until it idles for the first time in quick steps, then slowly. What a change does is seen two spans later. */
static void adjust_ration(struct mpc *c)
{
    if (c->v.hol.unseen) {
        c->v.hol.unseen--;
        return;
    }
    if (!c->v.hol.idle) {
        c->v.hol.every = mp_max(c->v.hol.every - c->v.hol.every / (c->v.hol.fits ? 8 : 4), c->v.hol.rtt * 2 / 5);
        return;
    }
    c->v.hol.every = mp_min(2 * c->v.hol.every, SELDOM);
    c->v.hol.unseen = 2;
    c->v.hol.fits = true;
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
}

/* In its moments hardly anything came over the slow path: a sender that knows itself what the window holds (fit.c) does better
 * unasked. */
static bool makes_no_use(struct mpc *c)
{
    bool none = 50 * c->v.hol.over < c->v.hol.all;
    c->v.hol.over = c->v.hol.all = 0;
    return none;
}

static void look_at_ration(struct mpc *c, double rate, mp_time now)
{
    c->v.hol.after += (rate - c->v.hol.after) / 8;
    if (++c->v.hol.spans == RATIONED && c->v.hol.after < c->v.hol.before) take_back(c, HOL_REFUSED, now);
    else if (large_enough(c)) take_back(c, HOL_NONE, now); /* the paths deliver less than they did */
    else if (c->v.hol.spans % RATIONED == 0 && makes_no_use(c)) take_back(c, HOL_NONE, now);
}

static bool rationed(const struct mpc *c) { return c->v.hol.state == HOL_TRIAL || c->v.hol.state == HOL_KEPT; }

/* What was sent while there was no other path says nothing of how the sender shares it out. */
static void look_again(struct mpc *c, const struct sf *slow)
{
    if (slow && !c->v.hol.rtt) c->v.hol.from = c->v.rcv_edge;
    c->v.hol.rtt = slow ? slow->v.min_rtt : 0;
}

static void end_span(struct mpc *c, struct sf *slow, mp_time now)
{
    mp_dur span = now - c->v.hol.at;
    double rate = (double)c->v.hol.bytes / (double)span, idle = (double)mp_min(c->v.hol.idle, span) / (double)span;
    c->v.hol.best = rate > 0.99 * c->v.hol.best ? rate : 0.99 * c->v.hol.best;
    if (rationed(c)) adjust_ration(c);
    if (c->v.hol.state == HOL_TRIAL) look_at_trial(c, rate, now);
    else if (c->v.hol.state == HOL_KEPT) look_at_ration(c, rate, now);
    else if (slow) look_for_evidence(c, rate, idle, slow, now);
    begin_span(c, now);
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
    if (c->v.hol.state == HOL_REFUSED) {
        if (now - c->v.hol.told < REFUSED_FOR) return;
        begin(c, HOL_NONE);
        begin_span(c, now);
        c->v.hol.waiting = false;
    }
    struct sf *slow = c->v.hol.state == HOL_NONE ? slow_path(c) : spared_path(c);
    c->v.hol.bytes += bytes;
    c->v.hol.all += bytes;
    if (s == slow) c->v.hol.over += bytes;
    if (s != slow) note_idle(s, dsn, now);
    if (c->v.hol.state != HOL_NONE && !slow) begin(c, HOL_NONE); /* another subflow in its place, or none */
    if (rationed(c)) ration(c, slow, now);
    if (now - c->v.hol.at < mp_max(MP_MS(100), c->v.hol.rtt)) return;
    if (c->v.hol.state == HOL_NONE) look_again(c, slow);
    end_span(c, slow, now);
}

void hol_buffer_changed(struct mpc *c, mp_time now)
{
    if (c->v.hol.state != HOL_NONE && !too_small(c)) take_back(c, HOL_NONE, now);
}
