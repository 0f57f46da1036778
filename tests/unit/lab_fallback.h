/* tests/unit/lab_fallback.h: lab.h for tests of falling back to plain TCP (RFC 8684 3.7). */
#ifndef MP_LAB_FALLBACK_H
#define MP_LAB_FALLBACK_H

#include "lab.h"

LAB static bool is_infinite(const struct got *g) { return g->o.mp == MP_OPT_HAS(MP_DSS) && g->o.dss.has_map && g->o.dss.len == 0; }

/* The connection is plain TCP for this reason, and carries bytes both ways without options; of our data only the first
 * has one where the peer must be told. */
LAB static void goes_on(struct lab *l, enum mp_plain_why why, uint32_t snd, uint32_t rcv, bool told)
{
    lab_forget(l);
    CHECK(!lab_info(l).multipath);
    CHECK_EQ(lab_info(l).why, why);
    lab_expect_counter(l, fallback, 1);
    lab_read(l);
    lab_forget(l);
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = rcv, .ack = snd, .off = l->read, .len = 50 });
    CHECK_EQ(lab_read(l), 50);
    lab_forget(l);
    CHECK(mpc_send_done(l->c)); /* what the subflow acknowledged counts */
    for (int i = 0; i < 2; i++, snd += 70) {
        lab_write(l, 70);
        struct got *g = lab_expect(l, &l->p[0], MP_ACK, snd, rcv + 50, 70);
        if (told && i == 0) CHECK(is_infinite(g)); /* RFC 8684 3.7 */
        else lab_expect_no_options(g);
        CHECK(lab_payload_is(g, l->written - 70));
        lab_ack(l, &l->p[0], rcv + 50, snd + 70);
        CHECK(mpc_send_done(l->c));
    }
    mpc_shutdown(l->c, l->now);
    lab_expect_no_options(lab_expect(l, &l->p[0], MP_FIN | MP_ACK, snd, rcv + 50, 0));
    lab_end(l);
}

LAB static void plain_works(struct lab *l, enum mp_plain_why why, uint32_t snd, uint32_t rcv) { goes_on(l, why, snd, rcv, false); }
LAB static void plain_works_and_is_told(struct lab *l, enum mp_plain_why why, uint32_t snd, uint32_t rcv) { goes_on(l, why, snd, rcv, true); }

/* How many of the segments that wait carry MP_FAIL. */
LAB static int fails_sent(struct lab *l)
{
    int n = 0;
    for (lab_pump(l); l->qi < l->qn; l->qi++) n += !!(l->q[l->qi].o.mp & MP_OPT_HAS(MP_FAIL));
    return n;
}

/* A server has read the first 100 bytes; the checksum of the next 100 is wrong. */
LAB static void data_then_spoiled_data(struct lab *l)
{
    lab_data(l, &l->p[0], 1, 1, 0, 100);
    lab_forget(l);
    CHECK_EQ(lab_read(l), 100);
    struct mp_opts o = lab_map(l, 100, 101, 100, false);
    o.dss.csum ^= 0x1111;
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 101, .ack = 1, .off = 100, .len = 100, .o = o });
}

LAB static struct mp_opts infinite(const struct lab *l, uint64_t off, uint32_t ssn)
{
    struct mp_opts o = lab_dack(l);
    o.dss.has_map = o.dss.dsn64 = true;
    o.dss.dsn = l->idsn_peer + 1 + off;
    o.dss.ssn = ssn;
    o.dss.has_csum = l->csum;
    return o;
}

#endif
