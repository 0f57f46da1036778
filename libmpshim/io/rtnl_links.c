/* io/rtnl_links.c: the tables of links and addresses, and the messages that change them. */
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <stdlib.h>

#include "io/rtnl.h"

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

void rtnl_addr_from_attr(struct mp_addr *a, int family, const struct nlattr *at)
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

void rtnl_on_link(struct rtnl *r, const struct nlmsghdr *nlh)
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

void rtnl_on_addr(struct rtnl *r, const struct nlmsghdr *nlh)
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
    rtnl_addr_from_attr(&new.ip, ifa->ifa_family, own ? own : any);
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
