/* tests/unit/rangemap.c: the range map against a map of bytes. */
#include "core/rangemap.h"

#include "test.h"

enum { SPACE = 2000 };
static const uint64_t base = 0x1fffffc00; /* crosses a 32-bit boundary */

/* The model: each byte's value, 0 where nothing is stored; values come from when it was inserted. */
static uint8_t model[SPACE];

static uint8_t depth_ok;
static unsigned depth(const struct mp_range *n)
{
    unsigned l, r;

    if (!n) return 0;
    if ((n->l && n->l->prio > n->prio) || (n->r && n->r->prio > n->prio)) depth_ok = 0;
    l = depth(n->l);
    r = depth(n->r);
    return 1 + (l > r ? l : r);
}

static void check_against_model(const struct mp_rangemap *m)
{
    uint64_t bytes = 0, mem = 0, at = 0;
    uint32_t n = 0;
    static uint8_t seen[SPACE];

    memset(seen, 0, sizeof seen);
    for (const struct mp_range *r; (r = mp_rangemap_next(m, at)); at = r->start + r->data.len) {
        CHECK(r->start >= at);
        CHECK(r->data.len > 0);
        memcpy(seen + (r->start - base), r->data.p, r->data.len);
        bytes += r->data.len;
        mem += r->charge;
        n++;
    }
    CHECK_MEM(seen, model, SPACE);
    CHECK_EQ(m->bytes, bytes);
    CHECK_EQ(m->mem_bytes, mem);
    CHECK_EQ(m->n, n);
    CHECK_EQ(mp_rangemap_max(m), at);
}

static void check_run(const struct mp_rangemap *m, uint64_t at)
{
    size_t i = at > base ? (size_t)(at - base) : 0, l, r;
    uint64_t left = 0, right = 0;
    bool got = mp_rangemap_run(m, at, &left, &right);

    while (i < SPACE && !model[i]) i++;
    CHECK_EQ(got, i < SPACE);
    if (!got || i >= SPACE) return;
    for (l = i; l > 0 && model[l - 1]; l--) {}
    for (r = i; r < SPACE && model[r]; r++) {}
    CHECK_EQ(left, base + l);
    CHECK_EQ(right, base + r);
}

static void insert_random(struct mp_rangemap *m, uint64_t *seed, uint8_t value)
{
    size_t at = test_random(seed) % SPACE, len = test_random(seed) % 120, fresh = 0;
    uint8_t bytes[120];
    struct mp_slice s = { NULL, bytes, 0 };

    if (len > SPACE - at) len = SPACE - at;
    s.len = (uint32_t)len;
    memset(bytes, value, sizeof bytes);
    for (size_t i = at; i < at + len; i++)
        if (!model[i]) model[i] = value, fresh++;
    CHECK_EQ(mp_rangemap_insert(m, base + at, &s, value), fresh);
}

static void pop_at(struct mp_rangemap *m, uint64_t at)
{
    size_t i = at > base ? (size_t)(at - base) : 0;
    struct mp_slice s = { 0 };
    uint64_t tag = 0;
    bool got;

    if (i > SPACE) i = SPACE;
    got = mp_rangemap_pop(m, at, &s, &tag);
    memset(model, 0, i);
    CHECK_EQ(got, at >= base && i < SPACE && model[i]);
    if (!got) return;
    CHECK(s.len > 0);
    CHECK_EQ(s.p[0], tag);
    CHECK_MEM(model + i, s.p, s.len);
    memset(model + i, 0, s.len);
    mp_slice_put(&s);
}

TEST(random_orders_agree_with_the_model)
{
    for (uint32_t round = 0; round < 60; round++) {
        uint64_t seed = round;
        struct mp_rangemap m;

        mp_rangemap_init(&m, round);
        memset(model, 0, sizeof model);
        for (int step = 0; step < 150; step++) {
            ROW("round %u step %d", round, step);
            if (test_random(&seed) % 8)
                insert_random(&m, &seed, (uint8_t)(1 + step));
            else
                pop_at(&m, base + test_random(&seed) % (SPACE / 4));
            check_against_model(&m);
            for (int i = 0; i < 4; i++) check_run(&m, base + test_random(&seed) % SPACE);
        }
        mp_rangemap_fini(&m);
        CHECK_EQ(m.mem_bytes, 0);
        CHECK(m.root == NULL);
    }
}

TEST(first_arrival_wins)
{
    struct mp_rangemap m;
    struct mp_slice a = { NULL, (const uint8_t *)"aaaa", 4 }, b = { NULL, (const uint8_t *)"bbbbbbbb", 8 }, s;
    uint64_t tag;

    mp_rangemap_init(&m, 1);
    CHECK_EQ(mp_rangemap_insert(&m, 102, &a, 1), 4);
    CHECK_EQ(mp_rangemap_insert(&m, 100, &b, 2), 4);
    CHECK_EQ(mp_rangemap_insert(&m, 100, &b, 3), 0);
    CHECK(mp_rangemap_pop(&m, 101, &s, &tag));
    CHECK_EQ(tag, 2);
    CHECK_EQ(s.len, 1);
    mp_slice_put(&s);
    CHECK(mp_rangemap_pop(&m, 102, &s, &tag));
    CHECK_EQ(tag, 1);
    CHECK_MEM(s.p, "aaaa", 4);
    mp_slice_put(&s);
    CHECK(mp_rangemap_pop(&m, 106, &s, NULL));
    CHECK_EQ(s.len, 2);
    mp_slice_put(&s);
    CHECK_EQ(m.n, 0);
    mp_rangemap_fini(&m);
}

TEST(pop_drops_what_lies_before_even_when_it_finds_nothing)
{
    struct mp_rangemap m;
    struct mp_slice a = { NULL, (const uint8_t *)"aaaa", 4 }, s;

    mp_rangemap_init(&m, 1);
    mp_rangemap_insert(&m, 100, &a, 1);
    mp_rangemap_insert(&m, 200, &a, 1);
    CHECK(!mp_rangemap_pop(&m, 104, &s, NULL));
    CHECK_EQ(m.n, 1);
    CHECK(!mp_rangemap_pop(&m, 199, &s, NULL));
    CHECK_EQ(m.bytes, 4);
    mp_rangemap_fini(&m);
}

TEST(end_of_the_number_space_does_not_wrap)
{
    struct mp_rangemap m;
    struct mp_slice a = { NULL, (const uint8_t *)"aaaa", 4 };
    uint64_t l, r;

    mp_rangemap_init(&m, 1);
    CHECK_EQ(mp_rangemap_insert(&m, UINT64_MAX - 2, &a, 1), 2);
    CHECK(mp_rangemap_run(&m, 5, &l, &r));
    CHECK_EQ(r, UINT64_MAX);
    mp_rangemap_fini(&m);
}

/* A hostile peer chooses the order, not the priorities. */
TEST(ascending_and_descending_orders_stay_shallow)
{
    for (int descending = 0; descending < 2; descending++) {
        struct mp_rangemap m;
        struct mp_slice one = { NULL, (const uint8_t *)"x", 1 };
        uint64_t l, r;

        ROW(descending ? "descending" : "ascending");
        mp_rangemap_init(&m, 42);
        for (uint64_t i = 0; i < 20000; i++) mp_rangemap_insert(&m, 2 * (descending ? 20000 - i : i), &one, 0);
        depth_ok = 1;
        CHECK(depth(m.root) < 60);
        CHECK(depth_ok);
        for (uint64_t i = 0; i < 20000; i++) mp_rangemap_insert(&m, 2 * i + 1, &one, 0);
        CHECK(mp_rangemap_run(&m, 20000, &l, &r));
        CHECK_EQ(r, 40000 + (descending ? 1 : 0));
        mp_rangemap_fini(&m);
    }
}

TEST(small_pieces_do_not_pin_large_buffers)
{
    struct mp_buf *b = mp_buf_new(65536);
    struct mp_slice small = { b, b->data, 60 }, large = { b, b->data, 60000 };
    struct mp_rangemap m;

    memset(b->data, 7, 65536);
    mp_rangemap_init(&m, 1);
    mp_rangemap_insert(&m, 0, &small, 0);
    CHECK_EQ(b->refs, 1);
    CHECK(m.mem_bytes < 300);
    mp_rangemap_insert(&m, 1000, &large, 0);
    CHECK_EQ(b->refs, 2);
    CHECK(m.mem_bytes > 65536);
    mp_rangemap_fini(&m);
    CHECK_EQ(b->refs, 1);
    mp_buf_put(b);
}
