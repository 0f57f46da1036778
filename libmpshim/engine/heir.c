/* engine/heir.c: a helper speaks for programs that were killed: their wills (will.h) are kept as long as their engines live, and
 * then said.
 *
 * An ACK and a reset, both with MP_FASTCLOSE: Linux takes the ACK wherever it lies in its window, the reset at the exact number
 * only (RFC 8684 3.5 has both). Over plain TCP the reset alone; where its number is not the exact one, because data was lost on the
 * way, the peer challenges it (RFC 5961 3.2) and our kernel answers with the exact one, as soon as the port's guard is gone. */
#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/opt.h"
#include "engine/will.h"

enum { HEIR_BATCH = 64 /* slots a turn: others are served meanwhile */, HEIR_GUARDS = 16384 };
/* Said again after these, for what the network loses; no socket of the kernel's interferes as long as that. */
static const double heir_pause[] = { 0, .25, .75 };
enum { HEIR_ROUNDS = sizeof heir_pause / sizeof *heir_pause };

struct heir {
    struct heir *next; /* of those that speak */
    struct engine *e;
    int file;          /* owned */
    int *guard, nguard; /* owned; they keep the kernel from answering */
    ev_timer turn;
    uint32_t at;       /* the slot that is next */
    int round;
};

/* ---- what is kept ---- */

struct heir *eng_heir_new(struct engine *e, int file, int raw)
{
    struct heir *h = eng_will_is_file(file) && eng_move_may(e, raw) ? calloc(1, sizeof *h) : NULL;
    if (!h) {
        close(file);
        return NULL;
    }
    h->e = e;
    h->file = file;
    return h;
}

void eng_heir_free(struct heir *h)
{
    if (!h)
        return;
    for (int i = 0; i < h->nguard; i++)
        close(h->guard[i]);
    free(h->guard);
    close(h->file);
    free(h);
}

/* A listening socket, which closes at once. */
static bool is_guard(int fd) { return eng_sockopt(fd, SO_ACCEPTCONN) == 1 && eng_sockopt(fd, SO_PROTOCOL) == IPPROTO_TCP; }

/* Descriptors above half of those that there may be are for what the helper serves. */
static int guards_below(void)
{
    struct rlimit rl;
    return getrlimit(RLIMIT_NOFILE, &rl) ? 0 : rl.rlim_cur / 2 < INT_MAX ? (int)(rl.rlim_cur / 2) : INT_MAX;
}

void eng_heir_guards(struct heir *h, int *fd, int n)
{
    int below = guards_below();
    int *v = n > 0 && h->nguard + n <= HEIR_GUARDS ? realloc(h->guard, (size_t)(h->nguard + n) * sizeof *v) : NULL; /* of no bytes it would be freed */
    if (!v)
        return;
    h->guard = v;
    for (int i = 0; i < n; i++)
        if (fd[i] < below && is_guard(fd[i])) {
            v[h->nguard++] = fd[i];
            fd[i] = -1;
        }
}

int eng_heir_ports(const struct heir *h) { return h->nguard; }

bool eng_heir_matters(const struct heir *h) { return eng_will_filled(h->file) > 0; }

/* ---- saying it ---- */

static void put(struct engine *e, const struct mp_last_words *w, void *flow, uint8_t flags, bool fast)
{
    struct mp_opts o = { 0 };
    struct mp_pkt p = { .src = w->local, .dst = w->remote, .ifindex = w->ifindex, .flow = flow, .seq = w->seq, .ack = w->ack, .wnd = w->wnd,
                        .flags = flags, .tos = w->tos, .ttl = w->ttl, .mark = w->mark, .priority = w->priority };
    if (w->has_ts && !(flags & MP_RST)) { /* RFC 7323 3.2 */
        o.has_ts = true;
        o.ts_val = w->ts_val;
        o.ts_ecr = w->ts_ecr;
    }
    if (fast) {
        o.mp = MP_OPT_HAS(MP_FASTCLOSE);
        o.fastclose_key = w->key;
    }
    p.optlen = (uint8_t)mp_opts_len(&o);
    mp_opts_emit(p.opt, &o);
    io_output(e->io, &p);
}

/* Another's connection by now: the kernel's, whose socket we can see, or our own, whose flow exists. */
static bool is_taken(struct engine *e, const struct mp_last_words *w)
{
    struct diag_sock s;
    return eng_diag_find(e, &w->local, &w->remote, &s) == 0 && s.state != TCP_LISTEN;
}

static void say(struct engine *e, const struct mp_last_words *w)
{
    if (is_taken(e, w) || !io_route(e->io, w->ifindex, &w->local.ip, &w->remote.ip, w->mark))
        return;
    void *flow = io_flow_open(e->io, w->ifindex, &w->local, &w->remote, false);
    if (!flow)
        return;
    if (w->kind != MP_LAST_RST)
        put(e, w, flow, MP_ACK, true);
    put(e, w, flow, MP_RST | MP_ACK, w->kind == MP_LAST_FASTCLOSE);
    io_flow_close(e->io, flow);
}

static void finish(struct heir *h)
{
    struct heir **p = &h->e->heirs;
    while (*p != h)
        p = &(*p)->next;
    *p = h->next;
    ev_timer_stop(h->e->loop, &h->turn);
    eng_heir_free(h);
}

static void again_in(struct heir *h, double s)
{
    ev_timer_stop(h->e->loop, &h->turn);
    ev_timer_set(&h->turn, s, 0.);
    ev_timer_start(h->e->loop, &h->turn);
}

static bool said_some(struct heir *h)
{
    struct mp_last_words w;
    uint32_t top = eng_will_top(h->file), end = h->at + HEIR_BATCH;
    for (; h->at < top && h->at < end; h->at++)
        if (eng_will_read(h->file, h->at, &w))
            say(h->e, &w);
    return h->at < top;
}

static bool closed_some(struct heir *h)
{
    for (int i = 0; i < HEIR_BATCH && h->nguard; i++)
        close(h->guard[--h->nguard]);
    return h->nguard;
}

static void on_turn(struct ev_loop *loop, ev_timer *t, int events)
{
    (void)loop, (void)events;
    struct heir *h = t->data;
    if (h->round < HEIR_ROUNDS ? said_some(h) : closed_some(h)) {
        again_in(h, 0.001);
    } else if (++h->round <= HEIR_ROUNDS) {
        h->at = 0;
        again_in(h, h->round < HEIR_ROUNDS ? heir_pause[h->round] : 0.);
    } else {
        finish(h);
    }
}

void eng_heir_speak(struct heir *h)
{
    bool matters = eng_heir_matters(h);
    if (matters && h->e->verbose)
        eng_log(h->e->log_fd, "mptcp-run: a program was killed: %u of its subflows are ended", eng_will_filled(h->file));
    h->round = matters ? 0 : HEIR_ROUNDS;
    h->next = h->e->heirs;
    h->e->heirs = h;
    ev_timer_init(&h->turn, on_turn, 0., 0.);
    h->turn.data = h;
    on_turn(h->e->loop, &h->turn, 0); /* before the peer's next segment, if we can */
}

void eng_heirs_free(struct engine *e)
{
    while (e->heirs)
        finish(e->heirs);
}
