/* engine/sockdiag.c: asks the kernel about one TCP socket (sock_diag(7)). The kernel answers within the send. */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <unistd.h>

#include "engine/eng.h"

int eng_diag_open(void) { return socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG); }

static void put_addr(const struct mp_addr *a, __be32 out[4])
{
    memcpy(out, a->b, a->family == 4 ? 4 : 16);
}

static void build(char *buf, uint32_t seq, const struct mp_endpoint *local, const struct mp_endpoint *remote)
{
    struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
    h->nlmsg_seq = seq;
    h->nlmsg_type = SOCK_DIAG_BY_FAMILY;
    h->nlmsg_flags = NLM_F_REQUEST;
    struct inet_diag_req_v2 *r = mnl_nlmsg_put_extra_header(h, sizeof *r);
    r->sdiag_family = local->ip.family == 6 ? AF_INET6 : AF_INET;
    r->sdiag_protocol = IPPROTO_TCP;
    r->idiag_states = ~0u;
    r->id.idiag_sport = htons(local->port);
    r->id.idiag_dport = htons(remote->port);
    put_addr(&local->ip, r->id.idiag_src);
    put_addr(&remote->ip, r->id.idiag_dst);
    r->id.idiag_cookie[0] = r->id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
}

/* The kernel adds it to every answer, for those with CAP_NET_ADMIN. */
static int take_mark(const struct nlattr *a, void *mark)
{
    if (mnl_attr_get_type(a) == INET_DIAG_MARK && mnl_attr_validate(a, MNL_TYPE_U32) == 0)
        *(uint32_t *)mark = mnl_attr_get_u32(a);
    return MNL_CB_OK;
}

static int parse(const char *buf, size_t n, struct diag_sock *out)
{
    const struct nlmsghdr *h = (const void *)buf;
    if (!mnl_nlmsg_ok(h, (int)n))
        return -EBADMSG;
    if (h->nlmsg_type == NLMSG_ERROR) {
        const struct nlmsgerr *er = mnl_nlmsg_get_payload(h);
        return er->error ? er->error : -EBADMSG;
    }
    const struct inet_diag_msg *m = mnl_nlmsg_get_payload(h);
    out->state = m->idiag_state;
    out->inode = m->idiag_inode;
    out->uid = m->idiag_uid;
    out->mark = 0;
    mnl_attr_parse(h, sizeof *m, take_mark, &out->mark);
    return 0;
}

int eng_diag_find(struct engine *e, const struct mp_endpoint *local, const struct mp_endpoint *remote, struct diag_sock *out)
{
    char buf[4096] __attribute__((aligned(8)));
    uint32_t seq = ++e->diag_seq;
    build(buf, seq, local, remote);
    struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
    if (sendto(e->diag_fd, buf, ((struct nlmsghdr *)(void *)buf)->nlmsg_len, 0, (void *)&kernel, sizeof kernel) < 0)
        return -errno;
    ssize_t n;
    do /* an answer that was left once must not be taken for the next, and so on for ever */
        n = recv(e->diag_fd, buf, sizeof buf, 0);
    while (n >= (ssize_t)sizeof(struct nlmsghdr) && ((struct nlmsghdr *)(void *)buf)->nlmsg_seq != seq);
    return n < 0 ? -errno : parse(buf, (size_t)n, out);
}
