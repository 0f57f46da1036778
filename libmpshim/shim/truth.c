/* Addresses: what the kernel says about a carrier, and what is true. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shim/shim.h"

/* ---- forms ---- */

bool shim_addr_in(union ctl_addr *a, const struct sockaddr *sa, socklen_t n)
{
    memset(a, 0, sizeof *a);
    if (!sa || n < sizeof sa->sa_family) return false;
    if (sa->sa_family == AF_INET && n >= sizeof a->v4) {
        memcpy(&a->v4, sa, sizeof a->v4);
        return true;
    }
    if (sa->sa_family != AF_INET6 || n < sizeof a->v6) return false;
    struct sockaddr_in6 s;
    memcpy(&s, sa, sizeof s);
    if (!IN6_IS_ADDR_V4MAPPED(&s.sin6_addr)) {
        a->v6 = s;
        return true;
    }
    a->v4.sin_family = AF_INET;
    a->v4.sin_port = s.sin6_port;
    memcpy(&a->v4.sin_addr, s.sin6_addr.s6_addr + 12, 4);
    return true;
}

socklen_t shim_addr_for(union ctl_addr *out, const union ctl_addr *a, int family)
{
    union ctl_addr r = *a;
    if (family == AF_INET6 && a->sa.sa_family == AF_INET) {
        memset(&r, 0, sizeof r);
        r.v6.sin6_family = AF_INET6;
        r.v6.sin6_port = a->v4.sin_port;
        r.v6.sin6_addr.s6_addr[10] = r.v6.sin6_addr.s6_addr[11] = 0xff;
        memcpy(r.v6.sin6_addr.s6_addr + 12, &a->v4.sin_addr, 4);
    }
    *out = r;
    return r.sa.sa_family == AF_INET6 ? sizeof r.v6 : sizeof r.v4;
}

bool shim_addr_eq(const union ctl_addr *a, const union ctl_addr *b)
{
    if (a->sa.sa_family != b->sa.sa_family) return false;
    if (a->sa.sa_family == AF_INET) return a->v4.sin_port == b->v4.sin_port && a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    return a->v6.sin6_port == b->v6.sin6_port && !memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr);
}

const char *shim_addr_text(const union ctl_addr *a, char *buf, size_t n)
{
    char ip[INET6_ADDRSTRLEN] = "?";
    bool v6 = a->sa.sa_family == AF_INET6;
    inet_ntop(a->sa.sa_family, v6 ? (const void *)&a->v6.sin6_addr : &a->v4.sin_addr, ip, sizeof ip);
    snprintf(buf, n, v6 ? "[%s]:%u" : "%s:%u", ip, (unsigned)ntohs(a->v4.sin_port));
    return buf;
}

bool shim_is_loopback(const struct sockaddr *sa)
{
    union ctl_addr a;
    if (!shim_addr_in(&a, sa, sizeof a)) return false;
    if (a.sa.sa_family == AF_INET) return ntohl(a.v4.sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&a.v6.sin6_addr);
}

bool shim_is_identity(const struct sockaddr *sa, const struct shim_fd *f)
{
    union ctl_addr a;
    if (!shim_addr_in(&a, sa, sizeof a)) return false;
    if (a.sa.sa_family == AF_INET) return (ntohl(a.v4.sin_addr.s_addr) & CTL_IDENTITY_MASK) == CTL_IDENTITY_NET;
    return f && shim_addr_eq(&a, &f->identity);
}

/* ---- carriers ---- */

static bool kernel_name(int (*get)(int, struct sockaddr *, socklen_t *), int fd, struct sockaddr_storage *ss)
{
    socklen_t n = sizeof *ss;
    return get(fd, (struct sockaddr *)ss, &n) == 0;
}

bool shim_is_carrier(int fd, struct shim_fd *f, union ctl_addr *identity, union ctl_addr *local)
{
    int saved = errno;
    struct sockaddr_storage peer, own;
    bool is = kernel_name(REAL(getpeername), fd, &peer) && shim_is_identity((struct sockaddr *)&peer, f) &&
              kernel_name(REAL(getsockname), fd, &own) && shim_addr_in(identity, (struct sockaddr *)&peer, sizeof peer) &&
              shim_addr_in(local, (struct sockaddr *)&own, sizeof own);
    errno = saved;
    return is;
}

/* What CTL_QUERY and CTL_INFO answer begins with a struct ctl_rep. */
struct question { enum ctl_op op; void *answer; size_t size; };

static void question_about(struct ctl_req *q, const struct question *k, const union ctl_addr *identity, const union ctl_addr *local)
{
    shim_req_init(q, k->op);
    q->identity = *identity;
    q->local = *local;
}

/* r: of the request. */
static int answer_of(const struct question *k, int r)
{
    const struct ctl_rep *rep = k->answer;
    return r ? r : rep->result ? rep->result : rep->state == CTL_S_NONE ? -ENOENT : 0;
}

static int query_host(int host, const union ctl_addr *identity, const union ctl_addr *local, const struct question *k)
{
    struct ctl_req q;
    question_about(&q, k, identity, local);
    return answer_of(k, shim_request_into(host, &q, -1, k->answer, k->size, 1000));
}

/* The engine that made an identity answers to its name; when it has ended, the helper may hold its connections. */
static int query_any(const union ctl_addr *identity, const union ctl_addr *local, const struct question *k)
{
    struct ctl_req q;
    question_about(&q, k, identity, local);
    if (answer_of(k, shim_request_stranger(&q, -1, k->answer, k->size, 1000)) == 0) return 0;
    shim_host_existing();
    for (int host = 0; host < SHIM_HOSTS; host++)
        if (query_host(host, identity, local, k) == 0) return 0;
    return -ENOENT;
}

static int query(int fd, struct shim_fd *f, const struct question *k)
{
    union ctl_addr identity, local;
    if (f && f->kind == SHIM_CARRIER) {
        int r = f->host < SHIM_HOSTS ? query_host(f->host, &f->identity, &f->local, k) : -EPIPE;
        return r == -EPIPE ? query_any(&f->identity, &f->local, k) : r; /* another helper may have its place, and the listener */
    }
    if (!shim_is_carrier(fd, f, &identity, &local)) return -ENOENT;
    return query_any(&identity, &local, k);
}

int shim_query(int fd, struct shim_fd *f, struct ctl_rep *rep) { return query(fd, f, &(struct question){CTL_QUERY, rep, sizeof *rep}); }

int shim_query_info(int fd, struct shim_fd *f, struct ctl_info *info)
{
    return query(fd, f, &(struct question){CTL_INFO, info, sizeof *info});
}

int shim_true_error(int fd, struct shim_fd *f, int err)
{
    struct ctl_rep rep;
    return shim_query(fd, f, &rep) == 0 && rep.err > 0 ? rep.err : err;
}

/* A carrier that another process made is remembered like one of our own. */
static struct shim_fd *adopt(int fd, const union ctl_addr *identity, const union ctl_addr *local)
{
    struct shim_fd v = {.kind = SHIM_CARRIER, .host = SHIM_HOST_ANY, .cookie = shim_cookie(fd), .identity = *identity, .local = *local};
    return shim_is_borrowed() || !shim_put(fd, &v) ? NULL : shim_find(fd);
}

/* The truth about a carrier whose kernel peer is `identity`: *remote and *local. */
static bool truth(int fd, struct shim_fd *f, const union ctl_addr *identity, const union ctl_addr *local,
                  union ctl_addr *t_remote, union ctl_addr *t_local)
{
    struct ctl_rep rep;
    if (f && (f->kind != SHIM_CARRIER || !shim_addr_eq(&f->identity, identity))) f = NULL;
    if (f && f->has_truth) {
        *t_remote = f->truth_remote, *t_local = f->truth_local;
        return true;
    }
    int r = f ? shim_query(fd, f, &rep) : query_any(identity, local, &(struct question){CTL_QUERY, &rep, sizeof rep});
    if (r && !(f && f->truth_remote.sa.sa_family)) return false;
    if (r) { /* the engine is gone; where we connected to is still known */
        *t_remote = f->truth_remote, *t_local = *local;
        return true;
    }
    *t_remote = rep.remote, *t_local = rep.local;
    if (!f) f = adopt(fd, identity, local);
    if (f && !shim_is_borrowed()) {
        f->truth_remote = rep.remote, f->truth_local = rep.local;
        f->has_truth = rep.state == CTL_S_OPEN && rep.local.sa.sa_family;
    }
    return true;
}

/* As the kernel does it: as much as there is room for, and the full length. */
static void give(const union ctl_addr *a, int family, struct sockaddr *sa, socklen_t *n, socklen_t room)
{
    union ctl_addr out;
    socklen_t len = shim_addr_for(&out, a, family);
    memcpy(sa, &out, len < room ? len : room);
    *n = len;
}

enum side { SIDE_PEER, SIDE_OWN };

/* After the kernel has answered into (sa, *n): replaces it if fd is a carrier. Never fails: what the kernel said
 * stands when nobody knows better. */
static void replace(int fd, struct shim_fd *f, enum side side, struct sockaddr *sa, socklen_t *n, socklen_t room)
{
    union ctl_addr identity, local, remote_t, local_t;
    if (room < sizeof sa->sa_family || (sa->sa_family != AF_INET && sa->sa_family != AF_INET6)) return;
    int family = sa->sa_family;
    if (!shim_is_carrier(fd, f, &identity, &local) || !truth(fd, f, &identity, &local, &remote_t, &local_t)) return;
    const union ctl_addr *t = side == SIDE_PEER ? &remote_t : &local_t;
    if (t->sa.sa_family) give(t, family, sa, n, room);
}

/* A carrier's local end is a loopback address, except below a listener on one address, where it is the truth. */
static bool may_be_carrier(struct shim_fd *f, enum side side, const struct sockaddr *sa, socklen_t room)
{
    if (f || room < sizeof(struct sockaddr_in)) return true;
    if (sa->sa_family == AF_INET6 && room < sizeof(struct sockaddr_in6)) return true;
    return side == SIDE_PEER ? shim_is_identity(sa, f) : shim_is_loopback(sa);
}

/* What the program gave us is looked at as the kernel looks: a bad pointer is for its call, which says EFAULT.
 * rt_sigprocmask() copies the set in before it looks at the first argument, which no kernel knows. */
bool shim_is_readable(const void *p)
{
    uintptr_t at = (uintptr_t)p & ~(uintptr_t)7; /* eight bytes of one page */
    int saved = errno;
    if (!p) return false;
    if (shim_is_restricted) return true; /* no call that the program does not make */
    bool bad = syscall(SYS_rt_sigprocmask, -1, at, NULL, 8) < 0 && errno == EFAULT;
    errno = saved;
    return !bad;
}

static socklen_t room_of(const socklen_t *n) { return shim_is_readable(n) ? *n : 0; }

static int name(int fd, enum side side, struct sockaddr *sa, socklen_t *n)
{
    int (*get)(int, struct sockaddr *, socklen_t *) = side == SIDE_PEER ? REAL(getpeername) : REAL(getsockname);
    socklen_t room = room_of(n);
    int saved = errno, r = get(fd, sa, n);
    if (r < 0 || shim_is_engine || room < sizeof sa->sa_family || (sa->sa_family != AF_INET && sa->sa_family != AF_INET6)) return r;
    struct shim_fd *f = shim_find(fd);
    if (may_be_carrier(f, side, sa, room)) replace(fd, f, side, sa, n, room);
    errno = saved;
    return r;
}

int w_getpeername(int fd, struct sockaddr *sa, socklen_t *n) { return name(fd, SIDE_PEER, sa, n); }

/* Before the three-way handshake is over getpeername() says ENOTCONN, yet the socket has its address: SIDE_OWN of a
 * pending carrier is answered from the table. */
static bool pending_name(int fd, struct sockaddr *sa, socklen_t *n, socklen_t room, int family)
{
    struct shim_fd *f = shim_find(fd);
    struct ctl_rep rep;
    if (!f || f->kind != SHIM_CARRIER || f->cookie != shim_cookie(fd) || shim_query(fd, f, &rep) || !rep.local.sa.sa_family) return false;
    give(&rep.local, family, sa, n, room);
    return true;
}

int w_getsockname(int fd, struct sockaddr *sa, socklen_t *n)
{
    socklen_t room = room_of(n);
    int saved = errno, r = name(fd, SIDE_OWN, sa, n);
    if (r < 0 || !shim_find(fd) || shim_find(fd)->kind != SHIM_CARRIER || room < 8 || !shim_is_loopback(sa)) return r;
    pending_name(fd, sa, n, room, sa->sa_family);
    errno = saved;
    return r;
}

/* ---- accept ---- */

/* A v6-only listener's carriers come from ::1, as other local clients do: only the engine can tell. */
static bool v6_only_carrier(int fd, struct shim_fd *v)
{
    struct sockaddr_storage peer;
    struct ctl_rep rep;
    if (!kernel_name(REAL(getpeername), fd, &peer) || peer.ss_family != AF_INET6 || !shim_is_loopback((struct sockaddr *)&peer)) return false;
    shim_addr_in(&v->identity, (struct sockaddr *)&peer, sizeof peer);
    return shim_is_carrier(fd, v, &v->identity, &v->local) && shim_query(fd, v, &rep) == 0;
}

/* Accepted from a listener of ours: the peer is an identity, and the new socket is a carrier. */
static void accepted(int listener, int fd, struct sockaddr *sa, socklen_t *n, socklen_t room)
{
    struct shim_fd *l = shim_find(listener), v = {0};
    if (!l && !(sa && may_be_carrier(NULL, SIDE_PEER, sa, room))) return;
    v.kind = SHIM_CARRIER;
    v.host = l ? l->host : SHIM_HOST_ANY;
    v.cookie = shim_cookie(fd);
    if (!shim_is_carrier(fd, NULL, &v.identity, &v.local) && !(l && v6_only_carrier(fd, &v))) {
        if (l && l->kind == SHIM_LISTENER && l->host < SHIM_HOSTS) shim_host_check(l->host); /* the kernel's own: is the engine there? */
        return;
    }
    if (!l && !shim_is_borrowed()) {
        shim_listen_inherited(listener, true); /* through exec, from who has this library too: from now on it is known here as well */
        l = shim_find(listener);
    }
    v.mptcp = l && l->mptcp;
    v.guarded = l && l->guarded;
    v.cc = l ? l->cc : 0;
    shim_bound_unsent(fd);
    if (!shim_is_borrowed()) shim_put(fd, &v);
    if (sa) replace(fd, shim_find(fd), SIDE_PEER, sa, n, room);
}

static int finish_accept(int listener, int fd, struct sockaddr *sa, socklen_t *n, socklen_t room, int saved)
{
    if (fd < 0 || shim_is_engine) return fd;
    shim_forget(fd); /* a stale entry of this number */
    bool inet = !sa || room < sizeof sa->sa_family || sa->sa_family == AF_INET || sa->sa_family == AF_INET6;
    if (inet) accepted(listener, fd, sa, n, room);
    errno = saved;
    return fd;
}

/* The descriptor of a listener that is deaf without an engine: a forked child has no thread that sees to that yet. */
static void watched(int fd)
{
    if (SHIM_UNLIKELY(shim_needs_helper(shim_find(fd)))) shim_watch();
}

int w_accept(int fd, struct sockaddr *sa, socklen_t *n)
{
    watched(fd);
    socklen_t room = sa ? room_of(n) : 0;
    int saved = errno;
    return finish_accept(fd, REAL(accept)(fd, sa, n), sa, n, room, saved);
}

int w_accept4(int fd, struct sockaddr *sa, socklen_t *n, int flags)
{
    watched(fd);
    socklen_t room = sa ? room_of(n) : 0;
    int saved = errno;
    return finish_accept(fd, REAL(accept4)(fd, sa, n, flags), sa, n, room, saved);
}
