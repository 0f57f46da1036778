/* engine/addr.c: address forms. */
#include <arpa/inet.h>
#include <stdio.h>

#include "engine/eng.h"

bool eng_from_sa(const union ctl_addr *a, struct mp_endpoint *ep)
{
    memset(ep, 0, sizeof *ep);
    if (a->sa.sa_family == AF_INET) {
        ep->ip.family = 4;
        memcpy(ep->ip.b, &a->v4.sin_addr, 4);
        ep->port = ntohs(a->v4.sin_port);
        return true;
    }
    if (a->sa.sa_family != AF_INET6)
        return false;
    ep->port = ntohs(a->v6.sin6_port);
    if (IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr)) {
        ep->ip.family = 4;
        memcpy(ep->ip.b, &a->v6.sin6_addr.s6_addr[12], 4);
        return true;
    }
    ep->ip.family = 6;
    memcpy(ep->ip.b, &a->v6.sin6_addr, 16);
    return true;
}

static socklen_t to_sa6(const struct mp_endpoint *ep, union ctl_addr *a)
{
    a->v6.sin6_family = AF_INET6;
    a->v6.sin6_port = htons(ep->port);
    if (ep->ip.family == 6) {
        memcpy(&a->v6.sin6_addr, ep->ip.b, 16);
    } else {
        a->v6.sin6_addr.s6_addr[10] = a->v6.sin6_addr.s6_addr[11] = 0xff;
        memcpy(&a->v6.sin6_addr.s6_addr[12], ep->ip.b, 4);
    }
    return sizeof a->v6;
}

socklen_t eng_to_sa(const struct mp_endpoint *ep, int family, union ctl_addr *a)
{
    memset(a, 0, sizeof *a);
    if (family == AF_INET6 || ep->ip.family == 6)
        return to_sa6(ep, a);
    a->v4.sin_family = AF_INET;
    a->v4.sin_port = htons(ep->port);
    memcpy(&a->v4.sin_addr, ep->ip.b, 4);
    return sizeof a->v4;
}

bool eng_is_loopback(const struct mp_addr *a)
{
    static const uint8_t one[16] = { [15] = 1 };
    return a->family == 4 ? a->b[0] == 127 : memcmp(a->b, one, 16) == 0;
}

bool eng_is_any(const struct mp_addr *a)
{
    static const uint8_t zero[16];
    return memcmp(a->b, zero, a->family == 4 ? 4 : 16) == 0;
}

const char *eng_ip_text(const struct mp_addr *a, char buf[48])
{
    if (!inet_ntop(a->family == 6 ? AF_INET6 : AF_INET, a->b, buf, 48))
        strcpy(buf, "?");
    return buf;
}

const char *eng_ep_text(const struct mp_endpoint *ep, char buf[64])
{
    char ip[48];
    eng_ip_text(&ep->ip, ip);
    snprintf(buf, 64, ep->ip.family == 6 ? "[%s]:%u" : "%s:%u", ip, ep->port);
    return buf;
}
