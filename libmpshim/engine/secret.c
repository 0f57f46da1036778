/* engine/secret.c: memory for what holds keys: connections. In an engine inside a program it must not get into the
 * program's core dumps, nor into children that it forks, where nobody would ever use it.
 *
 * Slots of one size, cut from mappings that the kernel leaves out of both; wiped when they are given back. */
#include <string.h>
#include <sys/mman.h>

#include "engine/eng.h"

enum { SLOTS = 16 }; /* in a mapping */

struct secret_map {
    struct secret_map *next;
    size_t bytes;
};

struct secret_free { struct secret_free *next; };

static size_t rounded(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* At the head of the mapping: its entry in the list. */
static bool grow(struct eng_secrets *s)
{
    size_t head = rounded(sizeof(struct secret_map), 64), bytes = rounded(head + SLOTS * s->size, 4096);
    uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return false;
    (void)madvise(p, bytes, MADV_DONTDUMP);
    (void)madvise(p, bytes, MADV_DONTFORK);
    struct secret_map *m = (void *)p;
    *m = (struct secret_map){ s->maps, bytes };
    s->maps = m;
    s->fresh = p + head;
    s->nfresh = SLOTS;
    return true;
}

void *eng_secret_alloc(struct eng_secrets *s, size_t n)
{
    n = rounded(n, 64);
    if (!s->size)
        s->size = n;
    if (n != s->size)
        return NULL;
    struct secret_free *f = s->free;
    if (f) {
        s->free = f->next;
        f->next = NULL; /* the rest is zero since it was given back */
        return f;
    }
    if (!s->nfresh && !grow(s))
        return NULL;
    s->nfresh--;
    s->fresh += n;
    return s->fresh - n;
}

void eng_secret_free(struct eng_secrets *s, void *p)
{
    struct secret_free *f = p;
    explicit_bzero(p, s->size);
    f->next = s->free;
    s->free = f;
}

void eng_secrets_fini(struct eng_secrets *s)
{
    for (struct secret_map *m = s->maps, *next; m; m = next) {
        size_t bytes = m->bytes;
        next = m->next;
        explicit_bzero(m, bytes);
        munmap(m, bytes);
    }
    *s = (struct eng_secrets){ 0 };
}
