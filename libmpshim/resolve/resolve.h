/* resolve/resolve.h: libmpshim-resolve.so, loaded by libmpshim.so when libc's resolver found no name server that answers.
 *
 * Asks (libcares) over every interface at once, bound to it, so that a dead primary path does not matter; the first answer
 * wins. Hosts file, search domains and the servers of resolv.conf as c-ares reads them, and the servers that systemd-networkd
 * or -resolved know for a link. Keeps nothing from one call to the next. */
#ifndef MPSHIM_RESOLVE_H
#define MPSHIM_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>

#define RESOLVE_API __attribute__((visibility("default")))
enum { RESOLVE_MAX = 32 };

struct resolve_answer {
    int n;
    struct { uint8_t family; /* 4 or 6 */ uint8_t ip[16]; } addr[RESOLVE_MAX];
    char canon[256];   /* "": not known */
    char ifname[16];   /* which one answered */
};

/* families: 1 IPv4, 2 IPv6, 3 both; interfaces: as MPSHIM_INTERFACES, NULL: all. 0; -ENOENT: such a name does not exist;
 * -ETIMEDOUT: nobody answered; -ENETUNREACH: there is no interface to ask over. */
RESOLVE_API int mpshim_resolve(const char *name, int families, const char *interfaces, int timeout_ms, struct resolve_answer *out);

/* ---- links.c ---- */
enum { RESOLVE_LINKS = 16, RESOLVE_SERVERS = 512 };
struct resolve_link { unsigned index; char name[16]; char servers[RESOLVE_SERVERS]; /* comma list */ };
/* The interfaces to ask over, each with its servers. Where the way to the first server leads into a tunnel (a VPN), none:
 * questions must not leave beside it. */
int resolve_links(const char *interfaces, struct resolve_link *v, int max);

#endif
