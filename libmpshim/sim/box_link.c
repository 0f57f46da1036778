/* sim/box_link.c: boxes that treat packets as a bad link or a strict firewall does. */
#include <errno.h>

#include "sim/box_int.h"

/* One of each cfg.nth packets; not the very first, which is a SYN and costs a second when it is lost. */
static bool picked(struct sim_box *b, int dir) { return ++b->counted[dir] % b->cfg.nth == 0; }

void box_dup(struct sim_box *b, int dir, struct sim_pkt *p)
{
    if (picked(b, dir)) {
        box_touch(b, dir, "dup", p);
        box_later(b, dir, sim_pkt_dup(b->sim, p), b->sim->now + b->cfg.hold);
    }
    box_emit(b, dir, p);
}

void box_delay(struct sim_box *b, int dir, struct sim_pkt *p)
{
    box_touch(b, dir, "delay", p);
    box_later(b, dir, p, b->sim->now + b->cfg.hold);
}

void box_reorder(struct sim_box *b, int dir, struct sim_pkt *p)
{
    if (picked(b, dir)) box_delay(b, dir, p);
    else box_emit(b, dir, p);
}

/* The TCP checksum fails at the receiver, which io/ (and a card) drops: core/ never sees such a packet. */
void box_corrupt(struct sim_box *b, int dir, struct sim_pkt *p)
{
    if (picked(b, dir)) {
        p->spoilt = true;
        box_touch(b, dir, "corrupt", p);
    }
    box_emit(b, dir, p);
}

void box_big(struct sim_box *b, int dir, struct sim_pkt *p)
{
    if (sim_pkt_ip_len(&p->h) > b->cfg.size) box_drop(b, dir, p);
    else box_emit(b, dir, p);
}

void box_big_icmp(struct sim_box *b, int dir, struct sim_pkt *p)
{
    if (sim_pkt_ip_len(&p->h) > b->cfg.size && b->icmp) b->icmp(b, dir, &p->h, EMSGSIZE, b->cfg.size);
    box_big(b, dir, p);
}

/* Errors that must not end a connection (RFC 1122 4.2.3.9, RFC 5927): hard and soft ones, about what is in flight and
 * what never was, and smaller and smaller MTUs down to what no link has. */
void box_icmp_lies(struct sim_box *b, int dir, struct sim_pkt *p)
{
    static const struct { int err; uint32_t mtu, off; } lie[] = {
        {ECONNREFUSED, 0, 0}, {EHOSTUNREACH, 0, 0}, {EMSGSIZE, 68, 0}, {ECONNREFUSED, 0, 0x40000000},
        {EMSGSIZE, 1200, 0x40000000}, {EACCES, 0, 0}, {EMSGSIZE, 1, 0}, {ENOPROTOOPT, 0, 0},
    };
    if (p->h.len && b->icmp && picked(b, dir)) {
        int k = (int)(b->counted[dir] / b->cfg.nth % (sizeof lie / sizeof *lie));
        struct mp_pkt h = p->h;
        h.seq += lie[k].off;
        box_touch(b, dir, "lie", p);
        b->icmp(b, dir, &h, lie[k].err, lie[k].mtu);
    }
    box_emit(b, dir, p);
}

/* Sees everything, to know the window scale of connections that began before it was told to act. Both ends must have sent the
 * option (RFC 7323 2.2; another box may have taken it out of the SYN). */
void box_clamp(struct sim_box *b, int dir, struct sim_pkt *p)
{
    struct sim_box_flow *f = box_flow_of(b, dir, &p->h, true);
    if (p->h.flags & MP_SYN) {
        const uint8_t *o = box_find_option(&p->h, OPT_WSCALE, 3);
        f->wscale[dir] = o ? o[2] : 0;
        if (!o && p->h.flags & MP_ACK) f->wscale[!dir] = 0;
    } else if (box_acts(b, dir) && (uint64_t)p->h.wnd << f->wscale[dir] > b->cfg.size) {
        p->h.wnd = (uint16_t)(b->cfg.size >> f->wscale[dir]);
        box_touch(b, dir, "clamp", p);
    }
    box_emit(b, dir, p);
}

/* Drops ACKs of data that it has not seen going the other way. */
void box_ack_unseen(struct sim_box *b, int dir, struct sim_pkt *p)
{
    struct sim_box_flow *f = box_flow_of(b, dir, &p->h, true);
    uint32_t end = p->h.seq + p->h.len + !!(p->h.flags & MP_SYN) + !!(p->h.flags & MP_FIN);
    if (!f->seen[dir] || seq_after(end, f->next[dir])) f->next[dir] = end;
    f->seen[dir] = true;
    if (box_acts(b, dir) && p->h.flags & MP_ACK && f->seen[!dir] && seq_after(p->h.ack, f->next[!dir])) box_drop(b, dir, p);
    else box_emit(b, dir, p);
}
