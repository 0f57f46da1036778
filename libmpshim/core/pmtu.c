/* The path's MTU where no ICMP tells it: lowered when large segments vanish (RFC 4821 7.7), and searched upwards again with
 * real data (RFC 4821 7, RFC 8899 5.3). A probe is one segment of new data that is larger than the others; its loss alone is
 * no sign of congestion (RFC 4821 7.4) and its bytes go again in small segments.
 *
 *   mtu <= what the path carries <= mtu_hi       mtu_hi 0: not searched
 * The first probe has the size that had worked, or was lowered by ICMP long ago; then the interval is halved. */
#include "core/stack_int.h"

enum { SAFE_MTU = 1280, LEAST_MTU = 576, FAILED_LONG = 8, CLOSE_ENOUGH = 8, FOLLOWERS = 4, LEAST_WINDOW = 8 };
#define SEARCH_AGAIN MP_SEC(600) /* RFC 4821 7.3; Linux' tcp_probe_interval */

/* Nothing above is of use: the interface, the peer's MSS, the program's. */
static uint32_t ceiling(const struct sf *s)
{
    uint32_t hdr = mp_header_len(s->v.local.ip.family);
    uint64_t most = mp_min(s->v.mtu_link, s->v.peer_mss + hdr);
    return (uint32_t)(s->c->v.max_seg ? mp_min(most, s->c->v.max_seg + hdr) : most);
}

/* RFC 5681 3.1: the least window, that after a loss, is one segment, also when segments become large at once (seed 455609). */
static void set_mtu(struct sf *s, uint32_t mtu)
{
    s->v.mtu = mtu;
    sf_update_mss(s);
    if (s->v.cc.active) s->v.cc.cwnd = mp_max(s->v.cc.cwnd, s->v.mss);
}

static void search(struct sf *s, uint32_t hi)
{
    hi = (uint32_t)mp_min(hi, ceiling(s));
    bool over = hi < s->v.mtu + CLOSE_ENOUGH;
    s->v.mtu_hi = over ? 0 : hi;
    s->v.mtu_again = s->v.mtu + CLOSE_ENOUGH <= ceiling(s) ? s->st->now + SEARCH_AGAIN : MP_NEVER;
    s->v.mtu_fails = 0;
}

/* ---- downwards ---- */

/* Time-outs in a row of a large segment may mean that the path swallows large packets. 1280 bytes pass where IPv6 does, and
 * nearly everywhere. If a small one is not answered either, it was not its size; nor was it where a router had no way (RFC 6069).
 * When all has failed for long, a much smaller one is tried (RFC 4821 7.7): a box may make packets longer on the way than what
 * follows it carries (an ALG; simulation seed 226028, whose ICMP said 1286 of packets that we sent with 1286). */
void pmtu_timeout(struct sf *s)
{
    int unexplained = s->v.backoff - s->v.reverts;
    uint32_t was = s->v.mtu, safe = unexplained < FAILED_LONG || s->v.stale ? SAFE_MTU : LEAST_MTU;
    if (s->v.state < SF_ESTABLISHED || unexplained < 2) return;
    if (s->v.mtu_before) {
        set_mtu(s, s->v.mtu_before);
        s->v.mtu_before = 0;
        s->v.mtu_tried = was;
        return;
    }
    if (was <= safe) return;
    set_mtu(s, safe);
    if (s->seg_head->len <= s->v.mss) { /* it was small already */
        set_mtu(s, was);
        return;
    }
    s->v.mtu_before = was;
    s->v.mtu_hi = 0;
    st_count(s->st, MP_E_mtu_lowered, 1, s->c);
}

/* ICMP, about a segment that is in flight (RFC 1191, RFC 8201). Every IPv6 path carries 1280 bytes: what says less is
 * discarded (RFC 8201 4). */
void pmtu_told(struct sf *s, uint32_t mtu)
{
    if (mtu < (s->v.local.ip.family == 4 ? LEAST_MTU : SAFE_MTU) || (mtu >= s->v.mtu && !s->v.mtu_hi)) return;
    if (mtu < s->v.mtu) set_mtu(s, mtu);
    search(s, mtu);
    s->v.mtu_whole = s->v.mtu_hi != 0;
}

/* ---- upwards ---- */

/* Something was acknowledged: perhaps what went in small segments, several time-outs ago, and only the answers to it were
 * lost (simulation seed 371024). */
void pmtu_progress(struct sf *s, mp_time now)
{
    if (s->v.mtu_before || s->v.mtu_tried) {
        uint32_t large = s->v.mtu_before ? s->v.mtu_before : s->v.mtu;
        if (!s->v.mtu_before && s->v.mtu_tried < large) set_mtu(s, s->v.mtu_tried);
        search(s, large);
        s->v.mtu_before = s->v.mtu_tried = 0;
    } else if (!s->v.mtu_hi && now >= s->v.mtu_again)
        search(s, UINT32_MAX);
    else
        return;
    s->v.mtu_whole = true;
}

/* Payload of a probe that goes now, out of so much data and room; 0: none; -1: there will be room for one soon. */
int32_t pmtu_probe(struct sf *s, uint64_t want, uint64_t room, mp_time now)
{
    if (!s->v.mtu_hi || s->v.mtu_probe || now < s->v.mtu_wait || s->v.in_recovery || s->v.in_rto || s->v.sacked_bytes) return 0;
    uint32_t size = s->v.mtu_whole ? s->v.mtu_hi : s->v.mtu + (s->v.mtu_hi - s->v.mtu + 1) / 2;
    uint32_t len = s->v.mss + (size - s->v.mtu);
    /* What follows it must show that it alone was lost. */
    if (want < len + FOLLOWERS * s->v.mss || s->v.cc.cwnd < LEAST_WINDOW * s->v.mss) return 0;
    if (room < len && !s->v.pipe) return 0;
    if (room < len) {
        s->v.cwnd_limited = true;
        return -1;
    }
    s->v.mtu_next = len;
    return (int32_t)len;
}

void pmtu_sent(struct sf *s, struct sf_seg *g)
{
    g->mtu_probe = true;
    s->v.mtu_probe = s->v.mtu + (g->len - s->v.mss);
    st_count(s->st, MP_E_mtu_probe, 1, s->c);
}

/* Cut: it tells nothing. */
void pmtu_forget(struct sf *s) { s->v.mtu_probe = 0; }

void pmtu_passed(struct sf *s)
{
    if (!s->v.mtu_probe) return;
    set_mtu(s, s->v.mtu_probe);
    s->v.mtu_probe = 0;
    st_count(s->st, MP_E_mtu_raised, 1, s->c);
    search(s, s->v.mtu_hi);
    s->v.mtu_wait = s->st->now + s->v.srtt;
}

/* Any packet may be lost: only the second loss is taken for the size, but for the first guess, which is a mere try. */
void pmtu_lost(struct sf *s)
{
    uint32_t size = s->v.mtu_probe;
    if (!size) return;
    s->v.mtu_probe = 0;
    s->v.mtu_wait = s->st->now + 4 * s->v.srtt;
    if (!s->v.mtu_whole && ++s->v.mtu_fails < 2) return;
    s->v.mtu_whole = false;
    search(s, size - 1);
}
