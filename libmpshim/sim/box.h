/* sim/box.h: middleboxes: nodes that change, drop, split, join or hold packets.
 *
 * A box sits on a path with one half for each direction (0: away from the client, 1: towards it); both share the
 * box's state, as a NAT needs. Each kind is a row of struct sim_box_kind: a new one is a function and a row. */
#ifndef SIM_BOX_H
#define SIM_BOX_H

#include "sim/sim.h"

struct sim_box;

enum sim_box_what {
    SIM_BOX_STRIP_SYN,    /* takes MPTCP options out of SYNs (RFC 8684 6: 14 % of port 80 paths in IMC'11) */
    SIM_BOX_STRIP_SYNACK, /* ... out of SYN/ACKs */
    SIM_BOX_STRIP_NONSYN, /* ... out of everything else */
    SIM_BOX_STRIP_ALL,
    SIM_BOX_STRIP_ADD_ADDR,
    SIM_BOX_DROP_SYN,     /* drops SYNs that carry an MPTCP option, and their answers */
    SIM_BOX_NAT,          /* another source address (cfg.nat_ip) and port, and back */
    SIM_BOX_SEQ,          /* adds a constant to the sequence numbers of each direction, as some firewalls do */
    SIM_BOX_SPLIT,        /* segments of more than cfg.size bytes are cut in two, options copied to both */
    SIM_BOX_MERGE,        /* consecutive segments with equal options become one, as by GRO or LRO */
    SIM_BOX_MERGE_ANY,    /* consecutive segments become one with the first's options: mappings get lost */
    SIM_BOX_PAYLOAD,      /* changes a byte of each cfg.nth data packet, and mends the TCP checksum (an ALG) */
    SIM_BOX_HOLES,        /* drops data that comes after a hole in the sequence (5 % of paths in IMC'11) */
    SIM_BOX_NAT_REBIND,   /* NAT; from cfg.from on each flow has another port, and the old one leads nowhere */
    SIM_BOX_NAT_EXPIRE,   /* NAT; at cfg.from it forgets all flows, and lets only SYNs make new ones */
    SIM_BOX_SEQ_NO_SACK,  /* SEQ that leaves SACK blocks as they are */
    SIM_BOX_SPLIT_FIRST,  /* SPLIT with the MPTCP options on the first part only */
    SIM_BOX_ALG,          /* inserts cfg.size bytes (SIM_BOX_MARK) into the data of each flow once, and mends the numbers */
    SIM_BOX_PROXY,        /* acknowledges data ahead of the receiver, and then delivers it itself */
    SIM_BOX_ACK_UNSEEN,   /* drops ACKs of data that it has not seen */
    SIM_BOX_CLAMP,        /* no window larger than cfg.size bytes in packets of that direction */
    SIM_BOX_DUP,          /* each cfg.nth packet comes again after cfg.hold */
    SIM_BOX_DELAY,        /* each packet comes cfg.hold later */
    SIM_BOX_REORDER,      /* each cfg.nth packet comes cfg.hold later */
    SIM_BOX_CORRUPT,      /* each cfg.nth packet fails its TCP checksum at the receiver */
    SIM_BOX_BIG,          /* IP packets of more than cfg.size bytes vanish, and no ICMP tells */
    SIM_BOX_BIG_ICMP,     /* ... and ICMP tells (RFC 1191) */
    SIM_BOX_ICMP_LIES,    /* for each cfg.nth data packet, which goes on, an ICMP error to its sender, of several kinds */
    SIM_BOX_STRIP_JOIN,   /* takes MP_JOIN out of SYNs and their answers; MP_CAPABLE passes */
    SIM_BOX_DROP_JOIN,    /* drops SYNs with MP_JOIN; MP_CAPABLE passes */
    SIM_BOX_STRIP_TS,     /* takes timestamps out of all packets (RFC 7323 3.2: some firewalls) */
    SIM_BOX_STRIP_SACK_OK, /* takes SACK-permitted out of SYNs and their answers */
    SIM_BOX_STRIP_SACK,   /* takes SACK blocks out */
    SIM_BOX_STRIP_WSCALE, /* takes the window scale out of SYNs and their answers */
    SIM_BOX_OPT_ORDER,    /* options in reverse order, padding in front */
    SIM_BOX_OPT_DUP,      /* the last MPTCP option twice, where there is room */
    SIM_BOX_MSS,          /* the MSS option of SYNs and their answers no larger than cfg.size, as routers to tunnels do */
    SIM_BOX_ALG_SHRINK,   /* takes cfg.size bytes out of the data of each flow once, and mends the numbers */
    SIM_BOX_ANSWER,       /* PROXY that speaks for both sides itself: no MPTCP option passes */
    SIM_BOX_COUNT
};

#define SIM_BOX_MARK 0xa5 /* ALG: each byte that it inserts */

struct sim_box_cfg {
    enum sim_box_what what;
    uint8_t dirs;          /* bit 0: packets away from the client, bit 1: towards it; 0: both */
    struct mp_addr nat_ip; /* NAT */
    uint32_t size;         /* SPLIT: bytes kept in the first part; MERGE: most payload bytes of the result; others above */
    mp_dur hold;           /* MERGE: how long a segment waits for the next; DUP, DELAY, REORDER */
    uint32_t nth;          /* PAYLOAD: each nth data packet; DUP, REORDER, CORRUPT: each nth packet */
    uint32_t first;        /* PAYLOAD, ALG*: after this many data packets; NAT*: ports from 40000 + this */
    uint32_t most;         /* MERGE: so many merges only; 0: no limit */
    bool cut_out;          /* STRIP: the option is taken out and the header shortened, not overwritten by NOPs */
    mp_time from;          /* does nothing before (NAT_*: is a NAT before); 0: always works */
};

struct sim_box_half {
    struct sim_node node; /* first */
    struct sim_box *box;
    int dir;
};

struct sim_box {
    struct sim *sim;
    struct sim_box_cfg cfg;
    const struct sim_box_kind *kind;
    struct sim_box_half *half[2]; /* each freed by the world; the second frees the box */
    int halves_left;
    uint64_t touched;    /* packets changed, dropped, split or merged */
    uint64_t changed_in[2], dropped_in[2]; /* the same by direction */
    /* Tells the sender of a packet of this direction of an error by ICMP; h as the sender knows it. NULL: none is told. */
    void (*icmp)(struct sim_box *b, int dir, const struct mp_pkt *h, int err, uint32_t mtu);
    void *icmp_arg;      /* the owner's */
    uint64_t counted[2]; /* data packets seen, by direction */
    struct sim_box_flow *flows; /* owned */
    struct sim_pkt *held[2];    /* MERGE; owned */
    struct sim_pkt *later[2];   /* packets that wait, by time; owned */
    mp_time first_at;    /* when it first touched a packet; 0: never */
};

struct sim_box_kind {
    const char *name;
    const char *text; /* what it does, in a few words */
    void (*forward)(struct sim_box *b, int dir, struct sim_pkt *p); /* takes ownership */
    bool sees_all; /* is given all packets of both directions at all times, and asks itself whether to act */
};

/* Makes a box; packets away from the client leave to out0, those towards it to out1. */
void sim_box_forget(struct sim_box *b); /* what it keeps for flows whose ends are gone */
struct sim_box *sim_box_new(struct sim *s, const char *name, const struct sim_box_cfg *cfg, struct sim_node *out0,
                            struct sim_node *out1);
const char *sim_box_name(enum sim_box_what what);
const char *sim_box_text(enum sim_box_what what);
bool sim_box_find(const char *name, enum sim_box_what *what);
bool sim_box_is_nat(enum sim_box_what what); /* cfg.nat_ip is its address */

#endif
