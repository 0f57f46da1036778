/* TCP_CONGESTION: the engine's algorithms by their names, whether this kernel has them or not. What only the kernel has
 * stays with the program's socket, without effect on the network. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "core/stack.h"
#include "shim/shim.h"

enum { NAME_BYTES = 16 /* TCP_CA_NAME_MAX */ };

/* "lia olia ...": in the order of mp_cc_all (core/cc/list.c). */
static const char *names(void)
{
    static const struct { const char *field, *words; } list[] = {
#define X(type, field, env, def, range, text) {#field, range},
#include "core/settings.def"
#undef X
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (!strcmp(list[i].field, "cc")) return list[i].words;
    return "";
}

/* The word with this number, from 1; its length in *n. NULL: there are not so many. */
static const char *word(uint8_t number, size_t *n)
{
    const char *w = names();
    for (; number > 1 && *w; number--) {
        w += strcspn(w, " ");
        w += strspn(w, " ");
    }
    *n = strcspn(w, " ");
    return *n ? w : NULL;
}

static uint8_t number_of(const char *name)
{
    size_t n;
    const char *w;
    for (uint8_t k = 1; (w = word(k, &n)); k++)
        if (strlen(name) == n && !memcmp(w, name, n)) return k;
    return 0;
}

/* The kernel says ENOENT for what it does not have, EPERM for what it does not let everybody have. */
static bool may_stand(int fd, const struct shim_fd *f, int err)
{
    int family;
    struct sockaddr_storage peer;
    socklen_t n = sizeof peer;
    if (err != ENOENT && err != EPERM) return false;
    if (f) return f->kind != SHIM_KERNEL;
    return shim_is_tcp(fd, &family) && shim_conf.engine != SHIM_NEVER && REAL(getpeername)(fd, (struct sockaddr *)&peer, &n) < 0;
}

int shim_congestion_set(int fd, const void *v, socklen_t n)
{
    char name[NAME_BYTES] = "";
    int saved = errno, r = REAL(setsockopt)(fd, IPPROTO_TCP, TCP_CONGESTION, v, n);
    if ((r < 0 && errno != ENOENT && errno != EPERM) || (int)n < 1 || shim_is_borrowed()) return r;
    memcpy(name, v, n < NAME_BYTES - 1 ? n : NAME_BYTES - 1); /* the kernel has read it: or it had said EFAULT */
    uint8_t number = number_of(name);
    struct shim_fd *f = shim_find(fd), fresh = {.kind = SHIM_ASKED, .cookie = shim_cookie(fd)};
    if (f && f->cookie != fresh.cookie) f = NULL;
    if (r < 0 && (!number || !may_stand(fd, f, errno))) return r;
    if (!f && !number) return r;
    if (f) f->cc = number;
    else if (fresh.cc = number, !shim_put(fd, &fresh)) return r;
    shim_option_tell(fd, MPC_CC, number);
    errno = saved;
    return 0;
}

void shim_congestion_get(const struct shim_fd *f, void *v, socklen_t n)
{
    size_t len;
    char name[NAME_BYTES] = "";
    const char *w = word(f->cc, &len);
    if (!w) return;
    memcpy(name, w, len);
    memcpy(v, name, n < NAME_BYTES ? n : NAME_BYTES);
}
