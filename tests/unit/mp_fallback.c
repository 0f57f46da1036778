/* Every cell of core/fallback.def, reached by packets (RFC 8684 3.7). A test names the cell that it reaches; the last one
 * compares what the core has asked the table with the table. */
#define fb_lookup table_lookup
#include "core/fallback.c"
#undef fb_lookup
#include "lab_fallback.h"

#include <errno.h>

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

/* Options die on the way to us only, and all has been said: no infinite mapping will tell a server that knows us to speak MPTCP
 * (Linux has our MP_CAPABLE with data) and would repeat what no DATA_ACK answers, as new bytes of plain TCP. */
TEST(unconfirmed_ack_of_all_data_without_data_ack)
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    lab_write(&l, 100);
    lab_expect(&l, P0, MP_ACK, 1, 1, 100);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, 101);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 101, .off = 0, .len = 100 });
    CHECK_EQ(fails_sent(&l), 1);
    int again = 0;
    for (uint32_t at = 100; at < 600; at += 100) { /* the first may be lost, and an answer does not come through */
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + at, .ack = 101, .off = at, .len = 100 });
        again += fails_sent(&l);
    }
    CHECK_EQ(again, 2);
    CHECK_EQ(lab_read(&l), 600);
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_OPTION_ACK);
    lab_end(&l);
}

/* The latest ACK bears the DATA_ACK that an infinite mapping would give it. */
static bool acks_data(struct lab *l, uint64_t bytes)
{
    lab_pump(l);
    const struct got *g = &l->q[l->qn - 1];
    l->qi = l->qn;
    return (g->o.mp & MP_OPT_HAS(MP_DSS)) && g->o.dss.has_ack && !g->o.dss.has_map &&
           (uint32_t)g->o.dss.data_ack == (uint32_t)(l->idsn_peer + 1 + bytes);
}

/* Linux falls back with the next new data, for which it has no room while the data before is not DATA_ACKed: a whole window of
 * it, or its send buffer. */
TEST(data_acks_go_on_until_the_peers_infinite_mapping)
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    uint32_t at = 0;
    for (; at < 1000; at += 100) {
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + at, .ack = 1, .off = at, .len = 100 });
        CHECK(acks_data(&l, at + 100));
    }
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_DSS);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_FAIL), .fail_dsn = l.idsn_engine + 1 };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + at, .ack = 1, .off = at, .len = 100, .o = o });
    CHECK(acks_data(&l, at + 100)); /* it has heard, and needs room all the same */
    at += 100;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + at, .ack = 1, .off = at, .len = 100, .o = infinite(&l, at, 1 + at) });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101 + at, .ack = 1, .off = at + 100, .len = 100 });
    for (uint32_t k = 100; k <= 200; k += 100) lab_expect_no_options(lab_expect(&l, P0, MP_ACK, 1, 1 + at + k, 0));
    CHECK_EQ(lab_read(&l), at + 200);
    lab_end(&l);
}

/* A client that has fallen back and told so, with nothing more to send: no infinite mapping makes the server plain TCP, too. */
static void untold(struct lab *l)
{
    lab_client_unconfirmed(l);
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    CHECK_EQ(lab_read(l), 100);
    lab_forget(l);
}

/* Linux, which waits for a DATA_FIN, takes no FIN for the end, and sends none before its own DATA_FIN is acknowledged. */
TEST(the_end_is_told_on_both_levels_to_a_peer_that_is_perhaps_not_plain)
{
    struct lab l = { 0 };
    untold(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1 });
    lab_expect_nothing(&l); /* our end is not there: nothing is guessed */
    mpc_shutdown(l.c, l.now);
    struct got *g = lab_expect(&l, P0, MP_FIN | MP_ACK, 1, 101, 0);
    CHECK(g->o.dss.has_map && g->o.dss.data_fin && g->o.dss.len == 1 && g->o.dss.ssn == 0);
    CHECK_EQ(g->o.dss.dsn, l.idsn_engine + 1);
    lab_ack(&l, P0, 101, 2);
    lab_expect_nothing(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 2, .off = 100, .len = 100 });
    CHECK(acks_data(&l, 200));
    lab_ack(&l, P0, 201, 2); /* its DATA_FIN, of which the option died */
    CHECK(acks_data(&l, 201));
    CHECK(!mpc_eof(l.c));
    lab_send(&l, P0, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 201, .ack = 2 });
    CHECK_EQ(lab_read(&l), 100);
    CHECK(mpc_eof(l.c));
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_reset_is_a_fast_close_for_a_peer_that_is_perhaps_not_plain)
{
    struct lab l = { 0 };
    untold(&l);
    mpc_abort(l.c, l.now);
    struct got *g = lab_expect(&l, P0, MP_RST | MP_ACK, 1, 101, 0);
    lab_expect_options(g, MP_FASTCLOSE);
    CHECK_EQ(g->o.fastclose_key, LAB_PEER_KEY);
    lab_end(&l);
}

TEST(after_an_infinite_mapping_the_end_is_plain_tcps)
{
    struct lab l = { 0 };
    untold(&l);
    lab_write(&l, 10);
    CHECK(is_infinite(lab_expect(&l, P0, MP_ACK, 1, 101, 10)));
    lab_ack(&l, P0, 101, 11);
    mpc_shutdown(l.c, l.now);
    lab_expect_no_options(lab_expect(&l, P0, MP_FIN | MP_ACK, 11, 101, 0));
    lab_end(&l);
}

TEST(two_ends_that_acknowledge_data_after_a_fallback_do_not_answer_each_other)
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    CHECK_EQ(fails_sent(&l), 1);
    struct mp_opts o = lab_dack(&l);
    o.mp |= MP_OPT_HAS(MP_FAIL);
    for (int i = 0; i < 3; i++) {
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .o = o });
        lab_expect_nothing(&l);
        o.mp = MP_OPT_HAS(MP_DSS);
    }
    CHECK_EQ(lab_read(&l), 100);
    lab_end(&l);
}

TEST(unconfirmed_acks_of_data_without_data_ack_one_after_the_other) /* the timer is not waited for */
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    mpc_setopt(l.c, MPC_NODELAY, 1, l.now);
    lab_write(&l, 100);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, 101);
    lab_wait(&l, MP_MS(99));
    lab_write(&l, 100);
    lab_expect(&l, P0, MP_ACK, 101, 1, 100);
    lab_forget(&l);
    CHECK_EQ(lab_info(&l).why, MP_WHY_PENDING);
    lab_wait(&l, LAB_RTT + MP_MS(1));
    lab_ack(&l, P0, 1, 201);
    plain_works_and_is_told(&l, MP_WHY_NO_OPTION_ACK, 201, 1);
}

TEST(unconfirmed_ack_of_a_proxy_that_is_late) /* as late as the peer's own, for which we were too busy */
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    lab_write(&l, 100);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack(&l, P0, 1, 101);
    lab_ack_mp(&l, P0, 1, 101, 100);
    lab_wait(&l, MP_SEC(3));
    CHECK_EQ(lab_info(&l).why, MP_WHY_MULTIPATH);
    lab_expect_counter(&l, fallback, 0);
    lab_forget(&l);
    lab_end(&l);
}

/* The peer's data comes with mappings, so that this ACK is not its own: only a queue made it late (sim_matrix, a proxy and a
 * server that sends). */
TEST(confirmed_ack_of_a_proxy_that_is_late)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_write(&l, 100);
    lab_forget(&l);
    lab_wait(&l, 2 * LAB_RTT);
    lab_ack(&l, P0, 1, 101);
    CHECK(lab_info(&l).multipath);
    lab_ack_mp(&l, P0, 1, 101, 100);
    lab_wait(&l, MP_SEC(3));
    CHECK(lab_info(&l).multipath);
    lab_expect_counter(&l, fallback, 0);
    lab_forget(&l);
    lab_end(&l);
}

/* A hundred bytes, acknowledged without a DATA_ACK: it is plain TCP when nothing else has come for a while. */
static void bare_ack_and_no_other(struct lab *l)
{
    lab_write(l, 100);
    lab_forget(l);
    lab_wait(l, LAB_RTT);
    lab_ack(l, &l->p[0], 1, 101);
    lab_wait(l, lab_sf(l, 0).rto);
    CHECK_EQ(lab_info(l).why, MP_WHY_NO_OPTION_ACK);
    lab_forget(l);
    lab_end(l);
}

TEST(confirmed_ack_without_data_ack_and_no_other) /* one is enough, when none of our data was ever heard of */
{
    struct lab l = { 0 };
    lab_client(&l);
    bare_ack_and_no_other(&l);
}

static mp_time next_question(struct lab *l) /* a segment below the window, which any TCP answers; when it went out */
{
    for (mp_time end = l->now + MP_SEC(60); l->now < end; lab_wait(l, MP_MS(10)))
        while (l->qi < l->qn)
            if (l->q[l->qi++].seq == 0) return l->q[l->qi - 1].at;
    return MP_NEVER;
}

/* A bare DATA_FIN is nothing that a plain TCP would answer: every other time the peer is asked instead. After the first answer
 * without options the second is not left to the timer, which has backed off. */
TEST(unconfirmed_data_fin_to_a_peer_that_is_plain_already)
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    mpc_shutdown(l.c, l.now);
    lab_forget(&l);
    for (int i = 0; i < 3; i++) CHECK(next_question(&l) < MP_NEVER); /* lost */
    lab_ack(&l, P0, 1, 1);
    mp_time answered = l.now, rto = lab_sf(&l, 0).rto;
    CHECK(next_question(&l) <= answered + rto);
    lab_ack(&l, P0, 1, 1);
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_OPTION_ACK);
    lab_forget(&l);
    lab_end(&l);
}

TEST(unconfirmed_ack_without_data_ack_after_a_syn_that_was_sent_twice) /* no proxy, that is: the handshake timed nothing */
{
    struct lab l = { 0 };
    lab_connect(&l);
    lab_wait(&l, MP_MS(2000)); /* the SYN/ACK was lost, and comes again a second later */
    lab_forget(&l);
    lab_synack(&l, P0, lab_offer(&l, 1));
    lab_learn_key(&l, l.q[l.qi].o.capable.key_snd);
    lab_forget(&l);
    bare_ack_and_no_other(&l);
}

TEST(unconfirmed_ack_of_a_proxy_and_no_other) /* the peer went on as plain TCP: its own ACKs say nothing new */
{
    struct lab l = { 0 };
    lab_connect(&l);
    lab_wait(&l, LAB_RTT);
    lab_synack(&l, P0, lab_offer(&l, 1));
    lab_learn_key(&l, l.q[l.qi].o.capable.key_snd);
    lab_forget(&l);
    lab_write(&l, 100);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT / 4);
    lab_ack(&l, P0, 1, 101);
    CHECK_EQ(lab_info(&l).why, MP_WHY_PENDING); /* it may yet come with a DATA_ACK */
    lab_ack(&l, P0, 1, 101);
    lab_wait(&l, MP_SEC(10));
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_OPTION_ACK);
    lab_forget(&l);
    lab_end(&l);
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

TEST(a_data_fin_from_before_the_fallback_cuts_nothing_off) /* the box put a byte in: the FIN is behind it */
{
    struct lab l = { .csum = true };
    lab_server_syn(&l);
    struct mp_opts o = lab_capable_data(&l, 100), fin = { .mp = MP_OPT_HAS(MP_DSS) };
    o.capable.csum ^= 0xff;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 101, .o = o });
    fin.dss.has_map = fin.dss.dsn64 = fin.dss.data_fin = true;
    fin.dss.dsn = l.idsn_peer + 1 + 100;
    fin.dss.len = 1;
    fin.dss.has_csum = true;
    fin.dss.csum = lab_csum(&l, 100, 0, 1, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 102, .ack = 1, .o = fin });
    lab_expect_counter(&l, data_fin_in, 1);
    lab_wait(&l, MP_MS(500));
    CHECK_EQ(lab_info(&l).why, MP_WHY_CHECKSUM);
    lab_forget(&l);
    uint64_t got = lab_read(&l);
    CHECK(!mpc_eof(l.c));
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + (uint32_t)got, .ack = 1, .off = got, .len = 101 - (uint32_t)got });
    got += lab_read(&l);
    CHECK_EQ(got, 101);
    CHECK(!mpc_eof(l.c));
    lab_send(&l, P0, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 102, .ack = 1 });
    CHECK(mpc_eof(l.c));
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

TEST(a_peer_whose_reader_is_slow_keeps_multipath)
{
    struct lab l = { .csum = true, .wnd0 = 150 };
    lab_server(&l);
    P0->wnd = 0;
    lab_write(&l, 100);
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_ack_mp(&l, P0, 1, 101, 0);
    lab_wait(&l, MP_SEC(5));
    CHECK(lab_info(&l).multipath);
    lab_forget(&l);
    lab_end(&l);
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

/* ---- PLAIN ---- */

TEST(mp_fail_is_sent_again_while_the_peer_goes_on_with_mappings)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_data(&l, P0, 1, 1, 0, 100);
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .off = 100, .len = 100 }); /* options died on the way */
    CHECK_EQ(fails_sent(&l), 1);
    lab_data(&l, P0, 201, 1, 200, 100);
    CHECK_EQ(fails_sent(&l), 1);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 301, .ack = 1, .off = 300, .len = 100, .o = infinite(&l, 300, 301) });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 401, .ack = 1, .off = 400, .len = 100 });
    CHECK_EQ(lab_read(&l), 500);
    CHECK_EQ(fails_sent(&l), 0); /* it has heard it */
    lab_end(&l);
}

TEST(the_infinite_mapping_sent_again_fits_the_mtu)
{
    struct lab l = { .csum = true, .slice = 64000 };
    lab_server(&l);
    mpc_setopt(l.c, MPC_NODELAY, 1, l.now);
    lab_write(&l, 2500); /* with mappings */
    lab_forget(&l);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_FAIL), .fail_dsn = l.idsn_engine + 1 };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_write(&l, 4500);
    lab_wait(&l, MP_SEC(8)); /* time-outs, then with segments of the larger MSS that plain TCP has */
    int mapped = 0, infinite_seen = 0;
    for (; l.qi < l.qn; l.qi++) {
        const struct got *g = &l.q[l.qi];
        uint32_t seg = g->k.gso_size && g->k.gso_size < g->len ? g->k.gso_size : g->len;
        CHECK(40u + g->k.optlen + seg <= lab_sf(&l, 0).mtu);
        mapped += g->len && g->seq < 2501 && g->o.dss.len;
        infinite_seen += is_infinite(g);
        if (g->len && g->seq < 2501) CHECK(g->o.dss.len); /* the infinite mapping is behind them, and may be lost */
    }
    CHECK(mapped && infinite_seen);
    lab_end(&l);
}

TEST(plain_an_infinite_mapping_again_is_already_done)
{
    struct lab l = { 0 };
    lab_server(&l);
    for (uint32_t i = 0; i < 3; i++)
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + i * 100, .ack = 1, .off = i * 100, .len = 100, .o = infinite(&l, 0, 1) });
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 300);
    lab_expect_counter(&l, fallback, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(plain_a_mapping_that_says_otherwise_resets) /* never wrong bytes */
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = infinite(&l, 0, 1) });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .off = 100, .len = 100, .o = lab_map(&l, 100, 101, 100, false) });
    CHECK_EQ(lab_read(&l), 200);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 201, .ack = 1, .off = 500, .len = 100, .o = lab_map(&l, 500, 201, 100, false) });
    CHECK_EQ(lab_read(&l), 0);
    CHECK_EQ(mpc_error(l.c), ECONNRESET);
    lab_forget(&l);
    lab_end(&l);
}

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
