/* resolve/resolve.c: see resolve.h. One c-ares channel an interface, all waited for together. */
#define _GNU_SOURCE
#include "resolve/resolve.h"

#include <ares.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TRY_MS = 1000, TRIES = 3, NO_NAME_MS = 1000 /* another link may know a name that one has not */ };
enum outcome { ASKING, ANSWERED, NO_SUCH_NAME, SILENT };

struct asked {
    ares_channel channel;
    enum outcome outcome;
    struct resolve_link *link;
    struct resolve_answer *out; /* the first answer's place */
    bool *done;
};

static long long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static void take(struct asked *q, const struct ares_addrinfo *info)
{
    struct resolve_answer *o = q->out;
    const struct ares_addrinfo_cname *c = info->cnames;
    o->n = 0;
    for (const struct ares_addrinfo_node *a = info->nodes; a && o->n < RESOLVE_MAX; a = a->ai_next) {
        bool v4 = a->ai_family == AF_INET;
        if (!v4 && a->ai_family != AF_INET6) continue;
        const void *ip = v4 ? (const void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr : &((struct sockaddr_in6 *)a->ai_addr)->sin6_addr;
        o->addr[o->n].family = v4 ? 4 : 6;
        memcpy(o->addr[o->n++].ip, ip, v4 ? 4 : 16);
    }
    while (c && c->next) c = c->next;
    snprintf(o->canon, sizeof o->canon, "%s", c && c->name ? c->name : info->name ? info->name : "");
    snprintf(o->ifname, sizeof o->ifname, "%s", q->link->name);
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct asked *q = arg;
    (void)timeouts;
    q->outcome = status == ARES_ENOTFOUND || status == ARES_ENODATA ? NO_SUCH_NAME : SILENT;
    if (status == ARES_SUCCESS && info && info->nodes) {
        q->outcome = ANSWERED;
        if (!*q->done) take(q, info);
        *q->done = true;
    }
    if (info) ares_freeaddrinfo(info);
}

static bool ask(struct asked *q, const char *name, int families)
{
    struct ares_options o = {.timeout = TRY_MS, .tries = TRIES};
    struct ares_addrinfo_hints hints = {.ai_family = families == 1 ? AF_INET : families == 2 ? AF_INET6 : AF_UNSPEC, .ai_flags = ARES_AI_CANONNAME};
    q->outcome = SILENT;
    if (ares_init_options(&q->channel, &o, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES) != ARES_SUCCESS) return false;
    q->outcome = ASKING;
    ares_set_local_dev(q->channel, q->link->name); /* SO_BINDTODEVICE: anybody may, since Linux 5.7 */
    if (ares_set_servers_csv(q->channel, q->link->servers) == ARES_SUCCESS) ares_getaddrinfo(q->channel, name, NULL, &hints, on_answer, q);
    else q->outcome = SILENT;
    return true;
}

/* All channels' sockets, for poll(); of[i] is whose the i-th is. */
static int gather(struct asked *q, int n, struct pollfd *p, int *of)
{
    int np = 0;
    for (int i = 0; i < n; i++) {
        ares_socket_t s[ARES_GETSOCK_MAXNUM];
        unsigned mask = q[i].outcome == ASKING ? (unsigned)ares_getsock(q[i].channel, s, ARES_GETSOCK_MAXNUM) : 0;
        for (int j = 0; j < ARES_GETSOCK_MAXNUM; j++) {
            bool r = mask >> j & 1, w = mask >> (j + ARES_GETSOCK_MAXNUM) & 1; /* the library's macros shift into the sign */
            if (!r && !w) continue;
            of[np] = i;
            p[np++] = (struct pollfd){.fd = s[j], .events = (short)((r ? POLLIN : 0) | (w ? POLLOUT : 0))};
        }
    }
    return np;
}

static int wait_ms(struct asked *q, int n, long long left)
{
    struct timeval most = {left / 1000, left % 1000 * 1000}, t;
    for (int i = 0; i < n; i++)
        if (q[i].outcome == ASKING) most = *ares_timeout(q[i].channel, &most, &t);
    return (int)(most.tv_sec * 1000 + most.tv_usec / 1000 + 1);
}

static void turn(struct asked *q, int n, long long left)
{
    struct pollfd p[RESOLVE_LINKS * ARES_GETSOCK_MAXNUM];
    int of[RESOLVE_LINKS * ARES_GETSOCK_MAXNUM], np = gather(q, n, p, of);
    if (poll(p, (nfds_t)np, wait_ms(q, n, left)) > 0)
        for (int i = 0; i < np; i++)
            if (p[i].revents)
                ares_process_fd(q[of[i]].channel, p[i].revents & (POLLIN | POLLHUP | POLLERR) ? p[i].fd : ARES_SOCKET_BAD,
                                p[i].revents & POLLOUT ? p[i].fd : ARES_SOCKET_BAD);
    for (int i = 0; i < n; i++)
        if (q[i].outcome == ASKING) ares_process_fd(q[i].channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD); /* time-outs */
}

static bool any(const struct asked *q, int n, enum outcome o)
{
    for (int i = 0; i < n; i++)
        if (q[i].outcome == o) return true;
    return false;
}

int mpshim_resolve(const char *name, int families, const char *interfaces, int timeout_ms, struct resolve_answer *out)
{
    struct resolve_link links[RESOLVE_LINKS];
    struct asked q[RESOLVE_LINKS];
    bool done = false, open[RESOLVE_LINKS];
    int n = resolve_links(interfaces, links, RESOLVE_LINKS);
    if (n == 0) return -ENETUNREACH;
    long long end = now_ms() + timeout_ms;
    for (int i = 0; i < n; i++) {
        q[i] = (struct asked){.link = &links[i], .out = out, .done = &done};
        open[i] = ask(&q[i], name, families);
    }
    for (long long left, now; !done && any(q, n, ASKING) && (left = end - (now = now_ms())) > 0;) {
        turn(q, n, left);
        if (any(q, n, NO_SUCH_NAME) && end > now + NO_NAME_MS) end = now + NO_NAME_MS;
    }
    int r = done ? 0 : any(q, n, NO_SUCH_NAME) ? -ENOENT : -ETIMEDOUT;
    for (int i = 0; i < n; i++)
        if (open[i]) ares_destroy(q[i].channel);
    return r;
}
