/* Closing plain TCP (RFC 9293 3.6). */
#include "lab.h"

#include <errno.h>

#define FIN (MP_FIN | MP_ACK)

static void fin(struct lab *l, uint32_t seq, uint32_t ack)
{
    lab_send(l, &l->p[0], (struct seg){ .flags = FIN, .seq = seq, .ack = ack });
}

#define is_in(l, name) CHECK(!strcmp(lab_sf(l, 0).state, name))

/* A client ends its stream; its FIN is out. */
static void client_closes(struct lab *l)
{
    lab_client(l);
    mpc_shutdown(l->c, l->now);
    lab_expect(l, &l->p[0], FIN, 1, 1, 0);
}

/* And will read no more. */
static void client_leaves(struct lab *l)
{
    lab_client(l);
    mpc_release(l->c, 0, l->now);
    lab_expect(l, &l->p[0], FIN, 1, 1, 0);
}

TEST(our_close_first)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 100);
    mpc_shutdown(l.c, l.now);
    lab_expect(&l, P0, MP_ACK, 1, 1, 100);
    lab_expect(&l, P0, FIN, 101, 1, 0);
    is_in(&l, "FIN-WAIT-1");
    lab_ack(&l, P0, 1, 102);
    is_in(&l, "FIN-WAIT-2");
    CHECK(mpc_send_done(l.c));
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 102, .len = 50 }); /* half-closed: the peer goes on */
    lab_expect(&l, P0, MP_ACK, 102, 51, 0);
    CHECK_EQ(lab_read(&l), 50);
    CHECK(!mpc_eof(l.c));
    fin(&l, 51, 102);
    lab_expect(&l, P0, MP_ACK, 102, 52, 0);
    CHECK(mpc_eof(l.c));
    is_in(&l, "TIME-WAIT");
    CHECK(l.events & MP_EV_CLOSED);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(the_peer_closes_first)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    fin(&l, 1, 1);
    lab_expect(&l, P0, MP_ACK, 1, 2, 0);
    CHECK(mpc_eof(l.c) && (l.events & MP_EV_READABLE));
    is_in(&l, "CLOSE-WAIT");
    lab_write(&l, 10);
    lab_expect(&l, P0, MP_ACK, 1, 2, 10);
    lab_ack(&l, P0, 2, 11);
    mpc_release(l.c, 0, l.now);
    lab_expect(&l, P0, FIN, 11, 2, 0);
    lab_ack(&l, P0, 2, 12);
    CHECK_EQ(mp_stack_live(l.st), 0); /* LAST-ACK, then nothing is left */
    lab_end(&l);
}

TEST(both_close_at_once) /* RFC 9293 3.6 figure 13 */
{
    struct lab l = { .plain = true };
    client_closes(&l);
    fin(&l, 1, 1);
    lab_expect(&l, P0, MP_ACK, 2, 2, 0);
    is_in(&l, "CLOSING");
    lab_ack(&l, P0, 2, 2);
    is_in(&l, "TIME-WAIT");
    lab_end(&l);
}

TEST(a_fin_with_data_and_our_ack_in_one)
{
    struct lab l = { .plain = true };
    client_closes(&l);
    lab_send(&l, P0, (struct seg){ .flags = FIN, .seq = 1, .ack = 2, .len = 10 });
    lab_expect(&l, P0, MP_ACK, 2, 12, 0);
    CHECK_EQ(lab_read(&l), 10);
    CHECK(mpc_eof(l.c));
    is_in(&l, "TIME-WAIT");
    lab_end(&l);
}

TEST(a_fin_that_is_early_waits_for_the_data)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    fin(&l, 101, 1);
    lab_forget(&l); /* RFC 5681 4.2 would like a duplicate ACK here; it is not asked for */
    CHECK(!mpc_eof(l.c));
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    lab_expect(&l, P0, MP_ACK, 1, 102, 0);
    CHECK_EQ(lab_read(&l), 100);
    CHECK(mpc_eof(l.c));
    lab_end(&l);
}

TEST(a_lost_fin_is_sent_again)
{
    struct lab l = { .plain = true };
    client_closes(&l);
    lab_wait(&l, MP_SEC(1));
    CHECK(lab_waiting(&l) >= 1);
    lab_expect(&l, P0, FIN, 1, 1, 0);
    lab_forget(&l);
    lab_ack(&l, P0, 1, 2);
    CHECK(mpc_send_done(l.c));
    lab_end(&l);
}

TEST(time_wait_answers_a_repeated_fin_and_ends)
{
    struct lab l = { .plain = true };
    client_leaves(&l);
    fin(&l, 1, 2);
    lab_expect(&l, P0, MP_ACK, 2, 2, 0);
    lab_wait(&l, MP_SEC(30));
    fin(&l, 1, 2);
    lab_expect(&l, P0, MP_ACK, 2, 2, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 2 }); /* RFC 1337: it is not ended by that */
    lab_wait(&l, MP_SEC(59));
    CHECK_EQ(mp_stack_live(l.st), 1);
    lab_wait(&l, MP_SEC(2));
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(time_wait_is_prolonged_by_the_peers_own_fin_alone) /* RFC 9293 3.10.7.4: not by one that somebody made up */
{
    struct lab l = { .plain = true };
    client_leaves(&l);
    fin(&l, 1, 2);
    lab_wait(&l, MP_SEC(50));
    for (uint32_t at = 50; at < 0x80000000; at += 0x10000000) fin(&l, at, 2);
    lab_forget(&l);
    lab_wait(&l, MP_SEC(11));
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(time_wait_does_not_answer_an_ack) /* both may be in it, and would go on for a minute */
{
    struct lab l = { .plain = true };
    client_closes(&l);
    fin(&l, 1, 1);
    lab_expect(&l, P0, MP_ACK, 2, 2, 0);
    lab_ack(&l, P0, 2, 2);
    is_in(&l, "TIME-WAIT");
    lab_ack(&l, P0, 2, 2);
    lab_expect_nothing(&l);
    lab_ack(&l, P0, 1, 2); /* a probe below the window is answered */
    lab_expect(&l, P0, MP_ACK, 2, 2, 0);
    lab_end(&l);
}

/* A server that closes first, in TIME_WAIT; what it used last is returned. */
static uint32_t close_server(struct lab *l)
{
    lab_server(l);
    mpc_release(l->c, 0, l->now);
    lab_expect(l, &l->p[0], FIN, 1, 1, 0);
    fin(l, 1, 2);
    lab_expect(l, &l->p[0], MP_ACK, 2, 2, 0);
    lab_wait(l, MP_MS(1));
    return l->p[0].irs + 2;
}

TEST(a_newer_syn_reuses_time_wait) /* RFC 9293 3.6.1, RFC 6191 */
{
    struct lab l = { .plain = true };
    close_server(&l);
    lab_wait(&l, MP_SEC(5));
    struct mp_opts o = lab_syn_options(&l, (struct mp_opts){ 0 });
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .seq = 0, .o = o, .ts_back = 10000 }); /* an old one is not */
    lab_forget(&l);
    is_in(&l, "TIME-WAIT");
    P0->iss += 1000000;
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .seq = 0, .o = o });
    lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_ack(&l, P0, 1, 1);
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    CHECK_EQ(mp_stack_live(l.st), 1);
    lab_end(&l);
}

TEST(a_syn_that_cannot_follow_time_wait_ends_it_by_the_reset_of_its_sender) /* RFC 9293 3.10.7.3 */
{
    struct lab l = { .plain = true };
    close_server(&l);
    struct mp_opts o = lab_syn_options(&l, (struct mp_opts){ 0 });
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 2 }); /* RFC 1337: nobody has asked */
    is_in(&l, "TIME-WAIT");
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .seq = 1000000, .o = o, .ts_back = 10000 });
    lab_expect(&l, P0, MP_ACK, 2, 2, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 3 }); /* not what our ACK asks for */
    is_in(&l, "TIME-WAIT");
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 2 });
    lab_pump(&l);
    CHECK_EQ(mp_stack_live(l.st), 0);
    P0->iss += 1000000;
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .seq = 0, .o = o, .ts_back = 9000 }); /* a second later */
    lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_end(&l);
}

TEST(without_timestamps_a_syn_with_a_later_number_reuses_time_wait) /* RFC 6191 2 */
{
    struct lab l = { .plain = true, .no_ts = true };
    uint32_t end = close_server(&l);
    struct mp_opts o = lab_syn_options(&l, (struct mp_opts){ 0 });
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .seq = 1, .o = o }); /* in the old one's numbers: a duplicate */
    lab_forget(&l);
    is_in(&l, "TIME-WAIT");
    P0->iss += 2;
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .seq = 0, .o = o });
    lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    CHECK((int32_t)(P0->irs - end) > 0); /* and our own numbers go on, too */
    lab_expect_counter(&l, time_wait_reused, 1);
    lab_end(&l);
}

TEST(a_reset_ends_the_connection)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 1 });
    CHECK_EQ(mpc_error(l.c), ECONNRESET);
    CHECK(l.events & MP_EV_CLOSED);
    lab_expect_counter(&l, subflow_reset_in, 1);
    lab_end(&l);
}

TEST(an_abort_sends_a_reset)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    mpc_abort(l.c, l.now);
    lab_expect(&l, P0, MP_RST | MP_ACK, 1, 1, 0);
    CHECK(l.events & MP_EV_CLOSED);
    lab_end(&l);
}

TEST(closing_with_unread_data_resets) /* RFC 9293 3.6.1, RFC 2525 2.17 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 10 });
    lab_expect(&l, P0, MP_ACK, 1, 11, 0);
    mpc_release(l.c, 0, l.now);
    lab_expect(&l, P0, MP_RST | MP_ACK, 1, 11, 0);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(data_after_the_owner_left_resets) /* RFC 9293 3.6.1 */
{
    struct lab l = { .plain = true };
    client_leaves(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 2, .len = 10 });
    struct got *g = lab_expect(&l, P0, MP_RST | MP_ACK, 2, 11, 0);
    CHECK(g->flags & MP_RST);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(lingering_is_bounded)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 1000);
    lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
    mpc_release(l.c, MP_MS(50), l.now);
    lab_expect(&l, P0, FIN, 1001, 1, 0);
    lab_wait(&l, MP_SEC(1));
    lab_forget(&l);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(closing_before_the_answer_leaves_quietly)
{
    struct lab l = { .plain = true };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    mpc_release(l.c, 0, l.now);
    CHECK_EQ(lab_waiting(&l), 0);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(data_beyond_the_fin_is_ignored)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = FIN, .seq = 1, .ack = 1, .len = 10 });
    lab_expect(&l, P0, MP_ACK, 1, 12, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 12, .ack = 1, .len = 10, .off = 10 });
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 10);
    CHECK(mpc_eof(l.c));
    lab_end(&l);
}

/* Our side closed first and waits; the program opens the next connection to the same place from the same port. */
static void close_first(struct lab *l)
{
    client_leaves(l);
    lab_ack(l, &l->p[0], 1, 2);
    fin(l, 1, 2);
    lab_expect(l, &l->p[0], MP_ACK, 2, 2, 0);
    CHECK_EQ(mp_stack_live(l->st), 1);
    l->ports = 0; /* the same port is next */
}

TEST(a_new_connection_follows_one_in_time_wait) /* RFC 6191 */
{
    struct lab l = { .plain = true };
    close_first(&l);
    uint32_t old = l.p[0].irs, old_ts = l.p[0].ts_echo;
    uint16_t port = l.p[0].engine.port;
    lab_wait(&l, MP_MS(2));
    lab_connect(&l);
    struct got *g = &l.q[l.qn - 1];
    CHECK_EQ(g->k.flags, MP_SYN);
    CHECK_EQ(g->k.src.port, port);
    CHECK((int32_t)(g->k.seq - old) > 2);
    CHECK((int32_t)(g->o.ts_val - old_ts) > 0);
    lab_forget(&l);
    lab_expect_counter(&l, time_wait_reused, 1);
    CHECK_EQ(mp_stack_live(l.st), 1); /* the old one is gone */
    CHECK_EQ(l.flows, 1);
    lab_end(&l);
}

TEST(without_a_later_timestamp_nothing_follows_time_wait)
{
    struct lab l = { .plain = true };
    close_first(&l);
    uint16_t port = l.p[0].engine.port;
    lab_connect(&l); /* within the same millisecond */
    CHECK(l.q[l.qn - 1].k.src.port != port);
    lab_forget(&l);
    lab_expect_counter(&l, time_wait_reused, 0);
    CHECK_EQ(mp_stack_live(l.st), 2);
    lab_end(&l);
}
