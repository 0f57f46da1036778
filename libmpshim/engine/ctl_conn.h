/* engine/ctl_conn.h: what the files that serve the control protocol (ctl.h) share. ctl.c connections and messages, ctl_ops.c what
 * programs ask for, ctl_move.c what engines ask of each other, ctl_kept.c sockets for answers that are kept.
 *
 * An operation gets its connection and a message; it takes the descriptors that it keeps (ctl_take_fd), the others are closed
 * after it. A reply socket that is closed without an answer says no. */
#ifndef ENG_CTL_CONN_H
#define ENG_CTL_CONN_H

#include "engine/eng.h"

enum { CTL_KEPT_MAX = 16 /* a client and its forked children have one each */ };
struct ctl_kept { uint64_t name; int fd; /* owned */ };

struct ctl_conn {
    struct engine *e;
    struct ctl_conn *next;
    ev_io io;
    int fd;             /* owned */
    int log_fd;         /* this client's messages; -1: the engine's own; owned */
    int verbose;
    uid_t uid;
    uint64_t id;        /* never reused: carriers outlive their client */
    bool elder;         /* a helper whose place we have, or who has ours: no client */
    struct heir *heir;  /* of an engine inside, whose will is here: no client; owned */
    struct move_in *in; /* an engine's sockets on their way to us; owned */
    ev_timer last;      /* the client has gone; its log waits for the last lines */
    mp_time until;
    struct ctl_kept kept[CTL_KEPT_MAX];
    int nkept;
};

struct ctl_msg { /* one message; descriptors are owned until taken (-1) */
    struct ctl_req q;
    char text[4096];    /* behind the request, ended by a zero */
    size_t len;
    int fd[CTL_FDS], nfd;
};

/* ---- ctl.c ---- */
int ctl_take_fd(struct ctl_msg *m, int i);                    /* the i-th, the caller's now; -1: there is none */
void ctl_answer(int fd, const struct ctl_rep *rep);           /* owns fd; -1: nobody asked */
void ctl_answer_bytes(int fd, const void *p, size_t n);       /* likewise */
struct ctl_rep ctl_reply_to(const struct ctl_req *q);         /* result 0 */
int ctl_conn_new(struct engine *e, int fd);                   /* at the head of e->conns. Owns fd if 0; else -ENOMEM */

/* ---- ctl_kept.c ---- */
/* Answers on the socket that is kept, or on the message's own, which is kept if the asker wishes. rep: what the n bytes begin with. */
void ctl_answer_often(struct ctl_conn *k, struct ctl_msg *m, struct ctl_rep *rep, size_t n);
bool ctl_nobody_hears(struct ctl_conn *k, const struct ctl_req *q); /* the answer would be for a socket that we do not have */
void ctl_kept_close(struct ctl_conn *k); /* all of this connection */

/* ---- ctl_ops.c ---- */
void ctl_dispatch(struct ctl_conn *k, struct ctl_msg *m);     /* does what it asks for; of a later version: nothing */

/* ---- ctl_move.c: CTL_HANDOVER, CTL_REPLACE, ... ---- */
void ctl_do_handover(struct ctl_conn *k, struct ctl_msg *m);
void ctl_do_replace(struct ctl_conn *k, struct ctl_msg *m);
void ctl_do_place(struct ctl_conn *k, struct ctl_msg *m);
void ctl_do_move_sockets(struct ctl_conn *k, struct ctl_msg *m);
void ctl_do_move(struct ctl_conn *k, struct ctl_msg *m);
void ctl_do_move_go(struct ctl_conn *k);

#endif
