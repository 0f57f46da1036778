/* NSDI 2012: 8 Mbit/s 20 ms (80 ms of queue) + 2 Mbit/s 150 ms (2 s of queue), and a receiver whose buffer is small
 * against what the slow path holds. Whatever its size, two paths must not be worse than the better one alone, and from
 * 500 KB on they must nearly add up (issue 3; the kernel's MPTCP: 4.4, 4.7, 5.3, 5.8 Mbit/s at the first four). */
#include <stdlib.h>

#include "sim/scen.h"

#define SIZE 20000000u
#define LINK(mbit, ms, queue) {.rate_bps = (mbit) * 1000000u, .delay = MP_MS(ms), .queue_bytes = (queue)}

static const struct sim_path_cfg fast = {.up = LINK(8, 10, 80000), .down = LINK(8, 10, 80000)};
static const struct sim_path_cfg slow = {.up = LINK(2, 75, 500000), .down = LINK(2, 75, 500000), .client_iface = 1, .server_iface = 1};

struct options {
    const char *scheduler, *cc, *extra;
    bool watch;
};

/* Mbit/s of one download into a receiver with that buffer; negative: failed. slow_first: the first subflow's path. */
static double goodput(const struct options *o, int npaths, bool slow_first, uint64_t rcvbuf, bool upload, struct sim_result *r)
{
    static char sched[32], cc[32];
    struct sim_scen sc = {.name = "rcvbuf", .npaths = npaths, .path = {fast, slow}, .within = MP_SEC(120)};
    struct sim_app_cfg sender = {.bytes = SIZE}, receiver = {.bytes = 100, .late_shut = !upload, .after_eof = upload, .rcvbuf = rcvbuf};
    sc.conn.client = upload ? sender : receiver;
    sc.conn.server = upload ? receiver : sender;
    sc.conn.path = slow_first ? 1 : 0;
    snprintf(sched, sizeof sched, "scheduler=%s", o->scheduler);
    snprintf(cc, sizeof cc, "cc=%s", o->cc);
    const char *set[] = {sched, cc, o->extra};
    for (int i = 0; i < 3; i++) sc.set_client[i] = sc.set_server[i] = set[i];
    if (!sim_scen_run(&sc, 1, NULL, NULL, r)) {
        printf("failed: %s\n", r->failure);
        return -1;
    }
    return SIZE * 8e3 / (double)r->took;
}

static int row(const struct options *o, bool slow_first, bool upload, double single)
{
    static const unsigned kb[] = {64, 128, 200, 300, 500, 1000};
    int failed = 0;
    printf("%-10s %-6s first over %s, %-8s", o->scheduler, o->cc, slow_first ? "slow" : "fast", upload ? "upload" : "download");
    for (unsigned i = 0; i < sizeof kb / sizeof *kb; i++) {
        struct sim_result r;
        double got = goodput(o, 2, slow_first, kb[i] * 1024, upload, &r), want = kb[i] >= 500 ? 9.0 : single;
        if (kb[i] < 100) want *= 1.02; /* a few segments at a time on the slow path: fit.c */
        if (slow_first && kb[i] < 500) want *= 0.98; /* its handshake and the join's take half a second there */
        bool ok = got >= want - 0.005;
        printf(" %6.2f%s", got, ok ? " " : "!");
        failed += !ok;
    }
    printf("\n");
    return failed;
}

/* sim_rcvbuf [SCHEDULER [CC [SETTING=VALUE]]]: a table for comparison; without arguments what must hold. */
int main(int argc, char **argv)
{
    static const char *const cc[] = {"lia", "cubic"};
    int failed = 0, rows = 0;
    for (int k = 0; k < (argc > 2 ? 1 : 2); k++) {
        struct options o = {.scheduler = argc > 1 ? argv[1] : "fit", .cc = argc > 2 ? argv[2] : cc[k], .extra = argc > 3 ? argv[3] : NULL};
        struct sim_result r;
        double single = goodput(&o, 1, false, 1000 * 1024, false, &r);
        printf("the better path alone: %.2f Mbit/s; buffers of 64, 128, 200, 300, 500, 1000 KB:\n", single);
        for (int i = 0; i < 4; i++, rows++) failed += row(&o, i & 1, i & 2, single);
    }
    printf("sim_rcvbuf: %d of %d too slow\n", failed, rows * 6);
    return failed != 0;
}
