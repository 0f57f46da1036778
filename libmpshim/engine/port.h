/* engine/port.h: a port on which programs listen, for listener.c and listen.c only. */
#ifndef MP_ENGINE_PORT_H
#define MP_ENGINE_PORT_H

#include "engine/eng.h"

enum { TCP_LISTEN_STATE = 10 };
#define PORT_CHECK_EVERY MP_SEC(1)

struct port {
    struct engine *e;
    struct port *next;
    struct mp_endpoint at;   /* ip all zero: any address of families */
    unsigned families;       /* 1 IPv4, 2 IPv6, 3 both */
    bool live;               /* the program's listener exists; the stack and io/ answer */
    bool strict;             /* clients without MPTCP are turned away */
    int conns;
    int waiting;             /* of them: the program's listener has not taken them yet, its backlog is full */
    mp_time full_until;      /* it was found so: the next is sent there then */
    int guard_fd;            /* -1: none; owned */
    bool filtered;           /* the listener has the filter "only over loopback", no guard */
    mp_time no_guard_until;  /* a program is taking the port */
    pid_t pid;
    uint64_t client;
    struct ctl_req options;  /* of the listening socket, for the connections to come */
    struct eng_marks marks;  /* of it, likewise */
    mp_time seen;            /* when it was there */
};

int eng_port_answer(struct port *p, int backlog); /* the stack and io/ answer from now on: 0 or -errno */
void eng_port_silence(struct port *p);            /* no more */
void eng_port_hand_down(struct port *p);          /* its options, to the stack */
void eng_port_unguard(struct port *p);
void eng_port_free(struct port *p);

#endif
