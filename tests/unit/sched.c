/* tests/unit/sched.c: schedulers. */
#include "core/sched/sched.h"

#include "test.h"

static struct mp_sched_path path(mp_dur srtt, uint64_t room)
{
    return (struct mp_sched_path){ .srtt = srtt, .cwnd = 14480, .flight = 14480 - room, .room = room, .mss = 1448 };
}

static struct mp_sched_view view(int n)
{
    struct mp_sched_view v = { .n = n, .queued = 100000, .conn_window = 100000 };

    for (int i = 0; i < n; i++) v.path[i] = path(MP_MS(10 * (i + 1)), 5000);
    return v;
}

static int pick(const struct mp_sched_view *v) { return mp_sched_find("minrtt")->pick(v); }

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

TEST(every_scheduler_keeps_the_contract)
{
    uint64_t seed = 1;

    for (int s = 0; mp_sched_all[s]; s++) {
        const struct mp_sched *sched = mp_sched_all[s];

        CHECK(mp_sched_find(sched->name) == sched);
        CHECK(sched->source && sched->summary);
        for (int round = 0; round < 20000; round++) {
            struct mp_sched_view v = view((int)(test_random(&seed) % (MP_SCHED_MAX_PATHS + 1)));
            bool room = false;
            int i;

            for (i = 0; i < v.n; i++) {
                uint64_t r = test_random(&seed);

                v.path[i].srtt = r & 1 ? 0 : r % MP_SEC(3);
                v.path[i].room = r & 6 ? 0 : r % 14480;
                v.path[i].backup = r & 8;
                v.path[i].stale = r & 16;
                room |= v.path[i].room != 0;
            }
            ROW("%s round %d", sched->name, round);
            i = sched->pick(&v);
            CHECK(i >= -1 && i < v.n);
            CHECK(i < 0 || v.path[i].room > 0);
            CHECK(i < 0 || room);
        }
    }
    CHECK(mp_sched_find("nope") == NULL);
}
