/* Over which interfaces to ask, and whom. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "resolve/resolve.h"

/* A server as c-ares takes it; not one of this host itself, whom no interface reaches, nor with a scope or a TLS name. */
static bool is_server(const char *s)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, s, &v4) == 1) return ntohl(v4.s_addr) >> 24 != 127;
    return inet_pton(AF_INET6, s, &v6) == 1 && !IN6_IS_ADDR_LOOPBACK(&v6) && !IN6_IS_ADDR_LINKLOCAL(&v6);
}

static bool has(const char *list, const char *s)
{
    size_t n = strlen(s);
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && !strncmp(p, s, n)) return true;
    return false;
}

static void add_server(char *list, char *s)
{
    size_t n = strlen(list);
    s[strcspn(s, "#%\r\n")] = 0; /* "1.1.1.1#cloudflare-dns.com" */
    if (is_server(s) && !has(list, s)) snprintf(list + n, RESOLVE_SERVERS - n, "%s%s", n ? "," : "", s);
}

/* "nameserver 10.0.0.1", "DNS=10.0.0.1 10.0.0.2", "SERVERS=..." */
static void servers_of(const char *path, const char *key, char *list)
{
    char line[1024], *save = NULL;
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key))) continue;
        for (char *s = strtok_r(line + strlen(key), " \t\n", &save); s; s = strtok_r(NULL, " \t\n", &save)) add_server(list, s);
    }
    if (f) fclose(f);
}

/* A link's own servers come first, then those for all. */
static void link_servers(struct resolve_link *l)
{
    char path[64];
    snprintf(path, sizeof path, "/run/systemd/resolve/netif/%u", l->index);
    servers_of(path, "SERVERS=", l->servers);
    snprintf(path, sizeof path, "/run/systemd/netif/links/%u", l->index);
    servers_of(path, "DNS=", l->servers);
    servers_of("/etc/resolv.conf", "nameserver", l->servers);
    servers_of("/run/systemd/resolve/resolv.conf", "nameserver", l->servers);
}

/* "wlan0,wwan0", "-eth3": names with a minus are left out; without any other name, all the rest are in. */
static bool is_chosen(const char *list, const char *name)
{
    bool any = false, in = false;
    for (const char *p = list ? list : ""; *p; p += strcspn(p, ","), p += *p == ',') {
        bool minus = *p == '-';
        size_t n = strcspn(p, ",") - minus;
        bool same = n == strlen(name) && !strncmp(p + minus, name, n);
        if (minus && same) return false;
        any |= !minus, in |= same;
    }
    return !any || in;
}

/* ---- VPNs ---- */

/* The name of the interface that bears this address. */
static const char *bearer(struct ifaddrs *all, const struct sockaddr *sa)
{
    for (struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != sa->sa_family) continue;
        const struct sockaddr_in *a = (const void *)i->ifa_addr, *b = (const void *)sa;
        const struct sockaddr_in6 *c = (const void *)i->ifa_addr, *d = (const void *)sa;
        if (sa->sa_family == AF_INET ? a->sin_addr.s_addr == b->sin_addr.s_addr : !memcmp(&c->sin6_addr, &d->sin6_addr, 16)) return i->ifa_name;
    }
    return NULL;
}

static bool is_tunnel(int fd, const char *name)
{
    struct ifreq r = {0};
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    if (ioctl(fd, SIOCGIFHWADDR, &r)) return false;
    switch (r.ifr_hwaddr.sa_family) {
    case ARPHRD_NONE: case ARPHRD_TUNNEL: case ARPHRD_TUNNEL6: case ARPHRD_SIT: case ARPHRD_IPGRE: case 823 /* ARPHRD_IP6GRE */: return true;
    default: return false;
    }
}

/* Where the host itself sends what goes to this server. */
static bool leads_into_tunnel(struct ifaddrs *all, const char *server)
{
    union { struct sockaddr sa; struct sockaddr_in v4; struct sockaddr_in6 v6; } a = {0};
    socklen_t n = sizeof a;
    bool v4 = inet_pton(AF_INET, server, &a.v4.sin_addr) == 1, yes = false;
    if (!v4 && inet_pton(AF_INET6, server, &a.v6.sin6_addr) != 1) return false;
    a.sa.sa_family = v4 ? AF_INET : AF_INET6;
    a.v4.sin_port = htons(53);
    int fd = socket(a.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    if (connect(fd, &a.sa, v4 ? sizeof a.v4 : sizeof a.v6) == 0 && getsockname(fd, &a.sa, &n) == 0) {
        const char *name = bearer(all, &a.sa);
        yes = name && is_tunnel(fd, name);
    }
    close(fd);
    return yes;
}

static bool any_tunnel(struct ifaddrs *all, const char *servers)
{
    char one[64];
    for (const char *p = servers; *p; p += strcspn(p, ","), p += *p == ',') {
        snprintf(one, sizeof one, "%.*s", (int)strcspn(p, ","), p);
        if (leads_into_tunnel(all, one)) return true;
    }
    return false;
}

static bool is_known(const struct resolve_link *v, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(v[i].name, name)) return true;
    return false;
}

int resolve_links(const char *interfaces, struct resolve_link *v, int max)
{
    struct ifaddrs *all;
    int n = 0;
    if (getifaddrs(&all)) return 0;
    for (struct ifaddrs *i = all; i && n < max; i = i->ifa_next) {
        bool usable = (i->ifa_flags & IFF_UP) && (i->ifa_flags & IFF_RUNNING) && !(i->ifa_flags & IFF_LOOPBACK);
        if (!usable || !i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6)) continue;
        if (is_known(v, n, i->ifa_name) || !is_chosen(interfaces, i->ifa_name)) continue;
        v[n] = (struct resolve_link){.index = if_nametoindex(i->ifa_name)};
        snprintf(v[n].name, sizeof v[n].name, "%s", i->ifa_name);
        link_servers(&v[n]);
        if (*v[n].servers) n++;
    }
    if (n && any_tunnel(all, v[0].servers)) n = 0;
    freeifaddrs(all);
    return n;
}
