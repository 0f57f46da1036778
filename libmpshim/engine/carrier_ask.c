/* engine/carrier_ask.c: questions about carriers, and what programs set on them. */
#include "engine/carrier.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

static void state_facts(const struct carrier *c, struct ctl_rep *rep)
{
    static const enum ctl_state of[] = {
        /* meeting: the kernel may have completed the program's call before we hear of it */
        [CR_PENDING] = CTL_S_CONNECTING, [CR_MEETING] = CTL_S_OPEN, [CR_OPEN] = CTL_S_OPEN,
        [CR_RESETTING] = CTL_S_CLOSED, [CR_FAILED] = CTL_S_FAILED, [CR_GHOST] = CTL_S_CLOSED,
    };
    rep->state = of[c->state];
    if (c->state == CR_GHOST && !c->connected)
        rep->state = CTL_S_FAILED;
    rep->err = c->err;
}

static void path_facts(struct mpc *m, struct ctl_rep *rep)
{
    struct mpc_subflow_info sf[16];
    int n = mpc_get_subflows(m, sf, 16);
    rep->nsubflows = (uint32_t)n;
    for (int i = 0; i < n; i++) {
        rep->cwnd_bytes += sf[i].cwnd;
        if (sf[i].mss && (!rep->mss || sf[i].mss < rep->mss))
            rep->mss = sf[i].mss;
        if (sf[i].srtt && (!rep->srtt_us || sf[i].srtt / 1000 < rep->srtt_us)) {
            rep->srtt_us = sf[i].srtt / 1000;
            rep->rttvar_us = sf[i].rttvar / 1000;
        }
    }
}

void eng_carrier_facts(struct carrier *c, struct ctl_rep *rep)
{
    struct mpc_info i;
    int inq = 0;
    memset(rep, 0, sizeof *rep);
    mpc_get_info(c->mpc, &i);
    eng_to_sa(&i.local, AF_INET, &rep->local);
    eng_to_sa(&i.remote, AF_INET, &rep->remote);
    rep->plain_why = i.why;
    if (c->fd >= 0 && c->state == CR_OPEN)
        (void)ioctl(c->fd, SIOCINQ, &inq);
    rep->unacked_bytes = i.bytes_written - i.bytes_acked + (uint64_t)inq;
    rep->bytes_sent = i.bytes_written;
    rep->bytes_received = i.bytes_read;
    path_facts(c->mpc, rep);
}

/* IPv4 addresses are given to an AF_INET6 socket in the form it knows. */
static void map_to(union ctl_addr *a, int family)
{
    struct mp_endpoint ep;
    if (eng_from_sa(a, &ep))
        eng_to_sa(&ep, family, a);
}

struct carrier *eng_carrier_named(struct engine *e, const struct ctl_req *q)
{
    struct mp_endpoint id, prog;
    if (!eng_from_sa(&q->identity, &id) || !eng_from_sa(&q->local, &prog))
        return NULL;
    struct carrier *c = eng_carrier_find(e, &id, &prog);
    return c ? c : eng_carrier_find_awaited(e, &id); /* asked right after connect(): the SYN was not looked at yet */
}

void eng_carrier_query(struct engine *e, const struct ctl_req *q, struct ctl_rep *rep)
{
    struct carrier *c = eng_carrier_named(e, q);
    rep->result = -ENOENT;
    if (!c)
        return;
    uint16_t version = rep->version, op = rep->op;
    if (c->mpc)
        eng_carrier_facts(c, rep);
    else
        *rep = c->last;
    rep->version = version;
    rep->op = op;
    rep->result = 0;
    rep->identity = q->identity;
    state_facts(c, rep);
    map_to(&rep->local, q->identity.sa.sa_family);
    map_to(&rep->remote, q->identity.sa.sa_family);
}

int eng_carrier_setopt(struct engine *e, const struct ctl_req *q, int fd)
{
    struct carrier *c = eng_carrier_named(e, q);
    struct eng_marks k = eng_marks_of(fd);
    bool is_mark = q->opt == MPC_MARK || q->opt == MPC_PRIORITY;
    if (!c || !c->mpc)
        return -ENOENT;
    if (is_mark && (fd < 0 || (k.mark && !io_may_mark())))
        return -EPERM;
    if (is_mark)
        eng_marks_set(c->mpc, &k, eng_now());
    else
        mpc_setopt(c->mpc, (enum mpc_opt)q->opt, q->value, eng_now());
    eng_touch(e);
    return 0;
}

void eng_carriers_tell(struct engine *e, uint64_t client)
{
    for (struct carrier *c = e->all; c; c = c->next)
        if (c->client == client && c->mpc && !c->told) {
            c->told = true;
            eng_verdict_end(e, client, c->mpc, c->err);
        }
}

bool eng_carriers_untold(const struct engine *e, uint64_t client)
{
    for (const struct carrier *c = e->all; c; c = c->next)
        if (c->client == client && c->mpc && !c->told)
            return true;
    return false;
}
