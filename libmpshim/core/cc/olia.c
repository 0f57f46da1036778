/* core/cc/olia.c: Opportunistic Linked Increases Algorithm, Khalili et al., CoNEXT 2012. LIA's increase is not Pareto
 * optimal: it takes from congested paths what helps nobody. OLIA's first term alone is, and the second moves windows towards
 * the paths that are best but have small ones. For each segment acknowledged on r, windows in segments:
 *
 *   dw_r = (w_r / rtt_r^2) / (sum_p w_p / rtt_p)^2 + e_r / w_r
 *
 *   M: the paths with the largest window.   B: the paths with the largest l_p / rtt_p^2, the presumably best ones.
 *   l_p: bytes acknowledged between the last two losses, or since the last if that is more.
 *   e_r = +1 / (n |B \ M|) for r in B \ M;  -1 / (n |M|) for r in M, if B \ M is not empty;  else 0
 *
 * l / rtt^2 is the paper's own, and matches its analysis: the rate of a TCP flow is about sqrt(2 l) / rtt. Its Internet
 * draft and some implementations have l^2 / rtt, which also ranks by loss but overrates long paths. */
#include "core/cc/common.h"

enum {
    P_SINCE = P_ALGORITHM, /* bytes acknowledged since the last loss */
    P_BETWEEN,             /* and between the last two */
    P_FRACTION,            /* of mp_cc_change */
};

static double between_losses(const struct mp_cc_state *s) { return (double)mp_max(s->priv[P_SINCE], s->priv[P_BETWEEN]); }
static double quality(const struct mp_cc_state *s) { return between_losses(s) / ((double)s->srtt * (double)s->srtt); }

struct sets {
    int n, in_m, in_b_only;      /* how many: paths, of M, of B \ M */
    double largest, best, rates; /* window, quality, the sum of the windows over the round-trip times */
};

static bool in_m(const struct sets *t, const struct mp_cc_state *s) { return mp_cc_coupled_window(s) >= t->largest; }
static bool in_b_only(const struct sets *t, const struct mp_cc_state *s) { return quality(s) >= t->best && !in_m(t, s); }

static struct sets sets_of(const struct mp_cc_group *g)
{
    struct sets t = { 0 };

    for (int i = 0; i < g->n; i++) {
        const struct mp_cc_state *s = g->s[i];
        double w;

        if (!mp_cc_counts(s)) continue;
        w = mp_cc_coupled_window(s);
        t.n++;
        t.rates += w / (double)s->srtt;
        if (w > t.largest) t.largest = w;
        if (quality(s) > t.best) t.best = quality(s);
    }
    for (int i = 0; i < g->n; i++) {
        if (!mp_cc_counts(g->s[i])) continue;
        t.in_m += in_m(&t, g->s[i]);
        t.in_b_only += in_b_only(&t, g->s[i]);
    }
    return t;
}

static double epsilon(const struct sets *t, const struct mp_cc_state *s)
{
    if (!t->in_b_only) return 0;
    if (in_b_only(t, s)) return 1.0 / (t->n * t->in_b_only);
    return in_m(t, s) ? -1.0 / (t->n * t->in_m) : 0;
}

static void olia_ack(struct mp_cc_group *g, const struct mp_cc_ack *a)
{
    struct mp_cc_state *s = mp_cc_self(g);
    struct sets t;
    double w, rtt;

    s->priv[P_SINCE] += a->acked;
    if (mp_cc_hystart_ack(s, a)) return;
    t = sets_of(g);
    if (t.n < 2 || !mp_cc_counts(s)) {
        mp_cc_grow_by_bytes(s, a->acked, s->cwnd); /* the formula's own limit: Reno */
        return;
    }
    w = (double)s->cwnd;
    rtt = (double)s->srtt;
    mp_cc_change(s, &s->priv[P_FRACTION], (double)a->acked * s->mss * (w / (rtt * rtt) / (t.rates * t.rates) + epsilon(&t, s) / w));
}

static void note_loss(struct mp_cc_state *s)
{
    s->priv[P_BETWEEN] = s->priv[P_SINCE];
    s->priv[P_SINCE] = 0;
    s->priv[P_FRACTION] = 0;
}

static void olia_loss(struct mp_cc_group *g, mp_time now)
{
    note_loss(mp_cc_self(g));
    mp_cc_reno_loss(g, now);
}

static void olia_rto(struct mp_cc_group *g, uint64_t flight, mp_time now)
{
    note_loss(mp_cc_self(g));
    mp_cc_reno_rto(g, flight, now);
}

const struct mp_cc mp_cc_olia = {
    .name = "olia",
    .source = "Khalili et al., CoNEXT 2012, with l / rtt^2",
    .summary = "as lia, but leaves congested paths to others and moves to better ones",
    .coupled = true,
    .on_ack = olia_ack,
    .on_loss = olia_loss,
    .on_rto = olia_rto,
    .on_idle = mp_cc_reno_idle,
    .on_undo = mp_cc_reno_undo,
};
