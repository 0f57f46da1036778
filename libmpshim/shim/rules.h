/* shim/rules.h: MPSHIM_EXCLUDE, which connections are left to the kernel: a comma list of
 *
 *   ADDRESS[/BITS]   [ADDRESS/BITS]:PORT[-PORT]   ADDRESS[/BITS]:PORT[-PORT] (IPv4)   :PORT[-PORT]
 *
 * of the far end of connections that are opened, and of the own end of listeners. Also compiled into mptcp-run: only libc. */
#ifndef SHIM_RULES_H
#define SHIM_RULES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum { SHIM_RULES_MAX = 512 };

struct shim_rule {
    sa_family_t family; /* AF_UNSPEC: any address */
    uint8_t bits, ip[16];
    uint16_t low, high; /* ports, inclusive */
};

/* Reads the list into v (at most max; more are an error): their number, or -1 with *bad at the entry that is no rule. */
int shim_rules_read(const char *list, struct shim_rule *v, int max, const char **bad);
/* AF_INET or AF_INET6, v4-mapped already turned into AF_INET. */
bool shim_rules_match(const struct shim_rule *v, int n, const struct sockaddr *sa);

#endif
