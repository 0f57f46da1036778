/* io/doctor.c: what `mptcp-run --check` says about this host: a line per fact, a remedy where one is needed.
 *
 * A fact that is not ok keeps connections from being multipath, or keeps them off MPTCP. One that is ok and has a remedy
 * is a limit that may be meant so. */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "io/internal.h"

struct report { void (*put)(void *arg, bool ok, const char *what, const char *remedy); void *arg; int lines; };

static void line(struct report *r, bool ok, const char *remedy, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void line(struct report *r, bool ok, const char *remedy, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r->put(r->arg, ok, text, remedy);
    r->lines++;
}

/* Text that grows; what does not fit is left out. */
struct text { char b[512]; size_t n; };

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(t->b + t->n, sizeof t->b - t->n, fmt, ap);
    va_end(ap);
    if (n > 0) t->n = mp_min(t->n + (size_t)n, sizeof t->b - 1);
}

static const char *ip_text(const struct mp_addr *a, char buf[INET6_ADDRSTRLEN])
{
    return inet_ntop(a->family == 4 ? AF_INET : AF_INET6, a->b, buf, INET6_ADDRSTRLEN);
}

/* ---- privileges and the kernel ---- */

#define RUN_AS_ROOT "run as root, or give the helper, which is beside libmpshim.so, what it needs: setcap cap_net_raw,cap_net_admin+ep mpshim-engine"

static bool may_open_packet(int *err)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

    *err = fd < 0 ? errno : 0;
    if (fd >= 0) close(fd);
    return fd >= 0;
}

static void check_privileges(struct report *r)
{
    int raw = io_may(IO_MAY_RAW), filter = io_may(IO_MAY_FILTER);

    line(r, !raw, raw ? RUN_AS_ROOT : NULL, "raw sockets: %s", raw ? "not permitted (CAP_NET_RAW)" : "allowed");
    line(r, !filter, filter ? RUN_AS_ROOT : NULL, "filters on TCP sockets: %s",
         filter ? "not permitted (CAP_NET_ADMIN, on this kernel)" : "allowed");
}

static bool has_vnet_header(void)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = 1;
    bool has = fd >= 0 && setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) == 0;

    if (fd >= 0) close(fd);
    return has;
}

static bool has_ipv6(void)
{
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd >= 0) close(fd);
    return fd >= 0;
}

static void check_kernel(struct report *r)
{
    struct utsname u = { 0 };
    int err;

    uname(&u);
    line(r, true, has_ipv6() ? NULL : "IPv4 is enough for most; else load the ipv6 module", "kernel: %s %s%s", u.sysname, u.release,
         has_ipv6() ? "" : ", without IPv6");
    if (!may_open_packet(&err)) {
        line(r, false, err == EPERM ? RUN_AS_ROOT : "a kernel with CONFIG_PACKET: modprobe af_packet", "packet sockets: %s",
             err == EPERM ? "not permitted (CAP_NET_RAW)" : "not in this kernel (AF_PACKET)");
        return;
    }
    line(r, true, has_vnet_header() ? NULL : "Linux 2.6.27 or later; until then --io=raw", "packet sockets: allowed, %s",
         has_vnet_header() ? "with large packets (PACKET_VNET_HDR)" : "without large packets (PACKET_VNET_HDR)");
}

static void check_loopback(struct report *r, const struct rtnl_link *l)
{
    bool up = l->flags & IFF_UP;

    line(r, up, up ? NULL : "ip link set lo up", "lo: %s",
         up ? "up" : "down: programs cannot be connected to the engine, kernel TCP is used");
}

/* ---- routes ---- */

enum { ROUTES_MAX = 6 };
struct routes { const struct rtnl_link *link; struct text *t; int n; };

static int on_route(const struct nlmsghdr *nlh, void *data)
{
    struct routes *q = data;
    const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
    const struct nlattr *a, *dst = NULL, *gw = NULL;
    char ip[INET6_ADDRSTRLEN], via[INET6_ADDRSTRLEN];
    int oif = 0;

    if (nlh->nlmsg_type != RTM_NEWROUTE || rtm->rtm_type != RTN_UNICAST || rtm->rtm_flags & RTM_F_CLONED) return MNL_CB_OK;
    mnl_attr_for_each(a, nlh, sizeof *rtm) switch (mnl_attr_get_type(a)) {
    case RTA_DST: dst = a; break;
    case RTA_GATEWAY: gw = a; break;
    case RTA_OIF: oif = (int)mnl_attr_get_u32(a); break;
    }
    if (oif != q->link->ifindex || !dst || !rtm->rtm_dst_len) return MNL_CB_OK; /* default routes are told apart */
    inet_ntop(rtm->rtm_family, mnl_attr_get_payload(dst), ip, sizeof ip);
    if (rtm->rtm_family == AF_INET6 && !strncmp(ip, "fe80:", 5)) return MNL_CB_OK;
    if (++q->n > ROUTES_MAX) return MNL_CB_OK;
    add(q->t, "%s%s/%u", q->n == 1 ? "; routes " : ", ", ip, rtm->rtm_dst_len);
    if (gw) add(q->t, " via %s", inet_ntop(rtm->rtm_family, mnl_attr_get_payload(gw), via, sizeof via));
    return MNL_CB_OK;
}

static void add_routes(struct text *t, struct io *io, const struct rtnl_link *l)
{
    struct routes q = { l, t, 0 };

    for (int i = 0; i < 2; i++) {
        uint8_t buf[256];
        struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
        struct rtmsg *rtm;

        nlh->nlmsg_type = RTM_GETROUTE;
        nlh->nlmsg_flags = NLM_F_DUMP;
        rtm = mnl_nlmsg_put_extra_header(nlh, sizeof *rtm);
        rtm->rtm_family = i ? AF_INET6 : AF_INET;
        rtnl_request(io->rtnl, nlh, on_route, &q);
    }
    if (q.n > ROUTES_MAX) add(t, " and %d more", q.n - ROUTES_MAX);
}

/* Routed nowhere in particular: documentation's addresses (RFC 5737, RFC 3849). */
static const struct mp_addr nowhere4 = { 4, { 203, 0, 113, 99 } };
static const struct mp_addr nowhere6 = { 6, { 0x20, 0x01, 0x0d, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99 } };

static bool add_default(struct text *t, struct io *io, int ifindex, uint8_t family, bool first)
{
    struct rtnl_route rt;
    char ip[INET6_ADDRSTRLEN];

    if (rtnl_route_cached(io->rtnl, &(struct rtnl_ask){ family == 4 ? &nowhere4 : &nowhere6, NULL, ifindex, 0 }, &rt)) return false;
    add(t, "%s %s", first ? "; default route" : " and", rt.gateway.family ? "via " : "on link");
    if (rt.gateway.family) add(t, "%s", ip_text(&rt.gateway, ip));
    return true;
}

/* ---- interfaces ---- */

/* Addresses that may be used; `why` gets the reason of the last that may not. */
static int add_addresses(struct text *t, const struct io *io, int ifindex, unsigned *families, const char **why)
{
    const struct rtnl_addr *a;
    char ip[INET6_ADDRSTRLEN];
    int n = 0;

    *why = "no address";
    for (int i = 0; (a = rtnl_addr_at(io->rtnl, i)); i++) {
        const char *no = rtnl_addr_refused(io, a);

        if (a->ifindex != ifindex) continue;
        if (no) {
            *why = no;
            continue;
        }
        add(t, "%s%s/%u", n++ ? ", " : "", ip_text(&a->ip, ip), a->prefix);
        *families |= a->ip.family == 4 ? 1 : 2;
    }
    return n;
}

static void check_rp_filter(struct report *r, struct io *io, const struct rtnl_link *l)
{
    struct rtnl_route rt;

    if (io_rp_filter(io, l) != 1 || rtnl_route_cached(io->rtnl, &(struct rtnl_ask){ &nowhere4, NULL, l->ifindex, 0 }, &rt)) return;
    if (rtnl_route_cached(io->rtnl, &(struct rtnl_ask){ &nowhere4, NULL, 0, 0 }, &rt) == 0 && rt.oif == l->ifindex) return;
    line(r, false, "sysctl -w net.ipv4.conf.all.rp_filter=2 (loose); else joins from outside are refused here",
         "%s: strict rp_filter hides replies on this second path; they are received by packet socket", l->name);
}

static void not_used(struct report *r, const struct rtnl_link *l, const char *no)
{
    char remedy[160] = "";

    if (!strcmp(no, "down")) snprintf(remedy, sizeof remedy, "ip link set %s up", l->name);
    else if (!strcmp(no, "no carrier")) snprintf(remedy, sizeof remedy, "plug it in, or join a network");
    else if (!strncmp(no, "part of", 7) || !strncmp(no, "inside", 6))
        snprintf(remedy, sizeof remedy, "name it if it is to be used all the same: --interfaces=%s,...", l->name);
    line(r, true, *remedy ? remedy : NULL, "%s: not used: %s", l->name, no);
}

static bool check_link(struct report *r, struct io *io, const struct rtnl_link *l)
{
    static const char *const rp[] = { "off", "strict", "loose" };
    const char *no = rtnl_link_refused(io, l), *why;
    struct text t = { .n = 0 };
    char remedy[160];
    unsigned families = 0;
    bool d4, d6;
    int filter;

    if (no) {
        not_used(r, l, no);
        return false;
    }
    if (!add_addresses(&t, io, l->ifindex, &families, &why)) {
        line(r, true, "give it an address: DHCP, router advertisements, or ip address add", "%s: not used: %s%s", l->name,
             strcmp(why, "no address") ? "only addresses that are " : "", why);
        return false;
    }
    d4 = families & 1 && add_default(&t, io, l->ifindex, 4, true);
    d6 = families & 2 && add_default(&t, io, l->ifindex, 6, !d4);
    if (!d4 && !d6) add(&t, "; no default route: reaches its own networks only");
    add_routes(&t, io, l);
    filter = io_rp_filter(io, l);
    if (families & 1) add(&t, "; rp_filter %s", filter >= 0 && filter <= 2 ? rp[filter] : "unknown");
    snprintf(remedy, sizeof remedy, "ip %sroute add default via GATEWAY dev %s metric 200, if it leads to the Internet", families & 1 ? "" : "-6 ", l->name);
    line(r, true, d4 || d6 ? NULL : remedy, "%s: a path: %s; mtu %u%s", l->name, t.b, l->mtu,
         rtnl_link_is_tunnel(l) ? "; a tunnel: used alone, where routes lead into it" : "");
    check_rp_filter(r, io, l);
    return true;
}

static const struct rtnl_link *link_of(struct io *io, const struct rtnl_name *w)
{
    const struct rtnl_link *l;

    for (int i = 0; (l = rtnl_link_at(io->rtnl, i)); i++)
        if (strlen(l->name) == (size_t)w->len && !memcmp(l->name, w->name, (size_t)w->len)) return l;
    return NULL;
}

/* It may come, as a modem does; or it is a slip of the pen, and then nothing else would tell. */
static void check_names(struct report *r, struct io *io, const char *setting, const char *list)
{
    struct rtnl_name w;

    while (rtnl_next_name(&list, &w))
        if (!link_of(io, &w)) line(r, true, "nothing to do if it is to come later; else see ip link", "%.*s: named by --%s, not here", w.len, w.name, setting);
}

static void check_count(struct report *r, const struct io *io, int paths)
{
    char among[128] = "";

    if (io->cfg.interfaces && *io->cfg.interfaces) snprintf(among, sizeof among, " (--interfaces=%s)", io->cfg.interfaces);
    line(r, paths > 1, paths > 1 ? NULL : paths ? "bring a second interface up, with an address and a route to the peer"
         : "bring interfaces up, each with an address and a route to the peer", "%d path%s%s", paths, paths == 1 ? "" : "s", paths > 1 ? "" : among);
}

static void check_links(struct report *r, struct io *io)
{
    const struct rtnl_link *l;
    int paths = 0;

    for (int i = 0; (l = rtnl_link_at(io->rtnl, i)); i++)
        if (l->flags & IFF_LOOPBACK) check_loopback(r, l);
    for (int i = 0; (l = rtnl_link_at(io->rtnl, i)); i++)
        if (!(l->flags & IFF_LOOPBACK)) paths += check_link(r, io, l);
    check_names(r, io, "interfaces", io->cfg.interfaces);
    check_names(r, io, "backup", io->cfg.backup);
    check_count(r, io, paths);
}

static void check_vpn(struct report *r, struct io *io)
{
    for (int i = 0; i < 2; i++) {
        struct rtnl_route rt;
        const struct rtnl_link *l;
        int err;

        if (io_route_kind(io, i ? &nowhere6 : &nowhere4, 0, &rt, &err) != IO_ROUTE_TUNNEL || err) continue;
        l = rtnl_link(io->rtnl, rt.oif);
        line(r, true, "meant so: nothing leaves beside a VPN; to use several paths, end it or route the peer outside it",
             "IPv%d's default route is a tunnel's or a policy rule's (%s): connections stay on it alone", i ? 6 : 4,
             l ? l->name : "?");
    }
}

static void check_fast_path(struct report *r, struct io *io)
{
    bool tracked = io_conntrack_active(io), ipsec = io_xfrm_active(io);

    line(r, true, tracked ? "nothing to do below 2 Gbit/s; above, do without stateful rules (nft ct, iptables conntrack, NAT)" : NULL,
         "connection tracking: %s", tracked ? "active: the raw path is used, which sends slower" : "not active");
    line(r, true, ipsec ? "meant so" : NULL, "IPsec policies: %s", ipsec ? "in place: the raw path is used, which obeys them" : "none");
}

int io_doctor(struct io *io, void (*put)(void *arg, bool ok, const char *what, const char *remedy), void *arg)
{
    struct report r = { put, arg, 0 };

    check_privileges(&r);
    check_kernel(&r);
    if (!io) return r.lines;
    check_links(&r, io);
    check_vpn(&r, io);
    check_fast_path(&r, io);
    return r.lines;
}
