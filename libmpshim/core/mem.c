/* core/mem.c: memory for data, bounded for each connection and for all together (docs/protocol.md, "Memory").
 *
 * Counted is what a peer or a program can make grow: send queues in whole chunks, what was received and is not read, what
 * waits out of order or for its checksum, with the overhead of each piece. When the total passes half of mem_mb, windows
 * and send queues shrink to a share of what is left. At the limit no connection is opened, by a SYN or by a third ACK, and of
 * what arrives only that is taken which the stream waits for, on top of the limit if little is unread. So no connection can
 * starve another for ever: what is taken can be read, and frees what waited behind it.
 *
 * What is out of order on its subflow is dropped as if it had been lost, and on the only one also what is in order. With
 * several subflows that is always acknowledged (behind it on the same subflow may be what the stream waits for) and
 * dropped at connection level, if need be: without a DATA_ACK it comes again (RFC 8684 3.3.6). */
#include "core/stack_int.h"

#include <stdlib.h>

enum { LEAST_WINDOW = 16 * 1024, LEAST_QUEUE = MP_CHUNK_SIZE, SLICE_OVERHEAD = sizeof(struct mp_slice) + sizeof(struct mp_buf) };

static uint64_t waiting(const struct mpc *c) /* out of order, or for a checksum */
{
    uint64_t sum = c->ooo.mem_bytes;
    for (const struct sf *s = c->sfs; s; s = s->next) sum += s->ooo.mem_bytes + s->v.hold_bytes + s->v.nhold * SLICE_OVERHEAD;
    return sum;
}

void mem_account(struct mpc *c)
{
    uint64_t now = waiting(c) + c->v.rxq_bytes + (uint64_t)c->rxq_cap * sizeof(struct mp_slice) + (uint64_t)c->rxq_n * sizeof(struct mp_buf);
    mem_sub(c->st, c->mem_counted);
    mem_add(c->st, now);
    c->mem_counted = now;
}

void mem_add(struct mp_stack *st, uint64_t bytes)
{
    st->mem += bytes;
    if (st->mem > st->mem_peak) st->mem_peak = st->mem;
}

void mem_sub(struct mp_stack *st, uint64_t bytes) { st->mem -= mp_min(bytes, st->mem); }

static uint64_t limit(const struct mp_stack *st) { return (uint64_t)st->set.mem_mb << 20; }

bool mem_is_full(const struct mp_stack *st) { return st->mem >= limit(st); }

/* What each connection may have of what is left; UINT64_MAX: there is plenty. */
static uint64_t share(const struct mp_stack *st)
{
    if (st->mem < limit(st) / 2 || !st->nconn) return UINT64_MAX;
    return (limit(st) - mp_min(st->mem, limit(st))) / (uint64_t)st->nconn;
}

uint64_t mem_window(const struct mpc *c) { return mp_max(share(c->st), LEAST_WINDOW); }
uint64_t mem_queue(const struct mpc *c) { return mp_max(share(c->st), LEAST_QUEUE); }

/* Twice what may come: pieces that use their memory well cost up to that, small ones many times their payload. What was
 * promised counts where it is more than the buffer, which the program may have made smaller since. */
bool mem_has_room_for_holes(const struct mpc *c)
{
    uint64_t promised = c->v.rcv_edge > c->v.rcv_nxt ? c->v.rcv_edge - c->v.rcv_nxt : 0;
    return !mem_is_full(c->st) && waiting(c) < 2 * mp_max(c->v.rcvbuf, promised) + LEAST_WINDOW;
}

bool mem_has_room_for_more(const struct mpc *c) { return !mem_is_full(c->st) || c->v.rxq_bytes < LEAST_WINDOW; }

bool mem_refuses(const struct mpc *c, bool hole) { return hole ? !mem_has_room_for_holes(c) : (c->v.rx_plain || c->v.sf_ever < 2) && !mem_has_room_for_more(c); }

uint64_t mp_stack_memory(const struct mp_stack *st, uint64_t *peak)
{
    if (peak) *peak = st->mem_peak;
    return st->mem;
}

/* ---- chunks of send queues ---- */

struct mp_chunk *st_chunk_new(struct mp_stack *st)
{
    struct mp_chunk *k = st->chunk_free;
    if (k) {
        st->chunk_free = k->next;
        st->chunk_nfree--;
    } else {
        k = malloc(sizeof *k);
        if (!k) return NULL;
        k->data = malloc(MP_CHUNK_SIZE);
        if (!k->data) {
            free(k);
            return NULL;
        }
    }
    mem_add(st, MP_CHUNK_SIZE);
    k->refs = 1;
    k->len = 0;
    k->next = NULL;
    return k;
}

void chunk_put(struct mp_stack *st, struct mp_chunk *k)
{
    if (!k || --k->refs) return;
    mem_sub(st, MP_CHUNK_SIZE);
    if (st->chunk_nfree < 64) { /* 4 MB kept for the next burst */
        k->next = st->chunk_free;
        st->chunk_free = k;
        st->chunk_nfree++;
        return;
    }
    free(k->data);
    free(k);
}
