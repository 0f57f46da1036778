/* device.c: packet sockets on the link's two ends. */
#include "linkem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum {
    SOCKBUF   = 16 << 20,
    EARLY_MIN_NS = 20 * 1000,         /* frames may leave this much before their time: */
    EARLY_MAX_NS = 100 * 1000,        /* a hundredth of the delay, within these bounds */
};

int64_t clock_ns(int id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void drop(struct frame *f, int64_t *why)
{
    ++*why;
    frame_put(f);
}

void die(const char *what, const char *name)
{
    fprintf(stderr, "linkem: %s %s: %s\n", what, name, strerror(errno));
    exit(1);
}

static void set_int(int fd, int level, int option, int value, const char *dev)
{
    if (setsockopt(fd, level, option, &value, sizeof value))
        die("setsockopt on", dev);
}

int open_device(const char *dev)
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
int receive_batch(struct dir *d)
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
void send_batch(struct dir *d, struct frame **frames, int n)
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
void deliver(struct dir *d, int64_t now)
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
