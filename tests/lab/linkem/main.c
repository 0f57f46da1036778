/*
 * linkem: emulated links between pairs of network interfaces.
 *
 *      host a                 this process                  host b
 *   eth0 ----- l0a [ a2b: boxes > queue > rate > loss > delay ] l0b ----- eth0
 *                  [ b2a: delay < loss < rate < queue < boxes ]
 *
 * Usage: linkem [-c CONTROL.sock] DEV_A,DEV_B [DEV_A,DEV_B ...]
 *
 * It prints "ready", then answers each command line on stdin by one line on
 * stdout, and ends when stdin closes. With -c the same commands are taken
 * as datagrams on a UNIX socket, and answered to the sender.
 *
 *   set LINK DIR KEY=VALUE...   LINK is 0.. or "all", DIR a2b, b2a or both
 *   hook LINK DIR [BOX...]      replaces the list of middleboxes (libmpshim/sim/box.h): NAME[,KEY=VALUE...],
 *                               such as "seq", "merge-any,size=1400,most=1", "nat-expire,nat=10.10.1.9,after=200k";
 *                               see boxes.c for the keys
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
#include "linkem.h"

#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    BATCHES   = 8,                    /* read at most this many from one device in turn */
    NAP_MIN_NS   = 200 * 1000,        /* shorter naps (see nap_ns) are not worth it */
    NAP_MAX_NS   = 2 * 1000 * 1000,
    BUSY_NS      = 5 * 1000 * 1000,   /* naps are taken this long after a frame */
};

struct link links[LINKS_MAX];
int n_links;

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
    l->a2b.link = l->b2a.link = l;
    l->b2a.number = 1;
    boxes_init(l);
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
    for (int i = 0; i < n_links; i++)
        deadline = min64(deadline, boxes_deadline(&links[i]));
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
        for (int i = 0; i < n_links; i++)
            boxes_run(&links[i], clock_ns(CLOCK_MONOTONIC));
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
