/* tests/fuzz/packet.c: one segment of any bytes into a connection in any state, both roles.
 *
 * Input: role and state, enum w_fix bits, which subflow, options of the run, then the TCP segment (RFC 9293 3.1). */
#include "lib/world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum state {
    ST_NONE,         /* nothing but the listener */
    ST_SYN_SENT, ST_SYN_RCVD, ST_UNCONFIRMED, ST_CONFIRMED, ST_TWO, /* two subflows and more */
    ST_HALF_JOIN,    /* a join's SYN/ACK is on its way */
    ST_BUSY,         /* data in flight, some of it lost */
    ST_GAP,          /* data received out of order */
    ST_DATA_FIN_OUT, ST_DATA_FIN_IN, ST_CLOSING, ST_RELEASED, ST_PLAIN, ST_PLAIN_CLOSING, ST_ASIDE,
    ST_COUNT
};

static void both_write(struct world *w, uint32_t n)
{
    for (int i = 0; i < 2; i++)
        if (w->host[i].app[0].c) w_write(w, &w->host[i].app[0], n);
}

/* Brings the world to the state, with honest packets only. */
static void reach(struct world *w, enum state st, int role)
{
    struct w_app *mine = &w->host[role].app[0], *theirs = &w->host[!role].app[0];
    if (st == ST_NONE) return;
    w->strip[0] = w->strip[1] = st == ST_PLAIN || st == ST_PLAIN_CLOSING;
    if (!w_connect(w, 1)) return;
    w_settle(w);
    if (st == ST_SYN_SENT) return;
    w_deliver(w, SERVER, 0);
    w_settle(w);
    if (st == ST_SYN_RCVD) return;
    if (st == ST_UNCONFIRMED) { /* the client after the SYN/ACK; the server has its third ACK then */
        w_deliver(w, CLIENT, 0);
        w_settle(w);
        return;
    }
    if (st == ST_HALF_JOIN) {
        w_exchange(w, 5);
        return;
    }
    w_exchange(w, 20);
    both_write(w, 3000);
    w_exchange(w, 60);
    w_advance(w, MP_MS(300));
    w_exchange(w, 60);
    if (st == ST_BUSY) {
        both_write(w, 20000);
        w_settle(w);
        w_drop(w, 0, 0);
        w_drop(w, 1, 1);
    } else if (st == ST_GAP) {
        both_write(w, 8000);
        w_settle(w);
        w_drop(w, role, 0);
        while (w_deliver(w, role, 0)) w_settle(w);
    } else if (st == ST_DATA_FIN_OUT) {
        w_shutdown(w, mine);
        w_settle(w);
    } else if (st == ST_DATA_FIN_IN) {
        w_shutdown(w, theirs);
        w_exchange(w, 20);
    } else if (st == ST_CLOSING || st == ST_PLAIN_CLOSING) {
        w_shutdown(w, theirs);
        w_exchange(w, 20);
        w_shutdown(w, mine);
        w_settle(w);
        w_deliver(w, !role, 0);
        w_settle(w);
    } else if (st == ST_RELEASED) {
        both_write(w, 5000);
        w_release(w, mine, 0);
        w_settle(w);
    } else if (st == ST_ASIDE) {
        w_path(w, role, 1, false);
        w_settle(w);
        w->host[role].up[1] = true; /* the wire still works: news of the address came late */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct world w;
    struct w_in in = { data, n };
    uint8_t b = in8(&in), fix = in8(&in), which = in8(&in), run = in8(&in);
    int role = b & 1;
    enum state st = (b >> 1) % ST_COUNT;
    struct w_cfg cfg = { .seed = 7, .csum = { run & 1, run & 2 }, .split = run & 4, .slice = run & 8 ? 64000 : 0,
                         .paths = st == ST_TWO || st == ST_HALF_JOIN || st == ST_ASIDE || (run & 16) ? W_PATHS : 1 };
    world_open(&w, &cfg);
    reach(&w, st, role);
    w_hostile(&w, role, which, fix, in.p, in.n);
    if (run & 32) both_write(&w, 4000);
    if (run & 64) w_exchange(&w, 40);
    if (run & 128) w_advance(&w, MP_SEC(3));
    w_end_alone(&w);
    world_close(&w);
    return 0;
}
