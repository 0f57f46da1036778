/* Every cell of core/fallback.def, reached by packets (RFC 8684 3.7). A test that reaches one is named in cells[]
 * below; the last test compares that list with the table. */
#include "lab.h"

#include "core/fallback.h"

#include <errno.h>

static struct { enum fb_state s; enum fb_event e; } cells[64];
static int ncells;
static void reaches(enum fb_state s, enum fb_event e)
{
    cells[ncells].s = s;
    cells[ncells++].e = e;
}

static bool is_infinite(const struct got *g) { return g->o.mp == MP_OPT_HAS(MP_DSS) && g->o.dss.has_map && g->o.dss.len == 0; }

/* The connection is plain TCP for this reason, and carries bytes both ways without options; of our data only the first
 * has one where the peer must be told. */
static void goes_on(struct lab *l, enum mp_plain_why why, uint32_t snd, uint32_t rcv, bool told)
{
    lab_forget(l);
    CHECK(!lab_info(l).multipath);
    CHECK_EQ(lab_info(l).why, why);
    lab_expect_counter(l, fallback, 1);
    uint64_t had = l->read + lab_read(l);
    lab_forget(l);
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = rcv, .ack = snd, .off = had - l->read + l->read, .len = 50 });
    CHECK_EQ(lab_read(l), 50);
    lab_forget(l);
    CHECK(mpc_send_done(l->c)); /* what the subflow acknowledged counts */
    for (int i = 0; i < 2; i++, snd += 70) {
        lab_write(l, 70);
        struct got *g = lab_expect(l, &l->p[0], MP_ACK, snd, rcv + 50, 70);
        if (told && i == 0) CHECK(is_infinite(g)); /* RFC 8684 3.7 */
        else lab_expect_no_options(g);
        CHECK(lab_payload_is(g, l->written - 70));
        lab_ack(l, &l->p[0], rcv + 50, snd + 70);
        CHECK(mpc_send_done(l->c));
    }
    mpc_shutdown(l->c, l->now);
    lab_expect_no_options(lab_expect(l, &l->p[0], MP_FIN | MP_ACK, snd, rcv + 50, 0));
    lab_end(l);
}

static void plain_works(struct lab *l, enum mp_plain_why why, uint32_t snd, uint32_t rcv) { goes_on(l, why, snd, rcv, false); }
static void plain_works_and_is_told(struct lab *l, enum mp_plain_why why, uint32_t snd, uint32_t rcv) { goes_on(l, why, snd, rcv, true); }

/* How many of the segments that wait carry MP_FAIL. */
static int fails_sent(struct lab *l)
{
    int n = 0;
    for (lab_pump(l); l->qi < l->qn; l->qi++) n += !!(l->q[l->qi].o.mp & MP_OPT_HAS(MP_FAIL));
    return n;
}

/* ---- OFFERED ---- */

TEST(synack_without_option)
{
    struct lab l = { 0 };
    reaches(FB_OFFERED, FB_SYNACK_WITHOUT_OPTION);
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    lab_synack(&l, P0, (struct mp_opts){ 0 });
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
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    struct mp_opts o = lab_capable(&l, 1);
    o.capable.version = 9;
    lab_synack(&l, P0, o);
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
    lab_ack(&l, P0, 1, 101);
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

TEST(unconfirmed_bad_checksum)
{
    struct lab l = { .csum = true };
    reaches(FB_UNCONFIRMED, FB_CSUM_BAD_SINGLE);
    lab_server_syn(&l);
    struct mp_opts o = lab_capable(&l, 2);
    o.capable.has_data_len = o.capable.has_csum = true;
    o.capable.data_len = 100;
    o.capable.csum = (uint16_t)(lab_csum(&l, 0, 1, 100, 100) ^ 0xff);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = o });
    lab_expect_counter(&l, csum_awaited, 1);
    lab_wait(&l, MP_MS(200)); /* no join comes */
    lab_expect_counter(&l, csum_bad, 1);
    bool fail = false;
    for (; l.qi < l.qn; l.qi++) fail |= (l.q[l.qi].o.mp & MP_OPT_HAS(MP_FAIL)) && l.q[l.qi].o.fail_dsn == l.idsn_peer + 1;
    CHECK(fail);
    CHECK_EQ(lab_info(&l).why, MP_WHY_CHECKSUM);
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_data_fin_from_before_the_fallback_cuts_nothing_off) /* the box put a byte in: the FIN is behind it */
{
    struct lab l = { .csum = true };
    lab_server_syn(&l);
    struct mp_opts o = lab_capable(&l, 2), fin = { .mp = MP_OPT_HAS(MP_DSS) };
    o.capable.has_data_len = o.capable.has_csum = true;
    o.capable.data_len = 100;
    o.capable.csum = lab_csum(&l, 0, 1, 100, 100) ^ 0xff;
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

static struct mp_opts infinite(const struct lab *l, uint64_t off, uint32_t ssn)
{
    struct mp_opts o = lab_dack(l);
    o.dss.has_map = o.dss.dsn64 = true;
    o.dss.dsn = l->idsn_peer + 1 + off;
    o.dss.ssn = ssn;
    o.dss.has_csum = l->csum;
    return o;
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

/* ---- CONFIRMED ---- */

TEST(confirmed_further_dss_change_nothing)
{
    struct lab l = { 0 };
    reaches(FB_CONFIRMED, FB_DSS_SEEN);
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
    lab_data(&l, P0, 1, 1, 0, 100);
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 100);
    struct mp_opts o = lab_map(&l, 100, 101, 100, false);
    o.dss.csum ^= 0x1111;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .off = 100, .len = 100, .o = o });
    lab_wait(&l, MP_MS(200));
    bool fail = false;
    for (; l.qi < l.qn; l.qi++) fail |= (l.q[l.qi].o.mp & MP_OPT_HAS(MP_FAIL)) && l.q[l.qi].o.fail_dsn == l.idsn_peer + 101;
    CHECK(fail);
    lab_expect_counter(&l, fail_out, 1);
    CHECK_EQ(lab_read(&l), 100); /* passed on as a middlebox made it: plain TCP from here */
    lab_forget(&l);
    CHECK_EQ(lab_info(&l).why, MP_WHY_CHECKSUM);
    lab_write(&l, 10);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 201, 10);
    CHECK(g->o.dss.has_map && g->o.dss.len == 0);
    lab_end(&l);
}

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

TEST(confirmed_bad_checksum_with_others)
{
    struct lab l = { .csum = true };
    reaches(FB_CONFIRMED, FB_CSUM_BAD_MULTI);
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = lab_map(&l, 0, 1, 100, false), .spoil = true });
    bool rst = false;
    for (; l.qi < l.qn; l.qi++) rst |= l.q[l.qi].p == p && (l.q[l.qi].flags & MP_RST) && l.q[l.qi].o.tcprst.reason == MP_RST_MIDDLEBOX;
    CHECK(rst);
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
    reaches(FB_PLAIN, FB_PEER_FAIL); /* the second one below is not even looked at: plain TCP has no options */
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

TEST(unconfirmed_infinite_mapping)
{
    struct lab l = { 0 };
    reaches(FB_UNCONFIRMED, FB_PEER_INFINITE);
    lab_client_unconfirmed(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = infinite(&l, 0, 1) });
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 100);
    CHECK(!lab_info(&l).multipath);
    CHECK_EQ(lab_info(&l).why, MP_WHY_PEER_FAIL);
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

/* ---- a wrong checksum on the only subflow, while another may come (core/doubt.c) ---- */

static void spoiled(struct lab *l)
{
    lab_server(l);
    lab_data(l, &l->p[0], 1, 1, 0, 100);
    lab_forget(l);
    CHECK_EQ(lab_read(l), 100);
    struct mp_opts o = lab_map(l, 100, 101, 100, false);
    o.dss.csum ^= 0x1111;
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .off = 100, .len = 100, .o = o });
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
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_SYN, .addr_id = 5, .token = l.token_engine, .nonce = 0x0a0b0c0d } };
    lab_wait(&l, MP_MS(90));
    struct peer *p = lab_syn(&l, 2, 5002, o);
    lab_expect(&l, p, MP_SYN | MP_ACK, 0, 1, 0);
    lab_wait(&l, MP_MS(400)); /* a join on its way gives it longer */
    lab_expect_counter(&l, csum_bad, 0);
    o.join.form = MP_JOIN_ACK;
    uint8_t h[32];
    lab_join_hmac(&l, p, h);
    memcpy(o.join.hmac, h, 20);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_wait(&l, MP_MS(1));
    bool rst = false;
    for (; l.qi < l.qn; l.qi++)
        rst |= l.q[l.qi].p == P0 && (l.q[l.qi].flags & MP_RST) && (l.q[l.qi].o.mp & MP_OPT_HAS(MP_FAIL)) && l.q[l.qi].o.tcprst.reason == MP_RST_MIDDLEBOX;
    CHECK(rst);
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
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_SYN, .addr_id = 5, .token = l.token_engine, .nonce = 0x0a0b0c0d } };
    struct peer *p = lab_syn(&l, 2, 5002, o);
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
    reaches(FB_PLAIN, FB_PEER_INFINITE);
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
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_SYN, .addr_id = 5, .token = l.token_engine, .nonce = 0x0a0b0c0d } };
    struct peer *p = lab_syn(&l, 2, 5002, o);
    lab_forget(&l);
    o.join.form = MP_JOIN_ACK;
    uint8_t h[32];
    lab_join_hmac(&l, p, h);
    memcpy(o.join.hmac, h, 20);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_forget(&l);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
    lab_expect_counter(&l, fallback, 0);
    CHECK_EQ(lab_read(&l), 0);
    bool rst = false;
    for (; l.qi < l.qn; l.qi++) rst |= l.q[l.qi].p == p && (l.q[l.qi].flags & MP_RST);
    CHECK(rst);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

/* ---- a join under way: the peer may hold it for established, and then does not fall back ---- */

static struct peer *join_half_open(struct lab *l)
{
    lab_server(l);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_SYN, .addr_id = 5, .token = l->token_engine, .nonce = 0x0a0b0c0d } };
    struct peer *p = lab_syn(l, 2, 5002, o);
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

TEST(every_cell_of_the_table_was_reached)
{
    static const struct { enum fb_state s; enum fb_event e; const char *name; } table[] = {
#define X(state, event, next, action, source) { FB_##state, FB_##event, #state " x " #event },
#include "core/fallback.def"
#undef X
    };
    if (ncells < 5) return; /* some tests alone */
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        bool found = false;
        for (int j = 0; j < ncells; j++) found |= cells[j].s == table[i].s && cells[j].e == table[i].e;
        ROW("%s", table[i].name);
        CHECK(found);
    }
    ROW("%s", "");
}
