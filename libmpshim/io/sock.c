/* io/sock.c: one raw or packet socket: its readiness, its receive buffers, its queue of packets that must wait. */
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

/* ---- receive buffers: the core may keep references beyond the life of io ---- */

#define POOL_KEEP 128 /* free buffers kept; 8 MB if all were touched */

struct io_pool {
    struct mp_buf *free;
    int nfree;
    uint32_t out; /* buffers with references */
    bool closed;
};
struct pool_buf {
    struct mp_buf b;
    struct io_pool *pool;
    uint8_t bytes[];
};

struct io_pool *io_pool_new(void) { return calloc(1, sizeof(struct io_pool)); }

static void pool_trim(struct io_pool *p, int keep)
{
    while (p->nfree > keep) {
        struct mp_buf *b = p->free;

        p->free = b->next;
        p->nfree--;
        free(b); /* the first member of its pool_buf */
    }
}

static void pool_release(struct mp_buf *b)
{
    struct io_pool *p = ((struct pool_buf *)b)->pool;

    b->next = p->free;
    p->free = b;
    p->nfree++;
    p->out--;
    pool_trim(p, p->closed ? 0 : POOL_KEEP);
    if (p->closed && !p->out) free(p);
}

struct mp_buf *io_pool_get(struct io_pool *p)
{
    struct pool_buf *pb;

    if (p->free) {
        pb = (struct pool_buf *)p->free;
        p->free = pb->b.next;
        p->nfree--;
    } else {
        pb = malloc(sizeof *pb + IO_RX_SIZE);
        if (!pb) return NULL;
        pb->pool = p;
    }
    pb->b = (struct mp_buf){ .refs = 1, .size = IO_RX_SIZE, .data = pb->bytes, .release = pool_release };
    p->out++;
    return &pb->b;
}

void io_pool_free(struct io_pool *p)
{
    if (!p) return;
    pool_trim(p, 0);
    p->closed = true;
    if (!p->out) free(p);
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

static void flush_waiting(struct io_sock *s);

static void on_writable(struct ev_loop *loop, ev_io *w, int events)
{
    (void)loop, (void)events;
    flush_waiting(w->data);
}

static void on_retry(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop, (void)events;
    flush_waiting(w->data);
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

void io_sock_forget(struct io_sock *s)
{
    while (s->waiting) {
        struct io_waiting *w = s->waiting;

        s->waiting = w->next;
        free(w);
    }
    s->waiting_tail = &s->waiting;
    s->nwaiting = 0;
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

/* ---- sending ---- */

static int try_send(int fd, const struct msghdr *m)
{
    ssize_t r;

    do r = sendmsg(fd, m, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static bool is_full(int err) { return err == -EAGAIN || err == -ENOBUFS; }

/* An ICMP error that came earlier is told by the next send, which it has nothing to do with: such a send is repeated, as
 * there may be several. No ICMP error is EPERM; that is netfilter's word about this very packet. */
static int send_once(struct io_sock *s, const struct msghdr *m)
{
    int err = try_send(s->fd, m);

    for (int i = 0; i < 3 && err && !is_full(err) && err != -EPERM; i++) err = try_send(s->fd, m);
    return err;
}

/* EAGAIN ends with a readiness event; ENOBUFS (a full queue discipline) does not. */
static void wait_for_room(struct io_sock *s, int err)
{
    if (err == -ENOBUFS) {
        ev_io_stop(s->io->loop, &s->wr);
        ev_timer_set(&s->retry, 0.001, 0.);
        ev_timer_start(s->io->loop, &s->retry);
    } else {
        ev_timer_stop(s->io->loop, &s->retry);
        ev_io_start(s->io->loop, &s->wr);
    }
}

/* ---- a short queue: what waits in the host's own queue is delay that the path does not have ----
 *
 * The send buffer holds QUEUE of the rate seen, so that EAGAIN tells of a slow link before its queue discipline fills. */
#define QUEUE MP_MS(4)
#define TUNE_EVERY MP_MS(20)
#define PAUSE MP_MS(100)
#define SNDBUF_MIN (128 << 10)
#define SNDBUF_MAX (8 << 20)

static void set_sndbuf(struct io_sock *s, int bytes)
{
    int half = bytes / 2; /* the kernel doubles it */

    s->sndbuf = bytes;
    if (setsockopt(s->fd, SOL_SOCKET, SO_SNDBUFFORCE, &half, sizeof half))
        setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof half);
}

static void tune_queue(struct io_sock *s, size_t n)
{
    mp_time now = io_now();
    mp_dur since = now - s->tuned_at;
    int want;

    s->sent += n;
    if (since < TUNE_EVERY) return;
    /* Twice the payload, for the kernel's overhead. A pause of the sender's says nothing about the link. */
    want = (int)mp_max(SNDBUF_MIN, mp_min(SNDBUF_MAX, s->sent * 2 * (QUEUE / 1000) / (since / 1000)));
    if ((since < PAUSE || s->was_full) && (want > s->sndbuf + s->sndbuf / 4 || want < s->sndbuf - s->sndbuf / 4))
        set_sndbuf(s, want);
    s->sent = 0;
    s->was_full = false;
    s->tuned_at = now;
}

static size_t msg_len(const struct msghdr *m)
{
    size_t n = 0;

    for (size_t i = 0; i < m->msg_iovlen; i++) n += m->msg_iov[i].iov_len;
    return n;
}

static int enqueue(struct io_sock *s, const struct msghdr *m)
{
    size_t n = msg_len(m), at = 0;
    struct io_waiting *w;

    if (s->nwaiting >= IO_WAITING_MAX || !(w = malloc(sizeof *w + n))) {
        s->io->n.tx_drop++;
        return 0; /* as a full queue on the way would */
    }
    w->next = NULL;
    w->len = n;
    w->to_len = m->msg_name ? m->msg_namelen : 0;
    if (w->to_len) memcpy(&w->to, m->msg_name, w->to_len);
    w->ctl_len = m->msg_controllen;
    if (w->ctl_len) memcpy(&w->ctl, m->msg_control, w->ctl_len);
    for (size_t i = 0; i < m->msg_iovlen; i++) {
        memcpy(w->bytes + at, m->msg_iov[i].iov_base, m->msg_iov[i].iov_len);
        at += m->msg_iov[i].iov_len;
    }
    *s->waiting_tail = w;
    s->waiting_tail = &w->next;
    s->nwaiting++;
    s->io->n.tx_queued++;
    return 0;
}

int io_sock_send(struct io_sock *s, const struct msghdr *m)
{
    int err;

    if (s->dead) return -ENODEV;
    if (s->waiting) return enqueue(s, m);
    err = send_once(s, m);
    if (!err) tune_queue(s, msg_len(m));
    if (!is_full(err)) return err;
    s->was_full = true;
    enqueue(s, m);
    wait_for_room(s, err);
    return 0;
}

/* ---- what the host's own rules, routes and queues go by ---- */

static void add_number(struct msghdr *h, union io_ctl *ctl, int type, uint32_t number)
{
    struct cmsghdr *c = (struct cmsghdr *)(void *)(ctl->b + h->msg_controllen);

    *c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = type, .cmsg_len = CMSG_LEN(sizeof number) };
    memcpy(CMSG_DATA(c), &number, sizeof number);
    h->msg_control = ctl;
    h->msg_controllen += CMSG_SPACE(sizeof number);
}

/* Before Linux 6.14 a packet can be given no priority; that is found out once, and the mark goes alone. */
int io_sock_send_marked(struct io_sock *s, struct msghdr *m, union io_ctl *ctl, const struct mp_pkt *p)
{
    size_t had = m->msg_controllen;
    bool priority = p->priority && !s->io->no_priority;
    int err;

    if (p->mark) add_number(m, ctl, SO_MARK, p->mark);
    if (priority) add_number(m, ctl, SO_PRIORITY, p->priority);
    err = io_sock_send(s, m);
    if (err != -EINVAL || !priority) return err;
    s->io->no_priority = true;
    m->msg_controllen = had;
    return io_sock_send_marked(s, m, ctl, p);
}

static int send_waiting(struct io_sock *s, struct io_waiting *w)
{
    struct iovec v = { w->bytes, w->len };
    struct msghdr m = { .msg_name = w->to_len ? &w->to : NULL, .msg_namelen = w->to_len, .msg_iov = &v, .msg_iovlen = 1,
                        .msg_control = w->ctl_len ? &w->ctl : NULL, .msg_controllen = w->ctl_len };

    return send_once(s, &m);
}

static void flush_waiting(struct io_sock *s)
{
    while (s->waiting && !s->dead) {
        struct io_waiting *w = s->waiting;
        int err = send_waiting(s, w);

        if (is_full(err)) {
            s->was_full = true;
            wait_for_room(s, err);
            return;
        }
        if (err) s->io->n.tx_drop++;
        else tune_queue(s, w->len);
        s->waiting = w->next;
        if (!s->waiting) s->waiting_tail = &s->waiting;
        s->nwaiting--;
        free(w);
    }
    ev_io_stop(s->io->loop, &s->wr);
    ev_timer_stop(s->io->loop, &s->retry);
    if (*s->io->stack) mp_stack_writable(*s->io->stack, NULL);
    io_kick(s->io);
}
