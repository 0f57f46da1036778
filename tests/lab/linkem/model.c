/* model.c: what the link does to frames: boxes > queue > rate > loss > delay. */
#include "linkem.h"

#include <netinet/in.h>
#include <stdlib.h>

/* splitmix64 */
static uint64_t random_u64(struct dir *d)
{
    uint64_t z = d->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static double random_unit(struct dir *d)
{
    return (double)(random_u64(d) >> 11) * 0x1p-53;
}

static bool chance(struct dir *d, double probability)
{
    return probability > 0 && random_unit(d) < probability;
}

static unsigned get_be16(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }

static bool is_neighbour_discovery(const struct frame *f)
{
    const uint8_t *ip = f->data + ETH_HLEN;
    unsigned type = get_be16(f->data + 12);
    if (type == ETH_P_ARP)
        return true;
    return type == ETH_P_IPV6 && f->len > ETH_HLEN + 40 && ip[6] == IPPROTO_ICMPV6
        && ip[40] >= 133 && ip[40] <= 137;
}

static int64_t transmission_ns(const struct dir *d, uint32_t bytes)
{
    return d->p.rate_bps > 0 ? (int64_t)(bytes * 8e9 / d->p.rate_bps) : 0;
}

static bool queue_has_room(const struct dir *d, uint32_t bytes)
{
    if (d->p.rate_bps <= 0 || !d->queue.head)
        return true;
    double limit = d->p.queue_bytes ? (double)d->p.queue_bytes
                                    : (double)d->p.queue_ns * d->p.rate_bps / 8e9;
    return (double)d->stats.queued_bytes + bytes <= limit;
}

static void drop(struct frame *f, int64_t *why)
{
    ++*why;
    frame_put(f);
}

/* The frame's last bit has gone out at done_ns. */
static void onto_wire(struct dir *d, struct frame *f, int64_t done_ns)
{
    if (d->p.drop_next > 0) {
        d->p.drop_next--;
        drop(f, &d->stats.lost);
        return;
    }
    if (chance(d, d->p.loss)) {
        drop(f, &d->stats.lost);
        return;
    }
    f->at_ns = done_ns + d->p.delay_ns;
    if (d->p.jitter_ns)
        f->at_ns += (int64_t)(random_unit(d) * (double)d->p.jitter_ns);
    if (chance(d, d->p.reorder)) {
        f->at_ns += d->p.reorder_delay_ns;
        d->stats.reordered++;
    } else {
        f->at_ns = d->last_due_ns = max64(f->at_ns, d->last_due_ns);
    }
    list_insert_by_time(&d->wire, f);
    if (chance(d, d->p.duplicate)) {
        list_insert_by_time(&d->wire, frame_copy(f));
        d->stats.duplicated++;
    }
}

static int64_t head_done_ns(const struct dir *d)
{
    const struct frame *f = d->queue.head;
    return f ? max64(f->at_ns, d->free_ns) + transmission_ns(d, f->len) : NEVER;
}

/* Moves what the link has finished sending by now from the queue to the wire. */
void serve_queue(struct dir *d, int64_t now)
{
    int64_t done;
    while ((done = head_done_ns(d)) <= now) {
        struct frame *f = list_pop(&d->queue);
        d->stats.queued_bytes -= f->len;
        d->free_ns = done;
        onto_wire(d, f, done);
    }
}

/* RFC 3168 5: congestion experienced, for packets whose senders know what it means. */
static void mark_ce(struct dir *d, struct frame *f)
{
    uint8_t *ip = f->data + ETH_HLEN;
    bool v4 = get_be16(f->data + 12) == ETH_P_IP, v6 = get_be16(f->data + 12) == ETH_P_IPV6;
    if ((!v4 && !v6) || f->len < ETH_HLEN + 20)
        return;
    uint8_t ecn = v4 ? ip[1] & 3 : ip[1] >> 4 & 3;
    if (!ecn || ecn == 3)
        return;
    d->stats.marked++;
    if (v6) {
        ip[1] |= 3 << 4;
        return;
    }
    /* RFC 1624: the sum of the header grows by what the byte did. */
    unsigned sum = (~get_be16(ip + 10) & 0xffff) + (3u - ecn);
    sum = ~((sum & 0xffff) + (sum >> 16)) & 0xffff;
    ip[1] |= 3;
    ip[10] = (uint8_t)(sum >> 8);
    ip[11] = (uint8_t)sum;
}

void into_queue(struct dir *d, struct frame *f)
{
    serve_queue(d, f->at_ns);
    if (!queue_has_room(d, f->len)) {
        drop(f, &d->stats.queue_drops);
        return;
    }
    if (d->p.ce_bytes && d->stats.queued_bytes > d->p.ce_bytes)
        mark_ce(d, f);
    d->stats.queued_bytes += f->len;
    d->stats.max_queued_bytes = max64(d->stats.max_queued_bytes, d->stats.queued_bytes);
    list_append(&d->queue, f);
}

void on_arrival(struct dir *d, struct frame *f)
{
    d->stats.rx_packets++;
    d->stats.rx_bytes += f->len;
    if (d->p.blackhole) {
        drop(f, &d->stats.blackholed);
        return;
    }
    if (is_neighbour_discovery(f)) {
        list_insert_by_time(&d->wire, f);
        return;
    }
    if (!boxes_take(d, f))
        into_queue(d, f);
}

/* When the next frame is due. What is in the queue only needs serving in
 * time for its own arrival at the far end. */
int64_t next_deadline(const struct dir *d)
{
    int64_t done = head_done_ns(d);
    int64_t due = d->wire.head ? d->wire.head->at_ns : NEVER;
    return done == NEVER ? due : min64(due, done + d->p.delay_ns);
}
