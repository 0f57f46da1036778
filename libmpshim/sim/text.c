/* sim/text.c: packets for people: a line of text, a pcap file. */
#include <stdarg.h>
#include <stdlib.h>

#include "core/opt.h"
#include "core/wire.h"
#include "sim/sim.h"

struct line {
    char *p;
    size_t n, used;
};

static void put(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct line *l, const char *fmt, ...)
{
    if (l->used >= l->n) return;
    va_list ap;
    va_start(ap, fmt);
    int k = vsnprintf(l->p + l->used, l->n - l->used, fmt, ap);
    va_end(ap);
    l->used = mp_min(l->n, l->used + (k > 0 ? (size_t)k : 0));
}

static void put_dss(struct line *l, const struct mp_opt_dss *d)
{
    put(l, " dss[");
    if (d->has_ack) put(l, "ack%s=%llx", d->ack64 ? "64" : "", (unsigned long long)d->data_ack);
    if (d->has_map)
        put(l, "%sdsn%s=%llx ssn=%u len=%u", d->has_ack ? " " : "", d->dsn64 ? "64" : "", (unsigned long long)d->dsn,
            d->ssn, d->len);
    if (d->has_csum) put(l, " csum=%04x", d->csum);
    if (d->data_fin) put(l, " FIN");
    put(l, "]");
}

static void put_add_addr(struct line *l, const struct mp_opt_add_addr *a)
{
    char ip[48];
    put(l, " add_addr[%sid=%u %s", a->echo ? "echo " : a->v0 ? "v0 " : "", a->addr_id, sim_addr_text(&a->ip, ip));
    if (a->port) put(l, ":%u", a->port);
    put(l, "]");
}

static void put_mptcp(struct line *l, const struct mp_opts *o)
{
    static const char *const form[] = {"syn", "synack", "ack"};
    if (o->mp & MP_OPT_HAS(MP_CAPABLE))
        put(l, " capable[v%u keys=%u%s%s len=%u]", o->capable.version, o->capable.nkeys,
            o->capable.csum_req ? " csum" : "", o->capable.no_join_initial ? " C" : "", o->capable.data_len);
    if (o->mp & MP_OPT_HAS(MP_JOIN))
        put(l, " join[%s id=%u%s]", form[o->join.form], o->join.addr_id, o->join.backup ? " backup" : "");
    if (o->mp & MP_OPT_HAS(MP_DSS)) put_dss(l, &o->dss);
    if (o->mp & MP_OPT_HAS(MP_ADD_ADDR)) put_add_addr(l, &o->add_addr);
    if (o->mp & MP_OPT_HAS(MP_REMOVE_ADDR)) put(l, " remove_addr[n=%u first=%u]", o->remove_addr.n, o->remove_addr.id[0]);
    if (o->mp & MP_OPT_HAS(MP_PRIO)) put(l, " prio[%s]", o->prio.backup ? "backup" : "normal");
    if (o->mp & MP_OPT_HAS(MP_FAIL)) put(l, " fail[%llx]", (unsigned long long)o->fail_dsn);
    if (o->mp & MP_OPT_HAS(MP_FASTCLOSE)) put(l, " fastclose");
    if (o->mp & MP_OPT_HAS(MP_TCPRST)) put(l, " tcprst[%u%s]", o->tcprst.reason, o->tcprst.transient ? " transient" : "");
}

void sim_pkt_text(const struct mp_pkt *h, char *buf, size_t n)
{
    static const char letters[] = "FSRPAUEC";
    struct line l = {buf, n, 0};
    char ip[48], flags[9];
    int k = 0;
    for (int i = 0; i < 8; i++)
        if (h->flags & 1 << i) flags[k++] = letters[i];
    flags[k] = 0;
    put(&l, "%s:%u > ", sim_addr_text(&h->src.ip, ip), h->src.port);
    put(&l, "%s:%u %s seq=%u ack=%u wnd=%u len=%u", sim_addr_text(&h->dst.ip, ip), h->dst.port, flags, h->seq, h->ack,
        h->wnd, h->len);
    static const char *const ecn[] = {"", " ECT1", " ECT0", " CE"};
    put(&l, "%s", ecn[h->tos & 3]);
    struct mp_opts o;
    if (mp_opts_parse(&o, h->opt, h->optlen, h->flags) < 0) {
        put(&l, " BAD-OPTIONS");
        return;
    }
    if (o.has_mss) put(&l, " mss=%u", o.mss);
    if (o.has_wscale) put(&l, " ws=%u", o.wscale);
    if (o.sack_ok) put(&l, " sackOK");
    for (int i = 0; i < o.nsack; i++) put(&l, " sack=%u-%u", o.sack[i].left, o.sack[i].right);
    put_mptcp(&l, &o);
}

/* ---- pcap: classic format, nanoseconds, raw IP ---- */

struct sim_pcap {
    FILE *f;
};

struct sim_pcap *sim_pcap_open(const char *path)
{
    FILE *f = fopen(path, "wb");
    if (!f) return NULL;
    struct sim_pcap *c = malloc(sizeof *c);
    if (!c) abort();
    c->f = f;
    const uint32_t head[] = {0xa1b23c4d, 2 | 4 << 16, 0, 0, 65535, 101 /* LINKTYPE_RAW */};
    fwrite(head, sizeof head, 1, f);
    return c;
}

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static size_t ip_header(uint8_t *b, const struct mp_pkt *h, uint32_t tcp_len)
{
    if (h->dst.ip.family == 6) {
        b[0] = 0x60 | h->tos >> 4;
        b[1] = (uint8_t)(h->tos << 4);
        put16(b + 4, tcp_len);
        b[6] = 6;
        b[7] = 64;
        memcpy(b + 8, h->src.ip.b, 16);
        memcpy(b + 24, h->dst.ip.b, 16);
        return 40;
    }
    b[0] = 0x45;
    b[1] = h->tos;
    put16(b + 2, 20 + tcp_len);
    b[6] = 0x40;
    b[8] = 64;
    b[9] = 6;
    memcpy(b + 12, h->src.ip.b, 4);
    memcpy(b + 16, h->dst.ip.b, 4);
    put16(b + 10, (uint16_t)~mp_csum_fold(mp_csum_add(0, b, 20)));
    return 20;
}

void sim_pcap_write(struct sim_pcap *c, mp_time now, const struct sim_pkt *p)
{
    uint8_t ip[40] = {0}, tcp[60];
    size_t tn = mp_tcp_emit(tcp, &p->h);
    uint32_t tcp_len = (uint32_t)tn + p->h.len;
    size_t in = ip_header(ip, &p->h, tcp_len);
    uint64_t sum = mp_csum_pseudo(&p->h.src.ip, &p->h.dst.ip, 6, tcp_len);
    sum = mp_csum_add(sum, tcp, tn);
    if (p->h.len) sum = mp_csum_add(sum, p->h.data.p, p->h.len);
    put16(tcp + 16, (uint16_t)~mp_csum_fold(sum));
    uint32_t total = (uint32_t)in + tcp_len;
    const uint32_t rec[] = {(uint32_t)(now / 1000000000), (uint32_t)(now % 1000000000), total, total};
    fwrite(rec, sizeof rec, 1, c->f);
    fwrite(ip, in, 1, c->f);
    fwrite(tcp, tn, 1, c->f);
    if (p->h.len) fwrite(p->h.data.p, p->h.len, 1, c->f);
}

void sim_pcap_close(struct sim_pcap *c)
{
    if (!c) return;
    fclose(c->f);
    free(c);
}
