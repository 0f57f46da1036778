/* Data sequence numbers that wrap at 2^32 and at 2^64 in mid-stream (RFC 8684 3.3.1). Keys that hash to such an IDSN
 * cannot be found, so the numbers are put in between the handshake and the first byte. */
#include "lab.h"

#include "core/conn.h"

enum { AHEAD = 5000, TOTAL = 20000, STEP = 1000 };

static void renumber(struct lab *l, uint64_t idsn)
{
    struct mpc_pod *v = &l->c->v;
    uint64_t window = v->snd_edge - v->snd_nxt;
    v->tx_off = v->rx_off = idsn & DSN_TOP;
    v->idsn_local = v->idsn_remote = idsn & ~DSN_TOP;
    v->snd_una = v->snd_nxt = v->snd_end = v->idsn_local + 1;
    v->snd_edge = v->snd_nxt + window;
    v->rcv_nxt = v->idsn_remote + 1;
    v->rcv_edge = 0;
    l->idsn_engine = l->idsn_peer = idsn;
}

/* The engine sends; checksums and mappings are those of wire numbers that wrap. */
static void out(struct lab *l)
{
    uint32_t got = 0;
    lab_write(l, TOTAL);
    for (int turns = 0; got < TOTAL && turns < 100; turns++) {
        for (; l->qi < l->qn; l->qi++) {
            struct got *g = &l->q[l->qi];
            if (!g->len) continue;
            CHECK(g->o.mp & (MP_OPT_HAS(MP_DSS) | MP_OPT_HAS(MP_CAPABLE)));
            CHECK_EQ(g->o.dss.dsn, l->idsn_engine + 1 + got);
            CHECK(lab_payload_is(g, got));
            if (l->csum) { /* both directions have the same bytes and numbers here */
                CHECK_EQ(g->o.dss.csum, lab_csum(l, got, g->o.dss.ssn, g->len, g->o.dss.len));
            }
            got += g->len;
        }
        lab_wait(l, LAB_RTT);
        lab_ack_mp(l, &l->p[0], 1, 1 + got, got);
    }
    CHECK_EQ(got, TOTAL);
    CHECK_EQ(lab_info(l).bytes_acked, TOTAL);
}

static void in(struct lab *l, bool short_form)
{
    for (uint32_t off = 0; off < TOTAL; off += STEP) {
        struct mp_opts o = lab_map(l, off, 1 + off, STEP, false);
        if (short_form) {
            o.dss.dsn64 = o.dss.ack64 = false;
            o.dss.dsn &= 0xffffffff;
            o.dss.data_ack &= 0xffffffff;
        }
        lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 1 + off, .ack = 1 + TOTAL, .off = off, .len = STEP, .o = o });
        CHECK_EQ(lab_read(l), STEP);
    }
    struct got *last = NULL;
    for (; l->qi < l->qn; l->qi++) last = &l->q[l->qi];
    lab_wait(l, MP_SEC(1));
    for (; l->qi < l->qn; l->qi++) last = &l->q[l->qi];
    CHECK(last && last->o.dss.has_ack);
    if (last && last->o.dss.ack64) CHECK_EQ(last->o.dss.data_ack, l->idsn_peer + 1 + TOTAL);
    else if (last) CHECK_EQ(last->o.dss.data_ack, (uint32_t)(l->idsn_peer + 1 + TOTAL));
}

static void finish(struct lab *l)
{
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 1 + TOTAL, .ack = 1 + TOTAL, .o = lab_map(l, TOTAL, 0, 0, true) });
    CHECK(mpc_eof(l->c));
    mpc_shutdown(l->c, l->now);
    lab_pump(l);
    bool fin = false;
    for (; l->qi < l->qn; l->qi++)
        if (l->q[l->qi].o.dss.data_fin) {
            fin = true;
            CHECK_EQ(l->q[l->qi].o.dss.dsn, l->idsn_engine + 1 + TOTAL);
            if (l->csum) CHECK_EQ(l->q[l->qi].o.dss.csum, lab_csum(l, TOTAL, 0, 0, 1));
        }
    CHECK(fin);
    lab_ack_mp(l, &l->p[0], 1 + TOTAL, 1 + TOTAL, TOTAL + 1);
    CHECK(l->events & MP_EV_CLOSED);
    CHECK_EQ(mpc_error(l->c), 0);
    lab_forget(l);
    lab_end(l);
}

static void run(uint64_t idsn, bool csum, bool short_form)
{
    struct lab l = { .csum = csum };
    lab_client(&l);
    renumber(&l, idsn);
    out(&l);
    in(&l, short_form);
    finish(&l);
}

TEST(the_64_bit_number_wraps) { run((uint64_t)0 - AHEAD, false, false); }
TEST(the_64_bit_number_wraps_with_checksums) { run((uint64_t)0 - AHEAD, true, false); }
TEST(the_64_bit_number_wraps_in_short_form) { run((uint64_t)0 - AHEAD, true, true); }
TEST(the_32_bit_half_wraps) { run(0x12345678ffffffff - AHEAD, false, true); }
TEST(the_32_bit_half_wraps_above_the_top_bit) { run(0x92345678ffffffff - AHEAD, true, true); }
TEST(the_top_bit_is_crossed) { run(DSN_TOP - AHEAD, true, true); }
