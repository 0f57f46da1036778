/* engine/move_in.c: what another engine carried (move.c) goes on here. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/move.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

/* The Makefile makes it of the headers. */
#ifndef MOVE_LAYOUT
#error "MOVE_LAYOUT is not defined"
#endif
const uint64_t eng_move_layout = MOVE_LAYOUT;

struct move_in {
    int *fd; /* owned; -1: given on */
    int n, cap;
    int file; /* owned; -1: not there yet */
    FILE *f;
    uint64_t *client; /* pairs: number there, number here */
    uint32_t nclients;
    struct port **port; /* NULL where it could not be made */
    uint32_t nports;
};

void eng_move_drop(struct move_in *in)
{
    if (!in)
        return;
    for (int i = 0; i < in->n; i++)
        if (in->fd[i] >= 0)
            close(in->fd[i]);
    if (in->f)
        fclose(in->f);
    if (in->file >= 0)
        close(in->file);
    free(in->fd);
    free(in->client);
    free(in->port);
    free(in);
}

struct move_in *eng_move_sockets(struct move_in *in, int *fd, int n)
{
    if (!in && (in = calloc(1, sizeof *in)))
        in->file = -1;
    if (!in || in->n + n > FDS_MAX)
        return in;
    if (in->n + n > in->cap) {
        int cap = (in->n + n) * 2, *v = realloc(in->fd, (size_t)cap * sizeof *v);
        if (!v)
            return in; /* too few: refused below */
        in->fd = v;
        in->cap = cap;
    }
    for (int i = 0; i < n; i++) {
        in->fd[in->n++] = fd[i];
        fd[i] = -1;
    }
    return in;
}

int eng_sockopt(int fd, int opt)
{
    int v = -1;
    socklen_t n = sizeof v;
    return getsockopt(fd, SOL_SOCKET, opt, &v, &n) ? -1 : v;
}

/* What comes is believed byte for byte, so only one may send it who could do all of it himself: a raw socket shows that. */
static bool shows_privilege(int fd)
{
    return eng_sockopt(fd, SO_TYPE) == SOCK_RAW && eng_sockopt(fd, SO_DOMAIN) == AF_INET && eng_sockopt(fd, SO_PROTOCOL) == IPPROTO_TCP;
}

static bool is_our_network(int fd, int own)
{
    uint64_t a = 0, b = 0;
    socklen_t n = sizeof a, m = sizeof b;
    return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &a, &n) || getsockopt(own, SOL_SOCKET, SO_NETNS_COOKIE, &b, &m) || a == b;
}

bool eng_move_may(struct engine *e, int raw) { return shows_privilege(raw) && is_our_network(raw, e->lo4); }

int eng_move_check(struct engine *e, struct move_in *in, int file, uint64_t layout)
{
    struct head h;
    if (!in || in->n < 1 || in->file >= 0 || !shows_privilege(in->fd[0])) {
        close(file);
        return -EPERM;
    }
    in->file = file;
    if (layout != eng_move_layout)
        return -EPROTO;
    if (!is_our_network(in->fd[0], e->lo4))
        return -EXDEV;
    if (pread(file, &h, sizeof h, 0) != sizeof h || h.magic != MOVE_MAGIC || h.nfds != (uint32_t)in->n)
        return -EBADMSG; /* some did not come: no room for descriptors here */
    return 0;
}

static bool get(struct move_in *in, void *p, size_t n) { return fread(p, 1, n, in->f) == n; }

static int take_fd(struct move_in *in, int32_t i)
{
    if (i < 0 || i >= in->n)
        return -1;
    int fd = in->fd[i];
    in->fd[i] = -1;
    return fd;
}

static bool take_items(struct engine *e, struct move_in *in, uint32_t n)
{
    struct io_item i;
    int32_t at;
    for (; n; n--) {
        if (!get(in, &i, sizeof i) || !get(in, &at, sizeof at))
            return false;
        int fd = take_fd(in, at);
        if (fd >= 0)
            io_take(e->io, &i, fd);
    }
    return true;
}

static bool take_clients(struct engine *e, struct move_in *in, uint32_t n)
{
    in->client = calloc(n ? n : 1, 2 * sizeof *in->client);
    for (; in->client && n; n--) {
        struct ctl_client k;
        if (!get(in, &k, sizeof k))
            return false;
        in->client[2 * in->nclients] = k.id;
        k.fd = take_fd(in, k.fd);
        k.log_fd = take_fd(in, k.log_fd);
        in->client[2 * in->nclients++ + 1] = eng_ctl_adopt(e, &k);
    }
    return in->client;
}

static uint64_t client_here(const struct move_in *in, uint64_t there)
{
    for (uint32_t i = 0; i < in->nclients; i++)
        if (in->client[2 * i] == there)
            return in->client[2 * i + 1];
    return 0;
}

static bool take_ports(struct engine *e, struct move_in *in, uint32_t n)
{
    in->port = calloc(n ? n : 1, sizeof(struct port *));
    for (; in->port && n; n--) {
        struct port_info i;
        if (!get(in, &i, sizeof i))
            return false;
        i.guard_fd = take_fd(in, i.guard_fd);
        i.client = client_here(in, i.client);
        in->port[in->nports++] = eng_port_adopt(e, &i);
    }
    return in->port;
}

static struct port *port_here(const struct move_in *in, int32_t i)
{
    return i >= 0 && (uint32_t)i < in->nports ? in->port[i] : NULL;
}

/* NULL: its sockets are closed, which the program sees as a reset. */
static struct carrier *take_carrier(struct engine *e, struct move_in *in, struct mpc *m)
{
    struct carrier_rec r;
    if (!get(in, &r, sizeof r))
        return NULL;
    int fd = take_fd(in, r.fd), guard = take_fd(in, r.guard_fd);
    r.c.client = client_here(in, r.c.client);
    struct carrier *c = m || !r.c.mpc ? eng_carrier_adopt(e, &r.c, fd, guard, m, port_here(in, r.port)) : NULL;
    if (c)
        return c;
    if (fd >= 0)
        close(fd);
    if (guard >= 0)
        close(guard);
    return NULL;
}

static void give_up(struct mpc *m, mp_time now)
{
    mpc_set_owner(m, NULL);
    mpc_abort(m, now);
    mpc_release(m, 0, now);
}

static bool take_conn(struct engine *e, struct move_in *in)
{
    struct conn_head h;
    mp_time now = eng_now();
    if (!get(in, &h, sizeof h))
        return false;
    long end = ftell(in->f) + (long)h.bytes;
    struct mpc *m = mpc_load(e->stack, in->f, h.owner == OWNER_PORT ? port_here(in, h.port) : NULL, now);
    if (fseek(in->f, end, SEEK_SET))
        return false;
    if (h.owner != OWNER_CARRIER)
        return true;
    struct carrier *c = take_carrier(e, in, m);
    if (m && c)
        mpc_set_owner(m, c);
    else if (m)
        give_up(m, now);
    return true;
}

static void take_place(struct engine *e, struct move_in *in, const struct head *h)
{
    int ctl = take_fd(in, h->ctl_fd), lock = take_fd(in, h->lock_fd);
    if (e->ctl_fd >= 0 || ctl < 0) { /* an engine inside a program has none */
        if (ctl >= 0)
            close(ctl);
        if (lock >= 0)
            close(lock);
        return;
    }
    e->ctl_fd = ctl;
    e->lock_fd = lock;
    eng_ctl_serve(e);
}

static bool take_all(struct engine *e, struct move_in *in)
{
    struct head h;
    if (!get(in, &h, sizeof h))
        return false;
    take_place(e, in, &h);
    for (uint32_t i = 0; i < h.nasks; i++) {
        int fd = take_fd(in, h.ask + (int32_t)i);
        if (fd >= 0)
            eng_asksock_adopt(e, fd);
    }
    if (!take_items(e, in, h.nitems) || !take_clients(e, in, h.nclients) || !take_ports(e, in, h.nports))
        return false;
    for (; h.nconns; h.nconns--)
        if (!take_conn(e, in))
            return false;
    for (; h.ncarriers; h.ncarriers--)
        (void)take_carrier(e, in, NULL);
    return true;
}

void eng_move_go(struct engine *e, struct move_in *in)
{
    if (!in || in->file < 0) {
        eng_move_drop(in);
        return;
    }
    (void)lseek(in->file, 0, SEEK_SET);
    in->f = fdopen(in->file, "r");
    if (in->f) {
        in->file = -1;
        io_take_begin(e->io);
        (void)take_all(e, in); /* what could not be had is closed by eng_move_drop(): a reset, never an end of data */
        io_take_end(e->io);
    }
    eng_move_drop(in);
    eng_touch(e);
    eng_sweep_at(e, eng_now());
}
