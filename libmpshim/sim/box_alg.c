/* sim/box_alg.c: an application-level gateway that changes the payload's length, as those for FTP and SIP do: once in
 * each flow's data it inserts cfg.size marker bytes, or takes so many bytes out, and moves sequence numbers and ACKs
 * after that point. */
#include "sim/box_int.h"

static bool shrinks(const struct sim_box *b) { return b->cfg.what == SIM_BOX_ALG_SHRINK; }

/* ---- numbers ---- */

/* Where the sender's byte x went, and for the receiver's number y the sender's, when n bytes from `at` on were taken out. */
static uint32_t closed_up(uint32_t at, uint32_t n, uint32_t x)
{
    if (!seq_after(x, at)) return x;
    return seq_after(x, at + n) ? x - n : at;
}
static uint32_t opened_up(uint32_t at, uint32_t n, uint32_t y) { return seq_after(at, y) ? y : y + n; }

/* An acknowledgement of the lengthened data, as the sender must see it: never of a byte that it did not send. */
static uint32_t unmoved(const struct sim_box_flow *f, int data_dir, uint32_t grown, uint32_t ack)
{
    uint32_t at = f->edit_at[data_dir];
    if (!f->has_edit[data_dir] || !seq_after(ack, at)) return ack;
    return seq_after(ack, at + grown) ? ack - grown : at;
}

static uint32_t ack_as_sent(const struct sim_box *b, const struct sim_box_flow *f, int data_dir, uint32_t ack)
{
    if (shrinks(b)) return opened_up(f->edit_at[data_dir], f->edit_n[data_dir], ack);
    return unmoved(f, data_dir, b->cfg.size, ack);
}

static void move_acks(struct sim_box *b, int dir, struct sim_box_flow *f, struct sim_pkt *p)
{
    if (!f->has_edit[!dir] || !(p->h.flags & MP_ACK)) return;
    p->h.ack = ack_as_sent(b, f, !dir, p->h.ack);
    for (uint8_t *o = box_next_option(&p->h, NULL); o; o = box_next_option(&p->h, o)) {
        if (*o != OPT_SACK) continue;
        for (int i = 2; i + 4 <= o[1]; i += 4) store32(o + i, ack_as_sent(b, f, !dir, load32(o + i)));
    }
}

static struct sim_pkt *lengthened(struct sim_box *b, struct sim_pkt *p, uint32_t at)
{
    struct sim_pkt *k = sim_pkt_new(b->sim, &p->h, NULL, p->h.len + b->cfg.size);
    uint8_t *to = sim_pkt_own_payload(b->sim, k);
    memcpy(to, p->h.data.p, at);
    memset(to + at, SIM_BOX_MARK, b->cfg.size);
    memcpy(to + at + b->cfg.size, p->h.data.p + at, p->h.len - at);
    sim_pkt_free(b->sim, p);
    return k;
}

/* Without the bytes [at, at + n) of its sequence space; at least one byte of the segment stays, or it is outside. */
static struct sim_pkt *shortened(struct sim_box *b, struct sim_pkt *p, uint32_t at, uint32_t n)
{
    uint32_t seq = p->h.seq, end = seq + p->h.len;
    uint32_t from = seq_after(at, seq) ? at - seq : 0, to = seq_after(at + n, seq) ? mp_min(at + n - seq, p->h.len) : 0;
    p->h.seq = closed_up(at, n, seq);
    if (!seq_after(end, at) || from >= to) return p;
    struct sim_pkt *k = sim_pkt_new(b->sim, &p->h, NULL, p->h.len - (to - from));
    uint8_t *buf = sim_pkt_own_payload(b->sim, k);
    if (from) memcpy(buf, p->h.data.p, from);
    if (to < p->h.len) memcpy(buf + from, p->h.data.p + to, p->h.len - to);
    sim_pkt_free(b->sim, p);
    return k;
}

static void shrink(struct sim_box *b, int dir, struct sim_box_flow *f, struct sim_pkt *p)
{
    uint32_t at = f->edit_at[dir], n = f->edit_n[dir];
    if (seq_after(p->h.seq + p->h.len, at)) {
        p = shortened(b, p, at, n);
        box_touch(b, dir, "shorter", p);
    }
    box_emit(b, dir, p);
}

void box_alg(struct sim_box *b, int dir, struct sim_pkt *p)
{
    struct sim_box_flow *f = box_flow_of(b, dir, &p->h, true);
    move_acks(b, dir, f, p);
    /* Where it edits is settled by the first new data that it may act on; a second flow has its own place. */
    if (!f->has_edit[dir] && p->h.len > 2 && box_acts(b, dir) && (!f->seen[dir] || !seq_after(f->next[dir], p->h.seq)) &&
        b->counted[dir]++ >= b->cfg.first) {
        f->has_edit[dir] = true;
        f->edit_at[dir] = p->h.seq + p->h.len / 2;
        f->edit_n[dir] = shrinks(b) ? (uint32_t)mp_min(b->cfg.size, (p->h.len - 1) / 2) : b->cfg.size;
    }
    uint32_t end = p->h.seq + p->h.len;
    if (!f->seen[dir] || seq_after(end, f->next[dir])) f->next[dir] = end;
    f->seen[dir] = true;
    if (!f->has_edit[dir]) {
        box_emit(b, dir, p);
        return;
    }
    if (shrinks(b)) {
        shrink(b, dir, f, p);
        return;
    }
    uint32_t at = f->edit_at[dir];
    if (!seq_after(at, p->h.seq)) {
        /* Bytes from the edit on have moved, the byte at it too: before it stands what was inserted. A segment
         * that begins exactly there carries the insertion along, so that none of it can be missed. */
        if (p->h.seq == at && p->h.len) p = lengthened(b, p, 0);
        else p->h.seq += b->cfg.size;
        box_touch(b, dir, "moved", p);
    } else if (seq_after(end, at)) {
        p = lengthened(b, p, at - p->h.seq);
        box_touch(b, dir, "longer", p);
    }
    box_emit(b, dir, p);
}
