/* core/buf.h: counted buffers and slices of them. One thread only: counts are not atomic. */
#ifndef MP_BUF_H
#define MP_BUF_H

#include "core/base.h"

struct mp_buf {
    uint32_t refs;
    uint32_t size;               /* bytes at data */
    uint8_t *data;               /* owned */
    struct mp_buf *next;         /* free list link, owner's use */
    void (*release)(struct mp_buf *b); /* called when the last reference goes */
};

/* A piece of a counted buffer, or of memory that lives elsewhere (buf NULL: borrowed for the call). */
struct mp_slice {
    struct mp_buf *buf; /* counted */
    const uint8_t *p;
    uint32_t len;
};

struct mp_buf *mp_buf_new(uint32_t size); /* refs 1, from malloc; NULL: out of memory */
static inline struct mp_buf *mp_buf_get(struct mp_buf *b)
{
    if (b) b->refs++;
    return b;
}
static inline void mp_buf_put(struct mp_buf *b)
{
    if (b && --b->refs == 0) b->release(b);
}

/* A slice that may be kept: a further reference where the buffer is used well, else a copy in a buffer
 * of its own size (a 60-byte packet must not pin a 64 KB receive buffer). buf NULL in the result: no memory. */
struct mp_slice mp_slice_keep(const struct mp_slice *s);
static inline void mp_slice_put(struct mp_slice *s)
{
    mp_buf_put(s->buf);
    s->buf = NULL;
    s->len = 0;
}
/* Drops n bytes from the front / keeps the first n bytes. n <= len. */
static inline void mp_slice_skip(struct mp_slice *s, uint32_t n) { s->p += n; s->len -= n; }
static inline void mp_slice_cut(struct mp_slice *s, uint32_t n) { s->len = n; }

#endif
