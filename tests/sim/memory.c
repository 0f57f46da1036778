/* Many connections and little memory for all together (core/mem.c): streams intact, nobody stuck, the total bounded. */
#include "sim/scen.h"

#define LINK(mbit, ms, queue, ...) {.rate_bps = (mbit) * 1000000u, .delay = MP_MS(ms), .queue_bytes = (queue), __VA_ARGS__}
#define PATH(i, ...) [i] = {.up = LINK(__VA_ARGS__), .down = LINK(__VA_ARGS__), .client_iface = i, .server_iface = i}

/* With readers that pause, loss and paths of different delay, out-of-order data piles up on both sides. */
static const struct sim_scen many = {
    .name = "memory", .path = {PATH(0, 100, 5, 200000, .loss_ppm = 2000), PATH(1, 50, 60, 400000, .loss_ppm = 2000)}, .npaths = 2,
    .nconn = 60, .conn_gap = MP_MS(3), .within = MP_SEC(300),
    .conn = {{.bytes = 600000, .read_max = 30000, .read_gap = MP_MS(20)}, {.bytes = 600000, .read_max = 30000, .read_gap = MP_MS(20)}},
};

static int check(unsigned mb, int nconn, uint64_t seed)
{
    static char set[32];
    struct sim_scen sc = many;
    struct sim_result r;
    sc.nconn = nconn;
    snprintf(set, sizeof set, "mem-mb=%u", mb);
    sc.set_client[0] = sc.set_server[0] = set;
    bool ok = sim_scen_run(&sc, seed, NULL, NULL, &r);
    /* On top of the limit, for each connection: a chunk in its queue and one that is being filled, and a least window. */
    uint64_t bound = ((uint64_t)mb << 20) + (uint64_t)nconn * (2 * 65536 + 16384), peak = 0, refused = 0, dropped = 0;
    for (int i = 0; i < 2; i++) {
        peak = mp_max(peak, r.memory_peak[i]);
        refused += r.counter[i][MP_E_memory_refused];
        dropped += r.counter[i][MP_E_memory_dropped];
    }
    printf("%3u MB for %d connections, seed %llu: %7.3f s, peak %.2f MB of %.2f, %llu bytes dropped, %llu SYNs refused%s%s\n", mb, nconn,
           (unsigned long long)seed, (double)r.took / 1e9, (double)peak / 1048576, (double)bound / 1048576,
           (unsigned long long)dropped, (unsigned long long)refused, ok ? "" : ": ", r.failure);
    return !ok || peak > bound || (mb == 512 && (dropped || refused));
}

int main(void)
{
    int failed = 0;
    for (uint64_t seed = 1; seed <= 2; seed++) failed += check(512, 60, seed) + check(16, 60, seed) + check(4, 60, seed) + check(1, 20, seed);
    printf("sim_memory: %d of 8 failed\n", failed);
    return failed != 0;
}
