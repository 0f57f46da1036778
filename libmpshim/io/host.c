/* io/host.c: facts about this host that decide how packets may travel. */
#include <stdio.h>

#include "io/internal.h"

#define ASK_AGAIN MP_SEC(1)

/* -1: not there. */
static long read_number(const char *path)
{
    FILE *f = fopen(path, "re");
    long v = -1;

    if (!f) return -1;
    if (fscanf(f, "%ld", &v) != 1) v = -1;
    fclose(f);
    return v;
}

/* Connection tracking follows this namespace's connections if it holds any: a flow of ours with some data on it would be
 * among them. Segments that it does not see would make it call the flow invalid. */
bool io_conntrack_active(struct io *io)
{
    mp_time now = io_now();

    if (io->conntrack_at && now - io->conntrack_at < ASK_AGAIN) return io->conntrack;
    io->conntrack_at = now;
    io->conntrack = read_number("/proc/sys/net/netfilter/nf_conntrack_count") > 0;
    return io->conntrack;
}

/* Packet sockets send beside IPsec policy. */
bool io_xfrm_active(struct io *io)
{
    mp_time now = io_now();

    if (io->xfrm_at && now - io->xfrm_at < ASK_AGAIN) return io->xfrm;
    io->xfrm_at = now;
    io->xfrm = rtnl_xfrm_in_use(io->rtnl);
    return io->xfrm;
}

int io_rp_filter(struct io *io, const struct rtnl_link *l)
{
    char path[96];
    mp_time now = io_now();
    long all, own;

    if (io->rp_at && io->rp_ifindex == l->ifindex && now - io->rp_at < ASK_AGAIN) return io->rp;
    all = read_number("/proc/sys/net/ipv4/conf/all/rp_filter");
    snprintf(path, sizeof path, "/proc/sys/net/ipv4/conf/%s/rp_filter", l->name);
    own = read_number(path);
    io->rp_at = now;
    io->rp_ifindex = l->ifindex;
    io->rp = (int)(own > all ? own : all);
    return io->rp;
}

/* RFC 3704 2.2: strict, so a packet from `remote` counts here only if the way back to it leaves here too. */
bool io_rp_hides(struct io *io, int ifindex, const struct mp_addr *local, const struct mp_addr *remote)
{
    const struct rtnl_link *l = rtnl_link(io->rtnl, ifindex);
    struct rtnl_route rt;

    if (remote->family != 4 || !l || io_rp_filter(io, l) != 1) return false;
    return rtnl_route_cached(io->rtnl, &(struct rtnl_ask){ remote, local, 0, 0 }, &rt) || rt.oif != ifindex;
}
