/* io/move.c: sockets go from one engine to another and stay open all the while: what arrives meanwhile waits in them, a
 * guarded port is never without its guard, and nobody pays for closing a packet socket. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/internal.h"

/* ---- giving ---- */

void io_give(struct io *io, void (*each)(void *arg, const struct io_item *i, int fd), void *arg)
{
    io_guards_give(io->guards, each, arg);
    for (struct io_sock *s = io->socks; s; s = s->next) {
        struct io_item i = { .what = IO_ITEM_SOCK, .kind = (uint8_t)s->kind, .family = s->family, .ifindex = s->ifindex,
                             .local = s->local, .remote = s->remote };

        memcpy(i.mac, s->mac, 6);
        if (!s->dead) each(arg, &i, s->fd);
    }
}

/* ---- taking ---- */

void io_take_begin(struct io *io) { io->taking = true; }

static void *close_it(void *arg)
{
    close((int)(intptr_t)arg);
    return NULL;
}

/* Closing a packet socket takes 8 to 24 ms (an RCU grace period), in which the loop would serve nobody. */
static void close_aside(int fd)
{
    pthread_attr_t attr;
    pthread_t t;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&t, &attr, close_it, (void *)(intptr_t)fd)) close(fd);
    pthread_attr_destroy(&attr);
}

/* Of those that receive for every address of an interface one is enough: two would double each packet's way. */
static bool is_surplus(struct io *io, const struct io_item *i)
{
    return i->kind != IO_RAW_CLIENT && io_sock_find(io, (enum io_kind)i->kind, i->ifindex, i->family);
}

void io_take(struct io *io, const struct io_item *i, int fd)
{
    struct io_sock *s;

    if (i->what == IO_ITEM_GUARD) {
        io_guards_take(io->guards, i->port, fd);
        return;
    }
    if (i->kind > IO_PACKET_RX || is_surplus(io, i)) {
        if (i->kind == IO_PACKET_TX || i->kind == IO_PACKET_RX) close_aside(fd);
        else close(fd);
        return;
    }
    s = io_sock_new(io, (enum io_kind)i->kind, fd, i->ifindex);
    if (!s) return;
    s->refs = 0; /* until flows join it */
    s->family = i->family;
    s->local = i->local;
    s->remote = i->remote;
    memcpy(s->mac, i->mac, 6);
}

void io_take_end(struct io *io)
{
    io->taking = false;
    for (struct io_sock *s = io->socks; s; s = s->next)
        if (!s->refs && !s->dead && (s->kind == IO_RAW_CLIENT || s->kind == IO_RAW_LISTEN)) io_sock_drop(s);
    io_guards_trim(io->guards);
    io_set_tidy(io); /* filters that waited */
}
