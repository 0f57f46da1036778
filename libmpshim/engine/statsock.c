/* engine/statsock.c: see statsock.h. */
#define _GNU_SOURCE
#include "engine/statsock.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/eng.h"

bool eng_is_for_us(int fd)
{
    struct ucred u;
    socklen_t n = sizeof u;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &n) == 0 && (u.uid == geteuid() || u.uid == 0);
}

static void on_ask(struct ev_loop *loop, ev_io *w, int events)
{
    (void)loop, (void)events;
    struct engine *e = w->data;
    int fd = eng_accept(e, w->fd);
    if (fd >= 0 && eng_is_for_us(fd))
        eng_status_send(e, fd);
    else if (fd >= 0)
        close(fd);
}

static int name_it(int fd)
{
    struct stat st;
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (fstat(fd, &st))
        return -1;
    int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, STATSOCK_NAME, (unsigned)geteuid(), (int)getpid(), (unsigned long long)st.st_ino);
    return bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n));
}

/* Without it (a sandbox, out of descriptors) only mptcp-stat goes without. */
void eng_statsock_open(struct engine *e)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    if (name_it(fd) || listen(fd, 16)) {
        close(fd);
        return;
    }
    ev_io_init(&e->stat_io, on_ask, fd, EV_READ);
    e->stat_io.data = e;
    ev_io_start(e->loop, &e->stat_io);
}

void eng_statsock_close(struct engine *e)
{
    if (!ev_is_active(&e->stat_io))
        return;
    ev_io_stop(e->loop, &e->stat_io);
    close(e->stat_io.fd);
}
