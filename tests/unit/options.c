/* What the program may ask for: Nagle, cork, keepalive, user time-out, TOS (RFC 9293 3.7.4, 3.8.4, RFC 5482). */
#include "lab.h"

#include <errno.h>

TEST(nagle_holds_a_small_segment_while_data_is_unacknowledged)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 10);
    lab_expect(&l, P0, MP_ACK, 1, 1, 10);
    lab_write(&l, 10);
    lab_write(&l, 10);
    lab_expect_nothing(&l);
    lab_ack(&l, P0, 1, 11);
    lab_expect(&l, P0, MP_ACK, 11, 1, 20);
    lab_end(&l);
}

TEST(nagle_never_holds_full_segments)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 10);
    lab_expect(&l, P0, MP_ACK, 1, 1, 10);
    lab_write(&l, 2005);
    lab_expect(&l, P0, MP_ACK, 11, 1, 1000);
    lab_expect(&l, P0, MP_ACK, 1011, 1, 1000);
    lab_expect_nothing(&l);
    lab_end(&l);
}

TEST(nodelay_sends_at_once)
{
    struct lab l = { .plain = true, .open_flags = MP_OPEN_NODELAY };
    lab_client(&l);
    for (uint32_t i = 0; i < 5; i++) {
        lab_write(&l, 10);
        lab_expect(&l, P0, MP_ACK, 1 + i * 10, 1, 10);
    }
    lab_end(&l);
}

TEST(nagle_at_connection_level)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_write(&l, 10);
    lab_expect(&l, P0, MP_ACK, 1, 1, 10);
    lab_write(&l, 10);
    lab_expect_nothing(&l);
    lab_ack_mp(&l, P0, 1, 11, 10);
    lab_expect(&l, P0, MP_ACK, 11, 1, 10);
    mpc_setopt(l.c, MPC_NODELAY, 1, l.now);
    lab_write(&l, 10);
    lab_expect(&l, P0, MP_ACK, 21, 1, 10);
    lab_end(&l);
}

TEST(a_close_flushes_what_nagle_held)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 10);
    lab_expect(&l, P0, MP_ACK, 1, 1, 10);
    lab_write(&l, 10);
    lab_expect_nothing(&l);
    mpc_shutdown(l.c, l.now);
    lab_expect(&l, P0, MP_ACK, 11, 1, 10);
    lab_expect(&l, P0, MP_FIN | MP_ACK, 21, 1, 0);
    lab_end(&l);
}

TEST(cork_holds_until_it_is_pulled)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    mpc_setopt(l.c, MPC_CORK, 1, l.now);
    lab_write(&l, 10);
    lab_expect_nothing(&l);
    lab_write(&l, 1000);
    lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
    lab_expect_nothing(&l);
    mpc_setopt(l.c, MPC_CORK, 0, l.now);
    mpc_setopt(l.c, MPC_NODELAY, 1, l.now);
    lab_expect(&l, P0, MP_ACK, 1001, 1, 10);
    lab_end(&l);
}

static void keepalive_on(struct lab *l)
{
    mpc_setopt(l->c, MPC_KEEPIDLE_S, 10, l->now);
    mpc_setopt(l->c, MPC_KEEPINTVL_S, 2, l->now);
    mpc_setopt(l->c, MPC_KEEPCNT, 3, l->now);
    mpc_setopt(l->c, MPC_KEEPALIVE, 1, l->now);
}

static void keepalive(struct lab *l)
{
    lab_client(l);
    keepalive_on(l);
}

TEST(keepalive_probes_below_the_window_after_the_idle_time) /* RFC 9293 3.8.4 */
{
    struct lab l = { .plain = true };
    keepalive(&l);
    mp_time t = l.now;
    lab_wait(&l, MP_SEC(9));
    lab_expect_nothing(&l);
    lab_wait(&l, MP_MS(1500));
    struct got *g = lab_expect(&l, P0, MP_ACK, 0, 1, 0);
    CHECK(g->at >= t + MP_MS(9900));
    lab_ack(&l, P0, 1, 1);
    lab_wait(&l, MP_SEC(9));
    lab_expect_nothing(&l);
    lab_end(&l);
}

TEST(keepalive_gives_up_after_so_many)
{
    struct lab l = { .plain = true };
    keepalive(&l);
    lab_wait(&l, MP_SEC(15));
    for (int i = 0; i < 3; i++) lab_expect(&l, P0, MP_ACK, 0, 1, 0);
    lab_wait(&l, MP_SEC(2));
    lab_expect(&l, P0, MP_RST | MP_ACK, 1, 1, 0);
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    lab_end(&l);
}

TEST(keepalive_is_off_unless_asked_for) /* RFC 9293 3.8.4 MUST-24 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_wait(&l, MP_SEC(86400));
    lab_expect_nothing(&l);
    lab_end(&l);
}

TEST(keepalive_by_flag_starts_at_two_hours) /* RFC 9293 3.8.4 MUST-28 */
{
    struct lab l = { .plain = true, .open_flags = MP_OPEN_KEEPALIVE };
    lab_client(&l);
    lab_wait(&l, MP_SEC(7190));
    lab_expect_nothing(&l);
    lab_wait(&l, MP_SEC(20));
    lab_expect(&l, P0, MP_ACK, 0, 1, 0);
    lab_end(&l);
}

TEST(keepalive_on_mptcp_keeps_every_subflow)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_join(&l, 2);
    mpc_setopt(l.c, MPC_KEEPIDLE_S, 10, l.now);
    mpc_setopt(l.c, MPC_KEEPALIVE, 1, l.now);
    lab_wait(&l, MP_SEC(11));
    bool on[2] = { 0 };
    for (; l.qi < l.qn; l.qi++) on[l.q[l.qi].p - l.p] |= l.q[l.qi].seq == 0;
    CHECK(on[0] && on[1]);
    lab_end(&l);
}

TEST(keepalive_that_ends_one_path_leaves_the_connection_to_the_others)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_join(&l, 2);
    keepalive_on(&l);
    for (int i = 0; i < 30; i++) { /* the second path answers, the first is dead */
        lab_wait(&l, MP_SEC(1));
        for (; l.qi < l.qn; l.qi++)
            if (l.q[l.qi].p == P1 && l.q[l.qi].seq == 0) lab_ack_mp(&l, P1, 1, 1, 0);
    }
    CHECK_EQ(mpc_error(l.c), 0);
    CHECK(!mpc_eof(l.c));
    CHECK_EQ(lab_sf(&l, 0).local.ip.b[2], 2); /* what is left */
    lab_write(&l, 500);
    CHECK_EQ(lab_next_data(&l, P1)->len, 500);
    lab_ack_mp(&l, P1, 1, 501, 500);
    lab_forget(&l);
    lab_wait(&l, MP_SEC(20)); /* now that one is dead as well */
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    lab_forget(&l);
    lab_end(&l);
}

TEST(the_user_timeout_bounds_silence) /* RFC 5482, RFC 9293 3.8.3 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    mpc_setopt(l.c, MPC_USER_TIMEOUT_MS, 3000, l.now);
    lab_write(&l, 1000);
    lab_wait(&l, MP_SEC(2));
    CHECK_EQ(mpc_error(l.c), 0);
    lab_wait(&l, MP_SEC(10));
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    lab_forget(&l);
    lab_end(&l);
}

TEST(the_user_timeout_does_not_count_what_was_idle_before) /* one lost segment after a pause ended the connection */
{
    for (int mp = 0; mp < 2; mp++) {
        struct lab l = { .plain = !mp };
        ROW("%s", mp ? "MPTCP" : "TCP");
        lab_client(&l);
        mpc_setopt(l.c, MPC_USER_TIMEOUT_MS, 10000, l.now);
        lab_wait(&l, MP_SEC(60));
        lab_write(&l, 1000);
        lab_wait(&l, MP_SEC(9));
        CHECK_EQ(mpc_error(l.c), 0);
        CHECK_EQ(mp_stack_counter(l.st, MP_E_subflow_timeout), 0);
        lab_wait(&l, MP_SEC(10));
        CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
        lab_forget(&l);
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(tos_is_set_without_the_ecn_bits)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    mpc_setopt(l.c, MPC_TOS, 0xbb, l.now);
    lab_write(&l, 10);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, 1, 10)->k.tos, 0xb8);
    lab_end(&l);
}

TEST(an_unknown_option_is_refused)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    CHECK_EQ((uint64_t)-mpc_setopt(l.c, (enum mpc_opt)99, 1, l.now), EINVAL);
    lab_end(&l);
}

TEST(facts_about_paths_and_subflows)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_join(&l, 2);
    struct mpc_path_info v[4];
    CHECK_EQ(mpc_get_paths(l.c, v, 4), 2);
    CHECK(!strcmp(v[0].ifname, "if1") && !strcmp(v[1].ifname, "if2"));
    lab_write(&l, 1000);
    lab_forget(&l);
    lab_ack_mp(&l, P0, 1, 1001, 1000);
    lab_data(&l, P1, 1, 1, 0, 300);
    lab_forget(&l);
    mpc_get_paths(l.c, v, 4);
    CHECK_EQ(v[0].bytes_sent, 1000);
    CHECK_EQ(v[1].bytes_received, 300);
    CHECK(v[0].live && v[1].live);
    struct mpc_info i = lab_info(&l);
    CHECK_EQ(i.bytes_written, 1000);
    CHECK_EQ(i.bytes_acked, 1000);
    CHECK_EQ(i.subflows_ever, 2);
    for (int w = MP_WHY_MULTIPATH; w <= MP_WHY_SETTING + 1; w++) CHECK(mp_plain_why_text((enum mp_plain_why)w)[0]);
    CHECK(mp_stack_first(l.st) == l.c && !mp_stack_next(l.c));
    lab_end(&l);
}
