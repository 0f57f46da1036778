/* engine/move.h: the file in which one engine tells another all that it carries; written by move.c, read by move_in.c.
 *
 * It is plain data for an engine of the same build: eng_move_layout, made of the headers that lay it out, is compared.
 * Its parts, in this order: struct head, sockets of io/, control connections, ports, connections with their carriers,
 * carriers whose connection has ended. */
#ifndef ENG_MOVE_H
#define ENG_MOVE_H

#include "engine/carrier.h"

#define MOVE_MAGIC 0x6d6f7665u
enum { NO_FD = -1, FDS_MAX = 1 << 16 };
extern const uint64_t eng_move_layout; /* move_in.c */

struct head {
    uint32_t magic;
    int32_t ctl_fd, lock_fd; /* a helper's, that another replaces; -1: none */
    int32_t ask; /* the first of nasks descriptors of asksock.c */
    uint32_t nasks;
    uint32_t nfds, nitems, nclients, nports, nconns, ncarriers; /* ncarriers: those without a connection */
};
enum owner { OWNER_NONE, OWNER_CARRIER, OWNER_PORT };
struct conn_head {
    uint32_t owner; /* enum owner */
    int32_t port;   /* of the carrier, or that owns; index or -1 */
    uint64_t bytes; /* mpc_save's, behind this */
};
struct carrier_rec {
    struct carrier c; /* pointers mean nothing */
    int32_t fd, guard_fd, port;
};

#endif
