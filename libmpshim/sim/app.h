/* sim/app.h: applications on simulated hosts: they send a known stream, check what arrives byte for byte, and
 * take their time, their turns and their leave as told. */
#ifndef SIM_APP_H
#define SIM_APP_H

#include "sim/host.h"

struct sim_app_cfg {
    uint64_t bytes;          /* to send in all; then it shuts down its direction */
    uint32_t write_min, write_max; /* bytes of one write, random in between; 0: as much as fits */
    mp_dur write_gap;        /* pause after each write; 0: none */
    uint32_t read_max;       /* bytes of one read; 0: all */
    mp_dur read_gap;         /* pause after each read */
    mp_time read_from;       /* reads nothing before this time; 0: at once */
    uint64_t turn_tx, turn_rx; /* taking turns: sends turn_tx bytes, then waits for turn_rx more; 0: does not wait */
    bool second;             /* the peer has the first turn */
    bool after_eof;          /* sends only after the peer's end */
    bool late_shut;          /* ends its direction only after the peer's end, as a HTTP client does */
    uint64_t abort_after;    /* resets the connection after writing this many bytes; 0: never */
    bool peer_aborts;        /* an error is what should happen; an end of file is not */
    bool may_fail;           /* the network may end the connection with an error: never with a wrong byte, nor an early end */
    uint64_t leave_after;    /* close() as soon as so many bytes were read and all was written, whatever still comes; 0: never */
    uint32_t keepalive_s;    /* MPC_KEEPIDLE_S, then a probe a second, five of them; 0: none */
    bool release_early;      /* close() right after the last write, without reading (the peer must send nothing) */
    unsigned open_flags;     /* enum mp_open_flags */
    uint64_t rcvbuf;         /* MPC_RCVBUF, bytes; 0: default */
};

enum { SIM_MAX_CONN = 1024, SIM_MAX_PATHS = 8 };

struct sim_conn {
    struct sim_app *app;
    struct mpc *c;           /* NULL: not yet, or released */
    struct sim_app_cfg cfg;
    int index;
    bool server;
    struct mp_endpoint remote; /* client: where to */
    struct mp_addr local;
    int ifindex;
    mp_time start;           /* client: when to connect */
    uint64_t key_tx, key_rx; /* of the streams */
    uint64_t expect_rx;      /* bytes the peer will send */
    uint64_t tx, rx;
    bool started, connected, shut, eof, closed, done;
    int err;                 /* errno the connection ended with, or could not begin with */
    struct sim_rng rng;
    char listener;           /* its address is the listener's owner word, this struct's the connection's */
    mp_time next_write, next_read;
    /* For the report. */
    mp_time connected_at, last_rx, done_at;
    mp_dur longest_stall;    /* longest time without a byte read between the first and the last */
    mp_time stall_at;
    struct mpc_info info;    /* as it was last seen */
    int subflows_max;
    uint64_t inserted;       /* marker bytes that a middlebox put into the stream received, allowed by app->may_insert */
    uint64_t removed;        /* bytes of the stream that a middlebox took out, allowed by app->may_remove */
    uint64_t changed;        /* bytes that differed from the stream, allowed by app->may_change */
    struct mpc_path_info path[SIM_MAX_PATHS];
    int npaths;
};

/* All applications of one host. */
struct sim_app {
    struct sim_host *host;
    struct sim_conn *conn;   /* owned array of SIM_MAX_CONN */
    int n;
    bool may_change;         /* a middlebox may change payload of plain TCP: counted, not a failure */
    uint32_t may_remove;     /* ... or take so many bytes out of it */
    uint32_t may_insert;     /* a middlebox may once insert so many bytes of SIM_BOX_MARK (sim/box.h) into a stream */
    uint64_t progress;       /* bytes read and written by all, and ends: who does not progress is stuck */
};

void sim_app_init(struct sim_app *a, struct sim_host *h);
void sim_app_fini(struct sim_app *a);
/* The two ends of one connection; the server listens at once on 0.0.0.0 or ::, port `port`. */
struct sim_conn *sim_app_client(struct sim_app *a, const struct sim_app_cfg *cfg, uint64_t key, mp_time start,
                                int iface, const char *local, const char *remote, uint16_t port);
struct sim_conn *sim_app_server(struct sim_app *a, const struct sim_app_cfg *cfg, uint64_t key, uint16_t port);
bool sim_app_done(const struct sim_app *a); /* all connections came to their right end */

/* Bytes [at, at + n) of the stream with that key. */
void sim_stream_fill(uint64_t key, uint64_t at, uint8_t *p, size_t n);
/* Index of the first byte that differs, or n. */
size_t sim_stream_check(uint64_t key, uint64_t at, const uint8_t *p, size_t n);

#endif
