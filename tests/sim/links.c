/* The simulator's links keep time, order and count (no stack involved). */
#include "check.h"
#include "core/wire.h"
#include "sim/link.h"

/* A node that remembers what arrived when. */
struct sink {
    struct sim_node node;
    int n;
    mp_time at[4096];
    uint32_t seq[4096];
};

static void sink_forward(struct sim_node *n, struct sim_pkt *p)
{
    struct sink *k = (struct sink *)n;
    if (k->n < 4096) {
        k->at[k->n] = n->sim->now;
        k->seq[k->n++] = p->h.seq;
    }
    sim_pkt_free(n->sim, p);
}
static mp_time sink_next(const struct sim_node *n) { return (void)n, MP_NEVER; }
static void sink_run(struct sim_node *n) { (void)n; }
static void sink_free(struct sim_node *n) { (void)n; }
static const struct sim_node_ops sink_ops = {sink_forward, sink_next, sink_run, sink_free};

struct lab {
    struct sim s;
    struct sink sink;
    struct sim_link *l;
};

static void lab_init(struct lab *b, uint64_t seed, struct sim_link_cfg cfg)
{
    memset(b, 0, sizeof *b);
    sim_init(&b->s, seed);
    sim_node_add(&b->s, &b->sink.node, &sink_ops, "sink");
    b->l = sim_link_new(&b->s, "link", &cfg, &b->sink.node);
}

static void lab_fini(struct lab *b)
{
    sim_fini(&b->s);
    CHECK_NUM(b->s.packets_live, ==, 0);
}

static void lab_send(struct lab *b, uint32_t seq, uint32_t len)
{
    struct mp_pkt h = {.src = {sim_addr("10.0.0.1"), 1}, .dst = {sim_addr("10.0.0.2"), 2}, .seq = seq, .flags = MP_ACK};
    uint8_t payload[2000] = {1, 2, 3};
    sim_send(&b->l->node, sim_pkt_new(&b->s, &h, payload, len));
}

TEST(rate_and_delay_give_the_arrival_time)
{
    struct lab b;
    /* 1446 + 40 + 14 = 1500 bytes a frame: 1.2 ms at 10 Mbit/s. */
    lab_init(&b, 1, (struct sim_link_cfg){.rate_bps = 10000000, .delay = MP_MS(5)});
    for (uint32_t i = 0; i < 10; i++) lab_send(&b, i, 1446);
    sim_run_until(&b.s, MP_NEVER);
    CHECK_NUM(b.sink.n, ==, 10);
    for (int i = 0; i < b.sink.n; i++) CHECK_NUM(b.sink.at[i], ==, SIM_START + MP_MS(5) + MP_US(1200) * (unsigned)(i + 1));
    lab_fini(&b);
}

TEST(queue_is_bounded_in_bytes)
{
    struct lab b;
    lab_init(&b, 1, (struct sim_link_cfg){.rate_bps = 10000000, .queue_bytes = 15000});
    for (uint32_t i = 0; i < 20; i++) lab_send(&b, i, 1446);
    CHECK_NUM(sim_link_backlog(b.l), ==, 15000);
    CHECK_NUM(b.l->stats.dropped_queue, ==, 10);
    mp_time at = sim_link_backlog_at(b.l, 3000);
    sim_run_until(&b.s, at);
    CHECK_NUM(sim_link_backlog(b.l), <=, 3000);
    sim_run_until(&b.s, MP_NEVER);
    CHECK_NUM(b.sink.n, ==, 10);
    lab_fini(&b);
}

TEST(loss_is_as_frequent_as_told)
{
    struct lab b;
    lab_init(&b, 7, (struct sim_link_cfg){.loss_ppm = 100000});
    for (uint32_t i = 0; i < 4000; i++) lab_send(&b, i, 10);
    sim_run_until(&b.s, MP_NEVER);
    CHECK_NUM(b.l->stats.dropped_loss, >, 320);
    CHECK_NUM(b.l->stats.dropped_loss, <, 480);
    CHECK_NUM(b.sink.n, ==, 4000 - (int)b.l->stats.dropped_loss);
    lab_fini(&b);
}

TEST(loss_mask_drops_the_frames_it_names)
{
    struct lab b;
    lab_init(&b, 1, (struct sim_link_cfg){.loss_mask = 1u << 1 | 1u << 3, .loss_mask_n = 5});
    for (uint32_t i = 0; i < 70; i++) lab_send(&b, i, 10);
    sim_run_until(&b.s, MP_NEVER);
    CHECK_NUM(b.sink.n, ==, 68);
    CHECK_NUM(b.sink.seq[0], ==, 0);
    CHECK_NUM(b.sink.seq[1], ==, 2);
    CHECK_NUM(b.sink.seq[2], ==, 4);
    lab_fini(&b);
}

TEST(jitter_keeps_order_and_reordering_does_not)
{
    struct lab b;
    lab_init(&b, 3, (struct sim_link_cfg){.delay = MP_MS(1), .jitter = MP_MS(20)});
    for (uint32_t i = 0; i < 500; i++) {
        lab_send(&b, i, 10);
        sim_run_until(&b.s, b.s.now + MP_US(100));
    }
    sim_run_until(&b.s, MP_NEVER);
    for (int i = 0; i < b.sink.n; i++) CHECK_NUM(b.sink.seq[i], ==, i);
    lab_fini(&b);

    lab_init(&b, 3, (struct sim_link_cfg){.delay = MP_MS(1), .reorder_ppm = 100000, .reorder_by = MP_MS(2)});
    for (uint32_t i = 0; i < 500; i++) {
        lab_send(&b, i, 10);
        sim_run_until(&b.s, b.s.now + MP_US(100));
    }
    sim_run_until(&b.s, MP_NEVER);
    CHECK_NUM(b.sink.n, ==, 500);
    CHECK_NUM(b.l->stats.reordered, >, 20);
    int late = 0;
    for (int i = 1; i < b.sink.n; i++) late += b.sink.seq[i] < b.sink.seq[i - 1];
    CHECK_NUM(late, >, 10);
    lab_fini(&b);
}

TEST(duplicates_and_corruption_are_counted)
{
    struct lab b;
    lab_init(&b, 5, (struct sim_link_cfg){.dup_ppm = 200000, .corrupt_ppm = 100000});
    for (uint32_t i = 0; i < 1000; i++) lab_send(&b, i, 10);
    sim_run_until(&b.s, MP_NEVER);
    CHECK_NUM(b.l->stats.duplicated, >, 140);
    CHECK_NUM(b.l->stats.dropped_corrupt, >, 70);
    CHECK_NUM(b.sink.n, ==, 1000 + (int)b.l->stats.duplicated - (int)b.l->stats.dropped_corrupt);
    lab_fini(&b);
}

TEST(blackhole_takes_what_is_on_its_way)
{
    struct lab b;
    lab_init(&b, 5, (struct sim_link_cfg){.delay = MP_MS(10)});
    lab_send(&b, 1, 10);
    sim_run_until(&b.s, b.s.now + MP_MS(5));
    b.l->cfg.blackhole = true;
    lab_send(&b, 2, 10);
    sim_run_until(&b.s, b.s.now + MP_MS(20));
    b.l->cfg.blackhole = false;
    lab_send(&b, 3, 10);
    sim_run_until(&b.s, MP_NEVER);
    CHECK_NUM(b.sink.n, ==, 1);
    CHECK_NUM(b.sink.seq[0], ==, 3);
    CHECK_NUM(b.l->stats.dropped_blackhole, ==, 2);
    lab_fini(&b);
}

TEST(too_large_packets_are_refused)
{
    struct lab b;
    lab_init(&b, 5, (struct sim_link_cfg){.mtu = 1000});
    lab_send(&b, 1, 960);
    lab_send(&b, 2, 961);
    sim_run_until(&b.s, MP_NEVER);
    CHECK_NUM(b.sink.n, ==, 1);
    CHECK_NUM(b.l->stats.dropped_mtu, ==, 1);
    lab_fini(&b);
}

static uint64_t hash_of(uint64_t seed)
{
    struct lab b;
    lab_init(&b, seed, (struct sim_link_cfg){.rate_bps = 1000000, .delay = MP_MS(1), .jitter = MP_MS(5), .loss_ppm = 100000,
                                             .dup_ppm = 100000, .reorder_ppm = 100000, .reorder_by = MP_MS(3)});
    for (uint32_t i = 0; i < 300; i++) lab_send(&b, i, 100);
    sim_run_until(&b.s, MP_NEVER);
    uint64_t h = b.s.hash;
    lab_fini(&b);
    return h;
}

TEST(equal_seeds_give_equal_traces)
{
    CHECK(hash_of(11) == hash_of(11));
    CHECK(hash_of(11) != hash_of(12));
}
