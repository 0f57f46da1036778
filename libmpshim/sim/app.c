/* sim/app.c: see app.h. */
#include "sim/app.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include "sim/box.h"

/* ---- the stream ---- */

static uint64_t stream_word(uint64_t key, uint64_t i) { return sim_mix(key + i * 0x9e3779b97f4a7c15u); }

void sim_stream_fill(uint64_t key, uint64_t at, uint8_t *p, size_t n)
{
    while (n) {
        uint64_t w = htole64(stream_word(key, at / 8));
        size_t skip = at % 8, k = mp_min(n, 8 - skip);
        if (k == 8) memcpy(p, &w, 8);
        else memcpy(p, (const uint8_t *)&w + skip, k);
        p += k;
        at += k;
        n -= k;
    }
}

size_t sim_stream_check(uint64_t key, uint64_t at, const uint8_t *p, size_t n)
{
    for (size_t done = 0; done < n;) {
        uint8_t want[512];
        size_t k = mp_min(n - done, sizeof want);
        sim_stream_fill(key, at + done, want, k);
        if (memcmp(want, p + done, k) != 0) {
            for (size_t i = 0;; i++)
                if (want[i] != p[done + i]) return done + i;
        }
        done += k;
    }
    return n;
}

/* ---- one connection ---- */

static struct sim *sim_of(const struct sim_conn *k) { return k->app->host->node.sim; }

static void look(struct sim_conn *k)
{
    mpc_get_info(k->c, &k->info);
    if (k->info.nsubflows > k->subflows_max) k->subflows_max = k->info.nsubflows;
}

static void leave(struct sim_conn *k)
{
    look(k);
    k->npaths = mpc_get_paths(k->c, k->path, SIM_MAX_PATHS);
    mpc_set_owner(k->c, NULL);
    mpc_release(k->c, 0, sim_of(k)->now);
    k->c = NULL;
}

static void finish(struct sim_conn *k)
{
    k->done = true;
    k->app->progress++;
    k->done_at = sim_of(k)->now;
    sim_trace_num(sim_of(k), &k->app->host->node, "done", (uint64_t)k->index, k->rx);
    if (k->c) leave(k);
}

/* How many bytes may have been written by now, by the rules of taking turns. */
static uint64_t may_have_written(const struct sim_conn *k)
{
    if (!k->connected || (k->cfg.after_eof && !k->eof)) return 0;
    if (!k->cfg.turn_tx) return k->cfg.bytes;
    uint64_t turns = k->rx / k->cfg.turn_rx + !k->cfg.second;
    /* Once the peer has ended its part, nobody waits for it. */
    return k->eof ? k->cfg.bytes : mp_min(k->cfg.bytes, turns * k->cfg.turn_tx);
}

static uint64_t write_direct(struct sim_conn *k, uint64_t n)
{
    struct mp_iov iov[4];
    int m = mpc_write_iov(k->c, iov, 4);
    uint64_t done = 0;
    for (int i = 0; i < m && done < n; i++) {
        size_t part = mp_min(iov[i].len, n - done);
        sim_stream_fill(k->key_tx, k->tx + done, (uint8_t *)iov[i].base, part); /* the stack's own memory */
        done += part;
    }
    if (done) mpc_write_commit(k->c, done, sim_of(k)->now);
    return done;
}

static uint64_t write_copy(struct sim_conn *k, uint64_t n)
{
    uint8_t buf[16384];
    size_t part = mp_min(n, sizeof buf);
    sim_stream_fill(k->key_tx, k->tx, buf, part);
    return mpc_write(k->c, buf, part, sim_of(k)->now);
}

static uint64_t write_size(struct sim_conn *k)
{
    uint64_t limit = may_have_written(k);
    if (k->cfg.abort_after) limit = mp_min(limit, k->cfg.abort_after);
    uint64_t n = limit > k->tx ? limit - k->tx : 0;
    if (n && k->cfg.write_max) n = mp_min(n, sim_rng_range(&k->rng, k->cfg.write_min, k->cfg.write_max));
    return n;
}

static bool write_some(struct sim_conn *k)
{
    struct sim *s = sim_of(k);
    if (!k->c || k->shut || k->closed || k->next_write > s->now) return false;
    uint64_t n = write_size(k);
    if (!n) return false;
    uint64_t room = mpc_write_space(k->c);
    uint64_t did = sim_rng_next(&k->rng) & 1 ? write_direct(k, mp_min(n, room)) : write_copy(k, n);
    if (did > room) sim_fail(s, "conn %d: wrote %llu bytes into room for %llu", k->index, (unsigned long long)did,
                             (unsigned long long)room);
    k->tx += did;
    k->app->progress += did;
    if (did && k->cfg.write_gap) k->next_write = s->now + k->cfg.write_gap;
    return did;
}

static bool shut_when_written(struct sim_conn *k)
{
    struct sim *s = sim_of(k);
    if (!k->c || !k->connected || k->shut || k->closed) return false;
    if (k->cfg.abort_after && k->tx >= k->cfg.abort_after) {
        mpc_abort(k->c, s->now);
        k->shut = true;
        finish(k);
        return true;
    }
    if (k->tx < k->cfg.bytes || ((k->cfg.after_eof || k->cfg.late_shut) && !k->eof)) return false;
    k->shut = true;
    if (k->cfg.release_early) finish(k);
    else mpc_shutdown(k->c, s->now);
    return true;
}

static void note_progress(struct sim_conn *k)
{
    mp_time now = sim_of(k)->now;
    if (k->last_rx && now - k->last_rx > k->longest_stall) {
        k->longest_stall = now - k->last_rx;
        k->stall_at = k->last_rx;
    }
    k->last_rx = now;
}

/* So many bytes of the stream from `at` on a middlebox took out before these; of a small segment they are fewer (box_alg.c). 0: none. */
static uint64_t taken_out(const struct sim_conn *k, uint64_t at, const uint8_t *p, size_t n)
{
    if (!k->app->may_remove || k->removed || at + n >= k->expect_rx) return 0;
    uint64_t most = mp_min(k->app->may_remove, k->expect_rx - at - n);
    while (most && sim_stream_check(k->key_rx, at + most, p, n) < mp_min(n, 4)) most--;
    return most;
}

/* Compares n bytes with the stream from k->rx on. *stray: those among them that a middlebox put in. */
static bool check(struct sim_conn *k, const uint8_t *p, size_t n, size_t *stray)
{
    struct sim *s = sim_of(k);
    *stray = 0;
    if (k->rx + n > k->expect_rx + k->app->may_insert - k->inserted) {
        sim_fail(s, "%s conn %d: %llu bytes arrived, only %llu were sent", k->app->host->node.name, k->index,
                 (unsigned long long)(k->rx + n), (unsigned long long)k->expect_rx);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        i += sim_stream_check(k->key_rx, k->rx + i - *stray, p + i, n - i);
        if (i == n) break;
        uint64_t removed = taken_out(k, k->rx + i - *stray, p + i, n - i);
        if (p[i] == SIM_BOX_MARK && k->inserted < k->app->may_insert) {
            k->inserted++;
            ++*stray;
        } else if (removed) {
            k->removed = removed;
            k->rx += k->removed;
            --i;
        } else if (k->app->may_change) {
            k->changed++;
        } else {
            sim_fail(s, "%s conn %d: wrong byte at %llu of the stream", k->app->host->node.name, k->index,
                     (unsigned long long)(k->rx + i - *stray));
            return false;
        }
    }
    return true;
}

static bool read_some(struct sim_conn *k)
{
    struct sim *s = sim_of(k);
    if (!k->c || k->eof || k->next_read > s->now || k->cfg.read_from > s->now) return false;
    struct mp_iov iov[8];
    int m = mpc_peek(k->c, iov, 8);
    uint64_t did = 0, most = k->cfg.read_max ? k->cfg.read_max : UINT64_MAX;
    for (int i = 0; i < m && did < most; i++) {
        size_t part = mp_min(iov[i].len, most - did);
        size_t stray;
        if (!check(k, iov[i].base, part, &stray)) return false;
        k->rx += part - stray;
        did += part;
    }
    if (did) {
        note_progress(k);
        mpc_consume(k->c, did, s->now);
        k->app->progress += did;
        if (k->cfg.read_gap) k->next_read = s->now + k->cfg.read_gap;
    }
    if (mpc_eof(k->c)) {
        k->eof = true;
        k->app->progress++;
        bool whole = k->rx == k->expect_rx || (k->app->may_change && k->rx + k->inserted == k->expect_rx); /* changed ones look like put in ones */
        if (!whole || k->cfg.peer_aborts)
            sim_fail(s, "%s conn %d: end of file after %llu of %llu bytes%s", k->app->host->node.name, k->index,
                     (unsigned long long)k->rx, (unsigned long long)k->expect_rx,
                     k->cfg.peer_aborts ? ", where a reset should come" : "");
    }
    return did || k->eof;
}

static bool leave_early(struct sim_conn *k)
{
    if (!k->c || !k->cfg.leave_after || k->rx < k->cfg.leave_after || k->tx < k->cfg.bytes) return false;
    k->shut = true;
    finish(k);
    return true;
}

/* It ended, but not by our having sent all and read to the end: right only if a reset was to come. */
static void judge_close(struct sim_conn *k)
{
    struct sim *s = sim_of(k);
    if ((k->cfg.peer_aborts || k->cfg.may_fail) && k->err) {
        finish(k);
        return;
    }
    bool pause = k->next_read > s->now || k->cfg.read_from > s->now; /* its end of file is still to be seen */
    bool may_go_on = !k->err && k->tx == k->cfg.bytes && (pause || mpc_readable(k->c));
    if (may_go_on) return;
    sim_fail(s, "%s conn %d: closed with errno %d (%s)%s, sent %llu of %llu, received %llu of %llu",
             k->app->host->node.name, k->index, k->err, strerror(k->err),
             k->cfg.peer_aborts ? " where a reset should come" : "", (unsigned long long)k->tx,
             (unsigned long long)k->cfg.bytes, (unsigned long long)k->rx, (unsigned long long)k->expect_rx);
}

static void conn_run(struct sim_conn *k)
{
    while (!sim_failed(sim_of(k)) && k->c && (read_some(k) || write_some(k) || leave_early(k) || shut_when_written(k)));
    if (!k->c || k->done) return;
    look(k);
    if (k->shut && k->eof && k->tx == k->cfg.bytes) finish(k);
    else if (k->closed) judge_close(k);
}

static void set_options(struct sim_conn *k)
{
    mp_time now = sim_of(k)->now;
    if (k->cfg.rcvbuf) mpc_setopt(k->c, MPC_RCVBUF, k->cfg.rcvbuf, now);
    if (!k->cfg.keepalive_s) return;
    mpc_setopt(k->c, MPC_KEEPINTVL_S, 1, now);
    mpc_setopt(k->c, MPC_KEEPCNT, 5, now);
    mpc_setopt(k->c, MPC_KEEPIDLE_S, k->cfg.keepalive_s, now);
    mpc_setopt(k->c, MPC_KEEPALIVE, 1, now);
}

static void conn_open(struct sim_conn *k)
{
    struct sim_host *h = k->app->host;
    k->started = true;
    k->c = mp_stack_connect(h->stack, &k->remote, &k->local, k->ifindex, k->cfg.open_flags, k, h->node.sim->now, &k->err);
    if (!k->c) {
        sim_fail(h->node.sim, "conn %d: connect: %s", k->index, strerror(k->err));
        return;
    }
    set_options(k);
    sim_host_kick(h);
}

/* ---- the host's side ---- */

static void on_event(struct sim_host *h, struct mpc *c, unsigned bits)
{
    struct sim *s = h->node.sim;
    struct sim_conn *k = mpc_owner(c);
    if (!k) return; /* released */
    if (bits & MP_EV_ACCEPT) {
        k = (struct sim_conn *)((char *)k - offsetof(struct sim_conn, listener));
        if (k->c) {
            sim_fail(s, "%s conn %d: accepted twice", h->node.name, k->index);
            return;
        }
        k->c = c;
        k->connected = k->started = true;
        k->connected_at = s->now;
        mpc_set_owner(c, k);
        set_options(k);
        mp_stack_unlisten(h->stack, &k->listener, s->now);
    }
    if (bits & MP_EV_CONNECTED && !k->connected) {
        k->connected = true;
        k->connected_at = s->now;
        if (k->cfg.keepalive_s) mpc_setopt(c, MPC_KEEPALIVE, 1, s->now); /* a connection that is open now */
    }
    if (bits & MP_EV_CLOSED) {
        k->closed = true;
        k->err = mpc_error(c);
    }
    conn_run(k);
}

static mp_time conn_next(const struct sim_conn *k, mp_time now)
{
    if (!k->server && !k->started) return k->start;
    if (!k->c || k->done) return MP_NEVER;
    mp_time t = MP_NEVER;
    if (!k->eof && k->next_read > now) t = k->next_read;
    if (!k->eof && k->cfg.read_from > now) t = mp_min(t, k->cfg.read_from);
    if (!k->shut && k->next_write > now) t = mp_min(t, k->next_write);
    return t;
}

/* A pause that ends now must be seen although it is no longer in the future. */
static mp_time app_next(struct sim_host *h)
{
    struct sim_app *a = h->app;
    mp_time t = MP_NEVER, now = h->node.sim->now;
    for (int i = 0; i < a->n; i++) t = mp_min(t, conn_next(&a->conn[i], now ? now - 1 : 0));
    return t;
}

static void app_run(struct sim_host *h)
{
    struct sim_app *a = h->app;
    mp_time now = h->node.sim->now;
    for (int i = 0; i < a->n; i++) {
        struct sim_conn *k = &a->conn[i];
        if (conn_next(k, now - 1) > now) continue;
        if (!k->server && !k->started) {
            conn_open(k);
            continue;
        }
        if (k->next_read <= now) k->next_read = 0;
        if (k->next_write <= now) k->next_write = 0;
        if (k->cfg.read_from <= now) k->cfg.read_from = 0;
        conn_run(k);
    }
}

void sim_app_init(struct sim_app *a, struct sim_host *h)
{
    *a = (struct sim_app){.host = h};
    a->conn = calloc(SIM_MAX_CONN, sizeof *a->conn);
    if (!a->conn) abort();
    h->app = a;
    h->on_event = on_event;
    h->app_next = app_next;
    h->app_run = app_run;
}

void sim_app_fini(struct sim_app *a) { free(a->conn); }

static struct sim_conn *conn_add(struct sim_app *a, const struct sim_app_cfg *cfg, bool server, uint64_t key)
{
    if (a->n >= SIM_MAX_CONN) abort();
    struct sim_conn *k = &a->conn[a->n];
    *k = (struct sim_conn){.app = a, .cfg = *cfg, .index = a->n++, .server = server};
    k->key_tx = sim_mix(key + server);
    k->key_rx = sim_mix(key + !server);
    k->rng = sim_rng_new(a->host->node.sim->seed, key * 2 + server);
    return k;
}

struct sim_conn *sim_app_client(struct sim_app *a, const struct sim_app_cfg *cfg, uint64_t key, mp_time start,
                                int iface, const char *local, const char *remote, uint16_t port)
{
    struct sim_conn *k = conn_add(a, cfg, false, key);
    k->start = start;
    k->ifindex = a->host->iface[iface].ifindex;
    k->local = sim_addr(local);
    k->remote = (struct mp_endpoint){sim_addr(remote), port};
    return k;
}

struct sim_conn *sim_app_server(struct sim_app *a, const struct sim_app_cfg *cfg, uint64_t key, uint16_t port)
{
    struct sim_conn *k = conn_add(a, cfg, true, key);
    struct mp_endpoint at = {.port = port};
    int rc = mp_stack_listen(a->host->stack, &at, 3, 16, &k->listener);
    if (rc < 0) sim_fail(a->host->node.sim, "listen: %s", strerror(-rc));
    return k;
}

bool sim_app_done(const struct sim_app *a)
{
    for (int i = 0; i < a->n; i++)
        if (!a->conn[i].done) return false;
    return true;
}
