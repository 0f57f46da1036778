/* Urgent data (RFC 9293 3.8.5, deprecated by RFC 6093): MPTCP has no urgent pointer (RFC 8684 has no room for one in the data
 * sequence space), so a peer's is passed over and its byte is a byte like others; we never set one. */
#include "lab.h"

TEST(a_peers_urgent_byte_stays_in_its_place)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 3 });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK | MP_URG, .urg = 1, .seq = 4, .ack = 1, .off = 3, .len = 1 });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 5, .ack = 1, .off = 4, .len = 3 });
    CHECK_EQ(lab_read(&l), 7);
    lab_forget(&l);
    lab_end(&l);
}

TEST(also_with_a_mapping_and_out_of_order)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK | MP_URG, .urg = 50, .seq = 101, .ack = 1, .off = 100, .len = 50, .o = lab_map(&l, 100, 101, 50, false) });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK | MP_URG, .urg = 150, .seq = 1, .ack = 1, .len = 100, .o = lab_map(&l, 0, 1, 100, false) });
    CHECK_EQ(lab_read(&l), 150);
    CHECK(lab_info(&l).multipath);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_pointer_to_what_is_still_to_come_means_nothing)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK | MP_URG, .urg = 65535, .seq = 1, .ack = 1 }); /* announced, without data */
    lab_expect_nothing(&l);
    CHECK_EQ(lab_read(&l), 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK | MP_URG, .seq = 1, .ack = 1, .len = 10 });
    CHECK_EQ(lab_read(&l), 10);
    lab_forget(&l);
    lab_end(&l);
}
