/* The path's MTU found with data (RFC 4821): a path that swallows what is larger than X, and no ICMP tells. After two
 * time-outs segments are small; they end near X. A path that grows is found too, after ten minutes. */
#include "check.h"
#include "core/sf_out.h"
#include "sim/scen.h"

#define MBIT 1000000u

/* The largest packet on a path of 1500 bytes, by the MSS that the peer tells. */
#define LARGEST (1500 - MSS_ROOM)

static struct sim_scen path(uint32_t mtu, bool v6, uint64_t bytes)
{
    struct sim_link_cfg link = {.rate_bps = 20 * MBIT, .delay = MP_MS(10), .queue_bytes = 100000, .mtu = mtu};
    struct sim_scen sc = {.name = "pmtu", .npaths = 1, .conn = {.server = {.bytes = bytes}, .v6 = v6}, .within = MP_SEC(1000)};
    sc.path[0] = (struct sim_path_cfg){.up = link, .down = link};
    if (v6) sc.client_iface[0].families = sc.server_iface[0].families = 2;
    return sc;
}

/* The MTU that the server's first connection ended with. */
static uint32_t ends_with(const struct sim_scen *sc, struct sim_result *r)
{
    CHECK(sim_scen_run(sc, 1, NULL, NULL, r));
    if (!r->ok) printf("%s\n", r->failure);
    printf("  MTU %u: segments of %u, %.2f s, lowered %llu, probes %llu, raised %llu, recoveries %llu, time-outs %llu\n", sc->path[0].down.mtu, r->mtu[1],
           (double)r->took / 1e9, (unsigned long long)r->counter[1][MP_E_mtu_lowered], (unsigned long long)r->counter[1][MP_E_mtu_probe],
           (unsigned long long)r->counter[1][MP_E_mtu_raised], (unsigned long long)r->counter[1][MP_E_recovery],
           (unsigned long long)r->counter[1][MP_E_rto]);
    return r->mtu[1];
}

TEST(segments_end_near_what_the_path_carries)
{
    static const uint32_t mtu[] = {1300, 1400, LARGEST - 10};
    for (int v6 = 0; v6 < 2; v6++)
        for (int i = 0; i < 3; i++) {
            struct sim_scen sc = path(mtu[i], v6, 10000000);
            struct sim_result r;
            uint32_t got = ends_with(&sc, &r);
            CHECK_NUM(got, <=, mtu[i]);
            CHECK_NUM(got, >, mtu[i] - 8);
            CHECK_NUM(r.counter[1][MP_E_mtu_lowered], ==, 1);
        }
}

/* Probes that are lost are not congestion: no time-out beyond the first ones, and the window is reduced by queues only. */
TEST(lost_probes_are_no_congestion)
{
    struct sim_scen sc = path(1300, false, 4000000);
    struct sim_result r;
    sc.path[0].down.queue_bytes = sc.path[0].up.queue_bytes = 0;
    ends_with(&sc, &r);
    CHECK_NUM(r.counter[1][MP_E_mtu_probe], >, 4);
    CHECK_NUM(r.counter[1][MP_E_recovery], ==, 0);
    CHECK_NUM(r.counter[1][MP_E_rto], <=, 2);
}

TEST(random_loss_does_not_hide_it)
{
    struct sim_scen sc = path(1400, false, 10000000);
    struct sim_result r;
    sc.path[0].down.loss_ppm = 5000;
    uint32_t got = ends_with(&sc, &r);
    CHECK_NUM(got, <=, 1400);
    CHECK_NUM(got, >, 1360);
}

/* A slow program on a path that grows after a minute. */
TEST(a_path_that_grows_is_found)
{
    struct sim_scen sc = path(1300, false, 30000000);
    struct sim_result r;
    sc.conn.server.write_min = sc.conn.server.write_max = 60000;
    sc.conn.server.write_gap = MP_SEC(1);
    sc.change[sc.nchanges++] = (struct sim_change){MP_SEC(60), 0, SIM_CH_MTU, 1500};
    CHECK_NUM(ends_with(&sc, &r), ==, LARGEST);
}

TEST(what_icmp_lowered_is_tried_again)
{
    struct sim_scen sc = path(1400, false, 30000000);
    struct sim_result r;
    sc.path[0].down.icmp = sc.path[0].up.icmp = true;
    sc.conn.server.write_min = sc.conn.server.write_max = 60000;
    sc.conn.server.write_gap = MP_SEC(1);
    CHECK_NUM(ends_with(&sc, &r), ==, 1400);
    CHECK_NUM(r.counter[1][MP_E_mtu_probe], >, 0); /* ten minutes later, and told again */
    CHECK_NUM(r.counter[1][MP_E_rto], ==, 0);
    sc.change[sc.nchanges++] = (struct sim_change){MP_SEC(60), 0, SIM_CH_MTU, 1500};
    CHECK_NUM(ends_with(&sc, &r), ==, LARGEST);
}
