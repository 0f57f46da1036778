/* io/doctor.c: what `mptcp-run --check` says about the network: a line per fact, a remedy where one is needed. */
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if_arp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "io/internal.h"

struct report { void (*put)(void *arg, bool ok, const char *what, const char *remedy); void *arg; int lines; };

static void line(struct report *r, bool ok, const char *remedy, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void line(struct report *r, bool ok, const char *remedy, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r->put(r->arg, ok, text, remedy);
    r->lines++;
}

static bool can_open(int family, int type, int protocol)
{
    int fd = socket(family, type | SOCK_CLOEXEC, protocol);

    if (fd >= 0) close(fd);
    return fd >= 0 || errno == EAFNOSUPPORT;
}

#define RUN_AS_ROOT "run as root, or give the helper what it needs: setcap cap_net_raw,cap_net_admin+ep mpshim-engine"

static void check_sockets(struct report *r)
{
    bool raw = !io_may(IO_MAY_RAW), filter = !io_may(IO_MAY_FILTER), packet = can_open(AF_PACKET, SOCK_RAW, 0);

    line(r, raw, raw ? NULL : RUN_AS_ROOT, "raw sockets: %s", raw ? "allowed" : "not permitted (CAP_NET_RAW)");
    line(r, filter, filter ? NULL : RUN_AS_ROOT, "filters on TCP sockets: %s",
         filter ? "allowed" : "not permitted (CAP_NET_ADMIN, on this kernel)");
    line(r, packet, packet ? NULL : RUN_AS_ROOT, "packet sockets: %s", packet ? "allowed" : "not permitted (CAP_NET_RAW)");
}

static bool has_usable_address(const struct io *io, int ifindex, uint8_t family)
{
    const struct rtnl_addr *a;

    for (int i = 0; (a = rtnl_addr_at(io->rtnl, i)); i++)
        if (a->ifindex == ifindex && a->ip.family == family && !rtnl_addr_refused(io, a)) return true;
    return false;
}

/* A default route, asked for by an address from the documentation's ranges: routed nowhere in particular. */
static bool has_default(const struct io *io, int ifindex, uint8_t family, struct rtnl_route *rt)
{
    static const struct mp_addr v4 = { 4, { 203, 0, 113, 99 } }, v6 = { 6, { 0x20, 0x01, 0x0d, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99 } };

    return rtnl_route_cached(io->rtnl, family == 4 ? &v4 : &v6, NULL, ifindex, rt) == 0;
}

static void check_rp_filter(struct report *r, struct io *io, const struct rtnl_link *l)
{
    static const struct mp_addr any = { 4, { 203, 0, 113, 99 } };
    struct rtnl_route rt;

    if (io_rp_filter(io, l) != 1 || !has_default(io, l->ifindex, 4, &rt)) return;
    if (rtnl_route_cached(io->rtnl, &any, NULL, 0, &rt) == 0 && rt.oif == l->ifindex) return;
    line(r, false, "sysctl -w net.ipv4.conf.all.rp_filter=2 (loose); else joins from outside are refused here",
         "%s: strict rp_filter hides replies on this second path; they are received by packet socket", l->name);
}

static bool check_link(struct report *r, struct io *io, const struct rtnl_link *l)
{
    const char *no = rtnl_link_refused(io, l);
    bool v4 = has_usable_address(io, l->ifindex, 4), v6 = has_usable_address(io, l->ifindex, 6), d4, d6;
    struct rtnl_route rt;

    if (no) {
        line(r, true, NULL, "%s: not used: %s", l->name, no);
        return false;
    }
    if (!v4 && !v6) {
        line(r, true, NULL, "%s: not used: no address", l->name);
        return false;
    }
    d4 = v4 && has_default(io, l->ifindex, 4, &rt);
    d6 = v6 && has_default(io, l->ifindex, 6, &rt);
    line(r, true, NULL, "%s: a path:%s%s, mtu %u, %s%s", l->name, v4 ? " IPv4" : "", v6 ? " IPv6" : "", l->mtu,
         d4 || d6 ? "default route" : "no default route (reaches its own networks only)",
         rtnl_link_is_tunnel(l) ? ", tunnel: used alone where routes lead into it" : "");
    check_rp_filter(r, io, l);
    return true;
}

static void check_links(struct report *r, struct io *io)
{
    const struct rtnl_link *l;
    int paths = 0;

    for (int i = 0; (l = rtnl_link_at(io->rtnl, i)); i++) {
        if (!(l->flags & IFF_LOOPBACK)) {
            paths += check_link(r, io, l);
            continue;
        }
        line(r, l->flags & IFF_UP, l->flags & IFF_UP ? NULL : "ip link set lo up", "lo: %s",
             l->flags & IFF_UP ? "up" : "down: programs cannot be connected to the engine, plain TCP is used");
    }
    line(r, paths > 1, paths > 1 ? NULL : "bring a second interface up, with an address and a route to the peer",
         "%d path%s", paths, paths == 1 ? "" : "s");
}

static void check_fast_path(struct report *r, struct io *io)
{
    if (io_conntrack_active(io))
        line(r, true, NULL, "connection tracking is active: the raw path is used, which is slower above 2 Gbit/s");
    if (io_xfrm_active(io)) line(r, true, NULL, "IPsec policies are in place: the raw path is used, which obeys them");
}

int io_doctor(struct io *io, void (*put)(void *arg, bool ok, const char *what, const char *remedy), void *arg)
{
    struct report r = { put, arg, 0 };

    check_sockets(&r);
    if (!io) return r.lines;
    check_links(&r, io);
    check_fast_path(&r, io);
    return r.lines;
}
