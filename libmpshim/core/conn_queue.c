/* The connection's send queue: filled by the owner, freed by DATA_ACKs. */
#include "core/stack_int.h"

uint64_t conn_queued(const struct mpc *c) { return c->v.snd_end - c->v.snd_nxt; }

#define QUEUE_MIN (512u * 1024)

/* What the peer will take, when it does not say more; what it makes room for afterwards, the program is asked for in time. */
static uint64_t peer_window(const struct mpc *c)
{
    if (c->v.tx_plain) return c->sfs ? c->sfs->v.snd_wnd : 0;
    return c->v.snd_edge > c->v.snd_una ? c->v.snd_edge - c->v.snd_una : 0;
}

/* Data stays queued until the slowest path's DATA_ACK, while all paths go on: the sum of the rates times the longest
 * round trip (RFC 6182 5.3), twice that for loss recovery. More would only hide the program's data from it, and so would
 * more than a peer takes that does not read. */
static uint64_t queue_limit(const struct mpc *c)
{
    uint64_t cw = 0;
    double rate = 0, rtt = 0;
    for (const struct sf *s = c->sfs; s; s = s->next) {
        if (s->v.dead || !s->v.srtt) continue;
        uint64_t window = s->v.cc.cwnd + duplex_credit(s);
        cw += window;
        rate += (double)window / (double)s->v.srtt;
        if ((double)s->v.srtt > rtt) rtt = (double)s->v.srtt;
    }
    uint64_t enough = mp_max(mp_max(3 * cw, (uint64_t)(2 * rate * rtt)), QUEUE_MIN);
    enough = mp_min(enough, peer_window(c) + QUEUE_MIN);
    return mp_min(mp_min(enough, c->v.sndbuf), mem_queue(c));
}

uint64_t mpc_write_space(const struct mpc *c)
{
    uint64_t used = c->v.snd_end - c->v.snd_una, limit = queue_limit(c);
    if (c->v.shut || c->v.err) return 0;
    if (used >= limit) {
        ((struct mpc *)c)->v.writable_wanted = true;
        return 0;
    }
    return limit - used;
}

static struct mp_chunk *spare_chain(struct mpc *c, int n)
{
    struct mp_chunk **p = &c->spare;
    for (int i = 0; i < n; i++) {
        if (!*p && !(*p = st_chunk_new(c->st))) break;
        p = &(*p)->next;
    }
    return c->spare;
}

int mpc_write_iov(struct mpc *c, struct mp_iov *iov, int n)
{
    uint64_t space = mpc_write_space(c);
    int used = 0;
    if (space && c->snd_last && c->snd_last->len < MP_CHUNK_SIZE && n > 0) {
        iov[0].base = c->snd_last->data + c->snd_last->len;
        iov[0].len = mp_min(MP_CHUNK_SIZE - c->snd_last->len, space);
        space -= iov[used++].len;
    }
    int more = (int)mp_min((space + MP_CHUNK_SIZE - 1) / MP_CHUNK_SIZE, (uint64_t)(n - used));
    if (more <= 0) return used;
    for (struct mp_chunk *k = spare_chain(c, more); k && used < n && space; k = k->next) {
        iov[used].base = k->data;
        iov[used].len = mp_min(MP_CHUNK_SIZE, space);
        space -= iov[used++].len;
    }
    return used;
}

/* 16 places of 64 KB each would else stay with every connection that ever wrote: 10,000 idle ones held 770 MB. */
void mpc_write_idle(struct mpc *c)
{
    while (c->spare) {
        struct mp_chunk *k = c->spare;
        c->spare = k->next;
        chunk_put(c->st, k);
    }
}

static void append_spare(struct mpc *c, mp_dsn at, uint32_t n)
{
    struct mp_chunk *k = c->spare;
    c->spare = k->next;
    k->next = NULL;
    k->len = n;
    k->dsn = at;
    if (c->snd_last)
        c->snd_last->next = k;
    else
        c->snd_first = k;
    c->snd_last = k;
}

void mpc_write_commit(struct mpc *c, uint64_t bytes, mp_time now)
{
    (void)now;
    if (!bytes) return;
    if (c->snd_last && c->snd_last->len < MP_CHUNK_SIZE) {
        uint32_t n = (uint32_t)mp_min(bytes, MP_CHUNK_SIZE - c->snd_last->len);
        c->snd_last->len += n;
        c->v.snd_end += n;
        bytes -= n;
    }
    while (bytes) {
        uint32_t n = (uint32_t)mp_min(bytes, MP_CHUNK_SIZE);
        append_spare(c, c->v.snd_end, n);
        c->v.snd_end += n;
        bytes -= n;
    }
    conn_touch(c);
}

uint64_t mpc_write(struct mpc *c, const void *p, uint64_t n, mp_time now)
{
    uint64_t done = 0;
    while (done < n) {
        struct mp_iov iov[4];
        int k = mpc_write_iov(c, iov, 4);
        uint64_t got = 0;
        for (int i = 0; i < k && done < n; i++) {
            uint64_t m = mp_min(iov[i].len, n - done);
            memcpy((void *)(uintptr_t)iov[i].base, (const uint8_t *)p + done, m);
            done += m;
            got += m;
        }
        if (!got) break;
        mpc_write_commit(c, got, now);
    }
    return done;
}

struct mp_chunk *conn_chunk_at(struct mpc *c, mp_dsn dsn)
{
    struct mp_chunk *k = c->snd_first;
    if (c->snd_cur && c->snd_cur->dsn <= dsn) k = c->snd_cur;
    while (k && dsn >= k->dsn + k->len) k = k->next;
    return k;
}

static void free_acked(struct mpc *c)
{
    /* Chunks are dropped whole; the last one stays while it can still be filled. */
    while (c->snd_first && c->snd_first != c->snd_last && c->snd_first->dsn + c->snd_first->len <= c->v.snd_una) {
        struct mp_chunk *k = c->snd_first;
        c->snd_first = k->next;
        if (c->snd_cur == k) c->snd_cur = NULL;
        chunk_put(c->st, k);
    }
    struct mp_chunk *k = c->snd_first;
    if (k && k == c->snd_last && k->dsn + k->len <= c->v.snd_una && c->v.snd_end == k->dsn + k->len) {
        c->snd_first = c->snd_last = c->snd_cur = NULL;
        chunk_put(c->st, k);
    }
}

/* ---- acknowledgment ---- */

void conn_set_edge(struct mpc *c, mp_dsn edge)
{
    if (edge > c->v.snd_edge) c->v.snd_edge = edge; /* RFC 8684 3.3.5: it never moves back */
}

static void acked(struct mpc *c, mp_dsn ack, mp_time now)
{
    if (ack <= c->v.snd_una) return;
    c->v.snd_una = mp_min(ack, c->v.snd_end);
    c->v.last_data_ack = c->v.unacked_since = now;
    c->v.barren = 0;
    c->v.data_rexmits = c->v.data_stuck = 0;
    free_acked(c);
    conn_arm_data_timer(c, now);
    if (c->v.writable_wanted && mpc_write_space(c) >= queue_limit(c) / 4) {
        c->v.writable_wanted = false;
        conn_event(c, MP_EV_WRITABLE);
    }
}

void conn_data_ack(struct mpc *c, struct sf *s, uint64_t ack, bool is64, mp_time now)
{
    mp_dsn a = is64 ? ack : mp_expand32(c->v.snd_una, (uint32_t)ack);
    if (a > c->v.snd_nxt + (c->v.fin_sent && c->v.snd_nxt == c->v.snd_end)) {
        st_count(c->st, MP_E_data_ack_unsent, 1, c);
        return;
    }
    c->v.window_told = true;
    c->v.data_ack_heard = now;
    conn_set_edge(c, a + s->v.snd_wnd);
    if (c->v.fin_sent && a == c->v.snd_end + 1) {
        c->v.fin_acked = true;
        for (struct sf *o = c->sfs; o; o = o->next) o->v.data_fin_now = false;
        c->v.timer[CT_DATA_FIN] = MP_NEVER;
    }
    acked(c, a, now);
}

void conn_plain_ack(struct mpc *c, struct sf *s, mp_time now)
{
    mp_ssn una = s->v.snd_una - (s->v.fin_sent && s->v.snd_una == s->v.snd_nxt);
    if (una + c->v.tx_plain_off <= c->v.snd_nxt) acked(c, una + c->v.tx_plain_off, now);
}
