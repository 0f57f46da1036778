/* tests/io/endpoint.c: io/ with a toy in place of the protocol stack, for tests/test_io.py.
 *
 *   endpoint serve PORT MODE            answers connections, checks and acknowledges what comes; ends with standard input
 *   endpoint send IF LOCAL REMOTE PORT BYTES MODE [CORRUPT]
 *                                       sends BYTES of the pattern, go-back-N; CORRUPT: every n-th packet has a bad byte
 *   endpoint watch SECONDS              prints what io/ says about paths
 *   endpoint route ADDR IF LOCAL        what io/ says about a destination
 *   endpoint guard N                    holds N guarded ports until standard input ends
 *   endpoint doctor                     io_doctor's lines
 * MODE: raw, auto, fast. Prints one JSON object a line. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/internal.h"

#define PATTERN 65536
#define MSS 1400
#define WINDOW (2u << 20)
#define RTO MP_MS(200)
#define FLOWS 64

static uint8_t pattern[3 * PATTERN];

struct peer {
    void *flow;
    struct mp_endpoint local, remote;
    int ifindex;
    bool up, done;
    uint32_t iss, irs;       /* first sequence numbers, ours and theirs */
    uint64_t snd_una, snd_nxt, rcv_nxt, total; /* payload bytes */
    uint64_t wrong, out_of_order, repeated, resent, acks_due; /* repeated: received once more; resent: windows sent again */
    mp_time progress, started, heard; /* heard: of an ACK of something new */
    mp_dur stalled;          /* the longest time between two of those */
    int err; uint32_t mtu;   /* from mp_stack_net_error */
    bool quoted;
    bool no_way;             /* mp_stack_no_way */
};

/* The toy: what io/ sees of a stack. */
struct mp_stack {
    struct io *io;
    struct peer peer[FLOWS];
    int n;
    bool server, quiet;
    unsigned corrupt, sent_packets;
    uint64_t gso_packets, bad_pattern;
    uint32_t max_slice;
    mp_time fast_at;
};

static struct mp_stack toy, *stack = &toy;
static struct ev_loop *loop;

/* ---- sending ---- */

static void emit(struct peer *c, uint8_t flags, uint32_t seq, uint32_t ack, const uint8_t *data, uint32_t len)
{
    struct mp_pkt p = { .src = c->local, .dst = c->remote, .ifindex = c->ifindex, .flow = c->flow, .seq = seq, .ack = ack,
                        .wnd = 65535, .flags = flags, .len = len, .gso_size = len > MSS ? MSS : 0 };
    uint8_t copy[MP_SLICE_MAX];

    if (len) {
        uint32_t half = len / 3; /* odd offsets, for the checksum's sake */

        if (toy.corrupt && ++toy.sent_packets % toy.corrupt == 0) {
            memcpy(copy, data, len);
            copy[len / 2] ^= 0x40;
            data = copy;
        }
        p.niov = 2;
        p.iov[0] = (struct mp_iov){ data, half };
        p.iov[1] = (struct mp_iov){ data + half, len - half };
        if (len > MSS) toy.gso_packets++;
        if (len > toy.max_slice) toy.max_slice = len;
    }
    io_output(toy.io, &p);
}

static void fill_window(struct peer *c)
{
    while (c->up && c->snd_nxt < c->total && c->snd_nxt - c->snd_una < WINDOW && io_writable(toy.io, c->flow)) {
        uint32_t n = io_slice_max(toy.io, c->flow, MSS);

        n = (uint32_t)mp_min(n, c->total - c->snd_nxt);
        emit(c, MP_ACK | MP_PSH, c->iss + 1 + (uint32_t)c->snd_nxt, c->irs + 1, pattern + c->snd_nxt % PATTERN, n);
        c->snd_nxt += n;
    }
}

static void finish(struct peer *c);

static void pump(void *arg)
{
    (void)arg;
    for (int i = 0; i < toy.n; i++) {
        struct peer *c = &toy.peer[i];

        if (!c->flow) continue;
        if (c->acks_due) emit(c, MP_ACK, c->iss + 1, c->irs + 1 + (uint32_t)c->rcv_nxt, NULL, 0);
        c->acks_due = 0;
        if (!toy.server) {
            fill_window(c);
            if (c->err || (c->up && c->snd_una == c->total)) finish(c);
        }
    }
}

/* ---- receiving ---- */

static struct peer *find(const struct mp_pkt *p)
{
    for (int i = 0; i < toy.n; i++)
        if (toy.peer[i].flow && mp_endpoint_eq(&toy.peer[i].local, &p->dst) && mp_endpoint_eq(&toy.peer[i].remote, &p->src))
            return &toy.peer[i];
    return NULL;
}

static void accept_syn(const struct mp_pkt *p)
{
    struct peer *c = &toy.peer[toy.n];

    if (toy.n == FLOWS || !toy.server) return;
    *c = (struct peer){ .local = p->dst, .remote = p->src, .ifindex = p->ifindex, .iss = 1000, .irs = p->seq };
    c->flow = io_flow_open(toy.io, p->ifindex, &c->local, &c->remote, true);
    if (!c->flow) return;
    toy.n++;
    emit(c, MP_SYN | MP_ACK, c->iss, c->irs + 1, NULL, 0);
}

static void take_data(struct peer *c, const struct mp_pkt *p)
{
    uint64_t at = mp_expand32(c->rcv_nxt, p->seq - c->irs - 1 + 0u);

    c->acks_due++;
    if (at != c->rcv_nxt) {
        c->out_of_order += at > c->rcv_nxt;
        c->repeated += at < c->rcv_nxt;
        return;
    }
    if (memcmp(pattern + at % PATTERN, p->data.p, p->len)) c->wrong++;
    c->rcv_nxt += p->len;
}

void mp_stack_input(struct mp_stack *s, struct mp_pkt *p, mp_time now)
{
    struct peer *c = find(p);

    (void)s;
    if (!c) {
        if (p->flags & MP_SYN) accept_syn(p);
        return;
    }
    if (p->flags & MP_SYN) {
        c->irs = p->seq;
        if (!c->up) emit(c, MP_ACK, c->iss + 1, c->irs + 1, NULL, 0);
        c->up = true;
        c->progress = c->heard = now;
    } else if (p->len) {
        take_data(c, p);
    } else {
        uint64_t ack = mp_expand32(c->snd_una, p->ack - c->iss - 1 + 0u);

        if (ack > c->snd_una && ack <= c->snd_nxt) {
            c->snd_una = ack;
            c->stalled = mp_max(c->stalled, now - c->heard);
            c->progress = c->heard = now;
        }
    }
}

void mp_stack_writable(struct mp_stack *s, void *flow) { (void)s, (void)flow; }

void mp_stack_net_error(struct mp_stack *s, void *flow, int err, uint32_t seq, bool must_match, uint32_t mtu, mp_time now)
{
    (void)s, (void)now, (void)seq;
    for (int i = 0; i < toy.n; i++)
        if (toy.peer[i].flow == flow) {
            toy.peer[i].err = err;
            toy.peer[i].mtu = mtu;
            toy.peer[i].quoted = must_match;
        }
}

void mp_stack_no_way(struct mp_stack *s, void *flow, uint32_t seq, mp_time now)
{
    (void)s, (void)now, (void)seq;
    for (int i = 0; i < toy.n; i++) toy.peer[i].no_way |= toy.peer[i].flow == flow;
}

/* ---- paths ---- */

static const char *text(const struct mp_addr *a)
{
    static char s[INET6_ADDRSTRLEN];

    return inet_ntop(a->family == 4 ? AF_INET : AF_INET6, a->b, s, sizeof s);
}

static void say_path(const char *what, int ifindex, const struct mp_addr *ip, const char *name, bool backup)
{
    if (toy.quiet) return;
    printf("{\"event\": \"%s\", \"ifindex\": %d, \"ip\": \"%s\", \"name\": \"%s\", \"backup\": %s, \"ns\": %llu}\n", what, ifindex,
           text(ip), name, backup ? "true" : "false", (unsigned long long)io_now());
    fflush(stdout);
}

void mp_stack_local_add(struct mp_stack *s, const struct mp_local *l, mp_time now)
{
    (void)s, (void)now;
    say_path("add", l->ifindex, &l->ip, l->name, l->backup);
}

void mp_stack_local_del(struct mp_stack *s, int ifindex, const struct mp_addr *ip, mp_time now)
{
    (void)s, (void)now;
    say_path("del", ifindex, ip, "", false);
}

void mp_stack_input_unowned(struct mp_stack *s, struct mp_pkt *p, mp_time now) { (void)s, (void)p, (void)now; }

void mp_stack_routes_changed(struct mp_stack *s, mp_time now) { (void)s, (void)now; }

/* ---- commands ---- */

static void say_counters(const char *extra)
{
    const struct io_counters *n = &toy.io->n;

    printf("{%s, \"rx_raw\": %llu, \"rx_fast\": %llu, \"tx_raw\": %llu, \"tx_fast\": %llu, \"rx_copy\": %llu, "
           "\"rx_bad\": %llu, \"rx_csum\": %llu, \"rx_stray\": %llu, \"tx_queued\": %llu, \"tx_drop\": %llu, \"to_fast\": %llu, "
           "\"tx_probe\": %llu, \"filters\": %llu, \"gso\": %llu, \"max_slice\": %u}\n", extra,
           (unsigned long long)n->rx_raw, (unsigned long long)n->rx_fast, (unsigned long long)n->tx_raw,
           (unsigned long long)n->tx_fast, (unsigned long long)n->rx_copy, 
           (unsigned long long)n->rx_bad, (unsigned long long)n->rx_csum, (unsigned long long)n->rx_stray,
           (unsigned long long)n->tx_queued, (unsigned long long)n->tx_drop, (unsigned long long)n->to_fast,
           (unsigned long long)n->tx_probe, (unsigned long long)n->filters, (unsigned long long)toy.gso_packets, toy.max_slice);
    fflush(stdout);
}

static void finish(struct peer *c)
{
    char extra[300];
    double s = (double)(io_now() - c->started) / 1e9;

    snprintf(extra, sizeof extra, "\"acked\": %llu, \"up\": %s, \"err\": %d, \"quoted\": %s, \"no_way\": %s, \"mtu\": %u, \"seconds\": %.6f, \"stalled\": %.6f, \"resent\": %llu, \"port\": %u",
             (unsigned long long)c->snd_una, c->up ? "true" : "false", c->err, c->quoted ? "true" : "false", c->no_way ? "true" : "false", c->mtu, s, (double)c->stalled / 1e9, (unsigned long long)c->resent, c->local.port);
    say_counters(extra);
    io_flow_close(toy.io, c->flow);
    io_port_put(toy.io, c->local.ip.family, c->local.port);
    c->flow = NULL;
    ev_break(loop, EVBREAK_ALL);
}

/* Retransmission: SYN, or everything that is unacknowledged. */
static void on_timer(struct ev_loop *l, ev_timer *w, int events)
{
    (void)l, (void)w, (void)events;
    for (int i = 0; i < toy.n; i++) {
        struct peer *c = &toy.peer[i];

        if (!c->flow || toy.server || io_now() - c->progress < RTO) continue;
        c->progress = io_now();
        if (!c->up) emit(c, MP_SYN, c->iss, 0, NULL, 0);
        c->resent += c->snd_nxt > c->snd_una;
        c->snd_nxt = c->snd_una;
    }
    pump(NULL);
}

static void on_stdin(struct ev_loop *l, ev_io *w, int events)
{
    char b[64];

    (void)events;
    if (read(w->fd, b, sizeof b) <= 0) ev_break(l, EVBREAK_ALL);
}

static struct mp_addr addr(const char *s)
{
    struct mp_addr a = { .family = strchr(s, ':') ? 6 : 4 };

    if (inet_pton(a.family == 4 ? AF_INET : AF_INET6, s, a.b) != 1) exit(2);
    return a;
}

static enum io_mode mode(const char *s) { return !strcmp(s, "raw") ? IO_RAW : !strcmp(s, "fast") ? IO_FAST : IO_AUTO; }

static void start(enum io_mode m)
{
    struct io_cfg cfg = { .mode = m, .kick = pump, .interfaces = getenv("IO_INTERFACES"), .backup = getenv("IO_BACKUP") };
    int err;

    loop = ev_loop_new(EVFLAG_AUTO);
    toy.io = io_new(loop, &stack, &cfg, &err);
    if (toy.io) return;
    printf("{\"failed\": %d}\n", err);
    exit(1);
}

/* The program's own listener, as the shim leaves it: it guards the port. */
static void open_listener(uint16_t port)
{
    struct sockaddr_in6 sa = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
    int fd = socket(AF_INET6, SOCK_STREAM, 0);

    if (fd < 0 || io_attach_only_loopback(fd) || bind(fd, (struct sockaddr *)&sa, sizeof sa) || listen(fd, 8)) {
        perror("listener");
        exit(1);
    }
}

static int serve(char **a)
{
    ev_io in;
    uint64_t bytes = 0, wrong = 0, ooo = 0, repeated = 0;
    char extra[200];

    toy.server = toy.quiet = true;
    start(mode(a[1]));
    open_listener((uint16_t)atoi(a[0]));
    printf("{\"listen\": %d}\n", io_listen(toy.io, 3, (uint16_t)atoi(a[0])));
    fflush(stdout);
    ev_io_init(&in, on_stdin, 0, EV_READ);
    ev_io_start(loop, &in);
    ev_run(loop, 0);
    for (int i = 0; i < toy.n; i++) {
        bytes += toy.peer[i].rcv_nxt;
        wrong += toy.peer[i].wrong;
        ooo += toy.peer[i].out_of_order;
        repeated += toy.peer[i].repeated;
    }
    snprintf(extra, sizeof extra, "\"received\": %llu, \"wrong\": %llu, \"out_of_order\": %llu, \"repeated\": %llu, \"connections\": %d",
             (unsigned long long)bytes, (unsigned long long)wrong, (unsigned long long)ooo, (unsigned long long)repeated, toy.n);
    say_counters(extra);
    return 0;
}

static int send_to(char **a)
{
    struct peer *c = &toy.peer[toy.n++];
    ev_timer t;

    toy.quiet = true;
    start(mode(a[5]));
    toy.corrupt = a[6] ? (unsigned)atoi(a[6]) : 0;
    c->ifindex = (int)if_nametoindex(a[0]);
    c->local = (struct mp_endpoint){ addr(a[1]), 0 };
    c->remote = (struct mp_endpoint){ addr(a[2]), (uint16_t)atoi(a[3]) };
    c->total = strtoull(a[4], NULL, 10);
    c->iss = 0xfffffff0u; /* sequence numbers wrap */
    c->local.port = io_port_get(toy.io, c->local.ip.family, false);
    c->started = c->progress = io_now();
    c->flow = io_flow_open(toy.io, c->ifindex, &c->local, &c->remote, false);
    if (!c->flow) {
        printf("{\"failed\": \"flow\"}\n");
        return 1;
    }
    ev_timer_init(&t, on_timer, 0.05, 0.05);
    ev_timer_start(loop, &t);
    emit(c, MP_SYN, c->iss, 0, NULL, 0);
    pump(NULL);
    if (c->flow) ev_run(loop, 0);
    return 0;
}

static void on_end(struct ev_loop *l, ev_timer *w, int events)
{
    (void)w, (void)events;
    ev_break(l, EVBREAK_ALL);
}

static int watch(char **a)
{
    ev_timer t;

    start(IO_AUTO);
    io_paths_start(toy.io);
    ev_timer_init(&t, on_end, atof(a[0]), 0.);
    ev_timer_start(loop, &t);
    ev_run(loop, 0);
    return 0;
}

static int route(char **a)
{
    struct mp_addr remote = addr(a[0]), local, from = addr(a[2]);
    int ifindex = 0, err;
    char name[IFNAMSIZ] = "";
    enum io_route_kind kind;

    toy.quiet = true;
    start(IO_AUTO);
    io_paths_start(toy.io);
    err = io_route_lookup(toy.io, &remote, 0, &local, &ifindex, &kind);
    if_indextoname((unsigned)ifindex, name);
    printf("{\"err\": %d, \"local\": \"%s\", \"name\": \"%s\", \"kind\": %d, \"route\": %s}\n", err,
           err || !local.family ? "" : text(&local), name, kind,
           io_route(toy.io, (int)if_nametoindex(a[1]), &from, &remote, 0) ? "true" : "false");
    return 0;
}

static int guard(char **a)
{
    start(IO_AUTO);
    printf("{\"ports\": [");
    for (int i = 0, n = atoi(a[0]); i < n; i++) printf("%s%u", i ? ", " : "", io_port_get(toy.io, 4, false));
    printf("]}\n");
    fflush(stdout);
    while (getchar() != EOF) {}
    return 0;
}

static void say_line(void *arg, bool ok, const char *what, const char *remedy)
{
    (void)arg;
    printf("{\"ok\": %s, \"what\": \"%s\", \"remedy\": \"%s\"}\n", ok ? "true" : "false", what, remedy ? remedy : "");
}

static int doctor(char **a)
{
    (void)a;
    start(IO_AUTO);
    return io_doctor(toy.io, say_line, NULL) > 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const struct { const char *name; int args; int (*run)(char **); } commands[] = {
        { "serve", 2, serve }, { "send", 6, send_to }, { "watch", 1, watch },
        { "route", 3, route }, { "guard", 1, guard },  { "doctor", 0, doctor },
    };

    for (size_t i = 0; i < sizeof pattern; i++) pattern[i] = (uint8_t)((i % PATTERN) * 31 + (i % PATTERN >> 8) * 7);
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(argv[1], commands[i].name) && argc >= 2 + commands[i].args) {
            int r = commands[i].run(argv + 2);

            io_free(toy.io);
            if (loop) ev_loop_destroy(loop);
            return r;
        }
    fprintf(stderr, "usage: see tests/io/endpoint.c\n");
    return 2;
}
