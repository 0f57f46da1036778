/* io/sock.c: one raw or packet socket: its life, its readiness, its filter, what it receives. What it sends: sock_out.c. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "io/internal.h"

mp_time io_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (mp_time)t.tv_sec * 1000000000u + (mp_time)t.tv_nsec;
}

/* ---- life ---- */

static void on_readable(struct ev_loop *loop, ev_io *w, int events)
{
    struct io_sock *s = w->data;

    (void)loop, (void)events;
    if (s->dead) return;
    if (s->kind == IO_PACKET_RX) io_packet_read(s);
    else io_raw_read(s);
    io_kick(s->io);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int events)
{
    (void)loop, (void)events;
    io_sock_flush(w->data);
}

static void on_retry(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop, (void)events;
    io_sock_flush(w->data);
}

struct io_sock *io_sock_new(struct io *io, enum io_kind kind, int fd, int ifindex)
{
    struct io_sock *s = calloc(1, sizeof *s);

    if (!s) {
        close(fd);
        return NULL;
    }
    s->io = io;
    s->kind = kind;
    s->fd = fd;
    s->ifindex = ifindex;
    s->refs = 1;
    s->waiting_tail = &s->waiting;
    s->next = io->socks;
    io->socks = s;
    ev_io_init(&s->rd, on_readable, fd, EV_READ);
    ev_io_init(&s->wr, on_writable, fd, EV_WRITE);
    ev_timer_init(&s->retry, on_retry, 0.001, 0.);
    s->rd.data = s->wr.data = s->retry.data = s;
    if (kind != IO_PACKET_TX) ev_io_start(io->loop, &s->rd);
    return s;
}

void io_sock_drop(struct io_sock *s)
{
    if (s->dead) return;
    s->dead = true;
    ev_io_stop(s->io->loop, &s->rd);
    ev_io_stop(s->io->loop, &s->wr);
    ev_timer_stop(s->io->loop, &s->retry);
    io_set_tidy(s->io);
}

/* Packet sockets stay: closing one costs 8 to 24 ms, and the next flow would need it again. */
void io_sock_put(struct io_sock *s)
{
    if (!s || --s->refs) return;
    if (s->dead) io_set_tidy(s->io);
    else if (s->kind == IO_RAW_CLIENT || s->kind == IO_RAW_LISTEN) io_sock_drop(s);
}

static void sock_free(struct io_sock *s)
{
    io_sock_forget(s);
    io_ports_fini(&s->ports);
    close(s->fd);
    free(s);
}

void io_reap(struct io *io)
{
    for (struct io_sock **at = &io->socks; *at;) {
        struct io_sock *s = *at;

        if (!s->dead || s->refs) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        sock_free(s);
    }
}

struct io_sock *io_sock_find(struct io *io, enum io_kind kind, int ifindex, uint8_t family)
{
    for (struct io_sock *s = io->socks; s; s = s->next)
        if (!s->dead && s->kind == kind && s->ifindex == ifindex && s->family == family) return s;
    return NULL;
}

int io_sock_filter(struct io_sock *s)
{
    int kept = 0;

    if (s->io->taking) {
        s->filter_due = true;
        return 0;
    }
    for (int i = 0; i < s->ports.n; i++)
        if (s->ports.v[i].refs) s->ports.v[kept++] = s->ports.v[i];
    s->ports.n = kept;
    s->filter_due = false;
    s->io->n.filters++;
    return io_filter_attach(s->fd, s->kind == IO_PACKET_RX ? IO_FILTER_ETH : s->family == 4 ? IO_FILTER_RAW4 : IO_FILTER_RAW6,
                            &s->ports);
}

/* ---- receiving ---- */

#define BATCH 8
#define PER_WAKEUP 64 /* packets before other descriptors get their turn */

struct rx {
    struct mmsghdr m[BATCH];
    struct iovec v[BATCH][2];
    struct virtio_net_hdr vnet[BATCH];
    struct sockaddr_storage from[BATCH];
    union io_ctl ctl[BATCH]; /* IPV6_PKTINFO and IPV6_TCLASS */
    struct mp_buf *buf[BATCH];
};

static int rx_prepare(struct io_sock *s, struct rx *r)
{
    bool packet = s->kind == IO_PACKET_RX;
    int k = 0;

    for (; k < BATCH; k++) {
        struct msghdr *h = &r->m[k].msg_hdr;

        if (r->buf[k] && r->buf[k]->refs > 1) { /* the core keeps a piece of it */
            mp_buf_put(r->buf[k]);
            r->buf[k] = NULL;
        }
        if (!r->buf[k]) r->buf[k] = io_pool_get(s->io->pool);
        if (!r->buf[k]) break;
        r->v[k][0] = (struct iovec){ &r->vnet[k], packet ? sizeof r->vnet[k] : 0 };
        r->v[k][1] = (struct iovec){ r->buf[k]->data, r->buf[k]->size };
        *h = (struct msghdr){ .msg_name = &r->from[k], .msg_namelen = sizeof r->from[k],
                              .msg_iov = r->v[k], .msg_iovlen = 2 };
        if (s->family == 6) {
            h->msg_control = r->ctl[k].b;
            h->msg_controllen = sizeof r->ctl[k].b;
        }
    }
    return k;
}

static void rx_one(struct io_sock *s, struct rx *r, int i, io_rx_fn *each, mp_time now)
{
    struct io_rx_msg m = { .h = &r->m[i].msg_hdr, .buf = r->buf[i], .len = r->m[i].msg_len, .vnet = &r->vnet[i] };

    if (s->kind == IO_PACKET_RX) {
        if (m.len < sizeof *m.vnet) return;
        m.len -= sizeof *m.vnet;
    }
    if (m.h->msg_flags & MSG_TRUNC) s->io->n.rx_bad++;
    else each(s, &m, now);
}

int io_sock_read(struct io_sock *s, io_rx_fn *each)
{
    struct rx r;
    int got = 0;

    memset(r.buf, 0, sizeof r.buf);
    while (got >= 0 && got < PER_WAKEUP && !s->dead) {
        int k = rx_prepare(s, &r), n = k ? recvmmsg(s->fd, r.m, (unsigned)k, MSG_DONTWAIT, NULL) : 0;
        mp_time now = io_now();

        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && !got && errno != EAGAIN) got = -errno;
        if (n <= 0) break;
        for (int i = 0; i < n && !s->dead; i++) rx_one(s, &r, i, each, now);
        got += n;
        if (n < k) break; /* empty */
    }
    for (int i = 0; i < BATCH; i++) mp_buf_put(r.buf[i]);
    return got;
}
