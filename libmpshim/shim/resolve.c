/* Names: libc's resolver asks over the host's first route only. Where it found no server that answers (EAI_AGAIN,
 * TRY_AGAIN), the same question is asked over each interface (resolve/resolve.h). Never in place of an answer of libc's. */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <limits.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "resolve/resolve.h"
#include "shim/shim.h"

#define AGAIN_TIMEOUT_MS 6000 /* libc has waited 5 s and more */

typedef int resolve_fn(const char *name, int families, const char *interfaces, int timeout_ms, struct resolve_answer *out);

static void load(void *p)
{
    char path[PATH_MAX];
    if (!shim_beside(path, "libmpshim-resolve.so")) return;
    void *lib = shim_open_library(path);
    *(resolve_fn **)p = lib ? (resolve_fn *)dlsym(lib, "mpshim_resolve") : NULL;
    if (!*(resolve_fn **)p) shim_log(1, "%s", dlerror());
}

static resolve_fn *companion(void)
{
    static _Atomic(resolve_fn *) known;
    resolve_fn *f = atomic_load(&known);
    if (f) return f;
    shim_on_stack(load, &f);
    atomic_store(&known, f);
    return f;
}

static const char *interfaces(void)
{
    for (const char *const *s = shim_conf.settings; s && *s; s++)
        if (!strncmp(*s, "interfaces=", 11)) return *s + 11;
    return NULL;
}

/* Is it ours to ask? The caller's errno is kept. */
static bool ask_again(const char *name, int families, struct resolve_answer *a)
{
    int saved = errno, r = -ENOENT;
    resolve_fn *f = name && *name && !shim_is_engine && shim_conf.engine != SHIM_NEVER ? companion() : NULL;
    if (f) {
        shim_is_engine = true; /* its sockets are none of the program's */
        r = f(name, families, interfaces(), AGAIN_TIMEOUT_MS, a);
        shim_is_engine = false;
    }
    if (f && r == 0) shim_log(1, "%s: name found over %s, after libc's resolver had no answer", name, a->ifname);
    else if (f) shim_log(1, "%s: no answer over any interface either: %s", name, strerrordesc_np(-r));
    errno = saved;
    return r == 0;
}

/* ---- getaddrinfo ---- */

/* libc makes the entries, from the address as text: its free function must know their form. */
static struct addrinfo *one(const struct resolve_answer *a, int i, const char *service, const struct addrinfo *hints)
{
    char ip[INET6_ADDRSTRLEN];
    struct addrinfo h = hints ? *hints : (struct addrinfo){0}, *list = NULL;
    h.ai_flags = (h.ai_flags & ~(AI_CANONNAME | AI_ADDRCONFIG)) | AI_NUMERICHOST;
    inet_ntop(a->addr[i].family == 4 ? AF_INET : AF_INET6, a->addr[i].ip, ip, sizeof ip);
    return REAL(getaddrinfo)(ip, service, &h, &list) ? NULL : list;
}

static struct addrinfo *all(const struct resolve_answer *a, const char *service, const struct addrinfo *hints)
{
    struct addrinfo *first = NULL, **last = &first;
    for (int i = 0; i < a->n; i++) {
        *last = one(a, i, service, hints);
        while (*last) last = &(*last)->ai_next;
    }
    return first;
}

static void set_canon(struct addrinfo *first, const char *name)
{
    free(first->ai_canonname);
    first->ai_canonname = strdup(name);
}

static int families_of(const struct addrinfo *h)
{
    if (!h || h->ai_family == AF_UNSPEC) return 3;
    return h->ai_family == AF_INET ? 1 : h->ai_flags & AI_V4MAPPED ? 3 : 2;
}

int w_getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **res)
{
    struct resolve_answer a;
    int r = REAL(getaddrinfo)(name, service, hints, res);
    if (SHIM_LIKELY(r != EAI_AGAIN) || !name || (hints && hints->ai_flags & AI_NUMERICHOST) || !ask_again(name, families_of(hints), &a)) return r;
    struct addrinfo *list = all(&a, service, hints);
    if (!list) return r;
    if (hints && hints->ai_flags & AI_CANONNAME) set_canon(list, *a.canon ? a.canon : name);
    *res = list;
    return 0;
}

/* ---- gethostbyname ---- */

/* Into the caller's room: two lists of pointers, the addresses, the name. 0 or ERANGE. */
static int fill(struct hostent *h, char *room, size_t n, const char *name, int family, const struct resolve_answer *a)
{
    size_t len = family == AF_INET ? 4 : 16, skip = -(uintptr_t)room % sizeof(char *);
    const char *canon = *a->canon ? a->canon : name;
    char **list = (char **)(void *)(room + skip);
    size_t lists = ((size_t)a->n + 2) * sizeof *list, need = skip + lists + (size_t)a->n * len + strlen(canon) + 1;
    if (n < need) return ERANGE;
    char *p = room + skip + lists;
    int k = 0;
    for (int i = 0; i < a->n; i++, p += len) list[k++] = memcpy(p, a->addr[i].ip, len);
    list[k] = list[k + 1] = NULL;
    *h = (struct hostent){.h_name = strcpy(p, canon), .h_aliases = list + k, .h_addrtype = family, .h_length = (int)len, .h_addr_list = list};
    return 0;
}

int w_gethostbyname2_r(const char *name, int family, struct hostent *h, char *room, size_t n, struct hostent **res, int *err)
{
    struct resolve_answer a;
    int r = REAL(gethostbyname2_r)(name, family, h, room, n, res, err);
    if (SHIM_LIKELY(*res || *err != TRY_AGAIN) || !ask_again(name, family == AF_INET ? 1 : 2, &a)) return r;
    r = fill(h, room, n, name, family, &a);
    *res = r ? NULL : h;
    *err = r ? NETDB_INTERNAL : 0;
    return r;
}

int w_gethostbyname_r(const char *name, struct hostent *h, char *room, size_t n, struct hostent **res, int *err)
{
    struct resolve_answer a;
    int r = REAL(gethostbyname_r)(name, h, room, n, res, err);
    if (SHIM_LIKELY(*res || *err != TRY_AGAIN) || !ask_again(name, 1, &a)) return r;
    r = fill(h, room, n, name, AF_INET, &a);
    *res = r ? NULL : h;
    *err = r ? NETDB_INTERNAL : 0;
    return r;
}

/* These give one static object, as libc's do. */
static struct hostent *static_host(const char *name, int family, struct hostent *libcs)
{
    enum { ROOM = 2048 };
    static struct hostent h;
    static char *room;
    struct resolve_answer a;
    if (SHIM_LIKELY(libcs || h_errno != TRY_AGAIN) || !ask_again(name, family == AF_INET ? 1 : 2, &a)) return libcs;
    if (!room) room = malloc(ROOM);
    return room && fill(&h, room, ROOM, name, family, &a) == 0 ? &h : NULL;
}

struct hostent *w_gethostbyname(const char *name) { return static_host(name, AF_INET, REAL(gethostbyname)(name)); }
struct hostent *w_gethostbyname2(const char *name, int family) { return static_host(name, family, REAL(gethostbyname2)(name, family)); }
