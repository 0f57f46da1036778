/* io/guard.c: local ports for connections that we open, guarded by kernel sockets.
 *
 * Each port in use is held by a listening kernel TCP socket that drops everything: so the kernel gives the port to nobody
 * else and answers our peers' segments with no RST. Ports come in aligned blocks, so that receive filters need one test
 * for a block: small ones at first, large ones for a host with many connections.
 *
 * Which port is given: one that rests, the longest at rest first, once GUARD_MIN exist; else a new one, up to GUARD_SOFT;
 * then one that others use, in turn: 4-tuples differ by peer or path, and one in TIME_WAIT may be used again (core/stack_open.c).
 * Where that does not do, the core asks for a fresh one: up to GUARD_MAX. */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "io/internal.h"

#define GUARD_MIN 64
#define GUARD_SOFT 256  /* a descriptor and 4 KB of the kernel's memory each */
#define GUARD_MAX 16384
#define SMALL_BLOCKS 256 /* ports in blocks of 16 before those of 256: 4096 instructions are all that a filter may have */

struct guard {
    int fd;
    uint16_t port;
    bool small;    /* of a small block */
    bool resting;
    uint32_t refs;
    uint32_t prev, next; /* those at rest, by index + 1, the longest at rest first; 0: none */
};

struct taken { /* another engine's: closed when its connections have ended, given to no new one */
    int fd;
    uint16_t port;
    uint32_t refs;
};

struct io_guards {
    struct taken *taken; /* owned */
    uint32_t ntaken;
    struct guard *v;
    uint32_t n, cap;
    uint32_t rest_first, rest_last; /* index + 1 */
    uint32_t turn;                  /* whose turn it is to be shared */
    uint16_t at[65536];             /* port: index + 1; a page of it is touched with its ports */
    uint16_t block, left;           /* the block being filled: its next port, and how many are left */
    bool small;                     /* it is one of 16 */
};

struct io_guards *io_guards_new(void)
{
    return calloc(1, sizeof(struct io_guards));
}

void io_guards_free(struct io_guards *g)
{
    if (!g) return;
    for (uint32_t i = 0; i < g->n; i++) close(g->v[i].fd);
    for (uint32_t i = 0; i < g->ntaken; i++) close(g->taken[i].fd);
    free(g->taken);
    free(g->v);
    free(g);
}

uint16_t io_guard_mask(const struct io_guards *g, uint16_t port)
{
    uint16_t i = g->at[port];

    return !i || g->v[i - 1].small ? IO_BLOCK_MASK : IO_WIDE_MASK;
}

/* ---- those at rest ---- */

static void rest_add(struct io_guards *g, uint32_t i)
{
    struct guard *c = &g->v[i - 1];

    c->resting = true;
    c->next = 0;
    c->prev = g->rest_last;
    if (g->rest_last)
        g->v[g->rest_last - 1].next = i;
    else
        g->rest_first = i;
    g->rest_last = i;
}

static void rest_del(struct io_guards *g, uint32_t i)
{
    struct guard *c = &g->v[i - 1];

    c->resting = false;
    if (c->prev)
        g->v[c->prev - 1].next = c->next;
    else
        g->rest_first = c->next;
    if (c->next)
        g->v[c->next - 1].prev = c->prev;
    else
        g->rest_last = c->prev;
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
    if (fscanf(f, "%u %u", &a, &b) == 2 && a && a < b && b < 65536 && b - a > 32) {
        *lo = a;
        *hi = b;
    }
    fclose(f);
}

static void new_block(struct io_guards *g)
{
    uint32_t lo, hi, r = 0, size = g->n < SMALL_BLOCKS ? 16 : 256;

    port_range(&lo, &hi);
    if (getrandom(&r, sizeof r, 0) < 0) r = (uint32_t)io_now();
    if (hi - lo < 4 * size) size = 16;
    lo = (lo + size - 1) / size;
    hi = (hi + 1) / size;
    if (hi <= lo) hi = lo + 1;
    g->block = (uint16_t)((lo + r % (hi - lo)) * size);
    g->left = (uint16_t)size;
    g->small = size == 16;
}

static bool grow(struct io_guards *g)
{
    uint32_t cap = g->cap ? g->cap * 2 : GUARD_MIN;
    struct guard *v = g->n < g->cap ? g->v : realloc(g->v, cap * sizeof *v);

    if (!v) return false;
    if (g->n == g->cap) g->cap = cap;
    g->v = v;
    return true;
}

/* Another port under guard: its index + 1; 0: none to be had. */
static uint32_t guard_add(struct io_guards *g)
{
    for (int tries = 0; g->n < GUARD_MAX && grow(g) && tries < 1024; tries++) {
        uint16_t port;
        int fd;

        if (!g->left) new_block(g);
        port = g->block++;
        g->left--;
        if (g->at[port]) continue;
        fd = guard_open(port);
        if (fd == -EADDRINUSE || fd == -EACCES) continue;
        if (fd < 0) return 0; /* descriptors, memory */
        g->v[g->n++] = (struct guard){ .fd = fd, .port = port, .small = g->small };
        return g->at[port] = (uint16_t)g->n;
    }
    return 0;
}

/* One that others use as well, each in its turn. */
static uint32_t guard_share(struct io_guards *g)
{
    return g->n ? g->turn++ % g->n + 1 : 0;
}

uint16_t io_port_get(void *arg, uint8_t family, bool fresh)
{
    struct io_guards *g = ((struct io *)arg)->guards;
    uint32_t i = g->n < GUARD_MIN ? 0 : g->rest_first;

    (void)family; /* each guard covers both */
    if (!i && (g->n < GUARD_SOFT || fresh)) i = guard_add(g);
    if (!i) i = g->rest_first;
    if (!i) i = guard_share(g);
    if (!i) return 0;
    if (g->v[i - 1].resting) rest_del(g, i);
    g->v[i - 1].refs++;
    return g->v[i - 1].port;
}

/* ---- hand-over ---- */

void io_guards_give(struct io_guards *g, void (*each)(void *arg, const struct io_item *i, int fd), void *arg)
{
    for (uint32_t k = 0; k < g->n; k++) {
        struct io_item i = { .what = IO_ITEM_GUARD, .port = g->v[k].port };

        if (g->v[k].refs) each(arg, &i, g->v[k].fd);
    }
    for (uint32_t k = 0; k < g->ntaken; k++) {
        struct io_item i = { .what = IO_ITEM_GUARD, .port = g->taken[k].port };

        each(arg, &i, g->taken[k].fd);
    }
}

void io_guards_take(struct io_guards *g, uint16_t port, int fd)
{
    struct taken *v = realloc(g->taken, (g->ntaken + 1) * sizeof *v);

    if (!v) {
        close(fd);
        return;
    }
    g->taken = v;
    v[g->ntaken++] = (struct taken){ .fd = fd, .port = port };
}

static struct taken *find_taken(struct io_guards *g, uint16_t port)
{
    for (uint32_t i = 0; i < g->ntaken; i++)
        if (g->taken[i].port == port) return &g->taken[i];
    return NULL;
}

static void taken_close(struct io_guards *g, struct taken *t)
{
    close(t->fd);
    *t = g->taken[--g->ntaken];
}

int io_guard_fd(struct io *io, uint16_t port)
{
    uint32_t i = io->guards->at[port];
    struct taken *t = i ? NULL : find_taken(io->guards, port);

    return i ? io->guards->v[i - 1].fd : t ? t->fd : -1;
}

void io_guards_trim(struct io_guards *g)
{
    for (uint32_t i = g->ntaken; i-- > 0;)
        if (!g->taken[i].refs) taken_close(g, &g->taken[i]);
}

void io_port_hold(void *arg, uint8_t family, uint16_t port)
{
    struct io_guards *g = ((struct io *)arg)->guards;
    struct taken *t = find_taken(g, port);
    uint32_t i = g->at[port];

    (void)family;
    if (i && g->v[i - 1].resting) rest_del(g, i);
    if (i) g->v[i - 1].refs++;
    else if (t) t->refs++;
}

void io_port_put(void *arg, uint8_t family, uint16_t port)
{
    struct io_guards *g = ((struct io *)arg)->guards;
    uint32_t i = g->at[port];
    struct taken *t = i ? NULL : find_taken(g, port);

    (void)family;
    if (i && g->v[i - 1].refs && !--g->v[i - 1].refs) rest_add(g, i);
    if (t && t->refs && !--t->refs) taken_close(g, t);
}
