/* Pure ACKs, and the control options that ride on them. */
#include "core/sf_out.h"

#include "core/crypto.h"

static bool take_remove_addr(struct sf *s, struct mp_opts *o)
{
    if (!s->v.nrm) return false;
    o->mp |= MP_OPT_HAS(MP_REMOVE_ADDR);
    o->remove_addr.n = (uint8_t)s->v.nrm;
    memcpy(o->remove_addr.id, s->v.rm_ids, (size_t)s->v.nrm);
    s->v.nrm = 0;
    st_count(s->st, MP_E_remove_addr_out, 1, s->c);
    return true;
}

/* Not over a path that does not answer: it would be heard a second later, from the next retransmission. */
static bool may_tell(const struct sf *s) { return !s->v.stale || !conn_any_other(s->c, s); }

static bool take_add_addr(struct sf *s, struct mp_opts *o)
{
    struct mpc *c = s->c;
    if (!may_tell(s)) return false;
    if (c->v.necho) {
        c->v.necho--;
        o->mp |= MP_OPT_HAS(MP_ADD_ADDR);
        o->add_addr = (struct mp_opt_add_addr){ .echo = true, .addr_id = c->v.echo[c->v.necho].id, .ip = c->v.echo[c->v.necho].ip, .port = c->v.echo[c->v.necho].port };
        return true;
    }
    for (int i = 0; i < PM_MAX_REMOTE; i++) {
        struct pm_announce *a = &c->v.announce[i];
        if (!a->pending) continue;
        a->pending = false;
        o->mp |= MP_OPT_HAS(MP_ADD_ADDR);
        o->add_addr = (struct mp_opt_add_addr){ .addr_id = a->id, .ip = a->at.ip, .port = a->at.port };
        o->add_addr.v0 = !c->v.version;
        if (o->add_addr.v0) { /* RFC 6824 3.4.1: told once, there is no echo; the next one soon */
            a->echoed = true;
            c->v.timer[CT_ADD_ADDR] = s->st->now + MP_MS(10);
        }
        o->add_addr.hmac = mp_add_addr_hmac(c->v.key_local, c->v.key_remote, a->id, &a->at.ip, a->at.port);
        st_count(s->st, a->told ? MP_E_add_addr_rexmit : MP_E_add_addr_out, 1, c);
        a->told = true;
        return true;
    }
    return false;
}

/* Next time, then. */
static void hand_back_add_addr(struct mpc *c, struct mp_opts *o)
{
    if (!(o->mp & MP_OPT_HAS(MP_ADD_ADDR))) return;
    o->mp &= ~MP_OPT_HAS(MP_ADD_ADDR);
    if (o->add_addr.echo)
        c->v.necho++; /* still in its place */
    else
        for (int i = 0; i < PM_MAX_REMOTE; i++)
            if (c->v.announce[i].at.ip.family && c->v.announce[i].id == o->add_addr.addr_id) c->v.announce[i].pending = true;
}

static bool fits(const struct mp_opts *o) { return mp_opts_len(o) <= 40; }

/* Plain TCP's: at most the MP_FAIL that ends MPTCP, and what a peer needs to hear of that. */
static void add_pending_fail(struct sf *s, struct mp_opts *o)
{
    struct mpc *c = s->c;
    out_data_ack(c, o);
    bool more = c->v.mp_fail_more && s->v.last_ack_sent != s->v.rcv_nxt;
    if (!(c->v.mp_fail_pending || more) || c->v.fb != FB_PLAIN || !c->v.offered) return;
    if (!c->v.mp_fail_pending) c->v.mp_fail_more--;
    o->mp |= MP_OPT_HAS(MP_FAIL);
    o->fail_dsn = c->v.mp_fail_dsn;
    c->v.mp_fail_pending = false;
    st_count(s->st, MP_E_fail_out, 1, c);
}

static void add_capable_ack(const struct sf *s, struct mp_opts *o)
{
    const struct mpc *c = s->c;
    o->mp |= MP_OPT_HAS(MP_CAPABLE);
    o->capable = (struct mp_opt_capable){ .version = c->v.version, .hmac_sha256 = true, .csum_req = c->v.csum,
        .no_join_initial = c->v.version && s->st->set.no_join_initial, .nkeys = 2, .key_snd = c->v.key_local, .key_rcv = c->v.key_remote };
}

static void add_join_ack(const struct sf *s, struct mp_opts *o)
{
    uint8_t h[32];
    o->mp |= MP_OPT_HAS(MP_JOIN);
    o->join.form = MP_JOIN_ACK;
    conn_join_hmac(s->c, true, s->v.nonce_local, s->v.nonce_remote, h);
    memcpy(o->join.hmac, h, 20);
}

static void take_data_fin(struct sf *s, struct mp_opts *o)
{
    out_data_fin(s->c, o);
    s->v.data_fin_now = false;
}

static void take_prio(struct sf *s, struct mp_opts *o)
{
    o->mp |= MP_OPT_HAS(MP_PRIO);
    o->prio = (struct mp_opt_prio){ .backup = s->v.backup_local || s->v.backup_asked };
    s->v.prio_now = false;
    st_count(s->st, MP_E_prio_out, 1, s->c);
}

/* A confirmed subflow's: a DATA_ACK and one control option. What must give way for room: SACK is added last, a DATA_ACK
 * and the timestamps are left out of an ADD_ADDR that would not fit (IPv6 with port needs all of it). */
static void add_control(struct sf *s, struct mp_opts *o)
{
    out_data_ack(s->c, o);
    if (s->v.data_fin_now && s->v.fully) take_data_fin(s, o);
    else if (s->v.prio_now) take_prio(s, o);
    else if (s->v.fully && !take_remove_addr(s, o)) take_add_addr(s, o);
    /* An ACK of something new keeps its DATA_ACK, or the peer would think that options die on the way. */
    if (!fits(o) && s->v.last_ack_sent != s->v.rcv_nxt) hand_back_add_addr(s->c, o);
    if (!fits(o)) o->mp &= ~MP_OPT_HAS(MP_DSS);
    if (!fits(o)) o->has_ts = false;
}

/* The options that ride on one pure ACK. */
static void ack_options(struct sf *s, struct mp_opts *o, mp_time now)
{
    struct mpc *c = s->c;
    out_timestamps(s, o, now);
    if (!conn_mp(c) || !c->v.peer_key_known) add_pending_fail(s, o);
    else if (s->v.send_capable_ack && c->v.fb == FB_UNCONFIRMED && !s->v.data_fin_now) add_capable_ack(s, o);
    else if (!s->v.initial && !s->v.passive && !s->v.join_done) {
        add_join_ack(s, o); /* with nothing beside it */
        return;
    } else add_control(s, o);
    out_sack(s, o, 40);
}

bool sf_emit_ack(struct sf *s, struct mp_pkt *out, mp_time now)
{
    struct mpc *c = s->c;
    struct mp_opts o = { 0 };
    mp_ssn ssn = s->v.snd_nxt;
    bool third = s->v.ack_now && s->v.send_capable_ack && c->v.fb == FB_UNCONFIRMED; /* first, with its own number */
    if (s->v.probes && !third) { /* below the window: the peer must answer, RFC 9293 3.8.4 */
        s->v.probes = 0;
        ssn = s->v.snd_una - 1;
    }
    out_begin(s, out, ssn, (uint8_t)(MP_ACK | ecn_ack_flags(s)));
    ack_options(s, &o, now);
    bool no_room = conn_mp(c) && c->v.fb != FB_OFFERED && (o.mp & MP_OPT_HAS(MP_ADD_ADDR)) && !(o.mp & MP_OPT_HAS(MP_DSS));
    out_finish(s, out, &o, now);
    s->v.ack_now = no_room; /* the DATA_ACK that gave way follows */
    return true;
}

static bool window_update_due(const struct sf *s)
{
    struct mpc *c = s->c;
    if (s->v.state != SF_ESTABLISHED && s->v.state != SF_FIN_WAIT_1 && s->v.state != SF_FIN_WAIT_2) return false;
    uint64_t edge = conn_rcv_edge(c);
    if (edge <= s->v.adv_edge) return false;
    uint64_t left = s->v.adv_edge > c->v.rcv_nxt ? s->v.adv_edge - c->v.rcv_nxt : 0;
    /* RFC 9293 3.8.6.2.2: not in small steps; early enough that the sender does not stop. */
    uint64_t space = conn_rcv_space(c);
    return edge - s->v.adv_edge >= space / 2 || (left < space / 4 && edge - s->v.adv_edge >= space / 8);
}

static bool control_due(struct sf *s)
{
    struct mpc *c = s->c;
    if (!conn_mp(c)) return c->v.mp_fail_pending && c->v.offered;
    if (!s->v.fully || !c->v.peer_key_known) return false;
    if (s->v.data_fin_now && sf_is_open(s)) return true;
    if (c->v.fb != FB_CONFIRMED) return false;
    return s->v.nrm || s->v.prio_now || (may_tell(s) && pm_control_pending(c));
}

/* What comes with our side's next word in most cases: an answer, the end of our direction. A millisecond is long for that
 * word, and short beside what a sender waits for an ACK (RFC 8985 7.2: 200 ms when one segment is under way). */
void sf_ack_soon(struct sf *s, mp_time now)
{
    if (s->v.timer[SFT_DELACK] > now + MP_MS(1)) sf_arm(s, SFT_DELACK, now + MP_MS(1));
}

bool sf_ack_due(struct sf *s) { return s->v.ack_now || s->v.probes || control_due(s) || window_update_due(s); }
