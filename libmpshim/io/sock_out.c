/* io/sock_out.c: what a socket sends, and the queue of what must wait: how long the host's own may become, and when it has room
 * again. */
#include <errno.h>
#include <stdlib.h>

#include "io/internal.h"

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

void io_sock_flush(struct io_sock *s)
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
