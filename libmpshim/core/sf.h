/* core/sf.h: one TCP subflow (RFC 9293) of a connection. Inside core/ only.
 *
 * Files: sf.c life and timers, sf_in.c a segment in (sf_in.h: and the files that it hands it to), sf_board.c scoreboard, sf_loss.c
 * ACKs and loss, sf_rto.c time-outs, sf_recovery.c what follows a loss, sf_ecn.c ECN, sf_out.c segments out, of which sf_data.c those
 * with data and sf_ack.c pure ACKs.
 * Sequence numbers are mp_ssn (base.h): expanded, relative to the initial one, compared with "<". */
#ifndef MP_SF_H
#define MP_SF_H

#include "core/cc/cc.h"
#include "core/opt.h"
#include "core/pkt.h"
#include "core/rangemap.h"

struct mpc;
struct mp_stack;

enum { WSCALE = 8 }; /* of our windows, RFC 7323 2: 65535 << 8 = 16 MB */
enum { SF_QUICK_ACKS = 16 }; /* segments acknowledged one by one, at the start and after a hole: as many as Linux does */

/* RFC 5961 7: between two challenge ACKs of a subflow, and between two answers to ACKs that do not fit. (There: ten in 5 s.) */
#define SF_CHALLENGE_EVERY MP_MS(500)

enum sf_state { /* RFC 9293 3.3.2 */
    SF_CLOSED, SF_SYN_SENT, SF_SYN_RCVD, SF_ESTABLISHED, SF_FIN_WAIT_1, SF_FIN_WAIT_2,
    SF_CLOSE_WAIT, SF_CLOSING, SF_LAST_ACK, SF_TIME_WAIT,
};
const char *sf_state_name(enum sf_state s);

enum sf_timer {  /* what each timer is for */
    SFT_REXMIT,    /* retransmission, RFC 6298; also SYN and FIN */
    SFT_PROBE,     /* tail loss probe, RFC 8985 7 */
    SFT_REORDER,   /* RACK: a segment becomes lost by time, RFC 8985 6.2 */
    SFT_DELACK,    /* delayed ACK, RFC 9293 3.8.6.3 */
    SFT_PERSIST,   /* zero-window probe, RFC 9293 3.8.6.1 */
    SFT_JOIN_ACK,  /* third ACK of MP_JOIN again until the fourth, RFC 8684 3.2 */
    SFT_STALL,     /* its ACKs may be overdue: overdue.c */
    SFT_KEEPALIVE, /* RFC 9293 3.8.4 */
    SFT_QUIET,     /* data stopped in mid-flow: has the path forgotten us? rescue.c */
    SFT_PACE,      /* the next data may leave: pace.c */
    SFT_ASK,       /* the path was silent: is it still? recall.c */
    SFT_REMOVED,   /* REMOVE_ADDR came: does the path still answer? RFC 8684 3.4.2 */
    SFT_TIME_WAIT, /* RFC 9293 3.6.1; also bounds FIN_WAIT_2 of an ended connection */
    SFT_COUNT
};

/* A chunk of the connection's send queue; contiguous in dsn, full except the last. */
struct mp_chunk {
    uint32_t refs;
    uint32_t len;          /* bytes filled */
    mp_dsn dsn;            /* of data[0] */
    struct mp_chunk *next; /* the following in the queue, or free list */
    uint8_t *data;         /* MP_CHUNK_SIZE bytes */
};
#define MP_CHUNK_SIZE 65536u

/* What was sent and is not cumulatively acknowledged. [start,end) in ssn; SYN and FIN count one. */
struct sf_seg {
    struct sf_seg *prev, *next;
    struct mp_chunk *chunk; /* counted; holds dsn, and its successor the rest; NULL: no data */
    struct mp_chunk *chunk2;/* counted */
    mp_ssn start, end;
    mp_dsn dsn;             /* of the byte at start */
    uint32_t len;           /* data bytes: end - start less SYN/FIN */
    /* the mapping it was first sent with (RFC 8684 3.3.1): repeated unchanged */
    mp_ssn map_ssn;
    mp_dsn map_dsn;
    uint16_t map_len, map_csum; /* len with DATA_FIN; 0: none */
    bool map_fin;
    bool syn, fin, sacked, lost, probed;
    bool mtu_probe;         /* one packet larger than the MTU in use: pmtu.c */
    bool infinite;          /* carries the infinite mapping, again when sent again */
    bool lent;              /* also sent on another subflow, opportunistically */
    uint8_t sent_count;
    mp_time sent;           /* latest transmission */
    mp_time first;          /* the first one */
};

struct sf_mapping {         /* received, waiting for its bytes */
    mp_ssn ssn;
    mp_dsn dsn;
    uint32_t len;           /* data bytes, DATA_FIN not counted */
    bool fin, has_csum;
    uint16_t csum;
};
/* Most out-of-order mappings that a peer may make us keep. */
#define SF_MAX_MAPPINGS 16384 /* one for each out-of-order segment at worst; power of two */
#define SF_MAX_HOLD 64u       /* pieces; beyond that they are copied into one */

/* Of a path that is full in both directions: duplex.c. The zero of all clocks is the first ACK's. */
struct sf_way {                   /* one direction of it */
    int32_t least, least_before; mp_time least_at; /* ms from clock to clock: the least since least_at, and before it */
    mp_dur queue;                 /* what the latest took above the least */
};
struct sf_duplex {
    bool on;                      /* this round trip: data goes both ways */
    bool odd;                     /* the peer's timestamps are not milliseconds */
    mp_time at; uint32_t ts_val, ts_ecr; /* the first ACK's */
    uint32_t peer_ms;             /* the peer's clock, by the latest ACK */
    struct sf_way there, back;
    mp_dur queue;                 /* there, smoothed */
    uint64_t received, acked;     /* bytes, when the round trip began */
    uint64_t rate, rate_last;     /* bytes per ms of the peer's clock: the larger of the last two round trips', the last one's */
    uint32_t rate_ms; uint64_t rate_mark; /* the peer's clock and v.delivered when this round trip began */
};

struct sf {
    /* -- links -- */
    struct sf *next;          /* connection's list */
    struct sf *hash_next;     /* stack's 4-tuple table */
    struct mpc *c;            /* borrowed */
    struct mp_stack *st;
    void *flow;               /* io's handle, owned: closed with the subflow */
    struct sf_seg *seg_head, *seg_tail; /* scoreboard, in ssn order, owned */
    uint32_t nseg;            /* so many in it */
    struct mp_rangemap ooo;   /* received beyond rcv_nxt, keyed by ssn */
    struct sf_mapping *map;   /* ring of nmap, ascending ssn; owned; NULL until needed */
    struct mp_slice *hold;    /* bytes of the current mapping held until its checksum is known: v.nhold of hold_cap; owned; NULL until needed */
    uint32_t hold_cap;

    /* -- plain data: all from here to the end is saved and loaded as it is -- */
    struct sf_pod {
        int id;               /* index within the connection's life */
        struct mp_endpoint local, remote;
        int ifindex;
        char ifname[16];
        enum sf_state state;
        bool passive, initial;
        bool mute;            /* its SYN was raced by another: it only waits to reset a late answer */
        bool backup_local, backup_remote;
        bool backup_asked;    /* the peer is to keep off it, not we: hol.c */
        uint8_t addr_id_local, addr_id_remote;
        bool dead;            /* to be freed: no packet goes in or out */
        /* send */
        uint32_t iss, irs;    /* wire numbers of ssn 0 */
        uint32_t ts_offset;   /* of our timestamps: timestamp.c */
        mp_ssn snd_una, snd_nxt;
        uint64_t snd_wnd;     /* bytes from snd_una that the peer's segment allowed (subflow level) */
        uint64_t snd_wnd_max; /* the largest of these, RFC 5961 5 */
        mp_ssn snd_wl1, snd_wl2;
        uint8_t snd_wscale, rcv_wscale;
        uint8_t syn_wscale;   /* offered in our SYN */
        bool ts_on, sack_on;
        uint32_t mss;         /* payload bytes a segment, options at their largest taken off */
        uint32_t peer_mss, mtu;
        uint32_t mtu_link;    /* the interface's */
        uint32_t mtu_before;  /* before time-outs made us suspect that large packets vanish; 0: not suspected, or found true */
        uint32_t mtu_tried;   /* the smaller one that was tried and given up since the last progress; 0: none */
        uint32_t mtu_hi;      /* the most that the path may carry, while that is searched; 0: it is not */
        uint32_t mtu_probe;   /* size of the probe in flight; 0: none */
        uint32_t mtu_next;    /* the next data, if it has so many bytes, is a probe */
        int mtu_fails; bool mtu_whole; /* losses of this size; the next probe is mtu_hi itself */
        mp_time mtu_wait, mtu_again; /* no probe before; a new search then */
        uint64_t pipe;        /* bytes in flight: sent, not sacked, not lost */
        bool fin_queued, fin_sent, fin_acked, fin_received;
        mp_ssn fin_ssn_in;
        bool fin_bare;        /* the peer's FIN had no MPTCP option */
        bool tw_asked;        /* in TIME_WAIT a SYN came that could not follow, and was answered by an ACK */
        bool reset_pending;
        bool barred;          /* the peer's reset named a lasting reason */
        uint8_t reset_reason; bool reset_transient, reset_fastclose;
        bool reset_sent; uint32_t reset_seq; /* answering late segments with the same reset for a while; wire number */
        /* receive */
        mp_ssn rcv_nxt;
        mp_ssn rcv_adv;       /* right edge advertised on this subflow, never moves back */
        mp_dsn adv_edge;      /* the connection's edge as last told here */
        uint32_t ts_recent; mp_time ts_recent_at;
        uint32_t ts_old, ts_mark; mp_ssn ts_mark_at; /* TS.Recent as it was some 2^28 bytes ago: sf_in.c */
        mp_ssn last_ack_sent;
        bool ack_now; uint32_t ack_bytes; /* bytes since the last ACK sent */
        int quick_acks;       /* so many segments more are each acknowledged at once */
        mp_ssn sack_recent[3];/* start points of the most recent out-of-order arrivals */
        bool dsack; mp_ssn dsack_l, dsack_r;
        uint32_t map_head, nmap, map_cap;
        uint32_t nhold; uint64_t hold_bytes;
        /* RTT, RTO (RFC 6298) */
        mp_dur srtt, rttvar, rto, min_rtt;
        int backoff;          /* consecutive time-outs */
        int reverts;          /* of them, those that a router has explained: they double nothing (RFC 6069) */
        int persists;         /* probes of a shut window since data was last sent */
        /* RACK and recovery */
        mp_time rack_xmit; mp_ssn rack_end; mp_dur rack_rtt;
        bool reordering_seen;
        uint32_t reo_wnd_mult, reo_wnd_persist; /* min_rtt/4 more in the reordering window; recoveries it lasts */
        mp_ssn dsack_round;   /* one widening a round trip */
        uint64_t dsack_bytes; /* ever reported as come twice */
        mp_ssn fack;          /* highest sacked or acked */
        mp_ssn recovery_point;/* recovery ends when snd_una reaches it */
        bool in_recovery, in_rto;
        int dup_acks;         /* in a row, that tell of no SACK */
        bool by_dup_acks;     /* this recovery goes by them: NewReno, RFC 6582 */
        uint64_t sacked_bytes;
        mp_ssn round_end;     /* a new round trip begins when this is acked */
        bool probe_out; mp_time probe_due; /* TLP in flight; when its answer should be here */
        bool cwnd_limited;
        uint64_t prr_delivered, prr_out, prr_flight; /* PRR, bytes since recovery began; RecoverFS */
        uint64_t prr_credit;  /* duplex_credit() when it began: the most that counts in it */
        uint64_t prr_cwnd;    /* the window while in_recovery, RFC 9937 */
        bool undo_on;         /* the latest reduction may still turn out needless */
        mp_ssn undo_from;     /* snd_una when it was made */
        uint64_t undo_sent, undo_bytes; /* sent again since; of these, not reported as duplicates */
        uint32_t rexmit_ts;   /* timestamp of the first retransmission of this recovery; 0: none yet (RFC 3522) */
        mp_ssn rexmit_ssn;    /* and its start */
        uint32_t original_ts; /* timestamp of what was sent again there, when it was last sent before */
        mp_ssn probe_end;     /* snd_nxt at the tail loss probe until its fate is known; 0: none (TLP.end_seq) */
        uint32_t probe_ts, probed_ts; /* of the probe, and of what it repeats when that was sent before */
        bool probe_needless;  /* the original has arrived */
        enum { SF_FRTO_OFF, SF_FRTO_HEAD, SF_FRTO_NEW } frto; /* after a time-out: the head, then new data was sent, RFC 5682 */
        /* ECN, RFC 3168: sf_ecn.c */
        bool ecn_offered, ecn_on; /* our SYN asked for it; both ends can */
        bool ecn_no_ect;      /* we send without: a SYN without the offer went out, or the path does not bear it */
        int ecn_missed;       /* losses since data that was sent once has arrived */
        bool ecn_echo;        /* CE was seen: ECE in every ACK until CWR comes */
        bool ecn_cwr;         /* the next new data tells of a reduction */
        mp_ssn ecn_point;     /* snd_nxt at the latest reduction: no other before this is acknowledged */
        int ecn_floor;        /* marked windows in a row at the smallest window */
        mp_time last_sent, last_recv, last_progress;
        mp_time last_fit;     /* when a segment came and nothing sent before it was missing */
        mp_time last_new;     /* likewise, one with data that had not come yet; 0: never */
        mp_time data_sent_at, data_recv_at; /* for people; none yet: when it was opened */
        mp_time misfit_at;    /* when a segment without data that does not fit was last answered; 0: never */
        uint32_t misfits;     /* segments that do not fit, long after the last one that did */
        mp_time misfit_since; /* when the first of these came */
        uint64_t quiet_bytes; /* received since the last silence that was asked about */
        int quiet_probes;     /* unanswered so far */
        mp_time quiet_since;  /* last_fit when the first of them went out */
        mp_dur wait_peak; mp_time wait_peak_at; /* longest that the stream waited for it, and when: silence.c */
        mp_dur echo;          /* so long ago we sent what the latest data drew, at most a second (RFC 7323); 0: unknown: silence.c */
        mp_time asked_at; uint64_t asked_rx; /* when its path was asked whether it lives; the connection's rx_total then */
        bool silent;          /* it did not answer: a client's is reset, a server's address removed; (a join) asks whether its path answers again */
        bool heard_bare;      /* the latest segment that fitted had no MPTCP option */
        bool rescued;         /* a fresh subflow over the same path was asked for */
        /* delivery rate, for the scheduler: bytes acknowledged or sacked, a sample each round trip */
        uint64_t rate, delivered; /* bytes a second, 0: unknown; bytes ever */
        uint64_t rate_mark; mp_time rate_at; mp_ssn rate_end;
        mp_time pace_next;    /* when all that was sent has left at the pacing rate: pace.c */
        mp_dsn repeat_next;   /* a scheduler that repeats: this path has carried all before it */
        mp_time penalised;    /* M2: when its window was last halved for holding the connection up */
        struct sf_duplex duplex;
        struct mp_cc_state cc;
        /* MPTCP */
        mp_dur rtt_syn, rtt_ack; /* of the handshake; of the latest ACK, if data sent once drew it (else 0) */
        mp_dsn acked_dsn;       /* end of the data that drew the latest ACK */
        bool stale;
        bool draining;          /* what waited behind a hole is being delivered */
        uint64_t unmapped_until; /* bytes without a mapping are taken until so many were received */
        bool aside;             /* its link or address is gone for now, or: */
        bool withheld;          /* routing lets nothing of it out: withheld.c */
        bool join_done;         /* join: fourth ACK seen (or passive: HMAC verified) */
        mp_time doubted;        /* when a checksum was first found wrong, and another path waited for (doubt.c); 0: never */
        bool ack_seen;          /* passive: an ACK came that is not the third one */
        bool fully;             /* may carry data at connection level */
        bool send_capable_ack;  /* client: put MP_CAPABLE into the next pure ACK */
        uint32_t nonce_local, nonce_remote;
        int syn_tries, probes, keep_probes;
        int old_answers;        /* to our SYN, by a connection of the same ports from before */
        mp_time challenged_at;  /* the latest challenge ACK */
        bool acked_new;         /* the segment at hand acknowledged something new */
        int bare_acks;          /* new ACKs in a row without any MPTCP option */
        mp_time bare_since;     /* when the first of them came */
        bool data_fin_now;      /* a bare DATA_FIN is to be sent (again) here */
        uint8_t rm_ids[8]; int nrm; /* REMOVE_ADDR to be sent here */
        mp_time removed_at; int removed_probes; /* the peer removed its address, or we ours (silent): when; probes since without an answer */
        bool prio_now;          /* MP_PRIO with backup_local to be sent here, RFC 8684 3.3.8 */
        mp_time timer[SFT_COUNT];
        /* statistics */
        uint64_t bytes_sent, bytes_acked, bytes_received, bytes_retrans;
        mp_time created;
    } v;
};

/* ---- life (sf.c) ---- */
struct sf *sf_new(struct mp_stack *st, struct mpc *c, const struct mp_endpoint *local, const struct mp_endpoint *remote,
                  int ifindex, void *flow, mp_time now); /* NULL: no memory (flow is then still the caller's) */
void sf_free(struct sf *s);
void sf_connect(struct sf *s, mp_time now);                 /* -> SYN_SENT */
void sf_accept_syn(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_time now); /* -> SYN_RCVD */
void sf_synack_in(struct sf *s, const struct mp_pkt *p, const struct mp_opts *o, mp_time now); /* takes the options of the answer */
void sf_close(struct sf *s, mp_time now);                   /* FIN after what is queued on it */
void sf_abort(struct sf *s, uint8_t reason, bool transient, mp_time now); /* RST with MP_TCPRST, then dead */
void sf_give_up_join(struct sf *s, mp_time now);            /* a join that is on its way: the peer is told */
void sf_die(struct sf *s, int err, mp_time now);            /* no packet any more; the connection is told */
void sf_tick(struct sf *s, mp_time now);
mp_time sf_deadline(const struct sf *s);
mp_dur sf_time_wait(const struct mp_stack *st); /* what one more may stay in it */
void sf_set_state(struct sf *s, enum sf_state st, mp_time now);
void sf_arm(struct sf *s, enum sf_timer t, mp_time at);
void sf_ack_soon(struct sf *s, mp_time now); /* within a millisecond, on what else leaves by then */
void sf_rtt_sample(struct sf *s, mp_dur rtt);                /* not 0 */
mp_dur sf_rto_now(const struct sf *s);                      /* rto with backoff */
mp_dur sf_persist_wait(const struct sf *s);                 /* until the next probe of a shut window */
void sf_update_mss(struct sf *s);
bool sf_can_carry(const struct sf *s);                      /* may be given connection data */
void sf_alive(struct sf *s);                                /* the peer was heard on it: not set aside any more */
bool sf_doubts(const struct sf *s);                         /* it waits for another path to come, and takes nothing (doubt.c) */
bool sf_is_open(const struct sf *s);                        /* synchronised, our FIN not sent, not dead */
uint32_t sf_wire_window(struct sf *s);                      /* unscaled field for the next segment; moves rcv_adv */

/* ---- timestamps (timestamp.c) ---- */
uint32_t sf_ts(const struct sf *s, mp_time at);             /* what a segment sent at this time has; not 0 */

/* ---- segment in (sf_in.c) ---- */
void sf_input(struct sf *s, struct mp_pkt *p, const struct mp_opts *o, mp_time now); /* any; p's data stays the caller's, flags and seq may change */

/* ---- scoreboard (sf_board.c) ---- */
struct sf_seg *sf_seg_add(struct sf *s, mp_ssn start, mp_ssn end);
void sf_seg_drop(struct sf *s, struct sf_seg *g);
struct sf_seg *sf_seg_split(struct sf *s, struct sf_seg *g, mp_ssn at); /* g keeps the front; returns the back or NULL */
static inline uint64_t sf_seg_bytes(const struct sf_seg *g) { return g->end - g->start; }
void sf_mark_lost(struct sf *s, struct sf_seg *g);          /* neither lost nor sacked before */
uint64_t sf_room(const struct sf *s);                       /* bytes congestion control and the subflow's window allow now */

/* ---- ACKs and loss (sf_loss.c), time-outs (sf_rto.c) ---- */
void sf_time_synack(struct sf *s, mp_time now);
void sf_on_ack(struct sf *s, mp_ssn ack, const struct mp_opts *o, mp_time now);
void sf_on_rto(struct sf *s, mp_time now);
void sf_no_way(struct sf *s, mp_time now);                  /* ICMP: a router had none to the peer for its oldest segment */
void sf_on_probe_timer(struct sf *s, mp_time now);
void sf_on_reorder_timer(struct sf *s, mp_time now);
void sf_arm_rexmit(struct sf *s, mp_time now);              /* (re)arms SFT_REXMIT and SFT_PROBE */

/* ---- paths that others stand in for (overdue.c) ---- */
void overdue_arm(struct sf *s, mp_time now);
void overdue_probe(struct sf *s, mp_time now);              /* a tail loss probe goes out */
void overdue_tick(struct sf *s, mp_time now);
void overdue_hand_over(struct sf *s, mp_time now);          /* it is stale: the others get what it holds */
void overdue_over(struct sf *s, mp_time now);               /* it makes progress */

/* ---- paths that have forgotten the subflow (rescue.c) ---- */
void rescue_data(struct sf *s, uint32_t len, mp_time now);
void rescue_heard(struct sf *s, const struct mp_opts *o, mp_ssn ssn, uint32_t len, mp_time now); /* a segment of len bytes from ssn on fits; sets last_recv */
void rescue_misfit(struct sf *s, const struct mp_opts *o, mp_time now); /* o: of a segment that does not fit */
void rescue_timeout(struct sf *s, mp_time now);
void rescue_tick(struct sf *s, mp_time now);
void rescue_established(struct sf *s, mp_time now);         /* s, a join, is up */
/* ---- recovery (sf_recovery.c) ---- */
uint64_t sf_cwnd(const struct sf *s);                       /* the window that holds now: PRR's while in recovery */
void sf_enter_recovery(struct sf *s, uint64_t delivered, mp_time now);
bool sf_leave_recovery(struct sf *s);                       /* when snd_una has reached its end; true: it did */
void sf_prr(struct sf *s, uint64_t delivered, bool safe);   /* after each ACK in recovery. safe: it advanced, and told of no loss */
void sf_sent_in_recovery(struct sf *s, const struct sf_seg *g, bool again, mp_time now);
mp_dur sf_reorder_window(const struct sf *s);
bool sf_dsack_in(struct sf *s, mp_ssn ack, const struct mp_opts *o); /* before the ACK is taken; true: the first block is a D-SACK */
void sf_undo_begin(struct sf *s);
void sf_undo_check(struct sf *s, const struct mp_opts *o, bool advanced, bool original, mp_time now);
void sf_probe_acked(struct sf *s, mp_ssn ack, bool dsack, uint32_t echo, mp_time now); /* echo: 0: none */

/* ---- ECN (sf_ecn.c) ---- */
uint8_t ecn_syn_flags(struct sf *s);                        /* of the SYN or SYN/ACK that goes out now */
bool ecn_syn_asks(const struct mp_stack *st, const struct mp_pkt *p); /* an offer that we accept */
void ecn_syn_in(struct sf *s, const struct mp_pkt *p);
void ecn_syn_again(struct sf *s, const struct mp_pkt *p);
void ecn_synack_in(struct sf *s, const struct mp_pkt *p);
void ecn_data_in(struct sf *s, const struct mp_pkt *p);     /* data within the window */
void ecn_ack_in(struct sf *s, const struct mp_pkt *p, mp_ssn ack, mp_time now);
uint8_t ecn_ack_flags(const struct sf *s);                  /* of every segment with ACK but the SYN/ACK */
void ecn_mark_new_data(struct sf *s, struct mp_pkt *out);
void ecn_delivered(struct sf *s);                           /* data that was sent once */
void ecn_missed(struct sf *s);                              /* what should have arrived has not */
void ecn_reduced(struct sf *s);                             /* the window was, for a loss */

/* ---- path MTU (pmtu.c) ---- */
void pmtu_timeout(struct sf *s);
void pmtu_told(struct sf *s, uint32_t mtu);
void pmtu_progress(struct sf *s, mp_time now);
int32_t pmtu_probe(struct sf *s, uint64_t want, uint64_t room, mp_time now); /* > 0: send so many bytes as one segment, a probe */
void pmtu_sent(struct sf *s, struct sf_seg *g);             /* before its packet is made */
void pmtu_forget(struct sf *s);
void pmtu_passed(struct sf *s);
void pmtu_lost(struct sf *s);

/* ---- both directions full (duplex.c) ---- */
void duplex_sample(struct sf *s, const struct mp_opts *o, mp_time now);
void duplex_before(struct sf *s, struct mp_cc_ack *a);
uint64_t duplex_credit(const struct sf *s);                  /* bytes that the peer has and whose ACKs wait in its queue: beyond cwnd */
bool duplex_any(const struct mpc *c);

/* ---- pacing (pace.c) ---- */
bool pace_allows(struct sf *s, mp_time now);
uint32_t pace_slice(const struct sf *s, uint32_t most);
void pace_sent(struct sf *s, uint32_t len, mp_time now);

/* ---- segments out (sf_out.c, sf_data.c) ---- */
bool sf_poll(struct sf *s, struct mp_pkt *out, mp_time now); /* control, retransmissions, ACKs; not new data */
/* RFC 8684 3.3.1: the checksum over pseudo-header (64-bit DSN, SSN, length with DATA_FIN, zero) and data, whose sum is given. */
uint16_t mp_dss_csum(uint64_t sum, mp_dsn dsn, uint32_t ssn, uint16_t len);
bool sf_send_data(struct sf *s, struct mp_pkt *out, mp_dsn dsn, struct mp_chunk *from, uint32_t len, bool data_fin, mp_time now);

#endif
