/* Where falling back would be wrong, or it is not certain yet that it is right: another subflow may be on its way, the
 * peer may have had two, data went twice over one (RFC 8684 3.7). */
#include "lab_fallback.h"

#include <errno.h>

/* ---- a wrong checksum on the only subflow, while another may come (core/doubt.c) ---- */

static void spoiled(struct lab *l)
{
    lab_server(l);
    data_then_spoiled_data(l);
}

/* Acknowledged on the subflow, not by DATA_ACK: a client joins after one. */
static void told_of_nothing_new(struct lab *l)
{
    struct got *g = lab_expect(l, &l->p[0], MP_ACK, 1, 201, 0);
    CHECK(g->o.dss.has_ack && (uint32_t)g->o.dss.data_ack == (uint32_t)(l->idsn_peer + 101));
    lab_expect_nothing(l);
    CHECK_EQ(lab_read(l), 0);
}

TEST(a_bad_checksum_waits_for_a_join_which_carries_on)
{
    struct lab l = { .csum = true };
    spoiled(&l);
    told_of_nothing_new(&l);
    lab_wait(&l, MP_MS(90));
    struct peer *p = lab_syn(&l, 2, 5002, lab_join_syn(&l));
    lab_expect(&l, p, MP_SYN | MP_ACK, 0, 1, 0);
    lab_wait(&l, MP_MS(400)); /* a join on its way gives it longer */
    lab_expect_counter(&l, csum_bad, 0);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(&l, p) });
    lab_wait(&l, MP_MS(1));
    CHECK_EQ(lab_said(&l, P0, MP_RST, MP_OPT_HAS(MP_FAIL))->o.tcprst.reason, MP_RST_MIDDLEBOX);
    CHECK_EQ(lab_read(&l), 0);
    lab_data(&l, p, 1, 1, 100, 100);
    CHECK_EQ(lab_read(&l), 100);
    lab_expect_counter(&l, fallback, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(what_comes_behind_a_bad_checksum_counts_as_lost_meanwhile)
{
    struct lab l = { .csum = true };
    spoiled(&l);
    told_of_nothing_new(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK | MP_FIN, .seq = 201, .ack = 1, .off = 200, .len = 100, .o = lab_map(&l, 200, 201, 100, false) });
    lab_expect_nothing(&l);
    lab_wait(&l, MP_MS(200));
    CHECK_EQ(lab_info(&l).why, MP_WHY_CHECKSUM);
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK | MP_FIN, .seq = 201, .ack = 1, .off = 200, .len = 100, .o = lab_map(&l, 200, 201, 100, false) });
    CHECK_EQ(lab_read(&l), 100);
    CHECK(mpc_eof(l.c));
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_join_that_is_given_up_ends_the_waiting)
{
    struct lab l = { .csum = true };
    spoiled(&l);
    struct peer *p = lab_syn(&l, 2, 5002, lab_join_syn(&l));
    lab_wait(&l, MP_MS(300));
    lab_expect_counter(&l, csum_bad, 0);
    lab_send(&l, p, (struct seg){ .flags = MP_RST, .seq = 1 });
    lab_wait(&l, MP_MS(1));
    lab_expect_counter(&l, csum_bad, 1);
    CHECK_EQ(lab_info(&l).why, MP_WHY_CHECKSUM);
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_end(&l);
}

static void one_subflow(struct mp_settings *s) { s->max_subflows = 1; }

TEST(a_bad_checksum_waits_for_nothing_where_no_second_subflow_is_allowed)
{
    struct lab l = { .csum = true, .tune = one_subflow };
    spoiled(&l);
    lab_expect_counter(&l, csum_awaited, 0);
    CHECK_EQ(lab_info(&l).why, MP_WHY_CHECKSUM);
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_end(&l);
}

/* ---- a peer that has sent data twice: its bytes cannot be told apart without mappings ---- */

/* A box takes bytes out of the mapping and mends the numbers: the peer's subflow is content, its connection sends the data
 * again. What completes the first mapping is the copy's, and plain TCP would deliver that twice. */
TEST(confirmed_bad_checksum_where_data_comes_twice)
{
    struct lab l = { .csum = true };
    lab_server(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 90, .o = lab_map(&l, 0, 1, 100, false) });
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 91, .ack = 1, .len = 100, .o = lab_map(&l, 0, 101, 100, false) });
    lab_expect_counter(&l, csum_bad, 1);
    lab_expect_counter(&l, fallback, 0);
    CHECK_EQ(lab_read(&l), 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(confirmed_bad_checksum_where_the_peer_sent_twice)
{
    struct lab l = { .csum = true };
    lab_server(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 90, .o = lab_map(&l, 0, 1, 100, false) }); /* 10 bytes are gone */
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 91, .ack = 1, .len = 100, .o = lab_map(&l, 0, 101, 100, false) });
    struct got *g = lab_expect(&l, P0, MP_RST | MP_ACK, 1, 191, 0);
    CHECK_EQ(g->o.tcprst.reason, MP_RST_MIDDLEBOX);
    CHECK_EQ(lab_read(&l), 0);
    lab_end(&l);
}

TEST(confirmed_data_without_mapping_where_the_peer_sent_twice)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_data(&l, P0, 1, 1, 0, 100);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .len = 100, .o = lab_map(&l, 0, 101, 100, false) });
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 201, .ack = 1, .off = 100, .len = 100 });
    CHECK(lab_expect(&l, P0, MP_RST | MP_ACK, 1, 301, 0));
    CHECK_EQ(lab_read(&l), 0);
    lab_end(&l);
}

/* The last subflow was reset for what a box did, and the join that follows comes to where nobody listens for a SYN without
 * MP_JOIN: only a reset that MPTCP made says that the peer has forgotten the connection. */
TEST(a_bare_reset_over_a_path_that_spoils_is_not_believed)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_data(&l, P0, 1, 1, 0, 100);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .len = 100, .o = lab_map(&l, 0, 101, 100, false) });
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 201, .ack = 1, .off = 100, .len = 100 });
    CHECK(lab_expect(&l, P0, MP_RST | MP_ACK, 1, 301, 0));
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(mpc_error(l.c), 0);
        lab_wait(&l, MP_SEC(3));
        struct peer *p = &l.p[l.np - 1];
        CHECK_EQ(l.np, i + 2);
        lab_expect_options(lab_expect(&l, p, MP_SYN, 0, 0, 0), MP_JOIN);
        lab_forget(&l);
        struct mp_opts o = { .mp = i ? MP_OPT_HAS(MP_TCPRST) : 0, .tcprst.reason = MP_RST_MPTCP };
        lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 0, .ack = 1, .o = o });
    }
    CHECK_EQ(mpc_error(l.c), ECONNRESET);
    lab_end(&l);
}

/* ---- a join under way: the peer may hold it for established, and then does not fall back ---- */

static struct peer *join_half_open(struct lab *l)
{
    lab_server(l);
    struct peer *p = lab_syn(l, 2, 5002, lab_join_syn(l));
    lab_expect(l, p, MP_SYN | MP_ACK, 0, 1, 0);
    return p;
}

TEST(bytes_without_mapping_wait_while_a_join_is_undecided)
{
    struct lab l = { 0 };
    struct peer *p = join_half_open(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    lab_expect_nothing(&l); /* not acknowledged: it comes again */
    CHECK_EQ(lab_read(&l), 0);
    lab_send(&l, p, (struct seg){ .flags = MP_RST, .seq = 1 }); /* the peer had given the join up: one subflow on both sides */
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    CHECK_EQ(lab_read(&l), 100);
    plain_works_and_is_told(&l, MP_WHY_NO_DSS, 1, 101);
}

/* The peer may have our SYN already, and would not fall back then. */
TEST(bytes_without_mapping_wait_while_our_own_join_is_undecided)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_local m = lab_local(2);
    mp_stack_local_add(l.st, &m, l.now);
    lab_expect(&l, P1, MP_SYN, 0, 0, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    lab_expect_nothing(&l); /* not acknowledged: it comes again */
    CHECK_EQ(lab_read(&l), 0);
    lab_synack(&l, P1, lab_join_synack(&l, P1, 0));
    lab_ack_mp(&l, P1, 1, 1, 0);
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    CHECK(lab_said(&l, P0, MP_RST, 0)->flags); /* the other one works */
    lab_data(&l, P1, 1, 1, 0, 100);
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_end(&l);
}

TEST(bytes_without_mapping_wait_no_longer_than_a_join_takes)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_local m = lab_local(2);
    mp_stack_local_add(l.st, &m, l.now);
    lab_wait(&l, MP_MS(1100));
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    CHECK_EQ(lab_read(&l), 100);
    plain_works_and_is_told(&l, MP_WHY_NO_DSS, 1, 101);
}

/* Linux, once it fell back, so refuses the SYN/ACK of the join that it had sent before. */
TEST(a_join_refused_by_a_peer_without_options_does_not_hinder_the_fallback)
{
    struct lab l = { 0 };
    struct peer *p = join_half_open(&l);
    mpc_setopt(l.c, MPC_NODELAY, 1, l.now);
    for (uint32_t i = 1; i <= 3; i++) {
        lab_write(&l, 100);
        lab_forget(&l);
        lab_ack(&l, P0, 1, 1 + i * 100);
    }
    CHECK(lab_info(&l).multipath);
    lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1 });
    lab_write(&l, 100);
    lab_forget(&l);
    lab_ack(&l, P0, 1, 401);
    plain_works_and_is_told(&l, MP_WHY_NO_OPTION_ACK, 401, 1);
}

/* The SYN/ACK came to it without MP_JOIN (RFC 8684 3.2). Reason 1 is said of nothing else before the third ACK. */
TEST(a_join_whose_answer_lost_its_option_does_not_hinder_the_fallback)
{
    struct lab l = { 0 };
    struct peer *p = join_half_open(&l);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_TCPRST), .tcprst = { .reason = MP_RST_MPTCP } };
    lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    CHECK_EQ(lab_read(&l), 100);
    plain_works_and_is_told(&l, MP_WHY_NO_DSS, 1, 101);
}

/* The peer resets the join, as one who gave it up does, and acknowledges without an option. */
static void given_up_then_bare_ack(struct lab *l, struct peer *p)
{
    lab_send(l, p, (struct seg){ .flags = MP_RST, .seq = 1 });
    lab_write(l, 100);
    lab_forget(l);
    lab_ack(l, &l->p[0], 1, 101);
}

TEST(a_join_given_up_by_the_peer_does_not_hinder_the_fallback) /* however often it was answered */
{
    struct lab l = { 0 };
    struct peer *p = join_half_open(&l);
    lab_wait(&l, MP_SEC(4)); /* the SYN/ACKs were lost */
    given_up_then_bare_ack(&l, p);
    lab_wait(&l, lab_sf(&l, 0).rto);
    plain_works_and_is_told(&l, MP_WHY_NO_OPTION_ACK, 101, 1);
}

TEST(a_join_whose_link_went_down_before_it_was_up_can_be_given_up_by_the_peer_too) /* simulation seed 1127542 */
{
    struct lab l = { 0 };
    struct peer *p = join_half_open(&l);
    lab_local_down(&l, 2);
    given_up_then_bare_ack(&l, p);
    lab_wait(&l, lab_sf(&l, 0).rto);
    plain_works_and_is_told(&l, MP_WHY_NO_OPTION_ACK, 101, 1);
}

TEST(a_join_that_may_have_been_one_hinders_the_fallback) /* its third ACK may have come, without the option */
{
    struct lab l = { 0 };
    struct peer *p = join_half_open(&l);
    lab_wait(&l, MP_SEC(4));
    lab_ack(&l, p, 1, 1);
    given_up_then_bare_ack(&l, p);
    CHECK(lab_info(&l).multipath);
    lab_forget(&l);
    lab_end(&l);
}

static void reset_by_one_who_had_it(struct lab *l, struct peer *p)
{
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_TCPRST), .tcprst = { .reason = MP_RST_UNSPECIFIED } };
    lab_send(l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1, .o = o });
}

/* The option of the third ACK was cut out, and that of the reset too: the peer held the subflow. */
TEST(a_reset_after_an_ack_without_its_option_is_no_refusal)
{
    struct lab l = { 0 };
    struct peer *p = join_half_open(&l);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1 });
    lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1 });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    lab_expect_counter(&l, fallback_refused, 1);
    lab_expect_counter(&l, fallback, 0);
    CHECK_EQ(lab_read(&l), 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(no_fallback_where_the_peer_may_have_had_two_subflows)
{
    struct lab l = { 0 };
    struct peer *p = join_half_open(&l);
    reset_by_one_who_had_it(&l, p);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    struct got *g = lab_expect(&l, P0, MP_RST | MP_ACK, 1, 101, 0);
    CHECK_EQ(g->o.tcprst.reason, MP_RST_MIDDLEBOX);
    lab_expect_counter(&l, fallback, 0);
    CHECK_EQ(lab_read(&l), 0);
    lab_end(&l);
}

/* ---- data sent twice has two subflow numbers: a peer that fell back would take it as new ---- */

TEST(nothing_is_sent_twice_to_a_peer_that_may_fall_back)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_write(&l, 3000);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack_mp(&l, P0, 1, 3001, 0); /* on the subflow only: RFC 8684 3.3.6 */
    l.blocked = true;
    lab_wait(&l, MP_MS(900));
    l.blocked = false;
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_FAIL), .fail_dsn = l.idsn_engine + 1 };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 3001, .o = o });
    lab_expect_counter(&l, fallback, 1);
    lab_forget(&l);
    lab_write(&l, 500);
    struct got *g = lab_expect(&l, P0, MP_ACK, 3001, 1, 500);
    CHECK(lab_payload_is(g, 3000));
    lab_end(&l);
}

TEST(nothing_is_sent_again_to_a_peer_that_answers_without_options)
{
    struct lab l = { 0 };
    struct peer *p = join_half_open(&l); /* undecided: no fallback yet */
    lab_write(&l, 3000);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, 3001);
    lab_wait(&l, MP_SEC(5));
    for (; l.qi < l.qn; l.qi++) CHECK(l.q[l.qi].p == p && (l.q[l.qi].flags & MP_SYN));
    lab_expect_counter(&l, conn_rexmit, 0);
    reset_by_one_who_had_it(&l, p);
    lab_wait(&l, MP_SEC(10));
    lab_expect_counter(&l, fallback_refused, 1);
    lab_forget(&l);
    lab_end(&l);
}
