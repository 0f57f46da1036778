/* engine/listen.c: a program's listen() comes to the engine, from the program itself, from a keeper, or with a move. */
#include <errno.h>
#include <stdlib.h>

#include "engine/port.h"

static unsigned families_of(const struct mp_endpoint *at, bool v6only)
{
    if (at->ip.family == 4)
        return 1;
    return eng_is_any(&at->ip) && !v6only ? 3 : 2;
}

static int facts_of(int fd, struct mp_endpoint *at, unsigned *families)
{
    union ctl_addr a;
    socklen_t n = sizeof a;
    int v6only = 0;
    socklen_t vn = sizeof v6only;
    if (getsockname(fd, &a.sa, &n))
        return -errno;
    if (!eng_from_sa(&a, at))
        return -EAFNOSUPPORT;
    if (a.sa.sa_family == AF_INET6)
        (void)getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, &vn);
    *families = families_of(at, v6only);
    return at->port ? 0 : -EINVAL;
}

static struct port *find(struct engine *e, const struct mp_endpoint *at, unsigned families)
{
    for (struct port *p = e->ports; p; p = p->next)
        if (mp_endpoint_eq(&p->at, at) && p->families == families)
            return p;
    return NULL;
}

static struct port *find_or_new(struct engine *e, const struct mp_endpoint *at, unsigned families)
{
    struct port *p = find(e, at, families);
    if (p || !(p = calloc(1, sizeof *p)))
        return p;
    p->e = e;
    p->at = *at;
    p->families = families;
    p->guard_fd = -1;
    p->next = e->ports;
    e->ports = p;
    return p;
}

/* A guard, or a filter on the listener itself: that stays when this engine dies, and keeps the listener deaf until another
 * engine comes. So it is for programs that would rather be deaf than take plain TCP, and where a guard is not to be had:
 * the program has an SO_REUSEPORT group of its own, or another socket has the port without SO_REUSEPORT. */
static int keep_outside_out(struct port *p, int fd, enum ctl_why *why)
{
    bool shared = p->options.flags & CTL_F_REUSEPORT, kept = (p->options.flags & CTL_F_HELD) && !p->strict;
    if (p->live && p->guard_fd >= 0 && (!shared || kept))
        return 0;
    if (p->guard_fd >= 0)
        eng_guard_leave(fd); /* an older listener's, whose group a new one has joined */
    eng_port_unguard(p);
    p->filtered = p->strict || shared || (p->guard_fd = eng_guard_open(&p->at, p->families, true)) < 0;
    if (!p->filtered)
        return 0;
    p->guard_fd = -1;
    if (!kept)
        return io_attach_only_loopback(fd);
    *why = CTL_UNGUARDED;
    return -EADDRINUSE;
}

int eng_port_listen(struct engine *e, uint64_t client, const struct ctl_req *q, int fd, enum ctl_why *why)
{
    struct mp_endpoint at;
    unsigned families = 0;
    *why = CTL_BAD_REQUEST;
    int err = facts_of(fd, &at, &families);
    if (err)
        return err;
    if (eng_is_loopback(&at.ip)) {
        *why = CTL_LOCAL_ROUTE;
        return -EOPNOTSUPP;
    }
    *why = CTL_NO_LOOPBACK;
    if ((err = eng_lo_is_up(e)))
        return err; /* the listener stays as it is: open to the interfaces */
    *why = CTL_RESOURCE;
    struct port *p = find_or_new(e, &at, families);
    if (!p)
        return -ENOMEM;
    p->pid = q->pid;
    p->client = client;
    p->options = *q;
    p->marks = eng_marks_of(fd);
    p->marks.priority = 0; /* accept() hands no SO_PRIORITY down */
    p->strict = q->flags & CTL_F_STRICT;
    err = keep_outside_out(p, fd, why);
    if (!err && !p->live)
        err = eng_port_answer(p, (int)p->options.value);
    if (!err)
        eng_port_hand_down(p);
    if (err)
        eng_port_silence(p); /* the listener is open to the interfaces: the kernel answers */
    if (err && p->conns == 0)
        eng_port_free(p);
    if (err)
        return err;
    eng_sweep_at(e, eng_now() + PORT_CHECK_EVERY);
    eng_keeper_tell(e);
    *why = CTL_OK;
    return 0;
}

/* The name decides nothing: the kernel says who listens there. */
int eng_port_keep(struct engine *e, uid_t uid, const struct ctl_req *q)
{
    struct port_info i = { .live = true, .filtered = true, .guard_fd = -1, .pid = q->pid, .options = *q };
    struct diag_sock s;
    struct mp_endpoint from;
    struct port target = { .e = e };
    if (!eng_from_sa(&q->local, &i.at) || !i.at.port)
        return -EINVAL;
    i.families = families_of(&i.at, q->flags & CTL_F_V6ONLY);
    target.at = i.at;
    target.families = i.families;
    struct mp_endpoint to;
    eng_port_target(&target, &to);
    from = eng_identity_any(e, to.ip.family == 6);
    from.port = 1;
    int err = eng_diag_find(e, &to, &from, &s);
    if (err || s.state != TCP_LISTEN_STATE)
        return err ? err : -ENOENT;
    if (s.uid != uid && uid != 0)
        return -EACCES;
    i.marks.mark = s.mark;
    return find(e, &i.at, i.families) || eng_port_adopt(e, &i) ? 0 : -ENOMEM;
}

struct port *eng_port_adopt(struct engine *e, const struct port_info *i)
{
    struct port *p = find_or_new(e, &i->at, i->families);
    if (p && p->guard_fd < 0)
        p->guard_fd = i->guard_fd;
    else if (i->guard_fd >= 0)
        close(i->guard_fd);
    if (!p)
        return NULL;
    p->pid = i->pid;
    p->client = i->client;
    p->options = i->options;
    p->marks = i->marks;
    p->strict = i->options.flags & CTL_F_STRICT;
    p->filtered = i->filtered;
    if (i->live && !p->live)
        eng_port_answer(p, (int)p->options.value); /* fails: told to nobody; the next check finds no listener of ours */
    eng_port_hand_down(p);
    eng_sweep_at(e, eng_now() + PORT_CHECK_EVERY);
    return p;
}
