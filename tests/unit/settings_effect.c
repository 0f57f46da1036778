/* What a setting says in core/settings.def is what it does. The others have this in the test of what they are about. */
#include "lab.h"

#include <errno.h>

static void small_sndbuf(struct mp_settings *s) { s->sndbuf_kb = 64; }

TEST(sndbuf_kb_bounds_the_send_queue)
{
    struct lab l = { .plain = true, .tune = small_sndbuf };
    lab_client(&l);
    lab_write(&l, 1 << 20);
    CHECK_EQ(l.written, 64 * 1024);
    lab_forget(&l);
    lab_end(&l);
}

static void two_syns_more(struct mp_settings *s) { s->syn_tries = 2, s->syn_race_ms = 0; }

TEST(syn_tries_is_how_often_a_syn_is_repeated)
{
    struct lab l = { .tune = two_syns_more };
    lab_connect(&l);
    lab_wait(&l, MP_SEC(60));
    CHECK_EQ(lab_waiting(&l), 1 + 2);
    for (; l.qi < l.qn; l.qi++) CHECK_EQ(l.q[l.qi].flags, MP_SYN);
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    lab_end(&l);
}

static void one_with_option(struct mp_settings *s) { s->syn_mp_tries = 1; }

TEST(syn_mp_tries_is_how_many_syns_offer_mptcp)
{
    struct lab l = { .tune = one_with_option };
    lab_connect(&l);
    lab_wait(&l, MP_SEC(2));
    lab_expect_options(lab_expect(&l, P0, MP_SYN, 0, 0, 0), MP_CAPABLE);
    lab_expect_no_options(lab_expect(&l, P0, MP_SYN, 0, 0, 0));
    lab_forget(&l);
    lab_end(&l);
}

static void four_tries(struct mp_settings *s) { s->data_tries = 4; }
static void seven_tries(struct mp_settings *s) { s->data_tries = 7; }

/* Time-outs until a peer that says nothing is given up. */
static uint64_t time_outs(void (*tune)(struct mp_settings *s))
{
    struct lab l = { .plain = true, .tune = tune };
    lab_client(&l);
    lab_write(&l, 100);
    lab_wait(&l, MP_SEC(600));
    lab_forget(&l);
    CHECK_EQ(mpc_error(l.c), ETIMEDOUT);
    uint64_t n = mp_stack_counter(l.st, MP_E_rto);
    lab_end(&l);
    return n;
}

TEST(data_tries_is_how_often_data_is_repeated) { CHECK_EQ(time_outs(seven_tries) - time_outs(four_tries), 3); }

static void patient(struct mp_settings *s) { s->rto_min_ms = 900; }

TEST(rto_min_ms_is_the_least_that_a_time_out_has_beyond_the_round_trip)
{
    struct lab l = { .plain = true, .tune = patient };
    lab_client(&l);
    CHECK_EQ(lab_sf(&l, 0).srtt, LAB_RTT);
    CHECK_EQ(lab_sf(&l, 0).rto, LAB_RTT + MP_MS(900));
    lab_end(&l);
}

static void at_once(struct mp_settings *s) { s->nodelay = true; }

TEST(nodelay_lets_small_segments_go_beside_others) /* RFC 9293 3.7.4 */
{
    for (int on = 0; on < 2; on++) {
        struct lab l = { .plain = true, .tune = on ? at_once : NULL };
        lab_client(&l);
        for (int i = 0; i < 3; i++) lab_write(&l, 10);
        ROW("nodelay %d", on);
        CHECK_EQ(lab_waiting(&l), on ? 3 : 1);
        lab_forget(&l);
        lab_end(&l);
    }
    ROW("%s", "");
}

static void five_seconds(struct mp_settings *s) { s->time_wait_s = 5; }

TEST(time_wait_s_is_how_long_who_closes_first_remembers)
{
    struct lab l = { .plain = true, .tune = five_seconds };
    lab_client(&l);
    mpc_release(l.c, 0, l.now);
    lab_expect(&l, P0, MP_FIN | MP_ACK, 1, 1, 0);
    lab_send(&l, P0, (struct seg){ .flags = MP_FIN | MP_ACK, .seq = 1, .ack = 2 });
    lab_expect(&l, P0, MP_ACK, 2, 2, 0);
    lab_wait(&l, MP_MS(4900));
    CHECK_EQ(l.flows, 1);
    lab_wait(&l, MP_MS(200));
    CHECK_EQ(l.flows, 0);
    CHECK_EQ(mp_stack_live(l.st), 0);
    lab_end(&l);
}
