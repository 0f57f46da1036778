/* io/rtnl.h: what the files of rtnetlink share; what others ask is in internal.h. rtnl.c sockets, requests and events,
 * rtnl_links.c links and addresses, rtnl_hops.c neighbours, rtnl_paths.c which of them the stack is told of. */
#ifndef IO_RTNL_H
#define IO_RTNL_H

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

#include "io/internal.h"
#include "io/route.h"

struct rtnl_path { int ifindex; struct mp_addr ip; };

struct rtnl {
    struct io *io;
    struct mnl_socket *events, *requests;
    ev_io w;
    uint32_t seq, generation;
    struct rtnl_link *link;
    struct rtnl_addr *addr;
    struct rtnl_path *path; /* those the stack was told of */
    int nlink, naddr, npath, links_cap, addrs_cap;
    bool telling;      /* io_paths_start was called */
    bool hears_neighbours;
    bool changed;      /* links or addresses, since the stack was told */
    bool rerouted;     /* routes or rules, likewise */
    bool in_events, hop_failed;
    struct rtnl_cache cache;
};

/* ---- rtnl.c ---- */
int rtnl_on_message(const struct nlmsghdr *nlh, void *rtnl); /* any, an event or an answer; libmnl's callback */

/* ---- rtnl_links.c ---- */
void rtnl_on_link(struct rtnl *r, const struct nlmsghdr *nlh); /* both set r->changed */
void rtnl_on_addr(struct rtnl *r, const struct nlmsghdr *nlh);
void rtnl_addr_from_attr(struct mp_addr *a, int family, const struct nlattr *at); /* family AF_INET or AF_INET6 */

/* ---- rtnl_hops.c ---- */
void rtnl_on_neighbour(struct rtnl *r, const struct nlmsghdr *nlh); /* sets r->hop_failed */

/* ---- rtnl_paths.c ---- */
void rtnl_tell_stack(struct rtnl *r); /* clears r->changed */

#endif
