/* Programs that know MPTCP: sockets of IPPROTO_MPTCP, the kernel's socket options of level SOL_MPTCP (linux/mptcp.h), and
 * those of include/mpshim.h (RFC 6897).
 *
 * socket(IPPROTO_MPTCP) makes a TCP socket wherever an engine can be had: the engine, not the kernel, is then its MPTCP,
 * over all paths, with or without MPTCP in the kernel. Where none can be had, the kernel's MPTCP comes first and TCP last.
 * Such a socket says of itself that it is IPPROTO_MPTCP; what the engine leaves to the kernel is plain TCP. */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

#include "core/stack.h"
#include "mpshim.h"
#include "shim/shim.h"

/* The kernel's structures, whose newest fields older headers do not have. */
struct mptcp_info {
    uint8_t subflows, add_addr_signal, add_addr_accepted, subflows_max, add_addr_signal_max, add_addr_accepted_max;
    uint32_t flags, token;
    uint64_t write_seq, snd_una, rcv_nxt;
    uint8_t local_addr_used, local_addr_max, csum_enabled;
    uint32_t retransmits;
    uint64_t bytes_retrans, bytes_sent, bytes_received, bytes_acked;
    uint8_t subflows_total, reserved[3];
    uint32_t last_data_sent, last_data_recv, last_ack_recv;
};
enum { MPTCP_INFO = 1, MPTCP_TCPINFO = 2, MPTCP_SUBFLOW_ADDRS = 3, MPTCP_FULL_INFO = 4 };
enum { FLAG_FALLBACK = 1, FLAG_REMOTE_KEY_RECEIVED = 2 };
struct subflow_data { /* struct mptcp_subflow_data: before the array */
    uint32_t size_subflow_data, num_subflows, size_kernel, size_user;
} __attribute__((aligned(8)));
struct subflow_addrs { struct sockaddr_storage local, remote; };
struct subflow_info { uint32_t id; struct subflow_addrs addrs; };
struct full_info {
    uint32_t size_tcpinfo_kernel, size_tcpinfo_user, size_sfinfo_kernel, size_sfinfo_user, num_subflows, size_arrays_user;
    uint64_t subflow_info, tcp_info; /* the caller's arrays */
    struct mptcp_info mptcp_info;
};

/* ---- socket ---- */

static bool is_stream(int domain, int type)
{
    return (domain == AF_INET || domain == AF_INET6) && (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_STREAM;
}

static int mptcp_socket(int domain, int type)
{
    if (!shim_host_possible()) {
        int fd = REAL(socket)(domain, type, IPPROTO_MPTCP);
        if (fd >= 0 || (errno != EPROTONOSUPPORT && errno != ENOPROTOOPT && errno != EINVAL)) return fd;
    }
    int fd = REAL(socket)(domain, type, IPPROTO_TCP);
    struct shim_fd v = {.kind = SHIM_ASKED, .mptcp = 1, .cookie = fd >= 0 ? shim_cookie(fd) : 0};
    if (fd >= 0 && !shim_is_borrowed()) shim_put(fd, &v);
    return fd;
}

int w_socket(int domain, int type, int protocol)
{
    if (SHIM_LIKELY(protocol != IPPROTO_MPTCP) || shim_is_engine || !is_stream(domain, type)) return REAL(socket)(domain, type, protocol);
    int saved = errno, fd = mptcp_socket(domain, type);
    if (fd >= 0) errno = saved;
    return fd;
}

/* ---- answers in the kernel's structures ---- */

static void fill_info(const struct ctl_info *c, struct mptcp_info *m)
{
    uint8_t most = c->conn.subflows_max ? (uint8_t)(c->conn.subflows_max - 1) : 0;
    *m = (struct mptcp_info){
        .subflows_max = most, .local_addr_max = most, .add_addr_accepted_max = most, .add_addr_signal_max = most,
        .add_addr_signal = c->conn.addr_signalled, .add_addr_accepted = c->conn.addr_accepted,
        .flags = (c->rep.plain_why == MP_WHY_MULTIPATH || c->rep.plain_why == MP_WHY_PENDING ? 0 : FLAG_FALLBACK) | (c->conn.flags & CTL_I_PEER_KEY ? FLAG_REMOTE_KEY_RECEIVED : 0),
        .token = c->conn.token, .write_seq = c->conn.snd_nxt + c->conn.unsent, .snd_una = c->conn.snd_una, .rcv_nxt = c->conn.rcv_nxt,
        .csum_enabled = !!(c->conn.flags & CTL_I_CSUM), .retransmits = c->conn.rexmits, .bytes_retrans = c->conn.bytes_reinjected, .bytes_sent = c->rep.bytes_sent - c->conn.unsent,
        .bytes_received = c->rep.bytes_received + c->conn.unread, .bytes_acked = c->conn.bytes_acked + !!(c->conn.flags & CTL_I_FIN_ACKED), .subflows_total = (uint8_t)c->n,
        .last_data_sent = shim_ms_since(c->conn.sent_at_ms), .last_data_recv = shim_ms_since(c->conn.recv_at_ms), .last_ack_recv = shim_ms_since(c->conn.acked_at_ms),
    };
    for (uint32_t k = 0; k < c->n; k++) m->subflows = (uint8_t)(m->subflows + !c->sf[k].initial); /* those beside the first */
    if (!(c->conn.flags & CTL_I_SERVER)) m->local_addr_used = m->subflows;
}

static void fill_addrs(const struct ctl_subflow *s, struct subflow_addrs *a)
{
    memset(a, 0, sizeof *a);
    memcpy(&a->local, &s->local, sizeof s->local);
    memcpy(&a->remote, &s->remote, sizeof s->remote);
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static int get_info(const struct ctl_info *c, void *v, socklen_t *n)
{
    struct mptcp_info m;
    fill_info(c, &m);
    *n = (socklen_t)least(*n, sizeof m);
    memcpy(v, &m, *n);
    return 0;
}

/* One element of size bytes for each subflow, as many as there is room for; num_subflows tells how many there are. */
static int get_array(const struct ctl_info *c, int opt, void *v, socklen_t *n)
{
    struct subflow_data d;
    size_t room = *n, kernel = opt == MPTCP_TCPINFO ? sizeof(struct tcp_info) : sizeof(struct subflow_addrs), used;
    if (room < sizeof d) return -EINVAL;
    memcpy(&d, v, sizeof d);
    if (d.size_subflow_data < sizeof d || d.size_subflow_data > room || d.num_subflows || d.size_kernel || d.size_user > INT32_MAX) return -EINVAL;
    d.num_subflows = c->n;
    d.size_kernel = (uint32_t)kernel;
    d.size_user = (uint32_t)least(d.size_user, kernel);
    used = d.size_subflow_data;
    for (uint32_t k = 0; k < c->n && d.size_user && used + d.size_user <= room; k++, used += d.size_user) {
        struct subflow_addrs a;
        struct tcp_info t;
        if (opt == MPTCP_TCPINFO) shim_info_subflow(&c->sf[k], &t);
        else fill_addrs(&c->sf[k], &a);
        memcpy((char *)v + used, opt == MPTCP_TCPINFO ? (void *)&t : (void *)&a, d.size_user);
    }
    memcpy(v, &d, sizeof d);
    *n = (socklen_t)used;
    return 0;
}

static void full_element(const struct ctl_subflow *s, const struct full_info *f, uint32_t k)
{
    struct subflow_info a = {.id = s->id + 1u};
    struct tcp_info t;
    fill_addrs(s, &a.addrs);
    shim_info_subflow(s, &t);
    memcpy((char *)(uintptr_t)f->subflow_info + (size_t)k * f->size_sfinfo_user, &a, f->size_sfinfo_user);
    memcpy((char *)(uintptr_t)f->tcp_info + (size_t)k * f->size_tcpinfo_user, &t, f->size_tcpinfo_user);
}

/* The kernel would say EFAULT. */
static bool arrays_are_readable(const struct ctl_info *c, const struct full_info *f)
{
    for (uint32_t k = 0; k < c->n && k < f->size_arrays_user; k++) {
        if (f->size_sfinfo_user && !shim_is_readable((char *)(uintptr_t)f->subflow_info + (size_t)k * f->size_sfinfo_user)) return false;
        if (f->size_tcpinfo_user && !shim_is_readable((char *)(uintptr_t)f->tcp_info + (size_t)k * f->size_tcpinfo_user)) return false;
    }
    return true;
}

static int get_full(const struct ctl_info *c, void *v, socklen_t *n)
{
    struct full_info f;
    if (*n < offsetof(struct full_info, mptcp_info)) return -EINVAL;
    memset(&f, 0, sizeof f);
    memcpy(&f, v, least(*n, sizeof f));
    if (f.size_tcpinfo_kernel || f.size_sfinfo_kernel || f.num_subflows || f.size_tcpinfo_user > INT32_MAX || f.size_sfinfo_user > INT32_MAX)
        return -EINVAL;
    f.size_tcpinfo_kernel = sizeof(struct tcp_info);
    f.size_sfinfo_kernel = sizeof(struct subflow_info);
    f.size_tcpinfo_user = (uint32_t)least(f.size_tcpinfo_user, sizeof(struct tcp_info));
    f.size_sfinfo_user = (uint32_t)least(f.size_sfinfo_user, sizeof(struct subflow_info));
    f.num_subflows = c->n;
    if (!arrays_are_readable(c, &f)) return -EFAULT;
    for (uint32_t k = 0; k < c->n && k < f.size_arrays_user; k++) full_element(&c->sf[k], &f, k);
    fill_info(c, &f.mptcp_info);
    *n = (socklen_t)least(*n, sizeof f);
    memcpy(v, &f, *n);
    return 0;
}

/* ---- level SOL_MPTCP ---- */

static int sol_mptcp_get(const struct ctl_info *c, int opt, void *v, socklen_t *n)
{
    if (*n && !shim_is_readable(v)) return -EFAULT;
    switch (opt) {
    case MPTCP_INFO: return get_info(c, v, n);
    case MPTCP_TCPINFO: case MPTCP_SUBFLOW_ADDRS: return get_array(c, opt, v, n);
    case MPTCP_FULL_INFO: return get_full(c, v, n);
    default: return -EOPNOTSUPP;
    }
}

static bool is_connected(int fd)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    return REAL(getpeername)(fd, (struct sockaddr *)&a, &n) == 0;
}

/* true: the engine's connection, or one of IPPROTO_MPTCP that is none yet (all zero). */
static bool is_ours(int fd, struct ctl_info *c)
{
    struct shim_fd *f = shim_find(fd);
    memset(c, 0, sizeof *c);
    if (f && f->cookie && f->cookie != shim_cookie(fd)) return false;
    if (f && f->mptcp && f->kind != SHIM_CARRIER) return !is_connected(fd);
    return (!f || f->kind == SHIM_CARRIER) && shim_query_info(fd, f, c) == 0;
}

/* ---- level SOL_MPSHIM (include/mpshim.h) ---- */

static int give_u32(uint32_t value, void *v, socklen_t *n)
{
    if (*n < sizeof value) return -EINVAL;
    memcpy(v, &value, sizeof value);
    *n = sizeof value;
    return 0;
}

static int give_subflows(const struct ctl_info *c, struct mpshim_subflow *v, socklen_t *n)
{
    uint32_t max = (uint32_t)(*n / sizeof *v), count = c->n < max ? c->n : max;
    for (uint32_t k = 0; k < count; k++) {
        const struct ctl_subflow *s = &c->sf[k];
        v[k] = (struct mpshim_subflow){
            .ifindex = s->ifindex, .state = s->state, .srtt_us = s->srtt_us, .mss = s->mss, .cwnd = s->cwnd,
            .flags = (s->initial ? MPSHIM_SF_INITIAL : 0u) | (s->backup ? MPSHIM_SF_BACKUP : 0u) | (s->stale ? MPSHIM_SF_STALE : 0u),
            .bytes_sent = s->bytes_acked, .bytes_received = s->bytes_received,
        };
        memcpy(v[k].interface, s->ifname, sizeof v[k].interface);
        memcpy(&v[k].local, &s->local, sizeof s->local);
        memcpy(&v[k].remote, &s->remote, sizeof s->remote);
    }
    *n = (socklen_t)(count * sizeof *v);
    return 0;
}

/* Is it left to the kernel by the program's wish, or because it cannot be carried? */
static bool may_be_carried(int fd)
{
    int family;
    struct shim_fd *f = shim_find(fd);
    return shim_is_tcp(fd, &family) && shim_conf.engine != SHIM_NEVER && !(f && f->kind == SHIM_KERNEL && f->cookie == shim_cookie(fd));
}

static int sol_mpshim_get(int fd, int opt, void *v, socklen_t *n)
{
    struct ctl_info c;
    if (shim_query_info(fd, shim_find(fd), &c)) {
        if (opt == MPSHIM_ENABLE) return give_u32(!is_connected(fd) && may_be_carried(fd), v, n);
        return is_connected(fd) ? -EOPNOTSUPP : -ENOTCONN;
    }
    if (opt == MPSHIM_ENABLE) return give_u32(!!(c.conn.flags & CTL_I_MULTIPATH), v, n);
    if (opt == MPSHIM_CONNID) return c.conn.flags & CTL_I_MULTIPATH ? give_u32(c.conn.token, v, n) : -EOPNOTSUPP;
    return opt == MPSHIM_SUBFLOWS ? give_subflows(&c, v, n) : -ENOPROTOOPT;
}

static int enable(int fd, const void *v, socklen_t n)
{
    int on, family;
    struct shim_fd *f = shim_find(fd), kernel = {.kind = SHIM_KERNEL, .cookie = shim_cookie(fd)};
    if (n < sizeof on) return -EINVAL;
    memcpy(&on, v, sizeof on);
    if (!shim_is_tcp(fd, &family)) return -ENOPROTOOPT;
    if (is_connected(fd) || (f && f->cookie == kernel.cookie && (f->kind == SHIM_CARRIER || f->kind == SHIM_LISTENER))) return -EISCONN;
    if (on && f && f->kind == SHIM_KERNEL) shim_forget(fd);
    if (!on && !shim_is_borrowed()) shim_put(fd, &kernel);
    return 0;
}

static int use_local(int fd, const void *v, socklen_t n, bool use)
{
    struct shim_fd *f = shim_find(fd);
    struct ctl_req q;
    struct ctl_rep rep;
    shim_req_init(&q, CTL_USE_LOCAL);
    q.value = use;
    if (!shim_addr_in(&q.remote, v, n)) return -EINVAL;
    if (!f || f->kind != SHIM_CARRIER || f->host >= SHIM_HOSTS || !shim_is_carrier(fd, f, &q.identity, &q.local)) return is_connected(fd) ? -EOPNOTSUPP : -ENOTCONN;
    int r = shim_request(f->host, &q, -1, &rep, 1000);
    return r ? r : rep.result;
}

int shim_mpshim_set(int fd, int opt, const void *v, socklen_t n)
{
    int saved = errno, r = -ENOPROTOOPT;
    if (!v) r = -EFAULT;
    else if (opt == MPSHIM_ENABLE) r = enable(fd, v, n);
    else if (opt == MPSHIM_ADD || opt == MPSHIM_REMOVE) r = use_local(fd, v, n, opt == MPSHIM_ADD);
    return (int)shim_ret(r, saved);
}

struct question { int fd, level, opt; void *v; socklen_t *n; int r; }; /* r: -errno, or that it is the kernel's */
enum { FOR_KERNEL = 1 };

static void answer(void *p)
{
    struct question *q = p;
    struct ctl_info c;
    q->r = FOR_KERNEL;
    if (q->level == SOL_MPTCP && !shim_is_readable(q->n) && is_ours(q->fd, &c)) q->r = -EFAULT;
    else if (!q->v || !shim_is_readable(q->n) || (int)*q->n < 0) return;
    else if (q->level == SOL_MPSHIM) q->r = sol_mpshim_get(q->fd, q->opt, q->v, q->n);
    else if (is_ours(q->fd, &c)) q->r = sol_mptcp_get(&c, q->opt, q->v, q->n);
}

int shim_mptcp_get(int fd, int level, int opt, void *v, socklen_t *n)
{
    struct question q = {fd, level, opt, v, n, 0};
    int saved = errno;
    shim_on_stack(answer, &q);
    errno = saved;
    return q.r == FOR_KERNEL ? REAL(getsockopt)(fd, level, opt, v, n) : (int)shim_ret(q.r, saved);
}
