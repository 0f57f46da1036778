/* A path that is full in both directions (core/duplex.c): what the peer has although it counts as in flight, and what its clock
 * must not make of it. The rates that it gains: tests/sim/scenarios.c, simult-*. */
#include "lab.h"

#include "core/stack_int.h"

static struct sf *flow(struct lab *l) { return l->c->sfs; }

static void forget(struct lab *l)
{
    lab_pump(l);
    for (int i = 0; i < l->qn; i++) free(l->q[i].data);
    l->qn = l->qi = 0;
}

/* All that is in flight is acknowledged after rtt, by 40 segments with data; the peer's clock lies back ms behind, and
 * what it echoes is so much older. */
static void round_trip(struct lab *l, mp_dur rtt, int back, int older)
{
    enum { ACKS = 40 };
    uint64_t from = flow(l)->v.snd_una, to = flow(l)->v.snd_nxt;
    uint32_t echo = l->p[0].ts_echo;
    lab_wait(l, rtt);
    for (uint64_t i = 1; i <= ACKS; i++) {
        uint32_t at = (uint32_t)l->read;
        l->p[0].ts_echo = echo - (uint32_t)older; /* not of what the ACK before let go */
        uint32_t ack = (uint32_t)(from + (to - from) * i / ACKS);
        lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 1 + at, .ack = ack, .off = at, .len = 1000, .ts_back = back });
        forget(l);
        lab_read(l);
    }
    lab_write(l, 4000000);
    forget(l);
}

/* Data both ways; slow start is over. */
static void both_ways(struct lab *l, mp_dur age)
{
    l->plain = true;
    l->peer_wscale = 10;
    l->slice = 60000;
    lab_client(l);
    lab_write(l, 1000);
    forget(l);
    lab_wait(l, LAB_RTT);
    lab_ack(l, &l->p[0], 1, 1001);
    lab_wait(l, age); /* the older, the further off a clock may be */
    lab_write(l, 4000000);
    forget(l);
    for (int i = 0; i < 6; i++) round_trip(l, LAB_RTT, 0, 0);
    flow(l)->v.cc.ssthresh = flow(l)->v.cc.cwnd;
    for (int i = 0; i < 4; i++) round_trip(l, LAB_RTT, 0, 0);
    CHECK(flow(l)->v.duplex.on);
    CHECK_EQ(duplex_credit(flow(l)), 0);
}

static void end(struct lab *l)
{
    lab_forget(l);
    lab_end(l);
}

TEST(acks_that_wait_at_the_peer_let_more_be_in_flight)
{
    static struct lab l;
    both_ways(&l, 0);
    uint64_t full = flow(&l)->v.cc.cwnd;
    for (int i = 0; i < 3; i++) round_trip(&l, LAB_RTT + MP_MS(40), 40, 0); /* 40 ms of it in the peer's queue */
    CHECK(duplex_credit(flow(&l)) > full / 4);
    CHECK(flow(&l)->v.pipe > flow(&l)->v.cc.cwnd + full / 4);
    end(&l);
}

TEST(a_clock_that_stood_still_is_no_queue)
{
    static const int pause[] = { 300, 2000 };
    for (int k = 0; k < 2; k++) {
        static struct lab l;
        l = (struct lab){ 0 };
        both_ways(&l, MP_SEC(30));
        for (int i = 0; i < 3; i++) {
            round_trip(&l, LAB_RTT, pause[k], 0);
            ROW("pause %d ms, round trip %d", pause[k], i);
            CHECK(!flow(&l)->v.duplex.odd);
            CHECK_EQ(duplex_credit(flow(&l)), 0);
        }
        end(&l);
    }
}

TEST(a_clock_that_is_odd_counts_for_nothing_at_once)
{
    static struct lab l;
    both_ways(&l, 0);
    for (int i = 0; i < 3; i++) round_trip(&l, LAB_RTT + MP_MS(40), 40, 0);
    CHECK(duplex_credit(flow(&l)) > 0);
    uint32_t at = (uint32_t)l.read, ack = (uint32_t)flow(&l)->v.snd_una + 1000;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + at, .ack = ack, .off = at, .len = 1000, .ts_back = -3600000 });
    CHECK(flow(&l)->v.duplex.odd);
    CHECK(!flow(&l)->v.duplex.on); /* not from the next round trip on */
    CHECK_EQ(duplex_credit(flow(&l)), 0);
    forget(&l);
    lab_read(&l);
    end(&l);
}

TEST(made_up_timestamps_gain_no_more_than_slow_start)
{
    static struct lab l;
    both_ways(&l, MP_SEC(30));
    for (int i = 0; i < 3; i++) {
        uint64_t before = flow(&l)->v.pipe;
        round_trip(&l, LAB_RTT, 3000, 3000);
        ROW("round trip %d", i);
        CHECK(flow(&l)->v.pipe <= 2 * before + 2 * 60000);
    }
    end(&l);
}
