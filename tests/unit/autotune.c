/* The receive window follows what comes, and does not oscillate (core/conn_recv.c). */
#include "core/stack_int.h"

#include "lab.h"

struct bounds { uint64_t least, most, turns; };

/* Data for so long, `even` bytes each millisecond or all of five milliseconds' in the first; the program reads at once.
 * turns: how often the offered space began to grow after it had shrunk. */
static struct bounds receive(struct lab *l, uint64_t *off, mp_dur time, uint32_t even, bool bursts)
{
    struct bounds b = { UINT64_MAX, 0, 0 };
    uint64_t was = l->c->v.rcv_space;
    bool shrank = false;
    for (unsigned ms = 0; ms < time / MP_MS(1); ms++) {
        uint32_t n = !bursts ? even : ms % 5 ? 0 : 5 * even;
        for (; n; n -= (uint32_t)mp_min(n, 60000)) {
            uint32_t len = (uint32_t)mp_min(n, 60000);
            lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 1 + (uint32_t)*off, .ack = 1, .off = *off, .len = len });
            *off += len;
        }
        lab_read(l);
        for (int i = 0; i < l->qn; i++) free(l->q[i].data);
        l->qn = l->qi = 0;
        lab_wait(l, MP_MS(1));
        uint64_t now = l->c->v.rcv_space;
        b.least = mp_min(b.least, now);
        b.most = mp_max(b.most, now);
        b.turns += shrank && now > was;
        if (now != was) shrank = now < was;
        was = now;
    }
    return b;
}

static void holds_still(bool bursts)
{
    struct lab l = { .plain = true };
    uint64_t off = 0;
    lab_server(&l);
    receive(&l, &off, MP_MS(300), 50000, bursts); /* 50 MB/s */
    struct bounds b = receive(&l, &off, MP_SEC(1), 50000, bursts);
    CHECK(b.least >= 50000 * 50); /* 60 ms of it, less what sampling takes */
    CHECK(b.most <= b.least * 12 / 10);
    for (int i = 0; i < l.qn; i++) free(l.q[i].data);
    l.qn = l.qi = 0;
    mp_stack_free(l.st);
}

TEST(at_an_even_rate_it_holds_still) { holds_still(false); }
TEST(so_it_does_where_data_comes_in_bursts) { holds_still(true); }

TEST(it_grows_and_shrinks_once_with_the_rate)
{
    struct lab l = { .plain = true };
    uint64_t off = 0;
    lab_server(&l);
    CHECK_EQ(receive(&l, &off, MP_MS(300), 40000, false).turns, 0);
    struct bounds b = receive(&l, &off, MP_MS(600), 20000, false); /* half the rate */
    CHECK(b.turns <= 1);
    CHECK(b.least < b.most * 6 / 10);
    mp_stack_free(l.st);
}

TEST(it_does_not_grow_for_a_program_that_does_not_read)
{
    struct lab l = { .plain = true };
    uint64_t before;
    lab_server(&l);
    before = l.c->v.rcv_space;
    for (uint32_t off = 0; off < 900000; off += 50000) { /* 50 MB/s */
        lab_send(&l, P0, (struct seg){ .flags = MP_ACK, .seq = 1 + off, .ack = 1, .off = off, .len = 50000 });
        lab_forget(&l);
        lab_wait(&l, MP_MS(1));
        CHECK(l.c->v.rcv_space <= before);
    }
    for (int i = 0; i < l.qn; i++) free(l.q[i].data);
    mp_stack_free(l.st);
}
