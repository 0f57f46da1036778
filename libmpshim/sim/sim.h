/* sim/sim.h: a deterministic discrete-event network for core/, in virtual time.
 *
 * A world is a set of nodes. A node takes a packet (forward), says when it next has something to do
 * (next_run_at) and does it (run); hosts, links and middleboxes are nodes. Nothing reads a clock: the
 * world's time jumps to the earliest next_run_at. Everything random comes from the seed, and each event is
 * folded into a hash, so that equal seeds can be seen to give equal runs. */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <stdio.h>

#include "core/base.h"
#include "core/buf.h"
#include "core/pkt.h"
#include "sim/rng.h"

struct sim;
struct sim_node;

/* One packet of MTU size on its way. h.data is its payload (counted); h.iov, h.flow are unused. */
struct sim_pkt {
    struct mp_pkt h;
    uint64_t id;          /* counts up in the order of making; a duplicate or a split part has one of its own */
    mp_time at;           /* a holding node's own: when to let it go */
    struct sim_pkt *next; /* a holding node's own list */
    bool spoilt;          /* its TCP checksum is wrong */
};

struct sim_node_ops {
    void (*forward)(struct sim_node *n, struct sim_pkt *p); /* takes ownership */
    mp_time (*next_run_at)(const struct sim_node *n);       /* MP_NEVER: nothing to do */
    void (*run)(struct sim_node *n);                        /* the world's time has reached next_run_at */
    void (*free)(struct sim_node *n);
};

struct sim_node {
    const struct sim_node_ops *ops;
    struct sim *sim;
    struct sim_node *out;      /* borrowed: where its packets go; NULL: they are dropped */
    struct sim_node *all_next; /* the world's list */
    int id;                    /* in order of making, for the trace */
    char name[24];
};

#define SIM_START MP_SEC(1) /* time 0 means "never" in core/ */

struct sim {
    mp_time now;
    uint64_t seed;
    uint64_t hash;       /* of all events so far */
    uint64_t events;     /* counted with the hash */
    uint64_t packets;    /* made so far */
    int64_t packets_live; /* made and not yet freed */
    FILE *trace;         /* borrowed; NULL: hash only */
    const char *pcap;    /* borrowed; links write NAME-<link>.pcap; NULL: none */
    struct sim_node *nodes; /* owned, newest first */
    int nnodes;
    /* The first thing that went wrong, or empty. */
    char failure[256];
    mp_time failure_at;
    unsigned at_same_time; /* nodes run without time moving, to notice a livelock */
};

void sim_init(struct sim *s, uint64_t seed);
void sim_fini(struct sim *s); /* frees all nodes */

/* Runs until the given time, or until no node has anything to do, or a failure. true: time was reached. */
bool sim_run_until(struct sim *s, mp_time until);
mp_time sim_next(const struct sim *s); /* earliest next_run_at of all nodes */

/* Notes a failure; only the first is kept. The run then ends. */
void sim_fail(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline bool sim_failed(const struct sim *s) { return s->failure[0] != 0; }

/* Adds to the world; the world owns it from then on. */
void sim_node_add(struct sim *s, struct sim_node *n, const struct sim_node_ops *ops, const char *name);
static inline void sim_send(struct sim_node *to, struct sim_pkt *p) { to->ops->forward(to, p); }

/* A packet with its own copy of the header and a counted copy of n payload bytes from p (NULL: not filled in). */
struct sim_pkt *sim_pkt_new(struct sim *s, const struct mp_pkt *h, const void *p, uint32_t n);
struct sim_pkt *sim_pkt_dup(struct sim *s, const struct sim_pkt *p); /* payload shared */
void sim_pkt_free(struct sim *s, struct sim_pkt *p);
uint8_t *sim_pkt_own_payload(struct sim *s, struct sim_pkt *p); /* to write to: copied if shared */
uint32_t sim_pkt_ip_len(const struct mp_pkt *h);                /* bytes of the IP packet */

/* One event: into the hash always, onto the trace when there is one. */
void sim_trace_pkt(struct sim *s, const struct sim_node *n, const char *what, const struct mp_pkt *h);
void sim_trace_num(struct sim *s, const struct sim_node *n, const char *what, uint64_t a, uint64_t b);
/* Header and options in one line of text, NUL-terminated; relative numbers are the reader's business. */
void sim_pkt_text(const struct mp_pkt *h, char *buf, size_t n);

/* Appends a packet to a pcap file of raw IP packets. */
struct sim_pcap;
struct sim_pcap *sim_pcap_open(const char *path);
void sim_pcap_write(struct sim_pcap *f, mp_time now, const struct sim_pkt *p);
void sim_pcap_close(struct sim_pcap *f);

/* "10.1.2.3" or "fd00::1"; anything else is the programmer's mistake and gives family 0. */
struct mp_addr sim_addr(const char *text);
const char *sim_addr_text(const struct mp_addr *a, char buf[48]);

#endif
