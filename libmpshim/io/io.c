/* io/io.c: the life of it all; interfaces that change or vanish. */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "io/internal.h"

static void on_tidy(struct ev_loop *loop, ev_prepare *w, int events)
{
    struct io *io = w->data;

    (void)loop, (void)events;
    if (!io->tidy_due) return;
    io->tidy_due = false;
    for (struct io_sock *s = io->socks; s; s = s->next)
        if (s->filter_due && !s->dead) io_sock_filter(s);
    io_reap(io);
}

void io_set_tidy(struct io *io) { io->tidy_due = true; }

void io_kick(struct io *io)
{
    if (io->cfg.kick) io->cfg.kick(io->cfg.arg);
}

static uint8_t default_ttl(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), ttl = 64;
    socklen_t n = sizeof ttl;

    if (fd < 0) return 64;
    getsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, &n);
    close(fd);
    return (uint8_t)ttl;
}

/* Raw sockets need CAP_NET_RAW. A filter on a TCP socket, which guards and carriers need, takes CAP_NET_ADMIN on recent
 * kernels (seen on 6.18; older ones let everybody). */
int io_may(enum io_privilege what)
{
    bool raw = what == IO_MAY_RAW;
    int fd = socket(AF_INET, (raw ? SOCK_RAW : SOCK_STREAM) | SOCK_CLOEXEC, IPPROTO_TCP), err;

    if (fd < 0) return -errno;
    err = raw ? 0 : io_attach_only_loopback(fd);
    close(fd);
    return err;
}

/* SO_MARK with a packet wants what SO_MARK on a socket wants: CAP_NET_ADMIN, from Linux 5.17 on CAP_NET_RAW does. */
bool io_may_mark(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), mark = 1;
    bool may = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) == 0;

    if (fd >= 0) close(fd);
    return may;
}

static int check_privilege(void)
{
    int err = io_may(IO_MAY_RAW);

    return -(err ? err : io_may(IO_MAY_FILTER));
}

static int io_init(struct io *io, const struct io_cfg *cfg)
{
    int err = cfg->look_only ? 0 : check_privilege();

    if (err) return err;
    io->cfg = *cfg;
    io->interfaces = cfg->interfaces ? mp_text_copy(cfg->interfaces) : NULL;
    io->backup = cfg->backup ? mp_text_copy(cfg->backup) : NULL;
    io->cfg.interfaces = io->interfaces;
    io->cfg.backup = io->backup;
    io->ttl4 = default_ttl();
    if (getrandom(&io->hash_seed, sizeof io->hash_seed, 0) < 0) io->hash_seed = (uint32_t)io_now();
    io->nflow_slots = 256;
    io->flow = calloc(io->nflow_slots, sizeof *io->flow);
    io->pool = io_pool_new();
    io->guards = io_guards_new();
    if (!io->flow || !io->pool || !io->guards) return ENOMEM;
    io->rtnl = rtnl_new(io, &err);
    return io->rtnl ? 0 : err;
}

struct io *io_new(struct ev_loop *loop, struct mp_stack **stack, const struct io_cfg *cfg, int *err)
{
    struct io *io = calloc(1, sizeof *io);

    *err = ENOMEM;
    if (!io) return NULL;
    io->loop = loop;
    io->stack = stack;
    ev_prepare_init(&io->tidy, on_tidy);
    io->tidy.data = io;
    ev_prepare_start(loop, &io->tidy);
    *err = io_init(io, cfg);
    if (!*err) return io;
    io_free(io);
    return NULL;
}

static void free_flows(struct io *io)
{
    for (uint32_t i = 0; io->flow && i < io->nflow_slots; i++)
        while (io->flow[i]) io_flow_close(io, io->flow[i]);
    free(io->flow);
}

void io_free(struct io *io)
{
    if (!io) return;
    free_flows(io);
    for (struct io_sock *s = io->socks; s; s = s->next) {
        s->refs = 0;
        io_sock_drop(s);
    }
    io_reap(io);
    ev_prepare_stop(io->loop, &io->tidy);
    rtnl_free(io->rtnl);
    io_guards_free(io->guards);
    io_pool_free(io->pool);
    free(io->listen);
    free(io->interfaces);
    free(io->backup);
    free(io);
}

/* ---- interfaces ---- */

uint32_t io_mtu(void *arg, int ifindex)
{
    const struct rtnl_link *l = rtnl_link(((struct io *)arg)->rtnl, ifindex);

    return l ? l->mtu : 0;
}

void io_link_changed(struct io *io, const struct rtnl_link *l)
{
    struct io_sock *s = io_sock_find(io, IO_PACKET_TX, l->ifindex, 0);

    if (s) memcpy(s->mac, l->mac, 6);
}

/* Its sockets are good for nothing any more. */
void io_link_gone(struct io *io, int ifindex)
{
    for (struct io_sock *s = io->socks; s; s = s->next) {
        if (s->ifindex != ifindex || s->dead) continue;
        if (s->kind == IO_RAW_LISTEN && s->listening) io_stop_listening(io, s);
        if (s->kind == IO_PACKET_TX || s->kind == IO_PACKET_RX) io_sock_drop(s); /* freed when the last flow has left it */
    }
}
