/* The host's side of the protocol: its life, its counters, whose turn it is. */
#include "core/stack_int.h"

#include <stdlib.h>

/* ---- counters and randomness ---- */

void st_count(struct mp_stack *st, enum mp_event_id e, uint64_t n, const struct mpc *c)
{
    if (st->replaying) return;
    st->counter[e] += n;
    if (st->ops.trace && mp_events[e].level) st->ops.trace(st->arg, e, c, mp_events[e].meaning);
}

uint64_t mp_stack_counter(const struct mp_stack *s, int counter)
{
    return counter >= 0 && counter < MP_E_COUNT ? s->counter[counter] : 0;
}

uint32_t st_rand32(struct mp_stack *st)
{
    uint32_t v;
    st->ops.random(st->arg, &v, sizeof v);
    return v;
}

/* ---- life ---- */

struct mp_stack *mp_stack_new(const struct mp_stack_ops *ops, void *arg, const struct mp_settings *set)
{
    struct mp_stack *st = calloc(1, sizeof *st);
    if (!st) return NULL;
    st->ops = *ops;
    st->arg = arg;
    st->set = *set;
    st->ready_tail = &st->ready;
    st->events_tail = &st->events;
    st->half_at = MP_NEVER;
    st->hash_seed = st_rand32(st);
    ops->random(arg, st->isn_key, sizeof st->isn_key);
    if (ops->host_key) ops->host_key(arg, st->ts_key);
    else ops->random(arg, st->ts_key, sizeof st->ts_key);
    return st;
}

void mp_stack_free(struct mp_stack *st)
{
    if (!st) return;
    half_fini(st);
    while (st->all) {
        struct mpc *c = st->all;
        conn_free(c);
    }
    while (st->listeners) {
        struct listener *l = st->listeners;
        st->listeners = l->next;
        free(l);
    }
    while (st->chunk_free) {
        struct mp_chunk *k = st->chunk_free;
        st->chunk_free = k->next;
        free(k->data);
        free(k);
    }
    free(st->heap);
    free(st);
}

int mp_stack_live(const struct mp_stack *s) { return s->nconn; }
int mp_stack_closing(const struct mp_stack *s)
{
    int n = 0;
    for (const struct mpc *c = s->all; c; c = c->next)
        for (const struct sf *f = c->sfs; f; f = f->next)
            n += !f->v.dead && (f->v.reset_pending || f->v.fin_queued) && f->v.state >= SF_ESTABLISHED && f->v.state != SF_TIME_WAIT;
    return n;
}

struct mpc *mp_stack_first(struct mp_stack *s) { return s->all; }
struct mpc *mp_stack_next(struct mpc *c) { return c->next; }

/* ---- turns ---- */

bool mp_stack_poll(struct mp_stack *st, struct mp_pkt *out, mp_time now)
{
    st->now = now;
    if (st->stray_flow) {
        st->ops.flow_close(st->arg, st->stray_flow);
        st->stray_flow = NULL;
    }
    while (st->nstray) {
        *out = st->stray[--st->nstray];
        struct sf *s = st_find(st, &out->src, &out->dst);
        if (s && s->v.state != SF_SYN_SENT) continue; /* somebody's by now */
        if (s) return out->flow = s->flow, st->counter[MP_E_pkt_out]++, true; /* sf_in_open.c in_syn_sent */
        out->flow = st->stray_flow = st->ops.flow_open(st->arg, out->ifindex, &out->src, &out->dst, true);
        if (out->flow) return st->counter[MP_E_pkt_out]++, true;
    }
    while (st->ready) {
        struct mpc *c = st->ready;
        bool sent = conn_poll(c, out, now);
        if (sent) {
            st->counter[MP_E_pkt_out]++;
            st_deadline_moved(c);
            return true;
        }
        st_deadline_moved(c);
        st->ready = c->ready_next;
        if (!st->ready) st->ready_tail = &st->ready;
        c->in_ready = false;
        conn_reap(c, now);
    }
    return false;
}

void mp_stack_tick(struct mp_stack *st, mp_time now)
{
    st->now = now;
    half_tick(st, now);
    /* Each connection at most once a call: a deadline that stays in the past must not spin here. */
    for (int n = st->heap_n; n > 0 && st->heap_n; n--) {
        struct mpc *c = st->heap[0].c;
        if (st->heap[0].at > now) return;
        conn_tick(c, now);
        conn_touch(c);
    }
}

void mp_stack_writable(struct mp_stack *st, void *flow)
{
    for (struct mpc *c = st->all; c; c = c->next)
        for (struct sf *s = c->sfs; s; s = s->next)
            if (!flow || s->flow == flow) {
                conn_touch(c);
                break;
            }
}
