/* Hosts: the engine inside this process, the user's helper, and, in a forked child, the engine inside its parent.
 *
 * A connecting program gets an engine inside, a listening one the helper. A forked child keeps its parent's control
 * connection for the carriers that it inherited; what it opens itself goes to the helper where there is one, because
 * the parent, and with it the parent's engine, may end first (daemon()). */
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "engine/engine.h"
#include "shim/shim.h"

struct host {
    _Atomic int fd; /* control connection; -1: none */
    dev_t dev;      /* of fd: another file under this number is not ours */
    ino_t ino;
};
static struct host hosts[SHIM_HOSTS] = {{.fd = -1}, {.fd = -1}, {.fd = -1}};
static bool is_forked;                 /* a child of a process that had an engine inside */
static const char *inside_failed;      /* why; not tried twice */
static long helper_retry_at;           /* s, monotonic: when a helper that could not be had may be tried again */
static const char *helper_failed;
#define HANDOVER_TIMEOUT_MS 8000
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
static _Atomic int lock_owner;         /* thread id; 0: free */

/* ---- helpers without libc's cancellation points ---- */

static long sys_close(int fd) { return syscall(SYS_close, fd); }

static long now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec;
}

/* Starting an engine excludes other threads that start one. false: this very thread holds the lock (a signal
 * handler that connects while its thread starts the engine): the kernel carries that connection. */
static bool lock_hosts(void)
{
    int self = (int)syscall(SYS_gettid);
    for (;;) {
        int free = 0;
        if (atomic_compare_exchange_strong(&lock_owner, &free, self)) return true;
        if (free == self) return false;
        sched_yield();
    }
}
static void unlock_hosts(void) { atomic_store(&lock_owner, 0); }

/* What is begun with the lock held is ended: no handler of the program's runs meanwhile, which may jump out of it, and no
 * cancellation takes the thread. Else whoever connects next would wait for ever. */
struct quiet { sigset_t mask; int cancel; };

static void quiet_begin(struct quiet *q)
{
    sigset_t all;
    sigfillset(&all);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &q->cancel);
    pthread_sigmask(SIG_BLOCK, &all, &q->mask);
}

static void quiet_end(const struct quiet *q)
{
    int is;
    pthread_sigmask(SIG_SETMASK, &q->mask, NULL);
    pthread_setcancelstate(q->cancel, &is);
}

/* ---- control connections ---- */

static bool host_alive(struct host *h)
{
    struct stat st;
    int fd = atomic_load(&h->fd);
    return fd >= 0 && syscall(SYS_fstat, fd, &st) == 0 && st.st_ino == h->ino && st.st_dev == h->dev;
}

static void host_set(int id, int fd)
{
    struct host *h = &hosts[id];
    struct stat st = {0};
    fd = shim_own_high(fd);
    syscall(SYS_fstat, fd, &st);
    h->ino = st.st_ino, h->dev = st.st_dev;
    atomic_store(&h->fd, fd);
    shim_own_add(&h->fd);
}

static void host_lost(int id)
{
    struct host *h = &hosts[id];
    bool ours = host_alive(h);
    int fd = atomic_exchange(&h->fd, -1);
    if (ours && !shim_is_borrowed()) sys_close(fd);
    if (fd >= 0) shim_own_add(&h->fd);
}

/* A socket belongs to the network namespace that its maker was in, whatever the program entered since. */
static uint64_t network_of(int fd)
{
    uint64_t v = 0;
    socklen_t n = sizeof v;
    return REAL(getsockopt)(fd, SOL_SOCKET, SO_NETNS_COOKIE, &v, &n) ? 0 : v;
}

bool shim_host_fits(int host, int fd)
{
    uint64_t a = network_of(fd), b = network_of(atomic_load(&hosts[host].fd));
    return a == b || !a || !b; /* a kernel before 5.14 does not tell */
}

int shim_host_fd(int host) { return host_alive(&hosts[host]) ? atomic_load(&hosts[host].fd) : -1; }

void shim_inside_lost(void) { host_lost(SHIM_HOST_INSIDE); }

bool shim_hosts_inside(void) { return host_alive(&hosts[SHIM_HOST_INSIDE]); }

void shim_req_init(struct ctl_req *q, enum ctl_op op)
{
    memset(q, 0, sizeof *q);
    q->version = CTL_VERSION;
    q->op = (uint16_t)op;
    q->pid = shim_pid;
    q->flags = shim_conf.strict ? CTL_F_STRICT : 0;
    snprintf(q->prog, sizeof q->prog, "%s", program_invocation_short_name);
}

static long send_message(int ctl, const void *p, size_t n, const int *fds, int nfds)
{
    union { struct cmsghdr h; char b[CMSG_SPACE(2 * sizeof(int))]; } c = {0};
    struct iovec v = {(void *)p, n};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    if (nfds > 0) {
        m.msg_control = &c;
        m.msg_controllen = CMSG_SPACE((size_t)nfds * sizeof(int));
        c.h.cmsg_level = SOL_SOCKET, c.h.cmsg_type = SCM_RIGHTS, c.h.cmsg_len = CMSG_LEN((size_t)nfds * sizeof(int));
        memcpy(CMSG_DATA(&c.h), fds, (size_t)nfds * sizeof(int));
    }
    long r;
    do r = shim_neg(syscall(SYS_sendmsg, ctl, &m, MSG_NOSIGNAL));
    while (r == -EINTR);
    return r;
}

/* Waits for the answer on its own socket. -EPIPE: end of file, the engine went away. */
static int await(int fd, void *rep, size_t size, int timeout_ms)
{
    struct timespec left = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    long r;
    do r = shim_neg(syscall(SYS_ppoll, &p, 1, &left, NULL, 0)); /* the kernel counts `left` down */
    while (r == -EINTR);
    if (r <= 0) return r ? (int)r : -ETIMEDOUT;
    r = shim_neg(syscall(SYS_read, fd, rep, size));
    if (r == (long)size) return 0;
    return r < 0 ? (int)r : -EPIPE;
}

static int request(int ctl, const void *msg, size_t n, int fd, void *rep, size_t size, int timeout_ms)
{
    int pair[2], fds[2], nfds = 1;
    if (syscall(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) return -errno;
    fds[0] = pair[1];
    if (fd >= 0) fds[nfds++] = fd;
    long r = send_message(ctl, msg, n, fds, nfds);
    sys_close(pair[1]);
    if (r >= 0) r = await(pair[0], rep, size, timeout_ms);
    sys_close(pair[0]);
    return (int)r;
}

static bool means_gone(long r) { return r == -EPIPE || r == -ECONNRESET || r == -ENOTCONN || r == -EBADF || r == -ENOTSOCK; }

static void gone(int host)
{
    host_lost(host);
    if (host == SHIM_HOST_HELPER) shim_listen_again();
}

void shim_host_check(int host)
{
    int saved = errno;
    char c;
    long r = -EAGAIN;
    if (!shim_is_restricted && host_alive(&hosts[host])) r = shim_neg(syscall(SYS_recvfrom, atomic_load(&hosts[host].fd), &c, 1, MSG_PEEK | MSG_DONTWAIT, NULL, NULL));
    if (r == 0 || means_gone(r)) gone(host); /* the engine never writes there: 0 is its end */
    errno = saved;
}

int shim_request(int host, struct ctl_req *q, int fd, struct ctl_rep *rep, int timeout_ms)
{
    return shim_request_into(host, q, fd, rep, sizeof *rep, timeout_ms);
}

int shim_request_into(int host, struct ctl_req *q, int fd, void *rep, size_t size, int timeout_ms)
{
    int saved = errno;
    memset(rep, 0, size);
    if (shim_is_restricted && host != SHIM_HOST_INSIDE) return -EPIPE;
    int r = host_alive(&hosts[host]) ? request(atomic_load(&hosts[host].fd), q, sizeof *q, fd, rep, size, timeout_ms) : -EPIPE;
    if (means_gone(r) && atomic_load(&hosts[host].fd) >= 0) gone(host);
    errno = saved;
    return means_gone(r) ? -EPIPE : r;
}

int shim_request_stranger(const struct ctl_req *q, int shown, void *rep, size_t size, int timeout_ms)
{
    int saved = errno, fd = shim_identity_connect(&q->identity);
    if (fd < 0) return errno = saved, fd;
    long r = send_message(fd, q, sizeof *q, &shown, shown >= 0);
    if (r >= 0) r = await(fd, rep, size, timeout_ms);
    sys_close(fd);
    errno = saved;
    return r < 0 ? (int)r : 0;
}

void shim_tell(int host, struct ctl_req *q)
{
    int saved = errno;
    for (int i = 0; i < SHIM_HOSTS; i++)
        if ((host == i || host == SHIM_HOST_ANY) && !shim_is_restricted && host_alive(&hosts[i])) send_message(atomic_load(&hosts[i].fd), q, sizeof *q, NULL, 0);
    errno = saved;
}

/* ---- inside ---- */

static const char *own_dir(void)
{
    static char dir[PATH_MAX];
    Dl_info i;
    if (dir[0] || !dladdr(&shim_real_ready, &i) || !i.dli_fname) return dir;
    char path[PATH_MAX];
    if (!realpath(i.dli_fname, path)) return dir;
    char *slash = strrchr(path, '/');
    if (slash) *slash = 0;
    snprintf(dir, sizeof dir, "%s", path);
    return dir;
}

bool shim_beside(char path[PATH_MAX], const char *name)
{
    return !shim_is_uprooted && own_dir()[0] && snprintf(path, PATH_MAX, "%s/%s", own_dir(), name) < PATH_MAX;
}

bool shim_is_privileged(void)
{
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2] = {0};
    return syscall(SYS_capget, &h, d) == 0 && (d[0].effective & (1u << CAP_NET_RAW));
}

/* Programs carry other OpenSSLs, hence DEEPBIND; a sanitizer's runtime ends the process for it. */
static bool has_sanitizer(void) { return dlsym(RTLD_DEFAULT, "__sanitizer_print_stack_trace") != NULL; }

void *shim_open_library(const char *path)
{
    return dlopen(path, RTLD_NOW | RTLD_LOCAL | (has_sanitizer() ? 0 : RTLD_DEEPBIND));
}

static void engine_thread_begins(void) { shim_is_engine = true; }

static int (*engine_start(const char **why))(const struct eng_cfg *, const char **)
{
    char path[PATH_MAX];
    if (!shim_beside(path, "libmpshim-engine.so")) return *why = SHIM_UPROOTED, NULL;
    void *lib = shim_open_library(path), *f = lib ? dlsym(lib, "mpshim_engine_start") : NULL;
    if (f) return (int (*)(const struct eng_cfg *, const char **))f;
    const char *e = dlerror();
    shim_log(1, "%s", e ? e : path);
    *why = "libmpshim-engine.so cannot be loaded";
    return NULL;
}

/* A child keeps the parent's connection, under another name, and starts what it needs itself. */
static void in_child(void)
{
    shim_pid = getpid();
    atomic_store(&lock_owner, 0);
    shim_watch_in_child();
    struct host *in = &hosts[SHIM_HOST_INSIDE], *up = &hosts[SHIM_HOST_PARENT];
    if (atomic_load(&in->fd) < 0) return;
    is_forked = true;
    if (atomic_load(&up->fd) >= 0) host_lost(SHIM_HOST_PARENT);
    up->dev = in->dev, up->ino = in->ino;
    atomic_store(&up->fd, atomic_exchange(&in->fd, -1));
    shim_own_add(&up->fd);
    for (int fd = 0; fd < shim_fd_top(); fd++) {
        struct shim_fd *f = shim_find(fd);
        if (f && f->host == SHIM_HOST_INSIDE) f->host = SHIM_HOST_PARENT;
    }
}

/* From the start: a child forked before the first engine would else be taken for a vfork's, which may change nothing. */
void shim_watch_forks(void) { pthread_atfork(NULL, NULL, in_child); }

static int start_inside(const char **why)
{
    int pair[2], (*start)(const struct eng_cfg *, const char **) = engine_start(why);
    if (!start) return -ENOENT;
    if (syscall(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) return -errno;
    struct stat st = {0};
    syscall(SYS_fstat, pair[1], &st);
    struct eng_cfg cfg = {
        .ctl_fd = pair[1],
        .log_fd = shim_log_fd >= 0 ? REAL(fcntl)(shim_log_fd, F_DUPFD_CLOEXEC, NULL) : -1,
        .verbose = shim_conf.verbose,
        .settings = shim_conf.settings,
        .thread_begin = engine_thread_begins,
    };
    int r = start(&cfg, why);
    /* The engine owns both from here on, but in the file table of its own thread: where it left them open in ours,
     * they are closed, or the engine would never see that the program is gone. */
    struct stat now = {0};
    if (syscall(SYS_fstat, pair[1], &now) == 0 && now.st_ino == st.st_ino && now.st_dev == st.st_dev) sys_close(pair[1]);
    if (r) {
        sys_close(pair[0]);
        return r;
    }
    host_set(SHIM_HOST_INSIDE, pair[0]);
    shim_fatal_arm();
    return 0;
}

struct starting { const char **why; int r; };

static void start_inside_there(void *p)
{
    struct starting *s = p;
    s->r = start_inside(s->why);
}

/* For now: the program may close some, or raise its limit. */
static bool is_short(int err)
{
    int fd = err == -ENOENT ? (int)syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1; /* dlopen() does not say why */
    if (fd >= 0) sys_close(fd);
    return (err == -ENOENT && fd < 0) || err == -EMFILE || err == -ENFILE || err == -ENOMEM || err == -EAGAIN;
}

static bool have_inside(const char **why)
{
    if (host_alive(&hosts[SHIM_HOST_INSIDE])) return true;
    if (!inside_failed && shim_conf.engine == SHIM_AUTO && has_sanitizer()) inside_failed = "the program runs under a sanitizer, which would look at the engine too";
    if (inside_failed) return *why = inside_failed, false;
    struct starting s = {.why = why};
    shim_on_stack(start_inside_there, &s);
    int r = s.r;
    if (r == 0) return true;
    if (!*why || !**why) *why = strerrordesc_np(-r);
    if (!is_short(r)) inside_failed = *why;
    return false;
}

/* ---- helper ---- */

/* "name=value" lines behind the request, and our log for the lines about our connections. */
static int hello(int fd, int log)
{
    struct { struct ctl_req q; char text[4096]; } m;
    struct ctl_rep rep = {0};
    shim_req_init(&m.q, CTL_HELLO);
    size_t n = 0;
    m.text[0] = 0;
    for (const char *const *s = shim_conf.settings; s && *s && n < sizeof m.text; s++)
        n += (size_t)snprintf(m.text + n, sizeof m.text - n, "%s\n", *s);
    if (n >= sizeof m.text) return -E2BIG;
    m.q.value = (uint64_t)shim_conf.verbose;
    int r = request(fd, &m, sizeof m.q + n, log, &rep, sizeof rep, 5000);
    return r ? r : rep.result;
}

struct opening { bool start; int log; const char **why; int fd; };

/* A helper may end, for want of work, just as it is found; then the next one is asked. */
static int helper_open_here(bool start, int log, const char **why)
{
    int fd = -1, r = -EPIPE;
    for (int tries = 0; tries < 3 && (means_gone(r) || r == -EPROTO); tries++) {
        if (r == -EPROTO && (!start || shim_helper_replace())) break;
        fd = shim_helper_connect(start, why);
        if (fd < 0) return fd;
        r = hello(fd, log);
        if (r == 0) return fd;
        sys_close(fd);
    }
    *why = r == -EPROTO ? "the running mpshim-engine has another version" : "mpshim-engine does not answer";
    return r;
}

static void helper_open_there(void *p)
{
    struct opening *o = p;
    o->fd = helper_open_here(o->start, o->log, o->why);
}

static int helper_open(bool start, int log, const char **why)
{
    struct opening o = {.start = start, .log = log, .why = why};
    shim_on_stack(helper_open_there, &o);
    return o.fd;
}

void shim_helper_retry(void) { helper_failed = NULL; }

static bool have_helper(bool start, const char **why)
{
    if (host_alive(&hosts[SHIM_HOST_HELPER])) return true;
    if (start && helper_failed && now_s() < helper_retry_at) return *why = helper_failed, false;
    int fd = helper_open(start, shim_log_fd, why);
    if (fd >= 0) return host_set(SHIM_HOST_HELPER, fd), true;
    if (start) helper_failed = *why, helper_retry_at = now_s() + 10;
    return false;
}

/* ---- the engine inside ends with the process: what it carries goes on in the helper ---- */

/* Its control connection has moved with it: whoever holds it, a forked child too, speaks to the helper from now on. */
static void inside_is_helper(void)
{
    struct host *in = &hosts[SHIM_HOST_INSIDE], *h = &hosts[SHIM_HOST_HELPER];
    for (int fd = 0; fd < shim_fd_top(); fd++) {
        struct shim_fd *f = shim_find(fd);
        if (f && f->host == SHIM_HOST_INSIDE) f->host = SHIM_HOST_HELPER;
    }
    if (host_alive(h)) {
        host_lost(SHIM_HOST_INSIDE);
        return;
    }
    h->dev = in->dev, h->ino = in->ino;
    atomic_store(&h->fd, atomic_exchange(&in->fd, -1));
    shim_own_add(&h->fd);
}

bool shim_hand_over(void)
{
    struct ctl_req q;
    struct ctl_rep rep;
    const char *why = NULL;
    if (!lock_hosts()) return false;
    int to = helper_open(true, -1, &why), r = to;
    if (to >= 0) {
        shim_req_init(&q, CTL_HANDOVER);
        r = request(atomic_load(&hosts[SHIM_HOST_INSIDE].fd), &q, sizeof q, to, &rep, sizeof rep, HANDOVER_TIMEOUT_MS);
        if (r == 0) r = rep.result;
        sys_close(to);
    }
    if (r == 0) inside_is_helper();
    unlock_hosts();
    if (r) shim_log(2, "the connections stay in this process until it ends: %s", why ? why : strerrordesc_np(-r));
    return r == 0;
}

static void look_for_helper(void *p)
{
    const char *why;
    *(int *)p = shim_helper_connect(false, &why);
}

bool shim_helper_runs(void)
{
    int fd = -1;
    shim_on_stack(look_for_helper, &fd);
    if (fd >= 0) sys_close(fd);
    return fd >= 0;
}

/* ---- which ---- */

/* Of several reasons, the one why no engine could run in this process says most. */
static int pick(const int *order, int n, const char **why)
{
    for (int i = 0; i < n; i++) {
        if (order[i] == SHIM_HOST_INSIDE && have_inside(why)) return SHIM_HOST_INSIDE;
        if (order[i] == SHIM_HOST_HELPER && have_helper(true, why)) return SHIM_HOST_HELPER;
        if (order[i] == SHIM_HOST_PARENT && host_alive(&hosts[SHIM_HOST_PARENT])) return SHIM_HOST_PARENT;
    }
    if (inside_failed) *why = inside_failed;
    return -1;
}

static int pick_for_connect(const char **why)
{
    static const int forked[] = {SHIM_HOST_HELPER, SHIM_HOST_PARENT};
    static const int inside[] = {SHIM_HOST_PARENT, SHIM_HOST_INSIDE};
    static const int helper[] = {SHIM_HOST_HELPER};
    static const int first[] = {SHIM_HOST_INSIDE, SHIM_HOST_HELPER};
    if (shim_conf.engine == SHIM_HELPER || host_alive(&hosts[SHIM_HOST_HELPER])) return pick(helper, 1, why);
    if (shim_conf.engine == SHIM_INSIDE) return pick(inside, 2, why);
    if (host_alive(&hosts[SHIM_HOST_INSIDE])) return SHIM_HOST_INSIDE;
    if (is_forked) return pick(forked, 2, why);
    return shim_is_privileged() ? pick(first, 2, why) : pick(helper, 1, why);
}

/* An engine inside loses its rights with the program, and no packet can be given a mark without. */
static int pick_for_marked(const char **why)
{
    static const int lasting[] = {SHIM_HOST_HELPER, SHIM_HOST_INSIDE};
    return shim_conf.engine == SHIM_AUTO && shim_is_privileged() && !is_forked ? pick(lasting, 2, why) : pick_for_connect(why);
}

static int pick_for_listen(const char **why)
{
    static const int inside[] = {SHIM_HOST_INSIDE};
    static const int first[] = {SHIM_HOST_HELPER, SHIM_HOST_INSIDE};
    /* A container's first process would become the helper's parent, and the helper would die with it. */
    if (shim_conf.engine == SHIM_INSIDE || (shim_pid == 1 && shim_conf.engine == SHIM_AUTO && shim_is_privileged())) return pick(inside, 1, why);
    return pick(first, shim_conf.engine == SHIM_AUTO && shim_is_privileged() ? 2 : 1, why);
}

static int host_for(int (*choose)(const char **), enum ctl_why *why, const char **detail)
{
    *why = CTL_NO_ENGINE, *detail = NULL;
    if (shim_conf.engine == SHIM_NEVER) return *why = CTL_EXCLUDED, -1;
    if (shim_is_restricted) return *detail = "the program has restricted itself (seccomp)", -1;
    struct quiet quiet;
    quiet_begin(&quiet);
    int r = -1;
    if (lock_hosts()) r = choose(detail), unlock_hosts();
    else *why = CTL_RESOURCE;
    if (r >= 0) *detail = NULL; /* what was tried on the way to it explains nothing */
    quiet_end(&quiet);
    return r;
}

int shim_host_for_connect(bool marked, enum ctl_why *why, const char **detail) { return host_for(marked ? pick_for_marked : pick_for_connect, why, detail); }
int shim_host_for_listen(enum ctl_why *why, const char **detail) { return host_for(pick_for_listen, why, detail); }

int shim_host_existing(void)
{
    const char *why;
    struct quiet quiet;
    if (shim_conf.engine == SHIM_NEVER || shim_is_restricted) return -1;
    quiet_begin(&quiet);
    bool mine = lock_hosts(), helper = mine && have_helper(false, &why);
    if (mine) unlock_hosts();
    quiet_end(&quiet);
    if (helper) return SHIM_HOST_HELPER;
    if (!mine) return -1;
    for (int i = 0; i < SHIM_HOSTS; i++)
        if (host_alive(&hosts[i])) return i;
    return -1;
}

bool shim_host_possible(void)
{
    if (shim_conf.engine == SHIM_NEVER) return false;
    return shim_is_privileged() || shim_helper_possible() || shim_host_existing() >= 0;
}

const char *shim_why_text(enum ctl_why why)
{
    static const char *const text[] = {
#define X(name, what) what,
        CTL_WHYS(X)
#undef X
    };
    return (size_t)why < CTL_WHY_COUNT ? text[why] : "unknown reason";
}
