/* tests/unit/lab.h: packet scripts on virtual time against one stack (core/stack.h). The test plays the peer.
 *
 *   TEST(a_lost_segment_is_sent_again)
 *   {
 *       struct lab l = { .plain = true };
 *       lab_client(&l);                            // handshake done, nothing waiting
 *       lab_write(&l, 1000);
 *       lab_expect(&l, P0, MP_ACK, 1, 1, 1000);    // flags, SEQ, ACK, payload; PSH is not compared
 *       lab_expect_nothing(&l);
 *       lab_wait(&l, MP_SEC(1));                   // timers fire on the way, each at its own time
 *       ...
 *       lab_end(&l);
 *   }
 *
 * SEQ and ACK are relative to the initial sequence numbers: SYN is 0, the first byte 1. Stream positions ("off")
 * count from 0 at the first byte; the peer's byte at off is lab_byte(off), and what the program reads is compared
 * with that. Segments of the engine wait in order until they are expected; each knows when it was sent. With the
 * defaults a full segment of the engine has LAB_MSS payload bytes. */
#ifndef MP_LAB_H
#define MP_LAB_H

#include "lab_world.h"

/* ---- the peer speaks ---- */

struct seg {
    uint8_t flags;
    uint32_t seq, ack;
    uint64_t off;          /* stream position of the payload */
    uint32_t len;
    struct mp_opts o;      /* timestamps are added where they were agreed */
    bool no_ts;
    int ts_back;           /* ms that the timestamp lies behind */
    const uint8_t *raw;    /* option bytes instead of o */
    uint8_t nraw;
    uint8_t tos;
    uint16_t urg;
    bool spoil;            /* the payload's first byte is changed after the checksum was made */
};

LAB static uint32_t lab_ts(const struct lab *l) { return 5000000u + (uint32_t)(l->now / 1000000u); }

/* Puts the segment into the stack; the engine's answers then wait. */
LAB static void lab_send(struct lab *l, struct peer *p, struct seg s)
{
    static uint8_t payload[70000];
    struct mp_pkt k = { .src = p->peer, .dst = p->engine, .ifindex = p->ifindex, .seq = p->iss + s.seq,
                        .wnd = p->wnd, .flags = s.flags, .tos = s.tos, .urg = s.urg, .len = s.len };
    if (s.flags & MP_ACK) k.ack = p->irs + s.ack;
    if (p->ts && !s.no_ts && !(s.flags & MP_RST)) {
        s.o.has_ts = true;
        s.o.ts_val = lab_ts(l) - (uint32_t)s.ts_back;
        s.o.ts_ecr = p->ts_echo;
    }
    for (uint32_t i = 0; i < s.len; i++) payload[i] = lab_byte(s.off + i);
    if (s.spoil) payload[0] ^= 0x55;
    k.data = (struct mp_slice){ NULL, payload, s.len };
    if (s.raw) {
        memcpy(k.opt, s.raw, s.nraw);
        k.optlen = s.nraw;
    } else {
        size_t n = mp_opts_len(&s.o);
        if (n > 40) abort(); /* the test asks for more than a header holds */
        k.optlen = (uint8_t)n;
        mp_opts_emit(k.opt, &s.o);
    }
    if (l->unowned) mp_stack_input_unowned(l->st, &k, l->now);
    else mp_stack_input(l->st, &k, l->now);
    lab_pump(l);
}

/* ---- options of the peer ---- */

LAB static struct mp_opts lab_dack(const struct lab *l) /* DSS with DATA_ACK only */
{
    return (struct mp_opts){ .mp = MP_OPT_HAS(MP_DSS), .dss = { .has_ack = true, .ack64 = true, .data_ack = l->idsn_engine + 1 + l->dack } };
}

LAB static uint16_t lab_csum(const struct lab *l, uint64_t off, uint32_t ssn, uint32_t data, uint32_t len)
{
    uint8_t b[65536], h[16];
    uint64_t dsn = l->idsn_peer + 1 + off;
    for (uint32_t i = 0; i < data; i++) b[i] = lab_byte(off + i);
    for (int i = 0; i < 8; i++) h[i] = (uint8_t)(dsn >> (56 - 8 * i));
    for (int i = 0; i < 4; i++) h[8 + i] = (uint8_t)(ssn >> (24 - 8 * i));
    h[12] = (uint8_t)(len >> 8), h[13] = (uint8_t)len, h[14] = h[15] = 0; /* RFC 8684 3.3.1 */
    return (uint16_t)~mp_csum_fold(mp_csum_add(mp_csum_add(0, b, data), h, 16));
}

/* A mapping of len stream bytes from off to the subflow's bytes from ssn; fin: DATA_FIN behind them. */
LAB static struct mp_opts lab_map(const struct lab *l, uint64_t off, uint32_t ssn, uint32_t len, bool fin)
{
    struct mp_opts o = lab_dack(l);
    o.dss.has_map = o.dss.dsn64 = true;
    o.dss.dsn = l->idsn_peer + 1 + off;
    o.dss.ssn = len ? ssn : 0;
    o.dss.len = (uint16_t)(len + fin);
    o.dss.data_fin = fin;
    if (l->csum) {
        o.dss.has_csum = true;
        o.dss.csum = lab_csum(l, off, o.dss.ssn, len, o.dss.len);
    }
    return o;
}

LAB static struct mp_opts lab_capable(const struct lab *l, int nkeys)
{
    return (struct mp_opts){ .mp = MP_OPT_HAS(MP_CAPABLE), .capable = { .version = 1, .hmac_sha256 = true, .csum_req = l->csum,
        .nkeys = (uint8_t)nkeys, .key_snd = nkeys ? LAB_PEER_KEY : 0, .key_rcv = nkeys == 2 ? l->key_engine : 0 } };
}

LAB static struct mp_opts lab_offer(const struct lab *l, int nkeys) /* what a peer of this kind puts into its handshake */
{
    struct mp_opts none = { 0 };
    return l->plain ? none : lab_capable(l, nkeys);
}

LAB static struct mp_opts lab_sack(const struct lab *l, const struct peer *p, struct mp_opts o, uint32_t left, uint32_t right)
{
    (void)l;
    o.sack[o.nsack].left = p->irs + left;
    o.sack[o.nsack++].right = p->irs + right;
    return o;
}

/* Of a client's first data, in place of a mapping (RFC 8684 3.1). */
LAB static struct mp_opts lab_capable_data(const struct lab *l, uint16_t len)
{
    struct mp_opts o = lab_capable(l, 2);
    o.capable.has_data_len = true;
    o.capable.data_len = len;
    o.capable.has_csum = l->csum;
    if (l->csum) o.capable.csum = lab_csum(l, 0, 1, len, len);
    return o;
}

/* ---- plain verbs of the peer ---- */

LAB static void lab_ack(struct lab *l, struct peer *p, uint32_t seq, uint32_t ack) /* an ACK without MPTCP options */
{
    lab_send(l, p, (struct seg){ .flags = MP_ACK, .seq = seq, .ack = ack });
}
LAB static void lab_ack_mp(struct lab *l, struct peer *p, uint32_t seq, uint32_t ack, uint64_t dack) /* with DATA_ACK */
{
    l->dack = dack;
    lab_send(l, p, (struct seg){ .flags = MP_ACK, .seq = seq, .ack = ack, .o = lab_dack(l) });
}
LAB static void lab_prio(struct lab *l, struct peer *p, struct mp_opt_prio prio) /* before any data */
{
    struct mp_opts o = lab_dack(l);
    o.mp |= MP_OPT_HAS(MP_PRIO);
    o.prio = prio;
    lab_send(l, p, (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = o });
}
LAB static void lab_data(struct lab *l, struct peer *p, uint32_t seq, uint32_t ack, uint64_t off, uint32_t len) /* with a mapping of its own */
{
    lab_send(l, p, (struct seg){ .flags = MP_ACK, .seq = seq, .ack = ack, .off = off, .len = len, .o = lab_map(l, off, seq, len, false) });
}

/* ---- what the engine must have said ---- */

static struct got lab_none;

#define lab_expect(l, p, flags, seq, ack, len) lab_expect_at_(__FILE__, __LINE__, l, p, flags, seq, ack, len)
LAB static struct got *lab_expect_at_(const char *file, int line, struct lab *l, struct peer *p, uint8_t flags, uint32_t seq, uint32_t ack, uint32_t len)
{
    lab_pump(l);
    if (l->qi == l->qn) {
        test_fail(file, line, "expected flags %02x seq %u ack %u len %u, got nothing", flags, seq, ack, len);
        return &lab_none;
    }
    struct got *g = &l->q[l->qi++];
    bool same = g->p == p && !((g->flags ^ flags) & ~MP_PSH) && g->seq == seq && g->len == len && (!(flags & MP_ACK) || g->ack == ack);
    if (!same)
        test_fail(file, line, "expected on %d: flags %02x seq %u ack %u len %u, got on %d: flags %02x seq %u ack %u len %u mp %x",
                  p ? (int)(p - l->p) : -1, flags, seq, ack, len, g->p ? (int)(g->p - l->p) : -1, g->flags, g->seq, g->ack, g->len, g->o.mp);
    return g;
}

#define lab_expect_nothing(l) lab_expect_nothing_(__FILE__, __LINE__, l)
LAB static void lab_expect_nothing_(const char *file, int line, struct lab *l)
{
    lab_pump(l);
    for (; l->qi < l->qn; l->qi++) {
        struct got *g = &l->q[l->qi];
        test_fail(file, line, "not expected on %d: flags %02x seq %u ack %u len %u mp %x at %.3f ms",
                  g->p ? (int)(g->p - l->p) : -1, g->flags, g->seq, g->ack, g->len, g->o.mp, (double)g->at / 1e6);
    }
}

#define lab_expect_counter(l, name, n) CHECK_EQ(mp_stack_counter((l)->st, MP_E_##name), n)
#define lab_expect_options(g, ...) CHECK_EQ((g)->o.mp, lab_mask((int[]){ __VA_ARGS__, -1 }))
#define lab_expect_no_options(g) CHECK_EQ((g)->o.mp, 0)
LAB static uint32_t lab_mask(const int *v)
{
    uint32_t m = 0;
    for (; *v >= 0; v++) m |= MP_OPT_HAS(*v);
    return m;
}

LAB static int lab_waiting(struct lab *l) { lab_pump(l); return l->qn - l->qi; }
LAB static void lab_forget(struct lab *l) { lab_pump(l); l->qi = l->qn; } /* scene setting only */
/* Forgets up to the first segment with payload on p; lab_none if there is none. */
LAB static struct got *lab_next_data(struct lab *l, struct peer *p)
{
    for (lab_pump(l); l->qi < l->qn;) {
        struct got *g = &l->q[l->qi++];
        if (g->p == p && g->len) return g;
    }
    return &lab_none;
}

/* Of all that waits, the last segment on p (NULL: on any) with these flags and options; lab_none if there is none. */
LAB static const struct got *lab_said(struct lab *l, const struct peer *p, uint8_t flags, uint32_t mp)
{
    const struct got *said = &lab_none;
    for (lab_pump(l); l->qi < l->qn; l->qi++) {
        const struct got *g = &l->q[l->qi];
        if ((!p || g->p == p) && (g->flags & flags) == flags && (g->o.mp & mp) == mp) said = g;
    }
    return said;
}

/* ---- the program ---- */

LAB static void lab_write(struct lab *l, uint64_t n)
{
    static uint8_t b[1 << 20];
    while (n) {
        uint64_t m = mp_min(n, sizeof b);
        for (uint64_t i = 0; i < m; i++) b[i] = lab_byte(l->written + i);
        uint64_t k = mpc_write(l->c, b, m, l->now);
        l->written += k;
        n -= k;
        if (k < m) break;
    }
    lab_pump(l);
}

/* Reads all there is and compares; returns how much. */
LAB static uint64_t lab_read(struct lab *l)
{
    struct mp_iov v[16];
    uint64_t total = 0;
    int n;
    while ((n = mpc_peek(l->c, v, 16)) > 0) {
        uint64_t sum = 0;
        for (int i = 0; i < n; i++)
            for (size_t j = 0; j < v[i].len; j++, sum++)
                if (((const uint8_t *)v[i].base)[j] != lab_byte(l->read + sum)) {
                    test_fail(__FILE__, __LINE__, "the program reads a wrong byte at %" PRIu64, l->read + sum);
                    return total;
                }
        mpc_consume(l->c, sum, l->now);
        l->read += sum;
        total += sum;
    }
    lab_pump(l);
    return total;
}
LAB static bool lab_payload_is(const struct got *g, uint64_t off)
{
    for (uint32_t i = 0; i < g->len; i++)
        if (g->data[i] != lab_byte(off + i)) return false;
    return g->data != NULL;
}

LAB static struct mpc_subflow_info lab_sf(struct lab *l, int i)
{
    struct mpc_subflow_info v[8] = { 0 };
    mpc_get_subflows(l->c, v, 8);
    return v[i];
}
LAB static struct mpc_info lab_info(struct lab *l)
{
    struct mpc_info i;
    mpc_get_info(l->c, &i);
    return i;
}

/* ---- scenes ---- */

LAB static bool lab_listening(void *arg, void *owner) { return owner && !((struct lab *)arg)->closed; }

LAB static bool lab_crowded(void *arg, void *owner) { (void)owner; return ((struct lab *)arg)->crowded; }

LAB static void lab_stack(struct lab *l)
{
    static const struct mp_stack_ops ops = { lab_random, lab_flow_open, lab_flow_close, lab_slice_max, lab_writable, lab_route,
                                             lab_mtu, lab_port_get, lab_port_put, NULL, NULL, NULL, NULL, lab_withheld, lab_listening, lab_crowded, NULL };
    mp_settings_default(&l->set);
    l->set.checksum = l->csum;
    l->set.pacing = false; /* a script's data leaves when the window lets it: tests/unit/pace.c has it on */
    if (l->tune) l->tune(&l->set);
    if (!l->mtu) l->mtu = 1500;
    l->now = MP_SEC(1000);
    l->seed = 42;
    l->st = mp_stack_new(&ops, l, &l->set);
    mp_key_derive(LAB_PEER_KEY, &l->token_peer, &l->idsn_peer);
    lab_local_up(l, 1);
}

LAB static void lab_end(struct lab *l)
{
    lab_expect_nothing(l);
    lab_expect_counter(l, fallback_strange, 0); /* no event that core/fallback.def has no row for */
    mp_stack_free(l->st);
    CHECK_EQ(l->flows, 0);
    for (int i = 0; i < l->qn; i++) free(l->q[i].data);
}

/* Options of a SYN: MSS such that the engine's segments come to LAB_MSS. */
LAB static struct mp_opts lab_syn_options(const struct lab *l, struct mp_opts o)
{
    o.has_mss = true;
    o.mss = (uint16_t)(LAB_MSS + (l->no_ts ? 0 : 12) + (l->plain ? 0 : 28));
    o.sack_ok = !l->no_sack;
    o.has_wscale = true;
    o.wscale = (uint8_t)l->peer_wscale;
    return o;
}

LAB static void lab_learn_key(struct lab *l, uint64_t key)
{
    l->key_engine = key;
    mp_key_derive(key, &l->token_engine, &l->idsn_engine);
}

/* The engine's SYN is out and was expected. */
LAB static void lab_connect(struct lab *l)
{
    int err = 0;
    struct mp_endpoint to = lab_ep(1, 2, 80), from = lab_ep(1, 1, 0);
    if (!l->st) lab_stack(l);
    l->c = mp_stack_connect(l->st, &to, &from.ip, 1, l->open_flags, l, l->now, &err);
    CHECK(l->c != NULL);
    lab_pump(l);
}

LAB static void lab_synack(struct lab *l, struct peer *p, struct mp_opts o)
{
    p->ts = !l->no_ts;
    lab_send(l, p, (struct seg){ .flags = MP_SYN | MP_ACK, .seq = 0, .ack = 1, .o = lab_syn_options(l, o) });
}

/* A client's SYN is answered by a SYN/ACK with these options; the engine's ACK waits. */
LAB static void lab_connect_answered(struct lab *l, struct mp_opts o)
{
    lab_connect(l);
    lab_expect(l, &l->p[0], MP_SYN, 0, 0, 0);
    lab_synack(l, &l->p[0], o);
}

/* A client's connection: handshake done; with MPTCP not yet confirmed by a DSS. */
LAB static void lab_client_unconfirmed(struct lab *l)
{
    lab_connect(l);
    struct got *g = lab_expect(l, &l->p[0], MP_SYN, 0, 0, 0);
    lab_expect_options(g, MP_CAPABLE);
    lab_wait(l, LAB_RTT);
    lab_synack(l, &l->p[0], lab_offer(l, 1));
    g = lab_expect(l, &l->p[0], MP_ACK, 1, 1, 0);
    if (l->plain) {
        lab_expect_no_options(g);
    } else {
        lab_expect_options(g, MP_CAPABLE);
        lab_learn_key(l, g->o.capable.key_snd);
        CHECK_EQ(g->o.capable.key_rcv, LAB_PEER_KEY);
    }
    CHECK(l->events & MP_EV_CONNECTED);
}

/* And confirmed, with one subflow; nothing waits. */
LAB static void lab_client(struct lab *l)
{
    lab_client_unconfirmed(l);
    if (!l->plain) lab_ack_mp(l, &l->p[0], 1, 1, 0);
    lab_expect_nothing(l);
}

LAB static void lab_listen(struct lab *l)
{
    struct mp_endpoint at = { { 0 }, 80 };
    if (!l->st) lab_stack(l);
    CHECK_EQ(mp_stack_listen(l->st, &at, 3, 16, l), 0);
}

/* The peer's SYN; its far end is p[np - 1]. */
LAB static struct peer *lab_syn(struct lab *l, int subnet, uint16_t port, struct mp_opts o)
{
    struct mp_endpoint e = lab_ep(subnet, 1, 80), f = lab_ep(subnet, 2, port);
    struct peer *p = lab_peer_new(l, &e, &f, subnet);
    p->ts = !l->no_ts;
    lab_send(l, p, (struct seg){ .flags = MP_SYN, .o = lab_syn_options(l, o) });
    return p;
}

LAB static void lab_server_syn(struct lab *l) /* up to the engine's SYN/ACK */
{
    lab_listen(l);
    lab_syn(l, 1, 5001, lab_offer(l, 0));
    struct got *g = lab_expect(l, &l->p[0], MP_SYN | MP_ACK, 0, 1, 0);
    if (l->plain)
        lab_expect_no_options(g);
    else {
        lab_expect_options(g, MP_CAPABLE);
        CHECK_EQ(g->o.capable.nkeys, 1);
        lab_learn_key(l, g->o.capable.key_snd);
    }
    lab_wait(l, LAB_RTT);
}

/* A server's connection, accepted; with MPTCP not yet confirmed. */
LAB static void lab_server_unconfirmed(struct lab *l)
{
    lab_server_syn(l);
    lab_send(l, &l->p[0], (struct seg){ .flags = MP_ACK, .seq = 1, .ack = 1, .o = lab_offer(l, 2) });
    CHECK(l->events & MP_EV_ACCEPT);
    struct got *g = lab_expect(l, &l->p[0], MP_ACK, 1, 1, 0); /* opens the window, which a SYN cannot scale */
    if (l->plain) return;
    /* RFC 8684 3.1: and brings a DATA_ACK, before the program accepts. */
    lab_expect_options(g, MP_DSS);
    CHECK(g->o.dss.has_ack);
}

LAB static void lab_server(struct lab *l)
{
    lab_server_unconfirmed(l);
    if (!l->plain) lab_ack_mp(l, &l->p[0], 1, 1, 0);
    lab_expect_nothing(l);
}

/* The HMAC of a join as the peer makes it (RFC 8684 3.2). */
LAB static void lab_join_hmac(const struct lab *l, const struct peer *p, uint8_t h[32])
{
    mp_join_hmac(LAB_PEER_KEY, l->key_engine, p->nonce, p->nonce_engine, h);
}

LAB static struct mp_opts lab_join_syn(const struct lab *l) /* the first step, by a peer that joins from its address 5 */
{
    return (struct mp_opts){ .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_SYN, .addr_id = 5, .token = l->token_engine, .nonce = LAB_NONCE } };
}

LAB static struct mp_opts lab_join_synack(const struct lab *l, const struct peer *p, uint8_t id)
{
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_SYNACK, .addr_id = id, .nonce = p->nonce } };
    uint8_t h[32];
    lab_join_hmac(l, p, h);
    memcpy(o.join.hmac, h, 8);
    return o;
}

LAB static struct mp_opts lab_join_ack(const struct lab *l, const struct peer *p) /* the third step, by a peer that joins */
{
    struct mp_opts o = { .mp = MP_OPT_HAS(MP_JOIN), .join = { .form = MP_JOIN_ACK } };
    uint8_t h[32];
    lab_join_hmac(l, p, h);
    memcpy(o.join.hmac, h, 20);
    return o;
}

/* A confirmed client asks to join from its address in subnet n, is answered, and sends its third ACK. */
LAB static struct peer *lab_join_until_third_ack(struct lab *l, int subnet)
{
    lab_local_up(l, subnet);
    lab_pump(l);
    struct peer *p = &l->p[l->np - 1];
    struct got *g = lab_expect(l, p, MP_SYN, 0, 0, 0);
    lab_expect_options(g, MP_JOIN);
    lab_wait(l, LAB_RTT);
    lab_synack(l, p, lab_join_synack(l, p, 0));
    g = lab_expect(l, p, MP_ACK, 1, 1, 0);
    lab_expect_options(g, MP_JOIN);
    return p;
}

/* A second subflow of it; its far end is p[np - 1]. */
LAB static struct peer *lab_join(struct lab *l, int subnet)
{
    struct peer *p = lab_join_until_third_ack(l, subnet);
    lab_wait(l, LAB_RTT);
    lab_ack_mp(l, p, 1, 1, l->dack); /* the fourth */
    lab_expect_nothing(l);
    return p;
}

#endif
