/* core/stack.h: the protocol engine's border: a host's set of MPTCP connections (RFC 8684) and listeners.
 *
 * Sans-I/O, four verbs: mp_stack_input (packet in), mp_stack_poll (packet out), mp_stack_deadline /
 * mp_stack_tick (time), mp_stack_event (what the owner must know). No callback ever re-enters the stack.
 * After any call, the caller runs: while (mp_stack_poll) output; while (mp_stack_event) react; and then
 * sleeps until mp_stack_deadline. */
#ifndef MP_STACK_H
#define MP_STACK_H

#include <stdio.h>

#include "core/base.h"
#include "core/pkt.h"
#include "core/settings.h"

struct mp_stack;
struct mpc; /* one connection, RFC 8684; plain TCP after a fallback */

/* What core/ asks of the world. All return at once and none calls back into the stack. */
struct mp_stack_ops {
    void (*random)(void *arg, void *p, size_t n);
    /* A subflow's 4-tuple on an interface begins / ends. The handle is put into mp_pkt.flow of its packets.
     * passive: answers a SYN that arrived on ifindex. NULL: cannot (no privilege, refused); subflow not made. */
    void *(*flow_open)(void *arg, int ifindex, const struct mp_endpoint *local, const struct mp_endpoint *remote, bool passive);
    void (*flow_close)(void *arg, void *flow);
    /* Most payload bytes one packet of this flow may carry now (>= mss; up to MP_SLICE_MAX on the fast path). */
    uint32_t (*slice_max)(void *arg, void *flow, uint32_t mss);
    /* false: back-pressure; nothing is polled for this flow until mp_stack_writable(). */
    bool (*writable)(void *arg, void *flow);
    /* Path facts for the path manager: can `remote` be reached from `local` on this interface? mark: the connection's
     * (SO_MARK), by which the host may route; 0: none. */
    bool (*route)(void *arg, int ifindex, const struct mp_addr *local, const struct mp_addr *remote, uint32_t mark);
    uint32_t (*mtu)(void *arg, int ifindex); /* bytes of the IP packet; 0: unknown */
    /* A local port for a connecting socket of this family, guarded against kernel RSTs; 0: none. Connections to
     * different peers may share one; fresh: one that no other has would be better. */
    uint16_t (*port_get)(void *arg, uint8_t family, bool fresh);
    void (*port_put)(void *arg, uint8_t family, uint16_t port);
    /* Trace line of an event of core/events.def (see core/event.h); may be NULL. */
    void (*trace)(void *arg, int event, const struct mpc *c, const char *text);
    /* Zeroed memory for a connection, which holds its keys: always of the same size. Both NULL: calloc(), free(). */
    void *(*conn_alloc)(void *arg, size_t size);
    void (*conn_free)(void *arg, void *p);
    /* mpc_load(): a subflow that was opened elsewhere uses this port; port_put() follows. NULL: nothing to count. */
    void (*port_hold)(void *arg, uint8_t family, uint16_t port);
    /* Routing has another way for this flow's packets now (a VPN's policy): none of them leaves. mark: as of route.
     * NULL: never. */
    bool (*withheld)(void *arg, void *flow, uint32_t mark);
    /* Asked for each SYN: does the program of this listener (mp_stack_listen's owner) still listen? NULL: yes. */
    bool (*listening)(void *arg, void *owner);
    /* Asked for each SYN and each third ACK: do more connections wait for the program of this listener than it wants to have
     * waiting? NULL: no. */
    bool (*crowded)(void *arg, void *owner);
    /* What all stacks of this host have in common and the network does not know: from this and the addresses follows what our
     * timestamps begin with (timestamp.c). NULL: drawn; a 4-tuple that another process used before may then have to wait. */
    void (*host_key)(void *arg, uint8_t key[16]);
};

struct mp_stack *mp_stack_new(const struct mp_stack_ops *ops, void *arg, const struct mp_settings *set);
void mp_stack_free(struct mp_stack *s); /* connections end without a word; flows are closed */

/* ---- packets and time ---- */
void mp_stack_input(struct mp_stack *s, struct mp_pkt *p, mp_time now);
/* A segment to a listener that belongs to no flow: taken if it answers a SYN/ACK of ours, else passed over in silence, for it
 * may be of a connection that is not the stack's. */
void mp_stack_input_unowned(struct mp_stack *s, struct mp_pkt *p, mp_time now);
bool mp_stack_poll(struct mp_stack *s, struct mp_pkt *out, mp_time now); /* false: nothing to send now */
mp_time mp_stack_deadline(const struct mp_stack *s);                     /* MP_NEVER: none */
void mp_stack_tick(struct mp_stack *s, mp_time now);
void mp_stack_writable(struct mp_stack *s, void *flow);  /* NULL: all */
/* The network answered a packet of this flow: err is an errno (ECONNREFUSED, EHOSTUNREACH, EPERM on a SYN: a
 * firewall refused it, EMSGSIZE with mtu). seq: the TCP sequence number quoted by ICMP; must_match false when
 * the error is local and about the latest packet. */
void mp_stack_net_error(struct mp_stack *s, void *flow, int err, uint32_t seq, bool must_match, uint32_t mtu, mp_time now);

/* Beside it: the ICMP message says that a router had no way to the network or host (type 3 codes 0 and 1; of ICMPv6 type 1 codes 0
 * and 3), not that somebody forbids it or that the packet went in circles. */
void mp_stack_no_way(struct mp_stack *s, void *flow, uint32_t seq, mp_time now);

/* ---- local addresses (paths), from rtnetlink or the simulator ---- */
struct mp_local {
    int ifindex;
    struct mp_addr ip;
    bool backup;      /* metered or set by the user */
    bool announce;    /* a server tells its peers by ADD_ADDR */
    char name[16];    /* interface name, for people */
};
void mp_stack_local_add(struct mp_stack *s, const struct mp_local *l, mp_time now);
void mp_stack_local_del(struct mp_stack *s, int ifindex, const struct mp_addr *ip, mp_time now); /* address gone or link down */
void mp_stack_routes_changed(struct mp_stack *s, mp_time now); /* ops.route and ops.withheld may answer otherwise than before */

/* ---- owner side: opening ---- */
enum mp_open_flags { MP_OPEN_NODELAY = 1, MP_OPEN_KEEPALIVE = 2 };
/* Opens to remote; the first subflow leaves from `local` on ifindex. owner is the caller's word, given back in
 * events. NULL with *err (errno): EADDRNOTAVAIL no port, ENOMEM, EACCES flow refused, ENETUNREACH. */
struct mpc *mp_stack_connect(struct mp_stack *s, const struct mp_endpoint *remote, const struct mp_addr *local,
                             int ifindex, unsigned flags, void *owner, mp_time now, int *err);
/* Answers SYNs to this address and port (ip.family 0 with any address of that family mask: 1 v4, 2 v6, 3 both).
 * backlog bounds connections not yet accepted. Returns 0 or -EADDRINUSE, -ENOMEM. */
int mp_stack_listen(struct mp_stack *s, const struct mp_endpoint *at, unsigned families, int backlog, void *owner);
/* Half-open connections are the next listener's there, if one comes within 250 ms; else they are reset. */
void mp_stack_unlisten(struct mp_stack *s, void *owner, mp_time now);
/* Another stack has connections to this host's addresses: joins with tokens that are not ours are for it to answer. */
void mp_stack_join_elsewhere(struct mp_stack *s, bool on);

/* ---- owner side: events ---- */
enum mp_event_bits {
    MP_EV_ACCEPT = 1,    /* new connection; owner is the listener's: call mpc_set_owner */
    MP_EV_CONNECTED = 2,
    MP_EV_READABLE = 4,  /* mpc_peek has bytes or EOF is new */
    MP_EV_WRITABLE = 8,  /* mpc_write_space grew from 0 / from below half */
    MP_EV_CLOSED = 16,   /* finished, both ways; mpc_error tells how. After mpc_release, memory is the stack's to free */
    MP_EV_PLAIN = 32,    /* plain TCP since the handshake, of which nothing but data could tell: mpc_get_info says why */
};
bool mp_stack_event(struct mp_stack *s, struct mpc **c, unsigned *bits); /* takes the next; false: none */

/* ---- owner side: data ---- */
void *mpc_owner(const struct mpc *c);
void mpc_set_owner(struct mpc *c, void *owner);
uint64_t mpc_write_space(const struct mpc *c);                  /* bytes the send queue takes now */
int mpc_write_iov(struct mpc *c, struct mp_iov *iov, int n);    /* places to receive into directly; entries used */
void mpc_write_commit(struct mpc *c, uint64_t bytes, mp_time now); /* that many were filled, in order */
void mpc_write_idle(struct mpc *c);                             /* nothing to write for now: places not filled are given back */
uint64_t mpc_write(struct mpc *c, const void *p, uint64_t n, mp_time now); /* copying form; bytes taken */
void mpc_shutdown(struct mpc *c, mp_time now);                  /* no more data from us: DATA_FIN (or FIN) follows it */
int mpc_peek(const struct mpc *c, struct mp_iov *iov, int n);   /* in-order bytes waiting, borrowed; entries used */
uint64_t mpc_readable(const struct mpc *c);                     /* bytes */
void mpc_consume(struct mpc *c, uint64_t bytes, mp_time now);   /* the first bytes were delivered */
bool mpc_eof(const struct mpc *c);                              /* the peer's data ended and all of it was consumed */
void mpc_abort(struct mpc *c, mp_time now);                     /* reset: MP_FASTCLOSE, or RST */
/* The owner leaves: what was written is still delivered and the connection closes in order. It is given up when nothing was
 * acknowledged for linger_ns (0: the protocol's own time), or the peer's end did not follow within a minute. Unread or later
 * data from the peer resets it (RFC 9293 3.6.1). */
void mpc_release(struct mpc *c, mp_dur linger_ns, mp_time now);
int mpc_error(const struct mpc *c);                             /* errno: 0 closed in order, ECONNRESET, ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ... */
bool mpc_send_done(const struct mpc *c);                        /* all written bytes, and the FIN if shut down, are acknowledged by the peer */

/* What would have to be told to the peer over one subflow so that the connection ends there at once, by who survives its owner. */
struct mp_last_words {
    enum mp_last_kind {
        MP_LAST_RST = 1,       /* plain TCP, or the peer's key is not known yet: RFC 9293 3.5.2 */
        MP_LAST_FASTCLOSE,     /* RFC 8684 3.5 */
        MP_LAST_FASTCLOSE_ACK, /* of version 0, which has it on ACKs only: RFC 6824 3.5 */
    } kind;
    void *flow;
    int ifindex;
    struct mp_endpoint local, remote;
    uint64_t key;              /* the peer's; 0 with MP_LAST_RST */
    uint32_t seq, ack;         /* next to send and to receive, as on the wire */
    bool has_ts;
    uint32_t ts_val, ts_ecr;
    uint16_t wnd;              /* as on the wire */
    uint8_t tos, ttl;          /* as in struct mp_pkt, as the next two */
    uint32_t mark, priority;
};
/* Over this flow; NULL: over the first one. false: nothing: the peer has the end of our stream or was told already, or has not
 * answered yet. */
bool mpc_last_words(const struct mpc *c, const void *flow, struct mp_last_words *w);

enum mpc_opt { MPC_NODELAY, MPC_CORK, MPC_KEEPALIVE, MPC_KEEPIDLE_S, MPC_KEEPINTVL_S, MPC_KEEPCNT, MPC_USER_TIMEOUT_MS, MPC_RCVBUF, MPC_SNDBUF, MPC_TOS, MPC_TTL, MPC_MAXSEG,
                MPC_CC /* congestion control: its number in mp_cc_all, from 1; 0: the setting's */,
                MPC_STRICT /* never plain TCP: the connection fails with EPROTONOSUPPORT instead of falling back */,
                MPC_MARK, MPC_PRIORITY /* SO_MARK, SO_PRIORITY: what the host's own rules, routes and queues go by */ };
/* The connection leaves (or may use again) this local address, whatever the path manager wants: RFC 6897 5.3.1. 0,
 * -EADDRNOTAVAIL: no path of the host has it; -EBUSY: nothing else would carry the connection; -ENOSPC: too many are left
 * already; -EOPNOTSUPP: plain TCP. */
int mpc_use_local(struct mpc *c, const struct mp_addr *ip, bool use, mp_time now);
int mpc_setopt(struct mpc *c, enum mpc_opt opt, uint64_t value, mp_time now); /* 0; -ENOENT: no such congestion control; -EINVAL: no such option */
/* MPC_TOS, MPC_TTL, MPC_MARK, MPC_PRIORITY of a listener's connections to come, from their SYN/ACK on. */
void mp_stack_listen_setopt(struct mp_stack *s, void *owner, enum mpc_opt opt, uint64_t value);

/* ---- facts for people and for getsockopt ---- */
enum mp_plain_why { /* why a connection is (or became) plain TCP */
    MP_WHY_MULTIPATH = 0,      /* it is not: MPTCP is in use */
    MP_WHY_PENDING,            /* not known yet */
    MP_WHY_NO_OPTION_SYNACK,   /* the SYN/ACK (or the client's SYN) had no MP_CAPABLE: peer or path without MPTCP */
    MP_WHY_SYN_DROPPED,        /* SYNs with the option went unanswered, one without was answered */
    MP_WHY_NO_OPTION_ACK,      /* options vanished after the handshake */
    MP_WHY_NO_DSS,             /* data came without mapping */
    MP_WHY_CHECKSUM,           /* payload was changed on the way: infinite mapping */
    MP_WHY_PEER_FAIL,          /* the peer asked by MP_FAIL / infinite mapping */
    MP_WHY_VERSION, MP_WHY_SIMOPEN, MP_WHY_SETTING,
};
const char *mp_plain_why_text(enum mp_plain_why w);

struct mpc_subflow_info {
    struct mp_endpoint local, remote;
    int ifindex;
    char ifname[16];
    const char *state;         /* RFC 9293 name */
    bool backup, stale, initial;
    uint8_t addr_id_local, addr_id_remote;
    int id;                    /* counted up from 0 in the connection */
    mp_time last_sent, last_recv, last_heard; /* data out, data in, any segment; none yet: when it was opened */
    mp_dur srtt, rttvar, min_rtt, rto;
    uint64_t cwnd, ssthresh, flight, bytes_sent, bytes_acked, bytes_received, bytes_retrans;
    uint32_t mss, mtu; /* mss 0: the peer has not said its own yet */
    uint64_t snd_wnd;          /* bytes, as the peer's latest segment said */
    bool wscale, timestamps, sack, ecn; /* agreed in the handshake */
};
struct mpc_info {
    struct mp_endpoint local, remote; /* as the program sees them */
    bool server, established, multipath;
    enum mp_plain_why why;
    uint32_t token;
    uint64_t bytes_written, bytes_acked, bytes_read, reinjected;
    uint64_t snd_nxt, snd_una, rcv_nxt; /* data sequence numbers; a DATA_FIN counts one */
    bool fin_acked;
    bool peer_key_known;
    uint64_t unsent, unread;       /* bytes in the send queue not sent yet; received in order, not consumed */
    uint64_t snd_wnd, rcv_wnd;     /* connection-level windows left: the peer's, from what was sent; ours, as offered */
    mp_time opened;
    mp_time last_sent, last_recv, last_ack; /* of data; none yet: when it was opened */
    int rexmits;                   /* times in a row that data was sent again for want of a DATA_ACK */
    int addr_signalled, addr_accepted; /* by ADD_ADDR: own addresses, the peer's */
    int nsubflows, subflows_ever, subflows_max;
    const char *cc, *sched;
    bool csum;
};
void mpc_get_info(const struct mpc *c, struct mpc_info *i);
int mpc_get_subflows(const struct mpc *c, struct mpc_subflow_info *v, int max); /* live ones; count */
/* Bytes acknowledged/received per interface over the connection's whole life, ended subflows included. */
struct mpc_path_info { char ifname[16]; struct mp_addr local; uint64_t bytes_sent, bytes_received; bool live; };
int mpc_get_paths(const struct mpc *c, struct mpc_path_info *v, int max);

struct mpc *mp_stack_first(struct mp_stack *s); /* iterate all connections */
struct mpc *mp_stack_next(struct mpc *c);
uint64_t mp_stack_counter(const struct mp_stack *s, int counter); /* core/event.h */
uint64_t mp_stack_memory(const struct mp_stack *s, uint64_t *peak); /* bytes of data held; peak may be NULL */
int mp_stack_live(const struct mp_stack *s); /* connections not yet free */
int mp_stack_closing(const struct mp_stack *s); /* subflows that exchange their last FINs: before TIME_WAIT */

/* ---- save and load (docs/architecture.md): one list of fields, plain data ---- */
void mp_stack_settle(struct mp_stack *s, mp_time now);          /* before all is saved: half-open connections become such as can be */
int mpc_save(const struct mpc *c, FILE *f);                     /* 0 or -errno */
struct mpc *mpc_load(struct mp_stack *s, FILE *f, void *owner, mp_time now); /* NULL: bad data */

#endif
