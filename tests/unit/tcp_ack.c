/* What is acknowledged, when and how: delayed ACKs, SACK, D-SACK (RFC 9293 3.8.6.3, RFC 5681 4.2, RFC 2018, RFC 2883). */
#include "lab.h"

#include "core/stack_int.h"

static void data(struct lab *l, uint32_t seq, uint32_t len)
{
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = seq, .ack = 1, .off = seq - 1, .len = len });
}

/* Past the opening's immediate ACKs. Returns the next sequence number. */
static uint32_t settle(struct lab *l)
{
    uint32_t seq = 1;
    for (int i = 0; i < 20; i++, seq += 1000) data(l, seq, 1000);
    lab_wait(l, MP_SEC(1));
    lab_forget(l);
    CHECK_EQ(lab_read(l), seq - 1);
    lab_forget(l);
    return seq;
}

TEST(data_is_acknowledged_at_once_at_the_start)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    for (uint32_t i = 0; i < 4; i++) {
        data(&l, 1 + i * 100, 100);
        lab_expect(&l, P0, MP_ACK, 1, 101 + i * 100, 0);
    }
    CHECK_EQ(lab_read(&l), 400);
    lab_end(&l);
}

static void message(struct lab *l, uint32_t seq, uint32_t len)
{
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK | MP_PSH, .seq = seq, .ack = 1, .off = seq - 1, .len = len });
}

TEST(at_the_start_the_ack_of_a_message_rides_on_its_answer)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    message(&l, 1, 100);
    lab_wait(&l, MP_MS(4));
    lab_expect_nothing(&l);
    lab_write(&l, 10);
    lab_expect(&l, P0, MP_ACK, 1, 101, 10);
    lab_end(&l);
}

TEST(at_the_start_a_message_without_answer_is_acknowledged_soon)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    message(&l, 1, 100);
    mp_time t = l.now;
    lab_wait(&l, MP_MS(100));
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 101, 0);
    CHECK(g->at >= t + MP_MS(4) && g->at <= t + MP_MS(6));
    lab_end(&l);
}

TEST(at_the_start_a_second_message_is_acknowledged_at_once)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    for (uint32_t seq = 1; seq < 601; seq += 200) {
        message(&l, seq, 100);
        lab_expect_nothing(&l);
        message(&l, seq + 100, 100);
        lab_expect(&l, P0, MP_ACK, 1, seq + 200, 0);
    }
    lab_end(&l);
}

TEST(a_lone_segment_is_acknowledged_within_half_a_second) /* RFC 9293 3.8.6.3 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    uint32_t seq = settle(&l);
    data(&l, seq, 100);
    lab_expect_nothing(&l);
    mp_time t = l.now;
    lab_wait(&l, MP_MS(500));
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, seq + 100, 0);
    CHECK(g->at > t && g->at < t + MP_MS(500));
    lab_end(&l);
}

TEST(every_second_full_segment_is_acknowledged) /* RFC 9293 3.8.6.3 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    uint32_t seq = settle(&l);
    for (int i = 0; i < 3; i++, seq += 2000) {
        data(&l, seq, 1000);
        lab_expect_nothing(&l);
        data(&l, seq + 1000, 1000);
        lab_expect(&l, P0, MP_ACK, 1, seq + 2000, 0);
    }
    lab_end(&l);
}

TEST(an_ack_rides_on_data)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    uint32_t seq = settle(&l);
    data(&l, seq, 100);
    lab_expect_nothing(&l);
    lab_write(&l, 10);
    lab_expect(&l, P0, MP_ACK, 1, seq + 100, 10);
    lab_ack(&l, P0, seq + 100, 11);
    lab_wait(&l, MP_SEC(1));
    lab_end(&l);
}

TEST(a_hole_is_told_at_once_with_sack) /* RFC 5681 4.2, RFC 2018 4 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    uint32_t seq = settle(&l);
    data(&l, seq + 1000, 1000);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, seq, 0);
    CHECK_EQ(g->o.nsack, 1);
    CHECK_EQ(g->o.sack[0].left - P0->iss, seq + 1000);
    CHECK_EQ(g->o.sack[0].right - P0->iss, seq + 2000);
    data(&l, seq + 3000, 1000);
    g = lab_expect(&l, P0, MP_ACK, 1, seq, 0);
    CHECK_EQ(g->o.nsack, 2);
    CHECK_EQ(g->o.sack[0].left - P0->iss, seq + 3000); /* the most recent first */
    CHECK_EQ(g->o.sack[1].left - P0->iss, seq + 1000);
    data(&l, seq + 2000, 1000); /* two become one */
    g = lab_expect(&l, P0, MP_ACK, 1, seq, 0);
    CHECK_EQ(g->o.nsack, 1);
    CHECK_EQ(g->o.sack[0].left - P0->iss, seq + 1000);
    CHECK_EQ(g->o.sack[0].right - P0->iss, seq + 4000);
    data(&l, seq, 1000);
    g = lab_expect(&l, P0, MP_ACK, 1, seq + 4000, 0);
    CHECK_EQ(g->o.nsack, 0);
    CHECK_EQ(lab_read(&l), 4000);
    lab_end(&l);
}

TEST(a_segment_received_twice_behind_a_hole_is_told_by_dsack) /* RFC 2883 4.2: and the block that it lies in */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    uint32_t seq = settle(&l);
    data(&l, seq + 1000, 1000);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, seq, 0)->o.nsack, 1);
    for (uint32_t more = 0; more <= 1000; more += 1000) { /* alone, then with another behind it */
        if (more) data(&l, seq + 2000, 1000);
        lab_forget(&l);
        data(&l, seq + 1000, 1000);
        struct got *g = lab_expect(&l, P0, MP_ACK, 1, seq, 0);
        CHECK_EQ(g->o.nsack, 2);
        CHECK_EQ(g->o.sack[0].left - P0->iss, seq + 1000);
        CHECK_EQ(g->o.sack[0].right - P0->iss, seq + 2000);
        CHECK_EQ(g->o.sack[1].left - P0->iss, seq + 1000);
        CHECK_EQ(g->o.sack[1].right - P0->iss, seq + 2000 + more);
    }
    lab_expect_counter(&l, dup_data, 2000);
    data(&l, seq + 2500, 1000); /* half of it is new: told as a block only */
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, seq, 0)->o.nsack, 1);
    data(&l, seq, 1000);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, seq + 3500, 0)->o.nsack, 0);
    CHECK_EQ(lab_read(&l), 3500);
    lab_end(&l);
}

TEST(after_a_hole_each_segment_is_acknowledged_at_once) /* RFC 5681 4.2; the sender's window is small */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    uint32_t seq = settle(&l);
    data(&l, seq + 1000, 1000);
    lab_expect(&l, P0, MP_ACK, 1, seq, 0);
    data(&l, seq, 1000); /* filled */
    seq += 2000;
    lab_expect(&l, P0, MP_ACK, 1, seq, 0);
    for (int i = 1; i < 16; i++, seq += 100) {
        data(&l, seq, 100);
        lab_expect(&l, P0, MP_ACK, 1, seq + 100, 0);
    }
    data(&l, seq, 100); /* and then as before */
    lab_expect_nothing(&l);
    lab_wait(&l, MP_SEC(1));
    lab_expect(&l, P0, MP_ACK, 1, seq + 100, 0);
    lab_read(&l);
    lab_forget(&l);
    lab_end(&l);
}

TEST(without_sack_a_hole_is_told_by_the_ack_alone)
{
    struct lab l = { .plain = true, .no_sack = true };
    lab_client(&l);
    data(&l, 1001, 1000);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, 1, 0)->o.nsack, 0);
    data(&l, 1, 1000);
    lab_expect(&l, P0, MP_ACK, 1, 2001, 0);
    CHECK_EQ(lab_read(&l), 2000);
    lab_end(&l);
}

TEST(a_segment_received_twice_is_told_by_dsack) /* RFC 2883 4 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    uint32_t seq = settle(&l);
    data(&l, seq - 1000, 1000);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, seq, 0);
    CHECK_EQ(g->o.nsack, 1);
    CHECK_EQ(g->o.sack[0].left - P0->iss, seq - 1000);
    CHECK_EQ(g->o.sack[0].right - P0->iss, seq);
    CHECK_EQ(lab_read(&l), 0);
    lab_expect_counter(&l, dup_data, 1000);
    lab_expect_counter(&l, out_of_window, 0);
    data(&l, seq, 10);
    lab_wait(&l, MP_MS(100));
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, seq + 10, 0)->o.nsack, 0); /* told once */
    lab_end(&l);
}

TEST(overlapping_segments_give_each_byte_once)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    data(&l, 501, 1000);
    data(&l, 1, 800);
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 1500);
    data(&l, 1001, 1000);
    lab_expect(&l, P0, MP_ACK, 1, 2001, 0);
    CHECK_EQ(lab_read(&l), 500);
    lab_end(&l);
}

TEST(timestamps_echo_the_segment_that_moved_the_window) /* RFC 7323 4.3 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    uint32_t seq = settle(&l);
    uint32_t first = lab_ts(&l);
    data(&l, seq, 1000);
    lab_wait(&l, MP_MS(5));
    data(&l, seq + 1000, 1000);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, seq + 2000, 0)->o.ts_ecr, first); /* the earliest not acknowledged */
    uint32_t hole = lab_ts(&l);
    lab_wait(&l, MP_MS(5));
    data(&l, seq + 3000, 1000);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, seq + 2000, 0);
    CHECK(g->o.ts_ecr == first || g->o.ts_ecr == hole); /* not that of the segment beyond the hole */
    lab_end(&l);
}

/* Ten bytes at seq, their timestamp so many ms old. */
static void data_from_before(struct lab *l, uint32_t seq, int ms)
{
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = seq, .ack = 1, .len = 10, .off = seq - 1, .ts_back = ms });
}

TEST(an_old_timestamp_is_refused_with_an_ack) /* PAWS, RFC 7323 5.3: older than the connection */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_wait(&l, MP_MS(100));
    data(&l, 1, 10);
    lab_expect(&l, P0, MP_ACK, 1, 11, 0);
    data_from_before(&l, 11, 150);
    lab_expect(&l, P0, MP_ACK, 1, 11, 0);
    lab_expect_counter(&l, paws, 1);
    CHECK_EQ(lab_read(&l), 10);
    lab_end(&l);
}

TEST(a_segment_that_a_retransmission_overtook_is_taken) /* its timestamp is older than what filled the hole before it */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_wait(&l, MP_MS(100));
    data(&l, 1, 10);
    data(&l, 31, 10);
    data(&l, 11, 10); /* sent again */
    uint32_t filled = lab_ts(&l);
    lab_forget(&l);
    data_from_before(&l, 21, 50);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, 41, 0)->o.ts_ecr, filled); /* TS.Recent does not go back */
    lab_expect_counter(&l, paws, 0);
    CHECK_EQ(lab_read(&l), 40);
    lab_end(&l);
}

TEST(a_timestamp_of_half_a_billion_bytes_ago_is_refused) /* PAWS, RFC 7323 5.3: it may be of the round of numbers before */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    uint32_t seq = 1;
    for (int step = 0; step < 3; step++, seq += 10) { /* each a quarter of a billion bytes after the one before */
        lab_wait(&l, MP_MS(100));
        l.c->sfs->v.ts_mark_at = l.c->sfs->v.rcv_nxt - (1u << 28);
        data_from_before(&l, seq, 0);
    }
    lab_forget(&l);
    data_from_before(&l, seq, 99);
    data_from_before(&l, seq + 10, 199);
    lab_expect_counter(&l, paws, 0);
    data_from_before(&l, seq + 20, 250); /* before the first of them, and of this connection */
    lab_expect_counter(&l, paws, 1);
    lab_read(&l);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_timestamp_that_wraps_is_no_old_one) /* RFC 7323 5.2: compared modulo 2^32 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    uint32_t step = 1u << 30;
    for (uint32_t i = 0; i < 6; i++) /* in steps of a quarter, once round and a half */
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + 10 * i, .ack = 1, .len = 10, .off = 10 * i, .ts_back = (int)(0u - step * i) });
    lab_expect_counter(&l, paws, 0);
    CHECK_EQ(lab_read(&l), 60);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_timestamp_never_sent_gives_no_round_trip) /* an echo from the future, or none */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    mp_dur srtt = lab_sf(&l, 0).srtt;
    lab_write(&l, 1000);
    lab_wait(&l, MP_SEC(1)); /* sent again: only timestamps can tell the round trip now */
    lab_forget(&l);
    P0->ts_echo += 100000;
    lab_ack(&l, P0, 1, 1001);
    CHECK(lab_sf(&l, 0).srtt <= 2 * srtt);
    CHECK(mpc_send_done(l.c));
    lab_end(&l);
}

TEST(many_holes_are_told_as_space_allows)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    struct got *g = &lab_none;
    for (uint32_t i = 1; i < 12; i += 2) {
        data(&l, 1 + i * 1000, 1000);
        g = lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    }
    CHECK_EQ(g->o.nsack, 3); /* with timestamps, RFC 2018 3 */
    CHECK_EQ(g->o.sack[0].left - P0->iss, 11001);
    CHECK_EQ(g->o.sack[1].left - P0->iss, 9001);
    CHECK_EQ(g->o.sack[2].left - P0->iss, 7001);
    lab_end(&l);
}
