/* io/pool.c: receive buffers, used again. The core may keep references to them beyond the life of io/. */
#include <stdlib.h>

#include "io/internal.h"

#define POOL_KEEP 128 /* free buffers kept; 8 MB if all were touched */

struct io_pool {
    struct mp_buf *free;
    int nfree;
    uint32_t out; /* buffers with references */
    bool closed;
};
struct pool_buf {
    struct mp_buf b;
    struct io_pool *pool;
    uint8_t bytes[];
};

struct io_pool *io_pool_new(void) { return calloc(1, sizeof(struct io_pool)); }

static void pool_trim(struct io_pool *p, int keep)
{
    while (p->nfree > keep) {
        struct mp_buf *b = p->free;

        p->free = b->next;
        p->nfree--;
        free(b); /* the first member of its pool_buf */
    }
}

static void pool_release(struct mp_buf *b)
{
    struct io_pool *p = ((struct pool_buf *)b)->pool;

    b->next = p->free;
    p->free = b;
    p->nfree++;
    p->out--;
    pool_trim(p, p->closed ? 0 : POOL_KEEP);
    if (p->closed && !p->out) free(p);
}

struct mp_buf *io_pool_get(struct io_pool *p)
{
    struct pool_buf *pb;

    if (p->free) {
        pb = (struct pool_buf *)p->free;
        p->free = pb->b.next;
        p->nfree--;
    } else {
        pb = malloc(sizeof *pb + IO_RX_SIZE);
        if (!pb) return NULL;
        pb->pool = p;
    }
    pb->b = (struct mp_buf){ .refs = 1, .size = IO_RX_SIZE, .data = pb->bytes, .release = pool_release };
    p->out++;
    return &pb->b;
}

void io_pool_free(struct io_pool *p)
{
    if (!p) return;
    pool_trim(p, 0);
    p->closed = true;
    if (!p->out) free(p);
}
