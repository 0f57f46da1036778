/* sim/link.h: one direction of a link: a queue, a rate, a delay, and what can go wrong on it. */
#ifndef SIM_LINK_H
#define SIM_LINK_H

#include "sim/sim.h"

struct sim_link_cfg {
    uint64_t rate_bps;    /* bits per second, counted over the frame; 0: infinitely fast */
    mp_dur delay;         /* one way */
    mp_dur jitter;        /* up to this much more, evenly; order is kept */
    uint32_t queue_bytes; /* waiting or being sent; a frame that does not fit is dropped; 0: no limit */
    uint32_t loss_ppm;    /* of a million frames */
    uint64_t loss_mask;   /* frame number i is dropped if bit i % 64 is set: a pattern that one can read */
    uint64_t loss_mask_n; /* the mask counts for this many frames only; 0: for ever */
    uint32_t dup_ppm;
    uint32_t corrupt_ppm; /* the TCP checksum fails at the receiver: dropped there, after it took its time on the link */
    uint32_t reorder_ppm; /* these are reorder_by late, and others overtake them */
    mp_dur reorder_by;
    uint32_t mtu;         /* bytes of the IP packet; larger ones are dropped; 0: any */
    bool icmp;            /* and the sender is told by EMSGSIZE, if the packet's host is known (sim/host.h) */
    uint32_t ce_bytes;    /* ECT packets that find more than this before them are marked CE (RFC 3168 5); 0: never */
    uint32_t ce_ppm;      /* and of a million others these */
    bool drop_ect, drop_ecn_syn; /* a path that does not bear ECN: such packets vanish */
    uint32_t unreach_ppm; /* of the packets without SYN these are dropped, and the sender is told EHOSTUNREACH: soft, RFC 9293 3.9.2.2 */
    bool blackhole;       /* everything is dropped silently, also what is on its way */
};

struct sim_link_stats {
    uint64_t frames_in, frames_out, bytes_out;
    uint64_t dropped_loss, dropped_queue, dropped_blackhole, dropped_corrupt, dropped_mtu;
    uint64_t duplicated, reordered, marked;
    uint64_t queue_max_bytes;
};

struct sim_link {
    struct sim_node node; /* first: a sim_node * is a sim_link * */
    struct sim_link_cfg cfg; /* may be changed at any time; holds for the packets that come after */
    struct sim_link_stats stats;
    struct sim_rng rng;
    mp_time free_at;      /* when the last queued frame has left */
    mp_time last_at;      /* arrival of the last frame that keeps order */
    struct sim_pkt *head, *tail; /* on their way, by arrival time */
    struct sim_pcap *pcap;
    /* Told about a packet that is too large (cfg.icmp) or refused. */
    void (*icmp)(void *arg, const struct mp_pkt *h, int err, uint32_t mtu);
    void *icmp_arg;
};

struct sim_link *sim_link_new(struct sim *s, const char *name, const struct sim_link_cfg *cfg, struct sim_node *out);
uint64_t sim_link_backlog(const struct sim_link *l); /* bytes not yet sent */
/* When the backlog will be at most that many bytes, if nothing is added. */
mp_time sim_link_backlog_at(const struct sim_link *l, uint64_t bytes);
bool sim_node_is_link(const struct sim_node *n);

#endif
