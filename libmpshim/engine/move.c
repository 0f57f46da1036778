/* engine/move.c: everything that an engine carries goes on in another engine, on the same sockets. This is the giver's part.
 *
 * The giver stops (it reads and sends nothing from here on), writes its state to a memory file and sends that and its
 * sockets over the taker's control connection. Nothing is closed before the taker holds it, so no kernel answers a peer
 * with a reset, and what arrives meanwhile waits in the sockets. Two steps, so that no connection ever has two engines:
 * the taker says that it has all (CTL_MOVE), the giver lets go (CTL_MOVE_GO). Until then both can still back out. */
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/move.h"

enum { BUFFER = 1 << 18, ANSWER_MS = 3000 };

/* ---- the file and the list of descriptors ---- */

struct out {
    struct engine *e;
    FILE *f;
    char *buffer; /* f's: keys pass through it */
    int file;
    int *fd;      /* borrowed descriptors */
    int n, cap;
    bool failed;
};

static void put(struct out *o, const void *p, size_t n) { o->failed |= fwrite(p, 1, n, o->f) != n; }

/* Its number in the list; NO_FD for none. */
static int32_t put_fd(struct out *o, int fd)
{
    if (fd < 0)
        return NO_FD;
    if (o->n == o->cap) {
        int cap = o->cap ? o->cap * 2 : 64, *v = cap <= FDS_MAX ? realloc(o->fd, (size_t)cap * sizeof *v) : NULL;
        if (!v) {
            o->failed = true;
            return NO_FD;
        }
        o->fd = v;
        o->cap = cap;
    }
    o->fd[o->n] = fd;
    return o->n++;
}

static void put_item(void *arg, const struct io_item *i, int fd)
{
    struct out *o = arg;
    int32_t at = put_fd(o, fd);
    put(o, i, sizeof *i);
    put(o, &at, sizeof at);
}

static void count_item(void *arg, const struct io_item *i, int fd)
{
    (void)i, (void)fd;
    ++*(uint32_t *)arg;
}

/* Messages of a program's own engine go to the engine's log; in a helper each client has its own. */
static void put_client(struct out *o, const struct ctl_client *k)
{
    struct ctl_client c = *k;
    if (c.log_fd < 0 && !o->e->is_listening) {
        c.log_fd = o->e->log_fd;
        c.verbose = o->e->verbose;
    }
    c.fd = put_fd(o, c.fd);
    c.log_fd = put_fd(o, c.log_fd);
    put(o, &c, sizeof c);
}

static int32_t port_index(struct engine *e, const void *p)
{
    struct port_info i;
    int32_t n = 0;
    for (struct port *q = eng_port_next(e, NULL, &i); q; q = eng_port_next(e, q, &i), n++)
        if (q == p)
            return n;
    return -1;
}

static void put_carrier(struct out *o, struct carrier *c)
{
    struct carrier_rec r = { .c = *c, .fd = put_fd(o, c->fd), .guard_fd = put_fd(o, c->guard_fd), .port = port_index(o->e, c->port) };
    put(o, &r, sizeof r);
}

/* Of one whose program has asked and not connected yet nobody knows where it will appear: it finds nobody. */
static bool is_moved(const struct carrier *c) { return c->state != CR_PENDING || c->syn_seen; }

static void put_conn(struct out *o, struct mpc *m)
{
    void *owner = mpc_owner(m);
    struct conn_head h = { .owner = owner ? OWNER_PORT : OWNER_NONE, .port = port_index(o->e, owner) };
    if (owner && h.port < 0)
        h.owner = OWNER_CARRIER;
    long at = ftell(o->f), end;
    put(o, &h, sizeof h);
    o->failed |= mpc_save(m, o->f) != 0;
    end = ftell(o->f);
    h.bytes = (uint64_t)(end - at) - sizeof h;
    o->failed |= fseek(o->f, at, SEEK_SET) != 0;
    put(o, &h, sizeof h);
    o->failed |= fseek(o->f, end, SEEK_SET) != 0;
    if (h.owner == OWNER_CARRIER)
        put_carrier(o, owner);
}

static bool conn_moves(struct engine *e, struct mpc *m)
{
    void *owner = mpc_owner(m);
    return !owner || port_index(e, owner) >= 0 || is_moved(owner);
}

static void counts(struct engine *e, struct head *h)
{
    struct port_info pi;
    struct ctl_client k;
    io_give(e->io, count_item, &h->nitems);
    for (struct ctl_conn *q = eng_ctl_next(e, NULL, &k); q; q = eng_ctl_next(e, q, &k))
        h->nclients++;
    for (struct port *p = eng_port_next(e, NULL, &pi); p; p = eng_port_next(e, p, &pi))
        h->nports++;
    for (struct mpc *m = mp_stack_first(e->stack); m; m = mp_stack_next(m))
        h->nconns += conn_moves(e, m);
    for (struct carrier *c = e->all; c; c = c->next)
        h->ncarriers += !c->mpc && is_moved(c);
}

static void write_all(struct out *o)
{
    struct engine *e = o->e;
    struct head h = { .magic = MOVE_MAGIC, .ctl_fd = NO_FD, .lock_fd = NO_FD };
    struct port_info pi;
    struct ctl_client k;
    mp_stack_settle(e->stack, eng_now());
    put_fd(o, e->lo4); /* the first one: only who may open raw sockets has one to show */
    if (e->is_listening) {
        h.ctl_fd = put_fd(o, e->ctl_fd);
        h.lock_fd = put_fd(o, e->lock_fd);
    }
    h.ask = o->n;
    for (int fd; (fd = eng_asksock_next(e, (int)h.nasks)) >= 0; h.nasks++)
        put_fd(o, fd);
    counts(e, &h);
    put(o, &h, sizeof h);
    io_give(e->io, put_item, o);
    for (struct ctl_conn *q = eng_ctl_next(e, NULL, &k); q; q = eng_ctl_next(e, q, &k))
        put_client(o, &k);
    for (struct port *p = eng_port_next(e, NULL, &pi); p; p = eng_port_next(e, p, &pi)) {
        pi.guard_fd = put_fd(o, pi.guard_fd);
        put(o, &pi, sizeof pi);
    }
    for (struct mpc *m = mp_stack_first(e->stack); m; m = mp_stack_next(m))
        if (conn_moves(e, m))
            put_conn(o, m);
    for (struct carrier *c = e->all; c; c = c->next)
        if (!c->mpc && is_moved(c))
            put_carrier(o, c);
    h.nfds = (uint32_t)o->n;
    o->failed |= fseek(o->f, 0, SEEK_SET) != 0;
    put(o, &h, sizeof h);
    o->failed |= fflush(o->f) != 0;
}

static bool out_open(struct out *o)
{
    o->file = memfd_create("mpshim-move", MFD_CLOEXEC);
    o->buffer = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (o->buffer == MAP_FAILED)
        o->buffer = NULL;
    else
        (void)madvise(o->buffer, BUFFER, MADV_DONTDUMP);
    int copy = o->file < 0 || !o->buffer ? -1 : dup(o->file);
    o->f = copy < 0 ? NULL : fdopen(copy, "w");
    if (!o->f && copy >= 0)
        close(copy);
    return o->f && setvbuf(o->f, o->buffer, _IOFBF, BUFFER) == 0;
}

static void out_close(struct out *o)
{
    if (o->f)
        fclose(o->f);
    if (o->file >= 0)
        close(o->file);
    if (o->buffer)
        munmap(o->buffer, BUFFER);
    free(o->fd);
}

/* ---- the messages ---- */

int eng_send_fds_now(int to, const struct ctl_req *q, const int *fd, int n)
{
    union { struct cmsghdr h; char b[CMSG_SPACE(CTL_FDS * sizeof(int))]; } c = { 0 };
    struct iovec v = { (void *)q, sizeof *q };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = CMSG_SPACE((size_t)n * sizeof(int)) };
    c.h.cmsg_level = SOL_SOCKET;
    c.h.cmsg_type = SCM_RIGHTS;
    c.h.cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
    memcpy(CMSG_DATA(&c.h), fd, (size_t)n * sizeof(int));
    return sendmsg(to, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* -ETOOMANYREFS: too many descriptors are under way for this user; the taker is just taking them. */
int eng_send_fds(int to, const struct ctl_req *q, const int *fd, int n)
{
    for (int tries = 0;; tries++) {
        int err = eng_send_fds_now(to, q, fd, n);
        if ((err != -ETOOMANYREFS && err != -EAGAIN && err != -EINTR) || tries == ANSWER_MS / 10)
            return err;
        struct pollfd p = { .fd = to, .events = POLLOUT };
        poll(&p, err == -EAGAIN, 10);
    }
}

static struct ctl_req request(enum ctl_op op) { return (struct ctl_req){ .version = CTL_VERSION, .op = (uint16_t)op, .pid = getpid() }; }

static int send_sockets(int to, const struct out *o)
{
    struct ctl_req q = request(CTL_MOVE_SOCKETS);
    int err = 0;
    for (int at = 0; at < o->n && !err; at += CTL_FDS)
        err = eng_send_fds(to, &q, o->fd + at, o->n - at < CTL_FDS ? o->n - at : CTL_FDS);
    return err;
}

static int await(int fd)
{
    struct ctl_rep rep;
    struct pollfd p = { .fd = fd, .events = POLLIN };
    int r;
    do
        r = poll(&p, 1, ANSWER_MS);
    while (r < 0 && errno == EINTR);
    if (r <= 0)
        return r ? -errno : -ETIMEDOUT;
    /* Of another version it may be of another length; result is always there. */
    return recv(fd, &rep, sizeof rep, MSG_DONTWAIT) >= (ssize_t)(offsetof(struct ctl_rep, result) + sizeof rep.result) ? rep.result : -EPIPE;
}

static int ask(int to, const struct out *o)
{
    struct ctl_req q = request(CTL_MOVE);
    int pair[2];
    q.value = eng_move_layout;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -errno;
    int fds[] = { pair[1], o->file };
    int err = eng_send_fds(to, &q, fds, 2);
    close(pair[1]);
    if (!err)
        err = await(pair[0]);
    close(pair[0]);
    return err;
}

int eng_place_give(struct engine *e, int to)
{
    struct ctl_req q = request(CTL_PLACE);
    int pair[2];
    if (e->ctl_fd < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -errno;
    int fds[] = { pair[1], e->ctl_fd, e->lock_fd };
    int err = e->lock_fd < 0 ? -EBADF : eng_send_fds(to, &q, fds, 3);
    close(pair[1]);
    if (!err)
        err = await(pair[0]); /* end of file: one that does not know this message */
    close(pair[0]);
    return err;
}

int eng_move_out(struct engine *e, int to)
{
    struct out o = { .e = e, .file = -1 };
    int err = -ENOMEM;
    eng_lo_read(e); /* SYNs that wait belong to carriers that can go then */
    eng_flush(e);
    if (out_open(&o)) {
        write_all(&o);
        err = o.failed ? -EIO : send_sockets(to, &o);
    }
    if (!err)
        err = ask(to, &o);
    if (!err) {
        struct ctl_req q = request(CTL_MOVE_GO);
        eng_will_revoke(e, true); /* before: the taker may hear of our end before it hears this */
        err = send(to, &q, sizeof q, MSG_NOSIGNAL) < 0 ? -errno : 0;
        if (err)
            eng_will_revoke(e, false);
    }
    out_close(&o);
    return err;
}
