/* Addresses come and go: ADD_ADDR, its echo and retransmission, REMOVE_ADDR, links (RFC 8684 3.4). */
#include "lab.h"

#include <errno.h>

static struct mp_opts add_addr(const struct lab *l, uint8_t id, int subnet, uint16_t port)
{
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_ADD_ADDR), .add_addr = { .addr_id = id, .ip = lab_ep(subnet, 2, 0).ip, .port = port } };
    o.add_addr.hmac = mp_add_addr_hmac(LAB_PEER_KEY, l->key_engine, id, &o.add_addr.ip, port);
    return o;
}

static void say(struct lab *l, struct mp_opts o) { lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o }); }

static struct got *with_option(struct lab *l, enum mp_subtype t)
{
    for (lab_pump(l); l->qi < l->qn;) {
        struct got *g = &l->q[l->qi++];
        if (g->o.mp & MP_OPT_HAS(t)) return g;
    }
    return &lab_none;
}

static void announcer(struct lab *l, int n) /* a server with n further addresses */
{
    lab_stack(l);
    for (int i = 2; i < 2 + n; i++) {
        struct mp_local m = lab_local(i);
        m.announce = true;
        mp_stack_local_add(l->st, &m, l->now);
    }
    lab_server_unconfirmed(l);
    lab_ack_mp(l, &l->p[0], 1, 1, 0);
}

TEST(an_add_addr_is_echoed_and_joined)
{
    struct lab l = { 0 };
    lab_client(&l);
    say(&l, add_addr(&l, 4, 3, 0));
    bool echo = false, join = false;
    for (int i = l.qi; i < l.qn; i++) {
        struct got *g = &l.q[i];
        if ((g->o.mp & MP_OPT_HAS(MP_ADD_ADDR)) && g->o.add_addr.echo) echo = g->o.add_addr.addr_id == 4 && lab_at(&g->o.add_addr.ip, 3, 2);
        if ((g->o.mp & MP_OPT_HAS(MP_JOIN))) join = g->k.dst.port == 80 && lab_at(&g->k.dst.ip, 3, 2);
    }
    CHECK(echo);
    CHECK(join);
    lab_forget(&l);
    lab_expect_counter(&l, add_addr_in, 1);
    lab_end(&l);
}

TEST(an_add_addr_with_a_port)
{
    struct lab l = { 0 };
    lab_client(&l);
    say(&l, add_addr(&l, 4, 3, 8080));
    struct got *g = with_option(&l, MP_ADD_ADDR);
    CHECK(g->o.add_addr.echo);
    CHECK_EQ(g->o.add_addr.port, 8080);
    bool join = false;
    for (int i = 0; i < l.qn; i++) join |= (l.q[i].o.mp & MP_OPT_HAS(MP_JOIN)) && l.q[i].k.dst.port == 8080;
    CHECK(join);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_wrong_hmac_is_ignored)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_opts o = add_addr(&l, 4, 3, 0);
    o.add_addr.hmac ^= 1;
    say(&l, o);
    lab_expect_nothing(&l);
    lab_expect_counter(&l, add_addr_hmac_bad, 1);
    lab_end(&l);
}

TEST(an_add_addr_that_gives_the_initial_id_to_another_address_is_echoed_and_not_joined) /* as Linux does */
{
    struct lab l = { 0 };
    lab_client(&l);
    say(&l, add_addr(&l, 0, 3, 0));
    CHECK(lab_expect(&l, P0, MP_ACK, 1, 1, 0)->o.add_addr.echo);
    lab_wait(&l, MP_SEC(10));
    lab_expect_nothing(&l);
    lab_end(&l);
}

TEST(an_address_that_comes_again_with_another_id_is_not_joined_twice)
{
    struct lab l = { 0 };
    lab_client(&l);
    say(&l, add_addr(&l, 4, 3, 0));
    lab_forget(&l);
    say(&l, add_addr(&l, 5, 3, 0));
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 1, 1, 0)->o.add_addr.addr_id, 5);
    lab_expect_nothing(&l);
    lab_end(&l);
}

/* A host that roams: one address after the other, each gone when the next comes. */
TEST(address_ids_of_addresses_that_are_gone_are_given_to_new_ones)
{
    struct lab l = { 0 };
    bool seen[256] = { false };
    int ids = 0;
    lab_client(&l);
    for (int subnet = 2; subnet < 42; subnet++) {
        struct mp_local m = lab_local(subnet);
        mp_stack_local_add(l.st, &m, l.now);
        const struct got *syn = with_option(&l, MP_JOIN);
        uint8_t id = syn->o.join.addr_id;
        CHECK(syn->flags == MP_SYN && id != 0 && id != 255);
        ids += !seen[id];
        seen[id] = true;
        mp_stack_local_del(l.st, subnet, &m.ip, l.now);
        lab_forget(&l);
        if (l.np == LAB_MAX_PEERS) l.np = 1;
    }
    CHECK_EQ(ids, 16);
    lab_end(&l);
}

TEST(a_repeated_add_addr_is_echoed_but_not_joined_twice)
{
    struct lab l = { 0 };
    lab_client(&l);
    say(&l, add_addr(&l, 4, 3, 0));
    lab_forget(&l);
    say(&l, add_addr(&l, 4, 3, 0));
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    CHECK(g->o.add_addr.echo);
    lab_end(&l);
}

TEST(more_addresses_than_there_is_room_for)
{
    struct lab l = { 0 };
    l.no_route = true;
    lab_client(&l);
    for (int i = 0; i < 12; i++) say(&l, add_addr(&l, (uint8_t)(4 + i), 10 + i, 0));
    lab_wait(&l, MP_SEC(1));
    lab_forget(&l);
    lab_expect_counter(&l, add_addr_in, 12);
    lab_expect_counter(&l, join_syn_out, 0);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(a_server_announces_its_other_address)
{
    struct lab l = { 0 };
    announcer(&l, 1);
    struct got *g = with_option(&l, MP_ADD_ADDR);
    CHECK(!g->o.add_addr.echo);
    CHECK(lab_at(&g->o.add_addr.ip, 2, 1));
    CHECK(g->o.add_addr.addr_id != 0);
    CHECK_EQ(g->o.add_addr.hmac, mp_add_addr_hmac(l.key_engine, LAB_PEER_KEY, g->o.add_addr.addr_id, &g->o.add_addr.ip, 0));
    lab_forget(&l);
    lab_expect_counter(&l, add_addr_out, 1);
    lab_end(&l);
}

TEST(an_add_addr_is_sent_again_until_echoed)
{
    struct lab l = { 0 };
    announcer(&l, 1);
    uint8_t id = with_option(&l, MP_ADD_ADDR)->o.add_addr.addr_id;
    lab_forget(&l);
    lab_wait(&l, LAB_RTT / 2); /* before an echo can come: the only path may lose this and die meanwhile */
    CHECK_EQ(with_option(&l, MP_ADD_ADDR)->o.add_addr.addr_id, id);
    lab_forget(&l);
    lab_wait(&l, 2 * LAB_RTT + MP_MS(11)); /* soon */
    CHECK_EQ(with_option(&l, MP_ADD_ADDR)->o.add_addr.addr_id, id);
    lab_forget(&l);
    lab_wait(&l, MP_MS(1900));
    lab_expect_nothing(&l);
    lab_wait(&l, MP_MS(200));
    lab_expect_counter(&l, add_addr_out, 1);
    lab_expect_counter(&l, add_addr_rexmit, 3);
    CHECK_EQ(with_option(&l, MP_ADD_ADDR)->o.add_addr.addr_id, id);
    lab_forget(&l);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_ADD_ADDR), .add_addr = { .echo = true, .addr_id = id, .ip = lab_ep(2, 1, 0).ip } };
    say(&l, o);
    lab_wait(&l, MP_SEC(200));
    lab_expect_nothing(&l);
    lab_expect_counter(&l, add_addr_echo_in, 1);
    lab_end(&l);
}

TEST(an_unechoed_address_does_not_block_the_next) /* as Linux once had it: multipath-tcp/mptcp_net-next #151 */
{
    struct lab l = { 0 };
    announcer(&l, 3);
    lab_wait(&l, MP_SEC(300));
    uint32_t ids = 0;
    int n = 0;
    for (; l.qi < l.qn; l.qi++)
        if (l.q[l.qi].o.mp & MP_OPT_HAS(MP_ADD_ADDR)) ids |= 1u << l.q[l.qi].o.add_addr.addr_id, n++;
    CHECK_EQ(__builtin_popcount(ids), 3);
    CHECK(n <= 18); /* and it ends */
    lab_end(&l);
}

TEST(each_address_has_its_own_tries) /* the copies of one are none of another */
{
    struct lab l = { 0 };
    announcer(&l, 3);
    lab_wait(&l, MP_SEC(300));
    mp_time first[8] = { 0 }, last[8] = { 0 };
    int n[8] = { 0 };
    for (; l.qi < l.qn; l.qi++) {
        const struct got *g = &l.q[l.qi];
        if (!(g->o.mp & MP_OPT_HAS(MP_ADD_ADDR))) continue;
        uint8_t id = g->o.add_addr.addr_id & 7;
        if (!n[id]++) first[id] = g->at;
        last[id] = g->at;
    }
    int told = 0;
    for (int id = 0; id < 8; id++) {
        if (!n[id]) continue;
        told++;
        ROW("%d", id);
        CHECK_EQ(n[id], 6);
        CHECK(last[id] - first[id] > MP_SEC(14)); /* 2, 4 and 8 s */
    }
    CHECK_EQ(told, 3);
    lab_end(&l);
}

TEST(an_ipv6_address_is_announced_in_a_segment_of_its_own) /* beside timestamps it leaves no room for a DATA_ACK */
{
    struct lab l = { 0 };
    lab_stack(&l);
    struct mp_local m = { .ifindex = 2, .announce = true, .ip = { 6, { 0x20, 1, 0xd, 0xb8, [15] = 1 } } };
    mp_stack_local_add(l.st, &m, l.now);
    lab_server_unconfirmed(&l);
    lab_ack_mp(&l, P0, 1, 1, 0);
    struct got *g = with_option(&l, MP_ADD_ADDR);
    CHECK(mp_addr_eq(&g->o.add_addr.ip, &m.ip));
    lab_forget(&l);
    lab_data(&l, P0, 1, 1, 0, 100);
    CHECK(with_option(&l, MP_DSS)->o.dss.has_ack); /* data is acknowledged at connection level all the same */
    lab_forget(&l);
    lab_end(&l);
}

TEST(an_address_that_has_no_room_beside_a_data_ack_follows_it)
{
    struct lab l = { 0 };
    lab_stack(&l);
    struct mp_local m = { .ifindex = 2, .announce = true, .ip = { 6, { 0x20, 1, 0xd, 0xb8, [15] = 1 } } };
    mp_stack_local_add(l.st, &m, l.now);
    lab_server_unconfirmed(&l);
    lab_data(&l, P0, 1, 1, 0, 100); /* confirms MPTCP, and is to be acknowledged */
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 101, 0);
    lab_expect_options(g, MP_DSS);
    CHECK_EQ(g->o.dss.data_ack, l.idsn_peer + 1 + 100);
    g = lab_expect(&l, P0, MP_ACK, 1, 101, 0);
    lab_expect_options(g, MP_ADD_ADDR);
    CHECK(mp_addr_eq(&g->o.add_addr.ip, &m.ip));
    lab_forget(&l);
    lab_end(&l);
}

/* A client that has joined the address which the peer announced as number 4. */
static struct peer *joined_at_address_4(struct lab *l)
{
    lab_client(l);
    say(l, add_addr(l, 4, 3, 0));
    struct peer *p = &l->p[l->np - 1];
    lab_forget(l);
    lab_wait(l, LAB_RTT);
    lab_synack(l, p, lab_join_synack(l, p, 4));
    lab_ack_mp(l, p, 1, 1, 0);
    lab_forget(l);
    return p;
}

TEST(a_removed_address_ends_its_subflow)
{
    struct lab l = { 0 };
    struct peer *p = joined_at_address_4(&l);
    CHECK_EQ(lab_info(&l).nsubflows, 2);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_REMOVE_ADDR), .remove_addr = { 1, { 4 } } };
    say(&l, o);
    lab_expect(&l, p, MP_ACK, 0, 1, 0); /* RFC 8684 3.4.2: first it is asked, */
    lab_wait(&l, MP_MS(300));
    lab_expect(&l, p, MP_ACK, 0, 1, 0);
    lab_write(&l, 3000);
    for (int i = l.qi; i < l.qn; i++) CHECK(l.q[i].p == P0); /* and nothing new is given to it */
    lab_forget(&l);
    lab_ack_mp(&l, P0, 1, 3001, 3000);
    lab_wait(&l, MP_MS(1200));
    struct got *g = with_option(&l, MP_TCPRST);
    CHECK(g->p == p && (g->flags & MP_RST));
    lab_expect_counter(&l, remove_addr_in, 1);
    lab_wait(&l, MP_SEC(30));
    for (; l.qi < l.qn; l.qi++) CHECK(!(l.q[l.qi].flags & MP_SYN)); /* and is not joined again */
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_end(&l);
}

TEST(the_initial_address_is_removed_by_the_id_0) /* RFC 8684 3.4.2 */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_REMOVE_ADDR), .remove_addr = { 1, { 0 } } };
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    lab_wait(&l, MP_SEC(5));
    /* Both subflows go to it: the one that goes last is kept, for nothing else would carry the connection. */
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(an_address_that_went_silent_is_knocked_at_when_it_is_told_anew) /* twice a second, as at a path found silent here */
{
    struct lab l = { 0 };
    joined_at_address_4(&l);
    say(&l, (struct mp_opts){ .mp = MP_OPT_HAS(MP_REMOVE_ADDR), .remove_addr = { 1, { 4 } } });
    lab_wait(&l, MP_MS(1500)); /* it answers nothing */
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_forget(&l);
    say(&l, add_addr(&l, 4, 3, 0));
    lab_wait(&l, MP_SEC(3));
    int syns = 0;
    for (; l.qi < l.qn; l.qi++) syns += (l.q[l.qi].flags & MP_SYN) != 0;
    CHECK(syns >= 6 && syns <= 7);
    lab_end(&l);
}

TEST(an_address_that_is_told_anew_is_joined_at_once) /* whatever failed on the way to it before */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_opts gone = { .mp = MP_OPT_HAS(MP_REMOVE_ADDR), .remove_addr = { 1, { 4 } } };
    for (int i = 0; i < 4; i++) {
        say(&l, add_addr(&l, 4, 3, 0));
        struct peer *p = &l.p[l.np - 1];
        CHECK_EQ(l.np, 2 + i);
        lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .ack = 1 });
        say(&l, gone);
        lab_wait(&l, MP_MS(10));
        lab_forget(&l);
    }
    lab_expect_counter(&l, join_failed, 4);
    lab_wait(&l, MP_SEC(10));
    lab_expect_nothing(&l);
    lab_end(&l);
}

/* ---- an announced address that cannot be connected to is left alone, RFC 8684 3.4.1 ---- */

static int joins_within(struct lab *l, mp_dur d) /* to that address */
{
    int n = 0;
    lab_wait(l, d);
    for (; l->qi < l->qn; l->qi++) n += (l->q[l->qi].flags & MP_SYN) && lab_at(&l->q[l->qi].k.dst.ip, 3, 2);
    return n;
}

static struct peer *refused(struct lab *l, struct mp_opts why) /* the join to the address that is announced now */
{
    lab_client(l);
    say(l, add_addr(l, 4, 3, 0));
    struct peer *p = &l->p[l->np - 1];
    lab_forget(l);
    lab_send(l, p, (struct seg){ .flags = MP_RST | MP_ACK, .ack = 1, .o = why });
    lab_expect_counter(l, join_failed, 1);
    return p;
}

TEST(an_address_that_refuses_is_tried_again_when_it_is_announced_again)
{
    struct lab l = { 0 };
    refused(&l, (struct mp_opts){ 0 });
    CHECK_EQ(joins_within(&l, MP_SEC(600)), 0);
    say(&l, add_addr(&l, 4, 3, 0));
    CHECK_EQ(joins_within(&l, 0), 1);
    lab_end(&l);
}

TEST(an_address_that_does_not_answer_is_left_alone) /* after the SYNs of one attempt */
{
    struct lab l = { 0 };
    lab_client(&l);
    say(&l, add_addr(&l, 4, 3, 0));
    CHECK_EQ(joins_within(&l, MP_SEC(130)), 7);
    CHECK_EQ(joins_within(&l, MP_SEC(600)), 0);
    lab_end(&l);
}

TEST(somebody_else_s_host_at_an_announced_address_is_left_alone) /* it answers, without the keys */
{
    struct lab l = { 0 };
    lab_client(&l);
    say(&l, add_addr(&l, 4, 3, 0));
    struct peer *p = &l.p[l.np - 1];
    lab_forget(&l);
    lab_synack(&l, p, (struct mp_opts){ 0 });
    lab_expect(&l, p, MP_RST | MP_ACK, 1, 1, 0);
    CHECK_EQ(joins_within(&l, MP_SEC(600)), 0);
    lab_end(&l);
}

TEST(a_refusing_address_is_tried_when_nothing_else_is_up)
{
    struct lab l = { 0 };
    refused(&l, (struct mp_opts){ 0 });
    CHECK_EQ(joins_within(&l, MP_SEC(10)), 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1 });
    CHECK(joins_within(&l, MP_SEC(3)) > 0);
    lab_end(&l);
}

TEST(a_refusing_address_is_tried_when_the_only_path_is_dead) /* open as that is, for a quarter of an hour */
{
    struct lab l = { 0 };
    refused(&l, (struct mp_opts){ 0 });
    lab_wait(&l, MP_SEC(70));
    lab_forget(&l);
    lab_write(&l, 1000);
    CHECK(joins_within(&l, MP_SEC(5)) > 0);
    lab_end(&l);
}

TEST(an_address_that_the_network_had_no_way_to_is_tried_again) /* a router, or ARP of our own gateway; and then nobody answers */
{
    struct lab l = { 0 };
    lab_client(&l);
    say(&l, add_addr(&l, 4, 3, 0));
    const struct got *g = &l.q[l.qn - 1];
    CHECK(g->flags & MP_SYN);
    mp_stack_net_error(l.st, g->k.flow, EHOSTUNREACH, g->k.seq, true, 0, l.now);
    lab_forget(&l);
    CHECK_EQ(joins_within(&l, MP_SEC(130)), 7);
    CHECK_EQ(joins_within(&l, MP_SEC(600)), 0);
    lab_end(&l);
}

TEST(where_the_peer_answered_it_is_no_stranger_after_a_removal_either)
{
    struct lab l = { 0 };
    struct peer *p = joined_at_address_4(&l);
    say(&l, (struct mp_opts){ .mp = MP_OPT_HAS(MP_REMOVE_ADDR), .remove_addr = { 1, { 4 } } });
    lab_wait(&l, MP_MS(1500));
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_forget(&l);
    say(&l, add_addr(&l, 4, 3, 0));
    p = &l.p[l.np - 1];
    CHECK_EQ(joins_within(&l, 0), 1);
    lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .ack = 1 });
    lab_expect_counter(&l, join_failed, 1);
    CHECK(joins_within(&l, MP_SEC(5)) > 0);
    lab_end(&l);
}

TEST(a_refusing_address_is_tried_over_a_link_that_is_new_or_back)
{
    struct lab l = { 0 };
    struct mp_local m = lab_local(2);
    refused(&l, (struct mp_opts){ 0 });
    mp_stack_local_add(l.st, &m, l.now);
    CHECK_EQ(joins_within(&l, 0), 1);
    lab_send(&l, &l.p[2], (struct seg){ .flags = MP_RST | MP_ACK, .ack = 1 });
    CHECK_EQ(joins_within(&l, MP_SEC(100)), 0);
    mp_stack_local_del(l.st, 2, &m.ip, l.now);
    mp_stack_local_add(l.st, &m, l.now);
    CHECK_EQ(joins_within(&l, 0), 1);
    lab_end(&l);
}

TEST(a_refusal_for_now_is_the_peer_s_own) /* RFC 8684 3.6: T */
{
    struct lab l = { 0 };
    refused(&l, (struct mp_opts){ .mp = MP_OPT_HAS(MP_TCPRST), .tcprst = { .transient = true, .reason = MP_RST_RESOURCE } });
    CHECK(joins_within(&l, MP_SEC(2)) > 0);
    lab_end(&l);
}

TEST(an_address_where_the_peer_answered_may_be_tried_again) /* by another path, or its third ACK never came through */
{
    struct lab l = { 0 };
    lab_client(&l);
    say(&l, add_addr(&l, 4, 3, 0));
    struct peer *p = &l.p[l.np - 1];
    lab_forget(&l);
    lab_synack(&l, p, lab_join_synack(&l, p, 4));
    lab_expect_options(lab_expect(&l, p, MP_ACK, 1, 1, 0), MP_JOIN);
    lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1 });
    CHECK(joins_within(&l, MP_SEC(2)) > 0);
    lab_end(&l);
}

TEST(a_removed_address_is_tried_when_only_joins_are_left) /* its return could not be told */
{
    struct lab l = { 0 };
    struct peer *p = joined_at_address_4(&l);
    struct mp_endpoint removed = p->peer;
    say(&l, (struct mp_opts){ .mp = MP_OPT_HAS(MP_REMOVE_ADDR), .remove_addr = { 1, { 4 } } });
    lab_wait(&l, MP_MS(1500));
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_local_up(&l, 2);
    lab_pump(&l);
    CHECK(l.q[l.qn - 1].flags & MP_SYN); /* which nobody answers */
    CHECK(!mp_endpoint_eq(&l.q[l.qn - 1].k.dst, &removed));
    lab_forget(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1 });
    lab_wait(&l, MP_MS(500));
    bool again = false;
    for (; l.qi < l.qn; l.qi++) again |= (l.q[l.qi].flags & MP_SYN) && mp_endpoint_eq(&l.q[l.qi].k.dst, &removed);
    CHECK(again);
    lab_end(&l);
}

TEST(joins_that_do_not_come_up_keep_no_pair_back_when_nothing_else_is_up)
{
    struct lab l = { 0 };
    struct peer *p = joined_at_address_4(&l);
    lab_local_up(&l, 2);
    lab_pump(&l);
    lab_forget(&l);
    lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1 });
    lab_send(&l, P0, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1 });
    lab_wait(&l, MP_SEC(4));
    bool tried[2][2] = { { false } }; /* by each interface, to each address */
    for (; l.qi < l.qn; l.qi++)
        if (l.q[l.qi].flags & MP_SYN) tried[l.q[l.qi].k.ifindex == 2][mp_endpoint_eq(&l.q[l.qi].k.dst, &p->peer)] = true;
    CHECK(tried[0][0] && tried[0][1] && tried[1][0] && tried[1][1]);
    lab_end(&l);
}

TEST(a_removed_address_whose_join_is_not_up_is_given_up)
{
    struct lab l = { 0 };
    lab_client(&l);
    say(&l, add_addr(&l, 4, 3, 0));
    struct peer *p = &l.p[l.np - 1];
    lab_forget(&l);
    lab_synack(&l, p, lab_join_synack(&l, p, 4)); /* its fourth ACK is still to come */
    lab_forget(&l);
    say(&l, (struct mp_opts){ .mp = MP_OPT_HAS(MP_REMOVE_ADDR), .remove_addr = { 1, { 4 } } });
    struct got *g = lab_expect(&l, p, MP_RST | MP_ACK, 1, 1, 0);
    CHECK(g->o.tcprst.transient);
    lab_expect_nothing(&l);
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_end(&l);
}

TEST(a_removed_address_that_answers_is_kept_but_not_joined_again) /* RFC 8684 3.4.2 */
{
    struct lab l = { 0 };
    struct peer *p = joined_at_address_4(&l);
    say(&l, (struct mp_opts){ .mp = MP_OPT_HAS(MP_REMOVE_ADDR), .remove_addr = { 1, { 4 } } });
    lab_expect(&l, p, MP_ACK, 0, 1, 0);
    lab_wait(&l, LAB_RTT);
    lab_ack_mp(&l, p, 1, 1, 0);
    lab_wait(&l, MP_SEC(5));
    lab_expect_nothing(&l);
    lab_expect_counter(&l, remove_addr_alive, 1);
    CHECK_EQ(lab_info(&l).nsubflows, 2);
    lab_send(&l, p, (struct seg){ .flags = MP_RST | MP_ACK, .seq = 1, .ack = 1 }); /* "it is the responsibility of the host that sent the REMOVE_ADDR" */
    lab_wait(&l, MP_SEC(30));
    for (; l.qi < l.qn; l.qi++) CHECK(!(l.q[l.qi].flags & MP_SYN));
    lab_end(&l);
}

TEST(what_was_on_its_way_is_no_answer_to_the_question)
{
    struct lab l = { 0 };
    struct peer *p = joined_at_address_4(&l);
    say(&l, (struct mp_opts){ .mp = MP_OPT_HAS(MP_REMOVE_ADDR), .remove_addr = { 1, { 4 } } });
    lab_wait(&l, LAB_RTT / 2);
    lab_data(&l, p, 1, 1, 0, 100);
    lab_wait(&l, MP_SEC(2));
    CHECK_EQ(lab_read(&l), 100);
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(removing_an_unknown_address_does_nothing)
{
    struct lab l = { 0 };
    lab_client(&l);
    say(&l, (struct mp_opts){ .mp = MP_OPT_HAS(MP_REMOVE_ADDR), .remove_addr = { 3, { 9, 10, 11 } } });
    lab_expect_nothing(&l);
    CHECK_EQ(lab_info(&l).nsubflows, 1);
    lab_end(&l);
}

TEST(a_lost_link_is_told_over_the_others)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    struct mp_addr ip = lab_local(2).ip;
    mp_stack_local_del(l.st, 2, &ip, l.now);
    struct got *g = lab_expect(&l, P0, MP_ACK, 1, 1, 0);
    CHECK(g->o.mp & MP_OPT_HAS(MP_REMOVE_ADDR));
    CHECK_EQ(g->o.remove_addr.id[0], p->id_engine);
    lab_expect_counter(&l, subflow_link_down, 1);
    lab_write(&l, 50000);
    for (int i = l.qi; i < l.qn; i++) CHECK(l.q[i].p == P0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_link_that_returns_is_used_again)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    struct mp_local m = lab_local(2);
    mp_stack_local_del(l.st, 2, &m.ip, l.now);
    lab_forget(&l);
    lab_wait(&l, MP_SEC(3));
    lab_expect_nothing(&l);
    mp_stack_local_add(l.st, &m, l.now);
    lab_pump(&l);
    struct peer *q = NULL;
    for (; l.qi < l.qn; l.qi++)
        if (l.q[l.qi].flags & MP_SYN) q = l.q[l.qi].p;
    CHECK(q != NULL); /* the peer was told that the address is gone: the old subflow is over */
    if (q) {
        lab_wait(&l, LAB_RTT);
        lab_synack(&l, q, lab_join_synack(&l, q, 0));
        lab_ack_mp(&l, q, 1, 1, 0);
        lab_forget(&l);
        lab_write(&l, 50000);
        CHECK(lab_next_data(&l, q)->len > 0);
        for (int i = 0; i < l.qn; i++) CHECK(l.q[i].p != p || !l.q[i].len);
    }
    lab_forget(&l);
    lab_end(&l);
}

TEST(the_owner_leaves_an_address_and_takes_it_again) /* RFC 6897 5.3.1 */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    struct mp_addr two = lab_local(2).ip, nowhere = { .family = 4, .b = { 192, 0, 2, 99 } };
    CHECK_EQ((uint64_t)-mpc_use_local(l.c, &nowhere, false, l.now), EADDRNOTAVAIL);
    CHECK_EQ(mpc_use_local(l.c, &two, false, l.now), 0);
    lab_pump(&l);
    bool told = false, ended = false;
    for (; l.qi < l.qn; l.qi++) {
        struct got *g = &l.q[l.qi];
        told |= g->p == P0 && g->o.mp & MP_OPT_HAS(MP_REMOVE_ADDR) && g->o.remove_addr.id[0] == p->id_engine;
        ended |= g->p == p && g->flags & MP_RST && g->o.tcprst.reason == MP_RST_PROHIBITED;
    }
    CHECK(told && ended);
    struct mp_local m = lab_local(2);
    mp_stack_local_del(l.st, 2, &two, l.now);
    mp_stack_local_add(l.st, &m, l.now); /* the link's return is no reason */
    lab_wait(&l, MP_SEC(30));
    for (; l.qi < l.qn; l.qi++) CHECK(!(l.q[l.qi].flags & MP_SYN));
    CHECK_EQ((uint64_t)-mpc_use_local(l.c, &l.p[0].engine.ip, false, l.now), EBUSY);
    CHECK_EQ(mpc_use_local(l.c, &two, true, l.now), 0);
    lab_pump(&l);
    lab_expect_options(lab_expect(&l, &l.p[2], MP_SYN, 0, 0, 0), MP_JOIN);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_reset_subflow_is_made_again)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    lab_send(&l, p, (struct seg){ .flags = MP_RST, .seq = 1 });
    lab_wait(&l, MP_SEC(2));
    lab_expect_options(lab_expect(&l, &l.p[2], MP_SYN, 0, 0, 0), MP_JOIN);
    lab_expect_counter(&l, path_retry, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(without_subflows_a_connection_waits_a_while) /* RFC 8684 3.5: break before make */
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 1, .o = { .mp = MP_OPT_HAS(MP_TCPRST), .tcprst = { .transient = true } } });
    CHECK_EQ(mpc_error(l.c), 0);
    lab_wait(&l, MP_SEC(50));
    CHECK_EQ(mpc_error(l.c), 0);
    lab_wait(&l, MP_SEC(20));
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    lab_expect_counter(&l, orphan_timeout, 1);
    lab_end(&l);
}

static void five_seconds(struct mp_settings *s) { s->orphan_s = 5; }

TEST(the_time_without_subflows_is_a_setting) /* RFC 6182 2.2, RFC 8684 3.5: break before make */
{
    struct lab l = { .tune = five_seconds };
    lab_server(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 1, .o = { .mp = MP_OPT_HAS(MP_TCPRST), .tcprst = { .transient = true } } });
    lab_wait(&l, MP_MS(4900));
    CHECK_EQ(mpc_error(l.c), 0);
    lab_wait(&l, MP_MS(200));
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    lab_end(&l);
}

TEST(a_join_in_time_makes_what_was_broken) /* and what was written meanwhile goes over it */
{
    struct lab l = { .tune = five_seconds };
    lab_server(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_RST, .seq = 1, .o = { .mp = MP_OPT_HAS(MP_TCPRST), .tcprst = { .transient = true } } });
    lab_wait(&l, MP_SEC(4));
    lab_write(&l, 1500);
    lab_expect_nothing(&l);
    struct peer *p = lab_syn(&l, 2, 5003, lab_join_syn(&l));
    lab_forget(&l);
    lab_wait(&l, LAB_RTT);
    lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(&l, p) });
    CHECK_EQ(lab_next_data(&l, p)->len, 1000);
    lab_ack_mp(&l, p, 1, 1001, 1000);
    CHECK_EQ(lab_next_data(&l, p)->len, 500);
    lab_ack_mp(&l, p, 1, 1501, 1500);
    lab_wait(&l, MP_SEC(10));
    CHECK_EQ(mpc_error(l.c), 0);
    CHECK(mpc_send_done(l.c));
    lab_forget(&l);
    lab_end(&l);
}

/* An ADD_ADDR with IPv6 and port takes 30 bytes of the 40: none are left for timestamps. */
TEST(an_ipv6_address_with_port_comes_without_timestamps_and_is_echoed_whole)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_ADD_ADDR), .add_addr = { .addr_id = 4, .ip = { 6, { 0x20, 1, 0xd, 0xb8, [15] = 2 } }, .port = 8080 } };
    o.add_addr.hmac = mp_add_addr_hmac(LAB_PEER_KEY, l.key_engine, 4, &o.add_addr.ip, 8080);
    CHECK(mp_opts_len(&o) > 40 - 12);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o, .no_ts = true }); /* RFC 7323 3.2 would have it dropped; Linux sends it so */
    struct got *g = with_option(&l, MP_ADD_ADDR);
    CHECK(g->o.add_addr.echo && g->o.add_addr.port == 8080 && mp_addr_eq(&g->o.add_addr.ip, &o.add_addr.ip));
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_link_that_becomes_metered_is_told_as_backup_and_back) /* RFC 8684 3.3.8: MP_PRIO on the subflow itself */
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    for (int backup = 1; backup >= 0; backup--) {
        struct mp_local m = lab_local(2);
        m.backup = backup;
        mp_stack_local_add(l.st, &m, l.now);
        struct got *g = lab_expect(&l, p, MP_ACK, 1, 1, 0);
        CHECK(g->o.mp & MP_OPT_HAS(MP_PRIO));
        CHECK_EQ(g->o.prio.backup, backup);
        lab_expect_nothing(&l);
        lab_write(&l, 30000);
        bool used = false;
        for (int i = l.qi; i < l.qn; i++) used |= l.q[i].p == p && l.q[i].len;
        CHECK_EQ(used, !backup);
        lab_forget(&l);
        if (backup) lab_ack_mp(&l, P0, 1, 10001, 10000);
        for (int i = 0; backup && i < 5; i++) {
            lab_wait(&l, LAB_RTT);
            lab_ack_mp(&l, P0, 1, 1 + 10000 + 5000u * (unsigned)i, 10000 + 5000u * (unsigned)i);
        }
        lab_forget(&l);
    }
    lab_expect_counter(&l, prio_out, 2);
    lab_forget(&l);
    lab_end(&l);
}
