/* Memory that a hostile peer can make us hold (core/mem.c). */
#include "lab.h"

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
