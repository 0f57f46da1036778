/* shim/rules.c: see rules.h. */
#include "shim/rules.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

/* Decimal digits up to any other character; -1: none, or more than max. */
static int number(const char **p, int max)
{
    int v = 0;
    if (**p < '0' || **p > '9') return -1;
    for (; **p >= '0' && **p <= '9'; (*p)++)
        if ((v = v * 10 + (**p - '0')) > max) return -1;
    return v;
}

/* "8000", "8000-8100", to the end of the text. */
static bool read_ports(const char *p, struct shim_rule *r)
{
    int low = number(&p, 65535), high = low;
    if (low >= 0 && *p == '-') p++, high = number(&p, 65535);
    r->low = (uint16_t)low, r->high = (uint16_t)high;
    return low >= 0 && high >= low && !*p;
}

/* "10.0.0.0/8", "fd00::1", "*". */
static bool read_address(char *text, struct shim_rule *r)
{
    char *slash = strchr(text, '/');
    if (!*text || !strcmp(text, "*")) return true;
    if (slash) *slash = 0;
    r->family = strchr(text, ':') ? AF_INET6 : AF_INET;
    int most = r->family == AF_INET ? 32 : 128, bits = most;
    if (inet_pton(r->family, text, r->ip) != 1) return false;
    const char *p = slash ? slash + 1 : "";
    if (slash) bits = number(&p, most);
    r->bits = (uint8_t)bits;
    return bits >= 0 && !*p;
}

/* Where the ports begin, or NULL. A second colon makes it an IPv6 address. */
static char *split(char *text)
{
    char *colon = strrchr(text, ':');
    if (!colon || (*text != '[' && strchr(text, ':') != colon)) return NULL;
    *colon = 0;
    return colon + 1;
}

static bool read_rule(char *text, struct shim_rule *r)
{
    char *end = strchr(text, ']'), *ports = end && end[1] != ':' ? NULL : split(text);
    *r = (struct shim_rule){.high = 65535};
    if (*text == '[') {
        if (!end || (end[1] && !ports)) return false;
        *end = 0;
        text++;
    }
    return read_address(text, r) && (!ports || read_ports(ports, r)) && (r->family || ports);
}

int shim_rules_read(const char *list, struct shim_rule *v, int max, const char **bad)
{
    int n = 0;
    for (const char *p = list; *p; p += *p == ',') {
        char one[80];
        size_t len = strcspn(p, ",");
        while (len && *p == ' ') p++, len--;
        *bad = p;
        if (n == max || len >= sizeof one) return -1;
        memcpy(one, p, len);
        while (len && one[len - 1] == ' ') len--;
        one[len] = 0;
        if (len && !read_rule(one, &v[n++])) return -1;
        p += strcspn(p, ",");
    }
    return n;
}

static bool same_bits(const uint8_t *a, const uint8_t *b, int bits)
{
    if (memcmp(a, b, (size_t)bits / 8)) return false;
    return bits % 8 == 0 || !((a[bits / 8] ^ b[bits / 8]) >> (8 - bits % 8));
}

bool shim_rules_match(const struct shim_rule *v, int n, const struct sockaddr *sa)
{
    const struct sockaddr_in *v4 = (const void *)sa;
    const struct sockaddr_in6 *v6 = (const void *)sa;
    const uint8_t *ip = sa->sa_family == AF_INET ? (const uint8_t *)&v4->sin_addr : v6->sin6_addr.s6_addr;
    uint16_t port = ntohs(v4->sin_port); /* at the same place in both */
    for (int i = 0; i < n; i++)
        if (port >= v[i].low && port <= v[i].high && (!v[i].family || (v[i].family == sa->sa_family && same_bits(ip, v[i].ip, v[i].bits)))) return true;
    return false;
}
