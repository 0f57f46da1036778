/* Data arrives: RFC 9293 3.10.7.4 seventh; what is out of order waits here, what is acknowledged goes to the connection. */
#include "core/sf_in.h"

static void note_ooo(struct sf *s, mp_ssn at)
{
    if (s->v.sack_recent[0] == at) return;
    if (s->v.sack_recent[1] != at) s->v.sack_recent[2] = s->v.sack_recent[1];
    s->v.sack_recent[1] = s->v.sack_recent[0];
    s->v.sack_recent[0] = at;
}

/* All of it was here before, in order or behind a hole: told by D-SACK (RFC 2883 4.1, 4.2). */
void in_duplicate(struct sf *s, mp_ssn ssn, uint32_t len)
{
    st_count(s->st, MP_E_dup_data, len, s->c);
    s->v.dsack = s->v.sack_on;
    s->v.dsack_l = ssn;
    s->v.dsack_r = ssn + len;
}

/* At once, and so the next ones: the peer has lost something, its window is small now, and it waits for each ACK: held back
 * for 40 ms, that of an odd segment is two round trips in which it sends nothing. */
static void ack_quickly(struct sf *s)
{
    s->v.ack_now = true;
    s->v.quick_acks = SF_QUICK_ACKS;
}

static bool deliver(struct sf *s, struct mp_slice *d, mp_time now)
{
    mp_ssn at = s->v.rcv_nxt;
    s->v.rcv_nxt += d->len;
    s->v.ack_bytes += d->len;
    return conn_sf_data(s->c, s, at, d, now);
}

static bool drain_ooo(struct sf *s, mp_time now)
{
    struct mp_slice d;
    uint64_t tag;
    while (s->ooo.n && mp_rangemap_pop(&s->ooo, s->v.rcv_nxt, &d, &tag)) {
        s->v.draining = true;
        bool ok = deliver(s, &d, now);
        s->v.draining = false;
        mp_slice_put(&d);
        if (!ok) return false;
    }
    return true;
}

static void keep_ooo(struct sf *s, mp_ssn ssn, struct mp_slice *d)
{
    st_count(s->st, MP_E_ooo_subflow, 1, s->c);
    conn_cut_joined(s->c, s, ssn, d);
    int64_t kept = mp_rangemap_insert(&s->ooo, ssn, d, 0);
    if (kept < 0) st_count(s->st, MP_E_no_memory, 1, s->c);
    if (!kept && d->len) in_duplicate(s, ssn, d->len);
    note_ooo(s, ssn);
    ack_quickly(s); /* RFC 5681 4.2 */
}

/* How long a question waits for the answer of a program that has much to do: short beside the 40 ms, which a sender that may
 * send no more before the ACK (Nagle's algorithm) waits later on. */
#define ANSWER_SOON MP_MS(5)

/* A message that its sender has pushed (RFC 9293 3.9.1.2), and nothing else waits for an ACK: mostly a question, and its answer
 * takes the ACK along. */
static bool is_message(const struct sf *s, const struct mp_pkt *p, uint32_t len)
{
    return (p->flags & (MP_PSH | MP_FIN)) == MP_PSH && len < s->v.mss && s->v.ack_bytes == len;
}

/* RFC 9293 3.8.6.3: at least every second full segment; quickly at the start and after a hole, where the sender's window is small. */
static void ack_in_time(struct sf *s, const struct mp_pkt *p, uint32_t len, mp_time now)
{
    if (s->v.quick_acks > 0) {
        s->v.quick_acks--;
        if (is_message(s, p, len)) sf_arm(s, SFT_DELACK, mp_min(s->v.timer[SFT_DELACK], now + ANSWER_SOON));
        else s->v.ack_now = true;
    } else if (s->v.ack_bytes >= 2 * (s->v.mss < 1000 ? s->v.mss : 1000))
        s->v.ack_now = true;
    else if (s->v.timer[SFT_DELACK] == MP_NEVER)
        sf_arm(s, SFT_DELACK, now + MP_MS(40));
}

/* false: the subflow ended on the way. */
static bool take(struct sf *s, struct mp_pkt *p, mp_ssn ssn, mp_time now)
{
    struct mp_slice d = p->data;
    if (sf_doubts(s)) return true; /* as if it had been lost */
    /* Plain TCP has no second chance: what we cannot keep must not be acknowledged (RFC 9293 3.10.7.4). */
    if (s->c->v.rx_plain && ssn + d.len > s->v.rcv_adv) {
        st_count(s->st, MP_E_beyond_window, ssn + d.len - s->v.rcv_adv, s->c);
        s->v.ack_now = true;
        if (ssn >= s->v.rcv_adv) return true;
        mp_slice_cut(&d, (uint32_t)(s->v.rcv_adv - ssn));
    }
    if (ssn + d.len <= s->v.rcv_nxt) { /* with a FIN behind it, that is new; else misfit_in has it */
        in_duplicate(s, ssn, d.len);
        s->v.ack_now = true;
        return true;
    }
    /* As if it had been lost: what is not acknowledged comes again when there is room. */
    if (mem_refuses(s->c, ssn > s->v.rcv_nxt)) {
        st_count(s->st, MP_E_memory_dropped, d.len, s->c);
        return true;
    }
    if (ssn > s->v.rcv_nxt) {
        keep_ooo(s, ssn, &d);
        return true;
    }
    mp_slice_skip(&d, (uint32_t)(s->v.rcv_nxt - ssn));
    bool filled = s->ooo.n > 0;
    uint32_t len = d.len;
    if (!deliver(s, &d, now)) return false;
    if (filled) {
        ack_quickly(s);
        if (!drain_ooo(s, now)) return false;
    }
    ack_in_time(s, p, len, now);
    return true;
}

/* false: nothing more of the segment counts. */
bool in_data(struct sf *s, struct mp_pkt *p, const struct mp_opts *o, mp_ssn ssn, mp_time now)
{
    bool ends = s->v.fin_received && ssn + p->data.len > s->v.fin_ssn_in;
    if (ends || s->v.state == SF_TIME_WAIT) return false;
    s->v.bytes_received += p->data.len;
    s->v.data_recv_at = now;
    rescue_data(s, p->data.len, now);
    ecn_data_in(s, p);
    if (!conn_sf_mapping(s->c, s, o, ssn, now) || s->v.dead || s->v.reset_pending) return false;
    return take(s, p, ssn, now) && !s->v.dead && !s->v.reset_pending;
}
