/* Blind attacks on a connection (RFC 5961). */
#include "lab.h"

#include <errno.h>

TEST(a_reset_in_the_window_but_not_exact_is_challenged) /* 3.2 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 100 });
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    lab_expect_counter(&l, challenge_ack, 1);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 1 });
    CHECK_EQ(mpc_error(l.c), ECONNRESET);
    lab_end(&l);
}

TEST(a_reset_at_the_end_of_the_last_sack_block_is_exact) /* of a peer that a proxy stands in front of */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1001, .ack = 1, .len = 100 });
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 1100 });
    CHECK_EQ(mpc_error(l.c), 0);
    lab_expect_counter(&l, challenge_ack, 1);
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 1101 });
    CHECK_EQ(mpc_error(l.c), ECONNRESET);
    lab_end(&l);
}

TEST(a_reset_outside_the_window_is_dropped) /* 3.2: silently */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 0x40000000 });
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = (uint32_t)-5000 });
    lab_expect_nothing(&l);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(a_syn_on_an_open_connection_is_challenged) /* 4.2 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .seq = 1 });
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    lab_wait(&l, MP_SEC(5));
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .seq = 0x30000000 });
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(data_with_an_ack_of_what_was_not_sent_is_refused) /* 5.2 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 5000, .len = 10 });
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    CHECK_EQ(lab_read(&l), 0);
    lab_expect_counter(&l, ack_unsent, 1);
    lab_end(&l);
}

TEST(data_with_a_very_old_ack_is_refused) /* 5.2: SEG.ACK >= SND.UNA - MAX.SND.WND */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    for (uint32_t i = 0; i < 200; i++) {
        lab_write(&l, 1000);
        lab_ack(&l, P0, 1, 1 + (i + 1) * 1000);
    }
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 10, .len = 10 }); /* 199,990 back, window 65,535 */
    lab_expect(&l, P0, MP_ACK, 200001, 1, 0);
    lab_wait(&l, MP_MS(500));
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 200001 - 65536, .len = 10 });
    lab_expect(&l, P0, MP_ACK, 200001, 1, 0);
    CHECK_EQ(lab_read(&l), 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 200001 - 65535, .len = 10 }); /* may have been late */
    CHECK_EQ(lab_read(&l), 10);
    lab_forget(&l);
    lab_end(&l);
}

TEST(an_ack_before_the_initial_number_is_refused)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = (uint32_t)-1000, .len = 10 });
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    CHECK_EQ(lab_read(&l), 0);
    lab_end(&l);
}

TEST(segments_outside_the_window_are_answered_by_an_ack) /* RFC 9293 3.10.7.4 first */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 0x20000000, .ack = 1, .len = 10 });
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 0, .ack = 1 }); /* a keepalive probe */
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    lab_expect_counter(&l, out_of_window, 1);
    CHECK_EQ(lab_read(&l), 0);
    lab_end(&l);
}

TEST(a_segment_without_ack_is_dropped) /* RFC 9293 3.10.7.4 fifth */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = 0, .seq = 1, .len = 10 });
    lab_expect_nothing(&l);
    CHECK_EQ(lab_read(&l), 0);
    lab_end(&l);
}

TEST(answers_to_data_whose_ack_does_not_fit_are_limited_in_rate) /* 7: 5.2's too; a peer that goes on is answered again */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    for (uint32_t i = 0; i < 1000; i++) lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 5000 + i, .len = 10 });
    CHECK_EQ(lab_waiting(&l), 1);
    lab_forget(&l);
    lab_wait(&l, MP_MS(499));
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 5000, .len = 10 });
    lab_expect_nothing(&l);
    lab_wait(&l, MP_MS(1));
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 5000, .len = 10 });
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    lab_end(&l);
}

TEST(challenges_are_limited_in_rate) /* 7 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    for (uint32_t i = 0; i < 1000; i++) {
        lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 100 + i });
        lab_wait(&l, MP_MS(1));
    }
    CHECK_EQ(lab_waiting(&l), 2);
    lab_forget(&l);
    lab_end(&l);
}
