/* tests/unit/cc.c: congestion control: the contract that all keep, and what each promises. */
#include "core/cc/cc.h"

#include <math.h>

#include "test.h"

enum { MSS = 1000 };

/* A connection of up to eight subflows that acknowledges whole windows. */
struct lab {
    const struct mp_cc *cc;
    struct mp_cc_state s[MP_CC_MAX_PATHS];
    struct mp_cc_group g;
    mp_time now;
};

static struct lab *lab_new(const char *name, int n)
{
    struct lab *l = calloc(1, sizeof *l);

    l->cc = mp_cc_find(name);
    l->now = MP_SEC(100);
    l->g.n = n;
    for (int i = 0; i < n; i++) {
        l->s[i] = (struct mp_cc_state){ .cwnd = mp_cc_initial_window(MSS), .ssthresh = UINT64_MAX, .mss = MSS,
                                        .srtt = MP_MS(50), .min_rtt = MP_MS(50), .last_rtt = MP_MS(50), .active = true };
        l->g.s[i] = &l->s[i];
        if (l->cc->init) l->cc->init(&l->s[i], l->now);
    }
    return l;
}

static void ack(struct lab *l, int i, uint64_t bytes, bool round_start)
{
    struct mp_cc_ack a = { .now = l->now, .acked = bytes, .flight = l->s[i].cwnd, .round_start = round_start };

    l->g.self = i;
    l->cc->on_ack(&l->g, &a);
}

/* One round trip in which a whole window is acknowledged, two segments an ACK. */
static void round_trip(struct lab *l, int i)
{
    uint64_t left = l->s[i].cwnd, acks = (left + 2 * MSS - 1) / (2 * MSS);
    mp_time end = l->now + l->s[i].srtt;

    for (uint64_t k = 0; k < acks; k++) {
        uint64_t bytes = left < 2 * MSS ? left : 2 * MSS;

        l->now += l->s[i].srtt / acks;
        ack(l, i, bytes, k == 0);
        left -= bytes;
    }
    l->now = end;
}

static void loss(struct lab *l, int i)
{
    l->g.self = i;
    l->cc->on_loss(&l->g, l->now);
}

static void rto(struct lab *l, int i, uint64_t flight)
{
    l->g.self = i;
    l->cc->on_rto(&l->g, flight, l->now);
}

static void avoid(struct lab *l, int i, uint64_t cwnd) /* in congestion avoidance with this window */
{
    l->s[i].cwnd = l->s[i].ssthresh = cwnd;
    l->s[i].acked_since_grow = 0;
}

#define FOR_EACH_CC(l, n)                                                          \
    for (int k_ = 0; mp_cc_all[k_]; k_++)                                          \
        for (struct lab *l = (ROW("%s", mp_cc_all[k_]->name), lab_new(mp_cc_all[k_]->name, n)); l; free(l), l = NULL)

/* ---- the contract ---- */

TEST(each_has_a_name_a_source_and_its_functions)
{
    CHECK(strcmp(mp_cc_all[0]->name, "lia") == 0);
    for (int i = 0; mp_cc_all[i]; i++) {
        const struct mp_cc *c = mp_cc_all[i];

        ROW("%s", c->name);
        CHECK(mp_cc_find(c->name) == c);
        CHECK(c->source && c->summary && c->on_ack && c->on_loss && c->on_rto);
    }
    CHECK(mp_cc_find("nope") == NULL);
}

TEST(slow_start_doubles_each_round_trip)
{
    FOR_EACH_CC(l, 2)
        for (int r = 0; r < 8; r++) {
            uint64_t before = l->s[0].cwnd;

            round_trip(l, 0);
            CHECK_EQ(l->s[0].cwnd, 2 * before);
            CHECK_EQ(l->s[1].cwnd, 10 * MSS);
        }
}

TEST(slow_start_ends_at_ssthresh)
{
    FOR_EACH_CC(l, 1) {
        l->s[0].ssthresh = 15500;
        round_trip(l, 0);
        CHECK(l->s[0].cwnd >= 15500 && l->s[0].cwnd <= 17500);
    }
}

TEST(no_growth_while_the_program_limits)
{
    FOR_EACH_CC(l, 2) {
        struct mp_cc_ack a = { .now = l->now, .acked = 100 * MSS, .flight = MSS, .app_limited = true, .round_start = true };

        for (int i = 0; i < 100; i++, a.now += MP_MS(50)) l->cc->on_ack(&l->g, &a);
        CHECK_EQ(l->s[0].cwnd, 10 * MSS);
        avoid(l, 0, 20 * MSS);
        for (int i = 0; i < 100; i++, a.now += MP_MS(50)) l->cc->on_ack(&l->g, &a);
        CHECK_EQ(l->s[0].cwnd, 20 * MSS);
    }
}

TEST(loss_reduces_to_ssthresh_between_half_and_seven_tenths)
{
    FOR_EACH_CC(l, 2) {
        avoid(l, 0, 100 * MSS);
        loss(l, 0);
        CHECK_EQ(l->s[0].cwnd, l->s[0].ssthresh);
        CHECK(l->s[0].cwnd >= 50 * MSS && l->s[0].cwnd <= 70 * MSS);
        CHECK_EQ(l->s[1].cwnd, 10 * MSS);
    }
}

TEST(window_after_losses_is_at_least_two_segments)
{
    FOR_EACH_CC(l, 2)
        for (int i = 0; i < 30; i++) {
            loss(l, 0);
            CHECK(l->s[0].cwnd >= 2 * MSS);
            CHECK_EQ(l->s[0].ssthresh, l->s[0].cwnd);
        }
}

TEST(time_out_leaves_one_segment_and_ssthresh_from_the_flight)
{
    FOR_EACH_CC(l, 2) {
        avoid(l, 0, 100 * MSS);
        rto(l, 0, 60 * MSS);
        CHECK_EQ(l->s[0].cwnd, MSS);
        CHECK(l->s[0].ssthresh >= 30 * MSS && l->s[0].ssthresh <= 42 * MSS);
    }
}

TEST(ssthresh_is_held_when_the_same_loss_times_out_again)
{
    FOR_EACH_CC(l, 2) {
        uint64_t held;

        avoid(l, 0, 100 * MSS);
        rto(l, 0, 100 * MSS);
        held = l->s[0].ssthresh;
        for (int i = 0; i < 5; i++) rto(l, 0, MSS);
        CHECK_EQ(l->s[0].ssthresh, held);
        CHECK_EQ(l->s[0].cwnd, MSS);
    }
}

/* A recovery whose retransmissions were lost too: the loss has been answered already. */
TEST(ssthresh_is_held_when_recovery_times_out)
{
    FOR_EACH_CC(l, 2) {
        uint64_t held;

        avoid(l, 0, 100 * MSS);
        loss(l, 0);
        held = l->s[0].ssthresh;
        rto(l, 0, 3 * MSS);
        CHECK_EQ(l->s[0].ssthresh, held);
        CHECK_EQ(l->s[0].cwnd, MSS);
        while (l->s[0].cwnd < held) round_trip(l, 0);
        rto(l, 0, held); /* but a new loss after the window came back counts */
        CHECK(l->s[0].ssthresh < held);
    }
}

TEST(spurious_loss_and_time_out_are_undone)
{
    FOR_EACH_CC(l, 2) {
        if (!l->cc->on_undo) continue;
        avoid(l, 0, 100 * MSS);
        l->s[0].ssthresh = 90 * MSS;
        loss(l, 0);
        l->cc->on_undo(&l->g, l->now);
        CHECK_EQ(l->s[0].cwnd, 100 * MSS);
        CHECK_EQ(l->s[0].ssthresh, 90 * MSS);
        rto(l, 0, 100 * MSS);
        l->cc->on_undo(&l->g, l->now);
        CHECK_EQ(l->s[0].cwnd, 100 * MSS);
        CHECK_EQ(l->s[0].ssthresh, 90 * MSS);
        l->s[0].cwnd = 10 * MSS;
        l->cc->on_undo(&l->g, l->now); /* nothing left to undo */
        CHECK_EQ(l->s[0].cwnd, 10 * MSS);
    }
}

TEST(idle_window_decays_to_the_restart_window_and_ssthresh_remembers)
{
    FOR_EACH_CC(l, 1) {
        if (!l->cc->on_idle) continue;
        avoid(l, 0, 100 * MSS);
        l->s[0].ssthresh = 30 * MSS;
        l->cc->on_idle(&l->g, MP_MS(100), MP_MS(200));
        CHECK_EQ(l->s[0].cwnd, 100 * MSS);
        l->cc->on_idle(&l->g, MP_MS(250), MP_MS(200));
        CHECK_EQ(l->s[0].cwnd, 50 * MSS);
        CHECK_EQ(l->s[0].ssthresh, 75 * MSS);
        l->cc->on_idle(&l->g, MP_SEC(3600), MP_MS(200));
        CHECK_EQ(l->s[0].cwnd, 10 * MSS);
        l->s[0].cwnd = 4 * MSS;
        l->cc->on_idle(&l->g, MP_SEC(3600), MP_MS(200));
        CHECK_EQ(l->s[0].cwnd, 4 * MSS);
    }
}

/* 100 Gbit/s at one second is 12.5 GB of window. */
TEST(windows_of_100_gbit_s_do_not_overflow)
{
    FOR_EACH_CC(l, 8) {
        uint64_t before;

        for (int i = 0; i < 8; i++) {
            avoid(l, i, UINT64_C(12500000000));
            l->s[i].srtt = MP_SEC(1);
        }
        before = l->s[0].cwnd;
        for (int r = 0; r < 50; r++) {
            uint64_t step = l->s[0].cwnd;

            for (int k = 0; k < 1000; k++) {
                l->now += MP_MS(1);
                ack(l, 0, step / 1000, k == 0);
            }
            CHECK(l->s[0].cwnd >= step);
            CHECK(l->s[0].cwnd <= step / 2 * 3 + MSS);
        }
        CHECK(l->s[0].cwnd >= before); /* LIA's eight paths grow 1/64 segment a round trip */
        loss(l, 0);
        CHECK(l->s[0].cwnd >= before / 2);
        rto(l, 0, UINT64_C(12500000000));
        CHECK(l->s[0].ssthresh >= UINT64_C(12500000000) / 4);
        CHECK_EQ(l->s[0].cwnd, MSS);
    }
}

static void random_event(struct lab *l, uint64_t *seed)
{
    int i = (int)(test_random(seed) % (unsigned)l->g.n);
    uint64_t r = test_random(seed);
    struct mp_cc_state *s = &l->s[i];

    l->now += r % MP_MS(100);
    l->g.self = i;
    switch (r >> 40 & 31) {
    case 0: loss(l, i); s->in_recovery = true; break;
    case 1: rto(l, i, r % (s->cwnd + 1)); break;
    case 2: if (l->cc->on_idle) l->cc->on_idle(&l->g, r % MP_SEC(5), MP_MS(200)); break;
    case 3: if (l->cc->on_undo) l->cc->on_undo(&l->g, l->now); break;
    case 4: s->active = r & 1; break;
    case 5: s->srtt = r & 1 ? 0 : r % MP_SEC(2); break;
    case 6: s->mss = 88 + r % 9000; if (s->cwnd < s->mss) s->cwnd = s->mss; break;
    default:
        s->in_recovery = false;
        s->last_rtt = r % MP_MS(300);
        ack(l, i, r >> 20 & 0xffff, r & 4);
    }
}

TEST(random_events_keep_the_window_sane)
{
    for (uint64_t seed0 = 0; seed0 < 40; seed0++)
        FOR_EACH_CC(l, 1 + (int)(seed0 % 8)) {
            uint64_t seed = seed0;

            for (int step = 0; step < 3000; step++) {
                uint64_t others[MP_CC_MAX_PATHS];

                for (int i = 0; i < l->g.n; i++) others[i] = l->s[i].cwnd;
                random_event(l, &seed);
                for (int i = 0; i < l->g.n; i++) {
                    ROW("%s seed %d step %d", l->cc->name, (int)seed0, step);
                    CHECK(l->s[i].cwnd >= l->s[i].mss);
                    CHECK(l->s[i].ssthresh >= 2 * 88);
                    CHECK(l->s[i].cwnd < UINT64_C(1) << 40);
                    if (i != l->g.self) CHECK_EQ(l->s[i].cwnd, others[i]);
                }
            }
        }
}

/* ---- HyStart++ ---- */

TEST(slow_start_ends_without_loss_when_the_rtt_rises)
{
    FOR_EACH_CC(l, 1) {
        int r;

        if (l->cc->delay_based) continue; /* its own rule: below */
        for (r = 0; r < 12 && l->s[0].ssthresh == UINT64_MAX; r++) {
            l->s[0].last_rtt = MP_MS(50) + (r > 3 ? MP_MS(10) : 0);
            round_trip(l, 0);
        }
        CHECK(r == 5 + 5); /* the round that showed it and five of conservative growth */
        CHECK(l->s[0].cwnd == l->s[0].ssthresh || l->s[0].cwnd < l->s[0].ssthresh + 10 * MSS);
        CHECK(l->s[0].cwnd < 200 * 16 * MSS);
    }
}

/* The RTT of a path that carries `bdp` bytes in 50 ms, told by what was sent first in the round before. */
static void queueing_round_trip(struct lab *l, uint64_t *sent, uint64_t bdp)
{
    l->s[0].last_rtt = MP_MS(50) * mp_max(*sent, bdp) / bdp;
    *sent = l->s[0].cwnd;
    round_trip(l, 0);
}

TEST(slow_start_ends_in_the_round_after_when_the_queue_has_grown_further)
{
    FOR_EACH_CC(l, 1) {
        const uint64_t bdp = 64 * MSS;
        uint64_t sent = 0;

        if (l->cc->delay_based) continue;
        for (int r = 0; r < 20 && l->s[0].ssthresh == UINT64_MAX; r++) queueing_round_trip(l, &sent, bdp);
        CHECK(l->s[0].ssthresh > 2 * bdp && l->s[0].ssthresh < 3 * bdp); /* after five more rounds: 8 bdp */
    }
}

TEST(slow_start_keeps_its_window_while_a_higher_rtt_is_new)
{
    FOR_EACH_CC(l, 1) {
        if (l->cc->delay_based) continue;
        for (int r = 0; r < 4; r++) round_trip(l, 0);
        uint64_t before = l->s[0].cwnd;
        l->s[0].last_rtt = MP_MS(60);
        round_trip(l, 0);
        CHECK_EQ(l->s[0].cwnd, before + 7 * 2 * MSS); /* until there are eight samples */
        CHECK(l->s[0].ssthresh == UINT64_MAX);
    }
}

TEST(slow_start_goes_on_after_a_short_rtt_spike)
{
    FOR_EACH_CC(l, 1) {
        if (l->cc->delay_based) continue;
        for (int r = 0; r < 10; r++) {
            l->s[0].last_rtt = MP_MS(50) + (r == 4 ? MP_MS(10) : 0);
            round_trip(l, 0);
        }
        CHECK(l->s[0].ssthresh == UINT64_MAX);
        CHECK(l->s[0].cwnd > 10 * MSS * 256);
    }
}

TEST(slow_start_is_not_judged_by_what_the_program_sends) /* nine ACKs a round, and an RTT that is noise */
{
    FOR_EACH_CC(l, 1) {
        if (l->cc->delay_based) continue;
        for (int r = 0; r < 20; r++) {
            l->s[0].last_rtt = MP_MS(50) + MP_MS(10) * (mp_dur)(r % 3);
            for (int i = 0; i < 9; i++, l->now += MP_MS(5)) {
                struct mp_cc_ack a = { .now = l->now, .acked = MSS, .flight = 9 * MSS, .app_limited = true, .round_start = i == 0 };

                l->cc->on_ack(&l->g, &a);
            }
        }
        CHECK(l->s[0].ssthresh == UINT64_MAX);
        CHECK_EQ(l->s[0].cwnd, 10 * MSS);
        l->s[0].last_rtt = MP_MS(50);
        for (int r = 0; r < 4; r++) round_trip(l, 0);
        CHECK_EQ(l->s[0].cwnd, 160 * MSS);
    }
}

/* ---- Reno ---- */

TEST(reno_grows_one_segment_a_round_trip)
{
    struct lab *l = lab_new("reno", 1);

    avoid(l, 0, 20 * MSS);
    for (int r = 1; r <= 20; r++) {
        round_trip(l, 0);
        ROW("round %d", r);
        CHECK(l->s[0].cwnd >= (20 + (uint64_t)r - 1) * MSS && l->s[0].cwnd <= (20 + (uint64_t)r) * MSS);
    }
    free(l);
}

/* ---- LIA ---- */

TEST(coupled_ones_with_one_active_subflow_are_reno_to_the_byte)
{
    for (int k = 0; mp_cc_all[k]; k++) {
        struct lab *a = lab_new(mp_cc_all[k]->name, 3), *b = lab_new("reno", 3);
        uint64_t seed = 5;

        a->s[1].active = b->s[1].active = false;
        a->s[2].srtt = b->s[2].srtt = 0; /* no sample: counts in no sum */
        for (int step = 0; step < 20000 && a->cc->coupled && !a->cc->delay_based; step++) {
            uint64_t r = test_random(&seed);

            if (r % 400 == 0) loss(a, 0), loss(b, 0);
            else if (r % 4001 == 0) rto(a, 0, a->s[0].cwnd), rto(b, 0, b->s[0].cwnd);
            else ack(a, 0, r % 5000, r & 64), ack(b, 0, r % 5000, r & 64);
            ROW("%s step %d", a->cc->name, step);
            CHECK_EQ(a->s[0].cwnd, b->s[0].cwnd);
        }
        free(a);
        free(b);
    }
}

/* No window below one segment, none that runs away, in any order of ACKs, losses, time-outs and changes of delay. */
TEST(windows_stay_within_reason_whatever_comes)
{
    FOR_EACH_CC(l, 3) {
        uint64_t seed = 9;

        for (int i = 0; i < 3; i++) avoid(l, i, 20 * MSS);
        for (int step = 0; step < 60000; step++) {
            uint64_t r = test_random(&seed);
            int i = (int)(r % 3);
            l->now += MP_US(300);
            if (r % 1000 < 3) l->s[i].srtt = l->s[i].last_rtt = MP_MS(5 + (r >> 24) % 400);
            if (r % 997 == 0) loss(l, i);
            else if (r % 9973 == 0) rto(l, i, l->s[i].cwnd);
            else ack(l, i, (r >> 8) % 5000, r % 40 == 0);
            ROW("%s step %d", l->cc->name, step);
            CHECK(l->s[i].cwnd >= MSS);
            CHECK(l->s[i].cwnd < 10000 * MSS);
        }
    }
}

/* RFC 6356 3: equal windows and RTTs: alpha = 1/n, so each of n subflows grows MSS/n^2 a round trip. */
TEST(lia_equal_paths_grow_a_quarter_and_a_ninth)
{
    for (int n = 2; n <= 3; n++) {
        struct lab *l = lab_new("lia", n);
        uint64_t grown;

        ROW("%d paths", n);
        for (int i = 0; i < n; i++) avoid(l, i, 400 * MSS);
        for (int r = 0; r < 36; r++)
            for (int i = 0; i < n; i++) round_trip(l, i);
        grown = (l->s[0].cwnd - 400 * MSS) / MSS;
        CHECK(grown + 1 >= 36u / (unsigned)(n * n) && grown <= 36u / (unsigned)(n * n) + 1);
        free(l);
    }
}

/* The increase for one large ACK against the RFC's formula, written out independently. */
TEST(lia_increase_is_the_formula_of_rfc_6356)
{
    uint64_t seed = 3;

    for (int round = 0; round < 300; round++) {
        int n = 2 + (int)(test_random(&seed) % 7);
        struct lab *l = lab_new("lia", n);
        double tot = 0, best = 0, sum = 0, alpha, want, acked;

        for (int i = 0; i < n; i++) {
            double w, rtt;

            avoid(l, i, (10 + test_random(&seed) % 1000) * MSS);
            l->s[i].srtt = MP_MS(1 + test_random(&seed) % 300);
            w = (double)l->s[i].cwnd, rtt = (double)l->s[i].srtt / 1e9;
            tot += w;
            best = fmax(best, w / (rtt * rtt));
            sum += w / rtt;
        }
        alpha = tot * best / (sum * sum);
        acked = 1e9; /* so many that whole segments are fine enough; in one ACK, so that nothing else moves */
        want = fmin(alpha * acked * MSS / tot, acked * MSS / (double)l->s[0].cwnd);
        ack(l, 0, (uint64_t)acked, false);
        ROW("round %d: alpha %g, n %d", round, alpha, n);
        CHECK(fabs((double)l->s[0].cwnd - (double)l->s[0].ssthresh - want) <= MSS + want * 1e-6);
        free(l);
    }
}

TEST(lia_sibling_in_recovery_counts_with_its_ssthresh)
{
    struct lab *a = lab_new("lia", 2), *b = lab_new("lia", 2);

    avoid(a, 0, 100 * MSS);
    avoid(b, 0, 100 * MSS);
    avoid(a, 1, 50 * MSS);
    a->s[1].cwnd = 500 * MSS; /* inflated */
    a->s[1].in_recovery = true;
    avoid(b, 1, 50 * MSS);
    ack(a, 0, 100000 * MSS, false);
    ack(b, 0, 100000 * MSS, false);
    CHECK_EQ(a->s[0].cwnd, b->s[0].cwnd);
    free(a);
    free(b);
}

/* ---- CUBIC ---- */

/* RFC 9438 4.2: from 0.7 W_max the window is back at W_max after K = cbrt(0.3 W_max / C) seconds, W_max in
 * segments, slowest there, and passes it afterwards. */
TEST(cubic_returns_to_the_plateau_after_k)
{
    struct lab *l = lab_new("cubic", 1);
    double k = cbrt(0.3 * 1000 / 0.4);
    uint64_t before, steep, flat;
    mp_time start;

    avoid(l, 0, 1000 * MSS);
    l->s[0].srtt = MP_MS(100);
    loss(l, 0);
    CHECK_EQ(l->s[0].cwnd, 700 * MSS);
    start = l->now;
    before = l->s[0].cwnd;
    round_trip(l, 0);
    round_trip(l, 0);
    steep = l->s[0].cwnd - before;
    while (l->now - start < (mp_time)(0.95 * k * 1e9)) round_trip(l, 0);
    before = l->s[0].cwnd;
    round_trip(l, 0);
    round_trip(l, 0);
    flat = l->s[0].cwnd - before;
    ROW("K %g s, window %" PRIu64 ", first growth %" PRIu64 ", at the plateau %" PRIu64, k, l->s[0].cwnd, steep, flat);
    CHECK(l->s[0].cwnd > 985 * MSS && l->s[0].cwnd < 1010 * MSS);
    CHECK(steep > 10 * flat);
    while (l->now - start < (mp_time)(2 * k * 1e9)) round_trip(l, 0);
    CHECK(l->s[0].cwnd > 1250 * MSS && l->s[0].cwnd < 1350 * MSS); /* W_max + C K^3 = 1300, a round trip behind */
    free(l);
}

/* RFC 9438 4.3: with little bandwidth and delay it takes no less than Reno does on average. */
TEST(cubic_is_reno_friendly_on_short_paths)
{
    struct lab *l = lab_new("cubic", 1);

    avoid(l, 0, 20 * MSS);
    l->s[0].srtt = MP_MS(5);
    loss(l, 0);
    for (int r = 0; r < 20; r++) round_trip(l, 0);
    ROW("window %" PRIu64, l->s[0].cwnd);
    CHECK(l->s[0].cwnd >= 22 * MSS && l->s[0].cwnd <= 29 * MSS); /* 14 + 20 * 0.53 = 24.6, then 1 a round */
    free(l);
}

TEST(cubic_fast_convergence_lowers_the_plateau)
{
    struct lab *l = lab_new("cubic", 1);
    double k;
    mp_time start;

    avoid(l, 0, 1000 * MSS);
    l->s[0].srtt = MP_MS(100);
    loss(l, 0);
    loss(l, 0); /* at 700: W_max becomes 700 * 0.85 = 595, the window 490 */
    CHECK_EQ(l->s[0].cwnd, 490 * MSS);
    k = cbrt((595 - 490) / 0.4);
    start = l->now;
    while (l->now - start < (mp_time)(k * 1e9)) round_trip(l, 0);
    ROW("window %" PRIu64, l->s[0].cwnd);
    CHECK(l->s[0].cwnd > 580 * MSS && l->s[0].cwnd < 605 * MSS);
    free(l);
}

TEST(cubic_does_not_count_idle_time)
{
    struct lab *l = lab_new("cubic", 1);
    uint64_t before;

    avoid(l, 0, 5 * MSS); /* below the restart window: idling does not shrink it */
    for (int r = 0; r < 3; r++) round_trip(l, 0);
    before = l->s[0].cwnd;
    l->cc->on_idle(&l->g, MP_SEC(60), MP_MS(200));
    l->now += MP_SEC(60);
    round_trip(l, 0);
    CHECK(l->s[0].cwnd <= before + MSS);
    free(l);
}

/* ---- OLIA, BALIA ---- */

/* Growth in segments of subflow 0 when so many bytes are acknowledged in small ACKs, its window held. */
static double growth_of(struct lab *l, uint64_t total)
{
    uint64_t at = l->s[0].cwnd;
    double grown = 0;

    for (uint64_t done = 0; done < total; done += 2 * MSS) {
        ack(l, 0, 2 * MSS, false);
        grown += (double)l->s[0].cwnd - (double)at;
        l->s[0].cwnd = l->s[0].ssthresh = at;
    }
    return grown / MSS;
}

/* With no loss history the sets are empty of difference, and only the first term is left. */
TEST(olia_first_term_is_the_formula)
{
    uint64_t seed = 4;

    for (int round = 0; round < 100; round++) {
        int n = 2 + (int)(test_random(&seed) % 3);
        struct lab *l = lab_new("olia", n);
        double sum = 0, w0, want, total = 4e7;

        for (int i = 0; i < n; i++) {
            avoid(l, i, (10 + test_random(&seed) % 100) * MSS);
            l->s[i].srtt = MP_MS(10 + test_random(&seed) % 90);
            if (i == 0) l->s[0].cwnd = l->s[0].ssthresh = 200 * MSS; /* the largest ... */
            sum += (double)l->s[i].cwnd / MSS / ((double)l->s[i].srtt / 1e9);
        }
        l->s[0].srtt = l->s[0].min_rtt; /* ... */
        sum = 0;
        for (int i = 0; i < n; i++) sum += (double)l->s[i].cwnd / MSS / ((double)l->s[i].srtt / 1e9);
        w0 = 200;
        want = w0 / pow((double)l->s[0].srtt / 1e9, 2) / (sum * sum) * total / MSS;
        ROW("round %d: want %g", round, want);
        CHECK(fabs(growth_of(l, (uint64_t)total) - want) <= 1 + want * 1e-3); /* ... and only it has history: B = M */
        free(l);
    }
}

TEST(olia_moves_towards_the_best_path_with_a_small_window)
{
    struct lab *l = lab_new("olia", 2);
    uint64_t small, large;

    avoid(l, 0, 20 * MSS);
    avoid(l, 1, 40 * MSS);
    ack(l, 0, 2000000, false); /* far without a loss */
    loss(l, 1);                /* path 1 loses often */
    avoid(l, 0, 20 * MSS);
    avoid(l, 1, 40 * MSS);
    small = l->s[0].cwnd, large = l->s[1].cwnd;
    for (int r = 0; r < 10; r++) round_trip(l, 0), round_trip(l, 1);
    ROW("small %" PRIu64 " -> %" PRIu64 ", large %" PRIu64 " -> %" PRIu64, small, l->s[0].cwnd, large, l->s[1].cwnd);
    CHECK(l->s[0].cwnd >= small + 5 * MSS); /* half a segment a round trip, and the first term */
    CHECK(l->s[1].cwnd < large + 3 * MSS);  /* less half a segment a round trip */
    free(l);
}

TEST(balia_increase_and_decrease_are_the_formulae)
{
    uint64_t seed = 6;

    for (int round = 0; round < 100; round++) {
        int n = 2 + (int)(test_random(&seed) % 3);
        struct lab *l = lab_new("balia", n);
        double sum = 0, best = 0, x0 = 0, rtt0, alpha, want, total = 4e7, before;

        for (int i = 0; i < n; i++) {
            double x;

            avoid(l, i, (10 + test_random(&seed) % 100) * MSS);
            l->s[i].srtt = MP_MS(10 + test_random(&seed) % 90);
            x = (double)l->s[i].cwnd / MSS / ((double)l->s[i].srtt / 1e9);
            if (i == 0) x0 = x;
            sum += x;
            best = fmax(best, x);
        }
        rtt0 = (double)l->s[0].srtt / 1e9;
        alpha = best / x0;
        want = x0 / (rtt0 * sum * sum) * (1 + alpha) / 2 * (4 + alpha) / 5 * total / MSS;
        ROW("round %d: alpha %g, want %g", round, alpha, want);
        CHECK(fabs(growth_of(l, (uint64_t)total) - want) <= 1 + want * 1e-3);
        before = (double)l->s[0].cwnd;
        loss(l, 0);
        CHECK(fabs((double)l->s[0].cwnd - fmax(before * (1 - fmin(alpha, 1.5) / 2), 2 * MSS)) <= 1);
        free(l);
    }
}

/* ---- wVegas ---- */

/* A path of `bdp` segments: what is more waits in its queue. */
static void vegas_round(struct lab *l, int i, double bdp)
{
    double w = (double)l->s[i].cwnd / MSS, rtt = (double)l->s[i].min_rtt * (w > bdp ? w / bdp : 1);

    l->s[i].last_rtt = l->s[i].srtt = (mp_dur)rtt;
    round_trip(l, i);
}

TEST(wvegas_keeps_ten_segments_in_the_queue)
{
    struct lab *l = lab_new("wvegas", 1);

    for (int r = 0; r < 200; r++) {
        vegas_round(l, 0, 100);
        if (r > 60) CHECK(l->s[0].cwnd >= 100 * MSS && l->s[0].cwnd <= 113 * MSS);
    }
    ROW("window %" PRIu64, l->s[0].cwnd);
    CHECK(l->s[0].cwnd >= 100 * MSS);
    free(l);
}

TEST(wvegas_shares_its_ten_segments_by_rate)
{
    struct lab *l = lab_new("wvegas", 2);
    double waiting[2] = { 0 };

    for (int r = 0; r < 400; r++)
        for (int i = 0; i < 2; i++) {
            vegas_round(l, i, i ? 40 : 160);
            if (r >= 300) waiting[i] += fmax(0, (double)l->s[i].cwnd / MSS - (i ? 40 : 160)) / 100;
        }
    ROW("%g and %g", waiting[0], waiting[1]);
    CHECK(waiting[0] > 6.5 && waiting[0] < 9.5); /* 8 of 10 */
    CHECK(waiting[1] > 1 && waiting[1] < 3.5);   /* 2 */
    free(l);
}
