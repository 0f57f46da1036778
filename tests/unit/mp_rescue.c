/* A path that has forgotten the only subflow (core/rescue.c): the client notices, also when it only receives, and opens a
 * fresh one. What merely pauses costs nothing. */
#include "lab.h"

/* The peer sends n segments of LAB_MSS bytes from the stream position off. */
static void flow(struct lab *l, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) lab_data(l, &l->p[0], 1 + i * LAB_MSS, 1, i * (uint64_t)LAB_MSS, LAB_MSS);
    lab_wait(l, MP_MS(50));
    lab_forget(l);
}

static const struct got *join_of(struct lab *l)
{
    for (; l->qi < l->qn; l->qi++)
        if (l->q[l->qi].flags & MP_SYN) return &l->q[l->qi++];
    return &lab_none;
}

TEST(a_message_and_then_silence_is_not_asked_about)
{
    struct lab l = { 0 };
    lab_client(&l);
    flow(&l, 3);
    lab_wait(&l, MP_SEC(100));
    lab_expect_nothing(&l);
    lab_end(&l);
}

TEST(a_flow_that_stops_is_asked_about_once_when_the_peer_answers)
{
    struct lab l = { 0 };
    lab_client(&l);
    flow(&l, 20);
    lab_wait(&l, MP_MS(1100));
    lab_expect(&l, P0, MP_ACK, 0, 1 + 20 * LAB_MSS, 0);
    lab_ack_mp(&l, P0, 1 + 20 * LAB_MSS, 1, 0);
    lab_wait(&l, MP_SEC(100));
    lab_expect_nothing(&l);
    lab_end(&l);
}

TEST(a_flow_that_stops_and_no_answer_brings_a_fresh_subflow_within_three_seconds)
{
    struct lab l = { 0 };
    lab_client(&l);
    flow(&l, 20);
    mp_time from = l.now;
    lab_wait(&l, MP_SEC(3));
    const struct got *g = join_of(&l);
    CHECK_EQ(g->o.mp, MP_OPT_HAS(MP_JOIN));
    CHECK(g->at - from < MP_SEC(3));
    lab_expect_counter(&l, rescue, 1);
    struct peer *p = &l.p[l.np - 1];
    lab_synack(&l, p, lab_join_synack(&l, p, 0));
    lab_forget(&l);
    lab_ack_mp(&l, p, 1, 1, 0);
    /* It replaces the old one, and the stream goes on there. */
    lab_data(&l, p, 1, 1, 20 * LAB_MSS, LAB_MSS);
    CHECK_EQ(lab_read(&l), 21 * LAB_MSS);
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_forget(&l);
    lab_end(&l);
}

/* A flow has stopped, nothing answered, and the SYN of a join over the same path is out. */
static struct peer *asked_for_a_fresh_one(struct lab *l)
{
    lab_client(l);
    flow(l, 20);
    lab_wait(l, MP_SEC(3));
    lab_expect_counter(l, rescue, 1);
    return &l->p[l->np - 1];
}

TEST(a_subflow_that_is_heard_again_calls_the_fresh_one_off)
{
    struct lab l = { 0 };
    struct peer *late = asked_for_a_fresh_one(&l);
    lab_data(&l, P0, 1 + 20 * LAB_MSS, 1, 20 * LAB_MSS, LAB_MSS);
    CHECK_EQ(lab_read(&l), 21 * LAB_MSS);
    lab_forget(&l);
    lab_synack(&l, late, lab_join_synack(&l, late, 0));
    struct got *g = lab_expect(&l, late, MP_RST, 1, 0, 0);
    CHECK(g->flags & MP_RST);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_fresh_subflow_whose_third_ack_is_out_stays_though_the_old_one_is_heard_again) /* the server may have reset that; simulation seed 913824 */
{
    struct lab l = { 0 };
    struct peer *fresh = asked_for_a_fresh_one(&l);
    lab_synack(&l, fresh, lab_join_synack(&l, fresh, 0));
    lab_data(&l, P0, 1 + 20 * LAB_MSS, 1, 20 * LAB_MSS, LAB_MSS);
    lab_forget(&l);
    lab_ack_mp(&l, fresh, 1, 1, 0);
    const struct got *g = lab_expect(&l, P0, MP_RST | MP_ACK, 1, 1 + 21 * LAB_MSS, 0);
    CHECK(g->flags & MP_RST);
    lab_data(&l, fresh, 1, 1, 21 * LAB_MSS, LAB_MSS);
    CHECK_EQ(lab_read(&l), 22 * LAB_MSS);
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(segments_of_which_none_fits_bring_a_fresh_subflow)
{
    struct lab l = { 0 };
    lab_client(&l);
    flow(&l, 2);
    for (int i = 0; i < 4; i++) { /* a firewall has begun to move the numbers: ACKs of what was never sent */
        lab_wait(&l, MP_MS(600));
        lab_data(&l, P0, 1 + 2 * LAB_MSS, 77777, 2 * LAB_MSS, LAB_MSS);
    }
    CHECK_EQ(join_of(&l)->o.mp, MP_OPT_HAS(MP_JOIN));
    lab_forget(&l);
    lab_end(&l);
}

/* Data of ours timed out again and again, and the SYN of a join over the same path is out. */
static struct peer *asked_because_of_time_outs(struct lab *l)
{
    lab_client(l);
    flow(l, 3);
    lab_write(l, 1000);
    while (mp_stack_counter(l->st, MP_E_rescue) == 0 && l->now < MP_SEC(2000)) lab_wait(l, MP_MS(10));
    lab_forget(l);
    return &l->p[l->np - 1];
}

/* The fresh one's SYN is answered, and that by a segment with these flags. */
static void its_answer_draws(struct lab *l, struct peer *fresh, uint8_t flags, uint32_t ack)
{
    lab_forget(l);
    lab_synack(l, fresh, lab_join_synack(l, fresh, 0));
    lab_expect(l, fresh, flags, 1, ack, 0);
    lab_forget(l);
    lab_end(l);
}

static void comes_up(struct lab *l, struct peer *fresh) { its_answer_draws(l, fresh, MP_ACK, 1); }
static void is_called_off(struct lab *l, struct peer *fresh) { its_answer_draws(l, fresh, MP_RST, 0); }

TEST(an_answer_that_acknowledges_nothing_new_does_not_call_the_fresh_one_off) /* the box moves the numbers one way only */
{
    struct lab l = { 0 };
    struct peer *fresh = asked_because_of_time_outs(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + 3 * LAB_MSS, .ack = 1, .o = lab_dack(&l) });
    comes_up(&l, fresh);
}

TEST(a_path_that_brings_new_data_has_forgotten_nobody) /* our data is lost in a crowd; the same seed */
{
    struct lab l = { 0 };
    lab_client(&l);
    flow(&l, 3);
    lab_write(&l, 1000);
    for (uint32_t i = 0; i < 120; i++) { /* 6 s: four time-outs */
        lab_wait(&l, MP_MS(50));
        lab_data(&l, P0, 1 + (3 + i) * LAB_MSS, 1, (3 + i) * (uint64_t)LAB_MSS, LAB_MSS);
        lab_read(&l);
        lab_forget(&l);
    }
    CHECK(mp_stack_counter(l.st, MP_E_rto) >= 4);
    lab_expect_counter(&l, rescue, 0);
    lab_wait(&l, MP_SEC(10)); /* and no more */
    lab_expect_counter(&l, rescue, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(time_outs_where_options_die_bring_no_fresh_subflow) /* its third ACK would lose the option, RFC 8684 3.7; the same seed */
{
    struct lab l = { 0 };
    lab_client(&l);
    flow(&l, 3);
    lab_write(&l, 1000);
    lab_ack(&l, P0, 1 + 3 * LAB_MSS, 1); /* bare */
    lab_wait(&l, MP_SEC(6));
    CHECK(mp_stack_counter(l.st, MP_E_rto) >= 4);
    lab_expect_counter(&l, rescue, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(an_acknowledgement_of_what_is_new_calls_it_off)
{
    struct lab l = { 0 };
    struct peer *fresh = asked_because_of_time_outs(&l);
    lab_ack_mp(&l, P0, 1 + 3 * LAB_MSS, 1001, 1000);
    is_called_off(&l, fresh);
}

TEST(new_data_calls_it_off_though_ours_times_out) /* who sends on has our ACKs; simulation seed 2032285 */
{
    struct lab l = { 0 };
    struct peer *fresh = asked_because_of_time_outs(&l);
    lab_data(&l, P0, 1 + 2 * LAB_MSS, 1, 2 * LAB_MSS, LAB_MSS); /* the latest again: no ACK of ours has come */
    lab_data(&l, P0, 1 + 3 * LAB_MSS, 1, 3 * LAB_MSS, LAB_MSS);
    is_called_off(&l, fresh);
}

TEST(numbers_moved_by_less_than_a_window_are_no_sign_of_life)
{
    struct lab l = { 0 };
    lab_client(&l);
    flow(&l, 20);
    mp_time from = l.now;
    const struct got *g = &lab_none;
    while (!g->o.mp && l.now < from + MP_SEC(6)) {
        lab_wait(&l, MP_MS(300));
        lab_data(&l, P0, 1 + 20 * LAB_MSS + 20000, 1, 20 * LAB_MSS, LAB_MSS);
        g = join_of(&l);
    }
    CHECK_EQ(g->o.mp, MP_OPT_HAS(MP_JOIN));
    CHECK(g->at - from < MP_SEC(4));
    lab_data(&l, P0, 1 + 20 * LAB_MSS + 20000, 1, 20 * LAB_MSS, LAB_MSS);
    comes_up(&l, &l.p[l.np - 1]);
}

/* Three segments of the flow again, as fast as the path brings them; with their mappings, or without any option. */
static void old_row(struct lab *l, bool bare)
{
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t at = 1 + i * LAB_MSS;
        if (bare) lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = at, .ack = 1, .off = at - 1, .len = LAB_MSS });
        else lab_data(l, &l->p[0], at, 1, at - 1, LAB_MSS);
    }
}

TEST(a_row_that_is_repeated_before_our_answer_can_be_there_is_no_misfit) /* the peer's link is back; simulation seed 650229 */
{
    struct lab l = { 0 };
    lab_client(&l);
    flow(&l, 3);
    lab_wait(&l, MP_SEC(2));
    old_row(&l, false);
    CHECK_EQ(join_of(&l)->o.mp, 0);
    lab_expect_counter(&l, rescue, 0);
    lab_wait(&l, lab_sf(&l, 0).rto);
    old_row(&l, false); /* nor has it heard us by now */
    CHECK_EQ(join_of(&l)->o.mp, MP_OPT_HAS(MP_JOIN));
    lab_forget(&l);
    lab_end(&l);
}

TEST(keep_alives_of_a_peer_whose_numbers_fit_are_no_misfits) /* RFC 1122 4.2.3.6: with a byte of garbage or none */
{
    struct lab l = { 0 };
    lab_client(&l);
    flow(&l, 2);
    uint32_t at = 2 * LAB_MSS;
    for (uint32_t i = 0; i < 6; i++) {
        lab_wait(&l, MP_SEC(75));
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = at, .ack = 1, .off = at - 1, .len = i % 2, .o = lab_dack(&l) });
        lab_expect(&l, P0, MP_ACK, 1, 1 + at, 0);
    }
    lab_expect_nothing(&l);
    lab_expect_counter(&l, rescue, 0);
    for (int i = 0; i < 4; i++) { /* its last byte again and again: no ACK of ours gets there */
        lab_wait(&l, MP_SEC(1));
        lab_data(&l, P0, at, 1, at - 1, 1);
    }
    CHECK_EQ(join_of(&l)->o.mp, MP_OPT_HAS(MP_JOIN));
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_router_without_a_way_is_no_reason_for_a_fresh_subflow) /* RFC 6069 */
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_write(&l, 1000);
    for (uint64_t n = 0; n < 5;) {
        lab_wait(&l, MP_MS(10));
        if (mp_stack_counter(l.st, MP_E_rto) == n) continue;
        n++;
        mp_stack_no_way(l.st, l.q[l.qn - 1].k.flow, P0->irs + 1, l.now);
    }
    lab_expect_counter(&l, rescue, 0);
    lab_wait(&l, MP_SEC(30)); /* then the router is silent, too */
    lab_expect_counter(&l, rescue, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_path_that_takes_the_options_out_gets_no_fresh_subflow) /* its third ACK would lose the option; RFC 8684 3.7, the same seed */
{
    struct lab l = { 0 };
    lab_client(&l);
    flow(&l, 3);
    for (int i = 0; i < 5; i++) {
        lab_wait(&l, MP_SEC(1));
        old_row(&l, true);
    }
    CHECK_EQ(join_of(&l)->o.mp, 0);
    lab_expect_counter(&l, rescue, 0);
    /* So the way of a fallback is open: what is new, and has no mapping either, is the peer's that has gone it. */
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + 3 * LAB_MSS, .ack = 1, .off = 3 * LAB_MSS, .len = LAB_MSS });
    CHECK_EQ(lab_read(&l), 4 * LAB_MSS);
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_DSS);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_server_lets_the_fresh_subflow_replace_one_in_trouble)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_write(&l, 5000);
    lab_wait(&l, MP_SEC(2));
    lab_forget(&l);
    struct mp_opts o = lab_join_syn(&l);
    o.join.addr_id = 0; /* over the same path */
    struct peer *p = lab_syn(&l, 1, 5002, o);
    lab_expect(&l, p, MP_SYN | MP_ACK, 0, 1, 0);
    lab_wait(&l, LAB_RTT);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(&l, p) });
    uint64_t carried = 0;
    for (lab_wait(&l, LAB_RTT / 2); l.qi < l.qn; l.qi++) /* before anything is overdue */
        if (l.q[l.qi].p == p) carried += l.q[l.qi].len;
    CHECK_EQ(carried, 5000);
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_expect_counter(&l, subflow_reset_out, 1);
    lab_end(&l);
}
