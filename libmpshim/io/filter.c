/* io/filter.c: classic BPF programs: which segments a raw or packet socket takes at all.
 *
 * Every raw socket is offered a clone of each TCP segment of its interface; the filter is what keeps that cheap for the
 * rest of the host. Ports are tested as (port & mask) == value: a listener's port with a full mask, our own ports as
 * aligned blocks of 16 or 256, so that one test stands for many ports and the program changes only with a new block. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "io/internal.h"

/* ---- port sets ---- */

bool io_ports_get(struct io_port_set *s, uint16_t value, uint16_t mask)
{
    for (int i = 0; i < s->n; i++)
        if (s->v[i].value == (value & mask) && s->v[i].mask == mask) {
            s->v[i].refs++;
            return false; /* a member without references is still in the filter */
        }
    if (s->n == s->cap) {
        int cap = s->cap ? s->cap * 2 : 4;
        struct io_port_ref *v = realloc(s->v, (size_t)cap * sizeof *v);
        if (!v) return false;
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n++] = (struct io_port_ref){ value & mask, mask, 1 };
    return true;
}

void io_ports_put(struct io_port_set *s, uint16_t value, uint16_t mask)
{
    for (int i = 0; i < s->n; i++)
        if (s->v[i].value == (value & mask) && s->v[i].mask == mask && s->v[i].refs) {
            s->v[i].refs--;
            return;
        }
}

void io_ports_fini(struct io_port_set *s)
{
    free(s->v);
    *s = (struct io_port_set){ 0 };
}

/* ---- programs ---- */

#define INSN_MAX 4096 /* BPF_MAXINSNS */
struct prog { struct sock_filter v[INSN_MAX]; int n; };

static void op(struct prog *p, uint16_t code, uint8_t jt, uint8_t jf, uint32_t k)
{
    if (p->n < INSN_MAX) p->v[p->n++] = (struct sock_filter){ code, jt, jf, k };
}

#define LD(size, off)  op(p, BPF_LD | (size) | BPF_ABS, 0, 0, (uint32_t)(off))
#define LDX(size, off) op(p, BPF_LD | (size) | BPF_IND, 0, 0, (uint32_t)(off)) /* at X + off */
#define JEQ(k, t, f)   op(p, BPF_JMP | BPF_JEQ | BPF_K, t, f, (uint32_t)(k))
#define JSET(k, t, f)  op(p, BPF_JMP | BPF_JSET | BPF_K, t, f, (uint32_t)(k))
#define RET(k)         op(p, BPF_RET | BPF_K, 0, 0, (uint32_t)(k))
#define KEEP 0xffffffffu

static void emit_mask(struct prog *p, const struct io_port_set *s, uint16_t mask)
{
    if (mask != 0xffff) op(p, BPF_ALU | BPF_AND | BPF_K, 0, 0, mask);
    for (int i = 0; i < s->n; i++) {
        if (s->v[i].mask != mask) continue;
        JEQ(s->v[i].value, 0, 1);
        RET(KEEP);
    }
}

/* X is where the TCP header begins, less off. Ends the program. */
static void emit_ports(struct prog *p, uint32_t off, const struct io_port_set *s)
{
    LDX(BPF_H, off + 2);
    emit_mask(p, s, 0xffff); /* the narrow ones first: each mask changes A */
    emit_mask(p, s, IO_BLOCK_MASK);
    emit_mask(p, s, IO_WIDE_MASK);
    RET(0);
}

/* A frame to this host with an unfragmented TCP segment in it; leaves X at the IP header's length. VLAN-tagged frames
 * belong to the VLAN's own interface. */
static void emit_ethernet(struct prog *p)
{
    LD(BPF_B, SKF_AD_OFF + SKF_AD_PKTTYPE);
    JEQ(PACKET_HOST, 1, 0);
    RET(0);
    LD(BPF_B, SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT);
    JEQ(0, 1, 0);
    RET(0);
    LD(BPF_H, 12);
    JEQ(ETH_P_IP, 0, 8);
    LD(BPF_B, IO_ETH_LEN + 9);
    JEQ(IPPROTO_TCP, 1, 0);
    RET(0);
    LD(BPF_H, IO_ETH_LEN + 6);
    JSET(0x3fff, 0, 1); /* more fragments, or an offset */
    RET(0);
    op(p, BPF_LDX | BPF_B | BPF_MSH, 0, 0, IO_ETH_LEN);
    op(p, BPF_JMP | BPF_JA, 0, 0, 6);
    JEQ(ETH_P_IPV6, 1, 0);
    RET(0);
    LD(BPF_B, IO_ETH_LEN + 6);
    JEQ(IPPROTO_TCP, 1, 0);
    RET(0);
    op(p, BPF_LDX | BPF_W | BPF_IMM, 0, 0, 40);
}

static int attach(int fd, const struct sock_filter *v, int n)
{
    struct sock_fprog prog = { .len = (unsigned short)n, .filter = (struct sock_filter *)v };

    if (n >= INSN_MAX) return -E2BIG;
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof prog) ? -errno : 0;
}

int io_filter_attach(int fd, enum io_filter_kind kind, const struct io_port_set *ports)
{
    struct prog *p = malloc(sizeof *p);
    int err;

    if (!p) return -ENOMEM;
    p->n = 0;
    switch (kind) {
    case IO_FILTER_RAW4: /* the packet begins at the IP header */
        op(p, BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0);
        emit_ports(p, 0, ports);
        break;
    case IO_FILTER_RAW6: /* the packet begins at the TCP header */
        op(p, BPF_LDX | BPF_W | BPF_IMM, 0, 0, 0);
        emit_ports(p, 0, ports);
        break;
    case IO_FILTER_ETH:
        emit_ethernet(p);
        emit_ports(p, IO_ETH_LEN, ports);
        break;
    }
    err = attach(fd, p->v, p->n);
    free(p);
    return err;
}

/* The loopback interface is number 1 in every network namespace. */
int io_attach_only_loopback(int fd)
{
    static const struct sock_filter lo[] = {
        { BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)(SKF_AD_OFF + SKF_AD_IFINDEX) },
        { BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 1 },
        { BPF_RET | BPF_K, 0, 0, KEEP },
        { BPF_RET | BPF_K, 0, 0, 0 },
    };

    return attach(fd, lo, 4);
}
