/* tests/sim/check.h: TEST(name) { CHECK(...); } and a main that runs all, or those named on the command line. */
#ifndef TESTS_SIM_CHECK_H
#define TESTS_SIM_CHECK_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check_test {
    const char *name;
    void (*run)(void);
    struct check_test *next;
};
static struct check_test *check_tests, **check_tail = &check_tests;
static int check_failures; /* of the test that runs */

#define TEST(id)                                                                      \
    static void test_##id(void);                                                      \
    static struct check_test entry_##id = {#id, test_##id, NULL};                     \
    __attribute__((constructor)) static void add_##id(void)                           \
    {                                                                                 \
        *check_tail = &entry_##id;                                                    \
        check_tail = &entry_##id.next;                                                \
    }                                                                                 \
    static void test_##id(void)

#define CHECK(cond)                                                                   \
    do {                                                                              \
        if (cond) break;                                                              \
        fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);            \
        check_failures++;                                                             \
    } while (0)

#define CHECK_NUM(a, op, b)                                                                              \
    do {                                                                                                 \
        long long a_ = (long long)(a), b_ = (long long)(b);                                              \
        if (a_ op b_) break;                                                                             \
        fprintf(stderr, "%s:%d: not so: %s (%lld) %s %s (%lld)\n", __FILE__, __LINE__, #a, a_, #op, #b, b_); \
        check_failures++;                                                                                \
    } while (0)

int main(int argc, char **argv)
{
    int ran = 0, failed = 0;
    for (struct check_test *t = check_tests; t; t = t->next) {
        bool wanted = argc < 2;
        for (int i = 1; i < argc; i++) wanted |= strcmp(argv[i], t->name) == 0;
        if (!wanted) continue;
        check_failures = 0;
        t->run();
        ran++;
        if (!check_failures) continue;
        failed++;
        fprintf(stderr, "FAILED: %s (alone: %s %s)\n", t->name, argv[0], t->name);
    }
    printf("%s: %d tests, %d failed\n", strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0], ran, failed);
    return failed || !ran;
}

#endif
