/* tests/engine/fake/fake.c: a stack and a network that exist only in memory, so that the engine's own work (carriers,
 * control, lifetime) is tested without packets. What a connection does follows from its destination:
 *
 *   port 7 echo, 9 discard, 19 source of <4th address byte> MB and then end, 21 says "hello" and ends at once,
 *   22 echoes the first bytes and resets, 23 resets after <4th byte> MB,
 *   port 1 refused, 2 host unreachable, 3 network unreachable, 4 timed out, 5 never answers,
 *   any other port: a connection to the engine's own listener of that port, else refused
 *   third address byte: the connection takes that many 10 ms; 127/8: local route. */
#include <errno.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "core/stack.h"
#include "io/io.h"
#include "no_network.h"

enum { CAP = 16 << 20, P_ECHO = 7, P_DISCARD = 9, P_SOURCE = 19, P_HELLO = 21, P_RESET = 22, P_RESET_MB = 23 };

struct queue { uint8_t *b; uint64_t head, len; };
struct mpc {
    struct mp_stack *s;
    struct mpc *next, *peer;
    void *owner;
    struct queue rx; /* what the owner reads */
    struct mp_endpoint local, remote;
    unsigned events;
    mp_time due;     /* connect completes */
    int port, err, fail;
    bool server, connected, shut, eof_in, eof_said, closed, released, dead;
    uint64_t source_left, written, got, rd;
    uint64_t rst_after;
};
struct lsn { struct lsn *next; struct mp_endpoint at; void *owner; };
struct mp_stack { struct mpc *all; struct lsn *l; int n; };

static void ev(struct mpc *c, unsigned b)
{
    if (!c->released) c->events |= b;
}

static void q_init(struct queue *q) { q->b = malloc(CAP); q->head = q->len = 0; }
static uint64_t q_space(const struct queue *q) { return CAP - q->len; }
static int q_in(struct queue *q, struct mp_iov *iov)
{
    uint64_t tail = (q->head + q->len) % CAP, n = q_space(q);
    if (!n) return 0;
    uint64_t first = mp_min(n, CAP - tail);
    iov[0] = (struct mp_iov){ q->b + tail, first };
    if (n > first) iov[1] = (struct mp_iov){ q->b, n - first };
    return n > first ? 2 : 1;
}
static int q_out(const struct queue *q, struct mp_iov *iov)
{
    if (!q->len) return 0;
    uint64_t first = mp_min(q->len, CAP - q->head);
    iov[0] = (struct mp_iov){ q->b + q->head, first };
    if (q->len > first) iov[1] = (struct mp_iov){ q->b, q->len - first };
    return q->len > first ? 2 : 1;
}

struct mp_stack *mp_stack_new(const struct mp_stack_ops *ops, void *arg, const struct mp_settings *set)
{
    (void)ops, (void)arg, (void)set;
    return calloc(1, sizeof(struct mp_stack));
}
static void check(struct mpc *c);
static void c_free(struct mpc *c)
{
    for (struct mpc **p = &c->s->all; *p; p = &(*p)->next)
        if (*p == c) { *p = c->next; break; }
    if (c->peer) { c->peer->peer = NULL; c->peer->eof_in = true; check(c->peer); }
    c->s->n--;
    free(c->rx.b);
    memset(c, 0x5a, sizeof *c); /* use after free shows */
    free(c);
}
void mp_stack_free(struct mp_stack *s)
{
    while (s->all) c_free(s->all);
    while (s->l) { struct lsn *l = s->l; s->l = l->next; free(l); }
    free(s);
}
static struct mpc *c_new(struct mp_stack *s)
{
    struct mpc *c = calloc(1, sizeof *c);
    c->s = s;
    q_init(&c->rx);
    c->next = s->all;
    s->all = c;
    s->n++;
    return c;
}
void mp_stack_input(struct mp_stack *s, struct mp_pkt *p, mp_time now) { (void)s, (void)p, (void)now; }

static void source(struct mpc *c)
{
    uint64_t n = mp_min(c->source_left, q_space(&c->rx));
    if (!n) return;
    /* the bytes are whatever lies there: only counts matter */
    c->rx.len += n;
    c->source_left -= n;
    ev(c, MP_EV_READABLE);
    if (!c->source_left) c->eof_in = true;
}
static void fail(struct mpc *c, int err)
{
    if (c->closed) return;
    c->err = err;
    c->closed = true;
    ev(c, MP_EV_CLOSED);
}
static bool done(struct mpc *c) { return c->shut && c->eof_in && c->rx.len == 0 && (!c->peer || c->peer->rx.len == 0); }
static void check(struct mpc *c)
{
    if (!c->closed && done(c)) { c->closed = true; ev(c, MP_EV_CLOSED); }
}
static struct lsn *find(struct mp_stack *s, uint16_t port)
{
    for (struct lsn *l = s->l; l; l = l->next) if (l->at.port == port) return l;
    return NULL;
}
static void up(struct mpc *c)
{
    c->due = 0;
    if (c->fail) { fail(c, c->fail); return; }
    if (c->port > 23) {
        struct lsn *l = find(c->s, (uint16_t)c->port);
        if (!l) { fail(c, ECONNREFUSED); return; }
        struct mpc *a = c_new(c->s);
        a->server = a->connected = true;
        a->peer = c; c->peer = a;
        a->owner = l->owner;
        a->local = c->remote; a->remote = c->local;
        ev(a, MP_EV_ACCEPT);
    }
    c->connected = true;
    ev(c, MP_EV_CONNECTED | MP_EV_WRITABLE);
    if (c->port == P_SOURCE) source(c);
    if (c->port == P_HELLO) {
        memcpy(c->rx.b, "hello", 5); c->rx.len = 5; c->eof_in = true; ev(c, MP_EV_READABLE);
    }
}
bool mp_stack_poll(struct mp_stack *s, struct mp_pkt *out, mp_time now)
{
    (void)out, (void)now;
    for (struct mpc *c = s->all, *n; c; c = n) {
        n = c->next;
        if (c->released && (c->closed || done(c) || c->dead)) c_free(c);
    }
    return false;
}
mp_time mp_stack_deadline(const struct mp_stack *s)
{
    mp_time t = MP_NEVER;
    for (struct mpc *c = s->all; c; c = c->next) if (c->due) t = mp_min(t, c->due);
    return t;
}
void mp_stack_tick(struct mp_stack *s, mp_time now)
{
    for (struct mpc *c = s->all; c; c = c->next) if (c->due && c->due <= now) up(c);
}
void mp_stack_writable(struct mp_stack *s, void *flow) { (void)s, (void)flow; }
struct mpc *mp_stack_connect(struct mp_stack *s, const struct mp_endpoint *remote, const struct mp_addr *local, int ifindex,
                             unsigned flags, void *owner, mp_time now, int *err)
{
    (void)ifindex, (void)flags, (void)err;
    static uint16_t port = 40000;
    struct mpc *c = c_new(s);
    c->owner = owner;
    c->remote = *remote;
    c->local.ip = *local;
    c->local.port = port++;
    c->port = remote->port;
    c->due = now + 1 + MP_MS(10) * remote->ip.b[2];
    int fails[] = { 0, ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT };
    if (c->port >= 1 && c->port <= 4) c->fail = fails[c->port];
    if (c->port == 5) c->due = 0;
    if (c->port == P_SOURCE) c->source_left = (uint64_t)remote->ip.b[3] << 20;
    if (c->port == P_RESET_MB) c->rst_after = (uint64_t)remote->ip.b[3] << 20;
    if (c->port == P_RESET) c->rst_after = 1;
    return c;
}
int mpc_use_local(struct mpc *c, const struct mp_addr *ip, bool use, mp_time now) { (void)c, (void)ip, (void)use, (void)now; return -ENOSYS; }
void mp_stack_join_elsewhere(struct mp_stack *s, bool on) { (void)s, (void)on; }
int mp_stack_listen(struct mp_stack *s, const struct mp_endpoint *at, unsigned families, int backlog, void *owner)
{
    (void)families, (void)backlog;
    struct lsn *l = calloc(1, sizeof *l);
    l->at = *at; l->owner = owner; l->next = s->l; s->l = l;
    return 0;
}
void mp_stack_settle(struct mp_stack *s, mp_time now) { (void)s, (void)now; }
void mp_stack_unlisten(struct mp_stack *s, void *owner, mp_time now)
{
    (void)now;
    for (struct lsn **p = &s->l; *p;) {
        struct lsn *l = *p;
        if (l->owner == owner) { *p = l->next; free(l); } else p = &l->next;
    }
}
bool mp_stack_event(struct mp_stack *s, struct mpc **out, unsigned *bits)
{
    for (struct mpc *c = s->all; c; c = c->next)
        if (c->events) { *out = c; *bits = c->events; c->events = 0; return true; }
    return false;
}
void *mpc_owner(const struct mpc *c) { return c->owner; }
void mpc_set_owner(struct mpc *c, void *o) { c->owner = o; }

/* Where this connection's bytes go: its peer, itself (echo), or nowhere. */
static struct mpc *sink(struct mpc *c)
{
    if (c->peer) return c->peer;
    return c->port == P_ECHO || c->port == P_RESET ? c : NULL;
}
static uint8_t trash[1 << 20];
void mpc_write_idle(struct mpc *c) { (void)c; }
uint64_t mpc_write_space(const struct mpc *c)
{
    if (!c->connected || c->shut || c->closed) return 0;
    struct mpc *k = sink((struct mpc *)c);
    return k ? q_space(&k->rx) : sizeof trash;
}
int mpc_write_iov(struct mpc *c, struct mp_iov *iov, int n)
{
    (void)n;
    struct mpc *k = sink(c);
    if (k) return q_in(&k->rx, iov);
    iov[0] = (struct mp_iov){ trash, sizeof trash };
    return 1;
}
void mpc_write_commit(struct mpc *c, uint64_t bytes, mp_time now)
{
    (void)now;
    struct mpc *k = sink(c);
    c->written += bytes;
    if (k) { k->rx.len += bytes; k->got += bytes; ev(k, MP_EV_READABLE); }
    if (c->rst_after && c->written >= c->rst_after) fail(c, ECONNRESET);
}
void mpc_shutdown(struct mpc *c, mp_time now)
{
    (void)now;
    struct mpc *k = sink(c);
    c->shut = true;
    if (k) { k->eof_in = true; ev(k, MP_EV_READABLE); check(k); }
    else if (c->port == P_DISCARD) { c->eof_in = true; ev(c, MP_EV_READABLE); }
    check(c);
}
int mpc_peek(const struct mpc *c, struct mp_iov *iov, int n) { (void)n; return q_out(&c->rx, iov); }
uint64_t mpc_readable(const struct mpc *c) { return c->rx.len; }
void mpc_consume(struct mpc *c, uint64_t bytes, mp_time now)
{
    (void)now;
    c->rx.head = (c->rx.head + bytes) % CAP;
    c->rx.len -= bytes;
    c->rd += bytes;
    if (c->source_left) source(c);
    struct mpc *w = c->peer ? c->peer : c->port == P_ECHO ? c : NULL;
    if (w) { ev(w, MP_EV_WRITABLE); check(w); }
    check(c);
}
bool mpc_eof(const struct mpc *c) { return c->eof_in && c->rx.len == 0; }
void mpc_abort(struct mpc *c, mp_time now)
{
    (void)now;
    if (c->peer) fail(c->peer, ECONNRESET);
    fail(c, ECONNABORTED);
    c->dead = true;
}
void mpc_release(struct mpc *c, mp_dur l, mp_time now) { (void)l, (void)now; c->released = true; c->events = 0; if (!c->shut) { c->shut = true; if (sink(c) && sink(c) != c) { sink(c)->eof_in = true; ev(sink(c), MP_EV_READABLE); } c->eof_in = true; } }
int mpc_error(const struct mpc *c) { return c->err; }
bool mpc_last_words(const struct mpc *c, const void *flow, struct mp_last_words *w) { (void)c, (void)flow, (void)w; return false; }
bool mpc_send_done(const struct mpc *c) { return !c->peer || c->peer->rx.len == 0; }
int mpc_setopt(struct mpc *c, enum mpc_opt o, uint64_t v, mp_time now) { (void)c, (void)o, (void)v, (void)now; return 0; }
void mp_stack_listen_setopt(struct mp_stack *s, void *owner, enum mpc_opt o, uint64_t v) { (void)s, (void)owner, (void)o, (void)v; }
const char *mp_plain_why_text(enum mp_plain_why w) { (void)w; return "no option"; }
void mpc_get_info(const struct mpc *c, struct mpc_info *i)
{
    memset(i, 0, sizeof *i);
    i->local = c->local; i->remote = c->remote; i->server = c->server; i->established = c->connected; i->multipath = true;
    i->bytes_written = c->written; i->bytes_acked = c->written - (c->peer ? c->peer->rx.len : 0); i->bytes_read = c->rd; i->cc = "none"; i->sched = "none";
}
int mpc_get_subflows(const struct mpc *c, struct mpc_subflow_info *v, int max) { (void)c, (void)v, (void)max; return 0; }
int mpc_get_paths(const struct mpc *c, struct mpc_path_info *v, int max)
{
    (void)max;
    memset(v, 0, sizeof *v);
    strcpy(v->ifname, "fake0");
    v->local = c->local.ip; v->bytes_sent = c->written; v->bytes_received = c->rd;
    return 1;
}
struct mpc *mp_stack_first(struct mp_stack *s) { return s->all; }
struct mpc *mp_stack_next(struct mpc *c) { return c->next; }
uint64_t mp_stack_counter(const struct mp_stack *s, int k) { (void)s, (void)k; return 0; }
int mp_stack_live(const struct mp_stack *s) { return s->n; }
int mp_stack_closing(const struct mp_stack *s) { (void)s; return 0; }

/* ---- io ---- */
struct io { int x; };
struct io *io_new(struct ev_loop *l, struct mp_stack **s, const struct io_cfg *c, int *err) { (void)l, (void)s, (void)c, (void)err; return calloc(1, sizeof(struct io)); }
void io_free(struct io *io) { free(io); }
void *io_flow_open(void *io, int i, const struct mp_endpoint *l, const struct mp_endpoint *r, bool p) { (void)io, (void)i, (void)l, (void)r, (void)p; return NULL; }
void io_flow_close(void *io, void *f) { (void)io, (void)f; }
uint16_t io_port_get(void *io, uint8_t f, bool fresh) { (void)io, (void)f, (void)fresh; return 1; }
int mpc_save(const struct mpc *c, FILE *f) { (void)c, (void)f; return -ENOSYS; } /* nothing of this one can move */
struct mpc *mpc_load(struct mp_stack *s, FILE *f, void *owner, mp_time now) { (void)s, (void)f, (void)owner, (void)now; return NULL; }
int io_route_lookup(struct io *io, const struct mp_addr *remote, uint32_t mark, struct mp_addr *local, int *ifindex, enum io_route_kind *kind)
{
    (void)io, (void)mark;
    *local = *remote;
    local->b[remote->family == 4 ? 3 : 15] ^= 0x80;
    *ifindex = 2;
    *kind = remote->family == 4 && remote->b[0] == 127 ? IO_ROUTE_LOCAL : IO_ROUTE_OK;
    return 0;
}
static int attach(int fd, struct sock_filter *f, unsigned short n)
{
    struct sock_fprog p = { n, f };
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p) ? -errno : 0;
}
int io_attach_drop_all(int fd)
{
    struct sock_filter f = BPF_STMT(BPF_RET | BPF_K, 0);
    return attach(fd, &f, 1);
}
int io_attach_only_loopback(int fd)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_IFINDEX), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff), BPF_STMT(BPF_RET | BPF_K, 0) };
    return attach(fd, f, 4);
}
