/* A scheduler that repeats: what one path was given first, the others carry too (core/sched/redundant.c, core/conn_send.c). */
#include "lab.h"

static void redundant(struct mp_settings *s) { s->scheduler = "redundant"; }

/* Of n bytes of the stream from `from` on, how many went out over p since l->qi. Checks each payload. */
static uint64_t carried(struct lab *l, const struct peer *p, uint64_t from, uint64_t n)
{
    uint64_t sum = 0;
    lab_pump(l);
    for (int i = l->qi; i < l->qn; i++) {
        const struct got *g = &l->q[i];
        if (g->p != p || !g->len) continue;
        uint64_t at = g->o.dss.dsn - l->idsn_engine - 1;
        CHECK(lab_payload_is(g, at));
        if (at >= from && at + g->len <= from + n) sum += g->len;
    }
    return sum;
}

static uint32_t end_of(const struct lab *l, const struct peer *p) /* next sequence number of what the engine sends there */
{
    uint32_t end = 1;
    for (int i = 0; i < l->qn; i++)
        if (l->q[i].p == p && l->q[i].len) end = (uint32_t)mp_max(end, l->q[i].seq + l->q[i].len);
    return end;
}

TEST(each_path_carries_all)
{
    struct lab l = { .tune = redundant, .open_flags = MP_OPEN_NODELAY };
    lab_client(&l);
    lab_join(&l, 2);
    lab_write(&l, 3500);
    CHECK_EQ(carried(&l, P0, 0, 3500), 3500);
    CHECK_EQ(carried(&l, P1, 0, 3500), 3500);
    lab_expect_counter(&l, repeated, 3500);
    lab_forget(&l);
    lab_ack_mp(&l, P1, 1, end_of(&l, P1), 3500);
    lab_ack_mp(&l, P0, 1, end_of(&l, P0), 3500);
    CHECK(mpc_send_done(l.c));
    lab_wait(&l, MP_SEC(5));
    lab_expect_counter(&l, seg_rexmit, 0);
    lab_end(&l);
}

TEST(what_is_acknowledged_is_not_repeated)
{
    struct lab l = { .tune = redundant, .open_flags = MP_OPEN_NODELAY };
    lab_client(&l);
    lab_write(&l, 1000);
    lab_forget(&l);
    lab_ack_mp(&l, P0, 1, 1001, 1000);
    lab_join(&l, 2);
    lab_write(&l, 1000);
    CHECK_EQ(carried(&l, P1, 0, 1000), 0);
    CHECK_EQ(carried(&l, P1, 1000, 1000), 1000);
    CHECK_EQ(carried(&l, P0, 1000, 1000), 1000);
    lab_expect_counter(&l, repeated, 1000);
    lab_forget(&l);
    lab_end(&l);
}
