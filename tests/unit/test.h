/* tests/unit/test.h: a test program in one file. Include it once; it brings main().
 *
 *   TEST(name_says_the_behaviour) { CHECK(cond); CHECK_EQ(got, want); }
 *
 * A failing check prints file, line, expression, both values and the row last named by ROW(), and the test
 * goes on. The program ends with "N passed, N failed" (tests, not checks) and status 1 if any failed.
 * An argument runs only the tests whose name contains it. */
#ifndef MP_TEST_H
#define MP_TEST_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct test {
    const char *name;
    void (*run)(void);
    struct test *next;
};
static struct test *test_first, **test_last = &test_first;
static int test_failures;     /* failed checks of the running test */
static char test_row[256];    /* what ROW() said; empty: nothing */

static inline void test_add(struct test *t)
{
    *test_last = t;
    test_last = &t->next;
}

#define TEST(id)                                                              \
    static void test_##id(void);                                              \
    static struct test test_entry_##id = { #id, test_##id, NULL };            \
    __attribute__((constructor)) static void test_add_##id(void) { test_add(&test_entry_##id); } \
    static void test_##id(void)

__attribute__((format(printf, 1, 2), unused)) static void ROW(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(test_row, sizeof test_row, fmt, ap);
    va_end(ap);
}

__attribute__((format(printf, 3, 4), unused)) static void test_fail(const char *file, int line, const char *fmt, ...)
{
    va_list ap;

    if (test_failures++ >= 10) return; /* a broken loop must not fill the log */
    printf("%s:%d: ", file, line);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("%s%s%s\n", test_row[0] ? "  [" : "", test_row, test_row[0] ? "]" : "");
}

#define CHECK(cond)                                                   \
    do {                                                              \
        if (!(cond)) test_fail(__FILE__, __LINE__, "%s", #cond);      \
    } while (0)

#define CHECK_EQ(got, want)                                                                            \
    do {                                                                                               \
        uint64_t g_ = (uint64_t)(got), w_ = (uint64_t)(want);                                          \
        if (g_ != w_)                                                                                  \
            test_fail(__FILE__, __LINE__, "%s is %" PRIu64 " (0x%" PRIx64 "), not %" PRIu64 " (0x%" PRIx64 ")", \
                      #got, g_, g_, w_, w_);                                                           \
    } while (0)

#define CHECK_MEM(got, want, n) test_mem(__FILE__, __LINE__, #got, got, want, n)
__attribute__((unused)) static void test_mem(const char *file, int line, const char *what, const void *got, const void *want, size_t n)
{
    const uint8_t *g = got, *w = want;
    char gs[161] = "", ws[161] = "";

    if (memcmp(g, w, n) == 0) return;
    for (size_t i = 0; i < n && i < 80; i++) {
        snprintf(gs + 2 * i, 3, "%02x", g[i]);
        snprintf(ws + 2 * i, 3, "%02x", w[i]);
    }
    test_fail(file, line, "%s is\n    %s, not\n    %s", what, gs, ws);
}

/* Bytes of a hex text, spaces allowed; returns how many. */
__attribute__((unused)) static size_t test_unhex(uint8_t *out, size_t max, const char *hex)
{
    size_t n = 0;
    unsigned b;

    for (; *hex; hex += 2) {
        while (*hex == ' ') hex++;
        if (!*hex) break;
        if (n >= max || sscanf(hex, "%2x", &b) != 1) abort();
        out[n++] = (uint8_t)b;
    }
    return n;
}

/* Deterministic pseudo-random numbers (splitmix64): a failure repeats. */
__attribute__((unused)) static uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

__attribute__((unused)) static bool test_all; /* no single test was asked for */

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;

    test_all = argc == 1;
    for (struct test *t = test_first; t; t = t->next) {
        if (argc > 1 && !strstr(t->name, argv[1])) continue;
        test_failures = 0;
        test_row[0] = 0;
        t->run();
        if (test_failures) printf("FAIL %s (%d)\n", t->name, test_failures);
        if (test_failures) failed++;
        else passed++;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed;
}

#endif
