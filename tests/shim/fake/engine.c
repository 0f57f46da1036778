/* A libmpshim-engine.so for tests of the shim alone: it speaks engine/ctl.h and plays the carrier's far end, but
 * instead of MPTCP it relays to a server on 127.0.0.1. It needs no privilege and no network but lo.
 *
 * The true destination's port decides:
 *   9       "the kernel should carry it" (CTL_EXCLUDED)
 *   1       refused           2  the true errno is ETIMEDOUT       3  never answers
 *   other   relayed to 127.0.0.1:other; the truth is told as 192.0.2.1:40000 <-> the destination
 * A listener on port P gets a door on 127.0.0.1:P+1: who connects there is "a client from the outside",
 * 198.51.100.7:4242. FAKE_SLOW_US=n: each relayed read waits so long (data in flight at exit). */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/stack.h"
#include "engine/ctl.h"
#include "engine/engine.h"

enum { MAX = 1024 };
struct conn {
    union ctl_addr identity, remote, local, prog;
    int listener, carrier, server, err, state, nodelay;
};
static struct conn conns[MAX];
static int nconns;
static _Atomic int busy; /* relays that still have something to deliver */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void (*thread_begin)(void);

static union ctl_addr v4(uint32_t ip, int port)
{
    union ctl_addr a = {.v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(ip)}};
    return a;
}

static bool same(const union ctl_addr *a, const union ctl_addr *b)
{
    if (a->sa.sa_family != b->sa.sa_family || a->v4.sin_port != b->v4.sin_port) return false;
    return a->sa.sa_family == AF_INET ? a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr : !memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, 16);
}

static socklen_t len(const union ctl_addr *a) { return a->sa.sa_family == AF_INET6 ? sizeof a->v6 : sizeof a->v4; }

static void start(void *(*f)(void *), void *arg)
{
    pthread_t t;
    if (pthread_create(&t, NULL, f, arg) == 0) pthread_detach(t);
}

/* ---- a carrier ---- */

static bool copy(int from, int to)
{
    char buf[16384];
    const char *slow = getenv("FAKE_SLOW_US");
    if (slow) usleep((unsigned)atoi(slow));
    ssize_t n = read(from, buf, sizeof buf);
    for (ssize_t done = 0, r; done < n; done += r)
        if ((r = send(to, buf + done, (size_t)(n - done), MSG_NOSIGNAL)) <= 0) return false;
    if (n == 0) shutdown(to, SHUT_WR);
    return n > 0;
}

static void reset_close(int fd, bool reset)
{
    struct linger l = {reset, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    close(fd);
}

static int so_error(int fd)
{
    int e = 0;
    socklen_t n = sizeof e;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n);
    return e;
}

static void *relay(void *arg)
{
    struct conn *c = arg;
    if (thread_begin) thread_begin();
    bool up = true, down = true, reset = false;
    while (up || down) {
        struct pollfd p[2] = {{up ? c->carrier : -1, POLLIN, 0}, {down ? c->server : -1, POLLIN, 0}};
        if (poll(p, 2, -1) < 0 && errno != EINTR) break;
        reset = so_error(c->carrier) || so_error(c->server) || ((p[0].revents | p[1].revents) & POLLERR);
        if (reset) break;
        if (p[0].revents) up = copy(c->carrier, c->server);
        if (p[1].revents) down = copy(c->server, c->carrier);
    }
    c->state = CTL_S_CLOSED;
    if (reset) c->err = ECONNRESET;
    reset_close(c->carrier, reset);
    reset_close(c->server, reset);
    busy--;
    return NULL;
}

/* The program's loopback port, once its SYN is out: in /proc/net/tcp, remote address = identity. */
static bool find_prog(struct conn *c)
{
    bool six = c->identity.sa.sa_family == AF_INET6;
    for (int pass = six; pass < 2; pass++) { /* a v4-mapped socket is listed in tcp6 */
        FILE *f = fopen(pass ? "/proc/net/tcp6" : "/proc/net/tcp", "re");
        char line[512], la[64], ra[64];
        unsigned lp, rp, st;
        while (f && fgets(line, sizeof line, f)) {
            if (sscanf(line, " %*u: %63[0-9A-F]:%x %63[0-9A-F]:%x %x", la, &lp, ra, &rp, &st) != 5 || st != 2 || rp != ntohs(c->identity.v4.sin_port)) continue;
            unsigned long ip = strtoul(ra + strlen(ra) - 8, NULL, 16);
            if (!six && ip != c->identity.v4.sin_addr.s_addr) continue;
            c->prog = v4(INADDR_LOOPBACK, (int)lp);
            if (six) c->prog.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)lp), .sin6_addr = in6addr_loopback};
            fclose(f);
            return true;
        }
        if (f) fclose(f);
    }
    return false;
}

static int socket_at(const union ctl_addr *a)
{
    int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(fd, &a->sa, len(a))) perror("fake: bind");
    return fd;
}

static void *client(void *arg)
{
    struct conn *c = arg;
    if (thread_begin) thread_begin();
    for (int i = 0; i < 2000 && !find_prog(c); i++) usleep(1000);
    int port = ntohs(c->remote.v4.sin_port);
    if (port == 3) return NULL;
    c->server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    union ctl_addr to = v4(INADDR_LOOPBACK, port);
    if (port > 2 && connect(c->server, &to.sa, sizeof to.v4) == 0) {
        c->carrier = socket_at(&c->identity);
        c->state = CTL_S_OPEN;
        int one = 1;
        struct linger l = {1, 0};
        setsockopt(c->carrier, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof one);
        setsockopt(c->carrier, SOL_SOCKET, SO_LINGER, &l, sizeof l);
        busy++; /* before the program can go on: it may end at once */
        if (connect(c->carrier, &c->prog.sa, len(&c->prog)) == 0) {
            close(c->listener);
            return relay(c);
        }
        busy--;
    }
    c->state = CTL_S_FAILED;
    c->err = port == 2 ? ETIMEDOUT : ECONNREFUSED;
    close(c->listener); /* the next SYN is refused */
    return NULL;
}

static void do_connect(const struct ctl_req *q, struct ctl_rep *rep)
{
    if (ntohs(q->remote.v4.sin_port) == 9) {
        rep->result = -EPERM, rep->why = CTL_EXCLUDED;
        return;
    }
    struct conn *c = &conns[nconns++ % MAX];
    *c = (struct conn){.remote = q->remote, .local = v4(0xc0000201, 40000), .state = CTL_S_CONNECTING, .nodelay = !!(q->flags & CTL_F_NODELAY)};
    c->identity = v4(CTL_IDENTITY_NET + 1 + (uint32_t)nconns % 1000, 0);
    if (q->flags & CTL_F_V6ONLY) c->identity.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    c->listener = socket_at(&c->identity);
    struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog p = {1, &drop};
    setsockopt(c->listener, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p);
    listen(c->listener, 1);
    socklen_t n = sizeof c->identity;
    getsockname(c->listener, &c->identity.sa, &n);
    rep->identity = c->identity;
    start(client, c);
}

/* ---- listeners ---- */

struct door { int fd; union ctl_addr to; };

static void *door(void *arg)
{
    struct door *d = arg;
    if (thread_begin) thread_begin();
    for (int s; (s = accept(d->fd, NULL, NULL)) >= 0;) {
        struct conn *c = &conns[nconns++ % MAX];
        *c = (struct conn){.remote = v4(0xc6336407, 4242), .local = v4(0xc0000201, ntohs(d->to.v4.sin_port)), .state = CTL_S_OPEN, .server = s, .prog = d->to};
        c->identity = v4(CTL_IDENTITY_NET + 0x10001, 0);
        if (d->to.sa.sa_family == AF_INET6) c->identity = d->to, c->identity.v6.sin6_port = 0;
        c->carrier = socket_at(&c->identity);
        socklen_t n = sizeof c->identity;
        pthread_mutex_lock(&lock); /* the program may ask as soon as it has accepted */
        int r = connect(c->carrier, &d->to.sa, len(&d->to));
        getsockname(c->carrier, &c->identity.sa, &n);
        pthread_mutex_unlock(&lock);
        if (r) {
            reset_close(c->carrier, true), reset_close(s, true);
            continue;
        }
        busy++;
        start(relay, c);
    }
    return NULL;
}

static void do_listen(const struct ctl_req *q, struct ctl_rep *rep)
{
    struct door *d = calloc(1, sizeof *d);
    int port = ntohs(q->local.v4.sin_port);
    union ctl_addr at = v4(INADDR_LOOPBACK, port + 1);
    d->fd = socket_at(&at);
    d->to = q->local;
    if (q->local.sa.sa_family == AF_INET6 && (q->flags & CTL_F_V6ONLY)) d->to.v6.sin6_addr = in6addr_loopback;
    else if (q->local.sa.sa_family == AF_INET6 || !q->local.v4.sin_addr.s_addr) d->to = v4(INADDR_LOOPBACK, port);
    rep->result = listen(d->fd, 8) ? -errno : 0;
    start(door, d);
}

/* ---- control ---- */

static struct conn *find(const struct ctl_req *q)
{
    for (int i = 0; i < MAX; i++)
        if (conns[i].state && same(&conns[i].identity, &q->identity) && (!conns[i].prog.sa.sa_family || conns[i].prog.v4.sin_port == q->local.v4.sin_port)) return &conns[i];
    return NULL;
}

static void do_query(const struct ctl_req *q, struct ctl_rep *rep)
{
    struct conn *c = find(q);
    rep->result = c ? 0 : -ENOENT;
    if (!c) return;
    rep->state = (uint32_t)c->state, rep->err = c->err, rep->local = c->local, rep->remote = c->remote;
    rep->srtt_us = 12345, rep->mss = 1000, rep->cwnd_bytes = 10000, rep->bytes_sent = (uint64_t)c->nodelay;
}

static void do_drain(const struct ctl_req *q, struct ctl_rep *rep)
{
    for (uint64_t ms = 0; busy && ms < q->value; ms++) usleep(1000);
    rep->result = !busy ? 0 : q->op == CTL_LEAVE ? -EINPROGRESS : -ETIMEDOUT;
}

struct job { struct ctl_req q; int reply, fd; };

static void *serve_one(void *arg)
{
    struct job *j = arg;
    struct ctl_info info = {.rep = {.version = CTL_VERSION, .op = j->q.op}, .n = 1, .sf[0] = {.srtt_us = 12345, .mss = 1000, .mtu = 1500}};
    struct ctl_rep rep = info.rep;
    if (thread_begin) thread_begin();
    pthread_mutex_lock(&lock);
    struct conn *c = j->q.op == CTL_SETOPT ? find(&j->q) : NULL;
    if (c && j->q.opt == MPC_NODELAY) c->nodelay = (int)j->q.value;
    if (j->q.op == CTL_CONNECT) do_connect(&j->q, &rep);
    if (j->q.op == CTL_QUERY || j->q.op == CTL_INFO) do_query(&j->q, &rep);
    if (j->q.op == CTL_LISTEN) do_listen(&j->q, &rep);
    if (j->q.op == CTL_HANDOVER) rep.result = -EOPNOTSUPP; /* what it carries stays: a helper may run here */
    pthread_mutex_unlock(&lock);
    if (j->q.op == CTL_DRAIN || j->q.op == CTL_LEAVE) do_drain(&j->q, &rep);
    info.rep = rep;
    if (j->reply >= 0 && send(j->reply, &info, j->q.op == CTL_INFO ? sizeof info : sizeof rep, MSG_NOSIGNAL) > 0) {}
    if (j->reply >= 0) close(j->reply);
    if (j->fd >= 0) close(j->fd);
    free(j);
    return NULL;
}

static bool receive(int ctl, struct job *j)
{
    union { struct cmsghdr h; char b[64]; } cb;
    struct iovec v = {&j->q, sizeof j->q};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &cb, .msg_controllen = sizeof cb};
    if (recvmsg(ctl, &m, MSG_CMSG_CLOEXEC) < (ssize_t)sizeof j->q) return false;
    j->reply = j->fd = -1;
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    if (h) memcpy(&j->reply, CMSG_DATA(h), 4);
    if (h && h->cmsg_len >= CMSG_LEN(8)) memcpy(&j->fd, CMSG_DATA(h) + 4, 4);
    return true;
}

static int ctl_fd, keep_fd;
static _Atomic int ready;

static void *control(void *arg)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    if (thread_begin) thread_begin();
    unshare(CLONE_FILES);
    syscall(436 /* close_range */, 3, ctl_fd - 1, 0);
    syscall(436, ctl_fd + 1, ~0u, 0);
    ready = 1;
    for (;;) {
        struct job *j = calloc(1, sizeof *j);
        if (!receive(ctl_fd, j)) break;
        if (j->q.op == CTL_DRAIN || j->q.op == CTL_LEAVE) start(serve_one, j); /* the ones that wait */
        else serve_one(j);
    }
    return arg;
}

int mpshim_engine_start(const struct eng_cfg *cfg, const char **why)
{
    if (getenv("FAKE_FAILS")) return *why = "the fake engine was told to fail", -EPERM;
    thread_begin = cfg->thread_begin;
    ctl_fd = cfg->ctl_fd, keep_fd = cfg->log_fd;
    ready = nconns = 0;
    start(control, NULL);
    while (!ready) usleep(100);
    close(cfg->ctl_fd);
    if (cfg->log_fd >= 0) close(cfg->log_fd);
    return 0;
}
