/* engine/carrier.h: one carrier: the loopback TCP connection to the program's socket <-> one struct mpc. */
#ifndef ENG_CARRIER_H
#define ENG_CARRIER_H

#include "engine/eng.h"

enum carrier_state {
    CR_PENDING,  /* connect: the program's SYN is being dropped, MPTCP is not up yet */
    CR_MEETING,  /* our end is connecting to the program's socket */
    CR_OPEN,
    CR_RESETTING,/* the peer reset or lost: bytes already received go to the program, then it gets a reset */
    CR_FAILED,   /* connect failed: every SYN of the program is answered with the error */
    CR_GHOST,    /* over; remembers how it ended, for questions */
};

struct carrier {
    struct engine *e;
    struct carrier *next, **pprev;           /* e->all */
    struct carrier *hash_next, **hash_pprev;
    struct carrier *run_next;                /* e->runq */
    struct mpc *mpc;                         /* NULL: gone. Released by us, freed by the stack */
    struct port *port;                       /* accept: counted; NULL for connect */
    enum carrier_state state;
    struct mp_endpoint identity, prog;       /* our end's name; the program's socket on loopback, port 0: its SYN was not seen yet */
    int fd;                                  /* our end; -1: none; owned */
    int identity_uses;                       /* connect: how many connections it was for */
    int guard_fd;                            /* listening socket that holds the identity while pending; -1; owned */

    bool queued;                             /* in e->runq */
    bool may_read, may_write;                /* edge-triggered: true until the kernel says EAGAIN */
    bool hup;                                /* an end was reported: read until it shows */
    bool urgent;                             /* MSG_OOB was seen: reads stop at its mark, a short one empties nothing */
    bool sock_err;                           /* an error was reported: the program reset its socket, or left */
    bool connected;                          /* mpc: MP_EV_CONNECTED was seen */
    bool closed;                             /* mpc: MP_EV_CLOSED was seen */
    bool released;                           /* mpc_release was said */
    bool prog_eof;                           /* the program ended its direction; mpc_shutdown was said */
    bool prog_left;                          /* a draining process closed it: its end is still on its way */
    bool prog_gone;                          /* the kernel knows no socket of the program's any more */
    bool peer_eof;                           /* the peer's end was passed on by shutdown() */
    bool syn_seen;                           /* the program's connect() is out; isn is valid */
    bool counted;                            /* in e->nlive */
    bool waits;                              /* counted at its port: the program's listener has no room yet */
    uint32_t isn;
    int meet_tries;
    mp_time born, ended;
    mp_time abort_at;                        /* CR_GHOST: the program reset its socket, what it had sent goes first; 0: no */
    uint64_t rcv_at_end;                     /* then: the data sequence number received up to */
    mp_time next_look;                       /* sweep: next question to the kernel, or next attempt to meet */
    mp_dur look_every;
    int last_outq;                           /* CR_RESETTING: bytes the program has not taken, at the last look */
    mp_time outq_since;
    int err;                                 /* errno the program should see; 0: none */
    pid_t pid;
    bool told;                               /* its last line for -v was written */
    uint64_t client;                         /* control connection that its messages are for */
    struct ctl_rep last;                     /* facts for CTL_QUERY and CTL_INFO once the mpc is gone */
    struct ctl_conn_info last_conn;
};

/* ---- relay.c ---- */
enum relay_end { RELAY_ON, RELAY_RESET /* the program reset its socket, or it is gone */ };
enum relay_end eng_relay(struct carrier *c, mp_time now); /* moves what can be moved, within a budget */
bool eng_relay_more(const struct carrier *c);             /* the budget ended it */

/* ---- carriers.c ---- */
struct carrier *eng_carrier_new(struct engine *e);        /* in e->all; NULL: no memory */
void eng_carrier_free(struct carrier *c);
void eng_carrier_close_fd(int *fd);                       /* closed, and -1 */
void eng_carrier_hash_in(struct carrier *c);              /* it has its identity: it can be found */
void eng_carrier_hash_out(struct carrier *c);
struct carrier *eng_carrier_find(struct engine *e, const struct mp_endpoint *id, const struct mp_endpoint *prog);
struct carrier *eng_carrier_find_awaited(struct engine *e, const struct mp_endpoint *id); /* its program has not sent its SYN yet */
void eng_carrier_queue(struct carrier *c);                /* run it before the loop sleeps */
void eng_carrier_look_in(struct carrier *c, mp_dur d, mp_time now); /* the sweep asks after it then */

/* ---- carrier.c ---- */
bool eng_carrier_left(struct carrier *c);                 /* no process holds the program's socket any more; it may not be empty yet */
void eng_carrier_settle(struct carrier *c);               /* a ghost whose connection is over counts as one */
void eng_carrier_drop(struct carrier *c, mp_dur linger, mp_time now); /* the connection is over or given up: the stack may free it */
void eng_carrier_to_ghost(struct carrier *c, mp_time now);
void eng_carrier_end(struct carrier *c, mp_time now);     /* the program reset its socket or is gone */

/* ---- carrier_meet.c ---- */
#define LOOK_PENDING MP_SEC(1)                            /* is the program still connecting? */
void eng_carrier_waits(struct carrier *c, bool waits);    /* for the program's listener to take it */
void eng_carrier_meet_listener(struct carrier *c, mp_time now); /* or waits for room in its backlog */
void eng_carrier_look_meeting(struct carrier *c, mp_time now);
void eng_carrier_meet(struct carrier *c, mp_time now);    /* our end connects to the program's socket, or tries again later */
void eng_carrier_pending_connected(struct carrier *c, mp_time now); /* the connection is up: meet, once its program's SYN is here */
void eng_carrier_look_pending(struct carrier *c, mp_time now);
void eng_carrier_on_meeting(struct carrier *c, unsigned events, mp_time now);
void eng_carrier_fail(struct carrier *c, mp_time now);    /* the connection did not come up: so connect() fails */
void eng_carrier_look_failed(struct carrier *c, mp_time now);
void eng_carrier_learn_identity(struct carrier *c);       /* the kernel has chosen its port */
bool eng_carrier_watch(struct carrier *c);                /* false: no memory */

/* ---- carrier_ask.c ---- */
struct carrier *eng_carrier_named(struct engine *e, const struct ctl_req *q); /* by identity and local; NULL: unknown */
void eng_carrier_facts(struct carrier *c, struct ctl_rep *rep);

#endif
