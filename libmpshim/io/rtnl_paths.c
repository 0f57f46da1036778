/* io/rtnl_paths.c: which links and addresses are paths, and the stack told of them. */
#include <linux/if_addr.h>
#include <stdlib.h>

#include "io/rtnl.h"

static const struct rtnl_path *find_path(const struct rtnl_path *v, int n, int ifindex, const struct mp_addr *ip)
{
    for (int i = 0; i < n; i++)
        if (v[i].ifindex == ifindex && mp_addr_eq(&v[i].ip, ip)) return &v[i];
    return NULL;
}

/* More is better: what the stack uses already stays; then temporary addresses (RFC 8981: the kernel makes them only for
 * those who want them); then the kernel's order, primary before secondary. */
static int preference(const struct rtnl *r, const struct rtnl_addr *a)
{
    if (find_path(r->path, r->npath, a->ifindex, &a->ip)) return 3;
    if (a->ip.family == 6) return a->flags & IFA_F_TEMPORARY ? 2 : 1;
    return a->flags & IFA_F_SECONDARY ? 1 : 2;
}

/* One address per interface and family: more would be subflows that share a link. */
static const struct rtnl_addr *best_addr(const struct rtnl *r, const struct rtnl_link *l, uint8_t family)
{
    const struct rtnl_addr *best = NULL;

    for (int i = 0; i < r->naddr; i++) {
        const struct rtnl_addr *a = &r->addr[i];

        if (a->ifindex != l->ifindex || a->ip.family != family || rtnl_addr_refused(r->io, a)) continue;
        if (!best || preference(r, a) > preference(r, best)) best = a;
    }
    return best;
}

static int wanted_paths(const struct rtnl *r, struct rtnl_path *v)
{
    int n = 0;

    for (int i = 0; i < r->nlink; i++) {
        if (rtnl_link_refused(r->io, &r->link[i])) continue;
        for (uint8_t family = 4; family <= 6; family += 2) {
            const struct rtnl_addr *a = best_addr(r, &r->link[i], family);

            if (a) v[n++] = (struct rtnl_path){ a->ifindex, a->ip };
        }
    }
    return n;
}

static void tell_add(const struct rtnl *r, const struct rtnl_path *p)
{
    const struct rtnl_link *l = rtnl_link(r, p->ifindex);
    struct mp_local local = { .ifindex = p->ifindex, .ip = p->ip, .announce = true };

    local.backup = rtnl_is_backup(r->io, l);
    memcpy(local.name, l->name, sizeof local.name);
    mp_stack_local_add(*r->io->stack, &local, io_now());
}

/* What went comes first: data on a dead path is to be sent again at once. */
void rtnl_tell_stack(struct rtnl *r)
{
    struct rtnl_path *want;
    int n;

    r->changed = false;
    if (!r->telling || !*r->io->stack) return;
    want = calloc((size_t)r->nlink * 2 + 1, sizeof *want);
    if (!want) return;
    n = wanted_paths(r, want);
    for (int i = 0; i < r->npath; i++)
        if (!find_path(want, n, r->path[i].ifindex, &r->path[i].ip))
            mp_stack_local_del(*r->io->stack, r->path[i].ifindex, &r->path[i].ip, io_now());
    for (int i = 0; i < n; i++)
        if (!find_path(r->path, r->npath, want[i].ifindex, &want[i].ip)) tell_add(r, &want[i]);
    free(r->path);
    r->path = want;
    r->npath = n;
}

void rtnl_paths_start(struct rtnl *r)
{
    r->telling = true;
    rtnl_tell_stack(r);
}
