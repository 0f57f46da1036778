/* io/rtnl.c: links and addresses by rtnetlink, kept current by events; the stack is told of those that are paths.
 *
 * Two sockets: one for events, read by the loop; one for requests, which wait for their answer (tens of microseconds). */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/time.h>

#include "io/internal.h"
#include "io/route.h"

#define NLBUF 32768
#define EVENT_RCVBUF (1 << 20)

struct path { int ifindex; struct mp_addr ip; };

struct rtnl {
    struct io *io;
    struct mnl_socket *events, *requests;
    ev_io w;
    uint32_t seq, generation;
    struct rtnl_link *link;
    struct rtnl_addr *addr;
    struct path *path; /* those the stack was told of */
    int nlink, naddr, npath, links_cap, addrs_cap;
    bool telling;      /* io_paths_start was called */
    bool hears_neighbours;
    bool changed;      /* links or addresses, since the stack was told */
    bool rerouted;     /* routes or rules, likewise */
    bool in_events, hop_failed;
    struct rtnl_cache cache;
};

struct rtnl_cache *rtnl_cache(struct rtnl *r) { return &r->cache; }
uint32_t rtnl_generation(const struct rtnl *r) { return r->generation; }

/* ---- tables ---- */

const struct rtnl_link *rtnl_link_at(const struct rtnl *r, int i) { return i < r->nlink ? &r->link[i] : NULL; }
const struct rtnl_addr *rtnl_addr_at(const struct rtnl *r, int i) { return i < r->naddr ? &r->addr[i] : NULL; }

static struct rtnl_link *find_link(const struct rtnl *r, int ifindex)
{
    for (int i = 0; i < r->nlink; i++)
        if (r->link[i].ifindex == ifindex) return &r->link[i];
    return NULL;
}

const struct rtnl_link *rtnl_link(const struct rtnl *r, int ifindex) { return find_link(r, ifindex); }

bool rtnl_is_local(const struct rtnl *r, const struct mp_addr *a)
{
    for (int i = 0; i < r->naddr; i++)
        if (mp_addr_eq(&r->addr[i].ip, a)) return true;
    return false;
}

/* Room for one more; NULL: no memory. */
static void *grow(void *v, int n, int *cap, size_t size)
{
    void *w;

    if (n < *cap) return v;
    w = realloc(v, (size_t)(*cap + 16) * size);
    if (w) *cap += 16;
    return w;
}

static struct rtnl_link *add_link(struct rtnl *r, int ifindex)
{
    struct rtnl_link *l = find_link(r, ifindex), *v;

    if (l) return l;
    v = grow(r->link, r->nlink, &r->links_cap, sizeof *v);
    if (!v) return NULL;
    r->link = v;
    v[r->nlink] = (struct rtnl_link){ .ifindex = ifindex };
    return &v[r->nlink++];
}

static void del_link(struct rtnl *r, int ifindex)
{
    struct rtnl_link *l = find_link(r, ifindex);

    if (!l) return;
    *l = r->link[--r->nlink];
    for (int i = 0; i < r->naddr;)
        if (r->addr[i].ifindex == ifindex) r->addr[i] = r->addr[--r->naddr];
        else i++;
}

static struct rtnl_addr *find_addr(const struct rtnl *r, int ifindex, const struct mp_addr *ip)
{
    for (int i = 0; i < r->naddr; i++)
        if (r->addr[i].ifindex == ifindex && mp_addr_eq(&r->addr[i].ip, ip)) return &r->addr[i];
    return NULL;
}

/* ---- messages ---- */

static void addr_from_attr(struct mp_addr *a, int family, const struct nlattr *at)
{
    *a = (struct mp_addr){ .family = family == AF_INET ? 4 : 6 };
    memcpy(a->b, mnl_attr_get_payload(at), mp_min(mnl_attr_get_payload_len(at), a->family == 4 ? 4 : 16));
}

static void read_kind(struct rtnl_link *l, const struct nlattr *info)
{
    const struct nlattr *a;

    mnl_attr_for_each_nested(a, info)
        if (mnl_attr_get_type(a) == IFLA_INFO_KIND)
            strncpy(l->kind, mnl_attr_get_str(a), sizeof l->kind - 1);
}

static void on_link(struct rtnl *r, const struct nlmsghdr *nlh)
{
    const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);
    const struct nlattr *a;
    struct rtnl_link *l;
    bool whole = false;

    if (ifi->ifi_family != AF_UNSPEC) return; /* a bridge's word about its port */
    r->changed = true;
    r->generation++;
    if (nlh->nlmsg_type == RTM_DELLINK) {
        del_link(r, ifi->ifi_index);
        io_link_gone(r->io, ifi->ifi_index);
        return;
    }
    l = add_link(r, ifi->ifi_index);
    if (!l) return;
    l->flags = ifi->ifi_flags;
    l->arptype = ifi->ifi_type;
    /* Wireless events carry next to no attributes: only a whole message tells that there is no master. */
    mnl_attr_for_each(a, nlh, sizeof *ifi) if (mnl_attr_get_type(a) == IFLA_MTU) whole = true;
    if (whole) l->master = 0;
    mnl_attr_for_each(a, nlh, sizeof *ifi) switch (mnl_attr_get_type(a)) {
    case IFLA_IFNAME: strncpy(l->name, mnl_attr_get_str(a), sizeof l->name - 1); break;
    case IFLA_MTU: l->mtu = mnl_attr_get_u32(a); break;
    case IFLA_MASTER: l->master = (int)mnl_attr_get_u32(a); break;
    case IFLA_LINKINFO: read_kind(l, a); break;
    case IFLA_ADDRESS:
        if (mnl_attr_get_payload_len(a) == 6) memcpy(l->mac, mnl_attr_get_payload(a), 6);
        break;
    }
    io_link_changed(r->io, l);
}

static void on_addr(struct rtnl *r, const struct nlmsghdr *nlh)
{
    const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);
    const struct nlattr *a, *own = NULL, *any = NULL;
    struct rtnl_addr *at, *v, new = { .ifindex = (int)ifa->ifa_index, .prefix = ifa->ifa_prefixlen,
                                      .scope = ifa->ifa_scope, .flags = ifa->ifa_flags };

    if (ifa->ifa_family != AF_INET && ifa->ifa_family != AF_INET6) return;
    mnl_attr_for_each(a, nlh, sizeof *ifa) switch (mnl_attr_get_type(a)) {
    case IFA_LOCAL: own = a; break; /* of a point-to-point link, IFA_ADDRESS is the other end */
    case IFA_ADDRESS: any = a; break;
    case IFA_FLAGS: new.flags = mnl_attr_get_u32(a); break;
    }
    if (!own && !any) return;
    addr_from_attr(&new.ip, ifa->ifa_family, own ? own : any);
    r->changed = true;
    r->generation++;
    at = find_addr(r, new.ifindex, &new.ip);
    if (nlh->nlmsg_type == RTM_DELADDR) {
        if (at) *at = r->addr[--r->naddr];
        return;
    }
    if (!at) {
        v = grow(r->addr, r->naddr, &r->addrs_cap, sizeof *v);
        if (!v) return;
        r->addr = v;
        at = &v[r->naddr++];
    }
    *at = new;
}

#define NUD_USABLE (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP)

static void on_neighbour(struct rtnl *r, const struct nlmsghdr *nlh)
{
    const struct ndmsg *nd = mnl_nlmsg_get_payload(nlh);
    const struct nlattr *a, *mac = NULL, *dst = NULL;
    struct mp_addr ip;

    if (nd->ndm_family != AF_INET && nd->ndm_family != AF_INET6) return;
    mnl_attr_for_each(a, nlh, sizeof *nd) switch (mnl_attr_get_type(a)) {
    case NDA_DST: dst = a; break;
    case NDA_LLADDR: mac = a; break;
    }
    if (!dst) return;
    addr_from_attr(&ip, nd->ndm_family, dst);
    for (struct io_hop *h = r->io->hops; h; h = h->next) {
        if (h->ifindex != nd->ndm_ifindex || !mp_addr_eq(&h->ip, &ip)) continue;
        h->known = nlh->nlmsg_type == RTM_NEWNEIGH && nd->ndm_state & NUD_USABLE && mac && mnl_attr_get_payload_len(mac) == 6;
        if (h->known) memcpy(h->mac, mnl_attr_get_payload(mac), 6);
        /* Only as an event: what an answer tells may be older than the SYN that waits now. */
        if (r->in_events && nlh->nlmsg_type == RTM_NEWNEIGH && nd->ndm_state & NUD_FAILED) h->failed = r->hop_failed = true;
    }
}

static int on_message(const struct nlmsghdr *nlh, void *data)
{
    struct rtnl *r = data;

    switch (nlh->nlmsg_type) {
    case RTM_NEWLINK: case RTM_DELLINK: on_link(r, nlh); break;
    case RTM_NEWADDR: case RTM_DELADDR: on_addr(r, nlh); break;
    case RTM_NEWNEIGH: case RTM_DELNEIGH: on_neighbour(r, nlh); break;
    case RTM_NEWROUTE: case RTM_DELROUTE: case RTM_NEWRULE: case RTM_DELRULE:
        r->generation++;
        r->rerouted = true;
        io_rerouted(r->io, nlh);
        break;
    }
    return MNL_CB_OK;
}

/* ---- requests ---- */

int rtnl_request(struct rtnl *r, struct nlmsghdr *nlh, int (*cb)(const struct nlmsghdr *, void *), void *data)
{
    uint8_t buf[NLBUF];
    unsigned port = mnl_socket_get_portid(r->requests);
    int ret = 1;

    nlh->nlmsg_seq = ++r->seq;
    nlh->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK; /* so that each exchange has an end */
    if (mnl_socket_sendto(r->requests, nlh, nlh->nlmsg_len) < 0) return -errno;
    while (ret > 0) {
        ssize_t n = mnl_socket_recvfrom(r->requests, buf, sizeof buf);

        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        ret = mnl_cb_run(buf, (size_t)n, r->seq, port, cb, data);
        if (ret < 0 && (errno == ESRCH || errno == EPROTO)) ret = 1; /* a late answer to a request given up */
    }
    return ret < 0 ? -errno : 0;
}

static int dump(struct rtnl *r, uint16_t type, size_t header)
{
    uint8_t buf[256];
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);

    nlh->nlmsg_type = type;
    nlh->nlmsg_flags = NLM_F_DUMP;
    mnl_nlmsg_put_extra_header(nlh, header);
    return rtnl_request(r, nlh, on_message, r);
}

static int load(struct rtnl *r)
{
    int err;

    r->nlink = r->naddr = 0;
    err = dump(r, RTM_GETLINK, sizeof(struct ifinfomsg));
    return err ? err : dump(r, RTM_GETADDR, sizeof(struct ifaddrmsg));
}

/* ---- neighbours ---- */

static void ask_neighbour(struct rtnl *r, const struct io_hop *h)
{
    uint8_t buf[256];
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
    struct ndmsg *nd;

    nlh->nlmsg_type = RTM_GETNEIGH;
    nd = mnl_nlmsg_put_extra_header(nlh, sizeof *nd);
    nd->ndm_family = h->ip.family == 4 ? AF_INET : AF_INET6;
    nd->ndm_ifindex = h->ifindex;
    mnl_attr_put(nlh, NDA_DST, h->ip.family == 4 ? 4 : 16, h->ip.b);
    rtnl_request(r, nlh, on_message, r); /* no entry: an event will tell of one */
}

static void hear_neighbours(struct rtnl *r)
{
    int group = RTNLGRP_NEIGH;

    if (r->hears_neighbours) return;
    r->hears_neighbours = true;
    mnl_socket_setsockopt(r->events, NETLINK_ADD_MEMBERSHIP, &group, sizeof group);
}

struct io_hop *rtnl_hop_get(struct rtnl *r, int ifindex, const struct mp_addr *ip)
{
    struct io_hop *h;

    for (h = r->io->hops; h; h = h->next)
        if (h->ifindex == ifindex && mp_addr_eq(&h->ip, ip)) {
            h->refs++;
            if (!h->known) ask_neighbour(r, h);
            return h;
        }
    h = calloc(1, sizeof *h);
    if (!h) return NULL;
    *h = (struct io_hop){ .next = r->io->hops, .ifindex = ifindex, .ip = *ip, .refs = 1 };
    r->io->hops = h;
    hear_neighbours(r); /* before asking: no gap */
    ask_neighbour(r, h);
    return h;
}

void rtnl_hop_put(struct rtnl *r, struct io_hop *h)
{
    struct io_hop **at;

    if (!h || --h->refs) return;
    for (at = &r->io->hops; *at != h;) at = &(*at)->next;
    *at = h->next;
    free(h);
}

/* ---- paths ---- */

static const struct path *find_path(const struct path *v, int n, int ifindex, const struct mp_addr *ip)
{
    for (int i = 0; i < n; i++)
        if (v[i].ifindex == ifindex && mp_addr_eq(&v[i].ip, ip)) return &v[i];
    return NULL;
}

/* More is better: what the stack uses already stays; then temporary addresses (RFC 8981: the kernel makes them only for
 * those who want them); then the kernel's order, primary before secondary. */
static int preference(const struct rtnl *r, const struct rtnl_addr *a)
{
    if (find_path(r->path, r->npath, a->ifindex, &a->ip)) return 3;
    if (a->ip.family == 6) return a->flags & IFA_F_TEMPORARY ? 2 : 1;
    return a->flags & IFA_F_SECONDARY ? 1 : 2;
}

/* One address per interface and family: more would be subflows that share a link. */
static const struct rtnl_addr *best_addr(const struct rtnl *r, const struct rtnl_link *l, uint8_t family)
{
    const struct rtnl_addr *best = NULL;

    for (int i = 0; i < r->naddr; i++) {
        const struct rtnl_addr *a = &r->addr[i];

        if (a->ifindex != l->ifindex || a->ip.family != family || rtnl_addr_refused(r->io, a)) continue;
        if (!best || preference(r, a) > preference(r, best)) best = a;
    }
    return best;
}

static int wanted_paths(const struct rtnl *r, struct path *v)
{
    int n = 0;

    for (int i = 0; i < r->nlink; i++) {
        if (rtnl_link_refused(r->io, &r->link[i])) continue;
        for (uint8_t family = 4; family <= 6; family += 2) {
            const struct rtnl_addr *a = best_addr(r, &r->link[i], family);

            if (a) v[n++] = (struct path){ a->ifindex, a->ip };
        }
    }
    return n;
}

static void tell_add(const struct rtnl *r, const struct path *p)
{
    const struct rtnl_link *l = find_link(r, p->ifindex);
    struct mp_local local = { .ifindex = p->ifindex, .ip = p->ip, .announce = true };

    local.backup = rtnl_is_backup(r->io, l);
    memcpy(local.name, l->name, sizeof local.name);
    mp_stack_local_add(*r->io->stack, &local, io_now());
}

/* What went comes first: data on a dead path is to be sent again at once. */
static void tell_stack(struct rtnl *r)
{
    struct path *want;
    int n;

    r->changed = false;
    if (!r->telling || !*r->io->stack) return;
    want = calloc((size_t)r->nlink * 2 + 1, sizeof *want);
    if (!want) return;
    n = wanted_paths(r, want);
    for (int i = 0; i < r->npath; i++)
        if (!find_path(want, n, r->path[i].ifindex, &r->path[i].ip))
            mp_stack_local_del(*r->io->stack, r->path[i].ifindex, &r->path[i].ip, io_now());
    for (int i = 0; i < n; i++)
        if (!find_path(r->path, r->npath, want[i].ifindex, &want[i].ip)) tell_add(r, &want[i]);
    free(r->path);
    r->path = want;
    r->npath = n;
}

void rtnl_paths_start(struct rtnl *r)
{
    r->telling = true;
    tell_stack(r);
}

/* ---- events ---- */

static void on_events(struct ev_loop *loop, ev_io *w, int revents)
{
    struct rtnl *r = w->data;
    uint8_t buf[NLBUF];
    ssize_t n;

    (void)loop, (void)revents;
    r->in_events = true;
    while ((n = mnl_socket_recvfrom(r->events, buf, sizeof buf)) > 0 || (n < 0 && (errno == ENOBUFS || errno == EINTR))) {
        if (n > 0) mnl_cb_run(buf, (size_t)n, 0, 0, on_message, r);
        else if (errno == ENOBUFS) { /* events were lost: everything anew */
            load(r);
            r->rerouted = true;
            io_rerouted_all(r->io);
        }
    }
    r->in_events = false;
    io_flows_rerouted(r->io);
    if (r->hop_failed) io_hops_failed(r->io);
    if (r->changed) {
        tell_stack(r);
        io_listen_refresh(r->io);
    }
    if (r->rerouted && r->telling && *r->io->stack) mp_stack_routes_changed(*r->io->stack, io_now());
    if (r->changed || r->rerouted || r->hop_failed) io_kick(r->io);
    r->changed = r->rerouted = r->hop_failed = false;
}

static struct mnl_socket *open_socket(int flags)
{
    struct mnl_socket *s = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | flags);

    if (!s || mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) == 0) return s;
    mnl_socket_close(s);
    return NULL;
}

static bool subscribe(struct rtnl *r)
{
    static const int groups[] = { RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
                                  RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE };
    int size = EVENT_RCVBUF;

    setsockopt(mnl_socket_get_fd(r->events), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        int g = groups[i];

        if (mnl_socket_setsockopt(r->events, NETLINK_ADD_MEMBERSHIP, &g, sizeof g) < 0) return false;
    }
    return true;
}

static int rtnl_init(struct rtnl *r)
{
    struct timeval limit = { .tv_usec = 500000 };

    r->events = open_socket(SOCK_NONBLOCK);
    r->requests = open_socket(0);
    if (!r->events || !r->requests || !subscribe(r)) return -errno;
    setsockopt(mnl_socket_get_fd(r->requests), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return load(r);
}

struct rtnl *rtnl_new(struct io *io, int *err)
{
    struct rtnl *r = calloc(1, sizeof *r);

    *err = ENOMEM;
    if (!r) return NULL;
    r->io = io;
    r->generation = 1;
    *err = -rtnl_init(r);
    if (*err) {
        rtnl_free(r);
        return NULL;
    }
    r->changed = false;
    ev_io_init(&r->w, on_events, mnl_socket_get_fd(r->events), EV_READ);
    r->w.data = r;
    ev_io_start(io->loop, &r->w);
    return r;
}

void rtnl_free(struct rtnl *r)
{
    if (!r) return;
    if (ev_is_active(&r->w)) ev_io_stop(r->io->loop, &r->w);
    if (r->events) mnl_socket_close(r->events);
    if (r->requests) mnl_socket_close(r->requests);
    free(r->link);
    free(r->addr);
    free(r->path);
    free(r);
}
