/* engine/carrier.c: a carrier's life, from the program's connect() or a client's SYN to the last question about it.
 *
 *   connect: PENDING -> MEETING -> OPEN -> GHOST        failure: PENDING -> FAILED -> GHOST
 *   accept:             MEETING -> OPEN -> GHOST        reset by the peer: OPEN -> RESETTING -> GHOST */
#include "engine/carrier.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#define LOOK_HALF MP_SEC(1)        /* the program ended its direction: does it still hold the socket? */
#define LOOK_RESET MP_MS(10)       /* has the program's socket taken all that was received? */
#define RESET_PATIENCE MP_SEC(5)   /* the program reads nothing: it learns of the reset now */
#define GHOST_KEEP MP_SEC(30)
#define ABORT_PATIENCE MP_SEC(1)   /* after a reset by the program, for what it had sent before */
#define LOOK_ABORT MP_MS(2)
#define END_LEAD MP_MS(2)        /* its FIN goes before it: the peer's program, waiting to read, has seen the end */
enum { SENDS_ON = 16 << 10 };    /* bytes: more than the end of an answer, which the peer's own end may follow */
#define ORPHAN_LINGER MP_SEC(300)  /* a peer takes nothing of what its program left: about where the kernel gives up too */
enum { GHOSTS_MAX = 2048 };

/* ---- ends ---- */

/* What is known of the connection is kept. */
void eng_carrier_drop(struct carrier *c, mp_dur linger, mp_time now)
{
    if (!c->mpc)
        return;
    eng_carrier_facts(c, &c->last);
    eng_conn_info(c->mpc, &c->last_conn);
    if (!c->told)
        eng_verdict_end(c->e, c->client, c->mpc, c->err);
    mpc_set_owner(c->mpc, NULL);
    mpc_release(c->mpc, linger, now);
    c->mpc = NULL;
    eng_carrier_waits(c, false);
    if (c->port)
        eng_port_conn_put(c->port);
    c->port = NULL;
    eng_touch(c->e);
}

void eng_carrier_settle(struct carrier *c)
{
    if (c->state != CR_GHOST || c->mpc || !c->counted)
        return;
    c->counted = false;
    c->e->nlive--;
    c->e->nghosts++;
}

void eng_carrier_to_ghost(struct carrier *c, mp_time now)
{
    eng_carrier_close_fd(&c->fd);
    eng_carrier_close_fd(&c->guard_fd);
    c->state = CR_GHOST;
    c->ended = now;
    eng_carrier_look_in(c, GHOST_KEEP, now);
    eng_carrier_settle(c);
}

/* Both sides said their end: the kernel finishes with the program without a reset, even if this engine ends. */
static void end_in_order(struct carrier *c, mp_time now)
{
    struct linger off = { 0 };
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &off, sizeof off);
    eng_carrier_to_ghost(c, now); /* the mpc stays until MP_EV_CLOSED */
}

static void abort_now(struct carrier *c, mp_time now)
{
    c->abort_at = 0;
    if (!c->closed)
        mpc_abort(c->mpc, now);
    eng_carrier_drop(c, 0, now);
    eng_carrier_settle(c);
}

/* The reset leaves on all paths, and may not arrive before the FIN that left on one of them. */
static mp_dur end_lead(const struct mpc *m)
{
    struct mpc_subflow_info v[16];
    int n = mpc_get_subflows(m, v, 16);
    mp_dur least = MP_NEVER, most = 0;
    for (int i = 0; i < n; i++) {
        least = mp_min(least, v[i].min_rtt);
        most = mp_max(most, v[i].min_rtt);
    }
    return END_LEAD + (n ? (most - least) / 2 : 0);
}

/* Only the FIN is not acknowledged yet, and the peer goes on sending to a program that is gone: TCP tells him so with the
 * next segment, and the acknowledgement of our FIN stands behind all that is in his queue. */
static bool sends_on(const struct carrier *c, mp_time now)
{
    struct mpc_info i;
    mpc_get_info(c->mpc, &i);
    return i.bytes_acked >= i.bytes_written && i.rcv_nxt - c->rcv_at_end > SENDS_ON && now - c->ended >= end_lead(c->mpc);
}

/* TCP's reset follows the data sent before it; here it could overtake that on another path, and the peer would lose what
 * it was sent (a server that closes with something unread does so: CPython's test_ftplib). So the data is waited for. */
static void look_abort(struct carrier *c, mp_time now)
{
    if (c->closed || mpc_send_done(c->mpc) || sends_on(c, now) || now >= c->abort_at)
        abort_now(c, now);
    else
        eng_carrier_look_in(c, mp_max(LOOK_ABORT, (now - c->ended) / 2), now);
}

/* The program reset its socket or is gone. */
void eng_carrier_end(struct carrier *c, mp_time now)
{
    eng_flush(c->e);
    bool sent_some = c->mpc && c->connected && !c->closed;
    eng_carrier_to_ghost(c, now);
    if (sent_some) {
        struct mpc_info i;
        mpc_get_info(c->mpc, &i);
        c->rcv_at_end = i.rcv_nxt;
        c->abort_at = now + ABORT_PATIENCE;
        look_abort(c, now);
    } else if (c->mpc) {
        abort_now(c, now);
    }
}

/* RFC 9293 3.10.7.4 and what kernels do: received data stays readable, then the program sees the error. */
static void start_reset(struct carrier *c, mp_time now)
{
    eng_carrier_drop(c, 0, now);
    c->state = CR_RESETTING;
    c->last_outq = -1;
    eng_carrier_queue(c);
}

static void step_resetting(struct carrier *c, mp_time now)
{
    int outq = 0;
    if (ioctl(c->fd, SIOCOUTQ, &outq))
        outq = 0;
    if (outq != c->last_outq) {
        c->last_outq = outq;
        c->outq_since = now;
    }
    if (outq == 0 || c->sock_err || now - c->outq_since >= RESET_PATIENCE)
        eng_carrier_to_ghost(c, now); /* SO_LINGER {1,0}: the reset */
    else
        eng_carrier_look_in(c, LOOK_RESET, now);
}

/* ---- open ---- */

/* What it wrote may still wait in its socket, on our side or on its own. */
bool eng_carrier_left(struct carrier *c)
{
    struct diag_sock s;
    int err = eng_diag_find(c->e, &c->prog, &c->identity, &s);
    c->prog_gone = err == -ENOENT;
    return err == -ENOENT || (!err && !s.inode);
}

/* The program ended its direction: did it close the socket altogether? Then nobody will read, and the connection
 * ends as an orphan. While it lives, this is a half-close, which may last. */
static void look_half(struct carrier *c, mp_time now)
{
    if (!eng_carrier_left(c)) {
        eng_carrier_look_in(c, mp_min(c->look_every * 2, MP_SEC(4)), now);
        return;
    }
    eng_carrier_drop(c, ORPHAN_LINGER, now);
    eng_carrier_to_ghost(c, now);
}

static void step_open(struct carrier *c, mp_time now)
{
    bool was_eof = c->prog_eof;
    if (eng_relay(c, now) == RELAY_RESET) {
        eng_carrier_end(c, now);
        return;
    }
    eng_touch(c->e);
    if (c->prog_gone && !c->prog_eof && !c->may_read) {
        eng_carrier_end(c, now); /* without a word: it was waiting for accept() when its listener closed (TCP_DEFER_ACCEPT) */
        return;
    }
    if (c->closed && mpc_readable(c->mpc) == 0 && (c->err || !c->prog_eof || !c->peer_eof)) {
        if (!c->err)
            c->err = ECONNRESET;
        start_reset(c, now);
    } else if (c->prog_eof && c->peer_eof) {
        end_in_order(c, now);
        if (c->closed)
            eng_carrier_drop(c, 0, now);
        eng_carrier_settle(c);
    } else {
        if (c->prog_eof && !was_eof)
            eng_carrier_look_in(c, LOOK_HALF, now);
        if (eng_relay_more(c))
            eng_carrier_queue(c);
    }
}

static void step(struct carrier *c, mp_time now)
{
    switch (c->state) {
    case CR_OPEN: step_open(c, now); break;
    case CR_RESETTING: step_resetting(c, now); break;
    case CR_GHOST:
        if (c->closed)
            eng_carrier_drop(c, 0, now);
        eng_carrier_settle(c);
        break;
    case CR_PENDING: case CR_MEETING: case CR_FAILED: break; /* events and looks move these */
    }
}

void eng_carriers_run(struct engine *e)
{
    struct carrier *c = e->runq;
    e->runq = NULL;
    e->runq_tail = &e->runq;
    while (c) {
        struct carrier *next = c->run_next;
        c->queued = false;
        step(c, eng_now());
        c = next;
    }
}

/* ---- events ---- */

static void on_ready(struct carrier *c, unsigned events, mp_time now)
{
    if (c->fd < 0)
        return; /* closed since the kernel noted this */
    if (c->state == CR_MEETING)
        eng_carrier_on_meeting(c, events, now);
    if (c->state != CR_OPEN && c->state != CR_RESETTING)
        return;
    /* Also of the event that ended the meeting: data and end may be in it, and an edge comes once. */
    c->may_read |= !!(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR));
    c->may_write |= !!(events & (EPOLLOUT | EPOLLHUP | EPOLLERR));
    c->hup |= !!(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
    c->urgent |= !!(events & EPOLLPRI);
    c->sock_err |= !!(events & EPOLLERR);
    eng_carrier_queue(c);
}

void eng_carriers_on_ready(struct engine *e)
{
    struct epoll_event ev[128];
    int n;
    do {
        n = epoll_wait(e->epfd, ev, 128, 0);
        mp_time now = eng_now();
        for (int i = 0; i < n; i++)
            on_ready(ev[i].data.ptr, ev[i].events, now);
    } while (n == 128);
}

static void note_plain(struct carrier *c, mp_time now)
{
    struct mpc_info info;
    mpc_get_info(c->mpc, &info);
    eng_plain_note(c->e, &info, now);
}

static void on_connected(struct carrier *c, mp_time now)
{
    c->connected = true;
    note_plain(c, now);
    eng_verdict_open(c->e, c->client, c->mpc);
    if (c->state == CR_PENDING)
        eng_carrier_pending_connected(c, now);
}

void eng_carrier_on_event(struct engine *e, struct mpc *m, unsigned bits, mp_time now)
{
    if ((bits & MP_EV_ACCEPT) && mpc_owner(m))
        eng_port_accept(e, mpc_owner(m), m, now);
    struct carrier *c = mpc_owner(m);
    if (!c)
        return; /* released: the stack finishes alone */
    if (bits & MP_EV_CONNECTED)
        on_connected(c, now);
    if (c->mpc && (bits & MP_EV_PLAIN))
        note_plain(c, now);
    if (c->mpc && (bits & MP_EV_CLOSED)) {
        c->closed = true;
        c->err = mpc_error(m);
        if (c->state == CR_PENDING && !c->connected)
            eng_carrier_fail(c, now);
    }
    if (c->mpc)
        eng_carrier_queue(c);
}

static void look(struct carrier *c, mp_time now)
{
    c->next_look = MP_NEVER;
    switch (c->state) {
    case CR_PENDING: eng_carrier_look_pending(c, now); break;
    case CR_FAILED: eng_carrier_look_failed(c, now); break;
    case CR_RESETTING: step_resetting(c, now); break;
    case CR_OPEN:
        if (c->prog_eof)
            look_half(c, now);
        break;
    case CR_MEETING: eng_carrier_look_meeting(c, now); break;
    case CR_GHOST:
        if (!c->mpc)
            eng_carrier_free(c);
        else if (c->abort_at)
            look_abort(c, now);
        else
            eng_carrier_look_in(c, GHOST_KEEP, now);
        break;
    }
}

void eng_carriers_sweep(struct engine *e, mp_time now)
{
    bool crowded = e->nghosts > GHOSTS_MAX;
    struct carrier *next;
    for (struct carrier *c = e->all; c; c = next) {
        next = c->next; /* a look frees at most c itself */
        if (c->next_look <= now || (crowded && c->state == CR_GHOST && !c->mpc))
            look(c, now);
    }
}
