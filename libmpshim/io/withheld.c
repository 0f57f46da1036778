/* io/withheld.c: flows whose packets routing sends another way now: a VPN came up, its policy rule or its routes with it.
 * Nothing may leave beside it, also not of connections that were there before: what such a flow would send is dropped
 * here, and the core goes on over what is allowed. The kernel's own TCP sends it into the tunnel, with an address that
 * means nothing there.
 *
 * A question to routing costs some microseconds, and routers hear of thousands of routes a second: a flow is asked about
 * again only after an event that concerns its peer. */
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

#include "io/internal.h"

static bool covers(const struct io_prefix *p, const struct mp_addr *a)
{
    unsigned whole = p->len / 8, rest = p->len % 8;

    if (p->ip.family != a->family || memcmp(p->ip.b, a->b, whole)) return false;
    return !rest || !((p->ip.b[whole] ^ a->b[whole]) >> (8 - rest));
}

void io_rerouted_all(struct io *io) { io->nrerouted = IO_REROUTED_MAX + 1; }

/* A route or a rule came or went. */
void io_rerouted(struct io *io, const struct nlmsghdr *nlh)
{
    const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
    bool is_rule = nlh->nlmsg_type == RTM_NEWRULE || nlh->nlmsg_type == RTM_DELRULE;
    struct io_prefix p = { .len = rtm->rtm_dst_len };
    const struct nlattr *a;

    if (is_rule || io->nrerouted >= IO_REROUTED_MAX) {
        io_rerouted_all(io);
        return;
    }
    if (rtm->rtm_family != AF_INET && rtm->rtm_family != AF_INET6) return;
    p.ip.family = rtm->rtm_family == AF_INET ? 4 : 6;
    if (p.len > (p.ip.family == 4 ? 32 : 128)) return;
    mnl_attr_for_each(a, nlh, sizeof *rtm)
        if (mnl_attr_get_type(a) == RTA_DST)
            memcpy(p.ip.b, mnl_attr_get_payload(a), mp_min(mnl_attr_get_payload_len(a), p.ip.family == 4 ? 4 : 16));
    io->rerouted[io->nrerouted++] = p;
}

static bool concerns(const struct io *io, const struct io_flow *f)
{
    if (io->nrerouted > IO_REROUTED_MAX) return true;
    for (int i = 0; i < io->nrerouted; i++)
        if (covers(&io->rerouted[i], &f->remote.ip)) return true;
    return false;
}

void io_flows_rerouted(struct io *io)
{
    for (uint32_t i = 0; io->nrerouted && i < io->nflow_slots; i++)
        for (struct io_flow *f = io->flow[i]; f; f = f->hash_next) f->way_known &= !concerns(io, f);
    io->nrerouted = 0;
}

bool io_withheld(void *arg, void *flow, uint32_t mark)
{
    struct io *io = arg;
    struct io_flow *f = flow;
    bool was = f->withheld;

    if (f->way_known && f->mark == mark) return f->withheld;
    f->way_known = true;
    f->mark = mark;
    f->withheld = io_route_elsewhere(io, f->ifindex, &f->local.ip, &f->remote.ip, mark);
    if (f->withheld && !was) { /* what waits for a full queue would leave later; others' packets among it are sent again */
        io_sock_forget(f->raw);
        if (f->fast) io_sock_forget(f->fast);
    }
    return f->withheld;
}
