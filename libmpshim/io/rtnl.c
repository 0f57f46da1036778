/* io/rtnl.c: rtnetlink's sockets: links, addresses, routes and neighbours kept current by events.
 *
 * Two sockets: one for events, read by the loop; one for requests, which wait for their answer (tens of microseconds). */
#include <errno.h>
#include <stdlib.h>
#include <sys/time.h>

#include "io/rtnl.h"

#define NLBUF 32768
#define EVENT_RCVBUF (1 << 20)

struct rtnl_cache *rtnl_cache(struct rtnl *r) { return &r->cache; }
uint32_t rtnl_generation(const struct rtnl *r) { return r->generation; }

int rtnl_on_message(const struct nlmsghdr *nlh, void *data)
{
    struct rtnl *r = data;

    switch (nlh->nlmsg_type) {
    case RTM_NEWLINK: case RTM_DELLINK: rtnl_on_link(r, nlh); break;
    case RTM_NEWADDR: case RTM_DELADDR: rtnl_on_addr(r, nlh); break;
    case RTM_NEWNEIGH: case RTM_DELNEIGH: rtnl_on_neighbour(r, nlh); break;
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
    return rtnl_request(r, nlh, rtnl_on_message, r);
}

static int load(struct rtnl *r)
{
    int err;

    r->nlink = r->naddr = 0;
    err = dump(r, RTM_GETLINK, sizeof(struct ifinfomsg));
    return err ? err : dump(r, RTM_GETADDR, sizeof(struct ifaddrmsg));
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
        if (n > 0) mnl_cb_run(buf, (size_t)n, 0, 0, rtnl_on_message, r);
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
        rtnl_tell_stack(r);
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
