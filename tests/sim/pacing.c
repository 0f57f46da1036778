/* Pacing in simulation: a bottleneck whose queue holds a fraction of a window. In bursts a window overflows it although the
 * path could carry all of it, and slow start ends too soon. */
#include "check.h"
#include "sim/scen.h"

#define MBIT 1000000u

struct path { const char *name; uint32_t mbit, ms, queue; };

/* 50 Mbit/s x 40 ms: 250 KB of window in flight. */
static const struct path shallow[] = {
    {"50 Mbit/s 40 ms, queue 1/10 of a window", 50, 20, 25000},
    {"50 Mbit/s 40 ms, queue 1/4", 50, 20, 62500},
    {"20 Mbit/s 100 ms, queue 1/8", 20, 50, 31250},
};

static struct sim_result download(const struct path *p, const char *cc, const char *pacing, bool bursts, uint64_t rcvbuf)
{
    static char text[2][24];
    struct sim_link_cfg down = {.rate_bps = p->mbit * MBIT, .delay = MP_MS(p->ms), .queue_bytes = p->queue};
    struct sim_link_cfg up = {.rate_bps = p->mbit * MBIT, .delay = MP_MS(p->ms), .queue_bytes = 250000};
    struct sim_scen sc = {.name = "pacing", .npaths = 1, .conn = {.server = {.bytes = 20000000}}, .within = MP_SEC(120)};
    struct sim_result r;
    sc.path[0] = (struct sim_path_cfg){.up = up, .down = down};
    sc.conn.client.rcvbuf = rcvbuf;
    if (bursts) { /* as on the fast path: slices of 64 KB, and ACKs that come together */
        sc.slice_max = MP_SLICE_MAX;
        sc.batch = MP_MS(1);
    }
    snprintf(text[0], sizeof text[0], "cc=%s", cc);
    snprintf(text[1], sizeof text[1], "pacing=%s", pacing);
    for (int i = 0; i < 2; i++) sc.set_client[i] = sc.set_server[i] = text[i];
    CHECK(sim_scen_run(&sc, 1, NULL, NULL, &r));
    printf("  %-40s %-6s pacing %-3s %s %6.2f Mbit/s, lost %5llu\n", p->name, cc, pacing, bursts ? "slices  " : "segments", r.goodput_bps / 1e6,
           (unsigned long long)r.counter[1][MP_E_seg_lost]);
    return r;
}

/* The mean of five queues, 9/10 to 11/10 of the row's: when a single run leaves slow start is decided by a packet or two. */
static double around(const struct path *p, const char *cc, const char *pacing, bool bursts)
{
    double sum = 0;
    for (int i = -2; i <= 2; i++) {
        struct path q = *p;
        q.queue = (uint32_t)((int)p->queue + i * (int)p->queue / 20);
        sum += download(&q, cc, pacing, bursts, 0).goodput_bps;
    }
    return sum / 5;
}

static void compare(bool bursts, double better)
{
    static const char *const cc[] = {"cubic", "lia"};
    double ratio = 0;
    int n = 0;
    for (unsigned i = 0; i < sizeof shallow / sizeof *shallow; i++)
        for (int k = 0; k < 2; k++, n++) {
            double off = around(&shallow[i], cc[k], "off", bursts), on = around(&shallow[i], cc[k], "on", bursts);
            printf("  %s, %s: %.2f with pacing, %.2f without\n", shallow[i].name, cc[k], on / 1e6, off / 1e6);
            ratio += on / off;
            CHECK(on > off);
        }
    printf("  goodput x %.2f\n", ratio / n);
    CHECK(ratio / n > better);
}

TEST(segments_into_a_short_queue) { compare(false, 1.15); }
TEST(slices_into_a_short_queue) { compare(true, 1.5); }

TEST(a_window_that_the_path_can_carry_loses_nothing)
{
    for (int bursts = 0; bursts < 2; bursts++) {
        struct sim_result off = download(&shallow[0], "cubic", "off", bursts, 120000), on = download(&shallow[0], "cubic", "on", bursts, 120000);
        CHECK_NUM(off.counter[1][MP_E_seg_lost], >, 0);
        CHECK_NUM(on.counter[1][MP_E_seg_lost], ==, 0);
        CHECK(on.goodput_bps > off.goodput_bps);
    }
}
