/* engine/asksock.c: see asksock.h. */
#define _GNU_SOURCE
#include "engine/asksock.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/eng.h"

struct guest {
    struct engine *e;
    struct guest *next;
    ev_io io; /* its descriptor is owned */
};

static void guest_free(struct guest *g)
{
    for (struct guest **p = &g->e->guests; *p; p = &(*p)->next)
        if (*p == g) {
            *p = g->next;
            break;
        }
    ev_io_stop(g->e->loop, &g->io);
    close(g->io.fd);
    free(g);
}

static void serve(struct guest *g, const struct ctl_req *q, int shown)
{
    struct ctl_info info = { .rep = { .version = CTL_VERSION, .op = q->op } };
    size_t n = sizeof info.rep;
    if (q->op == CTL_QUERY) {
        eng_carrier_query(g->e, q, &info.rep);
    } else if (q->op == CTL_INFO) {
        eng_carrier_info(g->e, q, &info);
        n = sizeof info;
    } else if (q->op == CTL_SETOPT) {
        info.rep.result = eng_carrier_setopt(g->e, q, shown);
    } else {
        return;
    }
    (void)send(g->io.fd, &info, n, MSG_NOSIGNAL | MSG_DONTWAIT); /* lost only if the asker has gone */
}

/* shown: the socket that came with it. There is room for no more (CMSG_SPACE has it for two), and the kernel closes what
 * finds none. */
static ssize_t receive(int fd, struct ctl_req *q, int *shown)
{
    union { struct cmsghdr h; char b[CMSG_SPACE(sizeof(int))]; } ctl;
    struct iovec v = { q, sizeof *q };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = CMSG_LEN(sizeof(int)) };
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(shown, CMSG_DATA(c), sizeof *shown);
    return n;
}

static void on_question(struct ev_loop *loop, ev_io *w, int events)
{
    (void)loop, (void)events;
    struct guest *g = w->data;
    struct ctl_req q;
    int shown = -1;
    if (receive(w->fd, &q, &shown) == (ssize_t)sizeof q && q.version == CTL_VERSION)
        serve(g, &q, shown);
    if (shown >= 0)
        close(shown);
    guest_free(g);
}

static void on_guest(struct ev_loop *loop, ev_io *w, int events)
{
    (void)events;
    struct engine *e = w->data;
    int fd = eng_accept(e, w->fd);
    struct guest *g = fd >= 0 && eng_is_for_us(fd) ? calloc(1, sizeof *g) : NULL;
    if (!g) {
        if (fd >= 0)
            close(fd);
        return;
    }
    g->e = e;
    g->next = e->guests;
    e->guests = g;
    ev_io_init(&g->io, on_question, fd, EV_READ);
    g->io.data = g;
    ev_io_start(loop, &g->io);
}

/* Without it (a sandbox, out of descriptors) such processes see the loopback's addresses. */
void eng_asksock_open(struct engine *e)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, ASKSOCK_NAME, e->ident4);
    if (fd < 0)
        return;
    if (bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) || listen(fd, 16)) {
        close(fd);
        return;
    }
    ev_io_init(&e->ask_io, on_guest, fd, EV_READ);
    e->ask_io.data = e;
    ev_io_start(e->loop, &e->ask_io);
}

/* Of an engine whose carriers are ours now. */
void eng_asksock_adopt(struct engine *e, int fd)
{
    if (e->nadopted == ENG_ASKSOCKS) { /* most strangers find this engine by its control socket as well */
        close(fd);
        return;
    }
    ev_io *w = &e->adopted[e->nadopted++];
    ev_io_init(w, on_guest, fd, EV_READ);
    w->data = e;
    ev_io_start(e->loop, w);
}

int eng_asksock_next(struct engine *e, int i)
{
    if (i < e->nadopted)
        return e->adopted[i].fd;
    return i == e->nadopted && ev_is_active(&e->ask_io) ? e->ask_io.fd : -1;
}

void eng_asksock_close(struct engine *e)
{
    while (e->nadopted) {
        ev_io *w = &e->adopted[--e->nadopted];
        ev_io_stop(e->loop, w);
        close(w->fd);
    }
    while (e->guests)
        guest_free(e->guests);
    if (!ev_is_active(&e->ask_io))
        return;
    ev_io_stop(e->loop, &e->ask_io);
    close(e->ask_io.fd);
}
