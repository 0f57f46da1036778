/* core/conn.h: one MPTCP connection (RFC 8684). Inside core/ only; the owner's view is stack.h.
 *
 * Files: conn.c life, conn_key.c keys and numbers, conn_queue.c send queue, conn_send.c what goes next and where,
 * conn_reinject.c what goes once more, conn_map.c mappings, conn_recv.c reassembly, conn_window.c the receive window,
 * conn_opt.c MPTCP options in, conn_timer.c, conn_fallback.c, conn_close.c; conn_info.c facts and options for the owner,
 * pm.c path management, pm_addr.c and pm_removal.c addresses. */
#ifndef MP_CONN_H
#define MP_CONN_H

#include "core/event.h"
#include "core/fallback.h"
#include "core/sf.h"
#include "core/stack.h"
#include "core/sched/sched.h"

enum conn_timer {
    CT_DATA_FIN,   /* DATA_FIN again until acknowledged, RFC 8684 3.3.3 */
    CT_DATA_REXMIT,/* DATA_ACK does not follow the subflows' ACKs, RFC 8684 3.3.6 */
    CT_ADD_ADDR,   /* ADD_ADDR again until echoed, RFC 8684 3.4.1 */
    CT_ORPHAN,     /* no subflow left: break-before-make ends, RFC 8684 3.5 */
    CT_PM,         /* path manager: try paths again */
    CT_LINGER,     /* the owner left: bound on finishing alone */
    CT_SILENCE,    /* the stream stands still: is one of its paths dead? (silence.c) */
    CT_RECALL,     /* an address removed for silence is announced again (recall.c) */
    CT_RACE,       /* no answer to the first SYN: another path is asked (race.c) */
    CT_USER,       /* TCP_USER_TIMEOUT: data has waited for its DATA_ACK so long, RFC 5482, RFC 9293 3.8.3 */
    CT_DOUBT,      /* a wrong checksum on the only subflow: no other has come (doubt.c) */
    CT_COUNT
};

#define PM_MAX_REMOTE 8
#define PM_MAX_LOCAL 16
#define PM_MAX_PATHS 16
#define PM_NO_ID 255        /* a local address that no number is left for */
struct pm_remote {          /* an address of the peer (ADD_ADDR); [0] is the initial one */
    uint8_t id;
    bool used;
    struct mp_endpoint at;
    bool answered;          /* a subflow to it was, by one who has the keys */
};
struct pm_announce {        /* an own address told to the peer */
    uint8_t id;
    struct mp_endpoint at;
    bool pending, echoed;
    bool told, copied;      /* once; twice within the first round trip, or that is not needed */
    uint8_t tries;
    mp_time due;            /* when it is told again */
    uint8_t recalls;        /* removed for silence, and how often since without a join; 0: not (recall.c) */
    bool removed;           /* REMOVE_ADDR was the latest word */
    mp_time told_at, recall_at; /* when the other was; the next step */
};
struct pm_retry {           /* a (local, remote) pair that failed: when to try again */
    int ifindex;
    struct mp_addr local;
    struct mp_endpoint remote;
    int fails;
    bool up;                /* was established and died: a re-creation */
    bool spoils;            /* a middlebox there broke a subflow: what comes over it may not be the peer's word */
    bool silent;            /* given up unasked: its SYNs go out often, until it answers again (silence.c) */
    bool barred;            /* the peer reset it for a lasting reason: not again while another path works, RFC 8684 3.6 */
    bool vain;              /* nobody took it up: RFC 8684 3.4.1 (pm_sf_failed) */
    mp_time not_before;
};

struct reinj {              /* [start,end) waits to be sent again, on another subflow than `from` if possible */
    mp_dsn start, end;
    int from;               /* subflow id */
    struct reinj *next;
};

struct mpc {
    struct mp_stack *st;
    struct mpc *next, **pprev;         /* all connections */
    struct mpc *tok_next;              /* token table */
    struct mpc *ready_next, *event_next;
    bool in_ready, in_event, in_token;
    int heap_at;                       /* index + 1 in the stack's deadline heap; 0: not in */
    void *owner;
    struct sf *sfs;                    /* owned list */
    struct mp_chunk *snd_first, *snd_last, *snd_cur; /* queue; snd_cur holds snd_nxt */
    struct mp_rangemap ooo;            /* received beyond rcv_nxt, keyed by dsn */
    struct mp_slice *rxq;              /* ring of in-order bytes not yet consumed */
    uint32_t rxq_head, rxq_n, rxq_cap;
    struct reinj *reinj;
    struct mpc_path_info *paths;       /* v.npaths of them, as the next v.nretry; owned; most connections have few or none */
    struct pm_retry *retry;
    const struct mp_cc *cc;
    const struct mp_sched *sched;
    uint64_t mem_counted;              /* of what was received, in the stack's total: mem.c */
    struct mp_chunk *spare;            /* filled beyond the last chunk by mpc_write_iov's caller */

    struct mpc_pod {
        bool server, established, released, nodelay, cork, keepalive;
        uint64_t made;                 /* counts the stack's connections: of equal deadlines the elder's is first */
        int err;
        unsigned events;
        enum fb_state fb;
        enum mp_plain_why why;
        bool strict;                   /* the owner wants no plain TCP: a fallback ends the connection */
        bool offered;                  /* MP_CAPABLE in our SYN or in the one answered */
        uint8_t version;
        bool csum;                     /* DSS checksums agreed */
        bool no_join_initial;          /* peer's C flag */
        bool peer_key_known;
        uint64_t key_local, key_remote;
        uint32_t token_local, token_remote;
        uint64_t idsn_local, idsn_remote;
        uint64_t tx_off, rx_off;       /* 64-bit numbers on the wire are ours plus this: see conn_dsn_in */
        struct mp_endpoint local, remote;
        mp_time opened;
        /* send, in dsn; snd_una <= snd_nxt <= snd_end */
        mp_dsn snd_una, snd_nxt, snd_end;
        mp_dsn snd_edge;               /* right edge of the peer's connection-level window */
        bool window_told;              /* the peer has sent a DATA_ACK: its window is surely relative to that */
        bool tx_plain, rx_plain;       /* no more DSS in that direction */
        uint64_t tx_plain_off;         /* dsn - ssn when tx_plain */
        bool infinite_pending;         /* next data carries the infinite mapping */
        int race_if[8], nrace;         /* interfaces that the first SYN was sent over */
        bool race_fresh;               /* and from another port */
        int race_err;                  /* errno of an attempt of the first SYN that ended while others go on */
        bool shut;                     /* owner said: no more data */
        bool fin_sent, fin_acked;      /* DATA_FIN at snd_end */
        bool peer_fin;                 /* the peer's DATA_FIN position is known */
        mp_dsn peer_fin_dsn;
        bool fin_consumed;             /* rcv_nxt passed it */
        /* receive */
        mp_dsn rcv_nxt, rcv_edge;
        uint64_t rxq_bytes;
        bool ack64;                    /* the peer uses 64-bit numbers */
        bool writable_wanted;
        bool sent_twice;               /* data was reinjected: subflow and data numbers differ by more than a constant */
        bool peer_twice;               /* the peer's do: it sent data twice on its first subflow */
        bool mp_fail_pending; mp_dsn mp_fail_dsn;
        bool mp_fail_told;             /* MP_FAIL was sent; again while the peer goes on with mappings */
        int mp_fail_more;              /* or on so many more ACKs, as its mappings do not come through */
        bool peer_failed;              /* it has sent MP_FAIL or an infinite mapping */
        bool acks_go_on;               /* plain, and the peer not surely so: ACKs bear DATA_ACKs until its infinite mapping */
        bool ack_its_end;              /* the next one acknowledges a DATA_FIN that may have come */
        bool closing;                  /* subflow FINs are on their way */
        uint64_t rcvbuf, sndbuf;       /* limits, bytes */
        uint64_t rcv_space;            /* the window offered now, <= rcvbuf: conn_window.c */
        mp_time stuck_since;           /* while data waits behind a hole: when rcv_nxt last moved, or that data came */
        int hasty;                     /* paths called silent that were not: patience doubles with each */
        uint64_t rx_total, rx_mark;    /* new bytes received ever / at rx_mark_at */
        mp_time rx_mark_at;
        double rx_rate;                /* bytes per ns, the recent maximum */
        struct {                       /* a slow path that holds the stream up: hol.c */
            int state, spans;
            double idling;             /* part of the time that the fast path idled lately */
            int path;                  /* the subflow's id, once asked for */
            mp_dur rtt;                /* its least */
            mp_dsn from;               /* the window's edge when the paths first were so uneven */
            bool waiting; mp_time last;/* behind a hole: what came over another path than that one; when */
            uint64_t bytes; mp_dur idle; mp_time at; /* in the present span, which began at */
            double before, after, best;/* bytes per ns: lately, before and after it was asked; the most in a span, fading slowly */
            uint64_t over, all;        /* bytes over that path, over all of them, since it was asked */
            mp_time told; mp_dur every;/* MP_PRIO went out last; so long a backup between two moments of use */
            int unseen; bool fits;     /* spans until the last change shows; that was found which nearly holds the stream up */
        } hol;
        uint32_t max_seg;              /* TCP_MAXSEG: bytes of options and payload, offered and used at most; 0: the path's */
        uint8_t tos, ttl;              /* of our packets; ttl 0: the host's default */
        uint32_t mark, priority;       /* SO_MARK, SO_PRIORITY: what this host goes by, nothing on the wire */
        uint8_t families;              /* server: of addresses where the listener can be reached, 1 v4, 2 v6; 0: only its own */
        uint32_t keepidle_s, keepintvl_s, keepcnt, user_timeout_ms;
        bool initial_removed;          /* REMOVE_ADDR of id 0 was sent */
        bool takes_addrs;              /* server: the client has joined an address that it knew by ADD_ADDR */
        int sf_ids, sf_ever;
        int joins_answered;            /* joins' SYNs: their sender may hold two subflows by now, and then never falls back */
        struct pm_remote remotes[PM_MAX_REMOTE];
        struct pm_announce announce[PM_MAX_REMOTE];
        struct { uint8_t id; uint16_t port; struct mp_addr ip; } echo[4]; int necho;
        struct mp_addr id_map[PM_MAX_LOCAL]; /* the local addresses that have the ids 1, 2, ...; family 0: none yet */
        struct mp_addr barred[PM_MAX_LOCAL]; /* local addresses that the owner left: mpc_use_local; family 0: free */
        int npaths, nretry;
        uint64_t bytes_read, reinjected_bytes;
        mp_time data_sent_at, data_recv_at; /* 0: never */
        mp_time unacked_since;         /* while data is unacknowledged: its first byte's sending, or the last DATA_ACK's coming */
        struct mp_sched_mem sched_mem;
        uint64_t window_blocked;       /* times that the peer's window alone stopped new data */
        mp_dur linger;                 /* the owner left: so long may data wait without getting on; 0: all has been acknowledged, or no bound */
        int data_rexmits;
        int data_stuck;                /* times that the only subflow had delivered all and the DATA_ACK was not there */
        mp_time last_data_ack;         /* of something new */
        mp_time data_ack_heard;        /* of anything */
        int barren;                    /* subflows that came up and died while data waited, and no DATA_ACK moved */
        mp_time barren_since;          /* when the first of these died */
        int vain;                      /* client: times that nothing was left since the stream last moved, after the first */
        mp_time vain_since;            /* when that was */
        uint64_t vain_at;              /* snd_una + rcv_nxt then */
        mp_time timer[CT_COUNT];
    } v;
};

/* ---- conn.c ---- */
struct mpc *conn_new(struct mp_stack *st, bool server, mp_time now);
void conn_free(struct mpc *c);
void conn_sf_established(struct mpc *c, struct sf *s, mp_time now);
void conn_sf_gone(struct mpc *c, struct sf *s, int err, mp_time now);
void conn_orphan_look(struct mpc *c, mp_time now);
int conn_nlive(const struct mpc *c);                    /* subflows that are synchronised or opening */
int conn_nsync(const struct mpc *c);                    /* synchronised ones, over which the rest of the peer's stream may come */
bool conn_abandoned(const struct sf *s);                 /* the peer has closed it, and has not ended its stream: that comes over another one or not at all */
struct mp_cc_group conn_cc_group(struct mpc *c, struct sf *self);
#define conn_mp(c) ((c)->v.offered && (c)->v.fb != FB_PLAIN)
bool conn_single(const struct mpc *c);                   /* one subflow ever at either end, nothing sent twice: it could be plain TCP */
void conn_ask_window(struct mpc *c);                     /* a second subflow is up: conn_send.c, keep_first_flight */
bool conn_may_send_twice(const struct mpc *c);           /* the peer cannot fall back any more, and take it for new */
bool conn_join_open(const struct mpc *c);                /* a join is under way and not yet decided */
bool conn_unheard(const struct mpc *c);                  /* no DATA_ACK for data of ours has ever come */
bool conn_any_other(const struct mpc *c, const struct sf *s); /* another subflow works */

/* ---- conn_key.c ---- */
void conn_new_keys(struct mpc *c);                      /* draws key_local until its token is free */
bool conn_use_key(struct mpc *c, uint64_t key);          /* this one; false: its token is taken */
void conn_set_peer_key(struct mpc *c, uint64_t key);
/* Of the version that this connection speaks: SHA-256, or version 0's SHA-1. */
void conn_key_derive(const struct mpc *c, uint64_t key, uint32_t *token, uint64_t *idsn);
void conn_join_hmac(const struct mpc *c, bool ours, uint32_t nonce_own, uint32_t nonce_peer, uint8_t out[32]); /* 20 bytes count */
/* Data sequence numbers wrap at 2^64 (RFC 8684 3.3.1) and an IDSN may lie anywhere. Inside core/ a connection's numbers
 * begin below 2^63 and never wrap: the IDSN's top bit is kept aside, and goes off and on again at the options. */
#define DSN_TOP ((uint64_t)1 << 63)
void conn_dsn_in(const struct mpc *c, struct mp_opts *o);
void conn_dsn_out(const struct mpc *c, struct mp_opts *o);

/* ---- conn_fallback.c ---- */
enum fb_action conn_fallback(struct mpc *c, struct sf *s, enum fb_event e, enum mp_plain_why why, mp_time now);
bool conn_untold(const struct mpc *c);

/* ---- conn_close.c ---- */
bool conn_finished(const struct mpc *c);
void conn_close_check(struct mpc *c, mp_time now);      /* moves the closing along */
void conn_fail(struct mpc *c, int err, mp_time now);    /* the connection ends in error; subflows are reset */
void conn_reap(struct mpc *c, mp_time now);             /* frees dead subflows, and the connection when it is over */

/* ---- conn_timer.c ---- */
void conn_tick(struct mpc *c, mp_time now);
mp_time conn_deadline(const struct mpc *c);
void conn_arm_data_timer(struct mpc *c, mp_time now);

/* ---- conn_queue.c ---- */
uint64_t conn_queued(const struct mpc *c);              /* bytes not yet sent once */
struct mp_chunk *conn_chunk_at(struct mpc *c, mp_dsn dsn);
void conn_data_ack(struct mpc *c, struct sf *s, uint64_t ack, bool is64, mp_time now);
void conn_plain_ack(struct mpc *c, struct sf *s, mp_time now);
void conn_set_edge(struct mpc *c, mp_dsn edge);

/* ---- conn_send.c ---- */
bool conn_poll(struct mpc *c, struct mp_pkt *out, mp_time now);
bool conn_fin_due(const struct mpc *c);
void conn_send_data_fin(struct mpc *c);                 /* a bare DATA_FIN on every subflow: one of them may be dead */

/* ---- conn_reinject.c ---- */
void conn_reinject(struct mpc *c, struct sf *s, mp_time now); /* queue all of its unacknowledged data for others */
void conn_reinject_range(struct mpc *c, mp_dsn start, mp_dsn end, int from);
void conn_reinject_cancel(struct mpc *c, int from);     /* that subflow delivers again: what has not gone out stays with it */
void conn_reinject_drop(struct mpc *c);                  /* all that waits */
void conn_reinject_gaps(struct mpc *c, int from);       /* what no subflow holds any more */
struct reinj *conn_reinject_next(struct mpc *c);         /* the first that is still of use; NULL: none */
mp_dsn conn_needed_from(const struct mpc *c, const struct sf_seg *g); /* where g must begin to be of use elsewhere */

/* ---- stack_table.c ---- */
void conn_touch(struct mpc *c);                         /* something changed: poll and deadline again */
void conn_event(struct mpc *c, unsigned bits);

/* ---- receiving: conn_map.c, conn_recv.c, conn_window.c ---- */
bool conn_sf_mapping(struct mpc *c, struct sf *s, const struct mp_opts *o, mp_ssn ssn, mp_time now); /* false: take no bytes of this segment */
bool conn_sf_data(struct mpc *c, struct sf *s, mp_ssn ssn, struct mp_slice *d, mp_time now); /* in-order subflow bytes; false: subflow ended */
void conn_cut_joined(struct mpc *c, struct sf *s, mp_ssn ssn, struct mp_slice *d); /* of data behind a hole what may be kept */
bool conn_mapping_done(struct mpc *c, struct sf *s, mp_time now); /* the first mapping has all its bytes; false: no more are taken now */
void conn_flush_held(struct mpc *c, struct sf *s, mp_time now); /* what waited for a checksum is delivered without one */
void sf_drop_held(struct sf *s);
mp_dsn conn_in_order(const struct mpc *c);              /* rcv_nxt, and what has come behind it of a mapping that is not complete */

void conn_receive(struct mpc *c, mp_dsn dsn, struct mp_slice d, mp_time now); /* new or old, in order or not. d: borrowed */
void conn_peer_fin(struct mpc *c, mp_dsn at, mp_time now);
void conn_plain_eof(struct mpc *c, mp_time now);

void conn_autotune(struct mpc *c, uint32_t bytes, mp_time now); /* so many new ones came */
uint64_t conn_rcv_space(const struct mpc *c);           /* bytes of window to offer */
uint64_t conn_rcv_edge(struct mpc *c);                  /* moves and returns the window's right edge */

/* ---- doubt.c ---- */
bool conn_doubt(struct mpc *c, struct sf *s, mp_time now); /* true: a mapping whose checksum is wrong waits for another path */
void conn_doubt_look(struct mpc *c, mp_time now);         /* a join came up or ended */
void conn_doubt_tick(struct mpc *c, mp_time now);
/* ---- hol.c ---- */
void hol_data(struct sf *s, mp_dsn dsn, uint32_t bytes, mp_time now); /* bytes from a subflow, before they are taken */
void hol_buffer_changed(struct mpc *c, mp_time now);

/* ---- conn_opt.c ---- */
bool conn_options_in(struct mpc *c, struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_time now); /* false: subflow ended */
bool conn_bare_for_long(const struct sf *s, mp_time now); /* ACKs without options are all that came while the peer's own may be late */

/* ---- race.c ---- */
void race_start(struct mpc *c, int ifindex, mp_time now); /* a SYN is out: others follow if it stays unanswered */
void race_look(struct mpc *c, mp_time now);             /* there may be another path to ask */
void race_hurry(struct mpc *c, mp_time now);            /* its path is gone: the next at once */
void race_tick(struct mpc *c, mp_time now);
void race_without_option(struct mpc *c, mp_time now);  /* the SYN goes without MP_CAPABLE */
void race_over(struct mpc *c, struct sf *s, mp_time now); /* s has an answer: the connection's first subflow; NULL: given up */
bool race_goes_on(struct mpc *c, const struct sf *s, int err, mp_time now);
bool race_is_lost(const struct sf *s);

/* ---- silence.c ---- */
void silence_hole(struct mpc *c, mp_time now);
void silence_over(struct sf *s, mp_time now);           /* before s's last_recv is set */
void silence_echo(struct sf *s, const struct mp_opts *o, mp_time now); /* data has come, with these options */
#define SILENCE_KNOCK MP_MS(500)                        /* between SYNs over a path found silent */
void silence_ended(struct sf *s, mp_time now);
void silence_answered(struct mpc *c, mp_dur after);     /* a path that was called silent, so long after the verdict */
void silence_tick(struct mpc *c, mp_time now);

/* ---- withheld.c ---- */
void withheld_look(struct mpc *c, mp_time now);         /* routes or rules have changed */

/* ---- recall.c ---- */
bool recall_possible(const struct mpc *c, const struct sf *s); /* if its address is removed, the client will come back to it */
void recall_begin(struct sf *s, mp_time now);           /* its path is silent: its address is removed */
void recall_ask(struct sf *s, mp_time now);
void recall_heard(struct sf *s, mp_time now);
void recall_joined(struct sf *s, mp_time now);
void recall_tick(struct mpc *c, mp_time now);

/* ---- pm.c, pm_addr.c, pm_removal.c ---- */
void pm_tell_removed(struct mpc *c, uint8_t id);        /* REMOVE_ADDR over all subflows of other addresses */
void pm_tell_aside(struct mpc *c, struct sf *s);        /* the same over s, which has come up, for all that is set aside */
void pm_withdraw_removal(struct mpc *c, uint8_t id);    /* where it is not told yet */
void pm_set_aside(struct mpc *c, struct sf *s, mp_time now); /* its link is gone, or what stands for that */
void pm_kick(struct sf *s, mp_time now);                /* it is back */
void pm_ready(struct mpc *c, mp_time now);              /* fully established: announce, join */
void pm_run(struct mpc *c, mp_time now);                /* open what is missing */
enum { PM_RESCUE = 3 }; /* time-outs in a row after which a second subflow is tried over the same path */
void pm_in_trouble(struct mpc *c, mp_time now);         /* a subflow has had so many */
bool pm_rescue(struct mpc *c, const struct sf *s, mp_time now); /* a second subflow between the addresses of s; false: not possible, or not yet again */
void pm_local_added(struct mpc *c, const struct mp_local *l, mp_time now);
void conn_arm_user_timeout(struct mpc *c); /* conn.c */
void pm_routes_changed(struct mpc *c, mp_time now);
void pm_local_removed(struct mpc *c, int ifindex, const struct mp_addr *ip, mp_time now);
void pm_add_addr_in(struct mpc *c, const struct mp_opt_add_addr *a, mp_time now);
void pm_remove_addr_in(struct mpc *c, uint8_t id, mp_time now);
bool pm_path_spoils(struct mpc *c, const struct sf *s);
void pm_tick_removed(struct sf *s, mp_time now);
void pm_sf_failed(struct mpc *c, struct sf *s, bool was_up, int err, mp_time now);
void pm_answered(struct mpc *c, const struct sf *s);       /* by the peer itself: its HMAC is right */
void pm_vain_over(struct mpc *c, mp_time now);           /* joins have a chance again: none waits for what ended before */
bool pm_is_barred(struct mpc *c, const struct mp_addr *ip); /* the owner has left this local address */
uint8_t pm_local_id(struct mpc *c, const struct mp_addr *ip);
void pm_tick_add_addr(struct mpc *c, mp_time now);
struct pm_announce *pm_announce_of(struct mpc *c, uint8_t id); /* its place, or a free one (family 0); NULL: none */
void pm_announce_now(struct mpc *c, struct pm_announce *a, mp_time now);
void pm_announce_all(struct mpc *c, mp_time now);      /* a server's other addresses */
bool pm_control_pending(const struct mpc *c);
struct mpc_path_info *pm_path(struct mpc *c, const struct sf *s);

#endif
