/* tests/fuzz/lib/world.h: two hosts with the real core, three paths and a wire that the fuzz target holds in its hands.
 *
 * Everything is a function of the input: time and randomness are the world's own. A broken invariant calls
 * world_fail(), which says what and aborts; so do the sanitizers. */
#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include "core/stack_int.h"

enum { W_PATHS = 3, /* 1 and 2: IPv4, 3: IPv6 */ W_APPS = 6, W_FLIGHT = 256, W_PORT = 80 };
enum { CLIENT = 0, SERVER = 1 };

struct world;
struct w_flow;

/* A program's end of a connection. What host h writes at an offset is known: a reader needs no copy to compare. */
struct w_app {
    struct mpc *c;          /* NULL: free, or released */
    int host;
    uint64_t wrote, read;
    bool shut, closed, eof;
    bool paused;            /* reads nothing by itself */
};

struct w_host {
    struct world *w;
    int id;
    struct mp_stack *st;
    uint64_t rng;
    struct w_flow *flows;   /* open ones */
    int ports;              /* held */
    uint16_t next_port;
    bool blocked;           /* io refuses: back-pressure */
    bool refuse;            /* no flow may be opened */
    bool up[W_PATHS + 1];   /* by path number from 1 */
    uint32_t slice;
    struct w_app app[W_APPS];
    int listener;           /* its address is the listener's owner word */
};

struct w_seg {              /* on its way to a host */
    struct mp_pkt p;        /* p.data counted */
};

struct world {
    struct w_host host[2];
    mp_time now;
    struct w_seg flight[2][W_FLIGHT]; /* by receiver, oldest first */
    int nflight[2];
    bool split;             /* super-segments become segments, as without GRO; else they arrive whole */
    bool honest;            /* what arrives was sent by the other host: streams must agree */
    bool strip[2];          /* middlebox: MPTCP options to this host become NOPs */
    bool deaf[2];           /* nothing arrives any more */
    uint64_t polls;
};

struct w_cfg {
    uint64_t seed;
    bool csum[2], split;
    uint32_t slice;
    const char *cc;
    int paths;              /* paths there are from the start, 1..W_PATHS */
};

void world_open(struct world *w, const struct w_cfg *cfg);
void world_close(struct world *w); /* frees all; every flow and port must have come back */
void world_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

struct mp_addr w_ip(int path, int host);
struct w_app *w_connect(struct world *w, int path); /* NULL: no room, or refused */
void w_listen(struct world *w);  /* the server again, where mp_stack_unlisten() was called */
void w_path(struct world *w, int host, int path, bool up);
void w_write(struct world *w, struct w_app *a, uint32_t n);
void w_read(struct world *w, struct w_app *a, uint64_t most);
void w_shutdown(struct world *w, struct w_app *a);
void w_release(struct world *w, struct w_app *a, mp_dur linger);

/* Polls and serves both hosts until nothing is left to do now, and checks what must always hold. */
void w_settle(struct world *w);
void w_advance(struct world *w, mp_dur by); /* with every deadline on the way */
bool w_deliver(struct world *w, int to, int i);    /* false: no such segment */
void w_drop(struct world *w, int to, int i);
void w_dup(struct world *w, int to, int i);
/* Delivers all there is, in order, until the wire is empty or n segments went. */
void w_exchange(struct world *w, int n);
/* Time goes on with the wire in order until the wire is empty and no timer is near; at most `limit`. */
void w_run(struct world *w, mp_dur limit, int segments);
/* Every owner leaves and the wire is cut: all connections must end by themselves. */
void w_end_alone(struct world *w);
/* The network is made whole: what was written must arrive. */
void w_end_whole(struct world *w);

void w_strip_options(struct mp_pkt *p);

/* ---- a hostile segment ---- */
enum w_fix { /* what a segment from the fuzzer is made to fit, so that it gets past the first checks */
    FIX_TUPLE = 1,  /* addresses and ports of subflow `which` */
    FIX_SEQ = 2,    /* seq counts from rcv_nxt, ack from snd_nxt backwards (low 16 bits, signed / unsigned) */
    FIX_TS = 4,     /* timestamps that PAWS takes */
    FIX_DSN = 8,    /* dsn counts from the connection's rcv_nxt, data_ack from snd_nxt; ssn from the segment's */
    FIX_CSUM = 16,  /* DSS checksum */
    FIX_KEY = 32,   /* keys, tokens, nonces and HMACs are the right ones */
    FIX_WHOLE = 64, /* mapping length is the payload's */
    FIX_TWICE = 128 /* arrives twice */
};
/* Gives TCP segment bytes to `to`, aimed at its subflow number `which` (modulo how many there are). */
void w_hostile(struct world *w, int to, unsigned which, uint8_t fix, const uint8_t *tcp, size_t n);

/* ---- reading the fuzzer's bytes ---- */
struct w_in { const uint8_t *p; size_t n; };
static inline uint8_t in8(struct w_in *i) { return i->n ? (i->n--, *i->p++) : 0; }
static inline uint16_t in16(struct w_in *i) { uint16_t a = in8(i); return (uint16_t)(a << 8 | in8(i)); }

#endif
