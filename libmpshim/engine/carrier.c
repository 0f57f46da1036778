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
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_PENDING MP_SEC(1)     /* is the program still connecting? */
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
static struct carrier *find(struct engine *e, const struct mp_endpoint *id, const struct mp_endpoint *prog)
{
    for (struct carrier *c = e->hash[bucket(id)]; c; c = c->hash_next)
        if (mp_endpoint_eq(&c->identity, id) && mp_endpoint_eq(&c->prog, prog))
            return c;
    return NULL;
}

/* The one at this identity whose program has not sent its SYN yet: there is one at most. */
static struct carrier *find_awaited(struct engine *e, const struct mp_endpoint *id)
{
    for (struct carrier *c = e->hash[bucket(id)]; c; c = c->hash_next)
        if (!c->prog.port && mp_endpoint_eq(&c->identity, id))
            return c;
    return NULL;
}

static void hash_in(struct carrier *c)
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

static struct carrier *carrier_new(struct engine *e)
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

static void carrier_free(struct carrier *c)
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

static void look_in(struct carrier *c, mp_dur d, mp_time now)
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

static void settle(struct carrier *c)
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
    look_in(c, GHOST_KEEP, now);
    settle(c);
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
    settle(c);
}

/* TCP's reset follows the data sent before it; here it could overtake that on another path, and the peer would lose what
 * it was sent (a server that closes with something unread does so: CPython's test_ftplib). So the data is waited for. */
static void look_abort(struct carrier *c, mp_time now)
{
    if (c->closed || mpc_send_done(c->mpc) || now >= c->abort_at)
        abort_now(c, now);
    else
        look_in(c, mp_max(LOOK_ABORT, (now - c->ended) / 2), now);
}

/* The program reset its socket or is gone. */
static void end_by_program(struct carrier *c, mp_time now)
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
        look_in(c, LOOK_RESET, now);
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
        look_in(c, TIMEOUT_GRACE, now);
        return;
    }
    if (c->syn_seen)
        refuse(c);
    look_in(c, FAILED_KEEP, now);
}

static void look_failed(struct carrier *c, mp_time now)
{
    struct diag_sock s;
    bool waits = c->syn_seen && eng_diag_find(c->e, &c->prog, &c->identity, &s) == 0 && s.state == TCP_SYN_SENT_STATE;
    if (waits) {
        refuse(c);
        look_in(c, LOOK_PENDING, now);
    } else if (now - c->ended < FAILED_KEEP) {
        look_in(c, LOOK_PENDING, now);
    } else {
        to_ghost(c, now);
    }
}

/* ---- meeting the program's socket ---- */

static bool watch(struct carrier *c)
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
    look_in(c, mp_min(LOOK_MEET << mp_min((uint64_t)c->meet_tries, 7), LOOK_PENDING), now);
}

/* Our SYN found nobody. */
static void met_nobody(struct carrier *c, int err, mp_time now)
{
    if (c->port) {
        if (err == ECONNREFUSED)
            eng_port_refused(c->port);
        end_by_program(c, now);
        return;
    }
    if (err == ECONNREFUSED && !program_waits(c))
        end_by_program(c, now);
    else
        meet_later(c, now);
}

/* Simultaneous open with a program that connects (RFC 9293 3.5), or an ordinary connect to its listener. */
static void meet(struct carrier *c, mp_time now)
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
    if ((connect(fd, &a.sa, n) && errno != EINPROGRESS) || !watch(c))
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

static void learn_identity(struct carrier *c)
{
    union ctl_addr a;
    socklen_t n = sizeof a;
    if (getsockname(c->fd, &a.sa, &n) == 0)
        eng_from_sa(&a, &c->identity);
    hash_in(c);
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
        meet(c, now);
    else
        look_in(c, LOOK_PENDING, now); /* its SYN brings it on */
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
    struct carrier *c = find(e, id, prog), *awaited = find_awaited(e, id);
    if (awaited && (!c || c->state == CR_GHOST)) /* the kernel may give a program a port again that an ended one had */
        c = awaited;
    if (!c || (!c->syn_seen && (c->prog.port || !is_our_program(c, prog))))
        return;
    mp_time now = eng_now();
    c->syn_seen = true;
    c->prog = *prog;
    c->isn = isn;
    if (c->state == CR_PENDING && c->connected)
        meet(c, now);
    else if (c->state == CR_FAILED && c->err != ETIMEDOUT)
        refuse(c);
}

static void look_pending(struct carrier *c, mp_time now)
{
    if (c->connected && c->syn_seen) {
        meet(c, now); /* again: the first attempt found no descriptor, or came in between */
        return;
    }
    bool gone = c->syn_seen ? !program_waits(c) : now - c->born >= GIVE_UP_CONNECT;
    if (gone)
        end_by_program(c, now);
    else
        look_in(c, LOOK_PENDING, now);
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
        look_in(c, mp_min(c->look_every * 2, MP_SEC(4)), now);
        return;
    }
    drop_mpc(c, ORPHAN_LINGER, now);
    to_ghost(c, now);
}

static void step_open(struct carrier *c, mp_time now)
{
    bool was_eof = c->prog_eof;
    if (eng_relay(c, now) == RELAY_RESET) {
        end_by_program(c, now);
        return;
    }
    eng_touch(c->e);
    if (c->prog_gone && !c->prog_eof && !c->may_read) {
        end_by_program(c, now); /* without a word: it was waiting for accept() when its listener closed (TCP_DEFER_ACCEPT) */
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
        settle(c);
    } else {
        if (c->prog_eof && !was_eof)
            look_in(c, LOOK_HALF, now);
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
        settle(c);
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
            carrier_free(c);
        else if (c->abort_at)
            look_abort(c, now);
        else
            look_in(c, GHOST_KEEP, now);
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
        carrier_free(e->all);
}

/* ---- opening ---- */

/* RLIMIT_NOFILE counts by process, though the engine has a file table of its own: many connections need room
 * beyond a program's usual 1024. Raised only then. */
static void room_for_fds(struct engine *e)
{
    struct rlimit rl;
    rlim_t need = (rlim_t)e->nlive * 5 + 256;
    if ((e->nlive & 31) || getrlimit(RLIMIT_NOFILE, &rl) || rl.rlim_cur >= need)
        return;
    rl.rlim_cur = need * 2 < rl.rlim_max ? need * 2 : rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
}

/* What the program set on its socket; nodelay and keepalive of a connecting one go with mp_stack_connect(). */
static void apply_options(struct mpc *m, const struct ctl_req *q, mp_time now)
{
    const struct { enum mpc_opt opt; uint64_t v; } set[] = {
        { MPC_KEEPIDLE_S, (uint64_t)q->keepidle_s }, { MPC_KEEPINTVL_S, (uint64_t)q->keepintvl_s },
        { MPC_KEEPCNT, (uint64_t)q->keepcnt }, { MPC_USER_TIMEOUT_MS, (uint64_t)q->user_timeout_ms },
        { MPC_RCVBUF, q->rcvbuf }, { MPC_SNDBUF, q->sndbuf }, { MPC_TOS, q->tos },
        { MPC_TTL, q->ttl }, { MPC_MAXSEG, q->maxseg }, { MPC_CC, q->cc }, { MPC_STRICT, !!(q->flags & CTL_F_STRICT) },
    };
    for (size_t i = 0; i < sizeof set / sizeof *set; i++)
        if (set[i].v)
            mpc_setopt(m, set[i].opt, set[i].v, now);
}

/* May the engine carry it, and from where? */
static int eligible(struct engine *e, const struct mp_endpoint *remote, struct mp_addr *local, int *ifindex, enum ctl_why *why)
{
    enum io_route_kind kind = IO_ROUTE_OTHER;
    if (eng_plain_known(e, remote, eng_now())) {
        *why = CTL_REMEMBERED_PLAIN;
        return -EOPNOTSUPP;
    }
    int err = io_route_lookup(e->io, &remote->ip, local, ifindex, &kind);
    if (err) {
        *why = CTL_NO_INTERFACE;
        return err;
    }
    *why = kind == IO_ROUTE_LOCAL ? CTL_LOCAL_ROUTE : kind == IO_ROUTE_OTHER ? CTL_EXCLUDED : CTL_OK;
    return *why == CTL_OK ? 0 : -EOPNOTSUPP;
}

static int open_mpc(struct carrier *c, const struct ctl_req *q, const struct mp_endpoint *remote, const struct mp_addr *local, int ifindex)
{
    unsigned flags = (q->flags & CTL_F_NODELAY ? MP_OPEN_NODELAY : 0) | (q->flags & CTL_F_KEEPALIVE ? MP_OPEN_KEEPALIVE : 0);
    int err = 0;
    mp_time now = eng_now();
    c->mpc = mp_stack_connect(c->e->stack, remote, local, ifindex, flags, c, now, &err);
    if (!c->mpc)
        return err ? -err : -ENOMEM;
    apply_options(c->mpc, q, now);
    eng_touch(c->e);
    look_in(c, LOOK_PENDING, now);
    return 0;
}

static int open_identity(struct carrier *c, bool v6)
{
    int err = v6 ? eng_lo_need6(c->e) : 0;
    if (!err)
        err = eng_identity_open(c->e, v6, &c->identity, &c->guard_fd, &c->identity_uses);
    if (!err)
        hash_in(c);
    return err;
}

int eng_carrier_connect(struct engine *e, uint64_t client, const struct ctl_req *q, struct mp_endpoint *id, enum ctl_why *why)
{
    struct mp_endpoint remote;
    struct mp_addr local;
    int ifindex = 0;
    *why = CTL_BAD_REQUEST;
    if (!eng_from_sa(&q->remote, &remote) || !remote.port)
        return -EINVAL;
    *why = CTL_NO_LOOPBACK;
    int err = eng_lo_is_up(e);
    if (err)
        return err;
    err = eligible(e, &remote, &local, &ifindex, why);
    if (err)
        return err;
    *why = CTL_RESOURCE;
    room_for_fds(e);
    struct carrier *c = carrier_new(e);
    if (!c)
        return -ENOMEM;
    c->client = client;
    c->pid = q->pid;
    c->state = CR_PENDING;
    if ((err = open_identity(c, q->flags & CTL_F_V6ONLY)) || (err = open_mpc(c, q, &remote, &local, ifindex))) {
        carrier_free(c);
        return err;
    }
    e->total_connects++;
    *id = c->identity;
    *why = CTL_OK;
    return 0;
}

/* As accept() hands the listener's options down. */
static void inherit_options(struct mpc *m, const struct ctl_req *q, mp_time now)
{
    if (q->flags & CTL_F_NODELAY)
        mpc_setopt(m, MPC_NODELAY, 1, now);
    apply_options(m, q, now);
    if (q->flags & CTL_F_KEEPALIVE)
        mpc_setopt(m, MPC_KEEPALIVE, 1, now);
}

void eng_carrier_accept(struct engine *e, uint64_t client, struct port *p, const struct ctl_req *options, const struct mp_endpoint *to,
                        struct mpc *m)
{
    mp_time now = eng_now();
    room_for_fds(e);
    struct carrier *c = carrier_new(e);
    if (!c) {
        mpc_abort(m, now);
        mpc_set_owner(m, NULL);
        mpc_release(m, 0, now);
        eng_port_conn_put(p);
        return;
    }
    c->client = client;
    c->mpc = m;
    c->port = p;
    c->connected = true;
    c->prog = *to;
    c->identity = eng_identity_any(e, to->ip.family == 6);
    mpc_set_owner(m, c);
    inherit_options(m, options, now);
    e->total_accepts++;
    eng_verdict_open(e, c->client, m);
    meet(c, now);
    if (c->fd >= 0)
        learn_identity(c);
}

/* One that another engine carried. What its sockets are ready for is told anew when they are watched. */
struct carrier *eng_carrier_adopt(struct engine *e, const struct carrier *from, int fd, int guard_fd, struct mpc *m, struct port *p)
{
    struct carrier *c = carrier_new(e);
    if (!c)
        return NULL;
    struct carrier links = *c;
    *c = *from;
    c->e = e;
    c->next = links.next;
    c->pprev = links.pprev;
    c->hash_next = NULL;
    c->hash_pprev = NULL;
    c->run_next = NULL;
    c->queued = false;
    c->counted = true;
    c->mpc = m;
    c->port = p;
    c->fd = fd;
    c->guard_fd = guard_fd;
    if (p)
        eng_port_conn_get(p);
    hash_in(c);
    settle(c);
    if (fd >= 0 && !watch(c))
        end_by_program(c, eng_now()); /* no memory */
    if (c->next_look != MP_NEVER)
        eng_sweep_at(e, c->next_look);
    eng_carrier_queue(c);
    return c;
}

/* ---- questions ---- */

static void state_facts(const struct carrier *c, struct ctl_rep *rep)
{
    static const enum ctl_state of[] = {
        /* meeting: the kernel may have completed the program's call before we hear of it */
        [CR_PENDING] = CTL_S_CONNECTING, [CR_MEETING] = CTL_S_OPEN, [CR_OPEN] = CTL_S_OPEN,
        [CR_RESETTING] = CTL_S_CLOSED, [CR_FAILED] = CTL_S_FAILED, [CR_GHOST] = CTL_S_CLOSED,
    };
    rep->state = of[c->state];
    if (c->state == CR_GHOST && !c->connected)
        rep->state = CTL_S_FAILED;
    rep->err = c->err;
}

static void path_facts(struct mpc *m, struct ctl_rep *rep)
{
    struct mpc_subflow_info sf[16];
    int n = mpc_get_subflows(m, sf, 16);
    rep->nsubflows = (uint32_t)n;
    for (int i = 0; i < n; i++) {
        rep->cwnd_bytes += sf[i].cwnd;
        if (sf[i].mss && (!rep->mss || sf[i].mss < rep->mss))
            rep->mss = sf[i].mss;
        if (sf[i].srtt && (!rep->srtt_us || sf[i].srtt / 1000 < rep->srtt_us)) {
            rep->srtt_us = sf[i].srtt / 1000;
            rep->rttvar_us = sf[i].rttvar / 1000;
        }
    }
}

void eng_carrier_facts(struct carrier *c, struct ctl_rep *rep)
{
    struct mpc_info i;
    int inq = 0;
    memset(rep, 0, sizeof *rep);
    mpc_get_info(c->mpc, &i);
    eng_to_sa(&i.local, AF_INET, &rep->local);
    eng_to_sa(&i.remote, AF_INET, &rep->remote);
    rep->plain_why = i.why;
    if (c->fd >= 0 && c->state == CR_OPEN)
        (void)ioctl(c->fd, SIOCINQ, &inq);
    rep->unacked_bytes = i.bytes_written - i.bytes_acked + (uint64_t)inq;
    rep->bytes_sent = i.bytes_written;
    rep->bytes_received = i.bytes_read;
    path_facts(c->mpc, rep);
}

/* IPv4 addresses are given to an AF_INET6 socket in the form it knows. */
static void map_to(union ctl_addr *a, int family)
{
    struct mp_endpoint ep;
    if (eng_from_sa(a, &ep))
        eng_to_sa(&ep, family, a);
}

struct carrier *eng_carrier_named(struct engine *e, const struct ctl_req *q)
{
    struct mp_endpoint id, prog;
    if (!eng_from_sa(&q->identity, &id) || !eng_from_sa(&q->local, &prog))
        return NULL;
    struct carrier *c = find(e, &id, &prog);
    return c ? c : find_awaited(e, &id); /* asked right after connect(): the SYN was not looked at yet */
}

void eng_carrier_query(struct engine *e, const struct ctl_req *q, struct ctl_rep *rep)
{
    struct carrier *c = eng_carrier_named(e, q);
    rep->result = -ENOENT;
    if (!c)
        return;
    uint16_t version = rep->version, op = rep->op;
    if (c->mpc)
        eng_carrier_facts(c, rep);
    else
        *rep = c->last;
    rep->version = version;
    rep->op = op;
    rep->result = 0;
    rep->identity = q->identity;
    state_facts(c, rep);
    map_to(&rep->local, q->identity.sa.sa_family);
    map_to(&rep->remote, q->identity.sa.sa_family);
}

void eng_carrier_setopt(struct engine *e, const struct ctl_req *q)
{
    struct carrier *c = eng_carrier_named(e, q);
    if (!c || !c->mpc)
        return;
    mpc_setopt(c->mpc, (enum mpc_opt)q->opt, q->value, eng_now());
    eng_touch(e);
}

void eng_carriers_tell(struct engine *e, uint64_t client)
{
    for (struct carrier *c = e->all; c; c = c->next)
        if (c->client == client && c->mpc && !c->told) {
            c->told = true;
            eng_verdict_end(e, client, c->mpc, c->err);
        }
}

bool eng_carriers_untold(const struct engine *e, uint64_t client)
{
    for (const struct carrier *c = e->all; c; c = c->next)
        if (c->client == client && c->mpc && !c->told)
            return true;
    return false;
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
