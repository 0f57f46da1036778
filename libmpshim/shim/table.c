/* The table of descriptors: flat, lock-free, and mostly untouched pages. Also the shim's own descriptors. */
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "shim/shim.h"

struct shim_fd *_Atomic shim_fds;
static _Atomic int top;

static struct shim_fd *table(void)
{
    struct shim_fd *t = atomic_load(&shim_fds);
    if (t) return t;
    void *m = mmap(NULL, sizeof *t * SHIM_FD_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED) return NULL;
    if (atomic_compare_exchange_strong(&shim_fds, &t, m)) return m;
    munmap(m, sizeof *t * SHIM_FD_MAX);
    return t;
}

bool shim_put(int fd, const struct shim_fd *v)
{
    struct shim_fd *t = (unsigned)fd < SHIM_FD_MAX ? table() : NULL;
    if (!t) return false;
    uint8_t kind = atomic_load(&v->kind);
    atomic_store(&t[fd].kind, SHIM_NONE);
    memcpy((char *)&t[fd] + 1, (const char *)v + 1, sizeof *v - 1);
    atomic_store_explicit(&t[fd].kind, kind, memory_order_release);
    int old = atomic_load(&top);
    while (old <= fd && !atomic_compare_exchange_weak(&top, &old, fd + 1)) {}
    return true;
}

int shim_fd_top(void) { return atomic_load(&top); }

static bool listener_has_others(int fd, uint32_t id)
{
    struct shim_fd *t = atomic_load(&shim_fds);
    for (int i = 0; i < atomic_load(&top); i++)
        if (i != fd && t[i].kind == SHIM_LISTENER && t[i].listener == id) return true;
    return false;
}

unsigned shim_take(int fd)
{
    struct shim_fd *f = shim_find(fd);
    if (!f || shim_is_borrowed()) return 0;
    uint8_t kind = atomic_exchange(&f->kind, SHIM_NONE);
    if (kind != SHIM_LISTENER || listener_has_others(fd, f->listener)) return 0;
    return f->host < SHIM_HOSTS ? 1u << f->host : (1u << SHIM_HOSTS) - 1;
}

unsigned shim_take_range(unsigned first, unsigned last)
{
    unsigned hosts = 0;
    int n = atomic_load(&top);
    for (int i = (int)first; first < (unsigned)n && i < n && (unsigned)i <= last; i++)
        if (!shim_is_own(i)) hosts |= shim_take(i);
    return hosts;
}

/* Waits until the engine has looked, so that whoever connects after close() has returned is refused. */
void shim_unlisten(unsigned hosts)
{
    struct ctl_req q;
    struct ctl_rep rep;
    for (int h = 0; h < SHIM_HOSTS; h++) {
        if (!(hosts & 1u << h)) continue;
        shim_req_init(&q, CTL_UNLISTEN);
        (void)shim_request(h, &q, -1, &rep, 1000); /* no answer: it finds out within a second */
    }
}

void shim_forget(int fd) { shim_unlisten(shim_take(fd)); }

void shim_copy(int from, int to)
{
    struct shim_fd *f = shim_find(from);
    if (!f || shim_is_borrowed()) return;
    struct shim_fd v = *f;
    v.file = NULL;
    shim_put(to, &v);
}

/* ---- own descriptors ---- */

static _Atomic int *own[SHIM_OWN_MAX];
_Atomic int shim_own_least = INT_MAX;

static void own_least_update(void)
{
    int least = INT_MAX;
    for (int i = 0; i < SHIM_OWN_MAX && own[i]; i++) {
        int fd = atomic_load(own[i]);
        if (fd >= 0 && fd < least) least = fd;
    }
    atomic_store(&shim_own_least, least);
}

void shim_own_add(_Atomic int *slot)
{
    int i = 0;
    while (i < SHIM_OWN_MAX && own[i] && own[i] != slot) i++;
    if (i < SHIM_OWN_MAX) own[i] = slot;
    own_least_update();
}

bool shim_is_own_slow(int fd)
{
    for (int i = 0; i < SHIM_OWN_MAX && own[i]; i++)
        if (atomic_load(own[i]) == fd) return true;
    return false;
}

int shim_own_sorted(int *v, int max)
{
    int n = 0;
    for (int i = 0; i < SHIM_OWN_MAX && own[i] && n < max; i++) {
        int fd = atomic_load(own[i]), j = n;
        if (fd < 0) continue;
        for (; j > 0 && v[j - 1] > fd; j--) v[j] = v[j - 1];
        v[j] = fd;
        n++;
    }
    return n;
}

/* High, so that programs which expect small numbers get them; not higher than 1,000, because the kernel's table of
 * descriptors grows to the highest. */
static int own_floor(void)
{
    struct rlimit l = {0};
    getrlimit(RLIMIT_NOFILE, &l);
    return l.rlim_cur > 1024 ? 960 : l.rlim_cur > 128 ? (int)l.rlim_cur - 64 : 3;
}

int shim_own_high(int fd)
{
    int high = REAL(fcntl)(fd, F_DUPFD_CLOEXEC, (void *)(intptr_t)own_floor());
    if (high < 0) return fd;
    REAL(close)(fd);
    return high;
}

void shim_own_dodge(int fd)
{
    for (int i = 0; i < SHIM_OWN_MAX && own[i]; i++) {
        if (atomic_load(own[i]) != fd || shim_is_borrowed()) continue;
        int to = REAL(fcntl)(fd, F_DUPFD_CLOEXEC, (void *)(intptr_t)own_floor());
        atomic_store(own[i], to); /* no room: the connection to the engine is lost, the program's wish comes first */
    }
    own_least_update();
}
