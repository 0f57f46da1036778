/* ECN in simulation: a queue that marks instead of dropping costs no retransmission and no goodput; with coupled congestion
 * control the mark slows the subflow whose packet had it; paths that do not bear ECN are told from those that do. */
#include "check.h"
#include "sim/scen.h"

#define MBIT 1000000u

static struct sim_scen download(const char *cc, const char *ecn, uint64_t bytes)
{
    static char set[2][24];
    struct sim_link_cfg link = {.rate_bps = 20 * MBIT, .delay = MP_MS(10), .queue_bytes = 100000};
    struct sim_scen sc = {.name = "ecn", .npaths = 1, .conn = {.server = {.bytes = bytes}}, .within = MP_SEC(120)};
    snprintf(set[0], sizeof set[0], "cc=%s", cc);
    snprintf(set[1], sizeof set[1], "ecn=%s", ecn);
    for (int i = 0; i < 2; i++) sc.set_client[i] = sc.set_server[i] = set[i];
    sc.path[0] = (struct sim_path_cfg){.up = link, .down = link};
    return sc;
}

static struct sim_result run(const struct sim_scen *sc)
{
    struct sim_result r;
    CHECK(sim_scen_run(sc, 1, NULL, NULL, &r));
    if (!r.ok) printf("%s\n", r.failure);
    printf("  %-8s %-10s %5.2f Mbit/s, sent again %llu, reductions by marks %llu, by loss %llu, given up %llu\n", sc->set_server[0], sc->set_server[1],
           r.goodput_bps / 1e6, (unsigned long long)r.counter[1][MP_E_seg_rexmit], (unsigned long long)r.counter[1][MP_E_ecn_reduced],
           (unsigned long long)r.counter[1][MP_E_recovery], (unsigned long long)r.counter[1][MP_E_ecn_given_up]);
    return r;
}

TEST(a_marking_queue_loses_nothing_and_is_as_fast)
{
    static const char *const cc[] = {"cubic", "reno", "lia"};
    for (int i = 0; i < 3; i++) {
        struct sim_scen off = download(cc[i], "off", 20000000);
        struct sim_result a = run(&off);
        struct sim_scen on = download(cc[i], "on", 20000000);
        on.path[0].down.ce_bytes = 20000;
        struct sim_result b = run(&on);
        CHECK_NUM(b.counter[0][MP_E_ecn_ce_in], >, 0);
        CHECK_NUM(b.counter[1][MP_E_ecn_reduced], >, 0);
        CHECK_NUM(a.counter[1][MP_E_seg_rexmit], >, 20); /* or the comparison proves nothing */
        CHECK_NUM(b.counter[1][MP_E_seg_rexmit], <=, 2);
        CHECK(b.goodput_bps > (i ? 0.93 : 0.98) * a.goodput_bps); /* half of a short queue does not fill the link: Reno */
    }
}

TEST(a_mark_slows_the_subflow_that_had_it)
{
    struct sim_scen sc = download("lia", "on", 10000000);
    sc.npaths = 2;
    sc.path[1] = sc.path[0];
    sc.path[1].client_iface = sc.path[1].server_iface = 1;
    sc.subflows = 2;
    struct sim_result even = run(&sc);
    sc.path[1].down.ce_ppm = 100000; /* 10 % of path 1 */
    struct sim_result r = run(&sc);
    CHECK_NUM(r.counter[1][MP_E_ecn_reduced], >, 10);
    CHECK_NUM(r.link_bytes[1][1], <, even.link_bytes[1][1] / 2);
    CHECK_NUM(r.link_bytes[0][1], >, even.link_bytes[0][1]);
}

TEST(paths_that_do_not_bear_it_are_told)
{
    struct sim_scen sc = download("cubic", "on", 3000000);
    sc.path[0].down.ce_ppm = 1000000;
    struct sim_result r = run(&sc);
    CHECK_NUM(r.counter[1][MP_E_ecn_given_up], ==, 1);
    CHECK(r.goodput_bps > 11e6);
    sc = download("cubic", "on", 3000000);
    sc.path[0].down.drop_ect = true;
    r = run(&sc);
    CHECK_NUM(r.counter[1][MP_E_ecn_given_up], ==, 1);
    CHECK(r.goodput_bps > 11e6);
    sc = download("cubic", "on", 3000000);
    sc.path[0].up.drop_ecn_syn = true;
    r = run(&sc);
    CHECK_NUM(r.counter[0][MP_E_ecn_syn_plain], ==, 1);
    CHECK_NUM(r.counter[1][MP_E_ecn_up], ==, 0);
    CHECK_NUM(r.why, ==, MP_WHY_MULTIPATH); /* the second SYN still offers MPTCP */
}
