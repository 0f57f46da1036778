/* io/guard.c: local ports for connections that we open, guarded by kernel sockets.
 *
 * Each port in use is held by a listening kernel TCP socket that drops everything: so the kernel gives the port to nobody
 * else and answers our peers' segments with no RST. Ports come in aligned blocks of 16, so that receive filters need one
 * test for a block. Up to GUARD_MAX ports; a port that a connection uses is given to another only when all are in use
 * (4-tuples differ by peer or path; io_flow_open refuses a taken one), and free ones are reused oldest first, not before
 * GUARD_MIN exist: a port rests as long as it can between two connections to the same peer. */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "io/internal.h"

#define GUARD_MAX 512
#define GUARD_MIN 64
#define BLOCK 16

struct guard {
    int fd;
    uint16_t port;
    uint32_t refs;
    uint64_t used; /* count of io_port_get at its last use */
};

struct io_guards {
    struct guard v[GUARD_MAX];
    int n;
    uint16_t block, next; /* the block being filled; next == BLOCK: none */
    uint64_t gets;
};

struct io_guards *io_guards_new(void)
{
    struct io_guards *g = calloc(1, sizeof *g);

    if (g) g->next = BLOCK;
    return g;
}

void io_guards_free(struct io_guards *g)
{
    if (!g) return;
    for (int i = 0; i < g->n; i++) close(g->v[i].fd);
    free(g);
}

/* ---- one guard ---- */

static int bind_listen(int fd, int family, uint16_t port)
{
    struct sockaddr_in6 sa = { 0 };
    struct mp_addr any = { .family = family == AF_INET ? 4 : 6 };
    socklen_t n = io_sockaddr(&sa, &any, port, 0);
    int off = 0, err = io_attach_drop_all(fd);

    if (err) return err;
    if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, (struct sockaddr *)&sa, n) || listen(fd, 1)) return -errno;
    return 0;
}

/* One socket for both families, where there is IPv6. The descriptor or -errno. */
static int guard_open(uint16_t port)
{
    int family = AF_INET6, err;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);

    if (fd < 0 && errno == EAFNOSUPPORT) fd = socket(family = AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
    if (fd < 0) return -errno;
    err = bind_listen(fd, family, port);
    if (err == -EADDRNOTAVAIL && family == AF_INET6) { /* disable_ipv6 */
        close(fd);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
        if (fd < 0) return -errno;
        err = bind_listen(fd, AF_INET, port);
    }
    if (!err) return fd;
    close(fd);
    return err;
}

/* ---- blocks from the ephemeral range ---- */

static void port_range(uint32_t *lo, uint32_t *hi)
{
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    unsigned a, b;

    *lo = 32768;
    *hi = 60999;
    if (!f) return;
    if (fscanf(f, "%u %u", &a, &b) == 2 && a && a < b && b < 65536 && b - a > 2 * BLOCK) {
        *lo = a;
        *hi = b;
    }
    fclose(f);
}

static void new_block(struct io_guards *g)
{
    uint32_t lo, hi, r = 0;

    port_range(&lo, &hi);
    if (getrandom(&r, sizeof r, 0) < 0) r = (uint32_t)io_now();
    lo = (lo + BLOCK - 1) / BLOCK;
    hi = (hi + 1) / BLOCK;
    g->block = (uint16_t)((lo + r % (hi - lo)) * BLOCK);
    g->next = 0;
}

static bool is_guarded(const struct io_guards *g, uint16_t port)
{
    for (int i = 0; i < g->n; i++)
        if (g->v[i].port == port) return true;
    return false;
}

/* Another port under guard; NULL: none to be had. */
static struct guard *guard_add(struct io_guards *g)
{
    for (int tries = 0; g->n < GUARD_MAX && tries < 8 * BLOCK; tries++) {
        uint16_t port;
        int fd;

        if (g->next == BLOCK) new_block(g);
        port = (uint16_t)(g->block + g->next++);
        if (is_guarded(g, port)) continue;
        fd = guard_open(port);
        if (fd == -EADDRINUSE || fd == -EACCES) continue;
        if (fd < 0) return NULL; /* descriptors, memory */
        g->v[g->n] = (struct guard){ .fd = fd, .port = port };
        return &g->v[g->n++];
    }
    return NULL;
}

/* The one with the fewest users; among those, the longest at rest. */
static struct guard *guard_best(struct io_guards *g)
{
    struct guard *best = NULL;

    for (int i = 0; i < g->n; i++) {
        struct guard *c = &g->v[i];

        if (!best || c->refs < best->refs || (c->refs == best->refs && c->used < best->used)) best = c;
    }
    return best;
}

uint16_t io_port_get(void *arg, uint8_t family)
{
    struct io_guards *g = ((struct io *)arg)->guards;
    struct guard *c = guard_best(g), *fresh;

    (void)family; /* each guard covers both */
    if (!c || c->refs || g->n < GUARD_MIN) {
        fresh = guard_add(g);
        if (fresh) c = fresh;
    }
    if (!c) return 0;
    c->refs++;
    c->used = ++g->gets;
    return c->port;
}

void io_port_put(void *arg, uint8_t family, uint16_t port)
{
    struct io_guards *g = ((struct io *)arg)->guards;

    (void)family;
    for (int i = 0; i < g->n; i++)
        if (g->v[i].port == port && g->v[i].refs) {
            g->v[i].refs--;
            g->v[i].used = ++g->gets;
            return;
        }
}
