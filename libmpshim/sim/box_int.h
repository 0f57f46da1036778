/* sim/box_int.h: what the files that make boxes share (box.c, box_*.c). */
#ifndef SIM_BOX_INT_H
#define SIM_BOX_INT_H

#include <stdlib.h>

#include "core/opt.h"
#include "core/opt_bits.h"
#include "sim/box.h"

/* Data that a proxy has acknowledged and must bring to the receiver, or holds until a gap before it is filled. */
struct sim_box_copy {
    struct sim_pkt *p; /* owned */
    struct sim_box_copy *next;
};

/* One direction of the data of a flow behind SIM_BOX_PROXY. Sequence numbers are the sender's. */
struct sim_box_proxy {
    bool seen;
    uint32_t next;       /* the first byte not acknowledged to the sender */
    uint32_t out;        /* the first byte not yet sent on; una <= out <= next */
    uint32_t una;        /* what the receiver itself has acknowledged */
    uint16_t wnd;        /* as the receiver last said, unscaled */
    uint8_t wscale;      /* of the receiver's windows */
    uint32_t ack_seq, ack_ts; /* the receiver's last sequence number and timestamp: ours must fit in */
    uint32_t data_ts, data_ack; /* the sender's latest timestamp and ACK: what was kept goes on with them (RFC 7323 5, RFC 5961 5.2) */
    mp_time again;       /* when the oldest copy goes out again; MP_NEVER: nothing waits */
    mp_dur rto;
    mp_time heard;       /* the receiver, of late */
    struct sim_box_copy *kept; /* owned; acknowledged by us and not yet by the receiver, by sequence number */
    struct sim_box_copy *held; /* owned; beyond a gap, by sequence number */
};

/* What a box remembers of one connection, named by what the client sends. */
struct sim_box_flow {
    struct mp_endpoint client, server;
    uint16_t nat_port;
    bool forgotten;          /* NAT: translates no more */
    uint32_t seq_add[2];     /* SEQ: added to the numbers of packets of that direction */
    uint32_t next[2];        /* HOLES: the next sequence number expected; ACK_UNSEEN: end of the data seen */
    bool seen[2];
    uint8_t wscale[2];       /* CLAMP: the shift of windows in packets of that direction */
    bool has_edit[2];        /* ALG: it lengthens that direction's data */
    uint32_t edit_n[2];      /* ALG: bytes that it puts in or takes out */
    uint32_t edit_at[2];     /* ALG: before this byte of the sender's sequence space */
    struct sim_box_proxy proxy[2];
    struct sim_box_flow *list;
};

/* sends it on */
void box_emit(struct sim_box *b, int dir, struct sim_pkt *p);
/* The packet was changed, dropped, ...: counts and traces. */
void box_touch(struct sim_box *b, int dir, const char *what, const struct sim_pkt *p);
void box_drop(struct sim_box *b, int dir, struct sim_pkt *p);
/* Keeps it until `at`, then sends it on. */
void box_later(struct sim_box *b, int dir, struct sim_pkt *p, mp_time at);
struct sim_box_flow *box_flow_of(struct sim_box *b, int dir, const struct mp_pkt *h, bool make);
/* Whether the box does its work on packets of this direction now. */
static inline bool box_acts(const struct sim_box *b, int dir)
{
    return b->sim->now >= b->cfg.from && (!b->cfg.dirs || b->cfg.dirs >> dir & 1);
}

/* The option after `at` (NULL: the first); NULL: no more. Broken lists end the walk. */
uint8_t *box_next_option(struct mp_pkt *h, uint8_t *at);
uint8_t *box_find_option(struct mp_pkt *h, uint8_t kind, uint8_t len); /* of this length, its head included; NULL: none */

static inline uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void store32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static inline bool seq_after(uint32_t a, uint32_t b) { return (int32_t)(a - b) > 0; }

static inline bool box_is_syn(const struct mp_pkt *h) { return (h->flags & (MP_SYN | MP_ACK)) == MP_SYN; }
static inline bool box_is_synack(const struct mp_pkt *h) { return (h->flags & (MP_SYN | MP_ACK)) == (MP_SYN | MP_ACK); }
static inline bool box_is_mptcp(const uint8_t *o, uint32_t subtypes)
{
    return *o == OPT_MPTCP && o[1] >= 3 && subtypes >> (o[2] >> 4) & 1;
}
bool box_strip_mptcp(struct mp_pkt *h, uint32_t subtypes, bool cut_out);

/* box_opt.c */
void box_strip_syn(struct sim_box *b, int dir, struct sim_pkt *p);
void box_strip_synack(struct sim_box *b, int dir, struct sim_pkt *p);
void box_strip_nonsyn(struct sim_box *b, int dir, struct sim_pkt *p);
void box_strip_all(struct sim_box *b, int dir, struct sim_pkt *p);
void box_strip_add_addr(struct sim_box *b, int dir, struct sim_pkt *p);
void box_strip_join(struct sim_box *b, int dir, struct sim_pkt *p);
void box_drop_syn(struct sim_box *b, int dir, struct sim_pkt *p);
void box_drop_join(struct sim_box *b, int dir, struct sim_pkt *p);
void box_strip_ts(struct sim_box *b, int dir, struct sim_pkt *p);
void box_strip_sack_ok(struct sim_box *b, int dir, struct sim_pkt *p);
void box_strip_sack(struct sim_box *b, int dir, struct sim_pkt *p);
void box_strip_wscale(struct sim_box *b, int dir, struct sim_pkt *p);
void box_opt_order(struct sim_box *b, int dir, struct sim_pkt *p);
void box_opt_dup(struct sim_box *b, int dir, struct sim_pkt *p);
void box_mss(struct sim_box *b, int dir, struct sim_pkt *p);
/* box_link.c */
void box_big_icmp(struct sim_box *b, int dir, struct sim_pkt *p);
void box_icmp_lies(struct sim_box *b, int dir, struct sim_pkt *p);
void box_dup(struct sim_box *b, int dir, struct sim_pkt *p);
void box_delay(struct sim_box *b, int dir, struct sim_pkt *p);
void box_reorder(struct sim_box *b, int dir, struct sim_pkt *p);
void box_corrupt(struct sim_box *b, int dir, struct sim_pkt *p);
void box_big(struct sim_box *b, int dir, struct sim_pkt *p);
void box_clamp(struct sim_box *b, int dir, struct sim_pkt *p);
void box_ack_unseen(struct sim_box *b, int dir, struct sim_pkt *p);
/* box_alg.c */
void box_alg(struct sim_box *b, int dir, struct sim_pkt *p);
/* box_proxy.c */
void box_proxy(struct sim_box *b, int dir, struct sim_pkt *p);
mp_time box_proxy_next(const struct sim_box *b, int dir);
void box_proxy_run(struct sim_box *b, int dir);
void box_proxy_free(struct sim_box *b, struct sim_box_proxy *x);

#endif
