/* A path that has forgotten a subflow: a NAT's entry expired, a firewall began to rewrite numbers. Segments vanish or fit
 * no window, nobody tells, and a fresh subflow over the same path would work. Only the client may open one (a server's
 * clients sit behind NATs), so the client must notice, also when it only receives. Three signs:
 *   - time-outs in a row, if something of ours is in flight (rescue_timeout);
 *   - segments that come and do not fit, and none that does (rescue_misfit);
 *   - silence after a flow of data, and probes of ours that draw no answer that fits (rescue_tick): none behind a hole, which a peer
 *     whose time-out is far off leaves open as well. The fresh one is then the quicker way.
 * Messages shorter than a flow, and silence that a probe explains, cost nothing more: RFC 1122 4.2.3.6 wants no
 * keep-alives unasked, and this asks once, when data stops in mid-flow. */
#include "core/stack_int.h"

enum { FLOW_SEGMENTS = 8, PROBES = 3, MISFITS = 3 };
#define QUIET MP_MS(1000)              /* a flow's pause is asked about; several times any sane round trip */
#define QUIET_LONGEST MP_SEC(900)      /* the kernel's own patience with a silent peer */

static bool same_pair(const struct sf *a, const struct sf *b)
{
    if (a->v.ifindex != b->v.ifindex || !mp_addr_eq(&a->v.local.ip, &b->v.local.ip)) return false;
    return mp_addr_eq(&a->v.remote.ip, &b->v.remote.ip) && (a->v.passive || a->v.remote.port == b->v.remote.port);
}

static mp_dur quiet_time(const struct sf *s) { return mp_max(QUIET, 3 * s->v.rto); }

/* Data arrived. */
void rescue_data(struct sf *s, uint32_t len, mp_time now)
{
    if (s->c->v.server || !conn_mp(s->c)) return;
    s->v.quiet_bytes += len;
    if (s->v.timer[SFT_QUIET] != MP_NEVER || s->v.quiet_bytes < FLOW_SEGMENTS * s->v.mss) return;
    sf_arm(s, SFT_QUIET, now + quiet_time(s));
}

/* A segment that fits arrived: the path knows this subflow, if all that was sent before it has come too. Numbers that a box has moved by less
 * than a window only look as if they fitted, for ever behind a hole; and where numbers fit that way and our data does not the other,
 * the answers acknowledge nothing new. New data is one though our own times out: who sends on has our ACKs (a crowded way up; simulation
 * seed 2032285). */
void rescue_heard(struct sf *s, const struct mp_opts *o, mp_ssn ssn, uint32_t len, mp_time now)
{
    s->v.heard_bare = !o->mp;
    silence_over(s, now);
    recall_heard(s, now);
    s->v.last_recv = now;
    if (ssn > s->v.rcv_nxt) return;
    s->v.last_fit = now;
    s->v.misfits = 0;
    if (ssn + len > s->v.rcv_nxt) s->v.last_new = now;
    if (!s->v.rescued || (s->v.backoff && s->v.last_new < now)) return;
    s->v.rescued = false;
    for (struct sf *join = s->c->sfs; join; join = join->next)
        if (join != s && !join->v.dead && join->v.state == SF_SYN_SENT && same_pair(join, s)) sf_die(join, 0, now);
}

static void rescue(struct sf *s, mp_time now)
{
    if (!pm_rescue(s->c, s, now)) return;
    s->v.rescued = true;
    st_count(s->st, MP_E_rescue, 1, s->c);
}

/* A join's third ACK would lose its option too where these have none, and once a join is answered neither end may fall back
 * (RFC 8684 3.7), which is the way on there. */
static bool join_is_hopeless(const struct sf *s, bool bare) { return bare && conn_single(s->c); }

/* What comes together may all have been sent before any answer of ours could be there: a peer whose link is back repeats a row of
 * segments. So the last of them must come a time-out after the first. (Simulation seed 650229: both.) */
void rescue_misfit(struct sf *s, const struct mp_opts *o, mp_time now)
{
    if (now - s->v.last_fit <= QUIET) return;
    if (!s->v.misfits++) s->v.misfit_since = now;
    if (s->v.misfits >= MISFITS && now - s->v.misfit_since >= s->v.rto && !join_is_hopeless(s, !o->mp)) rescue(s, now);
}

/* Where a router has no way (RFC 6069), a fresh subflow has none either; another address may have one. And who has sent new data since
 * our latest try has our ACKs. */
void rescue_timeout(struct sf *s, mp_time now)
{
    if (s->v.backoff < PM_RESCUE || s->v.state < SF_ESTABLISHED) return;
    pm_in_trouble(s->c, now);
    if (s->v.backoff - s->v.reverts < PM_RESCUE || s->v.last_new > s->seg_head->sent || join_is_hopeless(s, s->v.heard_bare)) return;
    rescue(s, now);
}

/* The peer may still have data for us, and nothing of ours in flight would tell that the path is gone. */
static bool quiet_matters(const struct sf *s)
{
    const struct mpc *c = s->c;
    return sf_can_carry(s) && conn_mp(c) && !s->v.aside && !s->seg_head && !s->v.fin_received && !c->v.peer_fin && !c->v.closing;
}

/* SFT_QUIET. */
void rescue_tick(struct sf *s, mp_time now)
{
    mp_dur quiet = now - s->v.last_fit;
    bool answered = s->v.quiet_probes && s->v.last_fit > s->v.quiet_since;
    if (answered || !quiet_matters(s)) {
        s->v.quiet_probes = 0;
        s->v.quiet_bytes = 0;
        return;
    }
    if (!s->v.quiet_probes && quiet < quiet_time(s)) {
        sf_arm(s, SFT_QUIET, s->v.last_fit + quiet_time(s));
        return;
    }
    if (!s->v.quiet_probes) s->v.quiet_since = s->v.last_fit;
    if (++s->v.quiet_probes > PROBES) rescue(s, now);
    if (quiet > QUIET_LONGEST) return;
    s->v.probes = 1; /* one segment below the window, RFC 9293 3.8.4 */
    sf_arm(s, SFT_QUIET, now + mp_min(s->v.rto << mp_min((uint64_t)s->v.quiet_probes - 1, 8), MP_SEC(60)));
}

/* A fresh subflow is up: of two between the same addresses only that one is wanted. A server takes it as a sign when the first is
 * in trouble. Its client, which hears of this by the fourth ACK, may have heard the first again meanwhile; were it to keep that one,
 * each end would reset what the other keeps (simulation seed 913824). */
void rescue_established(struct sf *s, mp_time now)
{
    for (struct sf *o = s->c->sfs; o; o = o->next) {
        if (o == s || o->v.dead || o->v.reset_pending || !same_pair(o, s)) continue;
        if (o->v.state < SF_ESTABLISHED || o->v.state > SF_CLOSE_WAIT || o->v.fin_queued) continue;
        if (!s->v.passive || o->v.backoff || o->v.misfits) sf_abort(o, MP_RST_UNSPECIFIED, true, now);
    }
}
