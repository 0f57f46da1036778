/* sim/table.c: named scenarios, each asserting a virtual completion time and more. The bounds follow from rates and
 * delays where the comment does not say otherwise; published ones are named. */
#include "sim/scen.h"

#define MB(n) ((uint64_t)(n) * 1000000)
#define KB(n) ((uint64_t)(n) * 1000)
#define MBIT(n) ((uint64_t)((n) * 1e6))

/* One direction: rate in Mbit/s, one-way delay in ms, queue in bytes, anything more. */
#define LINK(rate, ms, queue, ...) {.rate_bps = MBIT(rate), .delay = MP_US((ms) * 1000), .queue_bytes = (queue), __VA_ARGS__}
/* Path i, the same both ways, on interfaces of its own. */
#define PATH(i, rate, ms, queue, ...) \
    [i] = {.up = LINK(rate, ms, queue, __VA_ARGS__), .down = LINK(rate, ms, queue, __VA_ARGS__), .client_iface = i, .server_iface = i}
#define BOXED(i, rate, ms, queue, ...) \
    [i] = {.up = LINK(rate, ms, queue), .down = LINK(rate, ms, queue), .client_iface = i, .server_iface = i, \
           .box = {{__VA_ARGS__}}, .nbox = 1}
/* The same to the server's first interface. */
#define TO_SAME(i, rate, ms, ...) \
    [i] = {.up = LINK(rate, ms, 100000), .down = LINK(rate, ms, 100000), .client_iface = i, .server_iface = 0, __VA_ARGS__}
#define TWO_50 PATH(0, 50, 10, 250000), PATH(1, 50, 10, 250000)
/* As HTTP has it: a short question, a long answer; and the other way round. */
#define DOWNLOAD(n) .conn = {{.bytes = 100, .late_shut = true}, {.bytes = n}}
#define UPLOAD(n) .conn = {{.bytes = n}, {.bytes = 100, .after_eof = true}}
#define WHY(w) .why = (w) + 1

#define CHANGES(...) .change = {__VA_ARGS__}, .nchanges = sizeof((struct sim_change[]){__VA_ARGS__}) / sizeof(struct sim_change)

const struct sim_scen sim_table[] = {
    /* ---- rates ---- */
    {"one-path", .path = {PATH(0, 50, 10, 250000)}, .npaths = 1, DOWNLOAD(MB(5)), .not_before = MP_MS(800),
     .within = MP_MS(1150), WHY(MP_WHY_MULTIPATH)},
    {"two-paths-download", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)), .not_before = MP_MS(2000),
     .within = MP_MS(2500), .subflows = 2, .path_used = 3, WHY(MP_WHY_MULTIPATH)},
    {"two-paths-upload", .path = {TWO_50}, .npaths = 2, UPLOAD(MB(25)), .not_before = MP_MS(2000),
     .within = MP_MS(2500), .subflows = 2, .path_used = 3, WHY(MP_WHY_MULTIPATH)},
    /* The main job's first goal: 100 MB at 88 Mbit/s. */
    {"two-paths-100MB", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(100)), .within = MP_MS(9090), .path_used = 3},
    {"two-paths-both-ways", .path = {TWO_50}, .npaths = 2, .conn = {{.bytes = MB(10)}, {.bytes = MB(10)}},
     .within = MP_MS(1500), .subflows = 2, .path_used = 3},
    {"two-paths-gso", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)), .slice_max = MP_SLICE_MAX,
     .within = MP_MS(2600), .path_used = 3},
    {"two-paths-gso-local-queue", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)), .slice_max = MP_SLICE_MAX,
     .local_queue_bytes = 20000, .within = MP_MS(2600), .path_used = 3},
    {"two-paths-no-checksum", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)), .set_client = {"checksum=off"},
     .set_server = {"checksum=off"}, .within = MP_MS(2500), .path_used = 3},
    {"two-paths-batched", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)), .batch = MP_MS(1), .within = MP_MS(2600)},
    {"two-paths-cubic", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)), .set_client = {"cc=cubic"},
     .set_server = {"cc=cubic"}, .within = MP_MS(2500), .path_used = 3},
    {"two-paths-reno", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)), .set_client = {"cc=reno"},
     .set_server = {"cc=reno"}, .within = MP_MS(2500), .path_used = 3},
    {"four-paths", .path = {TWO_50, PATH(2, 20, 5, 100000), PATH(3, 10, 30, 100000)}, .npaths = 4, DOWNLOAD(MB(25)),
     .within = MP_MS(2400), .subflows = 4, .path_used = 15},
    {"two-paths-v6", .path = {TWO_50}, .npaths = 2, .client_iface = {{2}, {2}}, .server_iface = {{2}, {2}},
     .conn = {{.bytes = 100, .late_shut = true}, {.bytes = MB(10)}, .v6 = true}, .within = MP_MS(1300), .subflows = 2, .path_used = 3},
    /* One connection over IPv4 and IPv6. The server's second address is of the other family: it must announce it. */
    {"mixed-v4-v6", .path = {TWO_50}, .npaths = 2, .client_iface = {{1}, {2}},
     .server_iface = {{1}, {2}}, DOWNLOAD(MB(10)), .within = MP_MS(1400),
     .subflows = 2, .path_used = 3},
    /* 20 Mbit/s 20 ms + 10 Mbit/s 80 ms round trip: at least 26 Mbit/s (issue 2; kernel MPTCP 27.1). */
    {"unequal", .path = {PATH(0, 20, 10, 100000), PATH(1, 10, 40, 100000)}, .npaths = 2, DOWNLOAD(MB(24)),
     .within = MP_MS(7380), .path_used = 3},
    {"unequal-upload", .path = {PATH(0, 20, 10, 100000), PATH(1, 10, 40, 100000)}, .npaths = 2, UPLOAD(MB(24)),
     .within = MP_MS(7380), .path_used = 3},
    /* The kernel's acceptance test (simult_flows) sends 16 MiB one way and 80 KB the other, within size / (0.9 of the rates' sum) +
     * 450 ms, with netem's queue of 1,000 packets. Here 16 MiB go both ways at once, and the 450 ms are not needed: one way
     * takes 7.2 s. Without core/duplex.c 9 and 10 s with different delays; when windows followed the queues, 7.6 to 8.1 s. */
    {"simult-10-10", .path = {PATH(0, 10, 0.01, 1500000), PATH(1, 10, 0.01, 1500000)}, .npaths = 2,
     .conn = {{.bytes = 16777216}, {.bytes = 16777216}}, .within = MP_MS(7456)},
    {"simult-15-5", .path = {PATH(0, 15, 0.01, 1500000), PATH(1, 5, 0.01, 1500000)}, .npaths = 2,
     .conn = {{.bytes = 16777216}, {.bytes = 16777216}}, .within = MP_MS(7456)},
    /* The direction that starts first fills its queue before the other has left slow start. */
    {"simult-10-10-delay-1-25", .path = {PATH(0, 10, 1, 1500000), PATH(1, 10, 25, 1500000)}, .npaths = 2,
     .conn = {{.bytes = 16777216}, {.bytes = 16777216}}, .within = MP_MS(7600)},
    {"simult-15-5-delay-25-1", .path = {PATH(0, 15, 25, 1500000), PATH(1, 5, 1, 1500000)}, .npaths = 2,
     .conn = {{.bytes = 16777216}, {.bytes = 16777216}}, .within = MP_MS(7600)},
    /* Queues of 100 and 40 ms only: losses, after which the windows must be large enough for the peer's delay as well. */
    {"simult-10-10-queue-100ms", .path = {PATH(0, 10, 0.01, 125000), PATH(1, 10, 0.01, 125000)}, .npaths = 2,
     .conn = {{.bytes = 16777216}, {.bytes = 16777216}}, .within = MP_MS(7456)},
    {"simult-10-10-queue-40ms", .path = {PATH(0, 10, 0.01, 50000), PATH(1, 10, 0.01, 50000)}, .npaths = 2,
     .conn = {{.bytes = 16777216}, {.bytes = 16777216}}, .within = MP_MS(7456)},
    /* NSDI'12: 8 Mbit/s 20 ms + 2 Mbit/s 150 ms with 2 s of buffer; at 500 KB at least the best single path. */
    {"nsdi-500KB", .path = {PATH(0, 8, 10, 80000), PATH(1, 2, 75, 500000)}, .npaths = 2, DOWNLOAD(MB(10)),
     .set_client = {"rcvbuf-kb=500"}, .within = MP_MS(10500)},

    /* ---- loss ---- */
    /* Issue 2: 1 % loss on one of two 50 Mbit/s 10 ms paths: 47 Mbit/s with LIA, 55 with CUBIC. */
    {"loss-1-percent-lia", .path = {PATH(0, 50, 5, 125000), PATH(1, 50, 5, 125000, .loss_ppm = 10000)}, .npaths = 2,
     DOWNLOAD(MB(24)), .within = MP_MS(4085), .path_used = 3},
    {"loss-1-percent-cubic", .path = {PATH(0, 50, 5, 125000), PATH(1, 50, 5, 125000, .loss_ppm = 10000)}, .npaths = 2,
     DOWNLOAD(MB(24)), .set_client = {"cc=cubic"}, .set_server = {"cc=cubic"}, .within = MP_MS(3490), .path_used = 3},
    {"loss-5-percent-one-path", .path = {PATH(0, 20, 10, 100000, .loss_ppm = 50000)}, .npaths = 1, DOWNLOAD(MB(1)),
     .within = MP_SEC(12)},
    {"loss-20-percent-two-paths", .path = {PATH(0, 20, 10, 100000, .loss_ppm = 200000), PATH(1, 20, 10, 100000, .loss_ppm = 200000)},
     .npaths = 2, DOWNLOAD(KB(300)), .within = MP_SEC(60)},
    /* Patterns: every eighth frame; the second SYN's worth; a burst. */
    {"loss-mask-eighth", .path = {PATH(0, 20, 10, 100000, .loss_mask = 0x0101010101010101)}, .npaths = 1, DOWNLOAD(KB(500)),
     .within = MP_SEC(30)},
    {"loss-of-first-syn", .path = {PATH(0, 20, 10, 100000, .loss_mask = 1, .loss_mask_n = 1)}, .npaths = 1, DOWNLOAD(KB(100)),
     .within = MP_MS(4200), WHY(MP_WHY_MULTIPATH)},
    {"loss-of-third-ack", .path = {PATH(0, 20, 10, 100000, .loss_mask = 2, .loss_mask_n = 64)}, .npaths = 1, UPLOAD(KB(100)),
     .within = MP_MS(3000), WHY(MP_WHY_MULTIPATH)},
    {"loss-burst", .path = {PATH(0, 20, 10, 100000, .loss_mask = 0x3f0000, .loss_mask_n = 64)}, .npaths = 1, DOWNLOAD(MB(1)),
     .within = MP_MS(3000)},
    {"reordering", .path = {PATH(0, 50, 10, 250000, .reorder_ppm = 20000, .reorder_by = MP_MS(4)), PATH(1, 50, 10, 250000)},
     .npaths = 2, DOWNLOAD(MB(10)), .within = MP_MS(2500)},
    {"jitter", .path = {PATH(0, 50, 10, 250000, .jitter = MP_MS(10)), PATH(1, 50, 10, 250000, .jitter = MP_MS(10))},
     .npaths = 2, DOWNLOAD(MB(10)), .within = MP_MS(2500)},
    {"duplicates", .path = {PATH(0, 50, 10, 250000, .dup_ppm = 200000), PATH(1, 50, 10, 250000, .dup_ppm = 200000)},
     .npaths = 2, DOWNLOAD(MB(10)), .within = MP_MS(2500)},
    {"corruption", .path = {PATH(0, 50, 10, 250000, .corrupt_ppm = 2000), PATH(1, 50, 10, 250000, .corrupt_ppm = 2000)},
     .npaths = 2, DOWNLOAD(MB(5)), .within = MP_MS(2500)},
    {"tiny-queue", .path = {PATH(0, 10, 10, 8000), PATH(1, 10, 10, 8000)}, .npaths = 2, DOWNLOAD(MB(2)),
     .within = MP_MS(4000)},
    {"bufferbloat", .path = {PATH(0, 2, 10, 1000000), PATH(1, 8, 10, 1000000)}, .npaths = 2, DOWNLOAD(MB(4)),
     .within = MP_MS(4500)},

    /* ---- paths that go and come ---- */
    /* Issue 2: longest stall 150 ms with the link down, 400 ms with a silent blackhole; the path is used again. */
    {"link-down", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)), CHANGES({MP_SEC(1), 0, SIM_CH_CLIENT_LINK, 0}),
     .within = MP_MS(4500), .stall_max = MP_MS(150)},
    {"link-down-second", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)), CHANGES({MP_SEC(1), 1, SIM_CH_CLIENT_LINK, 0}),
     .within = MP_MS(4500), .stall_max = MP_MS(150)},
    {"link-down-upload", .path = {TWO_50}, .npaths = 2, UPLOAD(MB(25)), CHANGES({MP_SEC(1), 0, SIM_CH_CLIENT_LINK, 0}),
     .within = MP_MS(4500), .stall_max = MP_MS(150)},
    {"link-down-up", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(50)),
     CHANGES({MP_SEC(1), 0, SIM_CH_CLIENT_LINK, 0}, {MP_SEC(2), 0, SIM_CH_CLIENT_LINK, 1}), .within = MP_MS(6000),
     .stall_max = MP_MS(150)},
    {"server-link-down", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)), CHANGES({MP_SEC(1), 0, SIM_CH_SERVER_LINK, 0}),
     .within = MP_MS(4500), .stall_max = MP_MS(150)},
    {"blackhole", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)), CHANGES({MP_SEC(1), 0, SIM_CH_BLACKHOLE, 1}),
     .within = MP_MS(5000), .stall_max = MP_MS(150)},
    {"blackhole-second", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)), CHANGES({MP_SEC(1), 1, SIM_CH_BLACKHOLE, 1}),
     .within = MP_MS(5000), .stall_max = MP_MS(150)},
    {"blackhole-upload", .path = {TWO_50}, .npaths = 2, UPLOAD(MB(25)), CHANGES({MP_SEC(1), 0, SIM_CH_BLACKHOLE, 1}),
     .within = MP_MS(5000), .stall_max = MP_MS(150)},
    {"blackhole-and-back", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(100)),
     CHANGES({MP_SEC(1), 0, SIM_CH_BLACKHOLE, 1}, {MP_SEC(4), 0, SIM_CH_BLACKHOLE, 0}), .within = MP_MS(14000),
     .stall_max = MP_MS(150)},
    {"blackhole-one-direction", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)), CHANGES({MP_SEC(1), 0, SIM_CH_BLACKHOLE_UP, 1}),
     .within = MP_MS(5000), .stall_max = MP_MS(150)},
    {"all-paths-dead-for-5s", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)),
     CHANGES({MP_SEC(1), 0, SIM_CH_BLACKHOLE, 1}, {MP_SEC(1), 1, SIM_CH_BLACKHOLE, 1}, {MP_SEC(6), 0, SIM_CH_BLACKHOLE, 0},
             {MP_SEC(6), 1, SIM_CH_BLACKHOLE, 0}),
     .within = MP_SEC(18)},
    {"break-before-make", .path = {TWO_50}, .npaths = 2, .client_iface = {[1] = {.starts_down = true}}, DOWNLOAD(MB(10)),
     CHANGES({MP_MS(500), 0, SIM_CH_CLIENT_LINK, 0}, {MP_SEC(3), 1, SIM_CH_CLIENT_LINK, 1}), .within = MP_SEC(7),
     .path_used = 3},
    {"late-second-path", .path = {TWO_50}, .npaths = 2, .client_iface = {[1] = {.starts_down = true}}, DOWNLOAD(MB(25)),
     CHANGES({MP_SEC(1), 1, SIM_CH_CLIENT_LINK, 1}), .within = MP_MS(3300), .subflows = 2, .path_used = 3},
    {"backup-is-idle", .path = {PATH(0, 20, 10, 100000), PATH(1, 20, 10, 100000)}, .npaths = 2,
     .client_iface = {[1] = {.backup = true}}, DOWNLOAD(MB(5)), .not_before = MP_MS(1900), .within = MP_MS(2800),
     .subflows = 2},
    {"backup-takes-over", .path = {PATH(0, 20, 10, 100000), PATH(1, 20, 10, 100000)}, .npaths = 2,
     .client_iface = {[1] = {.backup = true}}, DOWNLOAD(MB(5)), CHANGES({MP_SEC(1), 0, SIM_CH_CLIENT_LINK, 0}),
     .within = MP_MS(3500), .path_used = 3, .stall_max = MP_MS(200)},
    {"rate-drops", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(20)), CHANGES({MP_SEC(1), 0, SIM_CH_RATE, MBIT(1)}),
     .within = MP_MS(5000)},
    {"flapping", .path = {TWO_50}, .npaths = 2, DOWNLOAD(MB(25)),
     CHANGES({MP_MS(300), 0, SIM_CH_CLIENT_LINK, 0}, {MP_MS(600), 0, SIM_CH_CLIENT_LINK, 1}, {MP_MS(900), 1, SIM_CH_CLIENT_LINK, 0},
             {MP_MS(1200), 1, SIM_CH_CLIENT_LINK, 1}, {MP_MS(1500), 0, SIM_CH_CLIENT_LINK, 0}, {MP_MS(1800), 0, SIM_CH_CLIENT_LINK, 1}),
     .within = MP_MS(5000)},

    /* Issue 3: two 20 Mbit/s 20 ms paths: longest stall 200 ms; back after 3 s, it is in use again within 1 s. */
#define TWO_20 PATH(0, 20, 10, 100000), PATH(1, 20, 10, 100000)
#define BACK(p) .back_path = p, .back_at = MP_SEC(4), .back_within = MP_SEC(1)
#define DEAD_3S(what, p) CHANGES({MP_SEC(1), p, what, what == SIM_CH_BLACKHOLE}, {MP_SEC(4), p, what, what != SIM_CH_BLACKHOLE})
    {"blackhole-20-and-back", .path = {TWO_20}, .npaths = 2, DOWNLOAD(MB(30)), DEAD_3S(SIM_CH_BLACKHOLE, 0), BACK(0),
     .within = MP_MS(9500), .stall_max = MP_MS(200)},
    {"blackhole-20-and-back-upload", .path = {TWO_20}, .npaths = 2, UPLOAD(MB(30)), DEAD_3S(SIM_CH_BLACKHOLE, 0), BACK(0),
     .within = MP_MS(9500), .stall_max = MP_MS(200)},
    {"blackhole-20-second-and-back", .path = {TWO_20}, .npaths = 2, DOWNLOAD(MB(30)), DEAD_3S(SIM_CH_BLACKHOLE, 1), BACK(1),
     .within = MP_MS(9500), .stall_max = MP_MS(200)},
    {"blackhole-20-and-back-gso", .path = {TWO_20}, .npaths = 2, .slice_max = MP_SLICE_MAX, DOWNLOAD(MB(30)), DEAD_3S(SIM_CH_BLACKHOLE, 0),
     BACK(0), .within = MP_MS(9500), .stall_max = MP_MS(200)},
    {"link-down-20-and-back", .path = {TWO_20}, .npaths = 2, DOWNLOAD(MB(30)), DEAD_3S(SIM_CH_CLIENT_LINK, 0), BACK(0),
     .within = MP_MS(9500), .stall_max = MP_MS(150)},
    {"link-down-20-and-back-upload", .path = {TWO_20}, .npaths = 2, UPLOAD(MB(30)), DEAD_3S(SIM_CH_CLIENT_LINK, 0), BACK(0),
     .within = MP_MS(9500), .stall_max = MP_MS(150)},
    {"server-link-down-20-and-back", .path = {TWO_20}, .npaths = 2, DOWNLOAD(MB(30)), DEAD_3S(SIM_CH_SERVER_LINK, 0), BACK(0),
     .within = MP_MS(9500), .stall_max = MP_MS(200)},
    {"server-link-down-20-second-and-back", .path = {TWO_20}, .npaths = 2, DOWNLOAD(MB(30)), DEAD_3S(SIM_CH_SERVER_LINK, 1), BACK(1),
     .within = MP_MS(9500), .stall_max = MP_MS(200)},
    {"server-link-down-20-and-back-upload", .path = {TWO_20}, .npaths = 2, UPLOAD(MB(30)), DEAD_3S(SIM_CH_SERVER_LINK, 0), BACK(0),
     .within = MP_MS(9500), .stall_max = MP_MS(200)},
    /* Issue 3: first SYN into a dead primary path: connected over the other within 400 ms; here with 100 KB behind it. */
    {"first-syn-into-dead-path", .path = {PATH(0, 20, 10, 100000), TO_SAME(1, 20, 10)}, .npaths = 2, DOWNLOAD(KB(100)),
     CHANGES({0, 0, SIM_CH_BLACKHOLE, 1}), .within = MP_MS(400), WHY(MP_WHY_MULTIPATH)},
    {"first-syn-answer-lost", .path = {PATH(0, 20, 10, 100000), TO_SAME(1, 20, 10)}, .npaths = 2, DOWNLOAD(KB(100)),
     CHANGES({0, 0, SIM_CH_BLACKHOLE_DOWN, 1}), .within = MP_MS(400), WHY(MP_WHY_MULTIPATH)},
    {"first-syn-on-slow-path", .path = {PATH(0, 20, 150, 100000), TO_SAME(1, 20, 10)}, .npaths = 2, DOWNLOAD(MB(1)),
     .within = MP_MS(1100), WHY(MP_WHY_MULTIPATH), .subflows = 2},
    {"first-syn-link-goes-down", .path = {PATH(0, 20, 50, 100000), TO_SAME(1, 20, 10)}, .npaths = 2, DOWNLOAD(KB(100)),
     CHANGES({MP_MS(20), 0, SIM_CH_CLIENT_LINK, 0}), .within = MP_MS(250), WHY(MP_WHY_MULTIPATH)},
    {"first-syn-plain-on-the-other", .path = {PATH(0, 20, 10, 100000), TO_SAME(1, 20, 10, .box = {{SIM_BOX_STRIP_ALL}}, .nbox = 1)}, .npaths = 2, DOWNLOAD(KB(100)),
     CHANGES({0, 0, SIM_CH_BLACKHOLE, 1}), .within = MP_MS(400), WHY(MP_WHY_NO_OPTION_SYNACK)},
    {"first-syn-drop-on-first-only", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_DROP_SYN), TO_SAME(1, 20, 10)}, .npaths = 2, DOWNLOAD(KB(100)),
     .within = MP_MS(400), WHY(MP_WHY_MULTIPATH)},

    /* ---- addresses ---- */
    {"server-announces", .path = {PATH(0, 20, 10, 100000), [1] = {LINK(20, 10, 100000), LINK(20, 10, 100000), .client_iface = 0, .server_iface = 1}},
     .npaths = 2, DOWNLOAD(MB(5)), .within = MP_MS(1700), .subflows = 2,
     .path_used = 3},
    {"server-one-address", .path = {PATH(0, 20, 10, 100000), [1] = {LINK(20, 10, 100000), LINK(20, 10, 100000), .client_iface = 1, .server_iface = 0}},
     .npaths = 2, DOWNLOAD(MB(5)), .within = MP_MS(1700), .subflows = 2, .path_used = 3},
    {"announcement-stripped", .path = {[0] = {LINK(20, 10, 100000), LINK(20, 10, 100000), .box = {{SIM_BOX_STRIP_ADD_ADDR}}, .nbox = 1},
              [1] = {LINK(20, 10, 100000), LINK(20, 10, 100000), .client_iface = 0, .server_iface = 1}},
     .npaths = 2, DOWNLOAD(MB(2)), .within = MP_MS(1500),
     WHY(MP_WHY_MULTIPATH)},

    /* ---- middleboxes ---- */
    {"strip-syn", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_STRIP_SYN)}, .npaths = 1, DOWNLOAD(MB(2)),
     .within = MP_MS(1300), WHY(MP_WHY_NO_OPTION_SYNACK)},
    {"strip-synack", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_STRIP_SYNACK)}, .npaths = 1, DOWNLOAD(MB(2)),
     .within = MP_MS(1300)},
    {"strip-nonsyn", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_STRIP_NONSYN)}, .npaths = 1, DOWNLOAD(MB(2)),
     .within = MP_MS(1500)},
    {"strip-nonsyn-upload", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_STRIP_NONSYN)}, .npaths = 1, UPLOAD(MB(2)),
     .within = MP_MS(1500)},
    {"strip-nonsyn-down-only", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_STRIP_NONSYN, .dirs = 2)}, .npaths = 1, UPLOAD(MB(2)),
     .within = MP_MS(1500)},
    {"strip-nonsyn-down-only-download", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_STRIP_NONSYN, .dirs = 2)}, .npaths = 1, DOWNLOAD(MB(2)),
     .within = MP_MS(1500)},
    {"strip-nonsyn-up-only-upload", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_STRIP_NONSYN, .dirs = 1)}, .npaths = 1, UPLOAD(MB(2)),
     .within = MP_MS(1500)},
    {"strip-nonsyn-up-only-download", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_STRIP_NONSYN, .dirs = 1)}, .npaths = 1, DOWNLOAD(MB(2)),
     .within = MP_MS(1500)},
    {"strip-later-on-only", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_STRIP_NONSYN, .from = MP_MS(300))}, .npaths = 1,
     .conn = {{.bytes = MB(2)}, {.bytes = MB(2)}}, .within = MP_MS(3000)},
    {"strip-all", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_STRIP_ALL)}, .npaths = 1, .conn = {{.bytes = MB(1)}, {.bytes = MB(2)}},
     .within = MP_MS(1500), WHY(MP_WHY_NO_OPTION_SYNACK)},
    {"strip-all-of-two", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_STRIP_ALL), PATH(1, 20, 10, 100000)}, .npaths = 2,
     DOWNLOAD(MB(2)), .within = MP_MS(1300), WHY(MP_WHY_NO_OPTION_SYNACK)},
    {"strip-on-second", .path = {PATH(0, 20, 10, 100000), BOXED(1, 20, 10, 100000, SIM_BOX_STRIP_ALL)}, .npaths = 2,
     DOWNLOAD(MB(2)), .within = MP_MS(1300), WHY(MP_WHY_MULTIPATH)},
    {"strip-nonsyn-on-second", .path = {PATH(0, 20, 10, 100000), BOXED(1, 20, 10, 100000, SIM_BOX_STRIP_NONSYN)}, .npaths = 2,
     DOWNLOAD(MB(2)), .within = MP_MS(2500), WHY(MP_WHY_MULTIPATH)},
    {"strip-later-on-second", .path = {PATH(0, 20, 10, 100000), BOXED(1, 20, 10, 100000, SIM_BOX_STRIP_NONSYN, .from = MP_MS(400))},
     .npaths = 2, DOWNLOAD(MB(4)), .within = MP_MS(4500), WHY(MP_WHY_MULTIPATH)},
    {"drop-syn", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_DROP_SYN)}, .npaths = 1, DOWNLOAD(MB(1)), .within = MP_SEC(9),
     WHY(MP_WHY_SYN_DROPPED)},
    {"drop-syn-on-second", .path = {PATH(0, 20, 10, 100000), BOXED(1, 20, 10, 100000, SIM_BOX_DROP_SYN)}, .npaths = 2,
     DOWNLOAD(MB(1)), .within = MP_MS(1000), WHY(MP_WHY_MULTIPATH)},
    {"nat", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_NAT, .nat_ip = {4, {192, 0, 2, 1}})}, .npaths = 1, DOWNLOAD(MB(2)),
     .within = MP_MS(1300), WHY(MP_WHY_MULTIPATH)},
    {"nat-on-both", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_NAT, .nat_ip = {4, {192, 0, 2, 1}}),
              BOXED(1, 20, 10, 100000, SIM_BOX_NAT, .nat_ip = {4, {192, 0, 2, 2}})},
     .npaths = 2, DOWNLOAD(MB(5)), .within = MP_MS(1700), .subflows = 2, .path_used = 3, WHY(MP_WHY_MULTIPATH)},
    {"sequence-rewriting", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_SEQ), BOXED(1, 20, 10, 100000, SIM_BOX_SEQ)}, .npaths = 2,
     DOWNLOAD(MB(5)), .within = MP_MS(1700), .subflows = 2, .path_used = 3, WHY(MP_WHY_MULTIPATH)},
    {"splitting", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_SPLIT), BOXED(1, 20, 10, 100000, SIM_BOX_SPLIT)}, .npaths = 2,
     .conn = {{.bytes = MB(1)}, {.bytes = MB(3)}}, .within = MP_MS(2000), .subflows = 2, .path_used = 3, WHY(MP_WHY_MULTIPATH)},
    {"merging", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_MERGE, .hold = MP_MS(1)), BOXED(1, 20, 10, 100000, SIM_BOX_MERGE, .hold = MP_MS(1))},
     .npaths = 2, .slice_max = MP_SLICE_MAX, .conn = {{.bytes = MB(1)}, {.bytes = MB(3)}}, .within = MP_MS(2000), .subflows = 2,
     .path_used = 3, WHY(MP_WHY_MULTIPATH)},
    {"merging-loses-mappings", .path = {PATH(0, 20, 10, 100000), BOXED(1, 20, 10, 100000, SIM_BOX_MERGE_ANY, .size = 2800, .hold = MP_MS(1))},
     .npaths = 2, UPLOAD(MB(2)), .within = MP_SEC(6)},
    {"holes-blocked", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_HOLES)}, .npaths = 1, DOWNLOAD(MB(2)), .within = MP_SEC(4)},
    {"holes-blocked-and-loss", .path = {[0] = {LINK(20, 10, 100000, .loss_ppm = 5000), LINK(20, 10, 100000, .loss_ppm = 5000),
              .box = {{SIM_BOX_HOLES}}, .nbox = 1}, PATH(1, 20, 10, 100000)},
     .npaths = 2, UPLOAD(MB(2)), .within = MP_SEC(6)},
    /* A changed payload: on one of several subflows that one goes (RFC 8684 3.7), and the stream is right. */
    {"payload-changed-on-second", .path = {PATH(0, 20, 10, 100000), BOXED(1, 20, 10, 100000, SIM_BOX_PAYLOAD, .nth = 1)}, .npaths = 2,
     DOWNLOAD(MB(2)), .within = MP_MS(2500), WHY(MP_WHY_MULTIPATH)},
    {"payload-changed-on-only", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_PAYLOAD, .nth = 100, .first = 50, .dirs = 2)}, .npaths = 1,
     DOWNLOAD(MB(1)), .must_change = true, .within = MP_MS(2500)},
    {"payload-changed-upload", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_PAYLOAD, .nth = 100, .first = 50, .dirs = 1)}, .npaths = 1,
     UPLOAD(MB(1)), .must_change = true, .within = MP_MS(2500)},
    {"small-mtu-told", .path = {PATH(0, 20, 10, 100000, .mtu = 1400, .icmp = true)}, .npaths = 1, DOWNLOAD(MB(1)),
     .within = MP_MS(2000)},

    /* ---- applications ---- */
    {"empty", .path = {TWO_50}, .npaths = 2, .within = MP_MS(200)},
    {"one-byte-each-way", .path = {TWO_50}, .npaths = 2, .conn = {{.bytes = 1}, {.bytes = 1}}, .within = MP_MS(200)},
    /* 100 questions of 200 bytes, each answered by 1,000: a round trip each and nothing on top. */
    {"request-response", .path = {TWO_50}, .npaths = 2,
     .conn = {{.bytes = 20000, .turn_tx = 200, .turn_rx = 1000}, {.bytes = 100000, .turn_tx = 1000, .turn_rx = 200, .second = true}},
     .within = MP_MS(2300)},
    /* Two writes a question: Nagle and delayed ACKs must not add 40 ms to each. */
    {"request-in-two-writes", .path = {TWO_50}, .npaths = 2,
     .conn = {{.bytes = 4000, .turn_tx = 200, .turn_rx = 1000, .write_min = 100, .write_max = 100, .open_flags = MP_OPEN_NODELAY},
              {.bytes = 20000, .turn_tx = 1000, .turn_rx = 200, .second = true}},
     .within = MP_MS(700)},
    {"half-close-at-once", .path = {TWO_50}, .npaths = 2, .conn = {{0}, {.bytes = MB(4)}}, .within = MP_MS(1000)},
    {"half-close", .path = {TWO_50}, .npaths = 2, .conn = {{.bytes = KB(500)}, {.bytes = KB(500), .after_eof = true}},
     .within = MP_MS(700)},
    {"release-early", .path = {TWO_50}, .npaths = 2, .conn = {{.bytes = MB(1), .release_early = true}, {0}}, .within = MP_MS(600)},
    {"client-aborts", .path = {TWO_50}, .npaths = 2, .conn = {{.bytes = MB(5), .abort_after = MB(2)}, {.peer_aborts = true}},
     .within = MP_MS(2000)},
    {"server-aborts", .path = {TWO_50}, .npaths = 2, .conn = {{.peer_aborts = true}, {.bytes = MB(5), .abort_after = MB(2)}},
     .within = MP_MS(2000)},
    {"plain-client-aborts", .path = {BOXED(0, 20, 10, 100000, SIM_BOX_STRIP_ALL)}, .npaths = 1,
     .conn = {{.bytes = MB(5), .abort_after = MB(1)}, {.peer_aborts = true}}, .within = MP_MS(2000)},
    {"slow-reader", .path = {TWO_50}, .npaths = 2, .conn = {.client = {.late_shut = true, .read_max = 20000, .read_gap = MP_MS(10)}, .server = {.bytes = MB(4)}},
     .set_client = {"rcvbuf-kb=256"}, .not_before = MP_MS(1900), .within = MP_MS(3000)},
    /* Nothing is read for 20 s: the window closes, is probed and opens. */
    {"late-reader", .path = {TWO_50}, .npaths = 2, .conn = {.client = {.late_shut = true, .read_from = MP_SEC(21)}, .server = {.bytes = MB(4)}},
     .set_client = {"rcvbuf-kb=128"}, .not_before = MP_SEC(20), .within = MP_SEC(30)},
    {"late-reader-loses-window-update", .path = {PATH(0, 20, 10, 100000)}, .npaths = 1,
     .conn = {.client = {.late_shut = true, .read_from = MP_SEC(6)}, .server = {.bytes = MB(2)}}, .set_client = {"rcvbuf-kb=128"},
     CHANGES({MP_MS(4800), 0, SIM_CH_BLACKHOLE_UP, 1}, {MP_MS(5200), 0, SIM_CH_BLACKHOLE_UP, 0}), .within = MP_SEC(20)},
    {"small-writes", .path = {TWO_50}, .npaths = 2,
     .conn = {.server = {.bytes = KB(200), .write_min = 1, .write_max = 300, .write_gap = MP_US(200)}}, .within = MP_MS(1500)},
    {"fifty-connections", .path = {TWO_50}, .npaths = 2, .nconn = 50, .conn_gap = MP_MS(2), DOWNLOAD(KB(200)), .within = MP_MS(2500)},
    {"hundred-short-connections", .path = {TWO_50}, .npaths = 2, .nconn = 100, .conn_gap = MP_MS(1),
     .conn = {{.bytes = 300}, {.bytes = 2000}}, .within = MP_MS(1000)},
};

const int sim_table_n = sizeof sim_table / sizeof *sim_table;

const struct sim_scen *sim_table_find(const char *name)
{
    for (int i = 0; i < sim_table_n; i++)
        if (strcmp(sim_table[i].name, name) == 0) return &sim_table[i];
    return NULL;
}
