/* Pacing (core/pace.c): what leaves at once, and when the rest does. */
#include "lab_loss.h"

static void paced(struct mp_settings *s) { s->pacing = true; }

TEST(an_initial_window_goes_at_once) /* RFC 6928 */
{
    struct lab l = { .plain = true, .tune = paced };
    lab_client(&l);
    lab_write(&l, 9000);
    sent(&l, 1, 9);
    lab_end(&l);
}

/* Grows the window to 40 segments over a path of that round trip, and leaves it idle for a while; the next sequence number. */
static uint32_t window_of_40(struct lab *l, mp_dur rtt)
{
    lab_connect(l);
    lab_expect(l, &l->p[0], MP_SYN, 0, 0, 0);
    lab_wait(l, rtt);
    lab_synack(l, &l->p[0], (struct mp_opts){ 0 });
    while (lab_sf(l, 0).cwnd < 40 * LAB_MSS && l->written < 400000) {
        lab_write(l, 40000);
        while (!mpc_send_done(l->c)) {
            lab_wait(l, rtt);
            lab_ack(l, &l->p[0], 1, highest(l));
        }
    }
    lab_wait(l, 2 * rtt);
    lab_forget(l);
    CHECK(lab_sf(l, 0).cwnd >= 40 * LAB_MSS);
    return 1 + (uint32_t)l->written;
}

/* At most twice the window a round trip (slow start). 24 segments and a quantum leave at once. */
TEST(a_larger_window_is_spread)
{
    struct lab l = { .plain = true, .tune = paced };
    mp_dur rtt = MP_MS(40);
    uint32_t at = window_of_40(&l, rtt);
    mp_time from = l.now;
    lab_write(&l, 40000);
    CHECK(lab_waiting(&l) >= 24 && lab_waiting(&l) <= 26);
    lab_wait(&l, rtt - MP_MS(1));
    CHECK_EQ(lab_waiting(&l), 40);
    for (int i = 0; i < 40; i++) /* none before its turn */
        CHECK(i < 26 || (double)(l.q[l.qi + i].at - from) >= (double)(i - 26) * LAB_MSS / (2.0 * (double)lab_sf(&l, 0).cwnd) * (double)rtt);
    CHECK(l.q[l.qi + 39].at > from + MP_MS(3));
    sent(&l, at, 40);
    lab_ack(&l, P0, 1, at + 40000);
    lab_forget(&l);
    lab_end(&l);
}

TEST(switched_off_it_is_not)
{
    struct lab l = { .plain = true };
    uint32_t at = window_of_40(&l, MP_MS(40));
    lab_write(&l, 40000);
    sent(&l, at, 40);
    lab_ack(&l, P0, 1, at + 40000);
    lab_forget(&l);
    lab_end(&l);
}

/* A path of 2 ms is over before a timer could spread anything. */
TEST(a_short_path_is_not_paced)
{
    struct lab l = { .plain = true, .tune = paced };
    uint32_t at = window_of_40(&l, MP_MS(2));
    lab_write(&l, 40000);
    sent(&l, at, 40);
    lab_ack(&l, P0, 1, at + 40000);
    lab_forget(&l);
    lab_end(&l);
}
