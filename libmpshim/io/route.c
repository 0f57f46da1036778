/* io/route.c: what the kernel's routing says about a destination, and what follows for paths. */
#include "io/route.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <linux/xfrm.h>
#include <sys/time.h>

#ifndef RTM_F_FIB_MATCH
#define RTM_F_FIB_MATCH 0x2000
#endif

/* ---- one question ---- */

struct answer { struct rtnl_route *out; int oif; };

static void take_addr(struct mp_addr *a, int family, const void *p, size_t n)
{
    size_t want = family == AF_INET ? 4 : 16;

    *a = (struct mp_addr){ .family = n >= want ? (uint8_t)(family == AF_INET ? 4 : 6) : 0 };
    if (n >= want) memcpy(a->b, p, want);
}

static void take_via(struct mp_addr *a, const struct nlattr *at)
{
    const struct rtvia *via = mnl_attr_get_payload(at);

    take_addr(a, via->rtvia_family, via->rtvia_addr, mnl_attr_get_payload_len(at) - sizeof *via);
}

/* Of several next hops the one on the interface asked for, else the first. */
static void take_multipath(struct answer *ans, int family, const struct nlattr *at)
{
    const struct rtnexthop *nh = mnl_attr_get_payload(at);
    int left = mnl_attr_get_payload_len(at);

    for (; left >= (int)sizeof *nh && RTNH_OK(nh, left); left -= (int)RTNH_ALIGN(nh->rtnh_len), nh = RTNH_NEXT(nh)) {
        const struct nlattr *a = (const struct nlattr *)(const void *)(nh + 1);
        int n = nh->rtnh_len - (int)sizeof *nh;

        if (ans->out->oif && nh->rtnh_ifindex != ans->oif) continue;
        ans->out->oif = nh->rtnh_ifindex;
        ans->out->gateway = (struct mp_addr){ 0 };
        for (; mnl_attr_ok(a, n); n -= (int)MNL_ALIGN(a->nla_len), a = mnl_attr_next(a)) {
            if (mnl_attr_get_type(a) == RTA_GATEWAY)
                take_addr(&ans->out->gateway, family, mnl_attr_get_payload(a), mnl_attr_get_payload_len(a));
            else if (mnl_attr_get_type(a) == RTA_VIA)
                take_via(&ans->out->gateway, a);
        }
    }
}

static int on_route(const struct nlmsghdr *nlh, void *data)
{
    struct answer *ans = data;
    struct rtnl_route *rt = ans->out;
    const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
    const struct nlattr *a;

    if (nlh->nlmsg_type != RTM_NEWROUTE) return MNL_CB_OK;
    rt->type = rtm->rtm_type;
    rt->table = rtm->rtm_table;
    mnl_attr_for_each(a, nlh, sizeof *rtm) switch (mnl_attr_get_type(a)) {
    case RTA_TABLE: rt->table = mnl_attr_get_u32(a); break;
    case RTA_OIF: rt->oif = (int)mnl_attr_get_u32(a); break;
    case RTA_GATEWAY: take_addr(&rt->gateway, rtm->rtm_family, mnl_attr_get_payload(a), mnl_attr_get_payload_len(a)); break;
    case RTA_VIA: take_via(&rt->gateway, a); break;
    case RTA_PREFSRC: take_addr(&rt->prefsrc, rtm->rtm_family, mnl_attr_get_payload(a), mnl_attr_get_payload_len(a)); break;
    }
    mnl_attr_for_each(a, nlh, sizeof *rtm)
        if (mnl_attr_get_type(a) == RTA_MULTIPATH) take_multipath(ans, rtm->rtm_family, a);
    return MNL_CB_OK;
}

static int ask(struct rtnl *r, const struct rtnl_ask *q, struct rtnl_route *out)
{
    uint8_t buf[512];
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
    struct answer ans = { out, q->oif };
    uint8_t len = q->dst->family == 4 ? 4 : 16;
    struct rtmsg *rtm;
    int err;

    nlh->nlmsg_type = RTM_GETROUTE;
    rtm = mnl_nlmsg_put_extra_header(nlh, sizeof *rtm);
    rtm->rtm_family = q->dst->family == 4 ? AF_INET : AF_INET6;
    rtm->rtm_dst_len = (uint8_t)(len * 8);
    rtm->rtm_flags = RTM_F_LOOKUP_TABLE;
    mnl_attr_put(nlh, RTA_DST, len, q->dst->b);
    if (q->mark) mnl_attr_put_u32(nlh, RTA_MARK, q->mark);
    if (q->src && q->src->family == q->dst->family) {
        rtm->rtm_src_len = (uint8_t)(len * 8);
        mnl_attr_put(nlh, RTA_SRC, len, q->src->b);
    }
    if (q->oif) {
        rtm->rtm_flags |= RTM_F_FIB_MATCH; /* a plain question with an interface invents an on-link route */
        mnl_attr_put_u32(nlh, RTA_OIF, (uint32_t)q->oif);
    }
    *out = (struct rtnl_route){ 0 };
    err = rtnl_request(r, nlh, on_route, &ans);
    if (err) return err;
    if (q->oif && (out->oif != q->oif || out->type != RTN_UNICAST)) return -ENETUNREACH;
    return out->type ? 0 : -ENETUNREACH;
}

/* With a source, so that rules "from X" count; IPv6 then takes the interface for a wish, so without it as well. */
int rtnl_route_get(struct rtnl *r, const struct rtnl_ask *q, struct rtnl_route *out)
{
    struct rtnl_ask any = { q->dst, NULL, q->oif, q->mark };
    int err = ask(r, q, out);

    if (err && q->src && q->dst->family == 6 && q->oif) err = ask(r, &any, out);
    return err;
}

/* ---- the same, remembered ---- */

static uint32_t key_hash(const struct rtnl_ask *q)
{
    uint32_t h = (uint32_t)q->oif * 0x85ebca6bu ^ q->mark;

    for (int i = 0; i < 16; i++) h = (h ^ q->dst->b[i]) * 0x01000193u;
    for (int i = 0; q->src && i < 16; i++) h = (h ^ q->src->b[i]) * 0x01000193u;
    return h ^ h >> 16;
}

static bool is_answer_to(const struct rtnl_cached *e, const struct rtnl_ask *q, const struct mp_addr *src)
{
    return e->oif == q->oif && e->mark == q->mark && mp_addr_eq(&e->dst, q->dst) && mp_addr_eq(&e->src, src);
}

int rtnl_route_cached(struct rtnl *r, const struct rtnl_ask *q, struct rtnl_route *out)
{
    static const struct mp_addr none;
    const struct mp_addr *src = q->src ? q->src : &none;
    struct rtnl_cached *e = &rtnl_cache(r)->v[key_hash(q) % RTNL_CACHE_SLOTS];

    if (e->generation != rtnl_generation(r) || !is_answer_to(e, q, src)) {
        e->generation = rtnl_generation(r);
        e->oif = q->oif;
        e->mark = q->mark;
        e->dst = *q->dst;
        e->src = *src;
        e->err = rtnl_route_get(r, q, &e->route);
    }
    *out = e->route;
    return e->err;
}

/* ---- IPsec ---- */

static int on_spd(const struct nlmsghdr *nlh, void *data)
{
    const struct nlattr *a;

    if (nlh->nlmsg_type != XFRM_MSG_NEWSPDINFO) return MNL_CB_OK;
    mnl_attr_for_each(a, nlh, sizeof(uint32_t)) {
        struct xfrmu_spdinfo info;

        if (mnl_attr_get_type(a) != XFRMA_SPD_INFO || mnl_attr_get_payload_len(a) < sizeof info) continue;
        memcpy(&info, mnl_attr_get_payload(a), sizeof info);
        *(bool *)data = info.incnt || info.outcnt;
    }
    return MNL_CB_OK;
}

/* Cannot ask (no IPsec in this kernel, no right to): none. */
bool rtnl_xfrm_in_use(struct rtnl *r)
{
    uint8_t buf[4096];
    struct mnl_socket *s = mnl_socket_open2(NETLINK_XFRM, SOCK_CLOEXEC);
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
    struct timeval limit = { .tv_usec = 200000 };
    bool used = false;
    ssize_t n;

    (void)r;
    if (!s) return false;
    nlh->nlmsg_type = XFRM_MSG_GETSPDINFO;
    nlh->nlmsg_flags = NLM_F_REQUEST;
    mnl_nlmsg_put_extra_header(nlh, sizeof(uint32_t));
    setsockopt(mnl_socket_get_fd(s), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) == 0 && mnl_socket_sendto(s, nlh, nlh->nlmsg_len) > 0 &&
        (n = mnl_socket_recvfrom(s, buf, sizeof buf)) > 0)
        mnl_cb_run(buf, (size_t)n, 0, 0, on_spd, &used);
    mnl_socket_close(s);
    return used;
}

/* ---- what follows ---- */

/* A table other than the usual ones was chosen by a policy rule (`ip rule`): a VPN, or the like. */
static bool is_policy_table(uint32_t table)
{
    return table != RT_TABLE_MAIN && table != RT_TABLE_LOCAL && table != RT_TABLE_DEFAULT && table != RT_TABLE_UNSPEC;
}

static enum io_route_kind classify(struct io *io, const struct rtnl_route *rt)
{
    const struct rtnl_link *l = rtnl_link(io->rtnl, rt->oif);

    if (rt->type == RTN_LOCAL || (l && l->flags & IFF_LOOPBACK)) return IO_ROUTE_LOCAL;
    if (rt->type != RTN_UNICAST) return IO_ROUTE_OTHER;
    if (is_policy_table(rt->table) || (l && rtnl_link_is_tunnel(l))) return IO_ROUTE_TUNNEL;
    return IO_ROUTE_OK;
}

enum io_route_kind io_route_kind(struct io *io, const struct mp_addr *remote, uint32_t mark, struct rtnl_route *rt, int *err)
{
    *err = rtnl_route_cached(io->rtnl, &(struct rtnl_ask){ remote, NULL, 0, mark }, rt);
    return *err ? IO_ROUTE_OTHER : classify(io, rt);
}

/* Not "no route", but one that says no: blackhole, prohibit, unreachable, as a VPN has behind its tunnel. IPv6 passes over
 * it when asked for one interface, and finds the way beside the tunnel. */
static bool is_refusal(int err) { return err == -EINVAL || err == -EACCES || err == -EHOSTUNREACH; }

/* Asked with the source, as for a segment of the kernel's own, so that a rule "from X" may keep a connection where it is. */
bool io_route_elsewhere(struct io *io, int ifindex, const struct mp_addr *local, const struct mp_addr *remote, uint32_t mark)
{
    struct rtnl_route rt;
    int err;

    if (!rtnl_is_local(io->rtnl, local)) return false; /* the address is gone: another matter, and routing would not answer */
    err = rtnl_route_cached(io->rtnl, &(struct rtnl_ask){ remote, local, 0, mark }, &rt);
    return err ? is_refusal(err) : classify(io, &rt) == IO_ROUTE_TUNNEL && rt.oif != ifindex;
}

bool io_route(void *arg, int ifindex, const struct mp_addr *local, const struct mp_addr *remote, uint32_t mark)
{
    struct io *io = arg;
    const struct rtnl_link *l = rtnl_link(io->rtnl, ifindex);
    struct rtnl_route rt;
    enum io_route_kind kind;
    int err;

    if (!l || local->family != remote->family) return false;
    kind = io_route_kind(io, remote, mark, &rt, &err);
    if (kind == IO_ROUTE_TUNNEL) return rt.oif == ifindex; /* never beside a VPN */
    if (!err && kind != IO_ROUTE_OK) return false;
    if (is_refusal(err)) return false;
    if (rtnl_link_is_tunnel(l) && !rtnl_is_named(io, l)) return false;
    return rtnl_route_cached(io->rtnl, &(struct rtnl_ask){ remote, local, ifindex, mark }, &rt) == 0 && !io_route_elsewhere(io, ifindex, local, remote, mark);
}

static bool first_address(const struct io *io, int ifindex, uint8_t family, struct mp_addr *out)
{
    const struct rtnl_addr *a;

    for (int i = 0; (a = rtnl_addr_at(io->rtnl, i)); i++)
        if (a->ifindex == ifindex && a->ip.family == family && !rtnl_addr_refused(io, a)) {
            *out = a->ip;
            return true;
        }
    return false;
}

/* The kernel goes on routing to an interface that lost its carrier: another that is alive serves. */
static bool another_path(struct io *io, const struct mp_addr *remote, uint32_t mark, struct mp_addr *local, int *ifindex)
{
    const struct rtnl_link *l;

    for (int i = 0; (l = rtnl_link_at(io->rtnl, i)); i++) {
        if (rtnl_link_refused(io, l) || !first_address(io, l->ifindex, remote->family, local)) continue;
        if (!io_route(io, l->ifindex, local, remote, mark)) continue;
        *ifindex = l->ifindex;
        return true;
    }
    return false;
}

int io_route_lookup(struct io *io, const struct mp_addr *remote, uint32_t mark, struct mp_addr *local, int *ifindex, enum io_route_kind *kind)
{
    const struct rtnl_link *l;
    struct rtnl_route rt;
    int err;

    *kind = io_route_kind(io, remote, mark, &rt, &err);
    if (err) return err;
    *ifindex = rt.oif;
    *local = rt.prefsrc;
    l = rtnl_link(io->rtnl, rt.oif);
    if (*kind == IO_ROUTE_OK && l && rtnl_link_refused(io, l) && another_path(io, remote, mark, local, ifindex)) return 0;
    if (*kind == IO_ROUTE_OK && l && rtnl_link_unwanted(io, l)) return -ENETUNREACH; /* no MPTCP where the user wants none */
    *ifindex = rt.oif;
    *local = rt.prefsrc;
    if (!local->family && !first_address(io, rt.oif, remote->family, local) && *kind == IO_ROUTE_OK) return -EADDRNOTAVAIL;
    if (*kind == IO_ROUTE_OK && io_route_elsewhere(io, rt.oif, local, remote, mark)) *kind = IO_ROUTE_OTHER; /* a rule "from X": the kernel's own */
    return 0;
}

void io_paths_start(struct io *io) { rtnl_paths_start(io->rtnl); }
