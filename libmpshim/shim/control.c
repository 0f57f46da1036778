/* Control connections to the engines that serve this process, and requests over them (engine/ctl.h). Without libc's
 * cancellation points: whoever waits here may be cancelled, and others wait for what he holds. */
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "shim/host.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

struct host {
    _Atomic int fd; /* control connection; -1: none */
    dev_t dev;      /* of fd: another file under this number is not ours */
    ino_t ino;
    uint64_t network; /* SO_NETNS_COOKIE of fd; 0: not told */
    struct shim_answers answers;
};
#define NO_HOST {.fd = -1, .answers.fd = -1}
static struct host hosts[SHIM_HOSTS] = {NO_HOST, NO_HOST, NO_HOST};

/* ---- connections ---- */

bool shim_host_alive(int host)
{
    struct host *h = &hosts[host];
    struct stat st;
    int fd = atomic_load(&h->fd);
    return fd >= 0 && syscall(SYS_fstat, fd, &st) == 0 && st.st_ino == h->ino && st.st_dev == h->dev;
}

/* A socket belongs to the network namespace that its maker was in, whatever the program entered since. */
static uint64_t network_of(int fd)
{
    uint64_t v = 0;
    socklen_t n = sizeof v;
    return REAL(getsockopt)(fd, SOL_SOCKET, SO_NETNS_COOKIE, &v, &n) ? 0 : v;
}

void shim_host_set(int host, int fd)
{
    struct host *h = &hosts[host];
    struct stat st = {0};
    fd = shim_own_high(fd);
    syscall(SYS_fstat, fd, &st);
    h->ino = st.st_ino, h->dev = st.st_dev, h->network = network_of(fd);
    atomic_store(&h->fd, fd);
    shim_own_add(&h->fd);
}

void shim_host_lost(int host)
{
    struct host *h = &hosts[host];
    bool ours = shim_host_alive(host);
    int fd = atomic_exchange(&h->fd, -1);
    if (ours && !shim_is_borrowed()) shim_sys_close(fd);
    if (fd >= 0) shim_own_add(&h->fd);
    shim_answers_end(&h->answers);
}

void shim_inside_becomes(int to)
{
    struct host *in = &hosts[SHIM_HOST_INSIDE], *h = &hosts[to];
    for (int fd = 0; fd < shim_fd_top(); fd++) {
        struct shim_fd *f = shim_find(fd);
        if (f && f->host == SHIM_HOST_INSIDE) f->host = (uint8_t)to;
    }
    if (shim_host_alive(to)) {
        shim_host_lost(SHIM_HOST_INSIDE);
        return;
    }
    h->dev = in->dev, h->ino = in->ino, h->network = in->network;
    atomic_store(&h->fd, atomic_exchange(&in->fd, -1));
    shim_own_add(&h->fd);
    shim_answers_end(&in->answers);
}

void shim_answers_forked(void)
{
    for (int i = 0; i < SHIM_HOSTS; i++) shim_answers_leave(&hosts[i].answers);
}

bool shim_host_fits(int host, int fd)
{
    uint64_t a = network_of(fd), b = hosts[host].network;
    return a == b || !a || !b; /* a kernel before 5.14 does not tell */
}

bool shim_host_known(int host) { return atomic_load(&hosts[host].fd) >= 0; }

int shim_host_fd(int host) { return shim_host_alive(host) ? atomic_load(&hosts[host].fd) : -1; }

void shim_inside_lost(void) { shim_host_lost(SHIM_HOST_INSIDE); }

bool shim_hosts_inside(void) { return shim_host_alive(SHIM_HOST_INSIDE); }

/* ---- messages ---- */

void shim_req_init(struct ctl_req *q, enum ctl_op op)
{
    memset(q, 0, sizeof *q);
    q->version = CTL_VERSION;
    q->op = (uint16_t)op;
    q->pid = shim_pid;
    q->flags = shim_conf.strict ? CTL_F_STRICT : 0;
    snprintf(q->prog, sizeof q->prog, "%s", program_invocation_short_name);
}

bool shim_means_gone(long r) { return r == -EPIPE || r == -ECONNRESET || r == -ENOTCONN || r == -EBADF || r == -ENOTSOCK; }

static void gone(int host)
{
    shim_host_lost(host);
    if (host == SHIM_HOST_HELPER) shim_listen_again();
}

void shim_host_check(int host)
{
    int saved = errno;
    char c;
    long r = -EAGAIN;
    if (!shim_is_restricted && shim_host_alive(host)) r = shim_neg(syscall(SYS_recvfrom, atomic_load(&hosts[host].fd), &c, 1, MSG_PEEK | MSG_DONTWAIT, NULL, NULL));
    if (r == 0 || shim_means_gone(r)) gone(host); /* the engine never writes there: 0 is its end */
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
    int r = shim_host_alive(host) ? shim_ask_often(&hosts[host].answers, atomic_load(&hosts[host].fd), q, fd, rep, size, timeout_ms) : -EPIPE;
    if (shim_means_gone(r) && shim_host_known(host)) gone(host);
    errno = saved;
    return shim_means_gone(r) ? -EPIPE : r;
}

int shim_request_stranger(const struct ctl_req *q, int shown, void *rep, size_t size, int timeout_ms)
{
    int saved = errno, fd = shim_identity_connect(&q->identity);
    if (fd < 0) return errno = saved, fd;
    long r = shim_send_message(fd, q, sizeof *q, &shown, shown >= 0);
    if (r >= 0) r = shim_await(fd, rep, size, timeout_ms);
    shim_sys_close(fd);
    errno = saved;
    return r < 0 ? (int)r : 0;
}

void shim_tell(int host, struct ctl_req *q)
{
    int saved = errno;
    for (int i = 0; i < SHIM_HOSTS; i++)
        if ((host == i || host == SHIM_HOST_ANY) && !shim_is_restricted && shim_host_alive(i)) shim_send_message(atomic_load(&hosts[i].fd), q, sizeof *q, NULL, 0);
    errno = saved;
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
