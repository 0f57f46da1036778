/* engine/ctl.h: the control protocol between libmpshim.so and an engine, inside or helper.
 *
 * Transport: an AF_UNIX SOCK_SEQPACKET connection to the engine, shared by all threads and forked children of a
 * process and only ever written to: one message is one atomic send, so nobody needs a lock. A request that wants an
 * answer carries, by SCM_RIGHTS, one end of a fresh socketpair on which the answer comes (and which the engine then
 * closes; end of file without an answer means that the engine is gone). Fork-safe, thread-safe, and a process that
 * gives up its user keeps what it had.
 *
 * Who asks often (CONNECT, QUERY, INFO) lets the engine keep its end: CTL_F_KEEP, and a name for it in value. An answer with
 * CTL_KEPT in its op says that it did, and questions with CTL_F_KEPT and that name, over the same control connection and
 * without a reply descriptor, are answered there. One that the engine does not know (any more: it belongs to one engine, and
 * ends with it) is not acted upon, as nobody would hear the answer. */
#ifndef ENG_CTL_H
#define ENG_CTL_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

#define CTL_VERSION 2
#define CTL_MAX 65536 /* bytes of one message */
#define CTL_FDS 64    /* descriptors with one message */

union ctl_addr { struct sockaddr sa; struct sockaddr_in v4; struct sockaddr_in6 v6; };

enum ctl_op {
    CTL_HELLO = 1,  /* helper only, first message: version, then behind struct ctl_req the settings as "name=value\n" lines;
                       fds: reply, and when the program runs with -v a second one: its log, where this client's verdict
                       lines go (the helper closes it with the client's connection); answer ctl_rep */
    CTL_CONNECT,    /* fds: reply, the program's socket if it has an SO_MARK or SO_PRIORITY; answer ctl_rep: result 0 and identity, or the kernel should carry it (why). Sent before the program's
                       socket is touched, so that "kernel" leaves no trace on it: req.local is not known yet. The socket is
                       not bound: the kernel chooses its loopback port in connect(), and its SYN tells the engine */
    CTL_LISTEN,     /* fds: reply, listening socket's dup (the engine may keep or close it); answer ctl_rep */
    CTL_UNLISTEN,   /* the last holder in this process closed it (others may remain: the engine checks); answer, if asked for */
    CTL_QUERY,      /* about a carrier, by identity and the program's local address; answer ctl_rep.
                       A failed or closed one is remembered for some seconds, so that its errno can be told */
    CTL_SETOPT,     /* about a carrier: enum mpc_opt and value; answer, if asked for. MPC_MARK and MPC_PRIORITY: fds: reply, the
                       program's socket, which both are read from */
    CTL_DRAIN,      /* the process is ending (or execs) and has closed its sockets: answer when every connection whose program
                       side is closed has delivered its data, or ms passed; connections still open are not waited for */
    CTL_STATUS,     /* answer: JSON text, in pieces of up to CTL_MAX, until end of file */
    CTL_RELEASE_PORT, /* a bind got EADDRINUSE: give up an engine's guard on this port if no connection needs it; answer */
    CTL_LEAVE,      /* as CTL_DRAIN, and what other processes hold counts too: result 0: nothing is alive, the engine may end with
                       the process; -EINPROGRESS: something is. value: ms to wait where no more than a few bytes or the last
                       FINs are out */
    CTL_HANDOVER,   /* inside only; fds: reply, a helper's control connection (after CTL_HELLO): everything moves there, control
                       connections included; answer: result 0: it did, this engine ends */
    CTL_MOVE_SOCKETS, /* engine to helper: fds: sockets, numbered in the order they come */
    CTL_MOVE,       /* engine to helper: fds: reply, memory file (engine/move.c); value: its layout. Answer: result 0:
                       all is here and waits */
    CTL_MOVE_GO,    /* engine to helper, no answer: it is the helper's from now on. If the connection ends without it, the helper
                       forgets what it got */
    CTL_REPLACE,    /* a new helper to the one that runs; fds: a control connection to the new one, a raw socket (only who may
                       open those may ask): everything moves there, the control socket and its lock included. The same in
                       every version of this protocol */
    CTL_USE_LOCAL = 21, /* about a carrier: remote is a local address of the host, value 1: use it, 0: leave it; answer ctl_rep */
    CTL_PLACE = 19, /* a helper to the one that is to replace it and cannot take what it carries (another build): fds: reply,
                       control socket, its lock. Answer: result 0: it serves there. The connection stays: over it the new
                       one asks the old for ports (CTL_RELEASE_PORT). The same in every version of this protocol */
    CTL_KEEP = 22,    /* of a keeper (engine/keeper.c), after CTL_HELLO: a listener of a helper that died; as CTL_LISTEN, without
                       the socket: it has the filter "only over loopback", and a socket of this user must listen there, whose SO_MARK the kernel
                       tells; answer */
    CTL_WILL = 23,    /* an engine inside to a helper. First without descriptors: are wills known here? A byte on the connection says yes; a
                       helper that is older, or does not get to it, says nothing. Then, no answer; fds: its will (engine/will.h), a raw
                       socket (only who may open those may have it said). When the connection ends, it is said. A helper that does not want
                       it closes the connection */
    CTL_WILL_GUARDS = 24, /* after CTL_WILL, no answer; fds: listening sockets that hold the ports of its connections, kept until it is said */
    CTL_INFO = 20,    /* about a carrier, as CTL_QUERY, with all that is known of its subflows; answer struct ctl_info */
};

/* Why the kernel should carry a connection, in words for -v and mptcp-stat. */
#define CTL_WHYS(X) \
    X(OK, "carried by the engine") \
    X(LOCAL_ROUTE, "a local address") \
    X(EXCLUDED, "excluded by a setting") \
    X(NO_PRIVILEGE, "no privilege for raw sockets (CAP_NET_RAW)") \
    X(NO_LOOPBACK, "the loopback interface is down") \
    X(NO_INTERFACE, "no suitable interface") \
    X(NO_ENGINE, "no engine") \
    X(REMEMBERED_PLAIN, "the peer is known not to speak MPTCP, or the path to it not to carry it") \
    X(BOUND, "bound by the program to one address, port, device or way") \
    X(RESOURCE, "out of descriptors, ports or memory") \
    X(BAD_REQUEST, "the engine did not understand") \
    X(ROUTED_APART, "routed apart: by a rule for its source address, or to no single host") \
    X(NO_ENGINE_WANTED, "no engine is to run (engine=never)") \
    X(UNGUARDED, "its port cannot be guarded: another user's socket, or one of several on this port")
enum ctl_why {
#define X(name, text) CTL_##name,
    CTL_WHYS(X)
#undef X
    CTL_WHY_COUNT
};

struct ctl_req {
    uint16_t version, op;
    int32_t pid;
    union ctl_addr remote;   /* CONNECT: the true destination */
    union ctl_addr local;    /* LISTEN: what it listens on; QUERY/SETOPT: the socket's own loopback address */
    union ctl_addr identity; /* QUERY/SETOPT: the socket's kernel peer */
    uint32_t flags;          /* enum ctl_flags */
    uint32_t opt; uint64_t value; /* SETOPT; LISTEN: value is the backlog; DRAIN: value is ms; with CTL_F_KEEP, CTL_F_KEPT: the socket's name */
    int32_t keepidle_s, keepintvl_s, keepcnt, user_timeout_ms; /* CONNECT: as set on the socket; 0: default */
    uint32_t rcvbuf, sndbuf; /* CONNECT: bytes the program asked for; 0: not set */
    uint8_t tos, ttl;        /* CONNECT, LISTEN (for the connections to come): of packets; ttl 0: default */
    uint16_t maxseg;         /* TCP_MAXSEG; 0: not set */
    uint8_t cc;              /* TCP_CONGESTION: number in mp_cc_all, from 1; 0: not set */
    uint8_t pad[3];
    char prog[32];           /* program's name, for people */
};
/* CTL_F_HELD, LISTEN: others, who may know nothing of us, keep the listener when the program has ended: no filter may stay on it (but
 * with CTL_F_STRICT), and its SO_REUSEPORT is no obstacle where a guard stands beside it already. */
enum ctl_flags { CTL_F_NODELAY = 1, CTL_F_KEEPALIVE = 2, CTL_F_CORK = 4, CTL_F_V6ONLY = 8, CTL_F_REUSEPORT = 16, CTL_F_HELD = 32, CTL_F_KEPT = 0x2000, CTL_F_KEEP = 0x4000, CTL_F_STRICT = 0x8000 };
#define CTL_KEPT 0x8000 /* in an answer's op */

enum ctl_state { CTL_S_NONE = 0, CTL_S_CONNECTING, CTL_S_OPEN, CTL_S_FAILED, CTL_S_CLOSED };
struct ctl_rep {
    uint16_t version, op;
    int32_t result;          /* 0 or -errno */
    uint32_t why;            /* enum ctl_why */
    uint32_t state;          /* QUERY: enum ctl_state */
    int32_t err;             /* QUERY: the true errno of a failed or reset connection */
    union ctl_addr identity; /* CONNECT: where the program's socket must connect (on the kernel, over loopback) */
    union ctl_addr local, remote; /* QUERY: the true addresses */
    uint32_t plain_why;      /* QUERY: enum mp_plain_why */
    uint32_t nsubflows;
    uint64_t srtt_us, rttvar_us, cwnd_bytes, mss, unacked_bytes, bytes_sent, bytes_received; /* QUERY: for TCP_INFO and SIOCOUTQ */
};

#define CTL_SUBFLOWS 16
struct ctl_subflow {
    union ctl_addr local, remote;
    uint32_t ifindex;
    char ifname[16];
    uint8_t id_local, id_remote, backup, stale, initial;
    uint8_t state;           /* TCP_ESTABLISHED, ... of netinet/tcp.h */
    uint8_t wscale, timestamps, sack, ecn;
    uint16_t id;             /* counted up from 0 in the connection */
    uint32_t mss, mtu, srtt_us, rttvar_us, min_rtt_us, rto_us;
    uint64_t sent_at_ms, recv_at_ms, heard_at_ms; /* CLOCK_MONOTONIC: data, data, any segment; 0: never */
    uint64_t cwnd, ssthresh, flight, snd_wnd, bytes_sent, bytes_acked, bytes_received, bytes_retrans; /* bytes; ssthresh UINT64_MAX: none */
};
enum ctl_info_flags { CTL_I_SERVER = 1, CTL_I_ESTABLISHED = 2, CTL_I_MULTIPATH = 4, CTL_I_CSUM = 8, CTL_I_PEER_KEY = 16, CTL_I_FIN_ACKED = 32 };
struct ctl_conn_info { /* kept, as ctl_rep is, for questions when the connection is over */
    uint32_t flags, token, subflows_ever;
    uint64_t snd_nxt, snd_una, rcv_nxt;      /* data sequence numbers */
    uint64_t bytes_acked, unsent, unread;
    uint64_t bytes_reinjected, bytes_retrans; /* sent again on another subflow; on any, the same too */
    uint64_t sent_at_ms, recv_at_ms, acked_at_ms; /* CLOCK_MONOTONIC, of data; 0: none yet */
    uint32_t rexmits;
    uint8_t addr_signalled, addr_accepted, subflows_max, pad;
};
struct ctl_info {
    struct ctl_rep rep;      /* as of CTL_QUERY */
    struct ctl_conn_info conn;
    uint32_t n, pad;         /* n: of sf */
    struct ctl_subflow sf[CTL_SUBFLOWS];
};

/* Identities lie in 127.64.0.0/10 (v4 and v4-mapped) and, for v6-only sockets, ::1 with a port below: how shim/
 * recognises a carrier's peer without asking. */
#define CTL_IDENTITY_NET 0x7f400000u
#define CTL_IDENTITY_MASK 0xffc00000u

#endif
