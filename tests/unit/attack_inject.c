/* Attackers beside the path (RFC 5961) and peers that lie about TCP: nothing but counted drops, bounded answers and clean
 * resets. What a blind attacker lacks is the exact number; what a lying peer must not get is memory or rate. */
#include "lab.h"

#include "core/stack_int.h"

#include <time.h>

static void alive(struct lab *l) /* and still carries bytes both ways */
{
    CHECK_EQ(mpc_error(l->c), 0);
    lab_forget(l);
    lab_write(l, 100);
    lab_forget(l);
    lab_end(l);
}

/* One segment in each `step` of the sequence space. */
static void sweep(struct lab *l, uint8_t flags, uint32_t step, uint32_t len)
{
    for (uint64_t at = 77; at < 1ull << 32; at += step)
        lab_send(l, &l->p[0], (struct seg){ .flags = flags, .seq = (uint32_t)at, .ack = (uint32_t)at, .len = len, .no_ts = true });
}

TEST(blind_resets_end_nothing) /* RFC 5961 3: some fall into the window, none is exact */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    sweep(&l, MP_RST, 300000, 0);
    CHECK(lab_waiting(&l) <= 10); /* challenges are limited in rate */
    alive(&l);
}

TEST(blind_syns_end_nothing) /* RFC 5961 4 */
{
    struct lab l = { 0 };
    lab_client(&l);
    sweep(&l, MP_SYN, 5000000, 0);
    sweep(&l, MP_SYN | MP_ACK, 3000000, 0);
    CHECK(lab_waiting(&l) <= 20);
    alive(&l);
}

TEST(blind_data_is_not_delivered) /* RFC 5961 5: its ACK does not fit; and MPTCP wants a mapping */
{
    for (int plain = 0; plain < 2; plain++) {
        struct lab l = { .plain = plain };
        lab_client(&l);
        lab_write(&l, 1000);
        lab_forget(&l);
        sweep(&l, MP_ACK, 5000000, 10);
        CHECK_EQ(lab_read(&l), 0);
        CHECK(lab_waiting(&l) < 2000);
        lab_forget(&l);
        CHECK_EQ(mpc_error(l.c), 0);
        lab_end(&l);
    }
}

TEST(optimistic_acks_gain_nothing)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 200000);
    uint64_t cwnd = lab_sf(&l, 0).cwnd;
    lab_forget(&l);
    for (int i = 0; i < 50; i++) lab_ack(&l, P0, 1, 150000 + (uint32_t)i); /* of what was never sent */
    CHECK_EQ(lab_sf(&l, 0).cwnd, cwnd);
    for (; l.qi < l.qn; l.qi++) CHECK_EQ(l.q[l.qi].len, 0);
    lab_end(&l);
}

TEST(acks_in_small_pieces_gain_no_more_than_one) /* RFC 3465: bytes count, not ACKs */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 500000);
    uint64_t cwnd = lab_sf(&l, 0).cwnd;
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    for (uint32_t i = 0; i < 1000; i++) lab_ack(&l, P0, 1, 2 + i);
    CHECK(lab_sf(&l, 0).cwnd <= cwnd + 1000);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_window_that_shrinks_below_what_is_in_flight)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 50000);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    P0->wnd = 0;
    lab_ack(&l, P0, 1, 1001);
    lab_expect_nothing(&l);          /* nothing new */
    lab_wait(&l, MP_SEC(3));         /* what was sent is tried again (RFC 9293 3.8.6), with back-off */
    CHECK(lab_waiting(&l) < 12);
    lab_forget(&l);
    P0->wnd = 65535;
    lab_ack(&l, P0, 1, 10001);
    alive(&l);
}

TEST(a_silly_window_gets_no_slivers) /* RFC 9293 3.8.6.2.1 */
{
    struct lab l = { .plain = true, .wnd0 = 5 };
    lab_client(&l);
    P0->wnd = 5;
    lab_write(&l, 50000);
    uint32_t sent = 0;
    for (int i = 0; i < 100; i++) {
        while (lab_waiting(&l)) sent = l.q[l.qi].len ? l.q[l.qi].seq + l.q[l.qi].len : sent, l.qi++;
        lab_ack(&l, P0, 1, sent ? sent : 1);
        lab_wait(&l, MP_MS(1));
    }
    CHECK(lab_waiting(&l) < 3);
    CHECK(sent < 600); /* one sliver at a time into an empty pipe */
    lab_forget(&l);
    lab_end(&l);
}

TEST(one_byte_pieces_out_of_order_take_bounded_memory_and_time)
{
    clock_t began = clock();
    for (int plain = 0; plain < 2; plain++) {
        struct lab l = { .plain = plain };
        lab_client(&l);
        mpc_setopt(l.c, MPC_RCVBUF, 65536, l.now);
        for (uint32_t i = 0; i < 24000; i++) {
            struct mp_opts o = { 0 };
            if (!plain) o = lab_map(&l, 2 + 2 * i, 3 + 2 * i, 1, false);
            lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 3 + 2 * i, .ack = 1, .off = 2 + 2 * i, .len = 1, .o = o });
            while (l.qn) free(l.q[--l.qn].data); /* an ACK for each */
            l.qi = 0;
        }
        CHECK(l.c->sfs->ooo.mem_bytes <= 2u * 1024 * 1024 + 200000); /* twice what was offered before the buffer was set */
        CHECK(l.c->sfs->v.nmap <= SF_MAX_MAPPINGS);
        CHECK(mp_stack_counter(l.st, MP_E_memory_dropped) + mp_stack_counter(l.st, MP_E_map_overflow) + mp_stack_counter(l.st, MP_E_out_of_window) > 0);
        CHECK_EQ(lab_read(&l), 0);
        CHECK_EQ(mpc_error(l.c), 0);
        lab_end(&l);
    }
    CHECK(clock() - began < 10 * CLOCKS_PER_SEC); /* of this processor; a walk over all holes for each ACK took minutes */
}
