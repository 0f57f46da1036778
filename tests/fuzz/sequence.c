/* tests/fuzz/sequence.c: a program of operations on two hosts and the wire between them.
 *
 * Input: mode, options of the run, then operations, a byte each with its arguments behind it. Modes: an honest network
 * (loses, repeats, reorders), a middlebox (strips MPTCP options as well), a hostile one (changes and invents segments).
 * In the first two, each stream must be a prefix of what was written; in the first, all of it must arrive in the end. */
#include <stdio.h>
#include <stdlib.h>

#include "lib/world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum mode { HONEST, MIDDLEBOX, HOSTILE };

struct run {
    struct world *w;
    struct w_in *in;
    enum mode mode;
    bool ended;     /* an owner aborted, or a listener went: not everything will arrive */
    bool deaf;      /* the listener is away */
};

static struct w_app *app_at(struct run *r, uint8_t b)
{
    return &r->w->host[b & 1].app[(b >> 1) % 3];
}

static void op_connect(struct run *r)
{
    w_connect(r->w, 1 + in8(r->in) % W_PATHS);
}

static void op_deliver(struct run *r)
{
    uint8_t b = in8(r->in);
    for (int n = 0; n <= (b >> 2) % 32; n++) w_deliver(r->w, b & 1, (b & 2) ? in8(r->in) % (r->w->nflight[b & 1] + 1) : 0);
}

static void op_exchange(struct run *r) { w_exchange(r->w, 1 + in8(r->in)); }

static void op_drop(struct run *r)
{
    uint8_t b = in8(r->in);
    int to = b & 1;
    if (r->w->nflight[to]) w_drop(r->w, to, (b >> 1) % r->w->nflight[to]);
}

static void op_drop_all(struct run *r)
{
    int to = in8(r->in) & 1;
    while (r->w->nflight[to]) w_drop(r->w, to, 0);
}

static void op_dup(struct run *r)
{
    uint8_t b = in8(r->in);
    int to = b & 1;
    if (r->w->nflight[to]) w_dup(r->w, to, (b >> 1) % r->w->nflight[to]);
}

static void op_time(struct run *r)
{
    static const mp_dur unit[4] = { MP_US(100), MP_MS(1), MP_MS(40), MP_SEC(1) };
    uint8_t b = in8(r->in);
    w_advance(r->w, (b >> 2) * unit[b & 3]);
}

static void op_write(struct run *r)
{
    uint8_t b = in8(r->in);
    w_write(r->w, app_at(r, b), (b & 64 ? 1u : 150u) * in8(r->in));
}

static void op_read(struct run *r)
{
    uint8_t b = in8(r->in);
    struct w_app *a = app_at(r, b);
    a->paused = b & 64;
    w_read(r->w, a, b & 128 ? 100 : UINT64_MAX);
}

static void op_shutdown(struct run *r) { w_shutdown(r->w, app_at(r, in8(r->in))); }

static void op_release(struct run *r)
{
    uint8_t b = in8(r->in);
    r->ended = true;
    w_release(r->w, app_at(r, b), b & 64 ? MP_SEC(5) : 0);
}

static void op_abort(struct run *r)
{
    struct w_app *a = app_at(r, in8(r->in));
    r->ended = true;
    if (a->c) mpc_abort(a->c, r->w->now);
}

static void op_path(struct run *r)
{
    uint8_t b = in8(r->in);
    w_path(r->w, b & 1, 1 + (b >> 2) % W_PATHS, b & 2);
}

static void op_block(struct run *r)
{
    uint8_t b = in8(r->in);
    struct w_host *h = &r->w->host[b & 1];
    h->blocked = b & 2;
    h->refuse = b & 4;
    if (!h->blocked) mp_stack_writable(h->st, NULL);
}

static void op_setopt(struct run *r)
{
    uint8_t b = in8(r->in);
    struct w_app *a = app_at(r, b);
    uint16_t v = in16(r->in);
    if (a->c) mpc_setopt(a->c, (enum mpc_opt)((b >> 3) % (MPC_MAXSEG + 2)), v, r->w->now);
}

static void op_strip(struct run *r)
{
    uint8_t b = in8(r->in);
    if (r->mode == HONEST) return;
    if (b & 4) {
        r->w->strip[b & 1] = b & 2;
    } else {
        int to = b & 1;
        if (r->w->nflight[to]) w_strip_options(&r->w->flight[to][(b >> 3) % r->w->nflight[to]].p);
    }
}

/* An ICMP error, or one of the own host. */
static void op_net_error(struct run *r)
{
    static const int errs[4] = { 111 /* ECONNREFUSED */, 113 /* EHOSTUNREACH */, 90 /* EMSGSIZE */, 1 /* EPERM */ };
    uint8_t b = in8(r->in), v = in8(r->in);
    struct w_host *h = &r->w->host[b & 1];
    for (struct mpc *c = mp_stack_first(h->st); c; c = mp_stack_next(c))
        for (struct sf *s = c->sfs; s; s = s->next)
            if (s->v.id == (b >> 4) % 4) {
                uint32_t seq = s->v.iss + (uint32_t)s->v.snd_una + (v & 15);
                void *flow = s->flow;
                mp_stack_net_error(h->st, flow, errs[b >> 1 & 3], seq, b & 8, 500u + v * 4u, r->w->now);
                if (v & 16) mp_stack_no_way(h->st, flow, seq, r->w->now);
                return;
            }
}

/* The saved connection goes on in the other's place, as after a hand-over. */
static void op_save(struct run *r)
{
    struct w_app *a = app_at(r, in8(r->in));
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f) abort();
    if (a->c && mpc_save(a->c, f)) world_fail("save");
    fclose(f);
    free(text);
}

static void op_mutate(struct run *r)
{
    uint8_t b = in8(r->in), at = in8(r->in), v = in8(r->in);
    int to = b & 1;
    if (r->mode != HOSTILE || !r->w->nflight[to]) return;
    struct mp_pkt *p = &r->w->flight[to][at % r->w->nflight[to]].p;
    r->w->honest = false;
    switch (b >> 1 & 7) {
    case 0: p->flags ^= v; break;
    case 1: p->seq += (uint32_t)(int8_t)v * (b & 16 ? 1u : 1448u); break;
    case 2: p->ack += (uint32_t)(int8_t)v * (b & 16 ? 1u : 1448u); break;
    case 3: p->wnd = (uint16_t)(v * (b & 16 ? 1 : 256)); break;
    case 4: if (p->optlen) p->opt[v % p->optlen] ^= (uint8_t)(1u << (b >> 5)); break;
    case 5: if (p->optlen) p->opt[v % p->optlen] += (uint8_t)(b >> 4); break;
    case 6:
        if (p->data.len > v) {
            mp_slice_cut(&p->data, p->data.len - v);
            p->len = p->data.len;
        }
        break;
    case 7:
        if (p->data.len) p->data.buf->data[v % p->data.len] ^= 0x40;
        break;
    }
}

static void op_hostile(struct run *r)
{
    uint8_t to = in8(r->in), which = in8(r->in), fix = in8(r->in);
    size_t n = in8(r->in);
    if (n > r->in->n) n = r->in->n;
    if (r->mode == HOSTILE) w_hostile(r->w, to & 1, which, fix, r->in->p, n);
    r->in->p += n;
    r->in->n -= n;
}

/* The server's listener goes, or comes again. */
static void op_unlisten(struct run *r)
{
    r->ended = true;
    r->deaf = !r->deaf;
    if (r->deaf) mp_stack_unlisten(r->w->host[SERVER].st, &r->w->host[SERVER].listener, r->w->now);
    else w_listen(r->w);
}

static void (*const op_table[])(struct run *) = {
    op_deliver, op_exchange, op_write, op_time, op_connect, op_drop, op_dup, op_read, op_shutdown, op_release, op_abort, op_path,
    op_block, op_setopt, op_strip, op_net_error, op_save, op_mutate, op_hostile, op_drop_all, op_unlisten,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct world w;
    struct w_in in = { data, n > 1024 ? 1024 : n };
    uint8_t m = in8(&in), b = in8(&in);
    static const char *const cc[4] = { "lia", "reno", "cubic", "lia" };
    struct run r = { &w, &in, (enum mode)(m % 3), false, false };
    struct w_cfg cfg = { .seed = m, .csum = { b & 1, b & 2 }, .split = b & 4, .slice = b & 8 ? 64000 : 0, .cc = cc[b >> 4 & 3], .paths = 1 + (b >> 6) % W_PATHS };
    world_open(&w, &cfg);
    w_connect(&w, 1);
    w_settle(&w);
    for (int ops = 0; in.n && ops < 300; ops++) {
        op_table[in8(&in) % (sizeof op_table / sizeof *op_table)](&r);
        w_settle(&w);
    }
    if (r.mode == HONEST && !r.ended) w_end_whole(&w);
    w_end_alone(&w);
    world_close(&w);
    return 0;
}
