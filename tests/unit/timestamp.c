/* Our timestamps: a clock of milliseconds for each pair of addresses (RFC 7323 5.4, 7.1), and what compares them. */
#include "lab.h"

#include "core/stack_int.h"

static uint32_t clock_of(const struct lab *l, uint8_t subnet)
{
    struct mp_addr a = lab_ep(subnet, 1, 0).ip, b = lab_ep(subnet, 2, 0).ip;
    return ts_at(ts_offset(l->st, &a, &b), l->now);
}

/* 200 pairs at one moment: their clocks fall evenly into four parts, so that one of them tells nothing, not how long the host is up. */
TEST(pairs_of_addresses_have_clocks_of_their_own)
{
    struct lab l = { 0 };
    unsigned part[4] = { 0 };
    lab_stack(&l);
    for (uint8_t i = 1; i <= 200; i++) part[clock_of(&l, i) >> 30]++;
    for (int i = 0; i < 4; i++) CHECK(part[i] > 25 && part[i] < 80);
    lab_end(&l);
}

TEST(connections_of_one_pair_share_a_clock_of_milliseconds)
{
    struct lab l = { .plain = true };
    lab_connect(&l);
    uint32_t first = l.q[l.qn - 1].o.ts_val, port = l.q[l.qn - 1].k.src.port;
    CHECK_EQ(first, clock_of(&l, 1));
    lab_forget(&l);
    lab_wait(&l, MP_MS(70));
    lab_connect(&l);
    CHECK(l.q[l.qn - 1].k.src.port != port);
    CHECK_EQ(l.q[l.qn - 1].o.ts_val - first, 70);
    lab_forget(&l);
    lab_end(&l);
}

TEST(no_timestamp_is_0) /* RFC 7323 3.2: an echo of 0 is none */
{
    CHECK_EQ(ts_at(UINT32_MAX, 0), UINT32_MAX);
    CHECK_EQ(ts_at(UINT32_MAX, MP_MS(1)), 1);
    CHECK_EQ(ts_at(UINT32_MAX, MP_MS(2)), 1);
    CHECK_EQ(ts_at(UINT32_MAX, MP_MS(3)), 2);
}

static void same_key(void *arg, uint8_t key[16]) { (void)arg; memset(key, 7, 16); }

/* The next connection of a 4-tuple may be made by another engine: PAWS at a peer in TIME_WAIT must let it through (RFC 6191). */
TEST(stacks_of_one_host_share_their_clocks)
{
    struct lab l = { 0 }, m = { 0 };
    lab_stack(&l);
    struct mp_stack_ops ops = l.st->ops;
    ops.host_key = same_key;
    for (struct lab *x = &l; x; x = x == &l ? &m : NULL) {
        struct mp_settings set = l.set;
        if (x == &m) lab_stack(&m);
        mp_stack_free(x->st);
        x->seed = x == &l ? 43 : 44;
        x->st = mp_stack_new(&ops, x, &set);
    }
    CHECK(memcmp(l.st->isn_key, m.st->isn_key, 16) != 0);
    CHECK_EQ(clock_of(&l, 1), clock_of(&m, 1));
    lab_end(&l);
    lab_end(&m);
}

static struct sf *first_of(const struct lab *l) { return st_find(l->st, &l->p[0].engine, &l->p[0].peer); }

/* Every 49.7 days, at any moment. A segment that was sent twice is timed by its echo (RFC 7323 4.1), across it. */
TEST(a_clock_that_wraps_still_times_round_trips)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    first_of(&l)->v.ts_offset = (uint32_t)-(int32_t)(l.now / MP_MS(1)) - 1; /* the next millisecond is 0 */
    lab_wait(&l, MP_MS(1) - 1);
    lab_write(&l, 1000);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, 1, 1000)->o.ts_val, UINT32_MAX);
    while (!lab_waiting(&l)) lab_wait(&l, MP_MS(1)); /* the probe of its tail */
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
    CHECK(g->o.ts_val < 1000);
    mp_dur before = lab_sf(&l, 0).srtt;
    lab_wait(&l, 3 * LAB_RTT);
    lab_ack(&l, P0, 1, 1001);
    mp_dur expected = (7 * before + 3 * LAB_RTT) / 8; /* RFC 6298 2.3 */
    CHECK(lab_sf(&l, 0).srtt > expected - MP_MS(1) && lab_sf(&l, 0).srtt < expected + MP_MS(1));
    lab_end(&l);
}

/* A connection that came from another stack may have another clock: what follows it must be later by that one. */
TEST(nothing_follows_a_time_wait_whose_clock_is_ahead) /* RFC 6191 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    mpc_shutdown(l.c, l.now);
    mpc_release(l.c, 0, l.now);
    lab_expect(&l, P0, MP_FIN | MP_ACK, 1, 1, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 1, .ack = 2 });
    lab_expect(&l, P0, MP_ACK, 2, 2, 0);
    struct sf *old = first_of(&l);
    uint16_t port = l.p[0].engine.port;
    CHECK_EQ(old->v.state, SF_TIME_WAIT);
    old->v.ts_offset += 1000;
    l.ports = 0; /* the same one is next */
    lab_wait(&l, MP_MS(999));
    lab_connect(&l);
    CHECK(l.q[l.qn - 1].k.src.port != port);
    lab_forget(&l);
    l.ports = 0;
    lab_wait(&l, MP_MS(2));
    lab_connect(&l);
    CHECK_EQ(l.q[l.qn - 1].k.src.port, port);
    lab_forget(&l);
    lab_end(&l);
}
