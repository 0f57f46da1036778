/* tests/unit/lab_loss.h: lab.h for tests of loss: a window that has grown, segments in a row, SACKs. */
#ifndef MP_LAB_LOSS_H
#define MP_LAB_LOSS_H

#include "lab.h"

LAB static void sack(struct lab *l, uint32_t ack, uint32_t left, uint32_t right)
{
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 1, .ack = ack, .o = lab_sack(l, &l->p[0], (struct mp_opts){ 0 }, left, right) });
}

LAB static void sent(struct lab *l, uint32_t from, int n)
{
    for (int i = 0; i < n; i++) {
        struct got *g = lab_expect(l, &l->p[0], MP_ACK, from + (uint32_t)i * 1000, 1, 1000);
        CHECK(lab_payload_is(g, from + (uint64_t)i * 1000 - 1));
    }
}

LAB static uint32_t highest(const struct lab *l) /* the end of what was sent */
{
    uint32_t end = 1;
    for (int i = 0; i < l->qn; i++)
        if (l->q[i].len && l->q[i].seq + l->q[i].len > end) end = l->q[i].seq + l->q[i].len;
    return end;
}

/* Grows the window to at least 20 segments; returns the next sequence number. */
LAB static uint32_t grown(struct lab *l)
{
    lab_client(l);
    while (lab_sf(l, 0).cwnd < 20 * LAB_MSS && l->written < 200000) {
        lab_write(l, 20000);
        while (!mpc_send_done(l->c)) {
            lab_wait(l, LAB_RTT);
            lab_ack(l, &l->p[0], 1, highest(l));
        }
    }
    lab_forget(l);
    CHECK(lab_sf(l, 0).cwnd >= 20 * LAB_MSS);
    return 1 + (uint32_t)l->written;
}

#endif
