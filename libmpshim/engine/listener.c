/* engine/listener.c: the life of a port on which programs listen (how it begins: listen.c).
 *
 * The program's listener stays its own socket, for loopback only; the engine answers what comes from the interfaces
 * and brings each connection to it over loopback. When the listener goes while connections live, the engine guards
 * the port itself, so that the kernel sends no resets for them. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/port.h"

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

int eng_port_answer(struct port *p, int backlog)
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
void eng_port_hand_down(struct port *p)
{
    struct mp_stack *st = p->e->stack;
    mp_stack_listen_setopt(st, p, MPC_TOS, p->options.tos);
    mp_stack_listen_setopt(st, p, MPC_TTL, p->options.ttl);
    mp_stack_listen_setopt(st, p, MPC_MARK, p->marks.mark);
    mp_stack_listen_setopt(st, p, MPC_PRIORITY, p->marks.priority);
}

void eng_port_silence(struct port *p)
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

void eng_port_unguard(struct port *p)
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

void eng_port_free(struct port *p)
{
    for (struct port **q = &p->e->ports; *q; q = &(*q)->next)
        if (*q == p) {
            *q = p->next;
            break;
        }
    eng_port_silence(p);
    eng_port_unguard(p);
    free(p);
}

static void gone(struct port *p)
{
    if (p->live)
        eng_carriers_poke(p->e, p); /* those that were never accepted went with it */
    eng_port_silence(p);
    if (p->conns == 0)
        eng_port_free(p);
    else if (p->guard_fd < 0)
        guard_on(p);
}

void eng_port_conn_put(struct port *p)
{
    if (--p->conns == 0 && !p->live)
        eng_port_free(p);
}

void eng_port_refused(struct port *p)
{
    if (p->live && !still_there(p))
        eng_port_silence(p); /* a connection holds p: it goes, or guards, at the next check */
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
    if (now && !again && now - e->ports_checked < PORT_CHECK_EVERY / 2) /* the sweep comes every second or so */
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
            eng_port_unguard(p); /* the program that binds it guards it from now on */
            p->no_guard_until = eng_now() + GUARD_OFF;
        }
}

void eng_port_free_all(struct engine *e)
{
    while (e->ports)
        eng_port_free(e->ports);
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

/* ---- its connections ---- */

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

/* A client without MPTCP gets a reset. */
static void turn_away(struct engine *e, struct port *p, struct mpc *m, mp_time now)
{
    mpc_abort(m, now);
    eng_verdict_end(e, p->client, m, EPROTONOSUPPORT);
    mpc_set_owner(m, NULL);
    mpc_release(m, 0, now);
    eng_touch(e);
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
