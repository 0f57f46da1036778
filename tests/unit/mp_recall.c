/* A server that removes the address of a silent path, and calls its client back to it (core/recall.c; RFC 8684 3.4). */
#include "lab_silence.h"

#include <errno.h>

enum { ID = 1 }; /* of the second address */

static struct peer *join_at(struct lab *l, int subnet, uint16_t port)
{
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_SYN, .token = l->token_engine, .nonce = 0x0a0b0c0d } };
    struct peer *p = lab_syn(l, subnet, port, o);
    lab_wait(l, LAB_RTT);
    lab_send(l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_join_ack(l, p) });
    return p;
}

/* A server with two addresses, both in use; the second one was announced, or the client has it from elsewhere. */
static void serve(struct lab *l, bool announced)
{
    lab_stack(l);
    struct mp_local m = lab_local(2);
    m.announce = announced;
    mp_stack_local_add(l->st, &m, l->now);
    lab_server_unconfirmed(l);
    lab_ack_mp(l, &l->p[0], 1, 1, 0);
    if (announced) {
        struct mp_opts o = { .mp = MP_OPT_HAS(MP_ADD_ADDR), .add_addr = { .echo = true, .addr_id = ID, .ip = m.ip } };
        lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
    }
    join_at(l, 2, 5002);
    take_turns(l, 20);
}

static const struct got *from(const struct lab *l, const struct peer *p, enum mp_subtype t, mp_time at)
{
    for (int i = l->qi; i < l->qn; i++)
        if (l->q[i].at >= at && (!p || l->q[i].p == p) && (l->q[i].o.mp & MP_OPT_HAS(t))) return &l->q[i];
    return NULL;
}

static int count(const struct lab *l, enum mp_subtype t)
{
    int n = 0;
    for (int i = l->qi; i < l->qn; i++) n += (l->q[i].o.mp & MP_OPT_HAS(t)) != 0;
    return n;
}

static void echo(struct lab *l, const struct got *g)
{
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_ADD_ADDR), .add_addr = { .echo = true, .addr_id = g->o.add_addr.addr_id, .ip = g->o.add_addr.ip } };
    lab_send(l, &l->p[1], (struct seg){ .flags = MP_ACK, .seq = 1 + 120 * SEG, .ack = 1, .o = o });
}

/* The first path falls silent, and its address is removed and announced again. */
static void fall_silent(struct lab *l)
{
    mp_time at = l->now;
    go_on_without_first(l, 20, 100);
    lab_wait(l, MP_MS(110));
    lab_expect_counter(l, path_silent, 1);
    const struct got *g = from(l, &l->p[1], MP_ADD_ADDR, at);
    CHECK(g);
    if (g) echo(l, g);
}

TEST(a_client_that_takes_announced_addresses_is_told_of_a_silent_path)
{
    struct lab l = { 0 };
    serve(&l, true);
    mp_time at = l.now;
    fall_silent(&l);
    const struct got *rm = from(&l, P1, MP_REMOVE_ADDR, at), *add = from(&l, P1, MP_ADD_ADDR, at);
    CHECK(asked(&l, P0));
    CHECK(rm && rm->o.remove_addr.n == 1 && rm->o.remove_addr.id[0] == 0);
    CHECK(rm && rm->at - at >= MP_MS(50) && rm->at - at <= MP_MS(100));
    CHECK(add && !add->o.add_addr.echo && add->o.add_addr.addr_id == 0 && lab_at(&add->o.add_addr.ip, 1, 1));
    CHECK(add && rm && add->at - rm->at >= MP_MS(100)); /* Linux handles what it finds together in another order */
    CHECK(!from(&l, P0, MP_TCPRST, at));
    lab_data(&l, P1, 1 + 120 * SEG, 1, 40 * SEG, SEG); /* the client sends what was missing */
    CHECK_EQ(lab_read(&l), 101 * SEG);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_client_that_has_joined_no_announced_address_is_left_alone)
{
    struct lab l = { 0 };
    serve(&l, false);
    go_on_without_first(&l, 20, 150);
    lab_expect_counter(&l, path_silent, 0);
    lab_expect_counter(&l, remove_addr_out, 0);
    lab_forget(&l);
    lab_end(&l);
}

static void flag_c(struct mp_settings *s) { s->no_join_initial = true; }

TEST(the_initial_address_is_not_removed_where_no_join_may_come_to_it) /* RFC 8684 3.1: flag C */
{
    struct lab l = { .tune = flag_c };
    serve(&l, true);
    go_on_without_first(&l, 20, 150);
    lab_expect_counter(&l, remove_addr_out, 0);
    lab_forget(&l);
    lab_end(&l);
}

/* Once something comes over the silent path the client is called again, and quickly. */
static void answer_of_the_path(uint8_t flags)
{
    struct lab l = { 0 };
    serve(&l, true);
    fall_silent(&l);
    lab_forget(&l);
    lab_wait(&l, MP_SEC(3));
    CHECK(asked(&l, P0));
    CHECK_EQ(count(&l, MP_ADD_ADDR), 0);
    mp_time at = l.now;
    lab_send(&l, P0, (struct seg){ .flags = flags, .seq = 1 + 20 * SEG, .ack = 1 });
    lab_wait(&l, MP_MS(150));
    const struct got *rm = from(&l, P1, MP_REMOVE_ADDR, at), *add = from(&l, P1, MP_ADD_ADDR, at);
    CHECK(rm && add && add->at - rm->at >= MP_MS(100) && add->o.add_addr.addr_id == 0);
    CHECK(flags & MP_RST ? !from(&l, P0, MP_TCPRST, at) : from(&l, P0, MP_TCPRST, at) != NULL);
    if (add) echo(&l, add);
    lab_forget(&l);
    struct peer *p = join_at(&l, 1, 5003);
    lab_expect_counter(&l, address_recalled, 1);
    lab_data(&l, p, 1, 1, 40 * SEG, SEG);
    CHECK_EQ(lab_read(&l), 101 * SEG);
    lab_forget(&l);
    lab_wait(&l, MP_SEC(120));
    CHECK(!asked(&l, P0));
    CHECK_EQ(count(&l, MP_ADD_ADDR) + count(&l, MP_REMOVE_ADDR), 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_path_that_knows_no_such_subflow_is_alive) { answer_of_the_path(MP_RST); }
TEST(a_path_that_acknowledges_is_alive) { answer_of_the_path(MP_ACK); }

TEST(a_join_that_comes_by_itself_ends_the_asking)
{
    struct lab l = { 0 };
    serve(&l, true);
    fall_silent(&l);
    lab_wait(&l, MP_SEC(3));
    lab_forget(&l);
    join_at(&l, 1, 5003);
    const struct got *g = from(&l, P0, MP_TCPRST, 0);
    CHECK(g && g->o.tcprst.reason == MP_RST_PERFORMANCE && g->o.tcprst.transient);
    lab_expect_counter(&l, address_recalled, 1);
    lab_forget(&l);
    lab_wait(&l, MP_SEC(120));
    CHECK_EQ(count(&l, MP_ADD_ADDR) + count(&l, MP_REMOVE_ADDR), 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_wrong_verdict_doubles_the_servers_patience)
{
    struct lab l = { 0 };
    serve(&l, true);
    fall_silent(&l);
    struct peer *p = join_at(&l, 1, 5003); /* the client comes back at once: the path was only slow */
    lab_data(&l, P1, 1 + 120 * SEG, 1, 40 * SEG, SEG);
    for (uint32_t i = 0; i < 10; i++) lab_data(&l, p, 1 + i * SEG, 1, (141 + i) * SEG, SEG);
    lab_wait(&l, MP_SEC(1));
    lab_read(&l);
    lab_forget(&l);
    for (uint32_t i = 0; i < 90; i++) {
        lab_data(&l, P1, 1 + (121 + i) * SEG, 1, (152 + i) * SEG, SEG);
        lab_wait(&l, MP_MS(1));
    }
    lab_expect_counter(&l, path_silent, 1);
    for (uint32_t i = 90; i < 150; i++) {
        lab_data(&l, P1, 1 + (121 + i) * SEG, 1, (152 + i) * SEG, SEG);
        lab_wait(&l, MP_MS(1));
    }
    lab_expect_counter(&l, path_silent, 2); /* the same address again */
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_path_that_stays_silent_is_asked_ever_more_seldom)
{
    struct lab l = { 0 };
    serve(&l, true);
    fall_silent(&l);
    lab_forget(&l);
    int asks = 0, adds = 0;
    for (int i = 0; i < 120; i++) {
        lab_wait(&l, MP_SEC(30));
        for (; l.qi < l.qn; l.qi++) {
            const struct got *g = &l.q[l.qi];
            asks += g->p == P0 && g->seq == 0;
            adds += (g->o.mp & MP_OPT_HAS(MP_ADD_ADDR)) && !g->o.add_addr.echo;
        }
    }
    CHECK(asks > 60 && asks < 300);
    CHECK(adds >= 9 && adds < 50); /* each again until echoed, and nobody echoes */
    CHECK_EQ(mpc_error(l.c), 0);
    lab_end(&l);
}

TEST(a_silent_subflow_keeps_no_connection_alive)
{
    struct lab l = { 0 };
    serve(&l, true);
    fall_silent(&l);
    lab_forget(&l);
    lab_send(&l, P1, (struct seg){ .flags = MP_RST, .seq = 1 + 120 * SEG });
    lab_wait(&l, MP_SEC(65));
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    lab_forget(&l);
    lab_end(&l);
}
