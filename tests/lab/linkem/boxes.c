/* boxes.c: the simulator's middleboxes (libmpshim/sim/box.h) over real frames: one set of boxes for both labs.
 *
 * Each TCP frame becomes a struct sim_pkt, goes through the link's list (away from the client, host a, from the first to
 * the last, towards it backwards) and is written anew, with good checksums. What the box does not look at is kept: TOS;
 * not kept are the TTL (64) and the IPv4 identification.
 *
 * Keys of a box: dir=a2b|b2a|both, size=BYTES, hold=TIME, nth=N, first=N, most=N, cut (options are taken out, not made
 * NOPs), nat=ADDRESS, and when it begins: from=TIME from now, or after=BYTES that have entered the link, in both
 * directions together. */
#include "linkem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/wire.h"

enum { V4_HEADER = 20, V6_HEADER = 40, ICMP_HEADER = 8 };

static unsigned get_be16(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }

static void put_be16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* ---- frames to packets ---- */

/* The IP header into h; its length, or 0: not TCP, or a fragment. *end: where the packet ends. */
static unsigned parse_ip(const struct frame *f, struct mp_pkt *h, unsigned *end)
{
    const uint8_t *ip = f->data + ETH_HLEN;
    unsigned type = get_be16(f->data + 12), room = f->len - ETH_HLEN, len;
    if (type == ETH_P_IP && room >= V4_HEADER && ip[9] == IPPROTO_TCP && (get_be16(ip + 6) & 0x3fff) == 0) {
        len = (ip[0] & 15u) * 4;
        *end = get_be16(ip + 2);
        h->tos = ip[1];
        h->src.ip.family = h->dst.ip.family = 4;
        memcpy(h->src.ip.b, ip + 12, 4);
        memcpy(h->dst.ip.b, ip + 16, 4);
    } else if (type == ETH_P_IPV6 && room >= V6_HEADER && ip[6] == IPPROTO_TCP) {
        len = V6_HEADER;
        *end = V6_HEADER + get_be16(ip + 4);
        h->tos = (uint8_t)(get_be16(ip) >> 4);
        h->src.ip.family = h->dst.ip.family = 6;
        memcpy(h->src.ip.b, ip + 8, 16);
        memcpy(h->dst.ip.b, ip + 24, 16);
    } else
        return 0;
    return *end <= room && len < *end ? len : 0;
}

static struct sim_pkt *packet_of(struct sim *world, const struct frame *f)
{
    struct mp_pkt h = { 0 };
    unsigned end, ip_len = parse_ip(f, &h, &end);
    const uint8_t *tcp = f->data + ETH_HLEN + ip_len;
    unsigned len = ip_len ? end - ip_len : 0;
    if (!ip_len || mp_tcp_parse(&h, tcp, len))
        return NULL;
    uint64_t sum = mp_csum_add(mp_csum_pseudo(&h.src.ip, &h.dst.ip, IPPROTO_TCP, len), tcp, len);
    if (mp_csum_fold(sum) != 0xffff)
        return NULL; /* wrong already: a new one would hide it */
    return sim_pkt_new(world, &h, h.data.p, h.len);
}

/* ---- packets to frames ---- */

static unsigned put_ip(uint8_t *ip, const struct mp_addr *src, const struct mp_addr *dst, unsigned proto, unsigned payload, uint8_t tos)
{
    static uint16_t id;
    if (src->family == 6) {
        memset(ip, 0, V6_HEADER);
        put_be16(ip, 0x6000u | (unsigned)tos << 4);
        put_be16(ip + 4, payload);
        ip[6] = (uint8_t)proto;
        ip[7] = 64;
        memcpy(ip + 8, src->b, 16);
        memcpy(ip + 24, dst->b, 16);
        return V6_HEADER;
    }
    memset(ip, 0, V4_HEADER);
    ip[0] = 0x45;
    ip[1] = tos;
    put_be16(ip + 2, V4_HEADER + payload);
    put_be16(ip + 4, ++id);
    ip[6] = 0x40; /* DF */
    ip[8] = 64;
    ip[9] = (uint8_t)proto;
    memcpy(ip + 12, src->b, 4);
    memcpy(ip + 16, dst->b, 4);
    put_be16(ip + 10, ~mp_csum_fold(mp_csum_add(0, ip, V4_HEADER)) & 0xffff);
    return V4_HEADER;
}

static struct frame *new_frame(const struct dir *d, int family)
{
    struct frame *f = frame_get();
    memcpy(f->data, d->ethernet, ETH_HLEN);
    put_be16(f->data + 12, family == 6 ? ETH_P_IPV6 : ETH_P_IP);
    return f;
}

static struct frame *frame_of(const struct dir *d, const struct sim_pkt *p)
{
    struct frame *f = new_frame(d, p->h.src.ip.family);
    unsigned len = 20u + p->h.optlen + p->h.len;
    uint8_t *tcp = f->data + ETH_HLEN;
    tcp += put_ip(tcp, &p->h.src.ip, &p->h.dst.ip, IPPROTO_TCP, len, p->h.tos);
    size_t header = mp_tcp_emit(tcp, &p->h);
    if (p->h.len)
        memcpy(tcp + header, p->h.data.p, p->h.len);
    uint64_t sum = mp_csum_pseudo(&p->h.src.ip, &p->h.dst.ip, IPPROTO_TCP, len);
    put_be16(tcp + 16, (unsigned)(~mp_csum_fold(mp_csum_add(sum, tcp, len)) & 0xffff) ^ (p->spoilt ? 0x5555 : 0));
    f->len = (uint32_t)(tcp - f->data) + len;
    return f;
}

/* The link's far end, a node of the world. */
struct far_end {
    struct sim_node node; /* first */
    struct dir *dir;
};

static void far_forward(struct sim_node *n, struct sim_pkt *p)
{
    struct dir *d = ((struct far_end *)n)->dir;
    if (ETH_HLEN + sim_pkt_ip_len(&p->h) > ETH_HLEN + 1500)
        d->stats.oversize++;
    else {
        struct frame *f = frame_of(d, p);
        f->at_ns = d->last_arrival_ns = max64((int64_t)n->sim->now, d->last_arrival_ns);
        into_queue(d, f);
    }
    sim_pkt_free(n->sim, p);
}

static mp_time far_next(const struct sim_node *n) { (void)n; return MP_NEVER; }
static void far_run(struct sim_node *n) { (void)n; }
static void far_free(struct sim_node *n) { free(n); }
static const struct sim_node_ops far_ops = { far_forward, far_next, far_run, far_free };

/* ---- ICMP errors (RFC 792, RFC 1191, RFC 4443) ---- */

static void error_type(int err, bool v6, uint8_t *type, uint8_t *code)
{
    *type = v6 ? 1 : 3;
    switch (err) {
    case EMSGSIZE:     *type = v6 ? 2 : 3; *code = v6 ? 0 : 4; break;
    case ECONNREFUSED: *code = v6 ? 4 : 3; break;                     /* port unreachable */
    case EACCES:       *code = v6 ? 1 : 13; break;                    /* administratively prohibited */
    case ENOPROTOOPT:  *type = v6 ? 4 : 3; *code = v6 ? 1 : 2; break; /* protocol, next header unknown */
    default:           *code = v6 ? 3 : 1; break;                     /* host, address unreachable */
    }
}

/* In the name of the destination, to who sent h. */
static void send_icmp(struct sim_box *b, int dir, const struct mp_pkt *h, int err, uint32_t mtu)
{
    struct link *l = b->icmp_arg;
    struct dir *back = dir == 0 ? &l->b2a : &l->a2b;
    bool v6 = h->src.ip.family == 6;
    struct frame *f = new_frame(back, h->src.ip.family);
    uint8_t quoted[V6_HEADER + 60], *ip = f->data + ETH_HLEN;
    unsigned n = put_ip(quoted, &h->src.ip, &h->dst.ip, IPPROTO_TCP, 20u + h->optlen + h->len, h->tos);
    n += (unsigned)mp_tcp_emit(quoted + n, h);
    uint8_t *icmp = ip + put_ip(ip, &h->dst.ip, &h->src.ip, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, ICMP_HEADER + n, 0);
    memset(icmp, 0, ICMP_HEADER);
    error_type(err, v6, &icmp[0], &icmp[1]);
    if (err == EMSGSIZE)
        put_be16(icmp + 6, mtu);
    memcpy(icmp + ICMP_HEADER, quoted, n);
    uint64_t sum = v6 ? mp_csum_pseudo(&h->dst.ip, &h->src.ip, IPPROTO_ICMPV6, ICMP_HEADER + n) : 0;
    put_be16(icmp + 2, ~mp_csum_fold(mp_csum_add(sum, icmp, ICMP_HEADER + n)) & 0xffff);
    f->len = (uint32_t)(icmp - f->data) + ICMP_HEADER + n;
    f->at_ns = back->last_arrival_ns = max64((int64_t)b->sim->now, back->last_arrival_ns);
    into_queue(back, f);
}

/* ---- the list ---- */

void boxes_init(struct link *l)
{
    sim_init(&l->boxes.world, (uint64_t)(l - links) + 1);
    l->boxes.n = 0;
}

static bool set_key(struct sim_box_cfg *c, uint64_t *after, const char *key, const char *value)
{
    int64_t ns;
    uint64_t n;
    if (!strcmp(key, "cut"))
        return c->cut_out = true;
    if (!strcmp(key, "dir")) {
        c->dirs = !strcmp(value, "a2b") ? 1 : !strcmp(value, "b2a") ? 2 : 0;
        return c->dirs || !strcmp(value, "both");
    }
    if (!strcmp(key, "nat"))
        return (c->nat_ip = sim_addr(value)).family != 0;
    if (!strcmp(key, "hold") || !strcmp(key, "from")) {
        if (!parse_time(value, &ns))
            return false;
        *(*key == 'h' ? &c->hold : &c->from) = (mp_time)ns + (*key == 'f' ? (mp_time)clock_ns(CLOCK_MONOTONIC) : 0);
        return true;
    }
    if (!parse_bytes(value, &n))
        return false;
    if (!strcmp(key, "after")) {
        c->from = MP_NEVER;
        *after = n;
        return true;
    }
    uint32_t *field = !strcmp(key, "size") ? &c->size : !strcmp(key, "nth") ? &c->nth : !strcmp(key, "first") ? &c->first
                    : !strcmp(key, "most") ? &c->most : NULL;
    if (field)
        *field = (uint32_t)n;
    return field;
}

static bool parse_box(char *spec, struct sim_box_cfg *c, uint64_t *after)
{
    char *save, *word = strtok_r(spec, ",", &save);
    if (!word || !sim_box_find(word, &c->what))
        return false;
    while ((word = strtok_r(NULL, ",", &save))) {
        char *value = strchr(word, '=');
        if (value)
            *value++ = 0;
        if (!set_key(c, after, word, value ? value : ""))
            return false;
    }
    return true;
}

static struct sim_node *far_end_of(struct dir *d)
{
    struct far_end *e = calloc(1, sizeof *e);
    if (!e)
        die("no memory for", "boxes");
    e->dir = d;
    sim_node_add(&d->link->boxes.world, &e->node, &far_ops, d->number ? "b2a" : "a2b");
    return &e->node;
}

const char *boxes_set(struct link *l, char **specs, int n, unsigned dirs)
{
    struct boxes *x = &l->boxes;
    struct sim_box_cfg cfg[BOXES_MAX] = { 0 };
    static char wrong[64];
    uint64_t after = 0;
    for (int i = 0; i < n; i++) {
        char copy[256];
        snprintf(copy, sizeof copy, "%s", specs[i]);
        snprintf(wrong, sizeof wrong, "%.60s", specs[i]);
        cfg[i].dirs = dirs == 3 ? 0 : (uint8_t)dirs;
        if (!parse_box(copy, &cfg[i], &after))
            return wrong;
    }
    sim_fini(&x->world);
    boxes_init(l);
    x->bytes = 0;
    x->after = after;
    x->world.now = (mp_time)clock_ns(CLOCK_MONOTONIC);
    if (!n)
        return NULL;
    struct sim_node *up = far_end_of(&l->a2b), *down = far_end_of(&l->b2a);
    for (int i = 0; i < n; i++) {
        x->box[i] = sim_box_new(&x->world, sim_box_name(cfg[i].what), &cfg[i], up, i ? &x->box[i - 1]->half[1]->node : down);
        x->box[i]->icmp = send_icmp;
        x->box[i]->icmp_arg = l;
        if (i)
            x->box[i - 1]->half[0]->node.out = &x->box[i]->half[0]->node;
    }
    x->n = n;
    return NULL;
}

/* Boxes that wait for so many bytes begin. */
static void count_bytes(struct boxes *x, uint32_t n)
{
    x->bytes += n;
    if (!x->after || x->bytes < x->after)
        return;
    x->after = 0;
    for (int i = 0; i < x->n; i++)
        if (x->box[i]->cfg.from == MP_NEVER)
            x->box[i]->cfg.from = x->world.now;
}

void boxes_run(struct link *l, int64_t now)
{
    if (!l->boxes.n)
        return;
    l->boxes.world.at_same_time = 0; /* real time goes on by itself */
    sim_run_until(&l->boxes.world, (mp_time)now);
}

bool boxes_take(struct dir *d, struct frame *f)
{
    struct boxes *x = &d->link->boxes;
    memcpy(d->ethernet, f->data, ETH_HLEN);
    if (!x->n)
        return false;
    boxes_run(d->link, f->at_ns);
    count_bytes(x, f->len);
    struct sim_pkt *p = packet_of(&x->world, f);
    if (!p) {
        x->strange++;
        return false;
    }
    frame_put(f);
    sim_send(d->number == 0 ? &x->box[0]->half[0]->node : &x->box[x->n - 1]->half[1]->node, p);
    return true;
}

int64_t boxes_deadline(const struct link *l)
{
    mp_time at = l->boxes.n ? sim_next(&l->boxes.world) : MP_NEVER;
    return at > (mp_time)NEVER ? NEVER : (int64_t)at;
}

void boxes_stats(const struct dir *d, struct stats *s)
{
    const struct boxes *x = &d->link->boxes;
    for (int i = 0; i < x->n; i++) {
        s->hook_changes += (int64_t)x->box[i]->changed_in[d->number];
        s->hook_drops += (int64_t)x->box[i]->dropped_in[d->number];
    }
}
