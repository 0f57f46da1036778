/* core/cc/lia.c: Linked Increases Algorithm, RFC 6356. Slow start, decrease and time-out are each
 * subflow's own (section 3); only the increase in congestion avoidance is coupled:
 *
 *   for each ACK on i: min(alpha * acked * MSS_i / cwnd_tot, acked * MSS_i / cwnd_i)
 *   alpha = cwnd_tot * max_i(cwnd_i / rtt_i^2) / (sum_i cwnd_i / rtt_i)^2
 *
 * That is one segment for every max(cwnd_tot / alpha, cwnd_i) bytes acknowledged, and cwnd_tot drops out of
 * cwnd_tot / alpha = (sum_i cwnd_i / rtt_i)^2 / max_i(cwnd_i / rtt_i^2). In this form nothing has to be
 * remembered, so we compute it on each ACK where the RFC permits once a window: exact after a sibling's
 * loss, and with one subflow the threshold is cwnd, which is Reno to the byte. */
#include "core/cc/common.h"

/* cwnd_tot / alpha in bytes; 0: fewer than two subflows to couple. */
static double coupled_threshold(const struct mp_cc_group *g)
{
    double sum = 0, best = 0;
    int n = 0;

    for (int i = 0; i < g->n; i++) {
        const struct mp_cc_state *s = g->s[i];

        if (!mp_cc_counts(s)) continue;
        double rate = mp_cc_coupled_window(s) / (double)s->srtt;

        sum += rate;
        if (rate / (double)s->srtt > best) best = rate / (double)s->srtt;
        n++;
    }
    return n < 2 ? 0 : sum * sum / best;
}

static uint64_t growth_threshold(const struct mp_cc_group *g)
{
    const struct mp_cc_state *s = mp_cc_self(g);
    double t = coupled_threshold(g);

    if (!mp_cc_counts(s) || t <= (double)s->cwnd) return s->cwnd;
    return t < 1e18 ? (uint64_t)t : (uint64_t)1e18;
}

static void lia_ack(struct mp_cc_group *g, const struct mp_cc_ack *a)
{
    struct mp_cc_state *s = mp_cc_self(g);

    if (!mp_cc_hystart_ack(s, a)) mp_cc_grow_by_bytes(s, a->acked, growth_threshold(g));
}

const struct mp_cc mp_cc_lia = {
    .name = "lia",
    .source = "RFC 6356",
    .summary = "coupled increases: no more from a shared bottleneck than one TCP takes",
    .coupled = true,
    .on_ack = lia_ack,
    .on_loss = mp_cc_reno_loss,
    .on_rto = mp_cc_reno_rto,
    .on_idle = mp_cc_reno_idle,
    .on_undo = mp_cc_reno_undo,
};
