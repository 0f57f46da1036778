/* Routing that changes under a connection (a VPN comes up, core/withheld.c): nothing leaves where it was any more. */
#include "lab.h"

static void route_elsewhere(struct lab *l, int from)
{
    l->withheld = from;
    mp_stack_routes_changed(l->st, l->now);
}

static struct got *next_syn(struct lab *l)
{
    for (lab_pump(l); l->qi < l->qn;) {
        struct got *g = &l->q[l->qi++];
        if (g->flags == MP_SYN) return g;
    }
    return &lab_none;
}

/* The peer answers the engine's join, and acknowledges its third step. */
static struct peer *answer_join(struct lab *l, int ifindex)
{
    struct got *g = next_syn(l);
    CHECK_EQ(g->k.ifindex, ifindex);
    CHECK_EQ(g->o.mp, MP_OPT_HAS(MP_JOIN));
    lab_wait(l, LAB_RTT);
    lab_synack(l, g->p, lab_join_synack(l, g->p, 1));
    lab_wait(l, LAB_RTT);
    lab_ack_mp(l, g->p, 1, 1, l->dack);
    return g->p;
}

/* Stream bytes from 0 without gap that p was sent; *removed: and REMOVE_ADDR of the first address. */
static uint64_t sent_over(const struct lab *l, const struct peer *p, bool *removed)
{
    uint64_t end = 0;
    *removed = false;
    for (int i = 0; i < l->qn; i++) {
        const struct got *g = &l->q[i];
        if (g->p != p) continue;
        if ((g->o.mp & MP_OPT_HAS(MP_REMOVE_ADDR)) && g->o.remove_addr.id[0] == 0) *removed = true;
        if (g->o.dss.has_map && g->o.dss.dsn - l->idsn_engine - 1 == end) end += g->len;
    }
    return end;
}

TEST(what_was_under_way_goes_through_the_tunnel)
{
    struct lab l = { 0 };
    bool removed;
    lab_client(&l);
    lab_write(&l, 5000); /* on its way beside the tunnel, and not acknowledged there any more */
    lab_forget(&l);
    struct mp_local tunnel = lab_local(2);
    l.no_route = true; /* the device comes before its routes */
    mp_stack_local_add(l.st, &tunnel, l.now);
    lab_expect_nothing(&l);
    l.no_route = false;
    route_elsewhere(&l, 1);
    lab_wait(&l, MP_MS(20));
    struct peer *p = answer_join(&l, 2);
    lab_wait(&l, LAB_RTT);
    CHECK_EQ(sent_over(&l, p, &removed), 5000);
    CHECK(removed); /* RFC 8684 3.4.2: else the peer goes on sending to the old address */
    lab_expect_counter(&l, subflow_withheld, 1);
    lab_expect_counter(&l, fallback, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(of_two_paths_the_one_that_is_allowed_takes_it_all)
{
    struct lab l = { 0 };
    bool removed;
    lab_client(&l);
    lab_join(&l, 2);
    lab_write(&l, 6000);
    route_elsewhere(&l, 1);
    for (int i = 0; i < 5; i++) {
        lab_wait(&l, LAB_RTT);
        lab_ack_mp(&l, P1, 1, (uint32_t)(1 + sent_over(&l, P1, &removed)), sent_over(&l, P1, &removed));
    }
    CHECK_EQ(sent_over(&l, P1, &removed), 6000);
    CHECK(removed);
    lab_forget(&l);
    lab_end(&l);
}

/* What still comes in over the old path is no sign that it may be used again. */
TEST(a_subflow_that_is_withheld_is_not_used_because_the_peer_is_heard)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_join(&l, 2);
    route_elsewhere(&l, 1);
    lab_forget(&l);
    lab_data(&l, P0, 1, 1, 0, 100);
    CHECK_EQ(lab_read(&l), 100);
    lab_write(&l, 3000);
    lab_wait(&l, MP_MS(1));
    CHECK_EQ(lab_next_data(&l, P1)->o.dss.dsn, l.idsn_engine + 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(plain_tcp_waits_and_goes_on_when_the_vpn_is_gone)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 1000);
    lab_forget(&l);
    route_elsewhere(&l, 1);
    lab_wait(&l, MP_SEC(20));
    lab_expect_nothing(&l);
    CHECK_EQ(mpc_error(l.c), 0);
    route_elsewhere(&l, 0);
    lab_wait(&l, MP_MS(1));
    lab_expect(&l, P0, MP_ACK, 1, 1, 1000);
    lab_ack(&l, P0, 1, 1001);
    CHECK(mpc_send_done(l.c));
    lab_end(&l);
}

TEST(the_old_path_is_joined_anew_when_the_vpn_is_gone)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *tunnel = lab_join(&l, 2);
    route_elsewhere(&l, 1);
    lab_wait(&l, MP_SEC(1));
    lab_forget(&l);
    route_elsewhere(&l, 0);
    lab_wait(&l, MP_SEC(1));
    struct got *g = next_syn(&l);
    CHECK_EQ(g->k.ifindex, 1);
    CHECK_EQ(g->o.mp, MP_OPT_HAS(MP_JOIN));
    lab_data(&l, tunnel, 1, 1, 0, 100); /* the tunnel's goes on */
    CHECK_EQ(lab_read(&l), 100);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_join_under_way_is_given_up)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_local_up(&l, 2);
    lab_expect(&l, P1, MP_SYN, 0, 0, 0);
    route_elsewhere(&l, 2);
    lab_wait(&l, MP_SEC(10));
    lab_expect_nothing(&l);
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

/* The peer has such a join up and counts it: unless it hears that the address is gone, it refuses others for it, as the kernel
 * does beyond its limit, for as long as the connection lives. */
TEST(a_join_that_the_peer_has_up_already_is_told_to_be_gone)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct mp_local m = lab_local(2), tunnel = lab_local(3);
    mp_stack_local_add(l.st, &m, l.now);
    struct got *g = next_syn(&l);
    struct peer *half = g->p;
    uint8_t id = g->o.join.addr_id;
    lab_wait(&l, LAB_RTT);
    lab_synack(&l, half, lab_join_synack(&l, half, 1));
    lab_forget(&l); /* the third ACK was sent, the fourth is on its way */
    route_elsewhere(&l, 2);
    mp_stack_local_add(l.st, &tunnel, l.now);
    lab_wait(&l, MP_MS(20));
    answer_join(&l, 3);
    lab_wait(&l, LAB_RTT);
    bool told = false;
    for (int i = 0; i < l.qn; i++)
        for (int k = 0; (l.q[i].o.mp & MP_OPT_HAS(MP_REMOVE_ADDR)) && k < l.q[i].o.remove_addr.n; k++) told |= l.q[i].o.remove_addr.id[k] == id;
    CHECK(told);
    lab_forget(&l);
    route_elsewhere(&l, 0);
    lab_pump(&l);
    bool reset = false;
    for (int i = 0; i < l.qn; i++) reset |= l.q[i].p == half && (l.q[i].flags & MP_RST);
    CHECK(reset); /* should the peer have it still */
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_first_syn_goes_through_the_tunnel_that_comes_up_meanwhile)
{
    struct lab l = { 0 };
    lab_connect(&l);
    lab_expect(&l, P0, MP_SYN, 0, 0, 0);
    struct mp_local tunnel = lab_local(2);
    l.no_route = true;
    mp_stack_local_add(l.st, &tunnel, l.now);
    l.no_route = false;
    route_elsewhere(&l, 1);
    lab_wait(&l, MP_MS(5));
    lab_expect_options(lab_expect(&l, P1, MP_SYN, 0, 0, 0), MP_CAPABLE);
    lab_synack(&l, P1, lab_capable(&l, 1));
    CHECK(l.events & MP_EV_CONNECTED);
    lab_forget(&l);
    lab_end(&l);
}
