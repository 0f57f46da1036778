/* core/stack_int.h: the stack's own state. Inside core/ only. */
#ifndef MP_STACK_INT_H
#define MP_STACK_INT_H

#include "core/conn.h"

#define ST_HASH 4096 /* buckets; power of two */
#define ST_MAX_LOCAL 16
#define ST_MAX_STRAY 32
#define ST_HALF 256  /* buckets */

struct listener {
    struct listener *next;
    struct mp_endpoint at;
    unsigned families;
    int backlog, pending; /* pending: connections not yet accepted */
    uint32_t mark, priority; uint8_t tos, ttl; /* of our packets: as struct mpc has them */
    void *owner;
};
/* A connection's place among the deadlines. What is compared stands here: most connections lie in TIME_WAIT, in memory
 * that no cache holds any more. */
struct st_due { mp_time at; uint64_t made; struct mpc *c; };

struct mp_stack {
    struct mp_stack_ops ops;
    void *arg;
    struct mp_settings set;
    struct sf *hash[ST_HASH];
    struct mpc *tokens[ST_HASH];
    struct listener *listeners;
    struct mp_local local[ST_MAX_LOCAL]; /* by interface, then family */
    int nlocal;
    struct mpc *all;
    struct mpc *ready, **ready_tail;
    struct mpc *events, **events_tail;
    struct st_due *heap; int heap_n, heap_cap; /* by deadline, then age: the same wherever a connection was loaded */
    uint64_t made;
    struct mp_chunk *chunk_free; int chunk_nfree;
    struct mp_pkt stray[ST_MAX_STRAY]; int nstray; void *stray_flow; /* RSTs for segments of nobody */
    uint64_t counter[MP_E_COUNT];
    uint32_t hash_seed;
    uint8_t isn_key[16], ts_key[16];
    uint32_t follow_end; bool follows; /* the SYN at hand takes the place of a TIME_WAIT: the new number is past this */
    struct half *half[ST_HALF]; int nhalf; mp_time half_at; /* half.c; when it next has to do */
    bool replaying; /* what is done now was done and counted before: half.c */
    bool join_elsewhere; /* joins with unknown tokens are another stack's */
    mp_time cookies_at; uint8_t cookie_secret[16]; /* cookie.c: last used; 0: never */
    mp_time now;
    int nconn;
    uint64_t mem, mem_peak;     /* bytes of data held by all connections: mem.c */
    int ntime_wait;             /* subflows in TIME_WAIT */
};
#define ST_TIME_WAIT_MANY 4096  /* more of them, and each waits a shorter time: sf.c */

/* ---- stack.c ---- */
void st_count(struct mp_stack *st, enum mp_event_id e, uint64_t n, const struct mpc *c);
uint32_t st_rand32(struct mp_stack *st);

/* ---- stack_table.c ---- */
uint32_t st_tuple_hash(const struct mp_stack *st, const struct mp_endpoint *l, const struct mp_endpoint *r);
void st_hash_add(struct mp_stack *st, struct sf *s);
void st_hash_del(struct mp_stack *st, struct sf *s);
struct sf *st_find(struct mp_stack *st, const struct mp_endpoint *local, const struct mp_endpoint *remote);
struct mpc *st_token_find(struct mp_stack *st, uint32_t token);
void st_token_add(struct mp_stack *st, struct mpc *c);
void st_token_del(struct mp_stack *st, struct mpc *c);
void st_deadline_moved(struct mpc *c);                     /* to its place among the deadlines */
struct mpc *conn_link(struct mp_stack *st, struct mpc *c); /* into all lists; NULL: no memory */
void st_conn_gone(struct mpc *c);                          /* out of all lists */

/* ---- stack_open.c ---- */
bool st_has_local(const struct mp_stack *st, int ifindex, const struct mp_addr *ip);
struct sf *st_sf_make(struct mpc *c, int ifindex, const struct mp_endpoint *local, const struct mp_endpoint *remote, bool passive, mp_time now);
/* An outgoing subflow of c: port, flow, struct; NULL with *err. Not yet in SYN_SENT. */
struct sf *st_sf_open(struct mpc *c, int ifindex, const struct mp_addr *local, const struct mp_endpoint *remote, mp_time now, int *err);
void st_accepted(struct mpc *c);                           /* one less waits at its listener */

/* ---- stack_in.c ---- */
struct mp_pkt *st_stray(struct mp_stack *st, const struct mp_pkt *p); /* an answer to p that belongs to no subflow; NULL: too many wait */
void st_stray_rst(struct mp_stack *st, const struct mp_pkt *p, int reason); /* reason < 0: without MP_TCPRST */

/* ---- half.c: connections whose third ACK has not come ---- */
void half_syn(struct mp_stack *st, const struct mp_pkt *p, const struct mp_opts *o, mp_time now); /* a new one */
/* A segment of no connection: true: it is for a half-open one. *s: that is one from now on, and the segment is for it. */
bool half_input(struct mp_stack *st, const struct mp_pkt *p, const struct mp_opts *o, struct sf **s, mp_time now);
bool half_has_token(const struct mp_stack *st, uint32_t token);
mp_time half_deadline(const struct mp_stack *st);        /* the earliest of all: st->half_at */
void half_tick(struct mp_stack *st, mp_time now);
void half_settle(struct mp_stack *st, mp_time now); /* all become connections */
void half_listeners_changed(struct mp_stack *st, mp_time keep_until); /* adds each to its listener's `pending`; those without are refused then */
void half_fini(struct mp_stack *st);

/* ---- accept.c ---- */
struct listener *st_listener_for(struct mp_stack *st, const struct mp_endpoint *to);
void st_syn_in(struct mp_stack *st, struct mp_pkt *p, const struct mp_opts *o, mp_time now);
bool st_may_open(struct mp_stack *st, const struct listener *l); /* one more of l's (NULL: nobody's): false, and counted: at a limit */
bool st_offer_ok(const struct mp_opts *o); /* an MP_CAPABLE that can be answered */
struct sf *st_passive_open(struct mp_stack *st, const struct mp_pkt *p, const struct mp_opts *o, const uint64_t *key, mp_time now); /* NULL: no listener, no memory */

/* ---- cookie.c ---- */
void cookie_answer(struct mp_stack *st, const struct listener *l, const struct mp_pkt *p, const struct mp_opts *o, mp_time now);
/* A segment of nobody: true: the third ACK to a cookie, *s (if memory allows) made as if the SYN had just come, and the segment is for it. */
bool cookie_input(struct mp_stack *st, const struct mp_pkt *p, const struct mp_opts *o, struct sf **s, mp_time now);

/* ---- isn.c ---- */
uint32_t isn_new(struct mp_stack *st, const struct mp_endpoint *local, const struct mp_endpoint *remote, mp_time now);
uint32_t isn_end(const struct sf *s);                      /* wire number after all that s has used */
void isn_follow(struct sf *s, uint32_t end);               /* s, of which nothing is sent yet, begins past it */

/* ---- timestamp.c ---- */
uint32_t ts_offset(const struct mp_stack *st, const struct mp_addr *local, const struct mp_addr *remote);
uint32_t ts_at(uint32_t offset, mp_time at);

/* ---- mem.c ---- */
void mem_account(struct mpc *c);                           /* counts anew what c has received and holds */
void mem_add(struct mp_stack *st, uint64_t bytes);
void mem_sub(struct mp_stack *st, uint64_t bytes);
bool mem_is_full(const struct mp_stack *st);
uint64_t mem_window(const struct mpc *c);                  /* most that may be offered, queued */
uint64_t mem_queue(const struct mpc *c);
bool mem_has_room_for_holes(const struct mpc *c);          /* for data out of order */
bool mem_has_room_for_more(const struct mpc *c);           /* for data in order */
bool mem_refuses(const struct mpc *c, bool hole);          /* a segment, in order on its subflow or not, before it is acknowledged */
struct mp_chunk *st_chunk_new(struct mp_stack *st);        /* NULL: no memory */
void chunk_put(struct mp_stack *st, struct mp_chunk *k);

/* A subflow that gave its place to another has no flow any more (stack_open.c). */
static inline bool sf_writable(const struct sf *s) { return s->flow && s->st->ops.writable(s->st->arg, s->flow); }

#endif
