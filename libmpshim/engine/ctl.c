/* engine/ctl.c: serves the control protocol of ctl.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/eng.h"

struct ctl_conn {
    struct engine *e;
    struct ctl_conn *next;
    ev_io io;
    int fd;             /* owned */
    int log_fd;         /* this client's messages; -1: the engine's own; owned */
    int verbose;
    uid_t uid;
    uint64_t id;        /* never reused: carriers outlive their client */
    bool elder;         /* a helper whose place we have, or who has ours: no client */
    struct move_in *in; /* an engine's sockets on their way to us; owned */
    ev_timer last;      /* the client has gone; its log waits for the last lines */
    mp_time until;
};

enum { CTL_BATCH = 64 /* messages a turn */ };
struct ctl_msg { /* one message; descriptors are owned until taken (-1) */
    struct ctl_req q;
    char text[4096];    /* behind the request, ended by a zero */
    size_t len;
    int fd[CTL_FDS], nfd;
};

static int take_fd(struct ctl_msg *m, int i)
{
    if (i >= m->nfd)
        return -1;
    int fd = m->fd[i];
    m->fd[i] = -1;
    return fd;
}

static void answer_bytes(int fd, const void *p, size_t n)
{
    if (fd < 0)
        return;
    (void)send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT); /* lost only if the asker has gone */
    close(fd);
}

static void answer(int fd, const struct ctl_rep *rep) { answer_bytes(fd, rep, sizeof *rep); }

static struct ctl_rep reply_to(const struct ctl_req *q)
{
    return (struct ctl_rep){ .version = CTL_VERSION, .op = q->op };
}

/* ---- one function an operation ---- */

static void do_hello(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = reply_to(&m->q);
    rep.result = m->q.version == CTL_VERSION ? 0 : -EPROTO;
    if (k->log_fd >= 0)
        close(k->log_fd); /* it says hello once more */
    k->log_fd = take_fd(m, 1);
    k->verbose = k->log_fd >= 0 ? (int)m->q.value : 0;
    if (rep.result == 0 && k->e->is_listening)
        eng_reconfigure(k->e, m->text);
    answer(take_fd(m, 0), &rep);
}

static void left_to_kernel(struct engine *e, enum ctl_why why)
{
    e->total_kernel++;
    if ((unsigned)why < CTL_WHY_COUNT)
        e->kernel_by[why]++;
}

static void do_connect(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = reply_to(&m->q);
    struct mp_endpoint id;
    enum ctl_why why = CTL_BAD_REQUEST;
    struct eng_marks marks = eng_marks_of(m->nfd > 1 ? m->fd[1] : -1);
    rep.result = eng_carrier_connect(k->e, k->id, &m->q, &marks, &id, &why);
    rep.why = why;
    if (rep.result == 0)
        eng_to_sa(&id, AF_INET, &rep.identity);
    else
        left_to_kernel(k->e, why); /* the shim tells it at once */
    answer(take_fd(m, 0), &rep);
}

static void do_listen(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = reply_to(&m->q);
    enum ctl_why why = CTL_BAD_REQUEST;
    int fd = take_fd(m, 1);
    rep.result = fd < 0 ? -EBADF : eng_port_listen(k->e, k->id, &m->q, fd, &why);
    rep.why = why;
    if (fd >= 0)
        close(fd); /* the port lives as long as the program holds it */
    answer(take_fd(m, 0), &rep);
}

static void do_query(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = reply_to(&m->q);
    eng_carrier_query(k->e, &m->q, &rep);
    answer(take_fd(m, 0), &rep);
}

static void do_unlisten(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = reply_to(&m->q);
    eng_port_check(k->e, 0);
    answer(take_fd(m, 0), &rep);
}

static void do_info(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_info info = { .rep = reply_to(&m->q) };
    eng_carrier_info(k->e, &m->q, &info);
    answer_bytes(take_fd(m, 0), &info, sizeof info);
}

static void do_setopt(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = reply_to(&m->q);
    rep.result = eng_carrier_setopt(k->e, &m->q, m->nfd > 1 ? m->fd[1] : -1);
    answer(take_fd(m, 0), &rep);
}

static void do_use_local(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = reply_to(&m->q);
    rep.result = eng_carrier_use_local(k->e, &m->q);
    answer(take_fd(m, 0), &rep);
}

static struct ctl_conn *elder(const struct engine *e)
{
    struct ctl_conn *k = e->conns;
    while (k && !k->elder)
        k = k->next;
    return k;
}

/* A port may be under guard of the helper that was here before, whose connections go on there: it answers itself then. */
static void do_release_port(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = reply_to(&m->q);
    struct mp_endpoint at;
    struct ctl_conn *old = k->elder ? NULL : elder(k->e);
    eng_port_check(k->e, 0);
    if (eng_from_sa(&m->q.local, &at))
        eng_port_release(k->e, at.port);
    if (!old || m->nfd < 1 || eng_send_fds(old->fd, &m->q, m->fd, 1))
        answer(take_fd(m, 0), &rep);
}

static void do_keep(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = reply_to(&m->q);
    rep.result = k->e->is_listening ? eng_port_keep(k->e, k->uid, &m->q) : -EPERM;
    answer(take_fd(m, 0), &rep);
}

/* ---- everything goes to another engine ---- */

static int conn_new(struct engine *e, int fd);

/* Outside of the loop: no watcher may touch a socket any more once it is another's (engine.c). */
static void do_handover(struct ctl_conn *k, struct ctl_msg *m)
{
    struct engine *e = k->e;
    if (m->nfd < 2 || e->move_to >= 0 || e->is_listening)
        return; /* the closed reply socket says no */
    e->move_reply = take_fd(m, 0);
    e->move_to = take_fd(m, 1);
    ev_break(e->loop, EVBREAK_ALL);
}

static void do_replace(struct ctl_conn *k, struct ctl_msg *m)
{
    struct engine *e = k->e;
    if (m->nfd < 2 || e->move_to >= 0 || !e->is_listening || e->ctl_fd < 0 || !eng_move_may(e, m->fd[1]))
        return;
    e->move_to = take_fd(m, 0); /* the end of that connection says no */
    ev_break(e->loop, EVBREAK_ALL);
}

/* The new helper is of another build: programs that start from now on are its, those that run stay ours. */
static void give_place(struct engine *e)
{
    if (eng_place_give(e, e->move_to))
        return;
    ev_io_stop(e->loop, &e->accept_io);
    close(e->ctl_fd);
    if (e->lock_fd >= 0)
        close(e->lock_fd);
    e->ctl_fd = e->lock_fd = -1;
    e->replaced = true;
    e->idle_exit_s = 1;
    mp_stack_join_elsewhere(e->stack, true);
    eng_sweep_at(e, eng_now());
    if (conn_new(e, e->move_to) == 0) {
        e->conns->elder = true;
        e->move_to = -1;
    }
}

bool eng_ctl_moved(struct engine *e)
{
    struct ctl_rep rep = { .version = CTL_VERSION, .op = CTL_HANDOVER, .result = eng_move_out(e, e->move_to) };
    if (rep.result && e->is_listening)
        give_place(e);
    if (e->move_to >= 0)
        close(e->move_to);
    answer(e->move_reply, &rep);
    e->move_to = e->move_reply = -1;
    e->replaced |= e->is_listening && rep.result == 0;
    return rep.result == 0;
}

static void do_place(struct ctl_conn *k, struct ctl_msg *m)
{
    struct engine *e = k->e;
    struct ctl_rep rep = reply_to(&m->q);
    if (!e->is_listening || e->ctl_fd >= 0 || m->nfd < 3)
        return;
    e->ctl_fd = take_fd(m, 1);
    e->lock_fd = take_fd(m, 2);
    k->elder = true;
    mp_stack_join_elsewhere(e->stack, true);
    answer(take_fd(m, 0), &rep);
    eng_ctl_serve(e);
}

static void do_move_sockets(struct ctl_conn *k, struct ctl_msg *m)
{
    if (k->e->is_listening)
        k->in = eng_move_sockets(k->in, m->fd, m->nfd);
}

static void do_move(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = reply_to(&m->q);
    int file = take_fd(m, 1);
    rep.result = file < 0 ? -EBADF : eng_move_check(k->e, k->in, file, m->q.value);
    if (rep.result) {
        eng_move_drop(k->in);
        k->in = NULL;
    }
    answer(take_fd(m, 0), &rep);
}

static void do_move_go(struct ctl_conn *k)
{
    struct move_in *in = k->in;
    k->in = NULL;
    eng_move_go(k->e, in);
}

static void dispatch(struct ctl_conn *k, struct ctl_msg *m)
{
    struct engine *e = k->e;
    switch (m->q.op) {
    case CTL_HELLO: do_hello(k, m); break;
    case CTL_CONNECT: do_connect(k, m); break;
    case CTL_LISTEN: do_listen(k, m); break;
    case CTL_UNLISTEN: do_unlisten(k, m); break;
    case CTL_QUERY: do_query(k, m); break;
    case CTL_INFO: do_info(k, m); break;
    case CTL_USE_LOCAL: do_use_local(k, m); break;
    case CTL_SETOPT: do_setopt(k, m); break;
    case CTL_DRAIN: eng_drain_add(e, take_fd(m, 0), m->q.value, false); break;
    case CTL_LEAVE: eng_drain_add(e, take_fd(m, 0), m->q.value, true); break;
    case CTL_HANDOVER: do_handover(k, m); break;
    case CTL_REPLACE: do_replace(k, m); break;
    case CTL_MOVE_SOCKETS: do_move_sockets(k, m); break;
    case CTL_MOVE: do_move(k, m); break;
    case CTL_MOVE_GO: do_move_go(k); break;
    case CTL_PLACE: do_place(k, m); break;
    case CTL_KEEP: do_keep(k, m); break;
    case CTL_STATUS: eng_status_send(e, take_fd(m, 0)); break;
    case CTL_RELEASE_PORT: do_release_port(k, m); break;
    default: break; /* of a later version: the closed reply socket says no */
    }
}

/* ---- transport ---- */

static void take_rights(struct msghdr *mh, struct ctl_msg *m)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (m->nfd < CTL_FDS)
                m->fd[m->nfd++] = fd;
            else
                close(fd);
        }
    }
}

/* 1: a message; 0: end; -EAGAIN and other errors. */
static int receive(int fd, struct ctl_msg *m)
{
    union { struct cmsghdr h; char b[CMSG_SPACE(CTL_FDS * sizeof(int))]; } cb;
    struct iovec iov[2] = { { &m->q, sizeof m->q }, { m->text, sizeof m->text - 1 } };
    struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2, .msg_control = &cb, .msg_controllen = sizeof cb };
    m->nfd = 0;
    ssize_t n = recvmsg(fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return -errno;
    take_rights(&mh, m);
    m->len = (size_t)n;
    m->text[m->len > sizeof m->q ? m->len - sizeof m->q : 0] = 0;
    return n > 0;
}

static void msg_done(struct ctl_msg *m)
{
    for (int i = 0; i < m->nfd; i++)
        if (m->fd[i] >= 0)
            close(m->fd[i]);
}

#define LAST_LINES MP_MS(300) /* whoever reads the client's log waits for its end, so not for long */

static void conn_free(struct ctl_conn *k)
{
    for (struct ctl_conn **p = &k->e->conns; *p; p = &(*p)->next)
        if (*p == k) {
            *p = k->next;
            break;
        }
    ev_io_stop(k->e->loop, &k->io);
    ev_timer_stop(k->e->loop, &k->last);
    if (k->fd >= 0)
        close(k->fd);
    if (k->log_fd >= 0)
        close(k->log_fd);
    eng_move_drop(k->in);
    free(k);
}

/* The client's log closes: what there is to say of its connections is said now, though some go on closing. */
static void log_ended(struct ctl_conn *k)
{
    struct engine *e = k->e;
    eng_carriers_tell(e, k->id);
    conn_free(k);
    if (!e->is_listening)
        e->leaving = !e->conns;
    eng_sweep_at(e, eng_now());
}

static void on_last(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop, (void)events;
    struct ctl_conn *k = w->data;
    if (eng_now() >= k->until || !eng_carriers_untold(k->e, k->id))
        log_ended(k);
}

/* Connections that are still closing tell of all that they carried, and how they ended, if they end soon. */
static void await_last_lines(struct ctl_conn *k)
{
    close(k->fd);
    k->fd = -1;
    k->until = eng_now() + LAST_LINES;
    ev_timer_init(&k->last, on_last, 0.005, 0.005);
    k->last.data = k;
    ev_timer_start(k->e->loop, &k->last);
}

static void conn_ended(struct ctl_conn *k)
{
    struct engine *e = k->e;
    ev_io_stop(e->loop, &k->io);
    if (k->elder)
        mp_stack_join_elsewhere(e->stack, false);
    if (k->log_fd >= 0) {
        eng_carriers_on_ready(e); /* the program's last bytes are counted too */
        eng_carriers_run(e);
        eng_touch(e);
    }
    if (k->log_fd >= 0 && e->is_listening && eng_carriers_untold(e, k->id))
        await_last_lines(k);
    else
        log_ended(k);
    eng_port_check_twice(e); /* its listeners may have gone with the process */
    if (e->is_listening && e->ctl_fd < 0 && !e->replaced)
        ev_break(e->loop, EVBREAK_ALL); /* the helper that was to hand over did not */
}

/* So that programs and helpers of different versions can part in order. */
static bool is_for_all_versions(const struct ctl_req *q) { return q->op == CTL_HELLO || q->op == CTL_REPLACE || q->op == CTL_PLACE; }

static void on_message(struct ev_loop *loop, ev_io *w, int events)
{
    (void)loop, (void)events;
    struct ctl_conn *k = w->data;
    struct ctl_msg m;
    for (int i = 0; i < CTL_BATCH; i++) {
        int r = receive(k->fd, &m);
        if (r == -EAGAIN || r == -EINTR || r == -EMFILE)
            return;
        if (r <= 0) {
            msg_done(&m); /* a message of no bytes looks like the end, and may bring descriptors */
            conn_ended(k);
            return;
        }
        if (m.len >= sizeof m.q && (m.q.version == CTL_VERSION || is_for_all_versions(&m.q)))
            dispatch(k, &m);
        msg_done(&m);
    }
}

static uid_t uid_of(int fd)
{
    struct ucred u;
    socklen_t n = sizeof u;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &n) ? (uid_t)-1 : u.uid;
}

static int conn_new(struct engine *e, int fd)
{
    struct ctl_conn *k = calloc(1, sizeof *k);
    if (!k)
        return -ENOMEM;
    k->e = e;
    k->fd = fd;
    k->log_fd = -1;
    k->uid = uid_of(fd);
    k->id = ++e->client_ids;
    k->next = e->conns;
    e->conns = k;
    ev_io_init(&k->io, on_message, fd, EV_READ);
    k->io.data = k;
    ev_io_start(e->loop, &k->io);
    return 0;
}

/* Only the helper's own user, and root, may use it: it opens raw sockets for whoever asks. */
static bool peer_allowed(int fd)
{
    uid_t uid = uid_of(fd);
    return uid == geteuid() || uid == 0;
}

/* Without a descriptor left, who waits there would wake the loop for ever, and wait for an answer himself: the one in reserve takes
 * him in to turn him away. */
int eng_accept(struct engine *e, int from)
{
    int fd = accept4(from, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 || (errno != EMFILE && errno != ENFILE) || e->reserve_fd < 0)
        return fd;
    close(e->reserve_fd);
    fd = accept4(from, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        close(fd);
    e->reserve_fd = fcntl(e->epfd, F_DUPFD_CLOEXEC, 0);
    return -1;
}

static void on_accept(struct ev_loop *loop, ev_io *w, int events)
{
    (void)loop, (void)events;
    struct engine *e = w->data;
    int fd = eng_accept(e, e->ctl_fd);
    if (fd < 0)
        return;
    if (!peer_allowed(fd) || conn_new(e, fd))
        close(fd);
}

void eng_ctl_serve(struct engine *e)
{
    ev_io_init(&e->accept_io, on_accept, e->ctl_fd, EV_READ);
    e->accept_io.data = e;
    ev_io_start(e->loop, &e->accept_io);
    if (e->ready)
        e->ready(e->ready_arg);
}

static int adopt_fd(struct engine *e, int *fd)
{
    int err = conn_new(e, *fd);
    if (!err)
        *fd = -1; /* the connection's now */
    return err;
}

int eng_ctl_start(struct engine *e)
{
    if (!e->is_listening)
        return adopt_fd(e, &e->ctl_fd);
    if (e->take_fd >= 0)
        return adopt_fd(e, &e->take_fd);
    /* Only now: whoever can connect is served, and whoever cannot waits for the starting helper's word. */
    if (listen(e->ctl_fd, 128))
        return -errno;
    eng_ctl_serve(e);
    return 0;
}

void eng_ctl_stop(struct engine *e)
{
    if (e->is_listening && e->ctl_fd >= 0)
        ev_io_stop(e->loop, &e->accept_io);
    while (e->conns)
        conn_free(e->conns);
}

bool eng_ctl_any(const struct engine *e)
{
    const struct ctl_conn *k = e->conns;
    while (k && k->elder)
        k = k->next;
    return k;
}

struct ctl_conn *eng_ctl_next(struct engine *e, struct ctl_conn *k, struct ctl_client *c)
{
    k = k ? k->next : e->conns;
    if (k)
        *c = (struct ctl_client){ .id = k->id, .fd = k->fd, .log_fd = k->log_fd, .verbose = k->verbose, .uid = k->uid, .elder = k->elder };
    return k;
}

uint64_t eng_ctl_adopt(struct engine *e, const struct ctl_client *c)
{
    if (c->fd < 0 || conn_new(e, c->fd)) {
        if (c->fd >= 0)
            close(c->fd);
        if (c->log_fd >= 0)
            close(c->log_fd);
        return 0;
    }
    e->conns->log_fd = c->log_fd;
    e->conns->verbose = c->log_fd >= 0 ? c->verbose : 0;
    e->conns->uid = c->uid;
    e->conns->elder = c->elder;
    if (c->elder)
        mp_stack_join_elsewhere(e->stack, true);
    return e->conns->id;
}

uid_t eng_ctl_uid(const struct engine *e, uint64_t client)
{
    for (const struct ctl_conn *k = e->conns; k; k = k->next)
        if (k->id == client)
            return k->uid;
    return geteuid();
}

int eng_ctl_log(const struct engine *e, uint64_t client, int level)
{
    for (const struct ctl_conn *k = e->conns; k; k = k->next)
        if (k->id == client && k->log_fd >= 0)
            return k->verbose >= level ? k->log_fd : -1;
    return e->verbose >= level ? e->log_fd : -1;
}
