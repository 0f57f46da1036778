/* Half-open connections of a listener, kept small (RFC 4987 3.3, a SYN cache): of a SYN that was answered only what is needed
 * to answer it again, and to make the connection when the third ACK comes. Whatever the answer depends on is made anew each
 * time, by a connection that lives for that moment: so a flood of SYNs costs some hundred bytes each, and no code knows two
 * ways of accepting one. What is refused here (cookie.c: more than a listener may keep) costs nothing. */
#include "core/stack_int.h"

#include <stdlib.h>

#define MOST_BACKOFF 6 /* RFC 6298 5.5: doubled, to a minute */

struct half {
    struct half *next;   /* of its bucket */
    struct mp_endpoint local, remote;
    int ifindex;
    uint32_t irs, iss;
    uint64_t key;        /* told in the SYN/ACK, if the SYN has MP_CAPABLE */
    uint32_t token;      /* likewise */
    uint32_t ts;         /* the latest SYN's timestamp, RFC 7323 4.3 */
    mp_time sent, again; /* the SYN/ACK; when it is repeated */
    mp_time challenged;
    uint16_t wnd;
    uint8_t flags, tos, optlen, tries;
    bool offered;        /* the SYN has an MP_CAPABLE that we answer */
    bool withdrawn;      /* the SYN came again without MP_CAPABLE (RFC 8684 3.7) */
    bool left;           /* its listener went: `again` is when it is refused, if none has come by then */
    bool no_ect;         /* or without the offer of ECN (RFC 3168 6.1.1.1) */
    uint8_t opt[40];
};

static struct half **bucket(struct mp_stack *st, const struct mp_endpoint *local, const struct mp_endpoint *remote)
{
    return &st->half[st_tuple_hash(st, local, remote) % ST_HALF];
}

static struct half *find(struct mp_stack *st, const struct mp_endpoint *local, const struct mp_endpoint *remote)
{
    struct half *h = *bucket(st, local, remote);
    while (h && !(mp_endpoint_eq(&h->local, local) && mp_endpoint_eq(&h->remote, remote))) h = h->next;
    return h;
}

mp_time half_deadline(const struct mp_stack *st)
{
    mp_time first = MP_NEVER;
    for (int i = 0; i < ST_HALF && st->nhalf; i++)
        for (const struct half *h = st->half[i]; h; h = h->next) first = mp_min(first, h->again);
    return first;
}

static void drop(struct mp_stack *st, struct half *h)
{
    struct listener *l = st_listener_for(st, &h->local);
    struct half **p = bucket(st, &h->local, &h->remote);
    if (l && l->pending > 0) l->pending--;
    while (*p != h) p = &(*p)->next;
    *p = h->next;
    st->nhalf--;
    if (h->again <= st->half_at) st->half_at = half_deadline(st);
    free(h);
}

/* The connection as it was when the SYN/ACK went out. It has its SYN/ACK, *out, on its scoreboard. */
static struct sf *make(struct mp_stack *st, const struct half *h, struct mp_pkt *out, mp_time now)
{
    struct mp_pkt syn = { .src = h->remote, .dst = h->local, .ifindex = h->ifindex, .seq = h->irs, .wnd = h->wnd,
                          .flags = h->flags, .tos = h->tos, .optlen = h->optlen };
    struct mp_opts o;
    memcpy(syn.opt, h->opt, h->optlen);
    if (mp_opts_parse(&o, syn.opt, syn.optlen, syn.flags) < 0) return NULL;
    o.ts_val = h->ts;
    st->replaying = true; /* it has been counted */
    struct sf *s = st_passive_open(st, &syn, &o, &h->key, now);
    if (s) {
        s->v.iss = h->iss;
        s->v.ecn_no_ect |= h->no_ect;
        if (h->withdrawn) conn_fallback(s->c, s, FB_SYN_WITHOUT_OPTION, MP_WHY_SYN_DROPPED, now);
    }
    if (s && !sf_poll(s, out, now)) {
        conn_free(s->c);
        s = NULL;
    }
    st->replaying = false;
    return s;
}

static struct mp_pkt *stray_to(struct mp_stack *st, const struct half *h)
{
    struct mp_pkt to = { .src = h->remote, .dst = h->local, .ifindex = h->ifindex };
    return st_stray(st, &to);
}

static mp_time repeat_at(const struct half *h) { return h->sent + (MP_SEC(1) << mp_min(mp_max(h->tries, 1) - 1, MOST_BACKOFF)); }

/* A box that drops SYN/ACKs with the option began after the SYN, or lets SYNs pass. A client that has had the first is established,
 * has perhaps nothing to say, and answers this one by its third ACK again, with the option (RFC 5961 4); one that has had none
 * goes on as plain TCP (RFC 8684 3.7). Simulation seed 1530974. */
static void without_option(struct mp_pkt *synack)
{
    struct mp_opts o;
    if (mp_opts_parse(&o, synack->opt, synack->optlen, synack->flags) < 0) return;
    o.mp = 0;
    synack->optlen = (uint8_t)mp_opts_len(&o);
    mp_opts_emit(synack->opt, &o);
}

static void answer(struct mp_stack *st, struct half *h, const struct mp_pkt *synack, bool unasked, mp_time now)
{
    enum { WITH_OPTION = 3 }; /* times */
    struct mp_pkt *r = stray_to(st, h);
    h->again = now; /* too many answers wait: when these are out */
    if (r) {
        *r = *synack;
        r->flow = NULL;
        r->conn = NULL; /* one for this answer only, and gone */
        if (unasked && h->tries >= WITH_OPTION) without_option(r);
        h->sent = now;
        if (h->tries++) st_count(st, MP_E_seg_rexmit, 1, NULL);
        h->again = repeat_at(h);
    }
    st->half_at = half_deadline(st);
}

static void answer_again(struct mp_stack *st, struct half *h, bool unasked, mp_time now)
{
    struct mp_pkt synack;
    struct sf *s = st->nstray < ST_MAX_STRAY ? make(st, h, &synack, now) : NULL;
    if (st->nstray == ST_MAX_STRAY) {
        st->half_at = h->again = now;
    } else if (s) {
        conn_free(s->c);
        answer(st, h, &synack, unasked, now);
    } else
        drop(st, h);
}

void half_syn(struct mp_stack *st, const struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    struct mp_pkt synack;
    struct half *h = calloc(1, sizeof *h);
    struct sf *s = h ? st_passive_open(st, p, o, NULL, now) : NULL;
    if (!s || !sf_poll(s, &synack, now)) {
        if (s) conn_free(s->c);
        free(h);
        return;
    }
    *h = (struct half){ .local = p->dst, .remote = p->src, .ifindex = p->ifindex, .irs = p->seq, .iss = s->v.iss, .key = s->c->v.key_local,
                        .token = s->c->v.token_local, .ts = o->ts_val, .offered = s->c->v.offered, .wnd = p->wnd, .flags = p->flags, .tos = p->tos, .optlen = p->optlen };
    memcpy(h->opt, p->opt, p->optlen);
    conn_free(s->c);
    struct half **b = bucket(st, &h->local, &h->remote);
    h->next = *b;
    *b = h;
    st->nhalf++;
    st_listener_for(st, &h->local)->pending++;
    answer(st, h, &synack, false, now);
}

static bool say(struct mp_stack *st, const struct half *h, uint8_t flags, uint16_t wnd)
{
    struct mp_pkt *r = stray_to(st, h);
    if (!r) return false;
    r->flags = flags;
    r->seq = h->iss + 1;
    r->ack = h->irs + 1;
    r->wnd = wnd;
    return true;
}

/* RFC 5961 4 and 5: in case that we have it wrong, the peer's answer tells. */
static void challenge(struct mp_stack *st, struct half *h, mp_time now)
{
    if (h->challenged && now - h->challenged < SF_CHALLENGE_EVERY) return;
    if (!say(st, h, MP_ACK, 65535)) return;
    h->challenged = now;
    st_count(st, MP_E_challenge_ack, 1, NULL);
}

/* Nobody listens any more. With the ACK it is heard by a client that has not seen our SYN/ACK too. */
static void refuse(struct mp_stack *st, struct half *h, mp_time now)
{
    if (say(st, h, MP_RST | MP_ACK, 0)) {
        st_count(st, MP_E_listen_unmatched, 1, NULL);
        drop(st, h);
    } else
        st->half_at = h->again = now; /* too many answers wait: when these are out */
}

static void syn_again(struct mp_stack *st, struct half *h, const struct mp_pkt *p, const struct mp_opts *o, mp_time now)
{
    if (p->seq != h->irs) {
        challenge(st, h, now);
        return;
    }
    if (h->offered && !h->withdrawn && !(o->mp & MP_OPT_HAS(MP_CAPABLE))) {
        h->withdrawn = true;
        st_count(st, MP_E_fallback, 1, NULL);
    }
    h->no_ect |= !ecn_syn_asks(st, p);
    h->ts = o->ts_val;
    answer_again(st, h, false, now); /* a client that asks has had no SYN/ACK: with the option, if his SYN has it */
}

/* The third ACK: the connection is made, and goes on with it. */
static struct sf *open(struct mp_stack *st, struct half *h, mp_time now)
{
    struct mp_pkt synack;
    mp_time sent = h->sent;
    uint8_t tries = h->tries;
    struct half was = *h;
    drop(st, h);
    struct sf *s = make(st, &was, &synack, sent ? sent : now);
    if (s && s->seg_head) s->seg_head->sent_count = tries; /* Karn: no round trip is measured by what was sent twice */
    return s;
}

bool half_input(struct mp_stack *st, const struct mp_pkt *p, const struct mp_opts *o, struct sf **s, mp_time now)
{
    struct half *h = st->nhalf ? find(st, &p->dst, &p->src) : NULL;
    *s = NULL;
    if (!h) return false;
    struct listener *l = st_listener_for(st, &h->local);
    if (p->flags & MP_RST) {
        if (p->seq == h->irs + 1) drop(st, h); /* RFC 5961 3: exact */
    } else if (p->flags & MP_SYN) {
        if (l) syn_again(st, h, p, o, now); /* else a listener may come, or we refuse, soon */
    }
    else if ((p->flags & MP_ACK) && p->ack == h->iss + 1) {
        if (!l) refuse(st, h, now);
        else if (st_may_open(st, l)) *s = open(st, h, now);
        /* else as if lost: the SYN/ACK goes out again, and draws another */
    }
    else if (p->flags & MP_ACK)
        challenge(st, h, now);
    return true;
}

bool half_has_token(const struct mp_stack *st, uint32_t token)
{
    for (int i = 0; i < ST_HALF && st->nhalf && !st->replaying; i++)
        for (const struct half *h = st->half[i]; h; h = h->next)
            if (h->offered && h->token == token) return true;
    return false;
}

void half_tick(struct mp_stack *st, mp_time now)
{
    if (st->half_at > now) return;
    for (int i = 0; i < ST_HALF; i++)
        for (struct half *h = st->half[i], *next; h; h = next) {
            next = h->next;
            if (h->again > now) continue;
            if (!st_listener_for(st, &h->local))
                refuse(st, h, now);
            else if (h->tries > (int)st->set.syn_tries) {
                st_count(st, MP_E_syn_timeout, 1, NULL);
                drop(st, h);
            } else
                answer_again(st, h, true, now);
        }
}

/* A program closes its listener and opens it again at once (iperf3 between two tests, a server that reloads): who has our
 * SYN/ACK by then is a client of the new one. Linux takes from them only those whose listeners share SO_REUSEPORT, if told to. */
void half_listeners_changed(struct mp_stack *st, mp_time keep_until)
{
    for (int i = 0; i < ST_HALF; i++)
        for (struct half *h = st->half[i]; h; h = h->next) {
            struct listener *l = st_listener_for(st, &h->local);
            if (l) l->pending++;
            if (!l) h->again = h->left ? mp_min(h->again, keep_until) : keep_until;
            else if (h->left) h->again = repeat_at(h);
            h->left = !l;
        }
    st->half_at = half_deadline(st);
}

void half_settle(struct mp_stack *st, mp_time now)
{
    for (int i = 0; i < ST_HALF; i++)
        for (struct half *h = st->half[i], *next; h; h = next) {
            next = h->next;
            struct sf *s = NULL;
            if (st_listener_for(st, &h->local)) s = open(st, h, now);
            else refuse(st, h, now);
            if (s) conn_touch(s->c);
        }
}

void half_fini(struct mp_stack *st)
{
    for (int i = 0; i < ST_HALF; i++)
        for (struct half *h = st->half[i], *next; h; h = next) {
            next = h->next;
            free(h);
        }
}
