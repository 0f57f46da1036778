/* engine/will_read.c: another process's will (will.h), read as what it may be: hostile, and changing meanwhile. */
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/will.h"

/* Seals are had by memory files only: a read of such a file waits for nobody, and its size stays. */
bool eng_will_is_file(int fd)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) == (F_SEAL_SHRINK | F_SEAL_GROW) && fstat(fd, &st) == 0 &&
           st.st_size == (off_t)WILL_BYTES;
}

static bool head(int fd, struct will_file *h)
{
    return pread(fd, h, sizeof *h, 0) == sizeof *h && h->magic == WILL_MAGIC && h->size == sizeof h->slot[0] && !h->revoked;
}

uint32_t eng_will_filled(int fd)
{
    struct will_file h;
    return head(fd, &h) ? h.filled : 0;
}

uint32_t eng_will_top(int fd)
{
    struct will_file h;
    if (!head(fd, &h))
        return 0;
    return h.top < WILL_SLOTS ? h.top : WILL_SLOTS;
}

static bool is_multicast(const struct mp_addr *a) { return a->family == 4 ? a->b[0] >= 224 : a->b[0] == 0xff; }

static bool is_host(const struct mp_endpoint *e)
{
    return (e->ip.family == 4 || e->ip.family == 6) && e->port && !eng_is_any(&e->ip) && !eng_is_loopback(&e->ip) && !is_multicast(&e->ip);
}

static bool is_bool(const bool *b)
{
    uint8_t v;
    memcpy(&v, b, 1);
    return v <= 1;
}

bool eng_will_read(int fd, uint32_t i, struct mp_last_words *w)
{
    struct will_slot s;
    if (i >= WILL_SLOTS || pread(fd, &s, sizeof s, (off_t)(offsetof(struct will_file, slot) + i * sizeof s)) != sizeof s)
        return false;
    if (s.kind < MP_LAST_RST || s.kind > MP_LAST_FASTCLOSE_ACK || !is_bool(&s.words.has_ts))
        return false;
    *w = s.words;
    w->kind = (enum mp_last_kind)s.kind;
    w->flow = NULL;
    return w->ifindex > 0 && is_host(&w->local) && is_host(&w->remote) && w->local.ip.family == w->remote.ip.family;
}
