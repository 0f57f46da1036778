/* io/listen.c: ports that programs listen on, heard on every interface. */
#include <errno.h>
#include <stdlib.h>

#include "io/internal.h"

static uint8_t family_bit(uint8_t family) { return family == 4 ? 1 : 2; }

bool io_is_listening(const struct io *io, uint8_t family, uint16_t port)
{
    for (int i = 0; i < io->nlisten; i++)
        if (io->listen[i].port == port && io->listen[i].families == family_bit(family)) return true;
    return false;
}

static bool wants_family(const struct io *io, uint8_t family)
{
    for (int i = 0; i < io->nlisten; i++)
        if (io->listen[i].families & family_bit(family)) return true;
    return false;
}

static bool has_address(const struct io *io, int ifindex, uint8_t family)
{
    const struct rtnl_addr *a;

    for (int i = 0; (a = rtnl_addr_at(io->rtnl, i)); i++)
        if (a->ifindex == ifindex && a->ip.family == family) return true;
    return false;
}

static int listen_on(struct io *io, int ifindex, uint8_t family)
{
    struct io_sock *s = io_sock_find(io, IO_RAW_LISTEN, ifindex, family);

    if (s && s->listening) return 0;
    s = io_raw_listen(io, ifindex, family);
    if (!s) return io->no_privilege ? -EPERM : 0;
    s->listening = true;
    for (int i = 0; i < io->nlisten; i++)
        if (io->listen[i].families & family_bit(family)) io_ports_get(&s->ports, io->listen[i].port, 0xffff);
    return io_sock_filter(s);
}

/* The program's listener takes only what comes over loopback: so every other interface is heard, path or not. */
static int listen_everywhere(struct io *io)
{
    const struct rtnl_link *l;
    int err = 0, e;

    for (int i = 0; (l = rtnl_link_at(io->rtnl, i)); i++) {
        if (l->flags & IFF_LOOPBACK || !(l->flags & IFF_UP)) continue;
        for (uint8_t family = 4; family <= 6; family += 2)
            if (wants_family(io, family) && has_address(io, l->ifindex, family) && (e = listen_on(io, l->ifindex, family)))
                err = e;
    }
    return err;
}

void io_stop_listening(struct io *io, struct io_sock *s)
{
    for (int i = 0; i < io->nlisten; i++)
        if (io->listen[i].families & family_bit(s->family)) io_ports_put(&s->ports, io->listen[i].port, 0xffff);
    s->listening = false;
    io_sock_put(s);
}

void io_listen_refresh(struct io *io)
{
    if (io->nlisten) listen_everywhere(io);
}

static void change_port(struct io *io, uint8_t families, uint16_t port, bool add)
{
    for (struct io_sock *s = io->socks; s; s = s->next) {
        if (s->kind != IO_RAW_LISTEN || s->dead || !s->listening || !(families & family_bit(s->family))) continue;
        if (add && io_ports_get(&s->ports, port, 0xffff)) io_sock_filter(s);
        if (add) continue;
        io_ports_put(&s->ports, port, 0xffff);
        s->filter_due = true;
        io_set_tidy(io);
    }
}

int io_listen(struct io *io, uint8_t families, uint16_t port)
{
    struct io_listen_port *v = realloc(io->listen, (size_t)(io->nlisten + 2) * sizeof *v);

    if (!v) return -ENOMEM;
    io->listen = v;
    change_port(io, families, port, true); /* sockets that listen already */
    for (uint8_t bit = 1; bit <= 2; bit++)
        if (families & bit) io->listen[io->nlisten++] = (struct io_listen_port){ port, bit };
    return listen_everywhere(io);
}

/* One of those that listen on this port and family leaves. */
static void unlisten_one(struct io *io, uint8_t bit, uint16_t port)
{
    int i = 0;

    while (i < io->nlisten && !(io->listen[i].port == port && io->listen[i].families == bit)) i++;
    if (i == io->nlisten) return;
    io->listen[i] = io->listen[--io->nlisten];
    change_port(io, bit, port, false);
}

void io_unlisten(struct io *io, uint8_t families, uint16_t port)
{
    for (uint8_t bit = 1; bit <= 2; bit++)
        if (families & bit) unlisten_one(io, bit, port);
    for (struct io_sock *s = io->socks; s; s = s->next)
        if (s->kind == IO_RAW_LISTEN && s->listening && !s->dead && !wants_family(io, s->family)) io_stop_listening(io, s);
}
