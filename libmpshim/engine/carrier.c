/* engine/carrier.c: a carrier's life, from the program's connect() or a client's SYN to the last question about it.
 *
 *   connect: PENDING -> MEETING -> OPEN -> GHOST        failure: PENDING -> FAILED -> GHOST
 *   accept:             MEETING -> OPEN -> GHOST        reset by the peer: OPEN -> RESETTING -> GHOST */
#include "engine/carrier.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_MEET MP_MS(2)         /* the program's SYN should be here: ask, try */
#define LOOK_HALF MP_SEC(1)        /* the program ended its direction: does it still hold the socket? */
#define LOOK_RESET MP_MS(10)       /* has the program's socket taken all that was received? */
#define GIVE_UP_CONNECT MP_SEC(10) /* asked for an identity and never connected to it */
#define RESET_PATIENCE MP_SEC(5)   /* the program reads nothing: it learns of the reset now */
#define TIMEOUT_GRACE MP_SEC(3)    /* the program's own TCP says ETIMEDOUT at about the same time: let it */
#define FAILED_KEEP MP_SEC(2)      /* after the last SYN of a failed connect */
#define GHOST_KEEP MP_SEC(30)
#define ABORT_PATIENCE MP_SEC(1)   /* after a reset by the program, for what it had sent before */
#define LOOK_ABORT MP_MS(2)
#define ORPHAN_LINGER MP_SEC(60)   /* the kernel's tcp_fin_timeout */
enum { GHOSTS_MAX = 2048, TCP_SYN_SENT_STATE = 2 };

/* ---- table ---- */

static unsigned bucket(const struct mp_endpoint *id) { return id->port & (ENG_HASH - 1); }

/* Newest first, so a ghost of the same names is never found instead of what lives. */
struct carrier *eng_carrier_find(struct engine *e, const struct mp_endpoint *id, const struct mp_endpoint *prog)
{
    for (struct carrier *c = e->hash[bucket(id)]; c; c = c->hash_next)
        if (mp_endpoint_eq(&c->identity, id) && mp_endpoint_eq(&c->prog, prog))
            return c;
    return NULL;
}

/* The one at this identity whose program has not sent its SYN yet: there is one at most. */
struct carrier *eng_carrier_find_awaited(struct engine *e, const struct mp_endpoint *id)
{
    for (struct carrier *c = e->hash[bucket(id)]; c; c = c->hash_next)
        if (!c->prog.port && mp_endpoint_eq(&c->identity, id))
            return c;
    return NULL;
}

void eng_carrier_hash_in(struct carrier *c)
{
    struct carrier **b = &c->e->hash[bucket(&c->identity)];
    c->hash_next = *b;
    c->hash_pprev = b;
    if (*b)
        (*b)->hash_pprev = &c->hash_next;
    *b = c;
}

static void hash_out(struct carrier *c)
{
    if (!c->hash_pprev)
        return;
    *c->hash_pprev = c->hash_next;
    if (c->hash_next)
        c->hash_next->hash_pprev = c->hash_pprev;
    c->hash_pprev = NULL;
}

struct carrier *eng_carrier_new(struct engine *e)
{
    struct carrier *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->e = e;
    c->fd = c->guard_fd = -1;
    c->born = eng_now();
    c->next_look = MP_NEVER;
    c->next = e->all;
    c->pprev = &e->all;
    if (e->all)
        e->all->pprev = &c->next;
    e->all = c;
    e->nlive++;
    c->counted = true;
    return c;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void unqueue(struct carrier *c)
{
    struct engine *e = c->e;
    for (struct carrier **p = &e->runq; c->queued && *p; p = &(*p)->run_next)
        if (*p == c) {
            *p = c->run_next;
            if (e->runq_tail == &c->run_next)
                e->runq_tail = p;
            c->queued = false;
            return;
        }
}

void eng_carrier_free(struct carrier *c)
{
    unqueue(c);
    hash_out(c);
    *c->pprev = c->next;
    if (c->next)
        c->next->pprev = c->pprev;
    close_fd(&c->fd);
    close_fd(&c->guard_fd);
    if (c->counted)
        c->e->nlive--;
    else
        c->e->nghosts--;
    free(c);
}

void eng_carrier_queue(struct carrier *c)
{
    if (c->queued)
        return;
    c->queued = true;
    c->run_next = NULL;
    *c->e->runq_tail = c;
    c->e->runq_tail = &c->run_next;
}

void eng_carrier_look_in(struct carrier *c, mp_dur d, mp_time now)
{
    c->look_every = d;
    c->next_look = now + d;
    eng_sweep_at(c->e, c->next_look);
}

/* ---- ends ---- */

/* The connection is over or given up: what is known of it is kept, the stack may free it. */
static void drop_mpc(struct carrier *c, mp_dur linger, mp_time now)
{
    if (!c->mpc)
        return;
    eng_carrier_facts(c, &c->last);
    if (!c->told)
        eng_verdict_end(c->e, c->client, c->mpc, c->err);
    mpc_set_owner(c->mpc, NULL);
    mpc_release(c->mpc, linger, now);
    c->mpc = NULL;
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

static void to_ghost(struct carrier *c, mp_time now)
{
    close_fd(&c->fd);
    close_fd(&c->guard_fd);
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
    to_ghost(c, now); /* the mpc stays until MP_EV_CLOSED */
}

static void abort_now(struct carrier *c, mp_time now)
{
    c->abort_at = 0;
    if (!c->closed)
        mpc_abort(c->mpc, now);
    drop_mpc(c, 0, now);
    eng_carrier_settle(c);
}

/* TCP's reset follows the data sent before it; here it could overtake that on another path, and the peer would lose what
 * it was sent (a server that closes with something unread does so: CPython's test_ftplib). So the data is waited for. */
static void look_abort(struct carrier *c, mp_time now)
{
    if (c->closed || mpc_send_done(c->mpc) || now >= c->abort_at)
        abort_now(c, now);
    else
        eng_carrier_look_in(c, mp_max(LOOK_ABORT, (now - c->ended) / 2), now);
}

/* The program reset its socket or is gone. */
void eng_carrier_end(struct carrier *c, mp_time now)
{
    eng_flush(c->e);
    bool sent_some = c->mpc && c->connected && !c->closed;
    to_ghost(c, now);
    if (sent_some) {
        c->abort_at = now + ABORT_PATIENCE;
        look_abort(c, now);
    } else if (c->mpc) {
        abort_now(c, now);
    }
}

/* RFC 9293 3.10.7.4 and what kernels do: received data stays readable, then the program sees the error. */
static void start_reset(struct carrier *c, mp_time now)
{
    drop_mpc(c, 0, now);
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
        to_ghost(c, now); /* SO_LINGER {1,0}: the reset */
    else
        eng_carrier_look_in(c, LOOK_RESET, now);
}

/* ---- failing to connect ---- */

static void refuse(struct carrier *c)
{
    eng_lo_refuse(c->e, &c->identity, &c->prog, c->isn, c->err);
}

static void fail(struct carrier *c, mp_time now)
{
    c->err = mpc_error(c->mpc);
    if (!c->err || c->err == ECONNRESET)
        c->err = ECONNREFUSED; /* RFC 9293 3.10.7.3: a reset before the connection is up */
    drop_mpc(c, 0, now);
    c->state = CR_FAILED;
    c->ended = now;
    if (c->err == ETIMEDOUT) {
        eng_carrier_look_in(c, TIMEOUT_GRACE, now);
        return;
    }
    if (c->syn_seen)
        refuse(c);
    eng_carrier_look_in(c, FAILED_KEEP, now);
}

static void look_failed(struct carrier *c, mp_time now)
{
    struct diag_sock s;
    bool waits = c->syn_seen && eng_diag_find(c->e, &c->prog, &c->identity, &s) == 0 && s.state == TCP_SYN_SENT_STATE;
    if (waits) {
        refuse(c);
        eng_carrier_look_in(c, LOOK_PENDING, now);
    } else if (now - c->ended < FAILED_KEEP) {
        eng_carrier_look_in(c, LOOK_PENDING, now);
    } else {
        to_ghost(c, now);
    }
}

/* ---- meeting the program's socket ---- */

bool eng_carrier_watch(struct carrier *c)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET, .data.ptr = c };
    return epoll_ctl(c->e->epfd, EPOLL_CTL_ADD, c->fd, &ev) == 0;
}

static bool program_waits(struct carrier *c)
{
    struct diag_sock s;
    return eng_diag_find(c->e, &c->prog, &c->identity, &s) == 0 && s.state == TCP_SYN_SENT_STATE;
}

static void meet_later(struct carrier *c, mp_time now)
{
    close_fd(&c->fd);
    c->state = CR_PENDING;
    eng_carrier_look_in(c, mp_min(LOOK_MEET << mp_min((uint64_t)c->meet_tries, 7), LOOK_PENDING), now);
}

/* Our SYN found nobody. */
static void met_nobody(struct carrier *c, int err, mp_time now)
{
    if (c->port) {
        if (err == ECONNREFUSED)
            eng_port_refused(c->port);
        eng_carrier_end(c, now);
        return;
    }
    if (err == ECONNREFUSED && !program_waits(c))
        eng_carrier_end(c, now);
    else
        meet_later(c, now);
}

/* Simultaneous open with a program that connects (RFC 9293 3.5), or an ordinary connect to its listener. */
void eng_carrier_meet(struct carrier *c, mp_time now)
{
    int fd = eng_identity_socket(c->e, &c->identity);
    if (fd < 0) {
        met_nobody(c, -fd, now);
        return;
    }
    union ctl_addr a;
    socklen_t n = eng_to_sa(&c->prog, AF_INET, &a);
    c->fd = fd;
    c->state = CR_MEETING;
    c->meet_tries++;
    if ((connect(fd, &a.sa, n) && errno != EINPROGRESS) || !eng_carrier_watch(c))
        met_nobody(c, errno, now);
}

static void met(struct carrier *c)
{
    eng_identity_spare(c->e, &c->identity, &c->guard_fd, c->identity_uses);
    c->state = CR_OPEN;
    c->next_look = MP_NEVER;
    c->may_read = c->may_write = true;
    eng_carrier_queue(c);
}

void eng_carrier_learn_identity(struct carrier *c)
{
    union ctl_addr a;
    socklen_t n = sizeof a;
    if (getsockname(c->fd, &a.sa, &n) == 0)
        eng_from_sa(&a, &c->identity);
    eng_carrier_hash_in(c);
}

static void on_meeting(struct carrier *c, unsigned events, mp_time now)
{
    int err = 0;
    socklen_t n = sizeof err;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &n))
        err = errno;
    if (err)
        met_nobody(c, err, now);
    else if (events & EPOLLOUT)
        met(c);
}

static void pending_connected(struct carrier *c, mp_time now)
{
    if (!c->syn_seen)
        eng_lo_read(c->e); /* it may have come since the loop last looked */
    if (c->state != CR_PENDING)
        return; /* the SYN was there */
    if (c->syn_seen)
        eng_carrier_meet(c, now);
    else
        eng_carrier_look_in(c, LOOK_PENDING, now); /* its SYN brings it on */
}

/* Identities are no secret: any process of the host can send a SYN there. Only the user who asked for this connection
 * may have it; a process that changed its user meanwhile is known by /proc. */
static bool is_our_program(struct carrier *c, const struct mp_endpoint *prog)
{
    struct diag_sock s;
    struct stat st;
    char path[32];
    if (eng_diag_find(c->e, prog, &c->identity, &s) || s.state != TCP_SYN_SENT_STATE)
        return false; /* already gone; a retransmitted SYN comes again */
    if (s.uid == eng_ctl_uid(c->e, c->client))
        return true;
    snprintf(path, sizeof path, "/proc/%d", (int)c->pid);
    return stat(path, &st) == 0 && st.st_uid == s.uid;
}

void eng_carrier_on_syn(struct engine *e, const struct mp_endpoint *id, const struct mp_endpoint *prog, uint32_t isn)
{
    struct carrier *c = eng_carrier_find(e, id, prog), *awaited = eng_carrier_find_awaited(e, id);
    if (awaited && (!c || c->state == CR_GHOST)) /* the kernel may give a program a port again that an ended one had */
        c = awaited;
    if (!c || (!c->syn_seen && (c->prog.port || !is_our_program(c, prog))))
        return;
    mp_time now = eng_now();
    c->syn_seen = true;
    c->prog = *prog;
    c->isn = isn;
    if (c->state == CR_PENDING && c->connected)
        eng_carrier_meet(c, now);
    else if (c->state == CR_FAILED && c->err != ETIMEDOUT)
        refuse(c);
}

static void look_pending(struct carrier *c, mp_time now)
{
    if (c->connected && c->syn_seen) {
        eng_carrier_meet(c, now); /* again: the first attempt found no descriptor, or came in between */
        return;
    }
    bool gone = c->syn_seen ? !program_waits(c) : now - c->born >= GIVE_UP_CONNECT;
    if (gone)
        eng_carrier_end(c, now);
    else
        eng_carrier_look_in(c, LOOK_PENDING, now);
}

/* ---- open ---- */

/* No process holds the program's socket any more; what it wrote may still wait in it, on our side or on its own. */
static bool left_by_program(struct carrier *c)
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
    if (!left_by_program(c)) {
        eng_carrier_look_in(c, mp_min(c->look_every * 2, MP_SEC(4)), now);
        return;
    }
    drop_mpc(c, ORPHAN_LINGER, now);
    to_ghost(c, now);
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
            drop_mpc(c, 0, now);
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
            drop_mpc(c, 0, now);
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
        on_meeting(c, events, now);
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

static void on_connected(struct carrier *c, mp_time now)
{
    struct mpc_info info;
    c->connected = true;
    mpc_get_info(c->mpc, &info);
    eng_plain_note(c->e, &info, now);
    eng_verdict_open(c->e, c->client, c->mpc);
    if (c->state == CR_PENDING)
        pending_connected(c, now);
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
    if (c->mpc && (bits & MP_EV_CLOSED)) {
        c->closed = true;
        c->err = mpc_error(m);
        if (c->state == CR_PENDING && !c->connected)
            fail(c, now);
    }
    if (c->mpc)
        eng_carrier_queue(c);
}

static void look(struct carrier *c, mp_time now)
{
    c->next_look = MP_NEVER;
    switch (c->state) {
    case CR_PENDING: look_pending(c, now); break;
    case CR_FAILED: look_failed(c, now); break;
    case CR_RESETTING: step_resetting(c, now); break;
    case CR_OPEN:
        if (c->prog_eof)
            look_half(c, now);
        break;
    case CR_MEETING: break;
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

mp_time eng_carriers_next_look(struct engine *e)
{
    mp_time at = MP_NEVER;
    for (struct carrier *c = e->all; c; c = c->next)
        at = mp_min(at, c->next_look);
    return at;
}

void eng_carriers_free(struct engine *e)
{
    while (e->all)
        eng_carrier_free(e->all);
}

/* ---- draining ---- */

static void poke(struct carrier *c)
{
    c->prog_left = left_by_program(c);
    c->may_read = true; /* its end may be here though the loop has not heard of it */
    eng_carrier_queue(c);
}

void eng_carriers_poke(struct engine *e, const struct port *p)
{
    for (struct carrier *c = e->all; c; c = c->next)
        if (c->state == CR_OPEN && !c->prog_eof && (!p || c->port == p))
            poke(c);
}

/* Its program's side is open, as far as we have read. */
static bool is_open(const struct carrier *c)
{
    return c->state == CR_OPEN && !c->prog_eof && !c->may_read && !c->prog_left;
}

bool eng_carriers_held(struct engine *e)
{
    for (struct carrier *c = e->all; c; c = c->next)
        if (c->mpc && !c->closed && (is_open(c) || c->state == CR_PENDING || c->state == CR_MEETING))
            return true;
    return false;
}

bool eng_carriers_delivered(struct engine *e, bool and_closed)
{
    for (struct carrier *c = e->all; c; c = c->next) {
        if (!c->mpc || c->closed || is_open(c) || c->state == CR_PENDING || c->state == CR_MEETING)
            continue;
        if (!c->prog_eof || and_closed || !mpc_send_done(c->mpc))
            return false;
    }
    return true;
}
