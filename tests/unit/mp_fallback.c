/* Every cell of core/fallback.def, reached by packets (RFC 8684 3.7). A test names the cell that it reaches; the last one
 * compares what the core has asked the table with the table. */
#define fb_lookup table_lookup
#include "core/fallback.c"
#undef fb_lookup
#include "lab_fallback.h"

static int asked[FB_STATES][FB_EVENTS], named[FB_STATES][FB_EVENTS];

struct fb_step fb_lookup(enum fb_state s, enum fb_event e); /* takes the library's place */
struct fb_step fb_lookup(enum fb_state s, enum fb_event e)
{
    asked[s][e]++;
    return table_lookup(s, e);
}

static void reaches(enum fb_state s, enum fb_event e) { named[s][e]++; }

/* ---- OFFERED ---- */

TEST(synack_without_option)
{
    struct lab l = { 0 };
    reaches(FB_OFFERED, FB_SYNACK_WITHOUT_OPTION);
    lab_connect_answered(&l, (struct mp_opts){ 0 });
    lab_expect_no_options(lab_expect(&l, P0, MP_ACK, 1, 1, 0));
    plain_works(&l, MP_WHY_NO_OPTION_SYNACK, 1, 1);
}

TEST(syn_asked_again_without_option)
{
    struct lab l = { 0 };
    reaches(FB_OFFERED, FB_SYN_WITHOUT_OPTION);
    lab_server_syn(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .o = lab_syn_options(&l, (struct mp_opts){ 0 }) });
    lab_expect_no_options(lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0));
    lab_ack(&l, P0, 1, 1);
    plain_works(&l, MP_WHY_SYN_DROPPED, 1, 1);
}

TEST(third_ack_without_option)
{
    struct lab l = { 0 };
    reaches(FB_OFFERED, FB_ACK_WITHOUT_OPTION);
    lab_server_syn(&l);
    lab_ack(&l, P0, 1, 1);
    lab_expect_counter(&l, capable_no_ack, 1);
    plain_works(&l, MP_WHY_NO_OPTION_ACK, 1, 1);
}

TEST(first_data_without_option)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 100);
    plain_works(&l, MP_WHY_NO_OPTION_ACK, 1, 101);
}

TEST(version_unknown)
{
    struct lab l = { 0 };
    reaches(FB_OFFERED, FB_VERSION_UNKNOWN);
    struct mp_opts o = lab_capable(&l, 1);
    o.capable.version = 9;
    lab_connect_answered(&l, o);
    lab_expect_no_options(lab_expect(&l, P0, MP_ACK, 1, 1, 0));
    plain_works(&l, MP_WHY_VERSION, 1, 1);
}

TEST(simultaneous_open)
{
    struct lab l = { 0 };
    reaches(FB_OFFERED, FB_SIMULTANEOUS_OPEN);
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    P0->ts = true;
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .o = lab_syn_options(&l, lab_capable(&l, 0)) });
    lab_expect_no_options(lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0));
    lab_ack(&l, P0, 1, 1);
    plain_works(&l, MP_WHY_SIMOPEN, 1, 1);
}

TEST(simultaneous_open_after_the_offer_was_withdrawn)
{
    struct lab l = { 0 };
    reaches(FB_PLAIN, FB_SIMULTANEOUS_OPEN);
    lab_connect(&l);
    lab_wait(&l, MP_MS(2500)); /* the third SYN goes without */
    CHECK_EQ(lab_info(&l).why, MP_WHY_SYN_DROPPED);
    lab_forget(&l);
    P0->ts = true;
    lab_send(&l, P0, (struct seg){ .flags = MP_SYN, .o = lab_syn_options(&l, (struct mp_opts){ 0 }) });
    lab_expect_no_options(lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0));
    lab_ack(&l, P0, 1, 1);
    plain_works(&l, MP_WHY_SYN_DROPPED, 1, 1);
}

TEST(handshake_done_on_both_sides)
{
    struct lab l = { 0 }, m = { 0 };
    reaches(FB_OFFERED, FB_HANDSHAKE_DONE);
    lab_client_unconfirmed(&l);
    CHECK_EQ(lab_info(&l).why, MP_WHY_PENDING);
    lab_end(&l);
    lab_server_unconfirmed(&m);
    CHECK_EQ(lab_info(&m).why, MP_WHY_PENDING);
    lab_end(&m);
}

/* ---- UNCONFIRMED ---- */

TEST(a_dss_confirms)
{
    struct lab l = { 0 }, m = { 0 };
    reaches(FB_UNCONFIRMED, FB_DSS_SEEN);
    lab_client(&l);
    CHECK(lab_info(&l).multipath);
    lab_end(&l);
    lab_server_unconfirmed(&m);
    lab_data(&m, &m.p[0], 1, 1, 0, 10);
    CHECK(lab_info(&m).multipath);
    lab_forget(&m);
    lab_end(&m);
}

TEST(unconfirmed_data_without_mapping_from_a_server)
{
    struct lab l = { 0 };
    reaches(FB_UNCONFIRMED, FB_DATA_WITHOUT_DSS_SINGLE);
    lab_client_unconfirmed(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    CHECK_EQ(fails_sent(&l), 1);
    CHECK(l.events & MP_EV_PLAIN); /* from the start: the owner may remember it */
    plain_works_and_is_told(&l, MP_WHY_NO_DSS, 1, 101);
}

TEST(unconfirmed_ack_of_data_without_data_ack)
{
    struct lab l = { 0 };
    reaches(FB_UNCONFIRMED, FB_ACK_WITHOUT_DSS);
    lab_client_unconfirmed(&l);
    lab_write(&l, 100);
    lab_expect(&l, P0, MP_ACK, 1, 1, 100);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, 101);
    CHECK_EQ(lab_info(&l).why, MP_WHY_PENDING); /* a proxy's, perhaps */
    lab_wait(&l, lab_sf(&l, 0).rto);
    CHECK_EQ(fails_sent(&l), 1);
    plain_works_and_is_told(&l, MP_WHY_NO_OPTION_ACK, 101, 1);
}

TEST(unconfirmed_fin_without_option)
{
    struct lab l = { 0 };
    reaches(FB_UNCONFIRMED, FB_FIN_WITHOUT_DSS);
    lab_client_unconfirmed(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 1, .ack = 1 });
    lab_expect_no_options(lab_expect(&l, P0, MP_ACK, 1, 2, 0));
    CHECK(mpc_eof(l.c));
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_DSS);
    lab_write(&l, 10);
    lab_expect_no_options(lab_expect(&l, P0, MP_ACK, 1, 2, 10));
    lab_end(&l);
}

TEST(a_bad_checksum_in_the_first_data) /* its mapping has confirmed MPTCP by then */
{
    struct lab l = { .csum = true };
    lab_server_syn(&l);
    struct mp_opts o = lab_capable_data(&l, 100);
    o.capable.csum ^= 0xff;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = o });
    lab_expect_counter(&l, csum_awaited, 1);
    lab_wait(&l, MP_MS(200)); /* no join comes */
    lab_expect_counter(&l, csum_bad, 1);
    CHECK_EQ(lab_said(&l, P0, MP_ACK, MP_OPT_HAS(MP_FAIL))->o.fail_dsn, l.idsn_peer + 1);
    CHECK_EQ(lab_info(&l).why, MP_WHY_CHECKSUM);
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_end(&l);
}

TEST(unconfirmed_peer_fail)
{
    struct lab l = { .csum = true };
    reaches(FB_UNCONFIRMED, FB_PEER_FAIL);
    lab_client_unconfirmed(&l);
    lab_write(&l, 100);
    lab_expect(&l, P0, MP_ACK, 1, 1, 100);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_FAIL), .fail_dsn = l.idsn_engine + 1 };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 101, .o = o });
    lab_forget(&l);
    CHECK_EQ(lab_info(&l).why, MP_WHY_PEER_FAIL);
    CHECK(mpc_send_done(l.c));
    lab_write(&l, 10);
    struct got *g = lab_expect(&l, P0, MP_ACK, 101, 1, 10);
    lab_expect_options(g, MP_DSS); /* the infinite mapping */
    CHECK(g->o.dss.has_map && g->o.dss.len == 0);
    lab_end(&l);
}

TEST(an_infinite_mapping_from_the_peer)
{
    struct lab l = { 0 };
    reaches(FB_CONFIRMED, FB_PEER_INFINITE);
    lab_server(&l);
    lab_data(&l, P0, 1, 1, 0, 100);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .off = 100, .len = 100, .o = infinite(&l, 100, 101) });
    lab_expect_counter(&l, infinite_in, 1);
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 200);
    CHECK_EQ(lab_info(&l).why, MP_WHY_PEER_FAIL);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 201, .ack = 1, .off = 200, .len = 100 });
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_write(&l, 10);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 301, 10);
    CHECK(g->o.dss.has_map && g->o.dss.len == 0); /* ours in return */
    lab_expect_counter(&l, infinite_out, 1);
    lab_ack(&l, P0, 301, 11);
    lab_write(&l, 10);
    lab_expect_no_options(lab_expect(&l, P0, MP_ACK, 11, 301, 10));
    lab_end(&l);
}

TEST(unconfirmed_data_without_mapping_across_a_hole)
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .off = 100, .len = 100 });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 200); /* the hole is filled, then the subflow's order is the stream's */
    plain_works_and_is_told(&l, MP_WHY_NO_DSS, 1, 201);
}

/* Two subflows, and the first has not confirmed yet: the second's data cannot be plain TCP's. */
TEST(unconfirmed_data_without_mapping_with_others)
{
    struct lab l = { 0 };
    reaches(FB_UNCONFIRMED, FB_DATA_WITHOUT_DSS);
    lab_server_unconfirmed(&l);
    struct peer *p = lab_syn(&l, 2, 5002, lab_join_syn(&l));
    lab_forget(&l);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(&l, p) });
    lab_forget(&l);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    lab_expect_counter(&l, fallback, 0);
    CHECK_EQ(lab_read(&l), 0);
    CHECK(lab_said(&l, p, MP_RST, 0)->flags);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(unconfirmed_infinite_mapping)
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = infinite(&l, 0, 1) });
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 100);
    CHECK(!lab_info(&l).multipath);
    CHECK_EQ(lab_info(&l).why, MP_WHY_PEER_FAIL);
    lab_end(&l);
}

/* ---- CONFIRMED ---- */

TEST(confirmed_further_dss_change_nothing)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_data(&l, P0, 1, 1, 0, 10);
    lab_data(&l, P0, 11, 1, 10, 10);
    lab_forget(&l);
    CHECK(lab_info(&l).multipath);
    lab_end(&l);
}

TEST(confirmed_fin_without_option_on_the_only_subflow)
{
    struct lab l = { 0 };
    reaches(FB_CONFIRMED, FB_FIN_WITHOUT_DSS);
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 1, .ack = 1 });
    lab_expect_no_options(lab_expect(&l, P0, MP_ACK, 1, 2, 0));
    CHECK(mpc_eof(l.c));
    lab_expect_counter(&l, fallback, 1);
    lab_end(&l);
}

/* The peer has taken our DATA_FIN, and has not ended its own stream: its FIN is that end. */
TEST(confirmed_fin_without_option_after_our_data_fin)
{
    struct lab l = { 0 };
    lab_client(&l);
    mpc_shutdown(l.c, l.now);
    CHECK(lab_expect(&l, P0, MP_ACK, 1, 1, 0)->o.dss.data_fin);
    lab_ack_mp(&l, P0, 1, 1, 1);
    lab_send(&l, P0, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 1, .ack = 1 });
    lab_expect_counter(&l, fallback, 1);
    CHECK(mpc_eof(l.c));
    lab_expect_no_options(lab_expect(&l, P0, MP_FIN | MP_ACK, 1, 2, 0));
    lab_ack(&l, P0, 2, 2);
    CHECK(l.events & MP_EV_CLOSED);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(confirmed_data_without_mapping_with_others)
{
    struct lab l = { 0 };
    reaches(FB_CONFIRMED, FB_DATA_WITHOUT_DSS);
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    struct got *g = lab_expect(&l, p, MP_RST | MP_ACK, 1, 101, 0);
    lab_expect_options(g, MP_TCPRST);
    lab_expect_counter(&l, fallback_refused, 1);
    lab_forget(&l);
    CHECK(lab_info(&l).multipath);
    lab_data(&l, P0, 1, 1, 0, 100);
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_end(&l);
}

TEST(confirmed_data_without_mapping_on_the_only_subflow)
{
    struct lab l = { 0 };
    reaches(FB_CONFIRMED, FB_DATA_WITHOUT_DSS_SINGLE);
    lab_client(&l);
    lab_data(&l, P0, 1, 1, 0, 100);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .off = 100, .len = 100 });
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 200);
    plain_works_and_is_told(&l, MP_WHY_NO_DSS, 1, 201);
}

TEST(confirmed_acks_without_data_ack_on_the_only_subflow)
{
    struct lab l = { 0 };
    reaches(FB_CONFIRMED, FB_ACK_WITHOUT_DSS);
    lab_server(&l);
    mpc_setopt(l.c, MPC_NODELAY, 1, l.now);
    lab_write(&l, 100);
    lab_ack_mp(&l, P0, 1, 101, 100);
    for (uint32_t i = 1; i <= 3; i++) {
        CHECK(lab_info(&l).multipath);
        lab_write(&l, 100);
        lab_forget(&l);
        lab_ack(&l, P0, 1, 101 + i * 100);
    }
    plain_works_and_is_told(&l, MP_WHY_NO_OPTION_ACK, 401, 1);
}

TEST(confirmed_bad_checksum_on_the_only_subflow)
{
    struct lab l = { .csum = true };
    reaches(FB_CONFIRMED, FB_CSUM_BAD_SINGLE);
    lab_server(&l);
    data_then_spoiled_data(&l);
    lab_wait(&l, MP_MS(200));
    CHECK_EQ(lab_said(&l, P0, MP_ACK, MP_OPT_HAS(MP_FAIL))->o.fail_dsn, l.idsn_peer + 101);
    lab_expect_counter(&l, fail_out, 1);
    CHECK_EQ(lab_read(&l), 100); /* passed on as a middlebox made it: plain TCP from here */
    lab_forget(&l);
    CHECK_EQ(lab_info(&l).why, MP_WHY_CHECKSUM);
    lab_write(&l, 10);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 201, 10);
    CHECK(g->o.dss.has_map && g->o.dss.len == 0);
    lab_end(&l);
}

TEST(confirmed_bad_checksum_with_others)
{
    struct lab l = { .csum = true };
    reaches(FB_CONFIRMED, FB_CSUM_BAD_MULTI);
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = lab_map(&l, 0, 1, 100, false), .spoil = true });
    CHECK_EQ(lab_said(&l, p, MP_RST, MP_OPT_HAS(MP_TCPRST))->o.tcprst.reason, MP_RST_MIDDLEBOX);
    CHECK_EQ(lab_read(&l), 0);
    CHECK(lab_info(&l).multipath);
    lab_expect_counter(&l, fallback, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(confirmed_peer_fail)
{
    struct lab l = { .csum = true };
    reaches(FB_CONFIRMED, FB_PEER_FAIL);
    lab_server(&l);
    lab_write(&l, 100);
    lab_expect(&l, P0, MP_ACK, 1, 1, 100);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_FAIL), .fail_dsn = l.idsn_engine + 1 };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 101, .o = o });
    CHECK_EQ(fails_sent(&l), 1); /* in the reverse direction, as the RFC wants: Linux waits for it, and resets after two minutes */
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 101, .o = o });
    CHECK_EQ(fails_sent(&l), 0);
    lab_expect_counter(&l, fallback, 1);
    CHECK_EQ(lab_info(&l).why, MP_WHY_PEER_FAIL);
    lab_write(&l, 10);
    struct got *g = lab_expect(&l, P0, MP_ACK, 101, 1, 10);
    CHECK(g->o.dss.has_map && g->o.dss.len == 0);
    CHECK_EQ(g->o.dss.dsn, l.idsn_engine + 1 + 100);
    CHECK_EQ(g->o.dss.ssn, 101);
    lab_end(&l);
}

/* Its FIN came with a DATA_FIN that lies behind bytes which a box has taken out, and MP_FAIL after it. */
TEST(a_fin_from_before_the_fallback_ends_the_stream)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 1, .ack = 1, .o = lab_map(&l, 3, 1, 0, true) });
    CHECK(!mpc_eof(l.c));
    lab_forget(&l);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_FAIL), .fail_dsn = l.idsn_engine + 1 };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 2, .ack = 1, .o = o });
    lab_expect_counter(&l, fallback, 1);
    CHECK(mpc_eof(l.c));
    lab_forget(&l);
    lab_end(&l);
}

/* A box has taken 10 bytes out: all is acknowledged on the subflow, and the peer waits for the rest of the mapping. */
TEST(confirmed_data_is_never_acknowledged_on_the_only_subflow)
{
    struct lab l = { .csum = true };
    reaches(FB_CONFIRMED, FB_DATA_ACK_STUCK);
    lab_server(&l);
    lab_write(&l, 100);
    lab_expect(&l, P0, MP_ACK, 1, 1, 100);
    lab_wait(&l, LAB_RTT);
    lab_ack_mp(&l, P0, 1, 101, 0);
    lab_wait(&l, MP_MS(1000));
    CHECK(lab_info(&l).multipath); /* it may only be slow */
    lab_wait(&l, MP_SEC(2));
    for (int i = l.qi; i < l.qn; i++) CHECK_EQ(l.q[i].len, 0); /* sent once more, it would fill the mapping */
    CHECK_EQ(fails_sent(&l), 1);
    plain_works_and_is_told(&l, MP_WHY_CHECKSUM, 101, 1);
}

/* Answers what is sent as a peer does to whom the options do not come through: it says again what it has. */
static void answer_for(struct lab *l, mp_dur d, uint32_t ack, uint64_t dack)
{
    for (mp_time end = l->now + d; l->now < end && lab_info(l).multipath; lab_wait(l, MP_MS(100))) {
        bool asked = lab_waiting(l) > 0;
        lab_forget(l);
        if (asked) lab_ack_mp(l, &l->p[0], 1, ack, dack);
    }
    lab_forget(l);
}

TEST(confirmed_data_fin_is_never_acknowledged_on_the_only_subflow)
{
    struct lab l = { 0 };
    reaches(FB_CONFIRMED, FB_DATA_FIN_STUCK);
    lab_client(&l);
    lab_write(&l, 100);
    lab_forget(&l);
    lab_ack_mp(&l, P0, 1, 101, 100);
    mpc_shutdown(l.c, l.now);
    answer_for(&l, MP_SEC(3), 101, 100);
    CHECK(lab_info(&l).multipath); /* they may only be lost */
    answer_for(&l, MP_SEC(20), 101, 100);
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_OPTION_ACK);
    lab_expect_counter(&l, fail_out, 1);
    lab_ack(&l, P0, 1, 102); /* the FIN came through */
    CHECK(mpc_send_done(l.c));
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 102, .len = 100 });
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_peer_that_is_silent_may_have_taken_the_data_fin)
{
    struct lab l = { 0 };
    lab_client(&l);
    mpc_shutdown(l.c, l.now);
    lab_wait(&l, MP_SEC(60));
    CHECK(lab_info(&l).multipath);
    lab_forget(&l);
    lab_end(&l);
}

/* ---- the table ---- */

TEST(every_cell_of_the_table_was_reached_and_no_other)
{
    static const char *const state[] = { "OFFERED", "UNCONFIRMED", "CONFIRMED", "PLAIN" };
    for (int s = 0; s < FB_STATES; s++)
        for (int e = 0; e < FB_EVENTS; e++) {
            bool row = table_lookup((enum fb_state)s, (enum fb_event)e).source;
            ROW("%s, event %d", state[s], e);
            CHECK(row || !asked[s][e]);
            CHECK(asked[s][e] || !named[s][e]); /* the test that names it does what it says */
            if (test_all) CHECK(named[s][e] || !row);
        }
    ROW("%s", "");
}
