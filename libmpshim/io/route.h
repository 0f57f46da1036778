/* io/route.h: the memory of route.c, held by rtnl.c. */
#ifndef IO_ROUTE_H
#define IO_ROUTE_H

#include "io/internal.h"

#define RTNL_CACHE_SLOTS 512

/* Direct-mapped; an entry of an older generation is none. */
struct rtnl_cached {
    uint32_t generation, mark;
    int oif, err;
    struct mp_addr dst, src;
    struct rtnl_route route;
};
struct rtnl_cache { struct rtnl_cached v[RTNL_CACHE_SLOTS]; };
struct rtnl_cache *rtnl_cache(struct rtnl *r);

#endif
