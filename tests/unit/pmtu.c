/* What lowers a path's MTU where no ICMP tells (core/pmtu.c; RFC 4821 7.7), what raises it again, and what ICMP may not do.
 * On whole networks: tests/sim/pmtu.c. */
#include "lab_loss.h"

#include <errno.h>

#include "core/stack_int.h"

#define FULL 1448u /* of 1500: headers, timestamps */

/* A plain client whose peer takes full segments. */
static void client(struct lab *l)
{
    l->plain = true;
    lab_connect(l);
    lab_expect(l, &l->p[0], MP_SYN, 0, 0, 0);
    lab_wait(l, LAB_RTT);
    struct mp_opts o = lab_syn_options(l, (struct mp_opts){ 0 });
    o.mss = (uint16_t)(l->mtu - 40);
    l->p[0].ts = true;
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_SYN | MP_ACK, .ack = 1, .o = o });
    lab_expect(l, &l->p[0], MP_ACK, 1, 1, 0);
}

/* ICMP about the engine's sequence number seq. */
static void told(struct lab *l, int err, uint32_t seq, uint32_t mtu)
{
    void *flow = l->q[l->qn - 1].k.flow;
    mp_stack_net_error(l->st, flow, err, l->p[0].irs + seq, true, mtu, l->now);
    lab_pump(l);
}

static uint32_t mtu(struct lab *l) { return lab_sf(l, 0).mtu; }

/* All that is sent is acknowledged a round trip later, until n bytes are. */
static void transfer(struct lab *l, uint64_t n)
{
    for (uint64_t end = l->written + n; l->written < end;) {
        lab_write(l, end - l->written);
        lab_wait(l, LAB_RTT);
        lab_ack(l, &l->p[0], 1, highest(l));
    }
    for (; !mpc_send_done(l->c); lab_ack(l, &l->p[0], 1, highest(l))) lab_wait(l, LAB_RTT);
    lab_forget(l);
}

/* ---- ICMP ---- */

TEST(icmp_does_not_lower_it_below_what_every_ipv4_path_carries_nor_raise_it)
{
    struct lab l = { 0 };
    client(&l);
    lab_write(&l, 4 * FULL);
    lab_forget(&l);
    told(&l, EMSGSIZE, 1, 68);
    told(&l, EMSGSIZE, 1, 9000);
    CHECK_EQ(mtu(&l), 1500);
    lab_end(&l);
}

TEST(icmp_does_not_lower_it_below_what_every_ipv6_path_carries) /* RFC 8201 4 */
{
    struct lab l = { .plain = true };
    struct mp_endpoint to = { { 6, { 0xfd, [15] = 2 } }, 80 }, from = { { 6, { 0xfd, [15] = 1 } }, 0 };
    int err;
    lab_stack(&l);
    l.c = mp_stack_connect(l.st, &to, &from.ip, 1, 0, &l, l.now, &err);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    lab_synack(&l, P0, (struct mp_opts){ .has_mss = true });
    lab_write(&l, 4 * FULL);
    lab_forget(&l);
    told(&l, EMSGSIZE, 1, 1279);
    CHECK_EQ(mtu(&l), 1500);
    told(&l, EMSGSIZE, 1, 1280);
    CHECK_EQ(mtu(&l), 1280);
    lab_end(&l);
}

/* ---- no ICMP ---- */

/* The segments of one window vanish until this many time-outs have come. */
static void time_out(struct lab *l, uint64_t n)
{
    lab_write(l, 4 * FULL);
    for (int i = 0; mp_stack_counter(l->st, MP_E_rto) < n && i < 20000; i++) lab_wait(l, MP_MS(10));
}

TEST(two_time_outs_of_a_large_segment_make_segments_small)
{
    struct lab l = { 0 };
    client(&l);
    time_out(&l, 1);
    CHECK_EQ(mtu(&l), 1500);
    time_out(&l, 2);
    CHECK_EQ(mtu(&l), 1280);
    lab_expect_counter(&l, mtu_lowered, 1);
    CHECK_EQ(l.q[l.qn - 1].len, 1228);
    lab_forget(&l);
    lab_end(&l);
}

TEST(when_small_ones_vanish_too_it_was_not_their_size)
{
    struct lab l = { 0 };
    client(&l);
    time_out(&l, 3);
    CHECK_EQ(mtu(&l), 1500);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_late_answer_to_small_ones_makes_segments_small)
{
    struct lab l = { 0 };
    client(&l);
    time_out(&l, 3);
    CHECK_EQ(mtu(&l), 1500);
    lab_ack(&l, &l.p[0], 1, 1 + 1228); /* it had come: the answers were lost */
    CHECK_EQ(mtu(&l), 1280);
    for (int i = l.qn - 2; i < l.qn; i++) CHECK(l.q[i].len <= 1228);
    transfer(&l, 60000);
    CHECK_EQ(mtu(&l), 1500); /* found by a probe */
    lab_expect_counter(&l, mtu_raised, 1);
    lab_end(&l);
}

TEST(where_1280_bytes_vanish_for_long_much_smaller_ones_are_tried) /* a box that makes packets longer, an MTU just as long */
{
    struct lab l = { 0 };
    client(&l);
    time_out(&l, 7);
    CHECK_EQ(mtu(&l), 1500);
    time_out(&l, 8);
    CHECK_EQ(mtu(&l), 576);
    CHECK_EQ(l.q[l.qn - 1].len, 524);
    time_out(&l, 9);
    CHECK_EQ(mtu(&l), 1500);
    transfer(&l, 60000);
    CHECK_EQ(mtu(&l), 1500);
    lab_end(&l);
}

TEST(small_segments_that_vanish_say_nothing)
{
    struct lab l = { 0 };
    client(&l);
    lab_write(&l, 500);
    lab_wait(&l, MP_SEC(5));
    CHECK(mp_stack_counter(l.st, MP_E_rto) >= 3);
    CHECK_EQ(mtu(&l), 1500);
    lab_expect_counter(&l, mtu_lowered, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(time_outs_that_a_router_explains_say_nothing_of_the_size) /* RFC 6069: what it had no way for was not too large */
{
    struct lab l = { 0 };
    client(&l);
    lab_write(&l, 4 * FULL);
    for (uint64_t n = 0; n < 10;) {
        lab_wait(&l, MP_MS(10));
        if (mp_stack_counter(l.st, MP_E_rto) == n) continue;
        n++;
        mp_stack_no_way(l.st, l.q[l.qn - 1].k.flow, l.p[0].irs + 1, l.now);
    }
    CHECK_EQ(mtu(&l), 1500);
    lab_expect_counter(&l, mtu_lowered, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(after_an_outage_the_first_probe_finds_the_size_from_before)
{
    struct lab l = { 0 };
    client(&l);
    time_out(&l, 2);
    transfer(&l, 60000);
    lab_expect_counter(&l, mtu_probe, 1);
    lab_expect_counter(&l, mtu_raised, 1);
    CHECK_EQ(mtu(&l), 1500);
    lab_end(&l);
}

TEST(the_window_is_one_segment_at_least_when_segments_become_larger) /* RFC 5681 3.1: as after a time-out */
{
    struct lab l = { .mtu = 8000 };
    client(&l);
    time_out(&l, 2);
    for (int i = 0; i < 50 && !mp_stack_counter(l.st, MP_E_mtu_probe); i++) {
        lab_write(&l, 20 * FULL);
        lab_wait(&l, LAB_RTT);
        if (!mp_stack_counter(l.st, MP_E_mtu_probe)) lab_ack(&l, &l.p[0], 1, highest(&l));
    }
    struct sf *sf = l.c->sfs;
    sf->v.cc.cwnd = 2 * FULL; /* the congestion control has cut it meanwhile */
    pmtu_passed(sf);
    CHECK_EQ(mtu(&l), 8000);
    CHECK_EQ(sf->v.cc.cwnd, sf->v.mss);
    lab_forget(&l);
    lab_end(&l);
}
