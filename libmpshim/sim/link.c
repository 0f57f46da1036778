/* sim/link.c: see link.h. */
#include "sim/link.h"

#include <errno.h>
#include <stdlib.h>

#define FRAME_HEADER 14 /* Ethernet, counted against rate and queue */

static uint64_t frame_bytes(const struct sim_pkt *p) { return FRAME_HEADER + sim_pkt_ip_len(&p->h); }

static mp_dur time_to_send(const struct sim_link *l, uint64_t bytes)
{
    return l->cfg.rate_bps ? (mp_dur)((unsigned __int128)bytes * 8 * MP_SEC(1) / l->cfg.rate_bps) : 0;
}

uint64_t sim_link_backlog(const struct sim_link *l)
{
    mp_time now = l->node.sim->now;
    if (l->free_at <= now) return 0;
    return (uint64_t)((unsigned __int128)(l->free_at - now) * l->cfg.rate_bps / 8 / MP_SEC(1));
}

mp_time sim_link_backlog_at(const struct sim_link *l, uint64_t bytes)
{
    mp_dur rest = time_to_send(l, bytes);
    mp_time now = l->node.sim->now;
    /* Rounded up by a nanosecond: sim_link_backlog rounds down. */
    return l->free_at > now + rest ? l->free_at - rest + 1 : now;
}

static void drop(struct sim_link *l, struct sim_pkt *p, uint64_t *counter, const char *why)
{
    ++*counter;
    sim_trace_pkt(l->node.sim, &l->node, why, &p->h);
    sim_pkt_free(l->node.sim, p);
}

/* Kept sorted; most packets go to the end. Equal times keep the order of arrival. */
static void enqueue(struct sim_link *l, struct sim_pkt *p)
{
    p->next = NULL;
    if (!l->head) {
        l->head = l->tail = p;
    } else if (p->at >= l->tail->at) {
        l->tail->next = p;
        l->tail = p;
    } else {
        struct sim_pkt **at = &l->head;
        while ((*at)->at <= p->at) at = &(*at)->next;
        p->next = *at;
        *at = p;
    }
}

static bool is_lost(struct sim_link *l)
{
    uint64_t i = l->stats.frames_in - 1;
    bool masked = l->cfg.loss_mask >> (i % 64) & 1 && (!l->cfg.loss_mask_n || i < l->cfg.loss_mask_n);
    return masked || sim_rng_ppm(&l->rng, l->cfg.loss_ppm);
}

/* ECN as a router sees it: the two bits of the IP header. */
static void mark(struct sim_link *l, struct sim_pkt *p, uint64_t before)
{
    if (!(p->h.tos & 3)) return;
    if (!(l->cfg.ce_bytes && before > l->cfg.ce_bytes) && !sim_rng_ppm(&l->rng, l->cfg.ce_ppm)) return;
    p->h.tos |= 3;
    l->stats.marked++;
}

static bool ecn_hurts(const struct sim_link *l, const struct mp_pkt *h)
{
    bool offer = (h->flags & (MP_SYN | MP_ECE | MP_CWR)) == (MP_SYN | MP_ECE | MP_CWR);
    return (l->cfg.drop_ect && h->tos & 3) || (l->cfg.drop_ecn_syn && offer);
}

static void refuse_size(struct sim_link *l, struct sim_pkt *p)
{
    if (l->cfg.icmp && l->icmp) l->icmp(l->icmp_arg, &p->h, EMSGSIZE, l->cfg.mtu);
    drop(l, p, &l->stats.dropped_mtu, "too-big");
}

static mp_time arrival(struct sim_link *l, const struct sim_pkt *p)
{
    struct sim *s = l->node.sim;
    l->free_at = mp_max(l->free_at, s->now) + time_to_send(l, frame_bytes(p));
    mp_time at = l->free_at + l->cfg.delay;
    if (sim_rng_ppm(&l->rng, l->cfg.reorder_ppm)) {
        l->stats.reordered++;
        return at + l->cfg.reorder_by;
    }
    if (l->cfg.jitter) at += sim_rng_range(&l->rng, 0, l->cfg.jitter);
    return l->last_at = mp_max(at, l->last_at);
}

static void link_forward(struct sim_node *n, struct sim_pkt *p)
{
    struct sim_link *l = (struct sim_link *)n;
    struct sim *s = n->sim;
    l->stats.frames_in++;
    if (l->pcap) sim_pcap_write(l->pcap, s->now, p);
    if (l->cfg.mtu && sim_pkt_ip_len(&p->h) > l->cfg.mtu) {
        refuse_size(l, p);
        return;
    }
    if (l->cfg.blackhole) {
        drop(l, p, &l->stats.dropped_blackhole, "blackhole");
        return;
    }
    uint64_t backlog = sim_link_backlog(l) + frame_bytes(p);
    if (l->cfg.queue_bytes && backlog > l->cfg.queue_bytes) {
        drop(l, p, &l->stats.dropped_queue, "queue");
        return;
    }
    if (is_lost(l) || ecn_hurts(l, &p->h)) {
        drop(l, p, &l->stats.dropped_loss, "loss");
        return;
    }
    if (!(p->h.flags & MP_SYN) && sim_rng_ppm(&l->rng, l->cfg.unreach_ppm)) {
        if (l->icmp) l->icmp(l->icmp_arg, &p->h, EHOSTUNREACH, 0);
        drop(l, p, &l->stats.dropped_loss, "unreachable");
        return;
    }
    l->stats.queue_max_bytes = mp_max(l->stats.queue_max_bytes, backlog);
    mark(l, p, backlog - frame_bytes(p));
    sim_trace_pkt(s, n, ">", &p->h);
    p->at = arrival(l, p);
    if (sim_rng_ppm(&l->rng, l->cfg.dup_ppm)) {
        struct sim_pkt *d = sim_pkt_dup(s, p);
        d->at = p->at;
        l->stats.duplicated++;
        enqueue(l, d);
    }
    enqueue(l, p);
}

static mp_time link_next_run_at(const struct sim_node *n)
{
    const struct sim_link *l = (const struct sim_link *)n;
    return l->head ? l->head->at : MP_NEVER;
}

static void link_run(struct sim_node *n)
{
    struct sim_link *l = (struct sim_link *)n;
    while (l->head && l->head->at <= n->sim->now) {
        struct sim_pkt *p = l->head;
        l->head = p->next;
        if (!l->head) l->tail = NULL;
        if (l->cfg.blackhole) {
            drop(l, p, &l->stats.dropped_blackhole, "blackhole");
        } else if (sim_rng_ppm(&l->rng, l->cfg.corrupt_ppm)) {
            drop(l, p, &l->stats.dropped_corrupt, "corrupt");
        } else {
            l->stats.frames_out++;
            l->stats.bytes_out += frame_bytes(p);
            if (n->out) sim_send(n->out, p);
            else sim_pkt_free(n->sim, p);
        }
    }
}

static void link_free(struct sim_node *n)
{
    struct sim_link *l = (struct sim_link *)n;
    while (l->head) {
        struct sim_pkt *p = l->head;
        l->head = p->next;
        sim_pkt_free(n->sim, p);
    }
    sim_pcap_close(l->pcap);
    free(l);
}

static const struct sim_node_ops link_ops = {link_forward, link_next_run_at, link_run, link_free};

bool sim_node_is_link(const struct sim_node *n) { return n->ops == &link_ops; }

struct sim_link *sim_link_new(struct sim *s, const char *name, const struct sim_link_cfg *cfg, struct sim_node *out)
{
    struct sim_link *l = calloc(1, sizeof *l);
    if (!l) abort();
    sim_node_add(s, &l->node, &link_ops, name);
    l->cfg = *cfg;
    l->node.out = out;
    l->rng = sim_rng_new(s->seed, 0x11170000u + (uint64_t)l->node.id);
    if (s->pcap) {
        char path[512];
        snprintf(path, sizeof path, "%s-%s.pcap", s->pcap, name);
        l->pcap = sim_pcap_open(path);
        if (!l->pcap) fprintf(stderr, "cannot write %s\n", path);
    }
    return l;
}
