/* core/cc/balia.c: Balanced Linked Adaptation, Peng et al., IEEE/ACM Transactions on Networking 2016: between LIA's
 * responsiveness and OLIA's friendliness. With x = w / rtt and alpha_r = max x / x_r, for each segment acknowledged on r
 * and for each loss, windows in segments:
 *
 *   dw_r = x_r / (rtt_r (sum x)^2) (1 + alpha_r) / 2 (4 + alpha_r) / 5
 *   w_r -= w_r / 2 min(alpha_r, 1.5)
 *
 * alpha is a fraction: an integer quotient, as in the first kernel implementation, is 1 for every path that carries more
 * than half of the best one's rate. */
#include "core/cc/common.h"

enum { P_FRACTION = P_ALGORITHM }; /* of mp_cc_change */

static double rate(const struct mp_cc_state *s) { return mp_cc_coupled_window(s) / (double)s->srtt; }

struct rates {
    int n;
    double sum, best;
};

static struct rates rates_of(const struct mp_cc_group *g)
{
    struct rates r = { 0 };

    for (int i = 0; i < g->n; i++) {
        if (!mp_cc_counts(g->s[i])) continue;
        r.n++;
        r.sum += rate(g->s[i]);
        if (rate(g->s[i]) > r.best) r.best = rate(g->s[i]);
    }
    return r;
}

static void balia_ack(struct mp_cc_group *g, const struct mp_cc_ack *a)
{
    struct mp_cc_state *s = mp_cc_self(g);
    struct rates r;
    double alpha, x;

    if (mp_cc_hystart_ack(s, a)) return;
    r = rates_of(g);
    if (r.n < 2 || !mp_cc_counts(s)) {
        mp_cc_grow_by_bytes(s, a->acked, s->cwnd); /* the formula's own limit: Reno */
        return;
    }
    x = rate(s);
    alpha = r.best / x;
    mp_cc_change(s, &s->priv[P_FRACTION],
                 (double)a->acked * s->mss * x / ((double)s->srtt * r.sum * r.sum) * (1 + alpha) / 2 * (4 + alpha) / 5);
}

static void balia_loss(struct mp_cc_group *g, mp_time now)
{
    struct mp_cc_state *s = mp_cc_self(g);
    struct rates r = rates_of(g);
    double alpha = mp_cc_counts(s) && r.n > 1 ? r.best / rate(s) : 1;

    (void)now;
    if (alpha > 1.5) alpha = 1.5;
    mp_cc_remember(s);
    mp_cc_reduce(s, (uint64_t)((double)s->cwnd * (1 - alpha / 2)));
    s->priv[P_FRACTION] = 0;
}

const struct mp_cc mp_cc_balia = {
    .name = "balia",
    .source = "Peng et al., IEEE/ACM ToN 2016",
    .summary = "between lia and olia: quick to move, and friendly",
    .coupled = true,
    .on_ack = balia_ack,
    .on_loss = balia_loss,
    .on_rto = mp_cc_reno_rto,
    .on_idle = mp_cc_reno_idle,
    .on_undo = mp_cc_reno_undo,
};
