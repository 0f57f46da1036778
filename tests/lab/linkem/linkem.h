/* linkem.h: what the files of the emulator share. main.c says what it is.
 *
 *   frame.c    frames and lists of them            model.c   queue, rate, delay, loss
 *   boxes.c    middleboxes: the simulator's own    device.c  packet sockets
 *   control.c  commands                            main.c    the loop */
#ifndef LINKEM_H
#define LINKEM_H

#include <linux/if_ether.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "sim/box.h"

enum {
    FRAME_MAX = 9 * 1024 + ETH_HLEN,  /* jumbo frames; longer ones count as oversize */
    BATCH     = 32,                   /* frames a system call */
    LINKS_MAX = 16,
    BOXES_MAX = 8,                    /* of one link */
    TEXT_MAX  = 16 * 1024,            /* a command or its answer */
};
static const int64_t NEVER = INT64_MAX;

struct frame {
    struct frame *next, *prev;
    int64_t  at_ns;            /* in the queue: arrival; on the wire: when it is due */
    uint32_t len;
    uint8_t  data[FRAME_MAX];
};

struct frame_list { struct frame *head, *tail; };

/* X(field, meaning); the names are the keys of the JSON statistics. */
#define STATS(X)                                                        \
    X(rx_packets,     "frames that entered the link")                   \
    X(rx_bytes,       "their bytes")                                    \
    X(tx_packets,     "frames that left the link")                      \
    X(tx_bytes,       "their bytes")                                    \
    X(queue_drops,    "dropped because the queue was full")             \
    X(lost,           "lost at random, or by drop_next")                \
    X(marked,         "marked CE (RFC 3168)")                           \
    X(blackholed,     "swallowed by a blackhole")                       \
    X(hook_drops,     "dropped by middleboxes of the present list")                         \
    X(hook_changes,   "changed, joined, split, ... by them")                         \
    X(duplicated,     "sent twice")                                     \
    X(reordered,      "held back, so that others overtook")             \
    X(oversize,       "dropped as too long: an offload is on, or a box made it longer than the link takes")          \
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
    int64_t ce_bytes;          /* mark ECT packets when more than this waits; 0: never */
    bool    blackhole;
};

struct link;
struct dir {
    int rx_fd, tx_fd;
    struct params p;
    struct stats stats;
    struct link *link;         /* the one that it belongs to */
    int number;                /* 0: a2b, 1: b2a */
    uint8_t ethernet[ETH_HLEN]; /* header of the latest frame: for packets that a box makes */
    struct frame_list queue;   /* waiting for, or on, the link: arrival order */
    struct frame_list wire;    /* on their way: by due time */
    int64_t free_ns;           /* when the link has sent the last frame that left the queue */
    int64_t last_due_ns;       /* frames keep their order up to here */
    int64_t last_arrival_ns;
    uint64_t random;           /* state of the generator */
};

/* The middleboxes of a link are nodes of a simulated world whose clock is the real one; see boxes.c. */
struct boxes {
    struct sim world;
    struct sim_box *box[BOXES_MAX];
    int n;
    uint64_t bytes;            /* that entered the link since the boxes were set */
    uint64_t after;            /* boxes begin when so many have; 0: at their own time */
    uint64_t strange;          /* TCP frames that were passed by: not parsed, or the checksum was wrong already */
};

struct link { char name_a[IF_NAMESIZE], name_b[IF_NAMESIZE]; struct dir a2b, b2a; struct boxes boxes; };

extern struct link links[LINKS_MAX];
extern int n_links;

static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- frame.c */
struct frame *frame_get(void);
void frame_put(struct frame *f);
struct frame *frame_copy(const struct frame *f);
void list_append(struct frame_list *l, struct frame *f);
void list_insert_by_time(struct frame_list *l, struct frame *f); /* keeps the list sorted */
struct frame *list_pop(struct frame_list *l);

/* ---- model.c */
void on_arrival(struct dir *d, struct frame *f);     /* takes the frame */
void into_queue(struct dir *d, struct frame *f);     /* past the boxes */
void serve_queue(struct dir *d, int64_t now);        /* from the queue to the wire, what the link has sent by now */
int64_t next_deadline(const struct dir *d);

/* ---- boxes.c */
void boxes_init(struct link *l);
const char *boxes_set(struct link *l, char **specs, int n, unsigned dirs); /* replaces all; NULL, or what is wrong */
bool boxes_take(struct dir *d, struct frame *f);     /* false: not for them, the frame is still the caller's */
void boxes_run(struct link *l, int64_t now);
int64_t boxes_deadline(const struct link *l);
void boxes_stats(const struct dir *d, struct stats *s);

/* ---- device.c */
int64_t clock_ns(int id);
void die(const char *what, const char *name) __attribute__((noreturn));
int open_device(const char *dev);
int receive_batch(struct dir *d);                    /* how many frames came */
void send_batch(struct dir *d, struct frame **frames, int n);
void deliver(struct dir *d, int64_t now);            /* sends the frames that are due */

/* ---- control.c: commands */
struct text { char *at; size_t room; };
void say(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool parse_time(const char *text, int64_t *ns);
bool parse_bytes(const char *text, uint64_t *n);
bool read_stdin(void);                               /* false when it has closed */
int open_control(const char *path);
void read_control(int fd);

#endif
