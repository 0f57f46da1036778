/* sim/host.h: a host: interfaces, routes, and core's stack between them and its applications (sim/app.h).
 *
 * Implements struct mp_stack_ops. It also watches the stack: what it asks for and sends must make sense (a flow
 * that is open, an own address, no packet above the MTU, no deadline that stays in the past). */
#ifndef SIM_HOST_H
#define SIM_HOST_H

#include "core/stack.h"
#include "sim/link.h"

#define SIM_MAX_IFACE 6
#define SIM_MAX_IP 4
#define SIM_MAX_ROUTE 32

struct sim_iface {
    int ifindex;
    char name[16];
    struct mp_addr ip[SIM_MAX_IP];
    int nip;
    uint32_t mtu;
    bool up, backup, announce;
    bool refuse;     /* a firewall: flow_open fails here */
};

/* To dst (family 0: any) from this interface by that node. */
struct sim_route {
    int ifindex;
    struct mp_addr dst;
    struct sim_node *via; /* borrowed */
};

struct sim_flow {
    struct sim_host *host;
    int ifindex;
    struct mp_endpoint local, remote;
    bool open, blocked;
    struct sim_flow *next;
};

struct sim_host {
    struct sim_node node; /* first */
    struct mp_stack *stack; /* owned; NULL: not started */
    struct sim_rng rng;     /* the stack's random numbers */
    struct sim_iface iface[SIM_MAX_IFACE];
    int nifaces;
    struct sim_route route[SIM_MAX_ROUTE];
    int nroutes;
    struct sim_flow *flows; /* owned; closed ones are kept, to catch their use */
    int flows_open;
    int ports_held;
    uint16_t next_port;
    mp_dur batch;           /* packets that arrive within this time are handled together */
    uint32_t slice_max;     /* bytes; 0: one segment a packet (the raw path) */
    uint64_t local_queue_bytes; /* a flow is not writable while its link holds more; 0: no back-pressure */
    uint16_t told_first;    /* local port of the flow that was last told first that there is room */
    mp_time wake;           /* when to pump next, besides the stack's deadline */
    uint64_t sent, received;/* MTU-size packets */
    /* The applications. */
    void (*on_event)(struct sim_host *h, struct mpc *c, unsigned bits);
    mp_time (*app_next)(struct sim_host *h);
    void (*app_run)(struct sim_host *h);
    void *app;              /* borrowed */
    struct sim_watch *watch; /* owned */
};

struct sim_host *sim_host_new(struct sim *s, const char *name);
int sim_host_iface(struct sim_host *h, const char *name, uint32_t mtu); /* index into iface */
void sim_host_ip(struct sim_host *h, int iface, const char *ip);
void sim_host_route(struct sim_host *h, int iface, const char *dst, struct sim_node *via); /* dst NULL: any */
/* Makes the stack and tells it the addresses. Settings are "name=value" strings, NULL-terminated; may be NULL. */
void sim_host_start(struct sim_host *h, const char *const *settings);
void sim_host_iface_up(struct sim_host *h, int iface, bool up); /* link down or up, as rtnetlink would tell */
void sim_host_kick(struct sim_host *h);                         /* the applications called the stack: pump it */
int sim_iface_of(const struct sim_host *h, int ifindex);        /* index, or -1 */

#endif
