/* engine/verdict.c: what -v tells of a connection, and which peers are known not to speak MPTCP. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/eng.h"

/* ---- lines ---- */

static const char *megabytes(uint64_t n, char buf[32])
{
    if (n < 1000000)
        snprintf(buf, 32, "%.1f kB", (double)n / 1e3);
    else
        snprintf(buf, 32, "%.1f MB", (double)n / 1e6);
    return buf;
}

enum { PATHS_MAX = 16 };
struct text { char b[900]; size_t n; };

static void add(struct text *t, const char *s)
{
    size_t n = strlen(s);
    if (n > sizeof t->b - 1 - t->n)
        n = sizeof t->b - 1 - t->n;
    memcpy(t->b + t->n, s, n);
    t->b[t->n += n] = 0;
}

static bool was_used(const struct mpc_path_info *p) { return p->live || p->bytes_sent || p->bytes_received; }

/* Those that are up or carried something: not the ones whose join was refused or never answered. A connection that
 * ended without a byte was on its first path. */
static int used_paths(const struct mpc *m, const struct mp_addr *first, struct mpc_path_info v[PATHS_MAX])
{
    int n = mpc_get_paths(m, v, PATHS_MAX), used = 0;
    for (int i = 0; i < n; i++)
        if (was_used(&v[i]))
            v[used++] = v[i];
    for (int i = 0; i < n && !used; i++)
        if (mp_addr_eq(&v[i].local, first)) {
            v[0] = v[i];
            used = 1;
        }
    return used;
}

static void add_paths(struct text *t, const struct mpc_path_info *v, int n)
{
    char ip[48];
    for (int i = 0; i < n; i++) {
        add(t, i ? ", " : " over ");
        add(t, v[i].ifname);
        add(t, " (");
        add(t, eng_ip_text(&v[i].local, ip));
        add(t, ")");
    }
}

/* " 52.4 MB + 47.6 MB received"; nothing where nothing was. */
static const char *add_sums(struct text *t, const struct mpc_path_info *v, int n, bool sent, const char *before)
{
    char mb[32];
    uint64_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += sent ? v[i].bytes_sent : v[i].bytes_received;
    if (!sum)
        return before;
    for (int i = 0; i < n; i++) {
        add(t, i ? " + " : before);
        add(t, megabytes(sent ? v[i].bytes_sent : v[i].bytes_received, mb));
    }
    add(t, sent ? " sent" : " received");
    return ", ";
}

static void add_kind(struct text *t, const struct mpc_info *i)
{
    if (i->multipath) {
        add(t, "multipath");
    } else if (i->why == MP_WHY_PENDING) {
        add(t, "MPTCP"); /* agreed in the handshake, not yet proved by data */
    } else {
        add(t, "plain TCP: ");
        add(t, mp_plain_why_text(i->why));
    }
}

struct subject {
    int log;
    struct mpc_info i;
    struct mpc_path_info p[PATHS_MAX];
    int n; /* of p: those used */
    struct text t;
};

/* false: nobody listens. */
static bool take_subject(struct subject *s, struct engine *e, uint64_t client, struct mpc *m)
{
    s->log = eng_ctl_log(e, client, 1);
    if (s->log < 0)
        return false;
    mpc_get_info(m, &s->i);
    s->n = used_paths(m, &s->i.local.ip, s->p);
    s->t.b[s->t.n = 0] = 0;
    return true;
}

void eng_verdict_open(struct engine *e, uint64_t client, struct mpc *m)
{
    struct subject s;
    char ep[64];
    if (!take_subject(&s, e, client, m))
        return;
    add_kind(&s.t, &s.i);
    add_paths(&s.t, s.p, s.n);
    eng_log(s.log, "mptcp-run: %s: %s %s", eng_ep_text(&s.i.remote, ep), s.i.server ? "accepted," : "connected,", s.t.b);
}

void eng_verdict_end(struct engine *e, uint64_t client, struct mpc *m, int err)
{
    struct subject s;
    char ep[64];
    if (!take_subject(&s, e, client, m))
        return;
    if (s.i.established) {
        add_kind(&s.t, &s.i);
        add_paths(&s.t, s.p, s.n);
        add_sums(&s.t, s.p, s.n, true, add_sums(&s.t, s.p, s.n, false, ": "));
    }
    if (err) {
        add(&s.t, s.i.established ? "; ended by: " : "failed: ");
        add(&s.t, err == EPROTONOSUPPORT ? "strict, and it would be plain TCP: " : strerror(err));
        add(&s.t, err == EPROTONOSUPPORT ? mp_plain_why_text(s.i.why) : "");
    }
    eng_log(s.log, "mptcp-run: %s: %s", eng_ep_text(&s.i.remote, ep), s.t.b);
}

/* ---- peers without MPTCP ---- */

/* Another connection to a peer whose answer carried no MPTCP option would gain nothing and cost the carrier: the
 * kernel carries it. Not for long, since a path's middlebox or the peer may change. The same where a box takes the options out of all
 * that follows, from the start on: there, besides, the end of a short answer may be lost with them (docs/protocol.md, Fallback). */
enum { PLAIN_MAX = 256 };
#define PLAIN_KEEP MP_SEC(300)
#define PLAIN_KEEP_DROPPED MP_SEC(60) /* loss may have looked like it */
struct plain_peer {
    struct mp_endpoint at;
    mp_time until;
};

bool eng_plain_known(struct engine *e, const struct mp_endpoint *remote, mp_time now)
{
    for (int i = 0; e->plain && i < PLAIN_MAX; i++)
        if (e->plain[i].until > now && mp_endpoint_eq(&e->plain[i].at, remote))
            return true;
    return false;
}

static struct plain_peer *plain_slot(struct engine *e, const struct mp_endpoint *at)
{
    struct plain_peer *oldest = &e->plain[0];
    for (int i = 0; i < PLAIN_MAX; i++) {
        if (mp_endpoint_eq(&e->plain[i].at, at))
            return &e->plain[i];
        if (e->plain[i].until < oldest->until)
            oldest = &e->plain[i];
    }
    return oldest;
}

/* 0: the next connection may do better. */
static mp_dur plain_keep(enum mp_plain_why why)
{
    switch (why) {
    case MP_WHY_NO_OPTION_SYNACK:
    case MP_WHY_NO_OPTION_ACK:
    case MP_WHY_NO_DSS: return PLAIN_KEEP;
    case MP_WHY_SYN_DROPPED: return PLAIN_KEEP_DROPPED;
    default: return 0;
    }
}

void eng_plain_note(struct engine *e, const struct mpc_info *i, mp_time now)
{
    if (i->server || i->multipath || !plain_keep(i->why))
        return;
    if (!e->plain && !(e->plain = calloc(PLAIN_MAX, sizeof *e->plain)))
        return;
    struct plain_peer *p = plain_slot(e, &i->remote);
    p->at = i->remote;
    p->until = now + plain_keep(i->why);
}

int eng_plain_next(const struct engine *e, int i, mp_time now, struct mp_endpoint *at, mp_time *until)
{
    for (; e->plain && i < PLAIN_MAX; i++)
        if (e->plain[i].until > now) {
            *at = e->plain[i].at;
            *until = e->plain[i].until;
            return i + 1;
        }
    return 0;
}

void eng_plain_free(struct engine *e) { free(e->plain); }
