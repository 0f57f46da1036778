/* SYN cookies (RFC 4987 3.6): when a listener has many half-open connections, a SYN is answered without keeping anything.
 * What the third ACK must bring back is in what it repeats: our initial number (time, the peer's MSS, a MAC over the
 * 4-tuple and the peer's number), our timestamp (window scale, SACK, ECN), and with MPTCP our key, which RFC 8684 3.1 has the
 * client repeat for just this; the key is a MAC as well. */
#include "core/stack_int.h"

#include "core/crypto.h"
#include "core/sf_out.h"

#define TICK MP_SEC(64)
enum { TICKS = 8, MAX_AGE = 2 /* ticks */ };
/* ISN: tick mod 8 (3 bits), MSS (2 bits), MAC (27 bits). Timestamp's low bits: window scale (15: none), SACK, ECN. */
enum { MAC_BITS = 27, TS_BITS = 6 };
static const uint16_t mss_of[] = { 536, 1220, 1400, 1440 };

struct cookie {
    uint32_t isn;
    uint64_t key;
};

static unsigned mss_index(const struct mp_opts *o)
{
    unsigned i = 0;
    while (i < 3 && o->has_mss && mss_of[i + 1] <= o->mss) i++;
    return i;
}

static struct cookie make(struct mp_stack *st, const struct mp_endpoint *local, const struct mp_endpoint *remote, uint32_t irs, uint64_t tick, unsigned mss)
{
    uint8_t m[64] = { 0 };
    uint64_t w[2];
    memcpy(m, local->ip.b, 16);
    memcpy(m + 16, remote->ip.b, 16);
    memcpy(m + 32, &local->port, 2);
    memcpy(m + 34, &remote->port, 2);
    memcpy(m + 36, &irs, 4);
    memcpy(m + 40, &tick, 8);
    m[48] = (uint8_t)mss;
    mp_mac(st->cookie_secret, m, sizeof m, w);
    return (struct cookie){ (uint32_t)(tick % TICKS) << 29 | (uint32_t)mss << MAC_BITS | (uint32_t)(w[0] & ((1u << MAC_BITS) - 1)), w[1] };
}

static uint32_t cookie_ts(const struct mp_opts *o, bool ecn, uint32_t ts)
{
    uint32_t bits = (o->has_wscale ? o->wscale : 15u) | (uint32_t)o->sack_ok << 4 | (uint32_t)ecn << 5;
    uint32_t v = (ts & ~((1u << TS_BITS) - 1)) | bits;
    return v > ts ? v - (1u << TS_BITS) : v; /* not ahead of the clock: it goes on from here */
}

/* The SYN/ACK to this SYN, all of it from the SYN. */
void cookie_answer(struct mp_stack *st, const struct listener *l, const struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    if (!st->cookies_at) st->ops.random(st->arg, st->cookie_secret, sizeof st->cookie_secret);
    st->cookies_at = now;
    struct mp_pkt *r = st_stray(st, p);
    if (!r) return;
    struct cookie k = make(st, &p->dst, &p->src, p->seq, now / TICK, mss_index(o));
    uint32_t mtu = st->ops.mtu ? st->ops.mtu(st->arg, p->ifindex) : 0;
    struct mp_opts a = { .has_mss = true, .mss = (uint16_t)out_mss(mtu ? mtu : 1500, p->dst.ip.family, st_offer_ok(o)) };
    r->tos = l->tos;
    r->ttl = l->ttl;
    r->mark = l->mark;
    r->priority = l->priority;
    r->flags = MP_SYN | MP_ACK;
    r->seq = k.isn;
    r->ack = p->seq + 1;
    r->wnd = 65535;
    if (o->has_ts) {
        a.has_ts = true;
        bool ecn = ecn_syn_asks(st, p);
        if (ecn) r->flags |= MP_ECE;
        a.ts_val = cookie_ts(o, ecn, ts_at(ts_offset(st, &p->dst.ip, &p->src.ip), now));
        a.ts_ecr = o->ts_val;
        a.sack_ok = o->sack_ok;
        a.has_wscale = o->has_wscale;
        a.wscale = WSCALE;
    }
    if (st_offer_ok(o)) {
        a.mp = MP_OPT_HAS(MP_CAPABLE);
        a.capable = (struct mp_opt_capable){ .version = o->capable.version ? 1 : 0, .hmac_sha256 = true, .nkeys = 1, .key_snd = k.key,
                                             .csum_req = o->capable.csum_req || st->set.checksum,
                                             .no_join_initial = o->capable.version && st->set.no_join_initial };
    }
    r->optlen = (uint8_t)mp_opts_len(&a);
    mp_opts_emit(r->opt, &a);
    st_count(st, MP_E_cookie_out, 1, NULL);
}

/* What the SYN had said, as far as it comes back with this ACK. */
static struct mp_opts recover(const struct mp_opts *o, unsigned mss, const struct cookie *k)
{
    struct mp_opts s = { .has_mss = true, .mss = mss_of[mss] };
    if (o->has_ts) {
        unsigned bits = o->ts_ecr & ((1u << TS_BITS) - 1);
        s.has_ts = true;
        s.ts_val = o->ts_val;
        s.sack_ok = bits >> 4 & 1;
        s.has_wscale = (bits & 15) != 15;
        s.wscale = s.has_wscale ? bits & 15 : 0;
    }
    if ((o->mp & MP_OPT_HAS(MP_CAPABLE)) && o->capable.nkeys == 2 && o->capable.key_rcv == k->key) {
        s.mp = MP_OPT_HAS(MP_CAPABLE);
        s.capable = (struct mp_opt_capable){ .version = o->capable.version, .hmac_sha256 = o->capable.hmac_sha256, .bflag = o->capable.bflag,
                                             .csum_req = o->capable.csum_req, .no_join_initial = o->capable.no_join_initial, .key_snd = o->capable.key_snd };
    }
    return s;
}

/* Does this ACK bring a cookie back? *k is that one. */
static bool answers_cookie(struct mp_stack *st, const struct mp_pkt *p, unsigned mss, struct cookie *k, mp_time now)
{
    bool late = !st->cookies_at || now - st->cookies_at > (MAX_AGE + 1) * TICK;
    if (late || (p->flags & (MP_SYN | MP_ACK | MP_RST)) != MP_ACK) return false;
    uint32_t isn = p->ack - 1;
    uint64_t tick = now / TICK, age = (tick - (isn >> 29)) % TICKS;
    if (age > MAX_AGE || age > tick) return false;
    *k = make(st, &p->dst, &p->src, p->seq - 1, tick - age, mss);
    if (k->isn == isn) return true;
    st_count(st, MP_E_cookie_bad, 1, NULL);
    return false;
}

bool cookie_input(struct mp_stack *st, const struct mp_pkt *p, const struct mp_opts *o, struct sf **s, mp_time now)
{
    unsigned mss = (p->ack - 1) >> MAC_BITS & 3;
    struct cookie k;
    if (!answers_cookie(st, p, mss, &k, now)) return false;
    if (!st_may_open(st, st_listener_for(st, &p->dst))) return true; /* its data comes again; a reset would say that nobody listens */
    struct mp_opts syn_opts = recover(o, mss, &k);
    struct mp_pkt syn = *p;
    syn.seq = p->seq - 1;
    syn.flags = MP_SYN;
    if (o->has_ts && o->ts_ecr & 1u << (TS_BITS - 1)) syn.flags |= MP_ECE | MP_CWR;
    syn.tos = 0;
    syn.len = syn.data.len = 0;
    *s = st_passive_open(st, &syn, &syn_opts, &k.key, now);
    if (!*s) return false; /* nobody listens any more */
    (*s)->v.iss = k.isn;
    (*s)->v.snd_nxt = 1;
    (*s)->v.rcv_adv = 1 + 65535;
    st_count(st, MP_E_cookie_in, 1, (*s)->c);
    return true;
}
