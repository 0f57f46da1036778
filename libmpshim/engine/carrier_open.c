/* engine/carrier_open.c: a carrier's beginning: a program connects, a client was accepted, another engine hands one over. */
#include "engine/carrier.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

/* RLIMIT_NOFILE counts by process, though the engine has a file table of its own: many connections need room
 * beyond a program's usual 1024. Raised only then. */
static void room_for_fds(struct engine *e)
{
    struct rlimit rl;
    rlim_t need = (rlim_t)e->nlive * 5 + 256;
    if ((e->nlive & 31) || getrlimit(RLIMIT_NOFILE, &rl) || rl.rlim_cur >= need)
        return;
    rl.rlim_cur = need * 2 < rl.rlim_max ? need * 2 : rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
}

/* What the program set on its socket; nodelay and keepalive of a connecting one go with mp_stack_connect(). */
static void apply_options(struct mpc *m, const struct ctl_req *q, mp_time now)
{
    const struct { enum mpc_opt opt; uint64_t v; } set[] = {
        { MPC_KEEPIDLE_S, (uint64_t)q->keepidle_s }, { MPC_KEEPINTVL_S, (uint64_t)q->keepintvl_s },
        { MPC_KEEPCNT, (uint64_t)q->keepcnt }, { MPC_USER_TIMEOUT_MS, (uint64_t)q->user_timeout_ms },
        { MPC_RCVBUF, q->rcvbuf }, { MPC_SNDBUF, q->sndbuf }, { MPC_TOS, q->tos },
        { MPC_TTL, q->ttl }, { MPC_MAXSEG, q->maxseg }, { MPC_CC, q->cc }, { MPC_STRICT, !!(q->flags & CTL_F_STRICT) },
    };
    for (size_t i = 0; i < sizeof set / sizeof *set; i++)
        if (set[i].v)
            mpc_setopt(m, set[i].opt, set[i].v, now);
}

/* May the engine carry it, and from where? */
static int eligible(struct engine *e, const struct mp_endpoint *remote, uint32_t mark, struct mp_addr *local, int *ifindex, enum ctl_why *why)
{
    enum io_route_kind kind = IO_ROUTE_OTHER;
    if (eng_plain_known(e, remote, eng_now())) {
        *why = CTL_REMEMBERED_PLAIN;
        return -EOPNOTSUPP;
    }
    if (mark && !io_may_mark()) {
        *why = CTL_NO_PRIVILEGE;
        return -EPERM;
    }
    int err = io_route_lookup(e->io, &remote->ip, mark, local, ifindex, &kind);
    if (err) {
        *why = CTL_NO_INTERFACE;
        return err;
    }
    if (mark && kind == IO_ROUTE_TUNNEL) { /* a rule has a way of its own for this mark: one path, the kernel's as well as ours */
        *why = CTL_BOUND;
        return -EOPNOTSUPP;
    }
    *why = kind == IO_ROUTE_LOCAL ? CTL_LOCAL_ROUTE : kind == IO_ROUTE_OTHER ? CTL_ROUTED_APART : CTL_OK;
    return *why == CTL_OK ? 0 : -EOPNOTSUPP;
}

static int open_mpc(struct carrier *c, const struct ctl_req *q, const struct mp_endpoint *remote, const struct mp_addr *local, int ifindex)
{
    unsigned flags = (q->flags & CTL_F_NODELAY ? MP_OPEN_NODELAY : 0) | (q->flags & CTL_F_KEEPALIVE ? MP_OPEN_KEEPALIVE : 0);
    int err = 0;
    mp_time now = eng_now();
    c->mpc = mp_stack_connect(c->e->stack, remote, local, ifindex, flags, c, now, &err);
    if (!c->mpc)
        return err ? -err : -ENOMEM;
    apply_options(c->mpc, q, now);
    eng_touch(c->e);
    eng_carrier_look_in(c, LOOK_PENDING, now);
    return 0;
}

static int open_identity(struct carrier *c, bool v6)
{
    int err = v6 ? eng_lo_need6(c->e) : 0;
    if (!err)
        err = eng_identity_open(c->e, v6, &c->identity, &c->guard_fd, &c->identity_uses);
    if (!err)
        eng_carrier_hash_in(c);
    return err;
}

int eng_carrier_connect(struct engine *e, uint64_t client, const struct ctl_req *q, const struct eng_marks *marks, struct mp_endpoint *id,
                        enum ctl_why *why)
{
    struct mp_endpoint remote;
    struct mp_addr local;
    int ifindex = 0;
    *why = CTL_BAD_REQUEST;
    if (!eng_from_sa(&q->remote, &remote) || !remote.port)
        return -EINVAL;
    *why = CTL_NO_LOOPBACK;
    int err = eng_lo_is_up(e);
    if (err)
        return err;
    err = eligible(e, &remote, marks->mark, &local, &ifindex, why);
    if (err)
        return err;
    *why = CTL_RESOURCE;
    room_for_fds(e);
    struct carrier *c = eng_carrier_new(e);
    if (!c)
        return -ENOMEM;
    c->client = client;
    c->pid = q->pid;
    c->state = CR_PENDING;
    if ((err = open_identity(c, q->flags & CTL_F_V6ONLY)) || (err = open_mpc(c, q, &remote, &local, ifindex))) {
        eng_carrier_free(c);
        return err;
    }
    eng_marks_set(c->mpc, marks, eng_now()); /* before its SYN leaves */
    e->total_connects++;
    *id = c->identity;
    *why = CTL_OK;
    return 0;
}

/* As accept() hands the listener's options down. */
static void inherit_options(struct mpc *m, const struct ctl_req *q, mp_time now)
{
    if (q->flags & CTL_F_NODELAY)
        mpc_setopt(m, MPC_NODELAY, 1, now);
    apply_options(m, q, now);
    if (q->flags & CTL_F_KEEPALIVE)
        mpc_setopt(m, MPC_KEEPALIVE, 1, now);
}

void eng_carrier_accept(struct engine *e, uint64_t client, struct port *p, const struct ctl_req *options, const struct mp_endpoint *to,
                        struct mpc *m)
{
    mp_time now = eng_now();
    room_for_fds(e);
    struct carrier *c = eng_carrier_new(e);
    if (!c) {
        mpc_abort(m, now);
        mpc_set_owner(m, NULL);
        mpc_release(m, 0, now);
        eng_port_conn_put(p);
        return;
    }
    c->client = client;
    c->mpc = m;
    c->port = p;
    c->connected = true;
    c->prog = *to;
    mpc_set_owner(m, c);
    inherit_options(m, options, now);
    e->total_accepts++;
    eng_verdict_open(e, c->client, m);
    eng_carrier_meet_listener(c, now);
}

/* One that another engine carried. What its sockets are ready for is told anew when they are watched. */
struct carrier *eng_carrier_adopt(struct engine *e, const struct carrier *from, int fd, int guard_fd, struct mpc *m, struct port *p)
{
    struct carrier *c = eng_carrier_new(e);
    if (!c)
        return NULL;
    struct carrier links = *c;
    *c = *from;
    c->e = e;
    c->next = links.next;
    c->pprev = links.pprev;
    c->hash_next = NULL;
    c->hash_pprev = NULL;
    c->run_next = NULL;
    c->queued = false;
    c->counted = true;
    c->mpc = m;
    c->port = p;
    c->fd = fd;
    c->guard_fd = guard_fd;
    c->waits = false;
    if (p)
        eng_port_conn_get(p);
    eng_carrier_waits(c, from->waits);
    eng_carrier_hash_in(c);
    eng_carrier_settle(c);
    if (fd >= 0 && !eng_carrier_watch(c))
        eng_carrier_end(c, eng_now()); /* no memory */
    if (c->next_look != MP_NEVER)
        eng_sweep_at(e, c->next_look);
    eng_carrier_queue(c);
    return c;
}
