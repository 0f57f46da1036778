/* io/rtnl_hops.c: the link addresses of next hops, as the kernel's neighbour tables have them. */
#include <linux/neighbour.h>
#include <stdlib.h>

#include "io/rtnl.h"

#define NUD_USABLE (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP)

void rtnl_on_neighbour(struct rtnl *r, const struct nlmsghdr *nlh)
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
    rtnl_addr_from_attr(&ip, nd->ndm_family, dst);
    for (struct io_hop *h = r->io->hops; h; h = h->next) {
        if (h->ifindex != nd->ndm_ifindex || !mp_addr_eq(&h->ip, &ip)) continue;
        h->known = nlh->nlmsg_type == RTM_NEWNEIGH && nd->ndm_state & NUD_USABLE && mac && mnl_attr_get_payload_len(mac) == 6;
        if (h->known) memcpy(h->mac, mnl_attr_get_payload(mac), 6);
        /* Only as an event: what an answer tells may be older than the SYN that waits now. */
        if (r->in_events && nlh->nlmsg_type == RTM_NEWNEIGH && nd->ndm_state & NUD_FAILED) h->failed = r->hop_failed = true;
    }
}

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
    rtnl_request(r, nlh, rtnl_on_message, r); /* no entry: an event will tell of one */
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
