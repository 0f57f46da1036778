/* core/buf.c: see buf.h. */
#include "core/buf.h"

#include <stdlib.h>

static void release_malloced(struct mp_buf *b) { free(b); }

/* Header and bytes in one allocation: one miss less, and release needs only the header. */
struct mp_buf *mp_buf_new(uint32_t size)
{
    struct mp_buf *b = malloc(sizeof *b + size);

    if (!b) return NULL;
    *b = (struct mp_buf){ .refs = 1, .size = size, .data = (uint8_t *)(b + 1), .release = release_malloced };
    return b;
}

/* "Used well": at least half of the buffer. So memory pinned is at most twice the bytes kept. */
static bool uses_well(const struct mp_slice *s)
{
    return s->buf && s->len >= s->buf->size / 2;
}

struct mp_slice mp_slice_keep(const struct mp_slice *s)
{
    struct mp_buf *b;

    if (uses_well(s))
        return (struct mp_slice){ .buf = mp_buf_get(s->buf), .p = s->p, .len = s->len };
    b = mp_buf_new(s->len);
    if (!b) return (struct mp_slice){ 0 };
    if (s->len) memcpy(b->data, s->p, s->len);
    return (struct mp_slice){ .buf = b, .p = b->data, .len = s->len };
}
