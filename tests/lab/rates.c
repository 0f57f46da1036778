/* Rates, latency and idle connections, for tests/lab/costs.py. It speaks plain sockets and knows nothing of MPTCP.
 *
 *   rates serve PORT                    accepts, echoes; at end of file closes. Prints "ready"; rates on standard input's end
 *   rates connect HOST PORT N PARALLEL  N times connect, one byte there and back, close; prints connections per second
 *   rates pingpong HOST PORT N          one byte there and back, N times; prints the median and the mean in microseconds
 *   rates idle HOST PORT N              opens N connections, one byte over each; prints "ready", waits for standard input's end
 *   rates echo HOST PORT N              opens N connections; a message of its own there and back over each, all at once; prints
 *                                       "right"; the same again for each line of standard input; closes all at its end */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "rates: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct sockaddr_in address(const char *host, const char *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1) die(host);
    return a;
}

static void watch(int ep, int op, int fd, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.fd = fd};
    if (epoll_ctl(ep, op, fd, &e)) die("epoll_ctl");
}

/* ---- server ---- */

static void accept_all(int ep, int l)
{
    int fd;
    while ((fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(ep, EPOLL_CTL_ADD, fd, EPOLLIN);
    }
    if (errno != EAGAIN && errno != ECONNABORTED) die("accept");
}

static void echo(int fd)
{
    char b[4096];
    ssize_t n = read(fd, b, sizeof b);
    if (n > 0 && write(fd, b, (size_t)n) == n) return;
    if (n < 0 && errno == EAGAIN) return;
    close(fd);
}

_Noreturn static void serve(const char *port)
{
    struct sockaddr_in a = address("0.0.0.0", port);
    int l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), ep = epoll_create1(EPOLL_CLOEXEC), one = 1;
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(l, (struct sockaddr *)&a, sizeof a) || listen(l, 4096)) die("listen");
    watch(ep, EPOLL_CTL_ADD, l, EPOLLIN);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event v[64];
        int n = epoll_wait(ep, v, 64, -1);
        for (int i = 0; i < n; i++) v[i].data.fd == l ? accept_all(ep, l) : echo(v[i].data.fd);
    }
}

/* ---- client ---- */

static int start(const struct sockaddr_in *a, int flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), one = 1;
    if (fd < 0) die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (const struct sockaddr *)a, sizeof *a) && errno != EINPROGRESS) die("connect");
    return fd;
}

static void round_trip(int fd)
{
    char b = 'x';
    if (write(fd, &b, 1) != 1) die("write");
    ssize_t n = read(fd, &b, 1);
    if (n != 1) {
        if (n == 0) errno = ECONNRESET;
        die("read");
    }
}

static void one_at_a_time(const struct sockaddr_in *a, int n)
{
    while (n--) {
        int fd = start(a, 0);
        round_trip(fd);
        close(fd);
    }
}

static void in_parallel(const struct sockaddr_in *a, int n, int width)
{
    int ep = epoll_create1(EPOLL_CLOEXEC), started = 0, done = 0;
    for (; started < width && started < n; started++) watch(ep, EPOLL_CTL_ADD, start(a, SOCK_NONBLOCK), EPOLLOUT);
    while (done < n) {
        struct epoll_event v[64];
        int k = epoll_wait(ep, v, 64, 10000);
        if (k <= 0) {
            errno = ETIMEDOUT;
            die("epoll_wait");
        }
        for (int i = 0; i < k; i++) {
            int fd = v[i].data.fd;
            char b = 'x';
            if (v[i].events & EPOLLOUT) {
                if (write(fd, &b, 1) != 1) die("write");
                watch(ep, EPOLL_CTL_MOD, fd, EPOLLIN);
            } else if (read(fd, &b, 1) == 1) {
                close(fd);
                done++;
                if (started < n) watch(ep, EPOLL_CTL_ADD, start(a, SOCK_NONBLOCK), EPOLLOUT), started++;
            } else
                die("read");
        }
    }
}

static int rate(char **arg)
{
    struct sockaddr_in a = address(arg[0], arg[1]);
    int n = atoi(arg[2]), width = atoi(arg[3]);
    one_at_a_time(&a, 1); /* the engine starts */
    double t = now_s();
    width <= 1 ? one_at_a_time(&a, n) : in_parallel(&a, n, width);
    printf("%.0f\n", n / (now_s() - t));
    return 0;
}

static int by_number(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int pingpong(char **arg)
{
    struct sockaddr_in a = address(arg[0], arg[1]);
    int n = atoi(arg[2]), fd = start(&a, 0);
    double *us = calloc((size_t)n, sizeof *us), sum = 0;
    if (!us) die("calloc");
    for (int i = 0; i < 200; i++) round_trip(fd);
    for (int i = 0; i < n; i++) {
        double t = now_s();
        round_trip(fd);
        sum += us[i] = (now_s() - t) * 1e6;
    }
    qsort(us, (size_t)n, sizeof *us, by_number);
    printf("%.1f %.1f\n", us[n / 2], sum / n);
    return 0;
}

static int idle(char **arg)
{
    struct sockaddr_in a = address(arg[0], arg[1]);
    char b;
    for (int n = atoi(arg[2]); n > 0; n--) round_trip(start(&a, 0));
    puts("ready");
    fflush(stdout);
    return read(0, &b, 1) < 0;
}

/* ---- many at once ---- */

enum { MESSAGE = 200 };

static void message(char *b, int i, int round)
{
    uint32_t x = (uint32_t)i * 2654435761u + (uint32_t)round;
    for (int k = 0; k < MESSAGE; k++) {
        x = x * 1664525u + 1013904223u;
        b[k] = (char)(x >> 24);
    }
}

static void read_all(int fd, char *b, size_t n)
{
    for (ssize_t r; n > 0; b += r, n -= (size_t)r) {
        r = read(fd, b, n);
        if (r == 0) errno = ECONNRESET;
        if (r <= 0) die("read");
    }
}

static void echo_over_all(const int *fd, int n, int round)
{
    char want[MESSAGE], got[MESSAGE];
    for (int i = 0; i < n; i++) {
        message(want, i, round);
        if (write(fd[i], want, MESSAGE) != MESSAGE) die("write");
    }
    for (int i = 0; i < n; i++) {
        message(want, i, round);
        read_all(fd[i], got, MESSAGE);
        if (memcmp(want, got, MESSAGE)) errno = EBADMSG, die("not what was sent");
    }
    puts("right");
    fflush(stdout);
}

static int many(char **arg)
{
    struct sockaddr_in a = address(arg[0], arg[1]);
    int n = atoi(arg[2]), *fd = calloc((size_t)n + 1, sizeof *fd), round = 0;
    char line[16];
    if (!fd) die("calloc");
    for (int i = 0; i < n; i++) fd[i] = start(&a, 0);
    do echo_over_all(fd, n, round++);
    while (fgets(line, sizeof line, stdin));
    for (int i = 0; i < n; i++) close(fd[i]);
    free(fd);
    return 0;
}

int main(int n, char **v)
{
    struct rlimit most;
    getrlimit(RLIMIT_NOFILE, &most);
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &most);
    if (n == 3 && !strcmp(v[1], "serve")) serve(v[2]);
    if (n == 6 && !strcmp(v[1], "connect")) return rate(v + 2);
    if (n == 5 && !strcmp(v[1], "pingpong")) return pingpong(v + 2);
    if (n == 5 && !strcmp(v[1], "idle")) return idle(v + 2);
    if (n == 5 && !strcmp(v[1], "echo")) return many(v + 2);
    fprintf(stderr, "usage: rates serve PORT | connect HOST PORT N PARALLEL | pingpong HOST PORT N | idle HOST PORT N | echo HOST PORT N\n");
    return 2;
}
