/* tests/unit/buf.c: counted buffers. */
#include "core/buf.h"

#include "test.h"

static int released;
static void note_release(struct mp_buf *b) { (void)b; released++; }

TEST(release_is_called_once_with_the_last_reference)
{
    uint8_t bytes[10];
    struct mp_buf b = { .refs = 1, .size = 10, .data = bytes, .release = note_release };

    released = 0;
    mp_buf_get(&b);
    mp_buf_put(&b);
    CHECK_EQ(released, 0);
    mp_buf_put(&b);
    CHECK_EQ(released, 1);
    mp_buf_put(NULL);
    CHECK(mp_buf_get(NULL) == NULL);
}

TEST(kept_slice_of_a_well_used_buffer_refers_to_it)
{
    struct mp_buf *b = mp_buf_new(100);
    struct mp_slice s = { b, b->data + 10, 50 }, k = mp_slice_keep(&s);

    CHECK(k.buf == b && k.p == s.p && k.len == 50);
    CHECK_EQ(b->refs, 2);
    mp_slice_put(&k);
    CHECK(k.buf == NULL && k.len == 0);
    mp_buf_put(b);
}

TEST(kept_slice_of_a_badly_used_or_borrowed_buffer_is_a_copy)
{
    struct mp_buf *b = mp_buf_new(100);
    struct mp_slice s = { b, b->data, 49 }, borrowed = { NULL, (const uint8_t *)"hello", 5 }, k;

    memset(b->data, 3, 100);
    k = mp_slice_keep(&s);
    CHECK(k.buf != b);
    CHECK_EQ(k.buf->size, 49);
    CHECK_MEM(k.p, b->data, 49);
    mp_slice_put(&k);
    mp_buf_put(b);
    k = mp_slice_keep(&borrowed);
    CHECK_MEM(k.p, "hello", 5);
    mp_slice_put(&k);
}

TEST(empty_slice_can_be_kept)
{
    struct mp_slice none = { NULL, NULL, 0 }, k = mp_slice_keep(&none);

    CHECK(k.buf != NULL);
    CHECK_EQ(k.len, 0);
    mp_slice_put(&k);
}

TEST(skip_and_cut)
{
    struct mp_slice s = { NULL, (const uint8_t *)"abcdef", 6 };

    mp_slice_skip(&s, 2);
    mp_slice_cut(&s, 3);
    CHECK_EQ(s.len, 3);
    CHECK_MEM(s.p, "cde", 3);
}
