/* tests/fuzz/control.c: a hostile local process on the control socket (engine/ctl.h): the real engine/ and core/ over a
 * network that is not there. No packet leaves; the only sockets are a carrier's own on loopback.
 *
 * Input: messages, each of: how (enum how), descriptors sent along, their kinds, length, bytes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/host.h" /* an engine's parts one by one: no thread, no raw socket, no endless loop */
#include "../engine/fake/no_network.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum how {
    FIX_HEAD = 1,      /* right version, an operation that there is */
    FIX_IDENTITY = 2,  /* about the carrier that the last CONNECT gave */
    CLOSE_BEFORE = 4,  /* the reply's reader has gone before the engine answers */
    PAUSE = 8,         /* more messages before the engine looks */
    FIX_REMOTE = 16,   /* CONNECT to where there is a route */
};

static void broken(const char *what)
{
    fprintf(stderr, "invariant broken: %s\n", what);
    abort();
}

/* ---- io.h: the network that is not there ---- */

struct io { int flows, listening; };

struct io *io_new(struct ev_loop *l, struct mp_stack **s, const struct io_cfg *c, int *err)
{
    (void)l, (void)s, (void)c, (void)err;
    return calloc(1, sizeof(struct io));
}
void io_free(struct io *io)
{
    if (io->flows) broken("a flow is left open");
    free(io);
}
void *io_flow_open(void *io, int i, const struct mp_endpoint *l, const struct mp_endpoint *r, bool passive)
{
    (void)i, (void)l, (void)r, (void)passive;
    ((struct io *)io)->flows++;
    return malloc(1); /* the sanitizer sees one that is closed twice or never */
}
void io_flow_close(void *io, void *f)
{
    ((struct io *)io)->flows--;
    free(f);
}
uint16_t io_port_get(void *io, uint8_t f, bool fresh) { (void)io, (void)f, (void)fresh; return 40000; }
int io_attach_drop_all(int fd) { (void)fd; return 0; }
int io_attach_only_loopback(int fd) { (void)fd; return 0; }
int io_route_lookup(struct io *io, const struct mp_addr *remote, uint32_t mark, struct mp_addr *local, int *ifindex, enum io_route_kind *kind)
{
    (void)io, (void)mark;
    if (remote->b[0] != 10) return -EHOSTUNREACH;
    *local = *remote;
    local->b[3] ^= 1;
    *ifindex = 2;
    *kind = (enum io_route_kind)(remote->b[1] & 3);
    return 0;
}

/* ---- the client ---- */

struct client {
    int fd;
    const uint8_t *p;
    size_t n;
    union ctl_addr identity;
    uint16_t op;       /* of the message on its way */
};

static uint8_t in8(struct client *k) { return k->n ? (k->n--, *k->p++) : 0; }

static int some_fd(unsigned kind)
{
    struct sockaddr_in any = { .sin_family = AF_INET };
    int fd;
    switch (kind & 3) {
    case 0: return open("/dev/null", O_RDWR | O_CLOEXEC);
    case 1: return memfd_create("f", MFD_CLOEXEC);
    case 2: return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    default:
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && bind(fd, (struct sockaddr *)&any, sizeof any) == 0) listen(fd, 1);
        return fd;
    }
}

static void send_message(struct client *k, const void *p, size_t n, const int *fd, unsigned nfd)
{
    union { struct cmsghdr h; char b[CMSG_SPACE(16 * sizeof(int))]; } cb;
    struct iovec iov = { (void *)(uintptr_t)p, n };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
    if (nfd) {
        mh.msg_control = &cb;
        mh.msg_controllen = CMSG_SPACE(nfd * sizeof(int));
        memset(&cb, 0, sizeof cb);
        cb.h.cmsg_level = SOL_SOCKET;
        cb.h.cmsg_type = SCM_RIGHTS;
        cb.h.cmsg_len = CMSG_LEN(nfd * sizeof(int));
        memcpy(CMSG_DATA(&cb.h), fd, nfd * sizeof(int));
    }
    (void)!sendmsg(k->fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static size_t body(struct client *k, uint8_t how, uint8_t *buf, size_t max)
{
    size_t n = in8(k);
    struct ctl_req q;
    n = n & 128 ? (n & 127) * 40 : n * 4; /* also longer than the engine's own buffer */
    memset(buf, 0, max);
    for (size_t i = 0; i < n && k->n; i++) buf[i] = in8(k);
    memcpy(&q, buf, sizeof q);
    if (how & FIX_HEAD) {
        q.version = CTL_VERSION;
        q.op = (uint16_t)(q.op % (CTL_KEEP + 2));
        if (n < sizeof q) n = sizeof q;
    }
    if (how & FIX_IDENTITY) q.identity = k->identity;
    if (how & FIX_REMOTE) q.remote.v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = htonl(0x0a000002 + (q.flags & 4)) };
    k->op = q.op;
    memcpy(buf, &q, sizeof q);
    return n;
}

static void take_reply(struct client *k, int fd)
{
    char buf[4096];
    ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
    struct ctl_rep rep;
    if (n <= 0 || k->op == CTL_STATUS) return;
    if ((size_t)n != (k->op == CTL_INFO ? sizeof(struct ctl_info) : sizeof rep)) broken("an answer of the wrong size");
    memcpy(&rep, buf, sizeof rep);
    if (rep.version != CTL_VERSION || (rep.op & ~CTL_KEPT) != k->op) broken("an answer to something else");
    if (rep.result > 0) broken("a positive result");
    if (k->op == CTL_CONNECT && rep.result == 0) {
        if (rep.why != CTL_OK || (rep.identity.sa.sa_family != AF_INET && rep.identity.sa.sa_family != AF_INET6)) broken("connected to no identity");
        k->identity = rep.identity;
    }
}

static void message(struct engine *e, struct client *k)
{
    static uint8_t buf[8192];
    uint8_t how = in8(k), nfd = in8(k) % 12, kinds = in8(k);
    int fd[12], pair[2] = { -1, -1 };
    size_t n = body(k, how, buf, sizeof buf);
    if (nfd && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) return;
    for (unsigned i = 0; i < nfd; i++) fd[i] = i ? some_fd(kinds >> i) : pair[1];
    send_message(k, buf, n, fd, nfd);
    for (unsigned i = 0; i < nfd; i++) close(fd[i]);
    if (pair[0] >= 0 && (how & CLOSE_BEFORE)) {
        close(pair[0]);
        pair[0] = -1;
    }
    if (!(how & PAUSE))
        for (int i = 0; i < 3; i++) ev_run(e->loop, EVRUN_NOWAIT);
    if (pair[0] >= 0) {
        take_reply(k, pair[0]);
        close(pair[0]);
    }
}

/* All of them, not the lowest free one alone: a descriptor left open above it would show only when none is left. */
static int open_fds(void)
{
    enum { MOST = 256 };
    static struct pollfd all[MOST];
    for (int i = 0; i < MOST; i++) all[i] = (struct pollfd){ .fd = i };
    int asked = poll(all, MOST, 0), n = 0;
    for (int i = 0; asked >= 0 && i < MOST; i++) n += !(all[i].revents & POLLNVAL);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *why = "";
    int pair[2], err = 0, before = open_fds();
    signal(SIGPIPE, SIG_IGN); /* blocked in both hosts */
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) return 0;
    struct eng_cfg cfg = { .ctl_fd = pair[1], .log_fd = -1 };
    struct client k = { .fd = pair[0], .p = data, .n = n };
    struct engine *e = eng_new(&cfg, &err, &why);
    if (!e || eng_loop_open(e, &why)) broken(why);
    eng_identity_init(e);
    if (eng_net_open_stack(e, &why) || eng_ctl_start(e)) broken(why);
    e->is_listening = n && (data[0] & 128); /* as the helper: settings of its clients */
    for (int i = 0; k.n && i < 40; i++) message(e, &k);
    ev_run(e->loop, EVRUN_NOWAIT);
    close(k.fd);
    ev_run(e->loop, EVRUN_NOWAIT);
    eng_free(e);
    if (open_fds() != before) broken("a descriptor is left open");
    return 0;
}
