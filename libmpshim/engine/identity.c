/* engine/identity.c: identities: loopback names by which a program's kernel socket knows its peer.
 *
 * An engine has one address of 127.64.0.0/10, drawn at its start, and the kernel allots ports on it. One address,
 * so that a single raw socket bound to it sees the SYNs of all pending connections (lowire.c). */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/eng.h"

/* What the program has not read waits here and in its own receive buffer, so this is what is lost to the peer's
 * window. Measured on loopback: 10 Gbit/s and more from 256 KB on. */
enum { CARRIER_SNDBUF = 512 * 1024, CARRIER_RCVBUF = 128 * 1024 };

#define SPARE_KEEP MP_MS(500) /* identities that nobody asked for */

static void set_int(int fd, int level, int opt, int v)
{
    (void)setsockopt(fd, level, opt, &v, sizeof v); /* all that go through here only tune */
}

void eng_identity_init(struct engine *e)
{
    uint32_t r;
    do {
        eng_random(e, &r, sizeof r);
        e->ident4 = CTL_IDENTITY_NET | (r & ~CTL_IDENTITY_MASK);
    } while ((e->ident4 & 0xff) == 0 || (e->ident4 & 0xff) == 0xff); /* no address that looks like a network's */
}

struct mp_endpoint eng_identity_any(struct engine *e, bool v6)
{
    struct mp_endpoint id = { .ip.family = v6 ? 6 : 4 };
    if (v6) {
        id.ip.b[15] = 1;
    } else {
        for (int i = 0; i < 4; i++)
            id.ip.b[i] = (uint8_t)(e->ident4 >> (24 - 8 * i));
    }
    return id;
}

static int bind_to(int fd, const struct mp_endpoint *id)
{
    union ctl_addr a;
    socklen_t n = eng_to_sa(id, AF_INET, &a);
    return bind(fd, &a.sa, n) ? -errno : 0;
}

static int name_of(int fd, struct mp_endpoint *id)
{
    union ctl_addr a;
    socklen_t n = sizeof a;
    if (getsockname(fd, &a.sa, &n))
        return -errno;
    return eng_from_sa(&a, id) ? 0 : -EAFNOSUPPORT;
}

static int guard_setup(int fd, struct mp_endpoint *id)
{
    int err;
    /* Bound exclusively first, so that the kernel finds a port that no other engine holds; shared with our own
     * end of the carrier afterwards. The filter is there before the first SYN can be. */
    if ((err = bind_to(fd, id)) || (err = io_attach_drop_all(fd)))
        return err;
    set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (listen(fd, 1))
        return -errno;
    return name_of(fd, id);
}

/* ---- those that can be had again ----
 *
 * A listening socket with a filter is the dearest part of a connect (its program is translated to machine code, and freed
 * by a worker of the kernel's). Once our end has met the program's socket, the two find each other without it, and the
 * next program may have it: what differs is the program's port. Not for ever, as connections that last would share one
 * name by thousands, and bind() looks at all sockets of a name. */

void eng_identity_fini(struct engine *e)
{
    while (e->nspare)
        close(e->spare[--e->nspare].fd);
}

static bool spare_take(struct engine *e, bool v6, struct mp_endpoint *id, int *fd, int *uses)
{
    if (e->nspare && e->spare_uid != geteuid())
        eng_identity_fini(e); /* the program gave up its user: the kernel shares a name among the sockets of one user only */
    for (int i = 0; i < e->nspare; i++) {
        if (e->spare[i].id.ip.family != (v6 ? 6 : 4))
            continue;
        *id = e->spare[i].id;
        *fd = e->spare[i].fd;
        *uses = e->spare[i].uses;
        e->spare[i] = e->spare[--e->nspare];
        return true;
    }
    return false;
}

void eng_identity_spare(struct engine *e, const struct mp_endpoint *id, int *fd, int uses)
{
    struct mp_endpoint own = eng_identity_any(e, id->ip.family == 6);
    e->spare_at = eng_now();
    if (*fd >= 0 && uses < ENG_IDENTITY_USES && e->nspare < ENG_SPARES && mp_addr_eq(&id->ip, &own.ip))
        e->spare[e->nspare++] = (struct eng_spare){ .id = *id, .fd = *fd, .uses = uses };
    else if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Programs that connect one at a time need none for long. */
void eng_identity_sweep(struct engine *e, mp_time now)
{
    if (e->nspare && now - e->spare_at > SPARE_KEEP)
        eng_identity_fini(e);
}

int eng_identity_open(struct engine *e, bool v6, struct mp_endpoint *id, int *fd, int *uses)
{
    *uses = 1;
    if (spare_take(e, v6, id, fd, uses)) {
        ++*uses;
        return 0;
    }
    *id = eng_identity_any(e, v6);
    if (!e->nspare)
        e->spare_uid = geteuid();
    *fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0)
        return -errno;
    int err = guard_setup(*fd, id);
    if (err) {
        close(*fd);
        *fd = -1;
    }
    return err;
}

static void carrier_options(int fd)
{
    /* If the engine dies, the kernel closes with a reset: the program must never take that for an end of data. */
    struct linger lg = { .l_onoff = 1, .l_linger = 0 };
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof lg);
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1); /* MPTCP has no urgent data: it goes inline, as from the kernel's MPTCP */
    set_int(fd, SOL_SOCKET, SO_SNDBUF, CARRIER_SNDBUF);
    set_int(fd, SOL_SOCKET, SO_RCVBUF, CARRIER_RCVBUF);
    /* bbr paces, which costs a timer per packet on loopback; reno is in every kernel. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

int eng_identity_socket(struct engine *e, const struct mp_endpoint *id)
{
    (void)e;
    int fd = socket(id->ip.family == 6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    carrier_options(fd);
    if (id->port)
        set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    else
        set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    int err = bind_to(fd, id);
    if (err) {
        close(fd);
        return err;
    }
    return fd;
}
