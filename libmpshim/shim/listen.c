/* listen() and bind(): the program's listener stays its own. A filter makes the kernel take connections to it only
 * from lo; the engine answers what comes from the interfaces and brings it over lo (docs/carrier.md). */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/syscall.h>

#include "shim/shim.h"

#define ENGINE_TIMEOUT_MS 5000
#define LO_IFINDEX 1 /* the first device of every network namespace */

static const struct sock_filter only_loopback[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_IFINDEX)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, LO_IFINDEX, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
    BPF_STMT(BPF_RET | BPF_K, 0),
};
#define FILTER_LEN (sizeof only_loopback / sizeof *only_loopback)

/* All may come: a mark on a listener that outlives us, saying to who has it next that its SO_REUSEPORT is ours. */
static const struct sock_filter our_mark[] = {
    BPF_STMT(BPF_LD | BPF_IMM, 0x6d707368),
    BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
};
#define MARK_LEN (sizeof our_mark / sizeof *our_mark)

static int attach(int fd, const struct sock_filter *code, unsigned short len)
{
    struct sock_fprog p = {len, (struct sock_filter *)code};
    return (int)shim_neg(REAL(setsockopt)(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p));
}

static int filter_attach(int fd) { return attach(fd, only_loopback, FILTER_LEN); }

static void filter_detach(int fd)
{
    int zero = 0;
    REAL(setsockopt)(fd, SOL_SOCKET, SO_DETACH_FILTER, &zero, sizeof zero);
}

static bool has(int fd, const struct sock_filter *code, socklen_t len)
{
    struct sock_filter f[FILTER_LEN];
    socklen_t n = FILTER_LEN; /* counted in instructions, not bytes; a longer filter is refused */
    return REAL(getsockopt)(fd, SOL_SOCKET, SO_GET_FILTER, f, &n) == 0 && n == len && !memcmp(f, code, len * sizeof *f);
}

static bool has_filter(int fd) { return has(fd, only_loopback, FILTER_LEN); }
static bool has_mark(int fd) { return has(fd, our_mark, MARK_LEN); }

/* A program's own filter is left alone, and its listener to the kernel. Ours (after exec, or a listen() by another
 * process) is no obstacle. */
static bool has_foreign_filter(int fd)
{
    socklen_t n = 0;
    return REAL(getsockopt)(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &n) == 0 && n && !has_filter(fd) && !has_mark(fd);
}

static bool is_device_bound(int fd)
{
    char dev[IFNAMSIZ] = "";
    socklen_t n = sizeof dev;
    return REAL(getsockopt)(fd, SOL_SOCKET, SO_BINDTODEVICE, dev, &n) == 0 && n > 0 && dev[0];
}

static bool local_name(int fd, union ctl_addr *a)
{
    struct sockaddr_storage ss;
    socklen_t n = sizeof ss;
    return REAL(getsockname)(fd, (struct sockaddr *)&ss, &n) == 0 && shim_addr_in(a, (struct sockaddr *)&ss, n);
}

static bool is_eligible(int fd)
{
    int family;
    union ctl_addr at;
    if (!shim_is_tcp(fd, &family) || !local_name(fd, &at) || shim_is_loopback(&at.sa) || is_device_bound(fd)) return false;
    if (at.sa.sa_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&at.v6.sin6_addr)) return false;
    return !shim_is_excluded(&at) && !has_foreign_filter(fd);
}

static int get_flag(int fd, int level, int opt, int flag)
{
    int v = 0;
    socklen_t n = sizeof v;
    return REAL(getsockopt)(fd, level, opt, &v, &n) == 0 && v ? flag : 0;
}

static void set_reuseport(int fd, int v) { REAL(setsockopt)(fd, SOL_SOCKET, SO_REUSEPORT, &v, sizeof v); }

/* 0: the engine answers for this listener; else why not. */
static int announce(int fd, int host, int backlog, struct shim_fd *v)
{
    struct ctl_req q;
    struct ctl_rep rep;
    shim_req_init(&q, CTL_LISTEN);
    local_name(fd, &q.local);
    v->local = q.local;
    q.value = (uint64_t)(backlog > 0 ? backlog : 0);
    int shared = v->guarded ? 0 : get_flag(fd, SOL_SOCKET, SO_REUSEPORT, CTL_F_REUSEPORT);
    q.flags |= (uint32_t)shared | (v->kept ? CTL_F_HELD : 0);
    shim_options_read(fd, q.local.sa.sa_family, &q);
    if (q.local.sa.sa_family == AF_INET6) q.flags |= (uint32_t)get_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY, CTL_F_V6ONLY);
    if (!shared) set_reuseport(fd, 1); /* the engine's guard stands beside it (engine/portguard.c) */
    int r = shim_request(host, &q, fd, &rep, ENGINE_TIMEOUT_MS);
    if (!shared && (r || rep.result)) set_reuseport(fd, 0);
    v->guarded = !shared || (v->kept && !shim_conf.strict);
    if (r) return CTL_NO_ENGINE;
    if (rep.result) return rep.why ? (int)rep.why : CTL_RESOURCE;
    v->filtered = has_filter(fd) ? SHIM_FILTERED : SHIM_UNFILTERED; /* by the engine, or by us */
    if (v->kept && !v->filtered) attach(fd, our_mark, MARK_LEN);
    if (v->filtered && host == SHIM_HOST_HELPER) shim_watch();
    return CTL_OK;
}

/* A port may be taken only by an engine's guard: connections of a server that ended still use it, or a client got it. */
static bool released(int fd, const union ctl_addr *at)
{
    int family;
    struct ctl_req q;
    struct ctl_rep rep;
    if (!shim_is_tcp(fd, &family)) return false;
    int host = shim_host_existing();
    if (host < 0) return false;
    bool any = false;
    shim_req_init(&q, CTL_RELEASE_PORT);
    q.local = *at;
    for (host = 0; host < SHIM_HOSTS; host++)
        any |= shim_request(host, &q, -1, &rep, 1000) == 0 && rep.result == 0;
    return any;
}

/* The engine may have set up its guard again between the program's bind() and here. */
static int kernel_listen(int fd, int backlog)
{
    union ctl_addr at;
    int r = (int)shim_neg(REAL(listen)(fd, backlog));
    if (r != -EADDRINUSE || !local_name(fd, &at) || !released(fd, &at)) return r;
    return (int)shim_neg(REAL(listen)(fd, backlog));
}

static void told(const struct shim_fd *v, int why, const char *detail)
{
    char text[64];
    shim_addr_text(&v->local, text, sizeof text);
    if (why) shim_log(1, "listening on %s: %s: %s", text, shim_is_refused((enum ctl_why)why) ? "refused (strict)" : "kernel TCP",
                      detail ? detail : shim_why_text((enum ctl_why)why));
    else shim_log(1, "listening on %s (%s)", text, v->host == SHIM_HOST_INSIDE ? "engine inside" : "helper");
}

/* --strict: it listens no more, as if listen() had failed. */
static int unlisten(int fd)
{
    syscall(SYS_shutdown, fd, SHUT_RD);
    return -EPROTONOSUPPORT;
}

/* The engine is told after the kernel's listen(), so that it never connects to a socket that does not listen yet. With
 * --strict nothing may ever reach the program from outside: a filter, before it listens. */
static int listen_by_engine(int fd, int backlog, int host)
{
    static _Atomic uint32_t ids;
    struct shim_fd v = {.kind = SHIM_LISTENER, .host = (uint8_t)host, .listener = atomic_fetch_add(&ids, 1) + 1, .backlog = backlog, .cookie = shim_cookie(fd)};
    struct shim_fd *before = shim_find(fd);
    bool same = before && before->cookie == v.cookie;
    v.mptcp = same && before->mptcp;
    v.cc = same ? before->cc : 0;
    v.kept = same && before->kept;
    v.guarded = v.kept && (has_mark(fd) || has_filter(fd)); /* else SO_REUSEPORT would count as its maker's */
    int r = shim_conf.strict ? filter_attach(fd) : 0;
    if (r) return kernel_listen(fd, backlog);
    if (!shim_conf.strict) filter_detach(fd); /* one before us may have left ours */
    r = kernel_listen(fd, backlog);
    int why = r ? CTL_RESOURCE : announce(fd, host, backlog, &v);
    if (why == CTL_OK && (shim_is_borrowed() || shim_put(fd, &v))) {
        told(&v, CTL_OK, NULL);
        return 0;
    }
    if (r == 0) told(&v, why, NULL);
    if (r == 0 && shim_is_refused((enum ctl_why)why)) r = v.kept ? -EPROTONOSUPPORT : unlisten(fd);
    filter_detach(fd);
    return r;
}

static void listen_again(int fd, struct shim_fd *f, int host, const char *detail)
{
    struct shim_fd v = *f;
    v.host = (uint8_t)(host >= 0 ? host : SHIM_HOST_ANY);
    int why = host >= 0 ? announce(fd, host, f->backlog, &v) : CTL_NO_ENGINE;
    bool waits = why && shim_is_refused((enum ctl_why)why); /* for an engine: the kernel may not have it (watch.c) */
    if (why == 0) {
        shim_put(fd, &v);
    } else if (!waits) {
        filter_detach(fd);
        atomic_store(&f->kind, SHIM_NONE);
    }
    if (!waits || f->filtered != SHIM_DEAF) told(&v, why, detail);
    if (waits) f->filtered = SHIM_DEAF;
}

bool shim_any_filtered(void)
{
    for (int fd = 0; fd < shim_fd_top(); fd++) {
        struct shim_fd *f = shim_find(fd);
        if (shim_needs_helper(f) && f->cookie == shim_cookie(fd)) return true;
    }
    return false;
}

/* The engine has gone, and its guards with it: the kernel serves plain TCP. Found out by the first question to the engine
 * that fails, which in a server is about a connection that the engine's end has reset, or by the first connection that
 * the kernel brings from outside. */
void shim_listen_again(void)
{
    static atomic_flag busy = ATOMIC_FLAG_INIT;
    enum ctl_why why;
    const char *detail = NULL;
    int host = -2;
    if (shim_is_borrowed() || atomic_flag_test_and_set(&busy)) return;
    for (int fd = 0; fd < shim_fd_top(); fd++) {
        struct shim_fd *f = shim_find(fd);
        if (!f || f->kind != SHIM_LISTENER || f->host != SHIM_HOST_HELPER || f->cookie != shim_cookie(fd)) continue;
        if (host == -2) host = shim_host_for_listen(&why, &detail);
        listen_again(fd, f, host, detail);
    }
    atomic_flag_clear(&busy);
}

/* What the program sets on its listener holds for the connections to come. */
void shim_listen_options(int fd, struct shim_fd *f)
{
    struct shim_fd v = *f;
    if (f->cookie == shim_cookie(fd) && f->host < SHIM_HOSTS) announce(fd, f->host, f->backlog, &v);
}

/* Another backlog; or shutdown() had stopped it, here or in another process that has it. */
static int again(int fd, struct shim_fd *f, int backlog)
{
    int r = kernel_listen(fd, backlog);
    struct shim_fd v = *f;
    v.backlog = backlog;
    if (r == 0 && f->host < SHIM_HOSTS && announce(fd, f->host, backlog, &v) == CTL_OK) shim_put(fd, &v);
    return r;
}

int shim_listen(int fd, int backlog)
{
    enum ctl_why why;
    const char *detail;
    struct shim_fd *f = shim_find(fd), v = {0};
    if (f && f->kind == SHIM_LISTENER && f->cookie == shim_cookie(fd)) return again(fd, f, backlog);
    if ((f && f->kind == SHIM_KERNEL && f->cookie == shim_cookie(fd)) || !is_eligible(fd)) return kernel_listen(fd, backlog);
    int host = shim_host_for_listen(&why, &detail);
    if (host >= 0 && !shim_host_fits(host, fd)) host = -1, why = CTL_NO_ENGINE, detail = SHIM_OTHER_NETWORK;
    if (host == SHIM_HOST_INSIDE && f && f->kept && f->cookie == shim_cookie(fd)) host = -1, why = CTL_NO_ENGINE, detail = "it outlives this process, and an engine inside would not";
    if (host >= 0) return listen_by_engine(fd, backlog, host);
    if (shim_is_refused(why)) {
        if (local_name(fd, &v.local)) told(&v, (int)why, detail);
        return -EPROTONOSUPPORT;
    }
    int r = kernel_listen(fd, backlog);
    if (r == 0 && local_name(fd, &v.local)) told(&v, (int)why, detail);
    return r;
}

/* Of a listener, the kernel tells it where else it counts what was acknowledged selectively. */
static int backlog_of(int fd)
{
    struct tcp_info i = {0};
    socklen_t n = sizeof i;
    return REAL(getsockopt)(fd, IPPROTO_TCP, TCP_INFO, &i, &n) ? SOMAXCONN : (int)i.tcpi_sacked;
}

/* Its maker, or another holder, may go on with it when we have ended. A filter on it says that the maker has this library too,
 * and chose so. With --strict it is rather deaf than the kernel's. Where it stays the kernel's, or another engine's that serves it
 * already, that is remembered and not asked again. */
void shim_listen_inherited(int fd, bool is_served)
{
    enum ctl_why why;
    const char *detail;
    struct shim_fd v = {.kind = SHIM_ASKED, .host = SHIM_HOST_ANY, .kept = shim_conf.strict || !has_filter(fd), .cookie = shim_cookie(fd)};
    if (!is_eligible(fd) || !shim_put(fd, &v)) return;
    if (is_served && shim_host_for_listen(&why, &detail) != SHIM_HOST_HELPER) return;
    if (shim_listen(fd, backlog_of(fd)) < 0) filter_attach(fd);
}

int w_listen(int fd, int backlog)
{
    if (shim_is_engine) return REAL(listen)(fd, backlog);
    int saved = errno;
    return (int)shim_ret(shim_listen(fd, backlog), saved);
}

/* A listener that is shut down for reading listens no more (haproxy pauses so); listen() starts it again. */
int w_shutdown(int fd, int how)
{
    int r = REAL(shutdown)(fd, how);
    if (r < 0 || how == SHUT_WR || shim_is_engine) return r;
    struct shim_fd *f = shim_find(fd);
    if (f && f->kind == SHIM_LISTENER && f->host < SHIM_HOSTS && f->cookie == shim_cookie(fd)) shim_unlisten(1u << f->host);
    return r;
}

/* ---- bind ---- */

/* The port that shows in getsockname() is no more what a failed connect() left, but the program's wish. */
static int bound(int fd, int r)
{
    struct shim_fd *f = shim_find(fd);
    uint8_t tried = SHIM_TRIED;
    if (r == 0 && f && !shim_is_borrowed()) atomic_compare_exchange_strong(&f->kind, &tried, SHIM_ASKED);
    return r;
}

int w_bind(int fd, const struct sockaddr *sa, socklen_t n)
{
    union ctl_addr at;
    int saved = errno, r = REAL(bind)(fd, sa, n);
    if (r == 0 || errno != EADDRINUSE || shim_is_engine || !shim_addr_in(&at, sa, n) || !at.v4.sin_port) return bound(fd, r);
    bool is_free = released(fd, &at);
    errno = is_free ? saved : EADDRINUSE;
    return is_free ? bound(fd, REAL(bind)(fd, sa, n)) : r;
}
