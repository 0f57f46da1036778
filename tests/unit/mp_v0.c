/* Version 0 of MPTCP, RFC 6824: keys in all three steps, SHA-1, ADD_ADDR without HMAC and echo, no MP_TCPRST. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "lab.h"

#include <openssl/hmac.h>
#include <openssl/sha.h>

#include <errno.h>

/* From the RFC's words, not from core/: 3.1, 3.2. */
static void put(uint8_t *p, uint64_t v, int n)
{
    for (int i = n - 1; i >= 0; i--, v >>= 8) p[i] = (uint8_t)v;
}
static void derive(uint64_t key, uint32_t *token, uint64_t *idsn)
{
    uint8_t k[8], d[20];
    put(k, key, 8);
    SHA1(k, 8, d);
    *token = (uint32_t)d[0] << 24 | (uint32_t)d[1] << 16 | (uint32_t)d[2] << 8 | d[3];
    *idsn = 0;
    for (int i = 12; i < 20; i++) *idsn = *idsn << 8 | d[i];
}
static void join_hmac(uint64_t ka, uint64_t kb, uint32_t na, uint32_t nb, uint8_t h[20])
{
    uint8_t key[16], msg[8];
    put(key, ka, 8), put(key + 8, kb, 8), put(msg, na, 4), put(msg + 4, nb, 4);
    HMAC(EVP_sha1(), key, 16, msg, 8, h, NULL);
}

static void version_0(struct mp_settings *s) { s->mptcp_version = 0; }

static struct mp_opts capable(const struct lab *l, int nkeys)
{
    struct mp_opts o = lab_capable(l, nkeys);
    o.capable.version = 0;
    return o;
}

static void learn(struct lab *l, uint64_t key)
{
    l->key_engine = key;
    derive(key, &l->token_engine, &l->idsn_engine);
}

static void start(struct lab *l)
{
    lab_stack(l);
    derive(LAB_PEER_KEY, &l->token_peer, &l->idsn_peer);
}

static void server_syn(struct lab *l)
{
    start(l);
    lab_listen(l);
    lab_syn(l, 1, 5001, capable(l, 1));
    struct got *g = lab_expect(l, &l->p[0], MP_SYN | MP_ACK, 0, 1, 0);
    lab_expect_options(g, MP_CAPABLE);
    CHECK_EQ(g->o.capable.version, 0);
    CHECK_EQ(g->o.capable.nkeys, 1);
    learn(l, g->o.capable.key_snd);
}

static void server(struct lab *l)
{
    server_syn(l);
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = capable(l, 2) });
    CHECK(l->events & MP_EV_ACCEPT);
    struct got *g = lab_expect(l, &l->p[0], MP_ACK, 1, 1, 0);
    lab_expect_options(g, MP_DSS);
    CHECK_EQ(g->o.dss.data_ack, l->idsn_peer + 1);
    lab_ack_mp(l, &l->p[0], 1, 1, 0);
    lab_expect_nothing(l);
}

static void client(struct lab *l)
{
    l->tune = version_0;
    start(l);
    lab_connect(l);
    struct got *g = lab_expect(l, &l->p[0], MP_SYN, 0, 0, 0);
    lab_expect_options(g, MP_CAPABLE);
    CHECK_EQ(g->o.capable.version, 0);
    CHECK_EQ(g->o.capable.nkeys, 1);
    learn(l, g->o.capable.key_snd);
    lab_synack(l, &l->p[0], capable(l, 1));
    g = lab_expect(l, &l->p[0], MP_ACK, 1, 1, 0);
    lab_expect_options(g, MP_CAPABLE);
    CHECK_EQ(g->o.capable.version, 0);
    CHECK_EQ(g->o.capable.nkeys, 2);
    CHECK_EQ(g->o.capable.key_snd, l->key_engine);
    CHECK_EQ(g->o.capable.key_rcv, LAB_PEER_KEY);
}

TEST(a_v0_client_is_answered_with_v0)
{
    struct lab l = { 0 };
    server(&l);
    lab_data(&l, P0, 1, 1, 0, 700);
    CHECK_EQ(lab_read(&l), 700);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 701, 0);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 701);
    lab_write(&l, 500);
    g = lab_expect(&l, P0, MP_ACK, 1, 701, 500);
    lab_expect_options(g, MP_DSS);
    CHECK_EQ(g->o.dss.dsn, l.idsn_engine + 1);
    CHECK(lab_payload_is(g, 0));
    CHECK(lab_info(&l).multipath);
    lab_end(&l);
}

TEST(a_lost_third_ack_is_made_good_by_the_first_dss)
{
    struct lab l = { 0 };
    server_syn(&l);
    lab_data(&l, P0, 1, 1, 0, 700);
    CHECK(l.events & MP_EV_ACCEPT);
    CHECK_EQ(lab_read(&l), 700);
    lab_expect_options(lab_expect(&l, P0, MP_ACK, 1, 701, 0), MP_DSS);
    CHECK(lab_info(&l).multipath);
    lab_end(&l);
}

TEST(a_third_ack_with_another_key_is_not_this_handshakes)
{
    struct lab l = { 0 };
    server_syn(&l);
    struct mp_opts o = capable(&l, 2);
    o.capable.key_snd ^= 1;
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    CHECK(!(l.events & MP_EV_ACCEPT));
    lab_end(&l);
}

TEST(a_third_ack_without_option_is_plain_tcp)
{
    struct lab l = { 0 };
    server_syn(&l);
    lab_ack(&l, P0, 1, 1);
    CHECK(l.events & MP_EV_ACCEPT);
    CHECK_EQ(lab_info(&l).why, MP_WHY_NO_OPTION_ACK);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 300 });
    CHECK_EQ(lab_read(&l), 300);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_client_offers_v0_on_request_and_maps_its_first_data_by_dss)
{
    struct lab l = { 0 };
    client(&l);
    lab_write(&l, 400);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 400);
    lab_expect_options(g, MP_DSS); /* RFC 8684's MP_CAPABLE with data is not in RFC 6824 */
    CHECK(g->o.dss.has_map && g->o.dss.dsn == l.idsn_engine + 1 && g->o.dss.ssn == 1 && g->o.dss.len == 400);
    lab_ack_mp(&l, P0, 1, 401, 400);
    CHECK(lab_info(&l).multipath);
    lab_end(&l);
}

TEST(a_v1_server_that_answers_v0_with_v1_is_plain_tcp)
{
    struct lab l = { .tune = version_0 };
    start(&l);
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    lab_synack(&l, P0, lab_capable(&l, 1));
    lab_expect_no_options(lab_expect(&l, P0, MP_ACK, 1, 1, 0));
    CHECK_EQ(lab_info(&l).why, MP_WHY_VERSION);
    lab_end(&l);
}

static struct got *joined_syn(struct lab *l, struct peer **p) /* the peer joins; the engine's SYN/ACK */
{
    lab_local_up(l, 2);
    lab_forget(l); /* ADD_ADDR */
    *p = lab_syn(l, 2, 6001, lab_join_syn(l));
    struct got *g = lab_expect(l, *p, MP_SYN | MP_ACK, 0, 1, 0);
    lab_expect_options(g, MP_JOIN);
    return g;
}

TEST(a_v0_join_is_authenticated_by_sha1)
{
    struct lab l = { 0 };
    struct peer *p;
    server(&l);
    struct got *g = joined_syn(&l, &p);
    uint8_t h[20];
    join_hmac(l.key_engine, LAB_PEER_KEY, g->o.join.nonce, LAB_NONCE, h);
    CHECK_MEM(g->o.join.hmac, h, 8);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_ACK } };
    join_hmac(LAB_PEER_KEY, l.key_engine, LAB_NONCE, g->o.join.nonce, o.join.hmac);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_expect_options(lab_expect(&l, p, MP_ACK, 1, 1, 0), MP_DSS); /* the fourth */
    CHECK_EQ(lab_info(&l).nsubflows, 2);
    lab_end(&l);
}

TEST(a_v0_join_with_a_wrong_hmac_is_reset_without_a_reason)
{
    struct lab l = { 0 };
    struct peer *p;
    server(&l);
    joined_syn(&l, &p);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_ACK, .hmac = { 1 } } };
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_expect_no_options(lab_expect(&l, p, MP_RST | MP_ACK, 1, 1, 0)); /* MP_TCPRST is RFC 8684's */
    lab_expect_counter(&l, join_hmac_bad, 1);
    lab_end(&l);
}

static void announced(struct mp_settings *s) { (void)s; }
TEST(a_v0_address_is_told_once_without_hmac)
{
    struct lab l = { .tune = announced };
    start(&l);
    struct mp_local m = lab_local(2), k = lab_local(3);
    m.announce = k.announce = true;
    mp_stack_local_add(l.st, &m, l.now);
    mp_stack_local_add(l.st, &k, l.now);
    lab_listen(&l);
    lab_syn(&l, 1, 5001, capable(&l, 1));
    learn(&l, lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0)->o.capable.key_snd);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = capable(&l, 2) });
    lab_forget(&l);
    lab_ack_mp(&l, P0, 1, 1, 0);
    lab_wait(&l, MP_SEC(60));
    int seen[4] = { 0 };
    for (; l.qi < l.qn; l.qi++) {
        const struct mp_opts *o = &l.q[l.qi].o;
        if (!(o->mp & MP_OPT_HAS(MP_ADD_ADDR))) continue;
        CHECK(o->add_addr.v0);
        seen[o->add_addr.ip.b[2] & 3]++;
    }
    CHECK_EQ(seen[2], 1);
    CHECK_EQ(seen[3], 1);
    lab_end(&l);
}

TEST(a_v0_address_of_the_peer_is_joined_and_not_echoed)
{
    struct lab l = { 0 };
    client(&l);
    lab_ack_mp(&l, P0, 1, 1, 0);
    lab_local_up(&l, 2);
    lab_forget(&l);
    struct mp_opts o = lab_dack(&l);
    o.mp |= MP_OPT_HAS(MP_ADD_ADDR);
    o.add_addr = (struct mp_opt_add_addr){ .v0 = true, .addr_id = 3, .ip = lab_ep(2, 2, 0).ip };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_expect_counter(&l, add_addr_in, 1);
    lab_wait(&l, MP_SEC(1));
    for (; l.qi < l.qn; l.qi++) CHECK(!(l.q[l.qi].o.mp & MP_OPT_HAS(MP_ADD_ADDR)));
    o.add_addr = (struct mp_opt_add_addr){ .addr_id = 4, .ip = lab_ep(3, 2, 0).ip, .hmac = 1 }; /* version 1's form */
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_expect_counter(&l, add_addr_in, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_v0_priority_may_name_another_address)
{
    struct lab l = { 0 };
    server(&l);
    lab_prio(&l, P0, (struct mp_opt_prio){ .backup = true, .has_id = true, .addr_id = 7 });
    CHECK(!lab_sf(&l, 0).backup);
    lab_prio(&l, P0, (struct mp_opt_prio){ .backup = true, .has_id = true, .addr_id = 0 });
    CHECK(lab_sf(&l, 0).backup);
    lab_end(&l);
}

TEST(a_v0_fast_close_is_an_ack_that_a_reset_answers) /* RFC 6824 3.5 */
{
    struct lab l = { 0 };
    struct mp_last_words w;
    server(&l);
    CHECK(mpc_last_words(l.c, NULL, &w) && w.kind == MP_LAST_FASTCLOSE_ACK && w.key == LAB_PEER_KEY);
    mpc_abort(l.c, l.now);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    lab_expect_options(g, MP_FASTCLOSE);
    CHECK_EQ(g->o.fastclose_key, LAB_PEER_KEY);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1 });
    mpc_release(l.c, 0, l.now);
    lab_pump(&l);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}

TEST(a_v0_fast_close_of_the_peer_is_answered_by_a_reset)
{
    struct lab l = { 0 };
    server(&l);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_FASTCLOSE), .fastclose_key = l.key_engine };
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    CHECK_EQ(mpc_error(l.c), ECONNRESET);
    lab_expect_no_options(lab_expect(&l, P0, MP_RST | MP_ACK, 1, 1, 0));
    lab_end(&l);
}
