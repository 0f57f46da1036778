/* Memory that a hostile peer can make us hold (core/mem.c). */
#include "lab.h"

#include "core/stack_int.h"

static void small(struct mp_settings *s) { s->rcvbuf_kb = 256; }
static void one_mb(struct mp_settings *s) { s->mem_mb = 1; }

static void clear_queue(struct lab *l)
{
    lab_pump(l);
    for (int i = 0; i < l->qn; i++) free(l->q[i].data);
    l->qn = l->qi = 0;
}

/* Every second byte of the stream, each a packet of its own, never the first. In order on the subflow, or not. */
static void attack(struct lab *l, bool holes_in_subflow)
{
    for (uint32_t i = 1; i < 60000; i++) {
        lab_data(l, &l->p[0], holes_in_subflow ? 1 + 2 * i : i, 1, 2 * i, 1);
        clear_queue(l);
    }
}

TEST(bytes_out_of_order_are_bounded_by_what_they_cost)
{
    for (int holes = 0; holes < 2; holes++) {
        struct lab l = { .tune = small };
        ROW("holes in the %s", holes ? "subflow" : "data sequence");
        lab_server(&l);
        attack(&l, holes);
        uint64_t held = mp_stack_memory(l.st, NULL);
        ROW("holes in the %s, %" PRIu64 " bytes held", holes ? "subflow" : "data sequence", held);
        CHECK(held > 200000); /* it did pile up */
        CHECK(held < 2 * 262144 + 65536 * 2);
        CHECK(mp_stack_counter(l.st, MP_E_memory_dropped) > 10000);
        lab_end(&l);
    }
    ROW("%s", "");
}

TEST(the_total_is_bounded_and_what_the_stream_waits_for_is_taken)
{
    struct lab l = { .tune = one_mb };
    uint64_t peak;
    lab_server(&l);
    attack(&l, false);
    mp_stack_memory(l.st, &peak);
    ROW("peak %" PRIu64, peak);
    CHECK(peak < (1 << 20) + 65536);
    CHECK(mp_stack_counter(l.st, MP_E_memory_dropped) > 10000);
    lab_data(&l, P0, 60000, 1, 0, 2);
    clear_queue(&l);
    CHECK(mpc_readable(l.c) >= 2); /* and with it some of what waited behind */
    lab_end(&l);
}

/* ---- at the limit nothing is opened ---- */

static void one_mb_and_cookies(struct mp_settings *s) { s->mem_mb = 1, s->syn_backlog = 0; }

static void fill(struct lab *l, bool full) /* as if connections held it */
{
    if (full) mem_add(l->st, 1u << 20);
    else mem_sub(l->st, 1u << 20);
}

TEST(at_the_limit_a_syn_is_dropped)
{
    struct lab l = { .tune = one_mb };
    lab_listen(&l);
    fill(&l, true);
    lab_syn(&l, 1, 5001, lab_offer(&l, 0));
    lab_expect_nothing(&l);
    lab_expect_counter(&l, memory_refused, 1);
    fill(&l, false);
    lab_end(&l);
}

TEST(at_the_limit_a_third_ack_opens_nothing_and_the_syn_ack_comes_again)
{
    struct lab l = { .tune = one_mb };
    lab_server_syn(&l);
    fill(&l, true);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    lab_expect_nothing(&l); /* no reset: there may be room before the client gives up */
    CHECK_EQ(mp_stack_live(l.st), 0);
    CHECK_EQ(l.flows, 0);
    lab_expect_counter(&l, memory_refused, 1);
    fill(&l, false);
    lab_wait(&l, MP_SEC(1));
    lab_expect(&l, P0, MP_SYN | MP_ACK, 0, 1, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(&l, 2) });
    CHECK(l.events & MP_EV_ACCEPT);
    lab_forget(&l);
    lab_end(&l);
}

TEST(at_the_limit_a_cookie_opens_nothing_until_there_is_room)
{
    for (int unowned = 0; unowned < 2; unowned++) {
        struct lab l = { .plain = true, .tune = one_mb_and_cookies };
        lab_listen(&l);
        struct peer *p = lab_syn(&l, 1, 5001, (struct mp_opts){ 0 });
        CHECK_EQ(lab_waiting(&l), 1);
        lab_forget(&l);
        l.unowned = unowned;
        fill(&l, true);
        lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
        lab_expect_nothing(&l); /* what it wrote comes again */
        CHECK_EQ(mp_stack_live(l.st), 0);
        CHECK_EQ(l.flows, 0);
        lab_expect_counter(&l, memory_refused, 1);
        fill(&l, false);
        lab_send(&l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 100 });
        CHECK(l.events & MP_EV_ACCEPT);
        CHECK_EQ(lab_read(&l), 100);
        lab_forget(&l);
        lab_end(&l);
    }
}
