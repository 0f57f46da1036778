/* Keys, and what comes from them: tokens, initial data sequence numbers, HMACs (RFC 8684 3.1, 3.2). */
#include "core/stack_int.h"

#include "core/crypto.h"

void conn_key_derive(const struct mpc *c, uint64_t key, uint32_t *token, uint64_t *idsn)
{
    if (c->v.version == 0) mp_key_derive0(key, token, idsn);
    else mp_key_derive(key, token, idsn);
}

void conn_join_hmac(const struct mpc *c, bool ours, uint32_t nonce_own, uint32_t nonce_peer, uint8_t out[32])
{
    uint64_t a = ours ? c->v.key_local : c->v.key_remote, b = ours ? c->v.key_remote : c->v.key_local;
    uint32_t na = ours ? nonce_own : nonce_peer, nb = ours ? nonce_peer : nonce_own;
    if (c->v.version == 0) mp_join_hmac0(a, b, na, nb, out);
    else mp_join_hmac(a, b, na, nb, out);
}

bool conn_use_key(struct mpc *c, uint64_t key)
{
    c->v.key_local = key;
    conn_key_derive(c, key, &c->v.token_local, &c->v.idsn_local);
    if (st_token_find(c->st, c->v.token_local) || half_has_token(c->st, c->v.token_local)) return false;
    st_token_add(c->st, c);
    c->v.tx_off = c->v.idsn_local & DSN_TOP;
    c->v.idsn_local &= ~DSN_TOP;
    c->v.snd_una = c->v.snd_nxt = c->v.snd_end = c->v.idsn_local + 1; /* MP_CAPABLE takes one, RFC 8684 3.1 */
    c->v.snd_edge = c->v.snd_nxt;
    return true;
}

void conn_new_keys(struct mpc *c)
{
    uint64_t key;
    do c->st->ops.random(c->st->arg, &key, sizeof key);
    while (!conn_use_key(c, key));
}

void conn_set_peer_key(struct mpc *c, uint64_t key)
{
    if (c->v.peer_key_known) return;
    c->v.peer_key_known = true;
    c->v.key_remote = key;
    conn_key_derive(c, key, &c->v.token_remote, &c->v.idsn_remote);
    c->v.rx_off = c->v.idsn_remote & DSN_TOP;
    c->v.idsn_remote &= ~DSN_TOP;
    c->v.rcv_nxt = c->v.idsn_remote + 1;
    c->v.rcv_edge = 0;
    c->v.ack64 = true;
}

void conn_dsn_in(const struct mpc *c, struct mp_opts *o)
{
    if (o->dss.dsn64) o->dss.dsn -= c->v.rx_off;
    if (o->dss.ack64) o->dss.data_ack -= c->v.tx_off;
    o->fail_dsn -= c->v.tx_off;
}

void conn_dsn_out(const struct mpc *c, struct mp_opts *o)
{
    if (o->dss.dsn64) o->dss.dsn += c->v.tx_off;
    if (o->dss.ack64) o->dss.data_ack += c->v.rx_off;
    o->fail_dsn += c->v.rx_off;
}
