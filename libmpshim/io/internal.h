/* io/internal.h: what the files of io/ share. Nothing outside io/ includes it (tests/io excepted).
 *
 * io.c life, flow.c flows, traffic.c segments in and out by the raw or the fast path, listen.c ports that programs listen
 * on, sock.c one socket's queues, raw.c and packet.c the two kinds of socket, hdr.c headers, filter.c cBPF, dropall.c the
 * filter of what only holds a port, rtnl*.c (rtnl.h) and route.c rtnetlink, eligible.c what may be a path, guard.c local ports, move.c
 * another engine's sockets, host.c facts about this host, doctor.c --check. */
#ifndef IO_INTERNAL_H
#define IO_INTERNAL_H

#include <net/if.h>
#include <netinet/in.h>

#include <linux/virtio_net.h>

#include "io/io.h"

#define IO_HDR_MAX 128       /* link, IP and TCP header together: 14 + 40 + 60 */
#define IO_ETH_LEN 14
#define IO_RX_SIZE (65536 + 512) /* a GRO-merged packet with its headers */
#define IO_BLOCK_MASK 0xfff0 /* guarded ports come in aligned blocks of 16, */
#define IO_WIDE_MASK 0xff00  /* where there are many of 256 */

/* ---- counters: for --check, tests and people reading a core dump ---- */
struct io_counters {
    uint64_t rx_raw, rx_fast;      /* segments given to the stack */
    uint64_t tx_raw, tx_fast;      /* packets sent */
    uint64_t rx_copy;              /* came on a socket that is not current for the flow */
    uint64_t rx_bad;               /* not TCP to us, malformed, fragments */
    uint64_t rx_csum;              /* wrong checksum */
    uint64_t rx_stray;             /* no flow and no listener */
    uint64_t tx_queued, tx_drop;   /* back-pressure; lost for want of memory or a local error */
    uint64_t tx_withheld;          /* not sent: routing has another way for them now */
    uint64_t to_fast, tx_probe;    /* flows moved to sending fast; segments of fast flows sent raw to keep the neighbour known */
    uint64_t filters;              /* cBPF programs attached */
};

/* ---- receive buffers (pool.c) ---- */
struct io_pool;
struct io_pool *io_pool_new(void);
void io_pool_free(struct io_pool *p);         /* buffers still referenced live on */
struct mp_buf *io_pool_get(struct io_pool *p); /* IO_RX_SIZE bytes, refs 1; NULL: no memory */

/* ---- port sets and cBPF (filter.c) ---- */
struct io_port_ref {
    uint16_t value, mask; /* a destination port p matches if (p & mask) == value */
    uint32_t refs;        /* 0: nobody's now; leaves the set when it is next rebuilt */
};
struct io_port_set {
    struct io_port_ref *v; /* owned */
    int n, cap;
};
/* true: the set grew, the filter must be attached again. */
bool io_ports_get(struct io_port_set *s, uint16_t value, uint16_t mask);
void io_ports_put(struct io_port_set *s, uint16_t value, uint16_t mask);
void io_ports_fini(struct io_port_set *s);

enum io_filter_kind { IO_FILTER_RAW4, IO_FILTER_RAW6, IO_FILTER_ETH };
/* 0 or -errno. */
int io_filter_attach(int fd, enum io_filter_kind kind, const struct io_port_set *ports);

/* ---- one socket of either kind ---- */
enum io_kind {
    IO_RAW_CLIENT, /* connected to one remote address */
    IO_RAW_LISTEN, /* one interface, any address */
    IO_PACKET_TX,  /* one interface, unbound: only sends */
    IO_PACKET_RX,  /* one interface: only receives, for flows that rp_filter hides */
};

/* Control messages of one packet: source address, mark, priority. */
union io_ctl { char b[96]; struct cmsghdr align; };

/* A packet that waits because the kernel's queue is full. */
struct io_waiting {
    struct io_waiting *next;
    socklen_t to_len;
    struct sockaddr_in6 to; /* or sockaddr_in */
    size_t len, ctl_len;
    union io_ctl ctl;
    uint8_t bytes[];
};
#define IO_WAITING_MAX 256 /* packets; the core stops after the first, the rest is what was under way */

struct io_sock {
    struct io *io;
    struct io_sock *next;
    enum io_kind kind;
    uint8_t family; /* 4, 6; of packet sockets: 0 */
    int fd, ifindex;
    struct mp_addr local, remote; /* IO_RAW_CLIENT: bound and connected */
    uint32_t refs;                /* flows, and one for a listening interface */
    bool listening;               /* that one */
    bool dead;                    /* closed when no code is inside it (io_reap) */
    bool filter_due;              /* ports went: attach before the loop sleeps */
    struct io_port_set ports;
    uint8_t mac[6];               /* IO_PACKET_TX: the interface's */
    ev_io rd, wr;
    ev_timer retry;               /* after ENOBUFS, which no readiness event ends */
    int sndbuf;                   /* bytes, as the kernel counts them; 0: its default or what was set at first */
    uint64_t sent;                /* bytes since tuned_at */
    bool was_full;                /* in that time */
    mp_time tuned_at;
    struct io_waiting *waiting, **waiting_tail;
    int nwaiting;
};

/* ---- a neighbour that flows of the fast path send to ---- */
struct io_hop {
    struct io_hop *next;
    int ifindex;
    struct mp_addr ip;
    uint8_t mac[6];
    bool known;
    bool failed;              /* the kernel gave up looking for it; until io_hop_failed has told the flows */
    uint32_t refs;
};

/* A 4-tuple on an interface. Receives from `rx`, sends by `fast` once it is known where to, by `raw` until then. */
struct io_flow {
    struct io_flow *hash_next;
    int ifindex;
    struct mp_endpoint local, remote;
    bool passive;
    uint16_t port_mask; /* of the block of its local port, as the receive filters test it */
    bool tx_fast;             /* moved: `fast` is open, and used while the link header is known */
    bool hop_tried;
    bool syn_sent;
    bool way_known, withheld; /* routing was asked since it last changed; it sends this flow's packets another way: withheld.c */
    bool opening;             /* our SYN was repeated and nothing came back: `hop` is asked for, its failure is told */
    uint32_t word;            /* the owner's */
    struct io_sock *raw;      /* counted, as the next two */
    struct io_sock *fast;     /* NULL before the move */
    struct io_sock *hidden;   /* IO_PACKET_RX where strict rp_filter would drop what comes in; else NULL */
    struct io_hop *hop;
    uint32_t route_gen;       /* hop was asked for at this generation of routes, */
    uint32_t mark, hop_mark;  /* and with this mark; mark: of the latest packet */
    uint64_t sent, next_try;  /* payload bytes sent; when to think of the fast path */
    mp_time last_rx, last_raw_tx;
    uint16_t ip_id;
    uint32_t flowlabel;
};

struct io_prefix { struct mp_addr ip; uint8_t len; };
#define IO_REROUTED_MAX 64

struct io_listen_port { uint16_t port; uint8_t families; /* one bit: 1 IPv4, 2 IPv6; an entry for each listener */ };

struct io {
    struct ev_loop *loop;
    struct mp_stack **stack;
    struct io_cfg cfg;
    char *interfaces, *backup; /* owned copies of cfg's */
    struct io_pool *pool;
    struct io_flow **flow;     /* hash table, nflow_slots a power of two */
    uint32_t nflow_slots, nflows, hash_seed;
    struct io_sock *socks;
    struct io_hop *hops;
    struct io_guards *guards;
    struct rtnl *rtnl;
    struct io_listen_port *listen;
    int nlisten;
    ev_prepare tidy;
    bool tidy_due;
    bool no_privilege;
    bool no_priority;          /* this kernel takes no SO_PRIORITY with a packet */
    bool taking;               /* between io_take_begin() and io_take_end() */
    uint8_t ttl4;
    mp_time conntrack_at, xfrm_at, rp_at; /* when asked last */
    bool conntrack, xfrm;
    int rp_ifindex, rp; /* of the interface asked about last */
    struct io_prefix rerouted[IO_REROUTED_MAX]; /* destinations whose routes changed since io_flows_rerouted() */
    int nrerouted;             /* more than fit: all may have */
    struct io_counters n;
};

struct rtnl_link;
mp_time io_now(void); /* CLOCK_MONOTONIC */

/* ---- io.c ---- */
enum io_privilege { IO_MAY_RAW /* CAP_NET_RAW */, IO_MAY_FILTER /* filters on TCP sockets: CAP_NET_ADMIN, or nothing */ };
int io_may(enum io_privilege what); /* 0 or -EPERM and the like */
void io_set_tidy(struct io *io);
void io_kick(struct io *io);
void io_link_gone(struct io *io, int ifindex);
void io_link_changed(struct io *io, const struct rtnl_link *l); /* its hardware address, perhaps */

/* ---- flow.c ---- */
struct io_flow *io_flow_find(struct io *io, int ifindex, const struct mp_endpoint *local, const struct mp_endpoint *remote);

/* ---- traffic.c ---- */
/* A segment from a socket: demultiplexed, counted, given to the stack. false: the socket died of it. */
bool io_deliver(struct io_sock *s, struct mp_pkt *p, mp_time now);
uint64_t io_first_try(const struct io *io, int ifindex); /* bytes that a flow sends before it thinks of the fast path */
void io_hops_failed(struct io *io); /* the kernel gave up looking for neighbours marked so */

/* ---- listen.c ---- */
bool io_is_listening(const struct io *io, uint8_t family, uint16_t port);
void io_listen_refresh(struct io *io);
void io_stop_listening(struct io *io, struct io_sock *s);

/* ---- withheld.c: flows that routing sends another way now ---- */
struct nlmsghdr;
void io_rerouted(struct io *io, const struct nlmsghdr *nlh); /* a route or rule came or went */
void io_rerouted_all(struct io *io);
void io_flows_rerouted(struct io *io);                       /* after such events, before the stack is told */

/* ---- sock.c ---- */
/* One received packet: where it lies and what the kernel says about it. Valid during the call. */
struct io_rx_msg {
    struct msghdr *h;   /* name and control messages */
    struct mp_buf *buf; /* borrowed: packet at buf->data */
    size_t len;
    const struct virtio_net_hdr *vnet; /* IO_PACKET_RX only */
};
typedef void io_rx_fn(struct io_sock *s, const struct io_rx_msg *m, mp_time now);
/* Reads a batch; each packet goes to `each`. Returns their number, or -errno of a pending error (not -EAGAIN: 0). */
int io_sock_read(struct io_sock *s, io_rx_fn *each);
/* Takes fd; -1 as fd gives NULL. */
struct io_sock *io_sock_new(struct io *io, enum io_kind kind, int fd, int ifindex);
void io_sock_put(struct io_sock *s); /* the last reference: dead, closed at the next io_reap */
void io_sock_drop(struct io_sock *s);
void io_reap(struct io *io);
struct io_sock *io_sock_find(struct io *io, enum io_kind kind, int ifindex, uint8_t family);
int io_sock_filter(struct io_sock *s); /* attaches now, or at io_take_end(); 0 or -errno */
/* ---- sock_out.c ---- */
/* Sends or queues. 0, or -errno: the packet was not taken. */
int io_sock_send(struct io_sock *s, const struct msghdr *m);
int io_sock_send_marked(struct io_sock *s, struct msghdr *m, union io_ctl *ctl, const struct mp_pkt *p); /* ctl: what m has; p's are put behind */
void io_sock_forget(struct io_sock *s); /* what waits is not sent any more */
void io_sock_flush(struct io_sock *s);  /* what waits is sent, as far as there is room */
static inline bool io_sock_blocked(const struct io_sock *s) { return s->waiting != NULL; }

/* ---- headers (hdr.c) ---- */
enum io_csum { IO_CSUM_FULL, IO_CSUM_PARTIAL /* of the pseudo-header: the card or the receiver does the rest */ };
/* IP and TCP header for p as one packet; returns its length. At most IO_HDR_MAX - IO_ETH_LEN. */
size_t io_hdr_build(uint8_t *out, const struct mp_pkt *p, struct io_flow *f, uint8_t ttl, enum io_csum how);
/* Verifies the checksum of n bytes of TCP; one that equals the pseudo-header's sum is a packet not yet summed. */
bool io_csum_ok(const struct mp_addr *src, const struct mp_addr *dst, const uint8_t *tcp, size_t n);
/* Parses an IPv4/IPv6 packet down to TCP; sets addresses, tos, data. *tcp, *tcplen: the TCP segment.
 * 0 or -EBADMSG (not TCP, fragment, short). */
int io_ip_parse(struct mp_pkt *p, const uint8_t *ip, size_t n, const uint8_t **tcp, size_t *tcplen);
socklen_t io_sockaddr(struct sockaddr_in6 *to, const struct mp_addr *a, uint16_t port, int ifindex);
void io_addr_from(struct mp_addr *a, const struct sockaddr *sa);

/* ---- raw.c ---- */
struct io_sock *io_raw_client(struct io *io, int ifindex, const struct mp_addr *local, const struct mp_addr *remote, int *err);
struct io_sock *io_raw_listen(struct io *io, int ifindex, uint8_t family);
int io_raw_output(struct io *io, struct io_flow *f, const struct mp_pkt *p); /* 0 or -errno */
void io_raw_read(struct io_sock *s);

/* ---- packet.c ---- */
/* refs + 1; NULL: not an Ethernet link, no privilege. */
struct io_sock *io_packet_tx(struct io *io, int ifindex);
struct io_sock *io_packet_rx(struct io *io, int ifindex);
int io_packet_output(struct io *io, struct io_flow *f, const struct mp_pkt *p);
void io_packet_read(struct io_sock *s);

/* ---- rtnl.c, rtnl_links.c, rtnl_hops.c, rtnl_paths.c: links, addresses, neighbours, events ---- */
struct rtnl_link {
    int ifindex;
    char name[IFNAMSIZ];
    char kind[16];      /* "veth", "bridge", "wireguard", ...; "" a device */
    unsigned flags;     /* IFF_* */
    uint16_t arptype;   /* ARPHRD_* */
    uint32_t mtu;
    int master;         /* of a bridge, bond or VRF; 0: none */
    uint8_t mac[6];
};
struct rtnl_addr {
    int ifindex;
    struct mp_addr ip;
    uint8_t prefix, scope;
    uint32_t flags;     /* IFA_F_* */
};
struct rtnl *rtnl_new(struct io *io, int *err);
void rtnl_free(struct rtnl *r);
const struct rtnl_link *rtnl_link(const struct rtnl *r, int ifindex); /* NULL: none */
const struct rtnl_link *rtnl_link_at(const struct rtnl *r, int i);    /* i-th; NULL past the end */
const struct rtnl_addr *rtnl_addr_at(const struct rtnl *r, int i);
bool rtnl_is_local(const struct rtnl *r, const struct mp_addr *a);
void rtnl_paths_start(struct rtnl *r);
uint32_t rtnl_generation(const struct rtnl *r); /* changes with every route, rule, address or link event */
struct io_hop *rtnl_hop_get(struct rtnl *r, int ifindex, const struct mp_addr *ip); /* asks the kernel; counted */
void rtnl_hop_put(struct rtnl *r, struct io_hop *h);

/* One request to the kernel; each reply message goes to cb (libmnl's contract). 0 or -errno. */
int rtnl_request(struct rtnl *r, struct nlmsghdr *nlh, int (*cb)(const struct nlmsghdr *, void *), void *data);

/* ---- eligible.c ---- */
bool rtnl_link_is_up(const struct rtnl_link *l);
bool rtnl_link_is_tunnel(const struct rtnl_link *l);
struct rtnl_name { const char *name; int len; bool minus; };
bool rtnl_next_name(const char **list, struct rtnl_name *w); /* of a comma list of interfaces, "-NAME" without the minus; *list: from there on */
bool rtnl_is_named(const struct io *io, const struct rtnl_link *l); /* by the user, to be used */
bool rtnl_is_backup(const struct io *io, const struct rtnl_link *l); /* by the user, for when no other works */
/* May this interface be a path? NULL: yes, else why not (static text). */
const char *rtnl_link_unwanted(const struct io *io, const struct rtnl_link *l); /* by the user: why; NULL: not so */
const char *rtnl_link_refused(const struct io *io, const struct rtnl_link *l);
const char *rtnl_addr_refused(const struct io *io, const struct rtnl_addr *a);

/* ---- route.c: questions to the kernel's routing ---- */
struct rtnl_route {
    uint8_t type;       /* RTN_* */
    uint32_t table;     /* RT_TABLE_* */
    int oif;
    struct mp_addr gateway; /* family 0: on link */
    struct mp_addr prefsrc; /* family 0: none told */
};
/* oif 0: unrestricted; the answer is what a socket would use. oif > 0: only a route of the tables that matches, never an
 * invented on-link one. src may be NULL; mark as SO_MARK. 0 or -errno (-ENETUNREACH, -EHOSTUNREACH, -EACCES). */
struct rtnl_ask { const struct mp_addr *dst, *src; int oif; uint32_t mark; };
int rtnl_route_get(struct rtnl *r, const struct rtnl_ask *q, struct rtnl_route *out);
/* The same from a cache that route events empty. */
int rtnl_route_cached(struct rtnl *r, const struct rtnl_ask *q, struct rtnl_route *out);
bool rtnl_xfrm_in_use(struct rtnl *r); /* IPsec policies exist */
enum io_route_kind io_route_kind(struct io *io, const struct mp_addr *remote, uint32_t mark, struct rtnl_route *rt, int *err);
/* A VPN, or a rule like it, has packets between these two leave elsewhere, or not at all. */
bool io_route_elsewhere(struct io *io, int ifindex, const struct mp_addr *local, const struct mp_addr *remote, uint32_t mark);

/* ---- guard.c ---- */
struct io_guards *io_guards_new(void);
void io_guards_free(struct io_guards *g);
uint16_t io_guard_mask(const struct io_guards *g, uint16_t port); /* of the block that it is in */
void io_guards_give(struct io_guards *g, void (*each)(void *arg, const struct io_item *i, int fd), void *arg);
void io_guards_take(struct io_guards *g, uint16_t port, int fd); /* owns fd */
void io_guards_trim(struct io_guards *g);                        /* taken ones that nobody uses are closed */

/* ---- host.c ---- */
bool io_conntrack_active(struct io *io);
bool io_xfrm_active(struct io *io);
int io_rp_filter(struct io *io, const struct rtnl_link *l); /* the effective one: 0, 1 strict, 2 loose */
bool io_rp_hides(struct io *io, int ifindex, const struct mp_addr *local, const struct mp_addr *remote);

#endif
