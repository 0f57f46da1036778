/* tests/unit/sched.c: schedulers. */
#include "core/sched/sched.h"

#include "test.h"

static struct mp_sched_mem mem;

static struct mp_sched_path path(mp_dur srtt, uint64_t room)
{
    return (struct mp_sched_path){ .srtt = srtt, .min_rtt = srtt, .rttvar = srtt / 8, .cwnd = 14480, .flight = 14480 - room,
                                   .room = room, .mss = 1448, .rate = 14480 * MP_SEC(1) / srtt };
}

static struct mp_sched_view view(int n)
{
    struct mp_sched_view v = { .n = n, .now = MP_SEC(1), .queued = 100000, .conn_window = 100000, .window = 1000000, .mem = &mem };

    mem = (struct mp_sched_mem){ 0 };
    for (int i = 0; i < n; i++) {
        v.path[i] = path(MP_MS(10 * (i + 1)), 5000);
        v.path[i].id = i;
    }
    return v;
}

static int pick(const struct mp_sched_view *v) { return mp_sched_find("minrtt")->pick(v); }
static int pick_by(const char *name, const struct mp_sched_view *v) { return mp_sched_find(name)->pick(v); }

TEST(minrtt_takes_the_fastest_with_room)
{
    struct mp_sched_view v = view(3);

    CHECK_EQ(pick(&v), 0);
    v.path[0].room = 0;
    CHECK_EQ(pick(&v), 1);
    v.path[2].srtt = MP_MS(1);
    CHECK_EQ(pick(&v), 2);
    v.path[1].room = v.path[2].room = 0;
    CHECK(pick(&v) == -1);
    v.n = 0;
    CHECK(pick(&v) == -1);
}

TEST(minrtt_unknown_srtt_counts_as_slow)
{
    struct mp_sched_view v = view(2);

    v.path[0].srtt = 0;
    CHECK_EQ(pick(&v), 1);
    v.path[1].room = 0;
    CHECK_EQ(pick(&v), 0);
}

TEST(minrtt_waits_rather_than_use_a_backup)
{
    struct mp_sched_view v = view(2);

    v.path[0].backup = true;
    CHECK_EQ(pick(&v), 1);
    v.path[1].room = 0;
    CHECK(pick(&v) == -1);
    v.path[1].backup = true;
    CHECK_EQ(pick(&v), 0);
}

TEST(minrtt_uses_a_backup_when_the_normal_path_is_stale)
{
    struct mp_sched_view v = view(2);

    v.path[0].stale = true;
    v.path[1].backup = true;
    CHECK_EQ(pick(&v), 1);
    v.path[1].stale = true;
    CHECK_EQ(pick(&v), 0);
}

TEST(minrtt_uses_stale_paths_when_all_are)
{
    struct mp_sched_view v = view(2);

    v.path[0].stale = v.path[1].stale = true;
    CHECK_EQ(pick(&v), 0);
}

/* ---- two paths: path 0 is the fast one and full ---- */

static struct mp_sched_view fast_is_full(mp_dur fast, mp_dur slow)
{
    struct mp_sched_view v = view(2);

    v.path[0] = path(fast, 0);
    v.path[1] = path(slow, 5000);
    v.path[1].id = 1;
    return v;
}

TEST(blest_leaves_a_slow_path_out_that_would_block_the_window)
{
    struct mp_sched_view v = fast_is_full(MP_MS(20), MP_MS(200));

    /* k = 10, X = (14480 + 1448 * 4.5) * 10 = 209960; held beside it 9480 + 1448 */
    v.window = 209960 + 10928 + 1;
    CHECK_EQ(pick_by("blest", &v), 1);
    v.window -= 2;
    CHECK(pick_by("blest", &v) == -1);
    v.path[0].room = 1448; /* the fast one is never left out */
    CHECK_EQ(pick_by("blest", &v), 0);
}

TEST(blest_learns_from_a_blocked_window)
{
    struct mp_sched_view v = fast_is_full(MP_MS(20), MP_MS(200));

    v.window = 209960 * 1.2 + 10928;
    for (int i = 1; i <= 4; i++) { /* lambda 1.04 .. 1.16 */
        v.now += MP_MS(20);
        v.blocked++;
        CHECK_EQ(pick_by("blest", &v), 1);
    }
    v.blocked++;
    CHECK_EQ(pick_by("blest", &v), 1); /* not twice in a round trip */
    v.now += MP_MS(20);
    v.blocked++;
    v.window--;
    CHECK(pick_by("blest", &v) == -1); /* 1.20 */
    v.now += MP_MS(20);
    CHECK_EQ(pick_by("blest", &v), 1); /* forgotten again, slowly */
}

TEST(ecf_waits_where_the_fast_path_ends_sooner)
{
    struct mp_sched_view v = fast_is_full(MP_MS(10), MP_MS(300));

    v.queued = 14480 * 20; /* 210 ms over the fast path alone, against 300 before the first byte is over the slow one */
    CHECK(pick_by("ecf", &v) == -1);
    v.queued = 14480 * 40; /* 410 ms are more than 300 + 37.5, but not more than 1.25 of that: it keeps waiting */
    CHECK(pick_by("ecf", &v) == -1);
    v.queued = 14480 * 42;
    CHECK_EQ(pick_by("ecf", &v), 1);
    v.queued = 14480 * 40; /* and does not begin to */
    CHECK_EQ(pick_by("ecf", &v), 1);
    v.queued = 1448; /* less than two round trips of the fast path: nothing to gain by waiting */
    v.path[1].cwnd = 144800;
    CHECK_EQ(pick_by("ecf", &v), 1);
}

TEST(ecf_does_not_overflow)
{
    struct mp_sched_view v = fast_is_full(MP_SEC(1), MP_SEC(60));

    v.queued = 1ull << 41; /* (1 + 128) s over the fast path, 60 + 7.5 until the slow one delivers */
    v.path[0].cwnd = v.path[1].cwnd = 1ull << 34;
    CHECK_EQ(pick_by("ecf", &v), 1);
    v.queued = 1ull << 39;
    CHECK(pick_by("ecf", &v) == -1);
}

TEST(fit_gives_a_slow_path_what_is_acknowledged_before_the_window_is_full)
{
    struct mp_sched_view v = fast_is_full(MP_MS(20), MP_MS(200));

    /* Rates 724,000 + 72,400 bytes a second; 100 ms there, 10 back: 87,604 bytes of window. */
    v.window = 87700;
    CHECK_EQ(pick_by("fit", &v), 1);
    v.window = 87500;
    CHECK(pick_by("fit", &v) == -1);
    v.path[0].room = 1448;
    CHECK_EQ(pick_by("fit", &v), 0);
}

TEST(fit_sees_a_queue_by_what_is_in_flight)
{
    struct mp_sched_view v = fast_is_full(MP_MS(20), MP_MS(200));

    v.window = 150000;
    v.queued = 1000000;
    CHECK_EQ(pick_by("fit", &v), 1);
    v.path[1].flight = 14480 * 2; /* twice its bandwidth-delay product: 420 ms, though srtt does not know yet */
    CHECK(pick_by("fit", &v) == -1);
    v.path[1].flight = 0; /* drained: as fast as ever, whatever srtt remembers */
    v.path[1].srtt = MP_SEC(2);
    CHECK_EQ(pick_by("fit", &v), 1);
}

/* What follows a burst of segments on the slow path: it is acknowledged, with so much in flight on the fast one. */
static int segments_of_burst(struct mp_sched_view *v, uint64_t fast_flight_then)
{
    int n = 0;

    v->now += MP_SEC(1);
    v->path[1].flight = 0;
    while (pick_by("fit", v) == 1) v->path[1].flight = (uint64_t)++n * 1448;
    uint64_t before = v->path[0].flight;
    v->path[0].flight = fast_flight_then;
    pick_by("fit", v);
    v->path[0].flight = before;
    return n;
}

/* Where the window limits the fast path, a few segments on an idle slow one cost nothing if they are back before it idles. */
TEST(fit_gives_an_idle_slow_path_a_few_segments_that_the_fast_one_outlasts)
{
    struct mp_sched_view v = fast_is_full(MP_MS(20), MP_MS(200));

    v.now = MP_SEC(1);
    v.queued = 1000000;
    v.window = v.path[0].flight = 80000; /* 724,000 bytes a second: 110 ms of window, 90 ms of queue; 110 until it is back */
    v.conn_window = v.path[0].room = 2896;
    CHECK_EQ(segments_of_burst(&v, 80000), 1);
    v.now += MP_MS(15);
    v.path[1].flight = 0;
    CHECK_EQ(pick_by("fit", &v), 1);
    v.now += MP_MS(15);                  /* the moment is over; the next one when it is idle again */
    v.path[1].flight = 1448;
    CHECK_EQ(pick_by("fit", &v), 0);
    v.path[1].flight = 0;
    v.window = v.path[0].flight = 45000;
    CHECK_EQ(pick_by("fit", &v), 0);
    v.window = v.path[0].flight = 80000;
    v.conn_window = 100000;              /* it is not the window that limits it */
    CHECK_EQ(pick_by("fit", &v), 0);
}

TEST(fit_learns_how_many_segments_the_fast_path_outlasts)
{
    struct mp_sched_view v = fast_is_full(MP_MS(20), MP_MS(200));

    v.queued = 1000000;
    v.window = v.path[0].flight = 80000;
    v.conn_window = v.path[0].room = 2896;
    for (int n = 1; n <= 4; n++) CHECK_EQ(segments_of_burst(&v, 80000), n);
    CHECK_EQ(segments_of_burst(&v, 20000), 5); /* 14,480 without a queue: little of one is left */
    CHECK_EQ(segments_of_burst(&v, 80000), 5);
    CHECK_EQ(segments_of_burst(&v, 14000), 6); /* nothing is */
    for (int n = 3; n <= 8; n++) CHECK_EQ(segments_of_burst(&v, 80000), n);
    CHECK_EQ(segments_of_burst(&v, 80000), 8);
}

TEST(fit_leaves_the_end_to_the_fast_path)
{
    struct mp_sched_view v = fast_is_full(MP_MS(20), MP_MS(200));

    v.queued = 40000; /* (14480 + 40000) / 724 = 75 ms, less 10 of the way back, against 100 */
    CHECK(pick_by("fit", &v) == -1);
    v.queued = 80000;
    CHECK_EQ(pick_by("fit", &v), 1);
}

TEST(fit_does_not_wait_for_a_path_with_nothing_in_flight)
{
    struct mp_sched_view v = fast_is_full(MP_MS(20), MP_MS(200));

    v.window = 1;
    v.path[0].flight = 0; /* no ACK will come that could open it */
    CHECK_EQ(pick_by("fit", &v), 1);
}

TEST(roundrobin_takes_turns)
{
    struct mp_sched_view v = view(3);
    const char *rr = "roundrobin";

    CHECK_EQ(pick_by(rr, &v), 0);
    CHECK_EQ(pick_by(rr, &v), 1);
    CHECK_EQ(pick_by(rr, &v), 2);
    CHECK_EQ(pick_by(rr, &v), 0);
    v.path[1].room = 0;
    CHECK_EQ(pick_by(rr, &v), 2);
    v.path[0].id = 7; /* a new subflow in place of an old one */
    CHECK_EQ(pick_by(rr, &v), 0);
    v.path[1].room = 5000;
    CHECK_EQ(pick_by(rr, &v), 1);
}

/* ---- all of them ---- */

TEST(every_scheduler_uses_the_only_path) /* none waits for ever */
{
    for (int s = 0; mp_sched_all[s]; s++)
        for (int kind = 0; kind < 4; kind++) {
            struct mp_sched_view v = view(2);

            ROW("%s kind %d", mp_sched_all[s]->name, kind);
            v.path[0].room = 0;
            v.path[0].stale = true; /* the fast one has died */
            v.path[1].backup = kind & 1;
            v.window = kind & 2 ? 1500 : v.window;
            v.queued = 1;
            CHECK_EQ(mp_sched_all[s]->pick(&v), 1);
        }
}

TEST(every_scheduler_keeps_the_contract)
{
    uint64_t seed = 1;

    for (int s = 0; mp_sched_all[s]; s++) {
        const struct mp_sched *sched = mp_sched_all[s];

        CHECK(mp_sched_find(sched->name) == sched);
        CHECK(sched->source && sched->summary);
        for (int round = 0; round < 20000; round++) {
            struct mp_sched_view v = view((int)(test_random(&seed) % (MP_SCHED_MAX_PATHS + 1)));
            bool room = false, flight = false;
            int i, best;

            v.queued = test_random(&seed) >> (test_random(&seed) % 64);
            v.window = test_random(&seed) >> (test_random(&seed) % 64);

            for (i = 0; i < v.n; i++) {
                uint64_t r = test_random(&seed);

                v.path[i].srtt = r & 1 ? 0 : r % MP_SEC(3);
                v.path[i].room = r & 6 ? 0 : r % 14480;
                v.path[i].backup = r & 8;
                v.path[i].stale = r & 16;
                v.path[i].rate = r & 32 ? 0 : r >> 40;
                v.path[i].flight = r & 64 ? 0 : r >> 30;
                v.path[i].cwnd = r & 128 ? 1448 : r >> 20;
                v.path[i].min_rtt = v.path[i].srtt / (1 + (r >> 60));
                room |= v.path[i].room != 0;
            }
            ROW("%s round %d", sched->name, round);
            i = sched->pick(&v);
            CHECK(i >= -1 && i < v.n);
            CHECK(i < 0 || v.path[i].room > 0);
            CHECK(i < 0 || room);
            /* Never another class than the best; and it waits only for ACKs that will come. */
            best = mp_sched_best_class(&v);
            CHECK(i < 0 || mp_sched_class(&v.path[i]) == best);
            for (int j = 0; j < v.n; j++) flight |= mp_sched_class(&v.path[j]) == best && v.path[j].flight;
            CHECK(i >= 0 || flight || mp_sched_fastest(&v, best, true) < 0);
        }
    }
    CHECK(mp_sched_find("nope") == NULL);
}
