/*
 * linkem: emulated links between pairs of network interfaces.
 *
 *      host a                 this process                  host b
 *   eth0 ----- l0a [ a2b: hooks > queue > rate > loss > delay ] l0b ----- eth0
 *                  [ b2a: delay < loss < rate < queue < hooks ]
 *
 * Usage: linkem [-c CONTROL.sock] DEV_A,DEV_B [DEV_A,DEV_B ...]
 *
 * It prints "ready", then answers each command line on stdin by one line on
 * stdout, and ends when stdin closes. With -c the same commands are taken
 * as datagrams on a UNIX socket, and answered to the sender.
 *
 *   set LINK DIR KEY=VALUE...   LINK is 0.. or "all", DIR a2b, b2a or both
 *   hook LINK DIR [NAME...]     replaces the list of middleboxes
 *   stats                       one line of JSON
 *   help                        keys and middleboxes, as JSON
 *
 * The link counts a frame as tcpdump -e shows it: Ethernet header included,
 * preamble and checksum not. A frame takes its place in the drop-tail queue,
 * then the time that the rate gives it, and is lost, if it is to be, after
 * that: lost frames use the link too. All of this happens in virtual time,
 * from the kernel's arrival time stamps, so that a late wake-up delays
 * frames but changes neither the rate nor which of them are dropped. ARP and IPv6
 * neighbour discovery pass at once (but not through a blackhole): what is
 * emulated is a path through the network, not one's own Ethernet.
 *
 * The devices must hand over frames as they go on a wire: MTU-sized, with
 * checksums. On veth, switch tx, tso, gso and gro off at both hosts' ends.
 *
 * Measured (2 cores, virtual machine, Linux 6.18, 1514-byte frames and their
 * ACKs): 100 Mbit/s of MPTCP over two links take 17-25 % of one core, 300 Mbit/s
 * of TCP over one link 33 %, both mostly wake-ups; without a rate limit one link
 * carries 2.5-3.8 Gbit/s, 2.6 us a frame. This includes the receiving host's
 * TCP input, which the kernel runs in the sender's context.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    FRAME_MAX = 9 * 1024 + ETH_HLEN,  /* jumbo frames; longer ones count as oversize */
    BATCH     = 32,                   /* frames a system call */
    LINKS_MAX = 16,
    HOOKS_MAX = 8,
    BATCHES   = 8,                    /* read at most this many from one device in turn */
    TEXT_MAX  = 16 * 1024,            /* a command or its answer */
    SOCKBUF   = 16 << 20,
    EARLY_MIN_NS = 20 * 1000,         /* frames may leave this much before their time: */
    EARLY_MAX_NS = 100 * 1000,        /* a hundredth of the delay, within these bounds */
    NAP_MIN_NS   = 200 * 1000,        /* shorter naps (see nap_ns) are not worth it */
    NAP_MAX_NS   = 2 * 1000 * 1000,
    BUSY_NS      = 5 * 1000 * 1000,   /* naps are taken this long after a frame */
};
static const int64_t NEVER = INT64_MAX;

/* ---- frames ---------------------------------------------------------- */

struct frame {
    struct frame *next, *prev;
    int64_t  at_ns;            /* in the queue: arrival; on the wire: when it is due */
    uint32_t len;
    uint8_t  data[FRAME_MAX];
};

struct frame_list { struct frame *head, *tail; };

static struct frame *spare_frames;

static struct frame *frame_get(void)
{
    struct frame *f = spare_frames;
    if (f) {
        spare_frames = f->next;
        return f;
    }
    f = malloc(sizeof *f);
    if (!f) {
        fputs("linkem: out of memory\n", stderr);
        exit(1);
    }
    return f;
}

static void frame_put(struct frame *f)
{
    f->next = spare_frames;
    spare_frames = f;
}

static struct frame *frame_copy(const struct frame *f)
{
    struct frame *copy = frame_get();
    copy->at_ns = f->at_ns;
    copy->len = f->len;
    memcpy(copy->data, f->data, f->len);
    return copy;
}

static void list_insert_after(struct frame_list *l, struct frame *before, struct frame *f)
{
    f->prev = before;
    f->next = before ? before->next : l->head;
    *(f->prev ? &f->prev->next : &l->head) = f;
    *(f->next ? &f->next->prev : &l->tail) = f;
}

static void list_append(struct frame_list *l, struct frame *f)
{
    list_insert_after(l, l->tail, f);
}

/* Keeps the list sorted by time; nearly always the place is the tail. */
static void list_insert_by_time(struct frame_list *l, struct frame *f)
{
    struct frame *before = l->tail;
    while (before && before->at_ns > f->at_ns)
        before = before->prev;
    list_insert_after(l, before, f);
}

static struct frame *list_pop(struct frame_list *l)
{
    struct frame *f = l->head;
    l->head = f->next;
    *(f->next ? &f->next->prev : &l->tail) = NULL;
    return f;
}

/* ---- directions and links -------------------------------------------- */

/* X(field, meaning); the names are the keys of the JSON statistics. */
#define STATS(X)                                                        \
    X(rx_packets,     "frames that entered the link")                   \
    X(rx_bytes,       "their bytes")                                    \
    X(tx_packets,     "frames that left the link")                      \
    X(tx_bytes,       "their bytes")                                    \
    X(queue_drops,    "dropped because the queue was full")             \
    X(lost,           "lost at random, or by drop_next")                \
    X(blackholed,     "swallowed by a blackhole")                       \
    X(hook_drops,     "dropped by a middlebox")                         \
    X(hook_changes,   "changed by a middlebox")                         \
    X(duplicated,     "sent twice")                                     \
    X(reordered,      "held back, so that others overtook")             \
    X(oversize,       "dropped as too long: an offload is on")          \
    X(rx_overruns,    "lost before the emulator could read them")       \
    X(tx_errors,      "refused by the interface")                       \
    X(queued_bytes,   "in the queue now")                               \
    X(max_queued_bytes, "most ever in the queue")

#define X(field, meaning) int64_t field;
struct stats { STATS(X) };
#undef X

struct params {
    double  rate_bps;          /* 0: unlimited */
    int64_t delay_ns;
    int64_t jitter_ns;         /* up to this much more delay, order kept */
    int64_t queue_ns;          /* limit of the queue in time at the rate, if queue_bytes is 0 */
    int64_t queue_bytes;
    double  loss, duplicate, reorder;   /* probabilities */
    int64_t reorder_delay_ns;  /* how long a reordered frame is held back */
    int64_t drop_next;         /* lose this many frames from now on */
    bool    blackhole;
};

struct dir;
struct segment;
enum verdict { PASS, CHANGED, DROP };

/* A middlebox. It sees each TCP segment before the queue, may change it in
 * place (frame length included) or ask for it to be dropped. */
struct hook {
    const char *name, *meaning;
    enum verdict (*see)(struct dir *d, struct segment *s);
};

struct dir {
    int rx_fd, tx_fd;
    struct params p;
    struct stats stats;
    const struct hook *hooks[HOOKS_MAX + 1];   /* up to the first NULL */
    struct frame_list queue;   /* waiting for, or on, the link: arrival order */
    struct frame_list wire;    /* on their way: by due time */
    int64_t free_ns;           /* when the link has sent the last frame that left the queue */
    int64_t last_due_ns;       /* frames keep their order up to here */
    int64_t last_arrival_ns;
    uint64_t random;           /* state of the generator */
};

struct link { char name_a[IF_NAMESIZE], name_b[IF_NAMESIZE]; struct dir a2b, b2a; };

static struct link links[LINKS_MAX];
static int n_links;

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* splitmix64 */
static uint64_t random_u64(struct dir *d)
{
    uint64_t z = d->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static double random_unit(struct dir *d)
{
    return (double)(random_u64(d) >> 11) * 0x1p-53;
}

static bool chance(struct dir *d, double probability)
{
    return probability > 0 && random_unit(d) < probability;
}

/* ---- packets and middleboxes ----------------------------------------- */

struct segment {               /* a TCP segment inside a frame */
    struct frame *frame;
    uint8_t *ip, *tcp;
    unsigned tcp_header_len;   /* options included */
};

enum { TCP_FLAGS = 13, TCP_CHECKSUM = 16, TCP_OPTIONS = 20,
       FLAG_SYN = 0x02, FLAG_ACK = 0x10,
       OPT_END = 0, OPT_NOP = 1, OPT_MPTCP = 30 };

static unsigned get_be16(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }

static void put_be16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static bool is_neighbour_discovery(const struct frame *f)
{
    const uint8_t *ip = f->data + ETH_HLEN;
    unsigned type = get_be16(f->data + 12);
    if (type == ETH_P_ARP)
        return true;
    return type == ETH_P_IPV6 && f->len > ETH_HLEN + 40 && ip[6] == IPPROTO_ICMPV6
        && ip[40] >= 133 && ip[40] <= 137;
}

/* Length of the IP header if a TCP header follows it in this packet, or 0. */
static unsigned ip_header_before_tcp(const struct frame *f)
{
    const uint8_t *ip = f->data + ETH_HLEN;
    unsigned type = get_be16(f->data + 12);
    if (type == ETH_P_IP && f->len >= ETH_HLEN + 20 && ip[9] == IPPROTO_TCP
        && (get_be16(ip + 6) & 0x1fff) == 0)
        return (ip[0] & 15u) * 4;
    if (type == ETH_P_IPV6 && f->len >= ETH_HLEN + 40 && ip[6] == IPPROTO_TCP)
        return 40;
    return 0;
}

static bool segment_parse(struct segment *s, struct frame *f)
{
    unsigned ip_len = ip_header_before_tcp(f);
    if (!ip_len || f->len < ETH_HLEN + ip_len + TCP_OPTIONS)
        return false;
    s->frame = f;
    s->ip = f->data + ETH_HLEN;
    s->tcp = s->ip + ip_len;
    s->tcp_header_len = (s->tcp[12] >> 4) * 4u;
    return s->tcp_header_len >= TCP_OPTIONS && f->len >= ETH_HLEN + ip_len + s->tcp_header_len;
}

/* The first option of this kind at or after *at, its length in *len; or
 * NULL at the end or where the options are malformed. */
static uint8_t *option_find(const struct segment *s, uint8_t *at, int kind, unsigned *len)
{
    uint8_t *end = s->tcp + s->tcp_header_len;
    while (at < end && *at != OPT_END) {
        if (*at == OPT_NOP) {
            at++;
            continue;
        }
        if (at + 1 >= end || at[1] < 2 || at + at[1] > end)
            return NULL;
        if (*at == kind) {
            *len = at[1];
            return at;
        }
        at += at[1];
    }
    return NULL;
}

static bool carries_mptcp(const struct segment *s)
{
    unsigned len;
    return option_find(s, s->tcp + TCP_OPTIONS, OPT_MPTCP, &len);
}

static uint32_t sum_options(const struct segment *s)
{
    uint32_t sum = 0;
    for (unsigned i = TCP_OPTIONS; i < s->tcp_header_len; i += 2)
        sum += get_be16(s->tcp + i);
    return sum;
}

/* RFC 1624: new = ~(~old + ~before + after), in one's complement. */
static void checksum_adjust(struct segment *s, uint32_t before, uint32_t after)
{
    uint32_t sum = ~get_be16(s->tcp + TCP_CHECKSUM) & 0xffff;
    sum += after + (0xffff - before % 0xffff);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    put_be16(s->tcp + TCP_CHECKSUM, ~sum & 0xffff);
}

static enum verdict strip_mptcp(struct segment *s)
{
    uint32_t before = sum_options(s);
    uint8_t *at = s->tcp + TCP_OPTIONS;
    unsigned len;
    bool changed = false;
    while ((at = option_find(s, at, OPT_MPTCP, &len))) {
        memset(at, OPT_NOP, len);
        changed = true;
    }
    if (changed)
        checksum_adjust(s, before, sum_options(s));
    return changed ? CHANGED : PASS;
}

static bool is_syn(const struct segment *s)
{
    return (s->tcp[TCP_FLAGS] & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN;
}

static bool is_synack(const struct segment *s)
{
    return (s->tcp[TCP_FLAGS] & (FLAG_SYN | FLAG_ACK)) == (FLAG_SYN | FLAG_ACK);
}

static enum verdict see_strip_syn(struct dir *d, struct segment *s)
{
    (void)d;
    return is_syn(s) ? strip_mptcp(s) : PASS;
}

static enum verdict see_strip_synack(struct dir *d, struct segment *s)
{
    (void)d;
    return is_synack(s) ? strip_mptcp(s) : PASS;
}

static enum verdict see_strip_nonsyn(struct dir *d, struct segment *s)
{
    (void)d;
    return s->tcp[TCP_FLAGS] & FLAG_SYN ? PASS : strip_mptcp(s);
}

static enum verdict see_strip_all(struct dir *d, struct segment *s)
{
    (void)d;
    return strip_mptcp(s);
}

static enum verdict see_drop_mptcp_syn(struct dir *d, struct segment *s)
{
    (void)d;
    return is_syn(s) && carries_mptcp(s) ? DROP : PASS;
}

static const struct hook all_hooks[] = {
    { "strip-syn",      "replace the MPTCP options of a SYN by NOPs", see_strip_syn },
    { "strip-synack",   "the same for a SYN+ACK",                     see_strip_synack },
    { "strip-nonsyn",   "the same for segments without SYN",          see_strip_nonsyn },
    { "strip-all",      "the same for every segment",                 see_strip_all },
    { "drop-mptcp-syn", "drop a SYN that carries an MPTCP option",    see_drop_mptcp_syn },
};
enum { N_HOOKS = sizeof all_hooks / sizeof *all_hooks };

static enum verdict run_hooks(struct dir *d, struct frame *f)
{
    struct segment s;
    enum verdict all = PASS;
    for (const struct hook **h = d->hooks; *h; h++) {
        if (!segment_parse(&s, f))
            break;
        enum verdict one = (*h)->see(d, &s);
        if (one == DROP)
            return DROP;
        if (one == CHANGED)
            all = CHANGED;
    }
    return all;
}

/* ---- the link model --------------------------------------------------- */

static int64_t transmission_ns(const struct dir *d, uint32_t bytes)
{
    return d->p.rate_bps > 0 ? (int64_t)(bytes * 8e9 / d->p.rate_bps) : 0;
}

static bool queue_has_room(const struct dir *d, uint32_t bytes)
{
    if (d->p.rate_bps <= 0 || !d->queue.head)
        return true;
    double limit = d->p.queue_bytes ? (double)d->p.queue_bytes
                                    : (double)d->p.queue_ns * d->p.rate_bps / 8e9;
    return (double)d->stats.queued_bytes + bytes <= limit;
}

static void drop(struct frame *f, int64_t *why)
{
    ++*why;
    frame_put(f);
}

/* The frame's last bit has gone out at done_ns. */
static void onto_wire(struct dir *d, struct frame *f, int64_t done_ns)
{
    if (d->p.drop_next > 0) {
        d->p.drop_next--;
        drop(f, &d->stats.lost);
        return;
    }
    if (chance(d, d->p.loss)) {
        drop(f, &d->stats.lost);
        return;
    }
    f->at_ns = done_ns + d->p.delay_ns;
    if (d->p.jitter_ns)
        f->at_ns += (int64_t)(random_unit(d) * (double)d->p.jitter_ns);
    if (chance(d, d->p.reorder)) {
        f->at_ns += d->p.reorder_delay_ns;
        d->stats.reordered++;
    } else {
        f->at_ns = d->last_due_ns = max64(f->at_ns, d->last_due_ns);
    }
    list_insert_by_time(&d->wire, f);
    if (chance(d, d->p.duplicate)) {
        list_insert_by_time(&d->wire, frame_copy(f));
        d->stats.duplicated++;
    }
}

static int64_t head_done_ns(const struct dir *d)
{
    const struct frame *f = d->queue.head;
    return f ? max64(f->at_ns, d->free_ns) + transmission_ns(d, f->len) : NEVER;
}

/* Moves what the link has finished sending by now from the queue to the wire. */
static void serve_queue(struct dir *d, int64_t now)
{
    int64_t done;
    while ((done = head_done_ns(d)) <= now) {
        struct frame *f = list_pop(&d->queue);
        d->stats.queued_bytes -= f->len;
        d->free_ns = done;
        onto_wire(d, f, done);
    }
}

static void into_queue(struct dir *d, struct frame *f)
{
    serve_queue(d, f->at_ns);
    if (!queue_has_room(d, f->len)) {
        drop(f, &d->stats.queue_drops);
        return;
    }
    d->stats.queued_bytes += f->len;
    d->stats.max_queued_bytes = max64(d->stats.max_queued_bytes, d->stats.queued_bytes);
    list_append(&d->queue, f);
}

static void on_arrival(struct dir *d, struct frame *f)
{
    d->stats.rx_packets++;
    d->stats.rx_bytes += f->len;
    if (d->p.blackhole) {
        drop(f, &d->stats.blackholed);
        return;
    }
    if (is_neighbour_discovery(f)) {
        list_insert_by_time(&d->wire, f);
        return;
    }
    enum verdict v = d->hooks[0] ? run_hooks(d, f) : PASS;
    if (v == DROP) {
        drop(f, &d->stats.hook_drops);
        return;
    }
    d->stats.hook_changes += v == CHANGED;
    into_queue(d, f);
}

/* When the next frame is due. What is in the queue only needs serving in
 * time for its own arrival at the far end. */
static int64_t next_deadline(const struct dir *d)
{
    int64_t done = head_done_ns(d);
    int64_t due = d->wire.head ? d->wire.head->at_ns : NEVER;
    return done == NEVER ? due : min64(due, done + d->p.delay_ns);
}

/* ---- sockets ----------------------------------------------------------- */

static void die(const char *what, const char *name)
{
    fprintf(stderr, "linkem: %s %s: %s\n", what, name, strerror(errno));
    exit(1);
}

static void set_int(int fd, int level, int option, int value, const char *dev)
{
    if (setsockopt(fd, level, option, &value, sizeof value))
        die("setsockopt on", dev);
}

static int open_device(const char *dev)
{
    struct sockaddr_ll sll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
    struct packet_mreq promiscuous = { .mr_type = PACKET_MR_PROMISC };
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("packet socket for", dev);
    sll.sll_ifindex = promiscuous.mr_ifindex = (int)if_nametoindex(dev);
    if (!sll.sll_ifindex)
        die("no interface", dev);
    set_int(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1, dev);
    set_int(fd, SOL_PACKET, PACKET_QDISC_BYPASS, 1, dev);
    set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, SOCKBUF, dev);
    set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, SOCKBUF, dev);
    set_int(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1, dev);
    if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous))
        die("promiscuous mode on", dev);
    if (bind(fd, (struct sockaddr *)&sll, sizeof sll))
        die("bind to", dev);
    return fd;
}

static int64_t arrival_realtime_ns(struct msghdr *m)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    struct timespec t;
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS)
        return NEVER;
    memcpy(&t, CMSG_DATA(c), sizeof t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* Frames are read straight into their buffers. Returns how many came. */
static int receive_batch(struct dir *d)
{
    static struct frame *frames[BATCH];
    static char control[BATCH][CMSG_SPACE(sizeof(struct timespec))];
    struct mmsghdr msgs[BATCH];
    struct iovec iov[BATCH];

    memset(msgs, 0, sizeof msgs);
    for (int i = 0; i < BATCH; i++) {
        if (!frames[i])
            frames[i] = frame_get();
        iov[i] = (struct iovec){ frames[i]->data, FRAME_MAX };
        msgs[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1,
            .msg_control = control[i], .msg_controllen = sizeof control[i] };
    }
    int n = recvmmsg(d->rx_fd, msgs, BATCH, 0, NULL);
    int64_t now = clock_ns(CLOCK_MONOTONIC);
    int64_t offset = clock_ns(CLOCK_REALTIME) - now;
    for (int i = 0; i < n; i++) {
        struct frame *f = frames[i];
        if (msgs[i].msg_hdr.msg_flags & MSG_TRUNC || msgs[i].msg_len < ETH_HLEN) {
            d->stats.oversize++;
            continue;
        }
        frames[i] = NULL;
        f->len = msgs[i].msg_len;
        f->at_ns = min64(arrival_realtime_ns(&msgs[i].msg_hdr) - offset, now);
        f->at_ns = d->last_arrival_ns = max64(f->at_ns, d->last_arrival_ns);
        on_arrival(d, f);
    }
    return n;
}

/* Sends a batch; a frame that the interface refuses is counted and passed over. */
static void send_batch(struct dir *d, struct frame **frames, int n)
{
    struct mmsghdr msgs[BATCH];
    struct iovec iov[BATCH];
    memset(msgs, 0, sizeof msgs);
    for (int i = 0; i < n; i++) {
        iov[i] = (struct iovec){ frames[i]->data, frames[i]->len };
        msgs[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
    }
    for (int i = 0; i < n; ) {
        int sent = sendmmsg(d->tx_fd, msgs + i, (unsigned)(n - i), 0);
        if (sent <= 0) {
            d->stats.tx_errors++;
            sent = 1;
        } else {
            d->stats.tx_packets += sent;
            for (int k = i; k < i + sent; k++)
                d->stats.tx_bytes += frames[k]->len;
        }
        i += sent;
    }
    for (int i = 0; i < n; i++)
        frame_put(frames[i]);
}

static int64_t early_ns(const struct dir *d)
{
    return min64(max64(d->p.delay_ns / 100, EARLY_MIN_NS), EARLY_MAX_NS);
}

/* Sends the frames that are due. */
static void deliver(struct dir *d, int64_t now)
{
    struct frame *due[BATCH];
    int n = 0;
    serve_queue(d, now);
    while (d->wire.head && d->wire.head->at_ns <= now + early_ns(d)) {
        struct frame *f = list_pop(&d->wire);
        if (d->p.blackhole) {
            drop(f, &d->stats.blackholed);
            continue;
        }
        due[n++] = f;
        if (n == BATCH) {
            send_batch(d, due, n);
            n = 0;
        }
    }
    if (n)
        send_batch(d, due, n);
}

/* ---- commands ---------------------------------------------------------- */

struct text { char *at; size_t room; };

static void __attribute__((format(printf, 2, 3))) say(struct text *t, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(t->at, t->room, format, ap);
    va_end(ap);
    size_t used = n < 0 ? 0 : (size_t)n < t->room ? (size_t)n : t->room - 1;
    t->at += used;
    t->room -= used;
}

/* Numbers with a suffix, each kind of value with suffixes of its own. */
struct suffix { const char *text; double factor; };
static const struct suffix rate_suffixes[] = { {"", 1}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {0} };
static const struct suffix time_suffixes[] = { {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9},
                                               {"", 1e9}, {0} };
static const struct suffix byte_suffixes[] = { {"", 1}, {"k", 1024}, {"M", 1 << 20}, {0} };
static const struct suffix plain[] = { {"", 1}, {"%", 0.01}, {0} };

static bool parse_number(const char *text, const struct suffix *suffix, double *value)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || !(number >= 0))
        return false;
    for (; suffix->text; suffix++)
        if (!strcmp(end, suffix->text)) {
            *value = number * suffix->factor;
            return true;
        }
    return false;
}

enum key { K_RATE, K_DELAY, K_JITTER, K_QUEUE_TIME, K_QUEUE_BYTES, K_LOSS, K_DUPLICATE,
           K_REORDER, K_REORDER_DELAY, K_DROP_NEXT, K_BLACKHOLE, K_SEED };

/* A name may stand twice: the first row whose suffixes fit is taken. */
static const struct {
    const char *name; enum key key; const struct suffix *suffixes; const char *meaning;
} all_keys[] = {
    { "rate",      K_RATE,        rate_suffixes, "bit/s (k, M, G); 0: unlimited" },
    { "delay",     K_DELAY,       time_suffixes, "one way (ns, us, ms, s)" },
    { "jitter",    K_JITTER,      time_suffixes, "up to this much more delay, order kept" },
    { "queue",     K_QUEUE_BYTES, byte_suffixes, "limit in bytes (k, M)" },
    { "queue",     K_QUEUE_TIME,  time_suffixes, "or in time at the rate (us, ms, s)" },
    { "loss",      K_LOSS,        plain,         "probability, or with %" },
    { "duplicate", K_DUPLICATE,   plain,         "probability" },
    { "reorder",   K_REORDER,     plain,         "probability of being held back" },
    { "reorder_delay", K_REORDER_DELAY, time_suffixes, "by this time" },
    { "drop_next", K_DROP_NEXT,   plain,         "lose this many frames" },
    { "blackhole", K_BLACKHOLE,   plain,         "1: everything vanishes, what is on its way too" },
    { "seed",      K_SEED,        plain,         "of the random numbers" },
};
enum { N_KEYS = sizeof all_keys / sizeof *all_keys };

static void apply_key(struct dir *d, enum key key, double v)
{
    int64_t whole = (int64_t)v;
    switch (key) {
    case K_RATE:          d->p.rate_bps = v; break;
    case K_DELAY:         d->p.delay_ns = whole; break;
    case K_JITTER:        d->p.jitter_ns = whole; break;
    case K_QUEUE_BYTES:   d->p.queue_bytes = max64(whole, 1); break;
    case K_QUEUE_TIME:    d->p.queue_ns = whole; d->p.queue_bytes = 0; break;
    case K_LOSS:          d->p.loss = v; break;
    case K_DUPLICATE:     d->p.duplicate = v; break;
    case K_REORDER:       d->p.reorder = v; break;
    case K_REORDER_DELAY: d->p.reorder_delay_ns = whole; break;
    case K_DROP_NEXT:     d->p.drop_next = whole; break;
    case K_BLACKHOLE:     d->p.blackhole = whole != 0; break;
    case K_SEED:          d->random = (uint64_t)whole; break;
    }
}

static bool set_one(struct dir *d, const char *name, const char *value)
{
    double v;
    for (int i = 0; i < N_KEYS; i++)
        if (!strcmp(all_keys[i].name, name) && parse_number(value, all_keys[i].suffixes, &v)) {
            apply_key(d, all_keys[i].key, v);
            return true;
        }
    return false;
}

static const struct hook *find_hook(const char *name)
{
    for (int i = 0; i < N_HOOKS; i++)
        if (!strcmp(all_hooks[i].name, name))
            return &all_hooks[i];
    return NULL;
}

/* "0 a2b" or "all both": fills dirs, returns how many; 0 if there is no such. */
static int pick_dirs(const char *link, const char *dir, struct dir **dirs)
{
    char *end = NULL;
    long only = link && strcmp(link, "all") ? strtol(link, &end, 10) : -1;
    int n = 0;
    if (!link || !dir || (end && *end))
        return 0;
    for (int i = 0; i < n_links; i++) {
        if (only >= 0 && i != only)
            continue;
        if (!strcmp(dir, "a2b") || !strcmp(dir, "both"))
            dirs[n++] = &links[i].a2b;
        if (!strcmp(dir, "b2a") || !strcmp(dir, "both"))
            dirs[n++] = &links[i].b2a;
    }
    return n;
}

static void command_set(struct dir **dirs, int n, char **save, struct text *out)
{
    char *word;
    while ((word = strtok_r(NULL, " ", save))) {
        char *value = strchr(word, '=');
        if (value)
            *value++ = 0;
        for (int i = 0; i < n; i++)
            if (!value || !set_one(dirs[i], word, value)) {
                say(out, "error: bad setting %s=%s\n", word, value ? value : "");
                return;
            }
    }
    say(out, "ok\n");
}

static void command_hook(struct dir **dirs, int n, char **save, struct text *out)
{
    const struct hook *list[HOOKS_MAX + 1] = { 0 };
    char *word;
    for (int k = 0; (word = strtok_r(NULL, " ", save)); k++) {
        if (k == HOOKS_MAX || !(list[k] = find_hook(word))) {
            say(out, "error: no middlebox %s\n", word);
            return;
        }
    }
    for (int i = 0; i < n; i++)
        memcpy(dirs[i]->hooks, list, sizeof list);
    say(out, "ok\n");
}

static void read_overruns(struct dir *d)
{
    struct tpacket_stats st;
    socklen_t len = sizeof st;
    if (!getsockopt(d->rx_fd, SOL_PACKET, PACKET_STATISTICS, &st, &len))
        d->stats.rx_overruns += st.tp_drops;
}

static void say_stats(struct dir *d, struct text *out)
{
    const char *comma = "";
    read_overruns(d);
    say(out, "{");
#define X(field, meaning) say(out, "%s\"" #field "\":%" PRId64, comma, d->stats.field); comma = ",";
    STATS(X)
#undef X
    say(out, "}");
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec)
         + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void command_stats(struct text *out)
{
    say(out, "{\"cpu_s\":%.3f,\"links\":[", cpu_seconds());
    for (int i = 0; i < n_links; i++) {
        say(out, "%s{\"a\":\"%s\",\"b\":\"%s\",\"a2b\":", i ? "," : "", links[i].name_a, links[i].name_b);
        say_stats(&links[i].a2b, out);
        say(out, ",\"b2a\":");
        say_stats(&links[i].b2a, out);
        say(out, "}");
    }
    say(out, "]}\n");
}

static void command_help(struct text *out)
{
    say(out, "{\"set\":[");
    for (int i = 0; i < N_KEYS; i++)
        say(out, "%s[\"%s\",\"%s\"]", i ? "," : "", all_keys[i].name, all_keys[i].meaning);
    say(out, "],\"hook\":[");
    for (int i = 0; i < N_HOOKS; i++)
        say(out, "%s[\"%s\",\"%s\"]", i ? "," : "", all_hooks[i].name, all_hooks[i].meaning);
    say(out, "]}\n");
}

static void run_command(char *line, struct text *out)
{
    struct dir *dirs[2 * LINKS_MAX];
    char *save;
    char *verb = strtok_r(line, " \r\n", &save);
    if (!verb)
        say(out, "error: empty command\n");
    else if (!strcmp(verb, "stats"))
        command_stats(out);
    else if (!strcmp(verb, "help"))
        command_help(out);
    else if (strcmp(verb, "set") && strcmp(verb, "hook"))
        say(out, "error: no command %s\n", verb);
    else {
        char *link = strtok_r(NULL, " ", &save);
        char *dir = strtok_r(NULL, " ", &save);
        int n = pick_dirs(link, dir, dirs);
        if (!n)
            say(out, "error: no such link or direction\n");
        else if (!strcmp(verb, "set"))
            command_set(dirs, n, &save, out);
        else
            command_hook(dirs, n, &save, out);
    }
}

static void answer_line(char *line)
{
    char answer[TEXT_MAX];
    struct text out = { answer, sizeof answer };
    run_command(line, &out);
    fputs(answer, stdout);
    fflush(stdout);
}

/* Returns false when stdin has closed. */
static bool read_stdin(void)
{
    static char buffer[TEXT_MAX];
    static size_t used;
    ssize_t n = read(STDIN_FILENO, buffer + used, sizeof buffer - 1 - used);
    if (n <= 0)
        return n < 0 && errno == EINTR;
    used += (size_t)n;
    buffer[used] = 0;
    char *line = buffer, *end;
    while ((end = strchr(line, '\n'))) {
        *end = 0;
        answer_line(line);
        line = end + 1;
    }
    used = strlen(line);
    memmove(buffer, line, used);
    return used < sizeof buffer - 1;
}

static int open_control(const char *path)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    if (!path)
        return -1;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof un))
        die("control socket", path);
    return fd;
}

static void read_control(int fd)
{
    char line[TEXT_MAX], answer[TEXT_MAX];
    struct sockaddr_un from;
    socklen_t from_len = sizeof from;
    struct text out = { answer, sizeof answer };
    ssize_t n = recvfrom(fd, line, sizeof line - 1, 0, (struct sockaddr *)&from, &from_len);
    if (n < 0)
        return;
    line[strcspn((line[n] = 0, line), "\n")] = 0;
    run_command(line, &out);
    sendto(fd, answer, strlen(answer), MSG_DONTWAIT, (struct sockaddr *)&from, from_len);
}

/* ---- main loop ---------------------------------------------------------- */

static struct dir *dir_at(int i)
{
    return i % 2 ? &links[i / 2].b2a : &links[i / 2].a2b;
}

static void add_link(char *pair)
{
    static const struct params nothing = { .queue_ns = 100 * 1000000 };
    struct link *l = &links[n_links];
    char *comma = strchr(pair, ',');
    if (!comma || n_links == LINKS_MAX) {
        fprintf(stderr, "linkem: bad link %s\n", pair);
        exit(2);
    }
    *comma = 0;
    snprintf(l->name_a, sizeof l->name_a, "%s", pair);
    snprintf(l->name_b, sizeof l->name_b, "%s", comma + 1);
    int fd_a = open_device(l->name_a), fd_b = open_device(l->name_b);
    uint64_t seed = 2 * (uint64_t)n_links + 1;
    l->a2b = (struct dir){ .rx_fd = fd_a, .tx_fd = fd_b, .p = nothing, .random = seed };
    l->b2a = (struct dir){ .rx_fd = fd_b, .tx_fd = fd_a, .p = nothing, .random = seed + 1 };
    n_links++;
}

/* How long arrivals may go unread: nothing that arrives on a link can be due
 * sooner than its delay. Waking up once a frame, not sending it, is what costs
 * (20 us of 23 a frame at 100 Mbit/s), so a busy emulator reads its devices
 * when frames are due to leave, and else only this often. */
static int64_t nap_ns(void)
{
    int64_t nap = NAP_MAX_NS;
    for (int i = 0; i < 2 * n_links; i++)
        nap = min64(nap, dir_at(i)->p.delay_ns / 2);
    return nap >= NAP_MIN_NS ? nap : 0;
}

static int64_t earliest_deadline(void)
{
    int64_t deadline = NEVER;
    for (int i = 0; i < 2 * n_links; i++)
        deadline = min64(deadline, next_deadline(dir_at(i)));
    return deadline;
}

/* Sleeps until a descriptor is readable or the time has come. */
static void wait_for(struct pollfd *fds, int n, int64_t deadline)
{
    int64_t left = deadline == NEVER ? NEVER : max64(deadline - clock_ns(CLOCK_MONOTONIC), 0);
    struct timespec t = { left / 1000000000, left % 1000000000 };
    for (int i = 0; i < n; i++)
        fds[i].revents = 0;
    ppoll(fds, (nfds_t)n, left == NEVER ? NULL : &t, NULL);
}

/* Reads one device; returns how many frames came. */
static int receive(struct dir *d)
{
    int all = 0;
    for (int i = 0, n = BATCH; i < BATCHES && n == BATCH; i++) {
        n = receive_batch(d);
        all += n > 0 ? n : 0;
        deliver(d, clock_ns(CLOCK_MONOTONIC));
    }
    return all;
}

static void run(int control_fd)
{
    enum { STDIN, CONTROL, FIRST_DEVICE };
    struct pollfd fds[FIRST_DEVICE + 2 * LINKS_MAX];
    int n_dirs = 2 * n_links;
    int64_t last_frame_ns = 0;
    fds[STDIN] = (struct pollfd){ .fd = STDIN_FILENO, .events = POLLIN };
    fds[CONTROL] = (struct pollfd){ .fd = control_fd, .events = POLLIN };
    for (int i = 0; i < n_dirs; i++)
        fds[FIRST_DEVICE + i] = (struct pollfd){ .fd = dir_at(i)->rx_fd, .events = POLLIN };

    for (;;) {
        int64_t nap = nap_ns(), now = clock_ns(CLOCK_MONOTONIC);
        if (nap && now < last_frame_ns + BUSY_NS)
            wait_for(fds, FIRST_DEVICE, min64(earliest_deadline(), now + nap));
        else
            wait_for(fds, FIRST_DEVICE + n_dirs, earliest_deadline());
        if (fds[STDIN].revents && !read_stdin())
            return;
        if (fds[CONTROL].revents)
            read_control(control_fd);
        for (int i = 0; i < n_dirs; i++)
            if (receive(dir_at(i)))
                last_frame_ns = now;
        for (int i = 0; i < n_dirs; i++)
            deliver(dir_at(i), clock_ns(CLOCK_MONOTONIC));
    }
}

/* Timers to the nanosecond, and ahead of the programs under test. Both are
 * wishes: without them the emulator is only less exact. */
static void ask_for_precision(void)
{
    struct sched_param first = { .sched_priority = 1 };
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    sched_setscheduler(0, SCHED_RR, &first);
}

int main(int argc, char **argv)
{
    const char *control = NULL;
    int opt;
    while ((opt = getopt(argc, argv, "c:")) != -1) {
        if (opt != 'c')
            return 2;
        control = optarg;
    }
    if (optind == argc) {
        fputs("usage: linkem [-c CONTROL.sock] DEV_A,DEV_B ...\n", stderr);
        return 2;
    }
    for (; optind < argc; optind++)
        add_link(argv[optind]);
    int control_fd = open_control(control);
    ask_for_precision();
    puts("ready");
    fflush(stdout);
    run(control_fd);
    if (control)
        unlink(control);
    return 0;
}
