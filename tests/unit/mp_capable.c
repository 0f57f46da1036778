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

/* Linux falls back in a segment of the full MSS with an infinite mapping on top: it must not exceed the MTU. */
TEST(who_offers_or_takes_mptcp_leaves_room_for_an_infinite_mapping)
{
    struct lab l = { 0 }, m = { 0 }, n = { .plain = true };
    lab_connect(&l);
    CHECK_EQ(lab_expect(&l, P0, MP_SYN, 0, 0, 0)->o.mss, 1460 - 28);
    lab_wait(&l, MP_MS(2100));
    CHECK_EQ(lab_expect(&l, P0, MP_SYN, 0, 0, 0)->o.mss, 1460 - 28);
    CHECK_EQ(lab_expect(&l, P0, MP_SYN, 0, 0, 0)->o.mss, 1460); /* the one without MP_CAPABLE */
    lab_forget(&l);
    lab_end(&l);
    lab_listen(&m);
    lab_syn(&m, 1, 5001, lab_offer(&m, 0));
    CHECK_EQ(lab_expect(&m, &m.p[0], MP_SYN | MP_ACK, 0, 1, 0)->o.mss, 1460 - 28);
    lab_end(&m);
    lab_listen(&n);
    lab_syn(&n, 1, 5001, (struct mp_opts){ 0 });
    CHECK_EQ(lab_expect(&n, &n.p[0], MP_SYN | MP_ACK, 0, 1, 0)->o.mss, 1460);
    lab_end(&n);
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
    struct mp_opts o = lab_capable(&l, 1);
    o.capable.csum_req = true;
    lab_connect_answered(&l, o);
    lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    CHECK(lab_info(&l).csum);
    lab_end(&l);
}

TEST(the_third_ack_is_repeated_when_its_link_is_back) /* the server may have none, and what it repeats may be swallowed */
{
    struct lab l = { 0 };
    lab_client_unconfirmed(&l);
    struct mp_local m = lab_local(1);
    mp_stack_local_del(l.st, 1, &m.ip, l.now);
    lab_wait(&l, MP_SEC(5));
    lab_forget(&l);
    mp_stack_local_add(l.st, &m, l.now);
    lab_pump(&l);
    lab_expect_options(lab_expect(&l, P0, MP_ACK, 1, 1, 0), MP_CAPABLE);
    lab_expect(&l, P0, MP_ACK, 0, 1, 0); /* what any server answers */
    lab_end(&l);
}

static void first_data_is_taken(struct lab *l)
{
    struct got *g = lab_expect(l, &l->p[0], MP_ACK, 1, 101, 0);
    lab_expect_options(g, MP_DSS);
    CHECK_EQ(g->o.dss.data_ack, l->idsn_peer + 1 + 100);
    CHECK_EQ(lab_read(l), 100);
}

TEST(the_server_takes_the_keys_from_the_third_ack)
{
    struct lab l = { 0 };
    lab_server(&l);
    CHECK(lab_info(&l).multipath);
    lab_data(&l, P0, 1, 1, 0, 100);
    first_data_is_taken(&l);
    lab_end(&l);
}

TEST(the_server_takes_the_keys_from_the_first_data)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = lab_capable_data(&l, 100) });
    CHECK(l.events & MP_EV_ACCEPT);
    first_data_is_taken(&l);
    lab_end(&l);
}

TEST(data_that_overtook_the_keys_waits_for_them)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    lab_data(&l, P0, 101, 1, 100, 100);
    lab_forget(&l);
    CHECK(!(l.events & MP_EV_ACCEPT));
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .o = lab_capable_data(&l, 100) });
    lab_forget(&l);
    lab_data(&l, P0, 101, 1, 100, 100);
    lab_forget(&l);
    CHECK_EQ(lab_read(&l), 200);
    CHECK(lab_info(&l).multipath);
    lab_end(&l);
}

/* The client has nothing to say but its DATA_FIN, and its third ACK was lost. */
static void data_fin_instead_of_keys(struct lab *l)
{
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_map(l, 0, 0, 0, true) });
}

TEST(a_data_fin_that_comes_without_the_keys_waits_for_them)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    data_fin_instead_of_keys(&l);
    lab_expect_nothing(&l);
    CHECK(!(l.events & MP_EV_ACCEPT));
    lab_wait(&l, MP_SEC(1));
    lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0); /* which a client answers with its third ACK */
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_capable(&l, 2) });
    lab_forget(&l);
    data_fin_instead_of_keys(&l);
    lab_forget(&l);
    CHECK(lab_info(&l).multipath);
    CHECK(mpc_eof(l.c));
    lab_end(&l);
}

TEST(keys_that_never_get_through_are_not_waited_for_without_end)
{
    struct lab l = { 0 };
    lab_server_syn(&l);
    for (int i = 0; i < 4; i++) {
        data_fin_instead_of_keys(&l);
        lab_wait(&l, MP_SEC(1) << i);
    }
    lab_forget(&l);
    CHECK(l.events & MP_EV_ACCEPT);
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_OPTION_ACK);
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
    struct mp_opts o = lab_capable(&l, 1);
    o.capable.version = 3;
    lab_connect_answered(&l, o);
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

/* A client, confirmed, whose peer sets flag C. */
static void client_of_a_balancer(struct lab *l)
{
    struct mp_opts o = lab_capable(l, 1);
    o.capable.no_join_initial = true;
    lab_connect_answered(l, o);
    lab_learn_key(l, lab_expect(l, &l->p[0], MP_ACK, 1, 1, 0)->o.capable.key_snd);
    lab_ack_mp(l, &l->p[0], 1, 1, 0);
}

TEST(the_c_flag_forbids_joins_to_the_initial_address)
{
    struct lab l = { 0 };
    client_of_a_balancer(&l);
    lab_local_up(&l, 2);
    lab_expect_nothing(&l);
    lab_end(&l);
}

TEST(the_c_flag_in_the_syn_is_obeyed_by_a_server_too) /* of its own joins there are none; it is remembered for the address */
{
    struct lab l = { 0 };
    lab_listen(&l);
    struct mp_opts o = lab_capable(&l, 0);
    o.capable.no_join_initial = true;
    lab_syn(&l, 1, 5001, o);
    struct got *g = lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_expect_options(g, MP_CAPABLE);
    CHECK(!g->o.capable.no_join_initial); /* each side speaks for itself */
    lab_end(&l);
}

static void behind_a_balancer(struct mp_settings *s) { s->no_join_initial = 1; }

TEST(the_c_flag_is_set_by_a_server_behind_a_load_balancer) /* RFC 8684 3.1 */
{
    struct lab l = { .tune = behind_a_balancer };
    lab_listen(&l);
    lab_syn(&l, 1, 5001, lab_capable(&l, 0));
    struct got *g = lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    CHECK(g->o.capable.no_join_initial);
    CHECK(g->o.capable.hmac_sha256 && !g->o.capable.bflag);
    lab_end(&l);
}

static void cookies_behind_a_balancer(struct mp_settings *s) { s->no_join_initial = 1, s->syn_backlog = 0; }

TEST(the_c_flag_is_in_a_stateless_answer_as_well)
{
    struct lab l = { .tune = cookies_behind_a_balancer };
    lab_listen(&l);
    lab_syn(&l, 1, 5001, lab_capable(&l, 0));
    struct got *g = lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    CHECK(g->o.capable.no_join_initial);
    lab_end(&l);
}

TEST(the_c_flag_is_set_by_a_client_in_all_three_steps)
{
    struct lab l = { .tune = behind_a_balancer };
    lab_connect(&l);
    CHECK(lab_expect(&l, P0, MP_SYN, 0, 0, 0)->o.capable.no_join_initial);
    lab_synack(&l, P0, lab_capable(&l, 1));
    CHECK(lab_expect(&l, P0, MP_ACK, 1, 1, 0)->o.capable.no_join_initial);
    lab_write(&l, 100); /* the first data repeats the option */
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 100);
    CHECK(g->o.capable.no_join_initial && g->o.capable.has_data_len);
    lab_end(&l);
}

TEST(with_the_c_flag_other_addresses_are_joined) /* RFC 8684 3.1: only the initial one is out */
{
    struct lab l = { 0 };
    client_of_a_balancer(&l);
    struct mp_opts a = { .mp = MP_OPT_HAS(MP_ADD_ADDR), .add_addr = { .addr_id = 5, .ip = lab_ep(2, 2, 0).ip } };
    a.add_addr.hmac = mp_add_addr_hmac(LAB_PEER_KEY, l.key_engine, 5, &a.add_addr.ip, 0);
    lab_local_up(&l, 2);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = a });
    bool join = false;
    for (int i = l.qi; i < l.qn; i++) {
        bool syn = l.q[i].o.mp & MP_OPT_HAS(MP_JOIN);
        join |= syn && lab_at(&l.q[i].k.dst.ip, 2, 2);
        CHECK(!syn || !lab_at(&l.q[i].k.dst.ip, 1, 2));
    }
    CHECK(join);
    lab_forget(&l);
    lab_end(&l);
}

/* An option given byte by byte, padded; the rest of a SYN's options before it. */
static void raw_syn(struct lab *l, const uint8_t *opt, size_t n)
{
    uint8_t b[40] = { 2, 4, 1028 >> 8, 1028 & 255, 4, 2, 1, 3, 3, 0, 1, 1 };
    struct mp_endpoint e = lab_ep(1, 1, 80), f = lab_ep(1, 2, 5001);
    struct peer *p = lab_peer_new(l, &e, &f, 1);
    memset(b + 12, 1, 28);
    memcpy(b + 12, opt, n);
    lab_send(l, p, (struct seg){ .flags = MP_SYN, .raw = b, .nraw = (uint8_t)(12 + (n + 3) / 4 * 4) });
}

TEST(the_reserved_bits_of_mp_capable_are_ignored) /* RFC 8684 3.1: D to G "MUST be ignored" when not understood */
{
    for (int bit = 1; bit < 5; bit++) {
        struct lab l = { .no_ts = true };
        ROW("bit %d", bit);
        lab_listen(&l);
        raw_syn(&l, (uint8_t[]){ 30, 4, 0x01, (uint8_t)(1 | 1 << bit) }, 4);
        struct got *g = lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
        lab_expect_options(g, MP_CAPABLE);
        CHECK(g->o.capable.hmac_sha256 && g->o.capable.nkeys == 1);
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(a_syn_with_a_reserved_subtype_is_a_syn_without_mptcp) /* RFC 8684 8.1: 9 to e unassigned, f private */
{
    for (unsigned t = 9; t < 16; t++) {
        struct lab l = { .no_ts = true };
        ROW("subtype %x", t);
        lab_listen(&l);
        raw_syn(&l, (uint8_t[]){ 30, 4, (uint8_t)(t << 4 | 1), 1 }, 4);
        lab_expect_no_options(lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0));
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(a_reserved_subtype_beside_a_known_option_changes_nothing)
{
    for (unsigned t = 9; t < 16; t++) {
        struct lab l = { .no_ts = true };
        ROW("subtype %x", t);
        lab_client(&l);
        struct mp_opts o = lab_map(&l, 0, 1, 100, false);
        uint8_t b[40] = { 30, 4, (uint8_t)(t << 4), 0 };
        size_t n = mp_opts_len(&o);
        mp_opts_emit(b + 4, &o);
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .raw = b, .nraw = (uint8_t)(4 + n) });
        CHECK_EQ(lab_read(&l), 100);
        CHECK(lab_info(&l).multipath);
        lab_forget(&l);
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(the_reserved_bits_of_a_dss_are_ignored) /* RFC 8684 3.3: flags beyond F, m, M, a, A */
{
    for (int bit = 5; bit < 8; bit++) {
        struct lab l = { .no_ts = true };
        ROW("bit %d", bit);
        lab_client(&l);
        struct mp_opts o = lab_map(&l, 0, 1, 100, false);
        uint8_t b[40];
        size_t n = mp_opts_len(&o);
        mp_opts_emit(b, &o);
        size_t at = 0;
        while (b[at] != 30) at += b[at] == 1 ? 1 : b[at + 1];
        b[at + 3] |= (uint8_t)(1 << bit);
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100, .raw = b, .nraw = (uint8_t)n });
        CHECK_EQ(lab_read(&l), 100);
        lab_forget(&l);
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(after_two_silent_syns_one_without_the_option)
{
    struct lab l = { 0 };
    lab_connect(&l);
    lab_expect_options(lab_expect(&l, P0, MP_SYN, 0, 0, 0), MP_CAPABLE);
    lab_wait(&l, MP_SEC(1));
    lab_expect_options(lab_expect(&l, P0, MP_SYN, 0, 0, 0), MP_CAPABLE);
    lab_wait(&l, MP_MS(1100));
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
