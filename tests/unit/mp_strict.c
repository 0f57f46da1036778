/* MPC_STRICT: what would fall back to plain TCP (RFC 8684 3.7) ends the connection instead, and says why. */
#include "lab_fallback.h"

#include <errno.h>

static void ended(struct lab *l, enum mp_plain_why why)
{
    CHECK(lab_said(l, NULL, MP_RST, 0)->flags);
    CHECK_EQ(mpc_error(l->c), EPROTONOSUPPORT);
    CHECK_EQ(lab_info(l).why, why);
    CHECK(l->events & MP_EV_CLOSED);
    lab_expect_counter(l, fallback, 0);
    lab_expect_counter(l, fallback_refused, 1);
    lab_end(l);
}

TEST(a_peer_without_mptcp_is_refused)
{
    struct lab l = { 0 };
    lab_connect(&l);
    mpc_setopt(l.c, MPC_STRICT, 1, l.now);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    lab_synack(&l, P0, (struct mp_opts){ 0 });
    CHECK(!(l.events & MP_EV_CONNECTED));
    ended(&l, MP_WHY_NO_OPTION_SYNACK);
}

TEST(every_syn_has_the_option)
{
    struct lab l = { 0 };
    lab_connect(&l);
    mpc_setopt(l.c, MPC_STRICT, 1, l.now);
    lab_wait(&l, MP_SEC(300));
    int syns = 0;
    for (; l.qi < l.qn; l.qi++) {
        syns++;
        CHECK(l.q[l.qi].o.mp & MP_OPT_HAS(MP_CAPABLE));
    }
    CHECK(syns > (int)l.set.syn_mp_tries);
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    lab_end(&l);
}

TEST(options_that_vanish_after_the_handshake_end_it)
{
    struct lab l = { 0 };
    lab_server(&l);
    mpc_setopt(l.c, MPC_STRICT, 1, l.now);
    mpc_setopt(l.c, MPC_NODELAY, 1, l.now);
    lab_write(&l, 100);
    lab_ack_mp(&l, P0, 1, 101, 100);
    for (uint32_t i = 1; i <= 3; i++) {
        lab_write(&l, 100);
        lab_forget(&l);
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 101 + i * 100 });
    }
    ended(&l, MP_WHY_NO_OPTION_ACK);
}

TEST(a_changed_payload_ends_it_and_is_not_delivered)
{
    struct lab l = { .csum = true };
    lab_server(&l);
    mpc_setopt(l.c, MPC_STRICT, 1, l.now);
    data_then_spoiled_data(&l);
    CHECK_EQ(lab_read(&l), 0);
    lab_wait(&l, MP_MS(200)); /* no other path comes */
    CHECK_EQ(lab_read(&l), 0);
    ended(&l, MP_WHY_CHECKSUM);
}

