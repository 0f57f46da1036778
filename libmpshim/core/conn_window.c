/* The connection's receive window (RFC 8684 3.3.5): how much more the peer may send, and how that follows the rate. */
#include "core/stack_int.h"

uint64_t conn_rcv_space(const struct mpc *c) { return mp_min(mp_min(c->v.rcv_space, c->v.rcvbuf), mem_window(c)); }

/* The window follows what the paths deliver: five times the rate times the longest propagation delay (60 ms
 * at the least, for hosts are late too). Enough for full rate and one loss recovery; not so much that the sender fills
 * every queue on the way, nor its own: Linux hands a subflow all that the window allows, and what waits there is in
 * front of what must be sent again when another path dies (930 KB, 150 ms at 50 Mbit/s, with a window of 8 MB). At 2 x 20
 * Mbit/s, 20 ms, 640 instead of 1024 KB end that stall after 150 ms instead of 190. Slow flows never fill it: theirs stays
 * large, for boxes that cut the window scale off make a 256th of it. */
#define RCV_SPACE_MIN (1024u * 1024)
#define RCV_SPACE_MIN_FAST (640u * 1024)
#define RCV_SPACE_DUPLEX (400u * 1024)
#define FAST 2e-3 /* bytes per ns: 2 MB/s */

/* A window that its program does not use only lets more wait for it, in our memory, and says nothing to the peer of how slow
 * the program is. So it grows while the program keeps up, and by twice what that has taken at the most, as Linux' does; the
 * first of it may only have gone into a socket on the way. */
#define TAKEN_UNREAD (1280u * 1024)
static uint64_t rcv_space_most(const struct mpc *c, uint64_t arrived)
{
    if (c->v.rxq_bytes > arrived / 2) return c->v.rcv_space;
    return mp_max(c->v.rcv_space, RCV_SPACE_MIN + 2 * (mp_max(c->v.bytes_read, TAKEN_UNREAD) - TAKEN_UNREAD));
}

void conn_autotune(struct mpc *c, uint32_t bytes, mp_time now)
{
    mp_dur rtt = 0;
    c->v.rx_total += bytes;
    if (now - c->v.rx_mark_at < MP_MS(10)) return;
    for (const struct sf *s = c->sfs; s; s = s->next)
        if (sf_can_carry(s) && !s->v.stale) rtt = mp_max(rtt, s->v.min_rtt);
    mp_dur span = now - c->v.rx_mark_at;
    if (span < rtt) return;
    uint64_t arrived = c->v.rx_total - c->v.rx_mark, most = rcv_space_most(c, arrived);
    double rate = (double)arrived / (double)span;
    c->v.rx_rate = rate > c->v.rx_rate * 0.95 ? rate : c->v.rx_rate * 0.95;
    c->v.rx_mark = c->v.rx_total;
    c->v.rx_mark_at = now;
    uint64_t want = mp_max(c->v.rx_rate > FAST ? RCV_SPACE_MIN_FAST : RCV_SPACE_MIN, (uint64_t)(c->v.rx_rate * (double)mp_max(5 * rtt, MP_MS(60))));
    if (duplex_any(c)) /* all that the peer queues delays our ACKs, and so it is with its own: not more than keeps the paths busy */
        want = mp_max(RCV_SPACE_DUPLEX, (uint64_t)(c->v.rx_rate * (double)(2 * rtt + MP_MS(160))));
    c->v.rcv_space = mp_min(want, most);
}

/* The most that a segment's window field can say. More than was told is no promise: where a box takes the window scale out, what
 * was offered in thought only would outlast the program's SO_RCVBUF (simulation seed 356306). */
static uint64_t told_at_most(const struct mpc *c)
{
    uint64_t most = 0;
    for (const struct sf *s = c->sfs; s; s = s->next) most = mp_max(most, (uint64_t)65535 << s->v.rcv_wscale);
    return most;
}

/* The window goes on from what waits in its order for the rest of a mapping, and its checksum: Linux maps 64 KB at once, and
 * a window that opens in such steps is given to one path after the other in such pieces. */
uint64_t conn_rcv_edge(struct mpc *c)
{
    uint64_t most = mp_min(conn_rcv_space(c), told_at_most(c)), space = most > c->v.rxq_bytes ? most - c->v.rxq_bytes : 0;
    uint64_t edge = conn_in_order(c) + space;
    if (edge > c->v.rcv_edge) c->v.rcv_edge = edge; /* never back: RFC 9293 3.8.6.2.2 */
    return c->v.rcv_edge;
}
