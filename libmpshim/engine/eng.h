/* engine/eng.h: what the engine's files share. One thread, one libev loop, no locks; inside engine/ only.
 *
 * engine.c   settings, start, end       loop.c      the loop, the pump, the slow round
 * hosts.c    a thread, or a process     check.c     mptcp-run --check
 * ctl.c      control connections        carriers.c  all carriers: table, queue
 * ctl_ops.c  what programs ask for      ctl_move.c  what engines ask of each other (both: ctl_conn.h)
 * carrier.c  one carrier's life         relay.c     its bytes
 * carrier_open.c its beginning          carrier_meet.c it and the program's socket find each other
 * carrier_ask.c questions about it
 * identity.c loopback names             lowire.c    seeing SYNs and answering them with an error, over lo
 * listener.c listening ports            sockdiag.c  what the kernel knows of a socket
 * info.c     a connection's facts for getsockopt()
 * verdict.c  -v lines, plain peers      status.c    JSON for people and tools
 * drain.c    the end of a process       addr.c      address forms
 * asksock.c  questions of strangers about their carriers
 * statsock.c where they find it     secret.c    memory for keys
 * move.c     everything goes to another engine    move_in.c   ... and comes from one
 * portguard.c what keeps a listener from the outside
 * keeper.c   who starts a helper again that was killed
 * will.c     what a helper is to say if the program is killed (will.h)   heir.c    a helper says it   will_read.c  and reads it */
#ifndef ENG_ENG_H
#define ENG_ENG_H

#include <ev.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "core/stack.h"
#include "engine/ctl.h"
#include "engine/engine.h"
#include "io/io.h"

struct carrier;
struct port;
struct ctl_conn;
struct drain;
struct guest;
struct move_in;
struct heir;
struct will_file;

struct eng_secrets { /* secret.c */
    size_t size;                /* of a slot; 0: none was asked for yet */
    struct secret_map *maps;    /* owned */
    struct secret_free *free;
    uint8_t *fresh;             /* slots never given out */
    int nfresh;
};

enum { ENG_SPARES = 64, ENG_IDENTITY_USES = 16 };
struct eng_spare { struct mp_endpoint id; int fd, uses; }; /* identity.c */

struct eng_will { /* will.c: what is to be said if the program is killed */
    char *helper;               /* owned; where its control socket is; NULL: there is no will */
    int (*launch)(void);        /* struct eng_cfg's, as the next */
    bool (*is_restricted)(void);
    struct will_file *file;     /* mapped; NULL: nothing was established yet */
    int fd;                     /* of it; owned */
    size_t pages;               /* bytes of it that have memory */
    bool none;                  /* there is no memory for it */
    bool young;                 /* slots were filled whose ports' guards the helper may not have yet */
    uint32_t first_free;        /* slot, index + 1; 0: none */
    ev_io io;                   /* active: a helper was asked; its descriptor is owned */
    bool told;                  /* it has the file */
    ev_io starting;             /* active: one was started; likewise */
    mp_time asked_at, look_at;  /* look_at: for a helper, not before */
    mp_dur pause;               /* to the next start; 0: the last one served */
    uint8_t *given;             /* owned; a bit for each port whose guard the helper has */
};

#define ENG_HASH 1024 /* carrier table buckets, a power of two */
#define ENG_RANDOM 1024
#define ENG_ASKSOCKS 64 /* of other engines, whose carriers were taken over */

struct engine {
    struct ev_loop *loop;       /* owned */
    struct io *io;              /* owned */
    struct mp_stack *stack;     /* owned */
    struct eng_secrets secrets; /* the stack's connections lie there */
    struct mp_settings set;
    struct io_cfg iocfg;
    char **strings;             /* owned copies of the setting strings, NULL-terminated */
    char *client_settings;      /* owned; the text that eng_reconfigure took last; NULL: none */

    ev_prepare prepare;         /* before the loop sleeps: run carriers, pump */
    ev_idle idle;               /* active while work is left over: the loop must not sleep */
    ev_io alarm;                /* timerfd: libev's own timers round to a millisecond */
    ev_timer sweep;             /* slow round over what has no event: active while anything is pending */
    ev_io carriers;             /* epfd */
    int reserve_fd;             /* eng_accept(); owned */
    int alarm_fd, epfd;         /* epfd: carriers' sockets, edge-triggered; owned */
    mp_time alarm_at;           /* when the timerfd fires; MP_NEVER: not set */
    bool dirty;                 /* the stack was touched since the last pump */

    struct carrier *hash[ENG_HASH];
    struct carrier *all;        /* list of every carrier, ghosts included */
    struct carrier *runq, **runq_tail;
    unsigned nlive, nghosts;    /* carriers with work to do; ended ones kept to answer questions */
    uint64_t total_connects, total_accepts, total_kernel, kernel_by[CTL_WHY_COUNT]; /* left to the kernel, and why */

    struct port *ports;
    struct ctl_conn *conns;
    uint64_t client_ids;        /* the last one given */
    struct drain *drains;
    struct plain_peer *plain;   /* verdict.c */
    mp_time ports_checked, ports_again; /* again: 0, or look again then: a process has just ended */

    int lo4, lo6, icmp4, icmp6, diag_fd; /* lowire.c, sockdiag.c; -1: not open; owned */
    ev_io lo4_io, lo6_io;
    uint32_t diag_seq;
    uint32_t ident4;            /* this engine's identity address, host order */
    struct eng_spare spare[ENG_SPARES]; /* identities for connections to come; descriptors are owned */
    int nspare;
    uid_t spare_uid;            /* whose they are */
    mp_time spare_at;           /* the last one given back */

    ev_io stat_io;              /* statsock.c; its descriptor is owned */
    ev_io ask_io;               /* asksock.c; likewise */
    ev_io adopted[ENG_ASKSOCKS]; /* their descriptors are owned */
    int nadopted;
    struct guest *guests;
    int ctl_fd, log_fd, verbose;
    int lock_fd, take_fd;       /* helper; -1: none; owned */
    bool replaced;              /* another helper has our place */
    struct eng_will will;
    struct heir *heirs;         /* heir.c: wills that are being said; owned */
    ev_io keeper_io;            /* keeper.c; its descriptor is owned; active: one runs */
    char *kept;                 /* owned; what the keeper was told last */
    size_t nkept;
    void (*ready)(void *arg);   /* struct eng_cfg's */
    void *ready_arg;
    bool is_listening;          /* helper */
    ev_io accept_io;
    bool leaving;               /* no more control connections: end when nothing is alive */
    int move_to, move_reply;    /* a hand-over was asked for: the other's control connection, whom to tell; -1: none; owned */
    int idle_exit_s;
    mp_time idle_since;         /* 0: busy */
    uint8_t rnd[ENG_RANDOM];
    unsigned rnd_left;
};

/* ---- engine.c ---- */
mp_time eng_now(void);
void eng_random(struct engine *e, void *p, size_t n);
void eng_host_key(struct engine *e, uint8_t key[16]); /* hostkey.c: every engine of this host has it */
void eng_log(int fd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Takes the settings of a helper's client ("name=value" lines) where nothing is alive yet; else they stay as they are. */
void eng_reconfigure(struct engine *e, const char *text);

/* ---- loop.c ---- */
void eng_touch(struct engine *e);        /* the stack was called: pump before sleeping */
void eng_flush(struct engine *e);        /* sends what may be sent now */
void eng_sweep_at(struct engine *e, mp_time at); /* something needs the slow round then */

/* ---- addr.c: struct sockaddr <-> struct mp_endpoint; v4-mapped addresses are IPv4 ---- */
bool eng_from_sa(const union ctl_addr *a, struct mp_endpoint *ep); /* false: not an Internet address */
socklen_t eng_to_sa(const struct mp_endpoint *ep, int family, union ctl_addr *a); /* family AF_INET6: IPv4 is mapped */
bool eng_is_loopback(const struct mp_addr *a);
bool eng_is_any(const struct mp_addr *a);
const char *eng_ep_text(const struct mp_endpoint *ep, char buf[64]);
const char *eng_ip_text(const struct mp_addr *a, char buf[48]);

/* ---- identity.c ---- */
void eng_identity_init(struct engine *e);
/* An identity on which nobody answers: *fd (listening, drop filter) holds it; *uses: connections it was for, this one
 * included. No other pending connection has it. 0 or -errno. */
int eng_identity_open(struct engine *e, bool v6, struct mp_endpoint *id, int *fd, int *uses);
/* The connection that it was for is up: another one may have it. Takes *fd, which becomes -1. */
void eng_identity_spare(struct engine *e, const struct mp_endpoint *id, int *fd, int uses);
void eng_identity_sweep(struct engine *e, mp_time now);
void eng_identity_fini(struct engine *e);
/* A socket for the engine's end of a carrier, all its options set, bound: to *id exactly (simultaneous open), or,
 * with id->port 0, to this address and a port chosen at connect. fd or -errno. */
int eng_identity_socket(struct engine *e, const struct mp_endpoint *id);
struct mp_endpoint eng_identity_any(struct engine *e, bool v6); /* address without port */

/* ---- lowire.c ---- */
int eng_lo_is_up(struct engine *e);      /* 0, -ENETDOWN or -errno */
int eng_lo_open(struct engine *e);       /* 0 or -errno */
int eng_lo_need6(struct engine *e);      /* opens the IPv6 side on first use; 0 or -errno */
void eng_lo_close(struct engine *e);
void eng_lo_read(struct engine *e);      /* takes SYNs that wait; calls eng_carrier_on_syn */
/* Answers the SYN (of sequence number isn) that prog sent to id so that connect() fails with err, where
 * TCP can say it: ECONNREFUSED, EHOSTUNREACH, ENETUNREACH; anything else is said as ECONNREFUSED. */
void eng_lo_refuse(struct engine *e, const struct mp_endpoint *id, const struct mp_endpoint *prog, uint32_t isn, int err);

/* ---- secret.c ---- */
void *eng_secret_alloc(struct eng_secrets *s, size_t n); /* zeroed; n as at the first call; NULL: no memory */
void eng_secret_free(struct eng_secrets *s, void *p);
void eng_secrets_fini(struct eng_secrets *s);

/* ---- sockdiag.c ---- */
int eng_diag_open(void); /* fd; -1 with errno */
struct diag_sock { int state; uint32_t inode; /* 0: no process holds it */ uid_t uid; /* who opened it */ uint32_t mark; /* SO_MARK, if we may know it */ };
/* The kernel's socket with this local and remote address; a listener answers for any remote. 0, -ENOENT, -errno. */
int eng_diag_find(struct engine *e, const struct mp_endpoint *local, const struct mp_endpoint *remote, struct diag_sock *out);

/* ---- ctl.c, ctl_move.c ---- */
int eng_ctl_start(struct engine *e);
void eng_ctl_stop(struct engine *e);
struct ctl_client { uint64_t id; int fd, log_fd, verbose; uid_t uid; bool elder; }; /* a control connection; log_fd -1: none */
struct ctl_conn *eng_ctl_next(struct engine *e, struct ctl_conn *k, struct ctl_client *c); /* iterate: k NULL first */
bool eng_ctl_moved(struct engine *e); /* does what CTL_HANDOVER asked for; false: all stays here */
int eng_accept(struct engine *e, int from); /* accept4(); -1: nobody, or turned away for want of descriptors */
void eng_ctl_serve(struct engine *e); /* the control socket is ours now */
uint64_t eng_ctl_adopt(struct engine *e, const struct ctl_client *c); /* owns the descriptors; its id here */
int eng_ctl_connect(const char *path, int flags); /* to a helper; flags: of socket(2). fd or -1 */
bool eng_ctl_any(const struct engine *e);
uid_t eng_ctl_uid(const struct engine *e, uint64_t client); /* its user; this engine's own where it has gone */
int eng_ctl_log(const struct engine *e, uint64_t client, int level); /* where its messages of this level go; -1: nowhere */

/* ---- portguard.c ---- */
/* A socket that drops all that comes to this port from outside: beside the program's listener, or in its place. fd or -errno. */
int eng_guard_open(const struct mp_endpoint *at, unsigned families, bool beside);
void eng_guard_leave(int fd); /* the group of this listener chooses as the kernel does, again */

/* ---- marks.c ---- */
struct eng_marks { uint32_t mark, priority; };
struct eng_marks eng_marks_of(int fd); /* of a socket of the program's; -1: none */
void eng_marks_set(struct mpc *m, const struct eng_marks *k, mp_time now);

/* ---- listener.c ---- */
struct port_info {
    struct mp_endpoint at;
    unsigned families;
    bool live;
    int conns, guard_fd;
    pid_t pid;
    uint64_t client;
    struct ctl_req options;
    struct eng_marks marks;
    bool filtered;
};
int eng_port_listen(struct engine *e, uint64_t client, const struct ctl_req *req, int fd, enum ctl_why *why); /* 0 or -errno; fd stays the caller's */
void eng_port_check(struct engine *e, mp_time now); /* are the programs' listeners still there? now 0: ask at once */
void eng_port_check_twice(struct engine *e);         /* at once, and when a process that ends has closed all */
void eng_port_release(struct engine *e, uint16_t port);
int eng_port_keep(struct engine *e, uid_t uid, const struct ctl_req *req); /* of a helper that died: 0 or -errno */
void eng_port_accept(struct engine *e, struct port *p, struct mpc *c, mp_time now);
void eng_port_conn_get(struct port *p);
void eng_port_conn_put(struct port *p);          /* one of its connections ended; may free p */
void eng_port_waits(struct port *p, int one);    /* 1: one of them is on its way to the program's listener; -1: no more */
bool eng_port_is_crowded(const struct port *p);
void eng_port_full(struct port *p, mp_time until); /* the program's listener has just had no room: not asked again before */
bool eng_port_is_full(const struct port *p, mp_time now);
void eng_port_refused(struct port *p);           /* connect() found nobody */
bool eng_port_listens(struct port *p);           /* somebody connects: is the program's listener there? */
bool eng_port_target(const struct port *p, struct mp_endpoint *to); /* where to connect over loopback */
struct port *eng_port_next(struct engine *e, struct port *p, struct port_info *i); /* iterate: p NULL first */
bool eng_port_any(const struct engine *e);       /* live listeners exist */
/* A port of another engine: answered here from now on if it is live. Owns guard_fd. NULL: no memory. */
struct port *eng_port_adopt(struct engine *e, const struct port_info *i);
void eng_port_free_all(struct engine *e);

/* ---- carriers: carrier*.c, info.c ---- */
int eng_carrier_connect(struct engine *e, uint64_t client, const struct ctl_req *req, const struct eng_marks *marks, struct mp_endpoint *id, enum ctl_why *why);
void eng_carrier_accept(struct engine *e, uint64_t client, struct port *p, const struct ctl_req *options, const struct mp_endpoint *to, struct mpc *m);
void eng_carrier_on_event(struct engine *e, struct mpc *m, unsigned bits, mp_time now);
void eng_carrier_on_syn(struct engine *e, const struct mp_endpoint *id, const struct mp_endpoint *prog, uint32_t isn);
void eng_carriers_on_ready(struct engine *e);    /* epfd has events */
void eng_carriers_run(struct engine *e);         /* those queued, once each */
void eng_carriers_sweep(struct engine *e, mp_time now);
mp_time eng_carriers_next_look(struct engine *e);
void eng_carriers_free(struct engine *e);
struct carrier *eng_carrier_adopt(struct engine *e, const struct carrier *from, int fd, int guard_fd, struct mpc *m, struct port *p);
void eng_carrier_query(struct engine *e, const struct ctl_req *req, struct ctl_rep *rep);
void eng_conn_info(const struct mpc *m, struct ctl_conn_info *out);
void eng_carrier_info(struct engine *e, const struct ctl_req *req, struct ctl_info *out); /* info.c */
int eng_carrier_setopt(struct engine *e, const struct ctl_req *req, int fd); /* 0 or -errno; fd: the program's socket, which MPC_MARK and MPC_PRIORITY need; -1 */
int eng_carrier_use_local(struct engine *e, const struct ctl_req *req); /* 0 or -errno */
void eng_carriers_tell(struct engine *e, uint64_t client); /* writes the last lines of this client's connections */
bool eng_carriers_untold(const struct engine *e, uint64_t client); /* such lines are to come */
void eng_carriers_poke(struct engine *e, const struct port *p); /* look for ends that the loop has not heard of; p NULL: everywhere */
/* Everything that programs wrote to sockets that they have closed was acknowledged (and_closed: and the connections
 * have ended); those still open are not counted. */
bool eng_carriers_delivered(struct engine *e, bool and_closed);
bool eng_carriers_held(struct engine *e);        /* some are open, in whatever process */

/* ---- verdict.c ---- */
void eng_verdict_open(struct engine *e, uint64_t client, struct mpc *m);
void eng_verdict_end(struct engine *e, uint64_t client, struct mpc *m, int err);
void eng_plain_note(struct engine *e, const struct mpc_info *i, mp_time now); /* remembers a peer to which there is no MPTCP */
bool eng_plain_known(struct engine *e, const struct mp_endpoint *remote, mp_time now);
/* Iterates those remembered: i 0 first, then what it returned; 0: no more. */
int eng_plain_next(const struct engine *e, int i, mp_time now, struct mp_endpoint *at, mp_time *until);
void eng_plain_free(struct engine *e);

/* ---- status.c ---- */
void eng_status_send(struct engine *e, int fd);  /* owns fd */

/* ---- asksock.c ---- */
void eng_asksock_open(struct engine *e);
void eng_asksock_close(struct engine *e);
void eng_asksock_adopt(struct engine *e, int fd); /* owns fd */
int eng_asksock_next(struct engine *e, int i); /* the i-th one's descriptor; -1: no more */

/* ---- statsock.c ---- */
bool eng_is_for_us(int fd); /* at the other end is our user, or root */
void eng_statsock_open(struct engine *e);
void eng_statsock_close(struct engine *e);

/* ---- move.c ---- */
int eng_move_out(struct engine *e, int to);      /* to: a helper's control connection. 0: all is there, or -errno: nothing happened */
int eng_place_give(struct engine *e, int to);    /* only the control socket and its lock go. 0: the other one serves, or -errno */
int eng_send_fds(int to, const struct ctl_req *q, const int *fd, int n); /* 0 or -errno */
int eng_send_fds_now(int to, const struct ctl_req *q, const int *fd, int n); /* likewise, -EAGAIN and -ETOOMANYREFS too */

/* ---- move_in.c ---- */
struct move_in *eng_move_sockets(struct move_in *in, int *fd, int n); /* takes the descriptors; in NULL: the first ones; NULL: no memory */
int eng_move_check(struct engine *e, struct move_in *in, int file, uint64_t layout); /* owns file. 0 or -errno */
void eng_move_go(struct engine *e, struct move_in *in); /* takes over; in is gone */
bool eng_move_may(struct engine *e, int raw);     /* who shows this socket may take or give everything */
int eng_sockopt(int fd, int opt);                /* a number of SOL_SOCKET, or -1 */
void eng_move_drop(struct move_in *in);          /* NULL: nothing */

/* ---- keeper.c ---- */
void eng_keeper_tell(struct engine *e);          /* which listeners would be deaf without this helper; starts one, if need be */
void eng_keeper_end(struct engine *e);           /* in order */

/* ---- will.c: of an engine inside; elsewhere they do nothing ---- */
int eng_will_init(struct engine *e, const struct eng_cfg *cfg); /* 0 or -ENOMEM */
void eng_will_note(struct engine *e, const struct mpc *c, const void *flow); /* c was heard of or speaks over this flow; NULL: its first */
void eng_will_forget(struct engine *e, void *flow); /* it closes */
void eng_will_sweep(struct engine *e, mp_time now);
mp_time eng_will_next(const struct engine *e);   /* when to sweep again; MP_NEVER: when there is something new */
bool eng_will_is_told(const struct engine *e);   /* a helper has it */
void eng_will_revoke(struct engine *e, bool yes); /* all goes on elsewhere: nothing is to be said */
void eng_will_close(struct engine *e);           /* what is in it now is said */

/* ---- heir.c: of a helper ---- */
struct heir *eng_heir_new(struct engine *e, int file, int raw); /* owns file. NULL: not from one who may send all that it says */
void eng_heir_free(struct heir *h);              /* NULL: nothing; unsaid */
void eng_heir_guards(struct heir *h, int *fd, int n); /* takes those that are guards: -1 in their places */
bool eng_heir_matters(const struct heir *h);     /* there is something to say */
int eng_heir_ports(const struct heir *h);        /* guards that it has */
void eng_heir_speak(struct heir *h);             /* the program is gone: says it; h is not the caller's any more */
void eng_heirs_free(struct engine *e);

/* ---- drain.c ---- */
void eng_drain_add(struct engine *e, int fd, uint64_t ms, bool leave); /* owns fd */
void eng_drain_check(struct engine *e, mp_time now);
void eng_drain_free(struct engine *e);

#endif
