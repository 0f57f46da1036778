/* engine/carrier_meet.c: our end of a carrier and the program's socket find each other, or the program learns why not. */
#include "engine/carrier.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#define LOOK_MEET MP_MS(2)         /* the program's SYN should be here: ask, try */
#define GIVE_UP_CONNECT MP_SEC(10) /* asked for an identity and never connected to it */
#define TIMEOUT_GRACE MP_SEC(3)    /* the program's own TCP says ETIMEDOUT at about the same time: let it */
#define FAILED_KEEP MP_SEC(2)      /* after the last SYN of a failed connect */
enum { TCP_SYN_SENT_STATE = 2 };

/* ---- failing to connect ---- */

static void refuse(struct carrier *c)
{
    eng_lo_refuse(c->e, &c->identity, &c->prog, c->isn, c->err);
}

void eng_carrier_fail(struct carrier *c, mp_time now)
{
    c->err = mpc_error(c->mpc);
    if (!c->err || c->err == ECONNRESET)
        c->err = ECONNREFUSED; /* RFC 9293 3.10.7.3: a reset before the connection is up */
    eng_carrier_drop(c, 0, now);
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

void eng_carrier_look_failed(struct carrier *c, mp_time now)
{
    struct diag_sock s;
    bool waits = c->syn_seen && eng_diag_find(c->e, &c->prog, &c->identity, &s) == 0 && s.state == TCP_SYN_SENT_STATE;
    if (waits) {
        refuse(c);
        eng_carrier_look_in(c, LOOK_PENDING, now);
    } else if (now - c->ended < FAILED_KEEP) {
        eng_carrier_look_in(c, LOOK_PENDING, now);
    } else {
        eng_carrier_to_ghost(c, now);
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
    eng_carrier_close_fd(&c->fd);
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

void eng_carrier_waits(struct carrier *c, bool waits)
{
    if (!c->port || c->waits == waits)
        return;
    c->waits = waits;
    eng_port_waits(c->port, waits ? 1 : -1);
}

/* A listener over loopback mostly answers within our connect(), which says EINPROGRESS all the same: the answer is looked at when
 * the call lets go of the socket. */
static bool is_answered(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    return poll(&p, 1, 0) == 1;
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
    int err = connect(fd, &a.sa, n) ? errno : 0;
    if (c->port)
        eng_carrier_waits(c, err == EINPROGRESS && !is_answered(fd));
    if ((err && err != EINPROGRESS) || !eng_carrier_watch(c))
        met_nobody(c, err ? err : errno, now);
}

static void met(struct carrier *c)
{
    eng_identity_spare(c->e, &c->identity, &c->guard_fd, c->identity_uses);
    c->state = CR_OPEN;
    eng_carrier_waits(c, false);
    c->next_look = MP_NEVER;
    c->may_write = true; /* may_read: if the event says so, and mostly nothing was written yet */
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

void eng_carrier_on_meeting(struct carrier *c, unsigned events, mp_time now)
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

void eng_carrier_pending_connected(struct carrier *c, mp_time now)
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

/* A program's listener whose backlog is full drops our SYN. The kernel would send it again after 1, 3, 7, 15 s, long after there
 * is room; so each attempt is a new one, and while one has just failed the others wait. The first attempt of each has its 10 ms for
 * an answer: on a busy host that is not always there at once, and nobody else must wait for it then. */
#define ROOM_AGAIN MP_MS(10)

void eng_carrier_meet_listener(struct carrier *c, mp_time now)
{
    bool waited = c->waits;
    if (eng_port_is_full(c->port, now)) {
        eng_carrier_waits(c, true);
        c->state = CR_PENDING;
        eng_carrier_look_in(c, ROOM_AGAIN, now);
        return;
    }
    eng_carrier_hash_out(c);
    c->identity = eng_identity_any(c->e, c->prog.ip.family == 6);
    eng_carrier_meet(c, now);
    if (c->fd >= 0)
        eng_carrier_learn_identity(c);
    if (c->state != CR_MEETING || !c->waits)
        return;
    if (waited)
        eng_port_full(c->port, now + ROOM_AGAIN);
    eng_carrier_look_in(c, ROOM_AGAIN, now);
}

void eng_carrier_look_meeting(struct carrier *c, mp_time now)
{
    if (!c->port || !c->waits || is_answered(c->fd))
        return; /* an event tells how it went */
    eng_carrier_close_fd(&c->fd);
    eng_carrier_meet_listener(c, now);
}

void eng_carrier_look_pending(struct carrier *c, mp_time now)
{
    if (c->port) {
        eng_carrier_meet_listener(c, now);
        return;
    }
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
