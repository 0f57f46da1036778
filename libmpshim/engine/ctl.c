/* engine/ctl.c: control connections: messages in and answers out, whose client each is, how it begins and ends. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/ctl_conn.h"

enum { CTL_BATCH = 64 /* messages a turn */ };

/* ---- messages ---- */

int ctl_take_fd(struct ctl_msg *m, int i)
{
    if (i >= m->nfd)
        return -1;
    int fd = m->fd[i];
    m->fd[i] = -1;
    return fd;
}

void ctl_answer_bytes(int fd, const void *p, size_t n)
{
    if (fd < 0)
        return;
    (void)send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT); /* lost only if the asker has gone */
    close(fd);
}

void ctl_answer(int fd, const struct ctl_rep *rep) { ctl_answer_bytes(fd, rep, sizeof *rep); }

struct ctl_rep ctl_reply_to(const struct ctl_req *q)
{
    return (struct ctl_rep){ .version = CTL_VERSION, .op = q->op };
}

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

/* ---- the life of a connection ---- */

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
    ctl_kept_close(k);
    eng_move_drop(k->in);
    eng_heir_free(k->heir);
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
    if (k->heir) {
        eng_heir_speak(k->heir);
        k->heir = NULL;
    }
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
            ctl_dispatch(k, &m);
        msg_done(&m);
    }
}

static uid_t uid_of(int fd)
{
    struct ucred u;
    socklen_t n = sizeof u;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &n) ? (uid_t)-1 : u.uid;
}

int ctl_conn_new(struct engine *e, int fd)
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

/* ---- who connects ---- */

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
    if (!peer_allowed(fd) || ctl_conn_new(e, fd))
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
    int err = ctl_conn_new(e, *fd);
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

/* ---- clients, for other files ---- */

int eng_ctl_connect(const char *path, int flags)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof a.sun_path)
        return -1;
    memcpy(a.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
        return fd;
    close(fd);
    return -1;
}

bool eng_ctl_any(const struct engine *e)
{
    const struct ctl_conn *k = e->conns;
    while (k && (k->elder || (k->heir && !eng_heir_matters(k->heir))))
        k = k->next;
    return k;
}

struct ctl_conn *eng_ctl_next(struct engine *e, struct ctl_conn *k, struct ctl_client *c)
{
    k = k ? k->next : e->conns;
    while (k && k->heir) /* an engine whose helper ends looks for another */
        k = k->next;
    if (k)
        *c = (struct ctl_client){ .id = k->id, .fd = k->fd, .log_fd = k->log_fd, .verbose = k->verbose, .uid = k->uid, .elder = k->elder };
    return k;
}

uint64_t eng_ctl_adopt(struct engine *e, const struct ctl_client *c)
{
    if (c->fd < 0 || ctl_conn_new(e, c->fd)) {
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
