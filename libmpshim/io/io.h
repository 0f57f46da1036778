/* io/io.h: the engine's side of the network: raw and packet sockets, port guards, rtnetlink (docs/architecture.md).
 *
 * One thread, one libev loop. Implements struct mp_stack_ops' network part; sim/ is the other implementation.
 * Rules: every SYN (in and out) goes through raw sockets, so routing, netfilter and IPsec policy decide; EPERM on
 * a SYN is reported as mp_stack_net_error(EPERM); no RST from the kernel, no firewall rule, no ip rule. */
#ifndef MP_IO_H
#define MP_IO_H

#include <ev.h>
#include <sys/socket.h>

#include "core/pkt.h"
#include "core/stack.h"

struct io;
struct io_flow; /* one 4-tuple on one interface; raw at first, moved once to the fast path */

enum io_mode { IO_AUTO, IO_RAW, IO_FAST }; /* --io=auto|raw|fast; IO_FAST: as early as possible */

struct io_cfg {
    enum io_mode mode;
    const char *interfaces; /* comma list to use, NULL: all suitable; "-eth3" excludes */
    const char *backup;     /* comma list of interfaces that are backup */
    bool virtual_ok;        /* use docker/veth/bridge-only interfaces too (names or kinds normally left out) */
    bool look_only;         /* for io_doctor(): needs no privilege, opens no flow */
    /* A batch of packets was given to the stack, or paths changed: the engine pumps its queues. */
    void (*kick)(void *arg);
    void *arg;
};

/* *stack is read at use. NULL with *err (errno): ENOMEM, or what rtnetlink answered. */
struct io *io_new(struct ev_loop *loop, struct mp_stack **stack, const struct io_cfg *cfg, int *err);
void io_free(struct io *io);

/* The network part of struct mp_stack_ops; arg is the struct io. */
void *io_flow_open(void *io, int ifindex, const struct mp_endpoint *local, const struct mp_endpoint *remote, bool passive);
void io_flow_close(void *io, void *flow);
uint32_t *io_flow_word(void *flow); /* the owner's own word about it; 0 at first */
uint32_t io_slice_max(void *io, void *flow, uint32_t mss);
bool io_writable(void *io, void *flow);
bool io_route(void *io, int ifindex, const struct mp_addr *local, const struct mp_addr *remote, uint32_t mark);
bool io_withheld(void *io, void *flow, uint32_t mark);
uint32_t io_mtu(void *io, int ifindex);
uint16_t io_port_get(void *io, uint8_t family, bool fresh);
void io_port_put(void *io, uint8_t family, uint16_t port);
void io_port_hold(void *io, uint8_t family, uint16_t port); /* a connection that was loaded uses it */
int io_guard_fd(struct io *io, uint16_t port); /* of a port that is under guard: its socket, io's; -1: it is not */

/* Sends one packet of mp_stack_poll. What the kernel does not take now (EAGAIN, ENOBUFS) waits in its socket's queue, the flow
 * reads as not writable, and mp_stack_writable() follows. A queue that is full drops, as one on the way would (tx_drop). */
void io_output(struct io *io, const struct mp_pkt *p);

/* Receiving for listeners: SYNs (through raw sockets) and segments to this port on every suitable interface. 0 or -errno.
 * families: 1 IPv4, 2 IPv6, 3 both. */
int io_listen(struct io *io, uint8_t families, uint16_t port);
void io_unlisten(struct io *io, uint8_t families, uint16_t port);

bool io_may_mark(void); /* packets may have an SO_MARK */

/* The path the kernel would take: 0 and *local, *ifindex; -EHOSTUNREACH...; *kind says why not eligible. */
enum io_route_kind { IO_ROUTE_OK, IO_ROUTE_LOCAL /* RTN_LOCAL, loopback: kernel's */, IO_ROUTE_TUNNEL /* VPN or policy rule: only this path */, IO_ROUTE_OTHER /* broadcast, multicast, prohibit */ };
int io_route_lookup(struct io *io, const struct mp_addr *remote, uint32_t mark, struct mp_addr *local, int *ifindex, enum io_route_kind *kind);

/* Says mp_stack_local_add for every suitable address, and goes on telling changes; call once after the stack exists. */
void io_paths_start(struct io *io);

/* What --check tells, a line for each put(): ok false: something is missing, and the remedy; ok with a remedy: a limit that
 * may be meant so. io NULL: privileges and kernel only. Returns the number of lines. */
int io_doctor(struct io *io, void (*put)(void *arg, bool ok, const char *what, const char *remedy), void *arg);

/* ---- hand-over (move.c): one engine gives all its sockets, another of the same build takes them ---- */
struct io_item { /* plain data about one of them */
    uint8_t what;   /* enum io_item_what */
    uint8_t kind, family;
    uint16_t port;  /* guard */
    int32_t ifindex;
    struct mp_addr local, remote;
    uint8_t mac[6];
};
enum io_item_what { IO_ITEM_GUARD, IO_ITEM_SOCK };
void io_give(struct io *io, void (*each)(void *arg, const struct io_item *i, int fd), void *arg); /* fd stays io's */
/* Between begin and end flows are opened over what was taken; filters are attached at the end, so that none of them
 * hides a packet from a flow that is yet to come. What no flow uses is closed. */
void io_take_begin(struct io *io);
void io_take(struct io *io, const struct io_item *i, int fd); /* owns fd */
void io_take_end(struct io *io);

/* A filter "drop everything" / "only what came over lo" on a socket; 0 or -errno. */
int io_attach_drop_all(int fd);
int io_attach_only_loopback(int fd);

#endif
