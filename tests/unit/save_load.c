/* A connection is saved, loaded into another stack, and goes on as if nothing had happened (docs/architecture.md). */
#include "lab.h"

#include "core/stack_int.h"

#include <errno.h>

/* Moves the connection into a new stack with the same world. */
static void move(struct lab *l)
{
    FILE *f = tmpfile();
    struct mp_stack *old = l->st;
    if (!f) abort();
    CHECK_EQ(mpc_save(l->c, f), 0);
    lab_expect_nothing(l);
    int qn = l->qn, qi = l->qi;
    mp_time now = l->now;
    uint64_t seed = l->seed;
    uint64_t peer = l->idsn_peer;
    lab_stack(l);
    l->st->ts_key[0] ^= 1; /* what is loaded goes on with its own timestamps, whatever this stack's would be */
    l->now = now, l->seed = seed + 1, l->idsn_peer = peer, l->qn = qn, l->qi = qi;
    rewind(f);
    l->c = mpc_load(l->st, f, l, l->now);
    CHECK(l->c != NULL);
    if (!l->c) abort();
    CHECK(mpc_owner(l->c) == l);
    fclose(f);
    mp_stack_free(old);
    lab_pump(l);
}

TEST(plain_tcp_in_the_middle_of_everything)
{
    struct lab l = { .plain = true };
    lab_client(&l);
    lab_write(&l, 8500);
    for (uint32_t i = 0; i < 8; i++) lab_expect(&l, P0, MP_ACK, 1 + i * 1000, 1, 1000);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 500 });
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1001, .ack = 1, .off = 1000, .len = 500 });
    lab_forget(&l);
    move(&l);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 501, .ack = 1, .off = 500, .len = 500 });
    CHECK_EQ(lab_read(&l), 1500);
    lab_forget(&l);
    uint32_t ts = P0->ts_echo;
    lab_wait(&l, MP_MS(3));
    lab_ack(&l, P0, 1501, 8001);
    CHECK_EQ(lab_expect(&l, P0, MP_ACK, 8001, 1501, 500)->o.ts_val - ts, 3);
    lab_ack(&l, P0, 1501, 8501);
    CHECK(mpc_send_done(l.c));
    lab_end(&l);
}

TEST(two_subflows_with_holes_on_both_levels)
{
    struct lab l = { 0 };
    lab_client(&l);
    struct peer *p = lab_join(&l, 2);
    lab_write(&l, 40000);
    lab_forget(&l);
    lab_data(&l, P0, 1, 1, 1000, 1000);       /* connection level */
    lab_data(&l, p, 1001, 1, 3000, 1000);     /* subflow level */
    lab_forget(&l);
    move(&l);
    CHECK_EQ(lab_info(&l).nsubflows, 2);
    CHECK_EQ(lab_info(&l).token, l.token_engine);
    lab_data(&l, P0, 1001, 1, 0, 1000);
    CHECK_EQ(lab_read(&l), 2000);
    lab_data(&l, p, 1, 1, 2000, 1000);
    CHECK_EQ(lab_read(&l), 2000);
    lab_forget(&l);
    for (int i = 0; i < 60 && !mpc_send_done(l.c); i++) { /* the peer acknowledges all that it was sent */
        uint32_t end[2] = { 1, 1 };
        uint64_t off = 0;
        for (bool more = true; more;) {
            more = false;
            for (int j = 0; j < l.qn; j++) {
                struct got *g = &l.q[j];
                if (!g->len) continue;
                int k = (int)(g->p - l.p);
                if (g->seq + g->len > end[k]) end[k] = g->seq + g->len;
                uint64_t at = g->o.mp & MP_OPT_HAS(MP_DSS) ? g->o.dss.dsn - l.idsn_engine - 1 : 0;
                CHECK(lab_payload_is(g, at));
                if (at <= off && at + g->len > off) off = at + g->len, more = true;
            }
        }
        lab_wait(&l, LAB_RTT);
        lab_ack_mp(&l, P0, 2001, end[0], off);
        lab_ack_mp(&l, p, 2001, end[1], off);
    }
    CHECK(mpc_send_done(l.c));
    lab_forget(&l);
    lab_end(&l);
}

TEST(bytes_that_wait_for_their_checksum)
{
    struct lab l = { .csum = true };
    lab_server(&l);
    struct mp_opts o = lab_map(&l, 0, 1, 2000, false);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .len = 1000, .o = o });
    lab_forget(&l);
    move(&l);
    CHECK_EQ(lab_read(&l), 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1001, .ack = 1, .off = 1000, .len = 1000, .o = o });
    CHECK_EQ(lab_read(&l), 2000);
    lab_forget(&l);
    lab_end(&l);
}

TEST(unread_bytes_and_pending_events)
{
    struct lab l = { 0 };
    lab_server(&l);
    lab_data(&l, P0, 1, 1, 0, 700);
    lab_forget(&l);
    move(&l);
    CHECK_EQ(mpc_readable(l.c), 700);
    CHECK_EQ(lab_read(&l), 700);
    mpc_shutdown(l.c, l.now);
    CHECK(lab_expect(&l, P0, MP_ACK, 1, 701, 0)->o.dss.data_fin);
    lab_end(&l);
}

TEST(damaged_data_is_refused_at_any_length)
{
    struct lab l = { 0 };
    lab_client(&l);
    lab_write(&l, 3000);
    lab_data(&l, P0, 1, 1, 500, 500);
    lab_forget(&l);
    FILE *f = tmpfile();
    CHECK_EQ(mpc_save(l.c, f), 0);
    long n = ftell(f);
    rewind(f);
    uint8_t *b = malloc((size_t)n);
    CHECK_EQ(fread(b, 1, (size_t)n, f), (size_t)n);
    fclose(f);
    for (long cut = 0; cut < n; cut += cut < 64 ? 1 : 97) {
        FILE *g = fmemopen(b, (size_t)cut + !cut, "r");
        if (!cut) fgetc(g);
        struct mpc *c = mpc_load(l.st, g, NULL, l.now);
        CHECK(c == NULL);
        fclose(g);
    }
    b[0] ^= 1;
    FILE *g = fmemopen(b, (size_t)n, "r");
    CHECK(!mpc_load(l.st, g, NULL, l.now));
    fclose(g);
    free(b);
    CHECK_EQ(mp_stack_live(l.st), 1);
    lab_end(&l);
}
