/* Interposed calls on threads with stacks of 16 KB, each on a thread of its own so that each may be the first. Prints each
 * call with its result, and on standard error the bytes of stack that it took beyond a thread that does nothing.
 *
 *   small_stack HOST ECHO-PORT CALLS-PORT [first]   first: the call that the program begins with
 * HOST's ports are those of tests/semantics/far.py. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK = 16384, GUARD = 65536, PAINT = 0x5a };
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static struct sockaddr_in far, calls, nobody = {.sin_family = AF_INET};
static int s = -1, listener = -1, accepted = -1;
static char byte;

static long wait_for(int fd, short events)
{
    struct pollfd p = {fd, events, 0};
    return poll(&p, 1, 10000);
}

/* ---- the calls: a result, or -errno ---- */

static long nothing(void) { return 0; }
static long do_socket(void) { return (s = socket(AF_INET, SOCK_STREAM, 0)) >= 0; }
static long do_connect(void) { return connect(s, (void *)&far, sizeof far); }
static long do_write(void) { return write(s, "abcdefgh", 8); }
static long do_read(void) { return wait_for(s, POLLIN) == 1 ? read(s, &byte, 1) : -1; }
static long do_recvfrom(void)
{
    struct sockaddr_in from;
    socklen_t n = sizeof from;
    return recvfrom(s, &byte, 1, 0, (void *)&from, &n);
}
static long do_sendmsg(void)
{
    struct iovec v = {"ij", 2};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    return sendmsg(s, &m, 0);
}
static long do_recvmsg(void)
{
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    return recvmsg(s, &m, 0);
}
static long do_names(void)
{
    struct sockaddr_in a, b;
    socklen_t n = sizeof a, m = sizeof b;
    return getpeername(s, (void *)&a, &n) || getsockname(s, (void *)&b, &m) ? -1 : a.sin_port == far.sin_port;
}
static long do_info(void)
{
    struct tcp_info i;
    socklen_t n = sizeof i;
    return getsockopt(s, IPPROTO_TCP, TCP_INFO, &i, &n);
}
static long do_options(void)
{
    int on = 1, error = 0, tos = 8;
    socklen_t n = sizeof error;
    return setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) | setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) |
           setsockopt(s, IPPROTO_IP, IP_TOS, &tos, sizeof tos) | getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &n);
}
static long do_congestion(void)
{
    char name[16];
    socklen_t n = sizeof name;
    return setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) | getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &n);
}
static long do_ioctl(void)
{
    int unsent = 0, unread = 0;
    return ioctl(s, SIOCOUTQ, &unsent) | ioctl(s, FIONREAD, &unread);
}
static long do_mptcp_info(void)
{
    char info[256];
    socklen_t n = sizeof info;
    getsockopt(s, 284, 1, info, &n); /* MPTCP_INFO; the kernel's TCP has none */
    return 0;
}
static long do_dup(void)
{
    int a = dup(s), b = fcntl(s, F_DUPFD_CLOEXEC, 100);
    return a < 0 || b < 0 || dup2(a, b) < 0 ? -1 : close(a) | close(b);
}
static long do_half_close(void)
{
    char rest[64];
    if (shutdown(s, SHUT_WR)) return -1;
    while (read(s, rest, sizeof rest) > 0) {}
    return close(s);
}
static long do_refused(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), r = connect(fd, (void *)&nobody, sizeof nobody) ? errno : 0;
    close(fd);
    return r;
}
static long do_nonblocking(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), r = connect(fd, (void *)&far, sizeof far) ? errno : 0, error = -1;
    socklen_t n = sizeof error;
    wait_for(fd, POLLOUT);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n);
    close(fd);
    return r * 1000 + error;
}
static long do_mptcp_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
    if (fd >= 0) close(fd);
    return 0;
}
static long do_listen(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    listener = socket(AF_INET, SOCK_STREAM, 0);
    return bind(listener, (void *)&any, sizeof any) | listen(listener, 5);
}
static long do_accept(void)
{
    struct sockaddr_in own, from;
    socklen_t n = sizeof own, m = sizeof from;
    char text[80];
    int u = socket(AF_INET, SOCK_DGRAM, 0);
    getsockname(listener, (void *)&own, &n);
    int len = snprintf(text, sizeof text, "[\"10.10.1.2\", %d, \"echo\", 1]", ntohs(own.sin_port));
    sendto(u, text, (size_t)len, 0, (void *)&calls, sizeof calls);
    close(u);
    if (wait_for(listener, POLLIN) != 1) return -1;
    accepted = accept4(listener, (void *)&from, &m, SOCK_CLOEXEC);
    return accepted < 0 ? -1 : (long)(ntohl(from.sin_addr.s_addr) & 0xff);
}
static long do_unlisten(void) { return close(accepted) | close(listener); }
static long do_fork(void)
{
    int status = -1;
    pid_t pid = fork();
    if (!pid) execl("/bin/true", "true", "a", "b", (char *)NULL), _exit(1);
    return waitpid(pid, &status, 0) == pid ? status : -1;
}
static long do_spawn(void)
{
    extern char **environ;
    char *argv[] = {"true", NULL};
    pid_t pid;
    int status = -1;
    return posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ) || waitpid(pid, &status, 0) != pid ? -1 : status;
}
static long do_signals(void)
{
    struct sigaction a;
    signal(SIGUSR1, SIG_IGN);
    return sigaction(SIGTERM, NULL, &a);
}
static long do_restrict(void) { return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }
static long do_exit(void)
{
    exit(0);
    return 0;
}

static const struct call { const char *name; long (*f)(void); } table[] = {
    {"nothing", nothing}, {"socket", do_socket}, {"connect", do_connect}, {"write", do_write}, {"read", do_read},
    {"recvfrom", do_recvfrom}, {"sendmsg", do_sendmsg}, {"recvmsg", do_recvmsg}, {"names", do_names}, {"info", do_info},
    {"options", do_options}, {"congestion", do_congestion}, {"ioctl", do_ioctl}, {"mptcp-info", do_mptcp_info}, {"dup", do_dup},
    {"refused", do_refused}, {"nonblocking", do_nonblocking}, {"mptcp-socket", do_mptcp_socket}, {"listen", do_listen},
    {"accept", do_accept}, {"signals", do_signals}, {"spawn", do_spawn}, {"fork", do_fork}, {"unlisten", do_unlisten},
    {"half-close", do_half_close}, {"socket", do_socket}, {"connect", do_connect}, {"write", do_write}, {"restrict", do_restrict},
    {"read", do_read}, {"exit", do_exit},
};

/* ---- threads ---- */

static void *thread(void *arg)
{
    const struct call *c = arg;
    errno = 0;
    long r = c->f();
    return (void *)(r == -1 ? -(long)errno : r);
}

static size_t used_of(const unsigned char *stack)
{
    size_t free_bytes = 0;
    while (free_bytes < STACK && stack[free_bytes] == PAINT) free_bytes++;
    return STACK - free_bytes;
}

static size_t run(const struct call *c)
{
    unsigned char *at = mmap(NULL, GUARD + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_attr_t attr;
    pthread_t t;
    void *r;
    if (at == MAP_FAILED || mprotect(at, GUARD, PROT_NONE)) abort();
    memset(at + GUARD, PAINT, STACK);
    pthread_attr_init(&attr);
    if (pthread_attr_setstack(&attr, at + GUARD, STACK) || pthread_create(&t, &attr, thread, (void *)c)) abort();
    pthread_join(t, &r);
    size_t used = used_of(at + GUARD);
    munmap(at, GUARD + STACK);
    printf("%s %ld\n", c->name, (long)r);
    fflush(stdout);
    return used;
}

static const struct call *find(const char *name)
{
    for (const struct call *c = table; c < table + sizeof table / sizeof *table; c++)
        if (!strcmp(c->name, name)) return c;
    abort();
}

int main(int argc, char **argv)
{
    if (argc < 4 || inet_pton(AF_INET, argv[1], &far.sin_addr) != 1) return 2;
    far.sin_family = AF_INET, calls = nobody = far;
    far.sin_port = htons((uint16_t)atoi(argv[2])), calls.sin_port = htons((uint16_t)atoi(argv[3])), nobody.sin_port = htons(4);
    if (argc > 4) run(find(argv[4]));
    size_t none = run(table);
    for (const struct call *c = table; c < table + sizeof table / sizeof *table; c++)
        fprintf(stderr, "%s: %zd\n", c->name, (ssize_t)(run(c) - none));
}
