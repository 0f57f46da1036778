/* The MP_CAPABLE handshake in both roles (RFC 8684 3.1). */
#include "lab.h"

TEST(a_client_offers_version_1_with_sha256)
{
    struct lab l = { 0 };
    lab_connect(&l);
    struct got *g = lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    lab_expect_options(g, MP_CAPABLE);
    CHECK_EQ(g->o.capable.version, 1);
    CHECK_EQ(g->o.capable.nkeys, 0);
    CHECK(g->o.capable.hmac_sha256 && !g->o.capable.bflag && !g->o.capable.csum_req);
    lab_end(&l);
}

TEST(the_third_ack_carries_both_keys)
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l); /* checks it */
    CHECK_EQ(lab_info(&l).why, MP_WHY_PENDING);
    CHECK(!lab_info(&l).multipath);
    lab_ack_mp(&l, P0, 1, 1, 0);
    CHECK(lab_info(&l).multipath);
    CHECK_EQ(lab_info(&l).token, l.token_engine);
    lab_expect_counter(&l, connect_mp, 1);
    lab_end(&l);
}

TEST(the_clients_first_data_carries_mp_capable_with_the_length)
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    lab_write(&l, 500);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 500);
    lab_expect_options(g, MP_CAPABLE);
    CHECK(g->o.capable.has_data_len && !g->o.capable.has_csum);
    CHECK_EQ(g->o.capable.data_len, 500);
    CHECK_EQ(g->o.capable.key_snd, l.key_engine);
    CHECK_EQ(g->o.capable.key_rcv, LAB_PEER_KEY);
    lab_wait(&l, LAB_RTT);
    lab_ack_mp(&l, P0, 1, 501, 500);
    CHECK(lab_info(&l).multipath && mpc_send_done(l.c));
    lab_write(&l, 100);
    g = lab_expect(&l, P0, MP_ACK, 501, 1, 100);
    lab_expect_options(g, MP_DSS);
    CHECK_EQ(g->o.dss.dsn, l.idsn_engine + 1 + 500);
    CHECK_EQ(g->o.dss.ssn, 501);
    CHECK_EQ(g->o.dss.len, 100);
    lab_end(&l);
}

TEST(the_first_data_is_sent_again_with_mp_capable)
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    lab_write(&l, 500);
    lab_expect(&l, P0, MP_ACK, 1, 1, 500);
    lab_wait(&l, MP_MS(250));
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 500);
    lab_expect_options(g, MP_CAPABLE);
    CHECK_EQ(g->o.capable.data_len, 500);
    lab_forget(&l);
    lab_end(&l);
}

TEST(the_first_data_has_a_checksum_when_agreed)
{
    struct lab l = { .csum = true };
    lab_client_unconfirmed(&l);
    lab_write(&l, 500);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 500);
    lab_expect_options(g, MP_CAPABLE);
    CHECK(g->o.capable.has_csum);
    uint64_t peer = l.idsn_peer;
    l.idsn_peer = l.idsn_engine; /* the same bytes, the engine's numbers */
    CHECK_EQ(g->o.capable.csum, lab_csum(&l, 0, 1, 500, 500));
    l.idsn_peer = peer;
    lab_end(&l);
}

TEST(either_side_asks_for_checksums)
{
    struct lab l = { 0 };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    struct mp_opts o = lab_capable(&l, 1);
    o.capable.csum_req = true;
    lab_synack(&l, P0, o);
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    CHECK(lab_info(&l).csum);
    lab_end(&l);
}

TEST(the_server_takes_the_keys_from_the_third_ack)
{
    struct lab l = { 0 };
    lab_server(&l);
    CHECK(lab_info(&l).multipath);
    lab_data(&l, P0, 1, 1, 0, 100);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 101, 0);
    lab_expect_options(g, MP_DSS);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 1 + 100);
    CHECK_EQ(lab_read(&l), 100);
    lab_end(&l);
}

TEST(the_server_takes_the_keys_from_the_first_data)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    struct mp_opts o = lab_capable(&l, 2);
    o.capable.has_data_len = true;
    o.capable.data_len = 100;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = o });
    CHECK(l.events & MP_EV_ACCEPT);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 101, 0);
    lab_expect_options(g, MP_DSS);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 1 + 100);
    CHECK_EQ(lab_read(&l), 100);
    lab_end(&l);
}

TEST(data_that_overtook_the_keys_waits_for_them)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    lab_data(&l, P0, 101, 1, 100, 100);
    lab_forget(&l);
    CHECK(!(l.events & MP_EV_ACCEPT));
    struct mp_opts o = lab_capable(&l, 2);
    o.capable.has_data_len = true;
    o.capable.data_len = 100;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = o });
    lab_forget(&l);
    lab_data(&l, P0, 101, 1, 100, 100);
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 200);
    CHECK(lab_info(&l).multipath);
    lab_end(&l);
}

TEST(a_third_ack_with_foreign_keys_is_not_for_this_handshake)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    struct mp_opts o = lab_capable(&l, 2);
    o.capable.key_rcv ^= 1;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_expect_nothing(&l);
    CHECK(!(l.events & MP_EV_ACCEPT));
    lab_end(&l);
}

TEST(an_unknown_version_in_the_synack_is_plain_tcp)
{
    struct lab l = { 0 };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    struct mp_opts o = lab_capable(&l, 1);
    o.capable.version = 3;
    lab_synack(&l, P0, o);
    lab_expect_no_options(lab_expect(&l, P0, MP_ACK, 1, 1, 0));
    CHECK_EQ(lab_info(&l).why, MP_WHY_VERSION);
    lab_expect_counter(&l, capable_version, 1);
    lab_end(&l);
}

TEST(flag_b_or_no_known_algorithm_is_ignored_by_the_server)
{
    for (int i = 0; i < 4; i++) {
        struct lab l = { 0 };
        ROW("case %d", i);
        lab_listen(&l);
        struct mp_opts o = lab_capable(&l, 0);
        if (i > 1) o = (struct mp_opts){ .mp = MP_OPT_HAS(MP_CAPABLE), .capable = { .version = 0, .hmac_sha256 = i == 2, .bflag = i == 2, .nkeys = 1, .key_snd = 7 } };
        if (i == 0) o.capable.bflag = true;
        if (i == 1) o.capable.hmac_sha256 = false;
        lab_syn(&l, 1, 5001, o);
        lab_expect_no_options(lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0));
        lab_expect_counter(&l, capable_version, 1);
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(a_higher_version_is_answered_with_ours)
{
    struct lab l = { 0 };
    lab_listen(&l);
    struct mp_opts o = lab_capable(&l, 0);
    o.capable.version = 2;
    lab_syn(&l, 1, 5001, o);
    struct got *g = lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_expect_options(g, MP_CAPABLE);
    CHECK_EQ(g->o.capable.version, 1);
    lab_end(&l);
}

TEST(the_c_flag_forbids_joins_to_the_initial_address)
{
    struct lab l = { 0 };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    struct mp_opts o = lab_capable(&l, 1);
    o.capable.no_join_initial = true;
    lab_synack(&l, P0, o);
    lab_learn_key(&l, lab_expect(&l, P0, MP_ACK, 1, 1, 0)->o.capable.key_snd);
    lab_ack_mp(&l, P0, 1, 1, 0);
    struct mp_local m = lab_local(2);
    mp_stack_local_add(l.st, &m, l.now);
    lab_expect_nothing(&l);
    lab_end(&l);
}

TEST(after_two_silent_syns_one_without_the_option)
{
    struct lab l = { 0 };
    lab_connect(&l);
    lab_expect_options(lab_expect(&l, P0, MP_SYN, 0, 0, 0), MP_CAPABLE);
    lab_wait(&l, MP_SEC(1));
    lab_expect_options(lab_expect(&l, P0, MP_SYN, 0, 0, 0), MP_CAPABLE);
    lab_wait(&l, MP_SEC(2));
    lab_expect_no_options(lab_expect(&l, P0, MP_SYN, 0, 0, 0));
    lab_synack(&l, P0, (struct mp_opts){ 0 });
    lab_expect_no_options(lab_expect(&l, P0, MP_ACK, 1, 1, 0));
    CHECK_EQ(lab_info(&l).why, MP_WHY_SYN_DROPPED);
    lab_expect_counter(&l, syn_no_option, 1);
    lab_end(&l);
}

TEST(every_connection_has_its_own_key)
{
    struct lab l = { 0 };
    lab_client(&l);
    uint32_t token = l.token_engine;
    struct mp_endpoint to = lab_ep(1, 2, 80), from = lab_ep(1, 1, 0);
    int err;
    struct mpc *c = mp_stack_connect(l.st, &to, &from.ip, 1, 0, NULL, l.now, &err);
    struct mpc_info i;
    mpc_get_info(c, &i);
    CHECK(i.token != token);
    lab_expect(&l, P1, MP_SYN, 0, 0, 0);
    CHECK_EQ(mp_stack_live(l.st), 2);
    lab_end(&l);
}
