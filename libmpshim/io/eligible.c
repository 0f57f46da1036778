/* io/eligible.c: which links and addresses may be paths: by the user's word, by what they are, by their state. */
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>

#include "io/internal.h"

static bool has_prefix(const char *name, const char *const *v)
{
    for (; *v; v++)
        if (!strncmp(name, *v, strlen(*v))) return true;
    return false;
}

static bool is_one_of(const char *word, const char *const *v)
{
    for (; *v; v++)
        if (!strcmp(word, *v)) return true;
    return false;
}

bool rtnl_next_name(const char **list, struct rtnl_name *w)
{
    const char *at = *list;

    while (at && (*at == ',' || *at == ' ' || *at == '\t')) at++; /* a list in a file has blanks for people */
    if (!at || !*at) return false;
    w->minus = *at == '-';
    w->name = at + w->minus;
    w->len = (int)strcspn(w->name, ", \t");
    *list = w->name + w->len;
    return true;
}

/* Is `name` (with a leading '-' if `minus`) in the list? *others: the list has entries without '-'. */
static bool in_list(const char *list, const char *name, bool minus, bool *others)
{
    struct rtnl_name w;
    bool found = false;

    while (rtnl_next_name(&list, &w)) {
        if (!w.minus && others) *others = true;
        found |= w.minus == minus && (size_t)w.len == strlen(name) && !memcmp(w.name, name, (size_t)w.len);
    }
    return found;
}

bool rtnl_is_named(const struct io *io, const struct rtnl_link *l)
{
    return in_list(io->cfg.interfaces, l->name, false, NULL);
}

bool rtnl_is_backup(const struct io *io, const struct rtnl_link *l)
{
    return in_list(io->cfg.backup, l->name, false, NULL);
}

bool rtnl_link_is_up(const struct rtnl_link *l) { return l->flags & IFF_UP && l->flags & IFF_RUNNING; }

bool rtnl_link_is_tunnel(const struct rtnl_link *l)
{
    static const char *const kinds[] = { "tun", "wireguard", "ppp", "ipip", "gre", "gretap", "sit", "ip6tnl", "ip6gre",
                                         "ip6gretap", "vti", "vti6", "xfrm", "l2tp", NULL };

    return is_one_of(l->kind, kinds) || l->arptype == ARPHRD_PPP || l->arptype == ARPHRD_TUNNEL ||
           l->arptype == ARPHRD_TUNNEL6 || l->arptype == ARPHRD_SIT || l->arptype == ARPHRD_IPGRE;
}

/* Networks of containers and virtual machines inside this host. By name: a veth pair's end inside a container is that
 * container's real interface. */
static bool is_host_internal(const struct rtnl_link *l)
{
    static const char *const names[] = { "docker", "veth", "br-", "virbr", "lxcbr", "lxdbr", "cni", "podman", "vnet", "vmnet",
                                         "vboxnet", "cali", "flannel", "dummy", "ifb", NULL };

    return has_prefix(l->name, names);
}

const char *rtnl_link_unwanted(const struct io *io, const struct rtnl_link *l)
{
    bool only_named = false, named = in_list(io->cfg.interfaces, l->name, false, &only_named);

    if (in_list(io->cfg.interfaces, l->name, true, NULL)) return "excluded by the user";
    return only_named && !named ? "not among the interfaces the user named" : NULL;
}

const char *rtnl_link_refused(const struct io *io, const struct rtnl_link *l)
{
    bool named = rtnl_is_named(io, l);

    if (l->flags & IFF_LOOPBACK) return "loopback";
    if (rtnl_link_unwanted(io, l)) return rtnl_link_unwanted(io, l);
    if (!named && !io->cfg.virtual_ok && l->master) return "part of a bridge, bond or VRF";
    if (!named && !io->cfg.virtual_ok && is_host_internal(l)) return "inside this host (containers, virtual machines)";
    if (!(l->flags & IFF_UP)) return "down";
    return rtnl_link_is_up(l) ? NULL : "no carrier";
}

const char *rtnl_addr_refused(const struct io *io, const struct rtnl_addr *a)
{
    (void)io;
    if (a->scope != RT_SCOPE_UNIVERSE) return "link-local";
    if (a->ip.family == 4 && (a->ip.b[0] == 127 || (a->ip.b[0] == 169 && a->ip.b[1] == 254))) return "link-local";
    if (a->flags & IFA_F_DADFAILED) return "duplicate";
    if (a->flags & IFA_F_TENTATIVE && !(a->flags & IFA_F_OPTIMISTIC)) return "tentative";
    if (a->flags & IFA_F_DEPRECATED) return "deprecated";
    return NULL;
}
