/* A sender that fills a small window over a slow path: asked to spare it, then to use it in moments (core/hol.c). */
#include "lab.h"

#define SEG 8000u            /* as the card merges them: 8 ms of the fast path */
#define SLOW_RTT MP_MS(150)

static void small(struct mp_settings *s) { s->rcvbuf_kb = 128; }

struct flow { uint64_t off; uint32_t seq[2]; }; /* what comes next: of the stream, and on each path */

static struct flow two_paths(struct lab *l)
{
    lab_client(l);
    lab_local_up(l, 2);
    lab_pump(l);
    lab_wait(l, SLOW_RTT);
    lab_synack(l, &l->p[1], lab_join_synack(l, &l->p[1], 0));
    lab_wait(l, SLOW_RTT);
    lab_ack_mp(l, &l->p[1], 1, 1, 0);
    lab_forget(l);
    return (struct flow){ 0, { 1, 1 } };
}

static void comes(struct lab *l, struct flow *f, int path, uint64_t off)
{
    lab_data(l, &l->p[path], f->seq[path], 1, off, SEG);
    f->seq[path] += SEG;
    lab_read(l);
}

/* So many ms in which the fast path is busy. */
static void busy(struct lab *l, struct flow *f, unsigned ms)
{
    for (unsigned t = 0; t < ms; t += 8, f->off += SEG) {
        comes(l, f, 0, f->off);
        lab_wait(l, MP_MS(8));
    }
}

/* A piece of the stream is on the slow path, the fast one goes on to the end of the window and waits for it. */
static void held_up(struct lab *l, struct flow *f)
{
    uint64_t hole = f->off;
    f->off += SEG;
    busy(l, f, 96);
    lab_wait(l, MP_MS(70));
    comes(l, f, 1, hole);
}

/* The next MP_PRIO on the slow path: 1 backup, 0 not, -1 there is none. */
static int prio(struct lab *l, mp_time *at)
{
    for (; l->qi < l->qn; l->qi++) {
        const struct got *g = &l->q[l->qi];
        if (g->p != &l->p[1] || !(g->o.mp & MP_OPT_HAS(MP_PRIO))) continue;
        l->qi++;
        *at = g->at;
        return g->o.prio.backup;
    }
    return -1;
}

static struct flow asked(struct lab *l)
{
    mp_time at;
    struct flow f = two_paths(l);
    for (int i = 0; i < 8; i++) held_up(l, &f);
    CHECK_EQ(prio(l, &at), 1);
    lab_expect_counter(l, hol_asked, 1);
    return f;
}

TEST(a_slow_path_that_holds_the_stream_up_is_spared_and_then_rationed)
{
    struct lab l = { .tune = small };
    struct flow f = asked(&l);
    mp_time open = 0, closed = 0;
    busy(&l, &f, 3000);
    mp_dur gap = MP_SEC(1);
    for (int i = 0; i < 20; i++) { /* a moment, and a while without, that grows shorter: the fast path does not idle */
        CHECK_EQ(prio(&l, &open), 0);
        CHECK(!i || open - closed <= gap + MP_MS(8));
        if (i) gap = open - closed;
        CHECK_EQ(prio(&l, &closed), 1);
        CHECK(closed - open <= MP_MS(40));
    }
    CHECK(gap >= SLOW_RTT * 2 / 5 && gap < SLOW_RTT * 3 / 5);
    lab_expect_counter(&l, hol_taken_back, 0);
    CHECK(mp_stack_counter(l.st, MP_E_hol_rationed) >= 20);
    lab_forget(&l);
    lab_end(&l);
}

/* From the end of a moment to the next. */
static mp_dur gap(struct lab *l, struct flow *f)
{
    mp_time closed = 0, open = 0;
    while (prio(l, &open) >= 0) {}
    lab_forget(l);
    busy(l, f, 1000);
    while (prio(l, &closed) != 1) CHECK(l->qi < l->qn);
    CHECK_EQ(prio(l, &open), 0);
    return open - closed;
}

TEST(the_ration_is_halved_when_it_holds_the_stream_up)
{
    struct lab l = { .tune = small };
    struct flow f = asked(&l);
    busy(&l, &f, 2000);
    mp_dur before = gap(&l, &f);
    for (int i = 0; i < 4; i++) held_up(&l, &f);
    CHECK(gap(&l, &f) > 2 * before);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_slow_path_without_which_less_comes_is_asked_for_again)
{
    struct lab l = { .tune = small };
    struct flow f = asked(&l);
    mp_time at;
    int told, last = -1;
    for (int i = 0; i < 20; i++) {
        busy(&l, &f, 8);
        lab_wait(&l, MP_MS(60));
    }
    while ((told = prio(&l, &at)) >= 0) last = told;
    CHECK_EQ(last, 0);
    lab_expect_counter(&l, hol_taken_back, 1);
    for (int i = 0; i < 10; i++) held_up(&l, &f);
    CHECK(prio(&l, &at) == -1);
    lab_forget(&l);
    lab_wait(&l, MP_SEC(30)); /* the paths may be others by then */
    for (int i = 0; i < 8; i++) held_up(&l, &f);
    CHECK_EQ(prio(&l, &at), 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_moment_in_which_more_came_is_not_what_the_trial_is_compared_with)
{
    struct lab l = { .tune = small };
    struct flow f = two_paths(&l);
    busy(&l, &f, 500);
    for (int i = 0; i < 40; i++, f.off += SEG) { /* a queue on the way is emptied: 2 MB/s for one round trip */
        comes(&l, &f, 0, f.off);
        lab_wait(&l, MP_MS(4));
    }
    for (int i = 0; i < 8; i++) held_up(&l, &f);
    lab_expect_counter(&l, hol_asked, 1);
    busy(&l, &f, 2000);
    lab_expect_counter(&l, hol_taken_back, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_ration_of_which_no_use_is_made_is_given_up)
{
    struct lab l = { .tune = small };
    struct flow f = asked(&l);
    busy(&l, &f, 6000);
    lab_expect_counter(&l, hol_taken_back, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_ration_that_is_used_is_kept)
{
    struct lab l = { .tune = small };
    struct flow f = asked(&l);
    for (int i = 0; i < 40; i++) {
        uint64_t hole = f.off;
        f.off += SEG;
        busy(&l, &f, 32);
        comes(&l, &f, 1, hole);
        busy(&l, &f, 120);
    }
    lab_expect_counter(&l, hol_taken_back, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(what_was_sent_before_there_was_a_faster_path_is_no_reason_to_ask)
{
    struct lab l = { .tune = small };
    struct flow f = two_paths(&l);
    for (int i = 0; i < 3; i++) held_up(&l, &f);
    lab_expect_counter(&l, hol_asked, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(what_the_fast_path_itself_has_lost_is_no_reason_to_ask)
{
    struct lab l = { .tune = small };
    struct flow f = two_paths(&l);
    busy(&l, &f, 500);
    for (int i = 0; i < 12; i++) {
        uint64_t hole = f.off, lost;
        f.off += SEG;
        busy(&l, &f, 16);
        uint32_t lost_seq = f.seq[0];
        lost = f.off;
        f.seq[0] += SEG;
        f.off += SEG;
        busy(&l, &f, 72);
        lab_data(&l, &l.p[0], lost_seq, 1, lost, SEG);
        comes(&l, &f, 1, hole);
    }
    lab_expect_counter(&l, hol_asked, 0);
    lab_forget(&l);
    lab_end(&l);
}

static void nearly_large(struct mp_settings *s) { s->rcvbuf_kb = 340; }

TEST(how_little_comes_while_the_stream_is_held_up_does_not_make_a_buffer_large)
{
    struct lab l = { .tune = nearly_large };
    struct flow f = two_paths(&l);
    busy(&l, &f, 500); /* 1 MB/s: in a round trip half the buffer */
    for (int i = 0; i < 14; i++) {
        uint64_t hole = f.off;
        f.off += SEG;
        for (int k = 0; k < 9; k++, f.off += SEG) { /* half of that */
            comes(&l, &f, 0, f.off);
            lab_wait(&l, MP_MS(11));
        }
        lab_wait(&l, MP_MS(42));
        comes(&l, &f, 1, hole);
    }
    lab_expect_counter(&l, hol_asked, 1);
    lab_forget(&l);
    lab_end(&l);
}

TEST(one_round_trip_that_was_held_up_is_no_reason_to_ask)
{
    struct lab l = { .tune = small };
    struct flow f = two_paths(&l);
    busy(&l, &f, 500);
    uint64_t hole = f.off;
    f.off += SEG;
    busy(&l, &f, 16);
    lab_wait(&l, MP_MS(160));
    comes(&l, &f, 1, hole);
    busy(&l, &f, 500);
    lab_expect_counter(&l, hol_asked, 0);
    lab_forget(&l);
    lab_end(&l);
}

TEST(a_large_buffer_is_no_reason_to_ask)
{
    struct lab l = { 0 };
    struct flow f = two_paths(&l);
    for (int i = 0; i < 12; i++) held_up(&l, &f);
    lab_expect_counter(&l, hol_asked, 0);
    lab_forget(&l);
    lab_end(&l);
}
