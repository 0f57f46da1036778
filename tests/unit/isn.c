/* Initial sequence numbers, RFC 6528. */
#include "core/stack_int.h"

#include "lab.h"

static uint32_t isn(struct lab *l, uint16_t port, mp_dur later)
{
    struct mp_endpoint a = lab_ep(1, 1, port), b = lab_ep(1, 2, 80);
    return isn_new(l->st, &a, &b, l->now + later);
}

TEST(a_tuples_numbers_follow_a_clock_of_4_us)
{
    struct lab l = { 0 };
    lab_stack(&l);
    uint32_t first = isn(&l, 5000, 0);
    CHECK_EQ(isn(&l, 5000, 0), first);
    CHECK_EQ(isn(&l, 5000, MP_US(4)) - first, 1);
    CHECK_EQ(isn(&l, 5000, MP_SEC(60)) - first, 15000000);
    lab_end(&l);
}

/* Nothing is learnt about one from others: the differences of 1,000 neighbours fall evenly into eight parts. */
TEST(tuples_tell_nothing_of_each_other)
{
    struct lab l = { 0 };
    unsigned part[8] = { 0 };
    lab_stack(&l);
    for (uint16_t port = 5000; port < 6000; port++) part[(isn(&l, port + 1, 0) - isn(&l, port, 0)) >> 29]++;
    for (int i = 0; i < 8; i++) CHECK(part[i] > 80 && part[i] < 180);
    lab_end(&l);
}

TEST(each_stack_has_its_own_key)
{
    struct lab l = { 0 }, m = { 0 };
    lab_stack(&l);
    lab_stack(&m);
    m.seed = 43;
    mp_stack_free(m.st);
    m.st = NULL;
    struct mp_settings set = l.set;
    m.st = mp_stack_new(&l.st->ops, &m, &set);
    CHECK(isn(&l, 5000, 0) != isn(&m, 5000, 0));
    lab_end(&l);
    lab_end(&m);
}

/* What the connection before used is past what the clock has made meanwhile. */
TEST(a_fast_predecessor_is_passed_too) /* RFC 9293 3.6.1 */
{
    struct lab l = { .plain = true };
    lab_client(&l);
    struct sf *s = st_find(l.st, &P0->engine, &P0->peer);
    uint32_t clock = s->v.iss;
    isn_follow(s, clock - 1);
    CHECK_EQ(s->v.iss, clock);
    isn_follow(s, clock + 1000000000);
    CHECK_EQ(s->v.iss, clock + 1000000000 + 65536);
    s->v.iss = clock;
    lab_end(&l);
}
