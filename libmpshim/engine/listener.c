/* engine/listener.c: ports on which programs listen.
 *
 * The program's listener stays its own socket, for loopback only; the engine answers what comes from the interfaces
 * and brings each connection to it over loopback. When the listener goes while connections live, the engine guards
 * the port itself, so that the kernel sends no resets for them. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/eng.h"

struct port {
    struct engine *e;
    struct port *next;
    struct mp_endpoint at;   /* ip all zero: any address of families */
    unsigned families;       /* 1 IPv4, 2 IPv6, 3 both */
    bool live;               /* the program's listener exists; the stack and io/ answer */
    bool strict;             /* clients without MPTCP are turned away */
    int conns;
    int waiting;             /* of them: the program's listener has not taken them yet, its backlog is full */
    mp_time full_until;      /* it was found so: the next is sent there then */
    int guard_fd;            /* -1: none; owned */
    bool filtered;           /* the listener has the filter "only over loopback", no guard */
    mp_time no_guard_until;  /* a program is taking the port */
    pid_t pid;
    uint64_t client;
    struct ctl_req options;  /* of the listening socket, for the connections to come */
    struct eng_marks marks;  /* of it, likewise */
    mp_time seen;            /* when it was there */
};

enum { TCP_LISTEN_STATE = 10 };
#define CHECK_EVERY MP_SEC(1)
#define LOOK_AGAIN MP_MS(10)
#define SEEN_LATELY MP_MS(1) /* asking takes 3 us: no more than a thousandth of the time under any load */
#define GUARD_OFF MP_SEC(1) /* between a program's bind() and its listen(), which a guard would refuse */

/* ---- is it still there? ---- */

bool eng_port_target(const struct port *p, struct mp_endpoint *to)
{
    *to = p->at;
    if (!eng_is_any(&p->at.ip))
        return true;
    *to = eng_identity_any(p->e, !(p->families & 1));
    if (p->families & 1)
        memcpy(to->ip.b, "\x7f\0\0\1", 4);
    to->port = p->at.port;
    return true;
}

enum { ASK_TRIES = 64 };

static uint32_t inode_of(int fd)
{
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 ? (uint32_t)st.st_ino : 0;
}

/* The kernel answers with any socket of the group, by a hash of both addresses: it is asked for other ones until it
 * names one that is not our guard. */
static bool still_there(struct port *p)
{
    struct mp_endpoint to, from;
    struct diag_sock s;
    uint32_t guard = inode_of(p->guard_fd);
    eng_port_target(p, &to);
    from = eng_identity_any(p->e, to.ip.family == 6);
    for (from.port = 1; from.port <= ASK_TRIES; from.port++) { /* no connection comes from there: a listener is found */
        int err = eng_diag_find(p->e, &to, &from, &s);
        if (err || s.inode != guard || !guard)
            return err == 0 ? s.state == TCP_LISTEN_STATE : err != -ENOENT;
    }
    return false;
}

/* ---- the stack and io/ ---- */

/* Families for which another live listener needs this port of io/. */
static unsigned others_need(const struct port *p)
{
    unsigned f = 0;
    for (struct port *o = p->e->ports; o; o = o->next)
        if (o != p && o->live && o->at.port == p->at.port)
            f |= o->families;
    return f;
}

static int answer_on(struct port *p, int backlog)
{
    struct mp_endpoint at = p->at;
    if (eng_is_any(&at.ip))
        at.ip.family = 0;
    int err = mp_stack_listen(p->e->stack, &at, p->families, backlog, p);
    if (err)
        return err;
    unsigned fresh = p->families & ~others_need(p);
    err = fresh ? io_listen(p->e->io, (uint8_t)fresh, p->at.port) : 0;
    if (err)
        mp_stack_unlisten(p->e->stack, p, eng_now());
    p->live = !err;
    return err;
}

/* What a connection has from its first packet on, the SYN/ACK; the rest of the options comes with accept(). */
static void hand_down(struct port *p)
{
    struct mp_stack *st = p->e->stack;
    mp_stack_listen_setopt(st, p, MPC_TOS, p->options.tos);
    mp_stack_listen_setopt(st, p, MPC_TTL, p->options.ttl);
    mp_stack_listen_setopt(st, p, MPC_MARK, p->marks.mark);
    mp_stack_listen_setopt(st, p, MPC_PRIORITY, p->marks.priority);
}

static void answer_off(struct port *p)
{
    if (!p->live)
        return;
    p->live = false;
    mp_stack_unlisten(p->e->stack, p, eng_now());
    unsigned only = p->families & ~others_need(p);
    if (only)
        io_unlisten(p->e->io, (uint8_t)only, p->at.port);
    eng_touch(p->e);
}

static void guard_off(struct port *p)
{
    if (p->guard_fd >= 0)
        close(p->guard_fd);
    p->guard_fd = -1;
}

static void guard_on(struct port *p)
{
    if (eng_now() < p->no_guard_until)
        return; /* the next check asks again */
    p->guard_fd = eng_guard_open(&p->at, p->families, false); /* fails: somebody has it already, and guards it as well */
}

/* ---- life ---- */

static void port_free(struct port *p)
{
    for (struct port **q = &p->e->ports; *q; q = &(*q)->next)
        if (*q == p) {
            *q = p->next;
            break;
        }
    answer_off(p);
    guard_off(p);
    free(p);
}

static void gone(struct port *p)
{
    if (p->live)
        eng_carriers_poke(p->e, p); /* those that were never accepted went with it */
    answer_off(p);
    if (p->conns == 0)
        port_free(p);
    else if (p->guard_fd < 0)
        guard_on(p);
}

void eng_port_conn_put(struct port *p)
{
    if (--p->conns == 0 && !p->live)
        port_free(p);
}

void eng_port_refused(struct port *p)
{
    if (p->live && !still_there(p))
        answer_off(p); /* a connection holds p: it goes, or guards, at the next check */
    eng_sweep_at(p->e, eng_now());
}

/* Nobody tells of a listener that its last holder closed by being killed (a forked child, say). Who connects then is refused
 * at once, as by the kernel. The stack is in the middle of that SYN: the port itself goes with the next turn of the loop. */
bool eng_port_listens(struct port *p)
{
    mp_time now = eng_now();
    if (now - p->seen < SEEN_LATELY)
        return true;
    if (still_there(p)) {
        p->seen = now;
        return true;
    }
    p->e->ports_again = now;
    eng_sweep_at(p->e, now);
    return false;
}

void eng_port_check(struct engine *e, mp_time now)
{
    bool again = e->ports_again && now >= e->ports_again;
    if (now && !again && now - e->ports_checked < CHECK_EVERY / 2) /* the sweep comes every second or so */
        return;
    if (again)
        e->ports_again = 0;
    e->ports_checked = now ? now : eng_now();
    struct port *p = e->ports, *next;
    for (; p; p = next) {
        next = p->next;
        if (p->live ? !still_there(p) : p->guard_fd < 0)
            gone(p);
    }
    eng_keeper_tell(e);
}

/* The kernel closes a dead process's descriptors in no order that we may rely on: its connection to us may be first. */
void eng_port_check_twice(struct engine *e)
{
    eng_port_check(e, 0);
    if (!eng_port_any(e))
        return;
    e->ports_again = eng_now() + LOOK_AGAIN;
    eng_sweep_at(e, e->ports_again);
}

void eng_port_release(struct engine *e, uint16_t number)
{
    for (struct port *p = e->ports; p; p = p->next)
        if (p->at.port == number && !p->live) {
            guard_off(p); /* the program that binds it guards it from now on */
            p->no_guard_until = eng_now() + GUARD_OFF;
        }
}

void eng_port_free_all(struct engine *e)
{
    while (e->ports)
        port_free(e->ports);
}

bool eng_port_any(const struct engine *e)
{
    for (struct port *p = e->ports; p; p = p->next)
        if (p->live)
            return true;
    return false;
}

struct port *eng_port_next(struct engine *e, struct port *p, struct port_info *i)
{
    p = p ? p->next : e->ports;
    if (p)
        *i = (struct port_info){ .at = p->at, .families = p->families, .live = p->live, .conns = p->conns, .pid = p->pid,
                                 .options = p->options, .marks = p->marks, .filtered = p->filtered, .guard_fd = p->guard_fd, .client = p->client };
    return p;
}

/* ---- listen ---- */

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
    guard_off(p);
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
        err = answer_on(p, (int)p->options.value);
    if (!err)
        hand_down(p);
    if (err)
        answer_off(p); /* the listener is open to the interfaces: the kernel answers */
    if (err && p->conns == 0)
        port_free(p);
    if (err)
        return err;
    eng_sweep_at(e, eng_now() + CHECK_EVERY);
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

/* A client without MPTCP gets a reset. */
static void turn_away(struct engine *e, struct port *p, struct mpc *m, mp_time now)
{
    mpc_abort(m, now);
    eng_verdict_end(e, p->client, m, EPROTONOSUPPORT);
    mpc_set_owner(m, NULL);
    mpc_release(m, 0, now);
    eng_touch(e);
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
        answer_on(p, (int)p->options.value); /* fails: told to nobody; the next check finds no listener of ours */
    hand_down(p);
    eng_sweep_at(e, eng_now() + CHECK_EVERY);
    return p;
}

void eng_port_conn_get(struct port *p) { p->conns++; }

/* The kernel keeps as many for the program as its backlog says, and drops our SYN over loopback for the others: these wait here
 * (carrier_meet.c), up to a number. More are not opened (core/accept.c): a program that stands still would else fill our
 * table of descriptors with whoever connects. */
enum { WAITING_LEAST = 128, WAITING_MOST = 4096 }; /* the latter: net.core.somaxconn */
void eng_port_waits(struct port *p, int one) { p->waiting += one; }
void eng_port_full(struct port *p, mp_time until) { p->full_until = until; }
bool eng_port_is_full(const struct port *p, mp_time now) { return now < p->full_until; }
bool eng_port_is_crowded(const struct port *p)
{
    return p->waiting >= (int)mp_max(mp_min(p->options.value, WAITING_MOST), WAITING_LEAST);
}

void eng_port_accept(struct engine *e, struct port *p, struct mpc *m, mp_time now)
{
    struct mp_endpoint to;
    struct mpc_info i;
    if (p->strict) {
        mpc_get_info(m, &i);
        if (i.why != MP_WHY_MULTIPATH && i.why != MP_WHY_PENDING) {
            turn_away(e, p, m, now);
            return;
        }
        mpc_setopt(m, MPC_STRICT, 1, now);
    }
    p->conns++;
    eng_port_target(p, &to);
    eng_carrier_accept(e, p->client, p, &p->options, &to, m);
}
