/* core/opt.h: TCP and MPTCP option codec (RFC 9293, 7323, 2018; RFC 8684 3).
 *
 * Two layers. mp_opts is everything found in one header, parsed in one pass; mp_opts_emit lays out
 * options in Linux's order and padding (middleboxes have met it). The contract: parsing any bytes gives
 * a value or an error and writes nothing on error; emitting into mp_opts_len() bytes cannot fail. */
#ifndef MP_OPT_H
#define MP_OPT_H

#include "core/base.h"

enum mp_subtype { /* RFC 8684 table 3 */
    MP_CAPABLE = 0, MP_JOIN = 1, MP_DSS = 2, MP_ADD_ADDR = 3, MP_REMOVE_ADDR = 4,
    MP_PRIO = 5, MP_FAIL = 6, MP_FASTCLOSE = 7, MP_TCPRST = 8
};
#define MP_OPT_HAS(subtype) (1u << (subtype))

struct mp_opt_capable { /* RFC 8684 3.1 */
    uint8_t version;     /* 0..15 as on the wire */
    bool csum_req, bflag, no_join_initial /* C */, hmac_sha256 /* H */; /* A, B, C, H; other bits ignored */
    uint8_t nkeys;       /* 0: SYN of v1; 1: SYN/ACK (v0: SYN); 2: third ACK or with data */
    uint64_t key_snd, key_rcv;
    bool has_data_len;   /* length 22 or 24 */
    uint16_t data_len;
    bool has_csum;       /* length 24 */
    uint16_t csum;
};

enum mp_join_form { MP_JOIN_SYN, MP_JOIN_SYNACK, MP_JOIN_ACK }; /* lengths 12, 16, 24 */
struct mp_opt_join { /* RFC 8684 3.2 */
    enum mp_join_form form;
    bool backup;
    uint8_t addr_id;
    uint32_t token;      /* SYN */
    uint32_t nonce;      /* SYN, SYN/ACK */
    uint8_t hmac[20];    /* SYN/ACK: first 8 bytes; ACK: 20 */
};

struct mp_opt_dss { /* RFC 8684 3.3 */
    bool has_ack, ack64, has_map, dsn64, data_fin, has_csum;
    uint64_t data_ack;   /* low 32 bits only when !ack64 */
    uint64_t dsn;        /* low 32 bits only when !dsn64 */
    uint32_t ssn;        /* relative */
    uint16_t len;        /* data-level length, DATA_FIN counts one; 0: infinite mapping */
    uint16_t csum;
};

struct mp_opt_add_addr { /* RFC 8684 3.4.1 */
    bool v0;             /* RFC 6824 3.4.1: the IP version in place of the flags, no HMAC, no echo */
    bool echo;
    uint8_t addr_id;
    struct mp_addr ip;
    uint16_t port;       /* 0: absent */
    uint64_t hmac;       /* when !echo */
};

struct mp_opt_remove_addr { uint8_t n; uint8_t id[16]; };           /* RFC 8684 3.4.2 */
struct mp_opt_prio { bool backup; bool has_id; uint8_t addr_id; };  /* RFC 8684 3.3.8; id: RFC 6824, version 0 only (conn_opt.c) */

enum mp_rst_reason { /* RFC 8684 3.6, table 4 */
    MP_RST_UNSPECIFIED = 0, MP_RST_MPTCP = 1, MP_RST_RESOURCE = 2, MP_RST_PROHIBITED = 3,
    MP_RST_TOO_MUCH_DATA = 4, MP_RST_PERFORMANCE = 5, MP_RST_MIDDLEBOX = 6
};
struct mp_opt_tcprst { bool transient; uint8_t reason; };

#define MP_MAX_SACK 4
struct mp_opts {
    /* plain TCP options */
    bool has_mss, has_wscale, sack_ok, has_ts;
    uint16_t mss;
    uint8_t wscale;      /* 0..14, larger values are read as 14 (RFC 7323 2.3) */
    uint32_t ts_val, ts_ecr;
    uint8_t nsack;
    struct { uint32_t left, right; } sack[MP_MAX_SACK];
    /* MPTCP */
    uint32_t mp;         /* MP_OPT_HAS bits of the subtypes that are present and well formed */
    struct mp_opt_capable capable;
    struct mp_opt_join join;
    struct mp_opt_dss dss;
    struct mp_opt_add_addr add_addr;
    struct mp_opt_remove_addr remove_addr;
    struct mp_opt_prio prio;
    uint64_t fail_dsn;   /* MP_FAIL */
    uint64_t fastclose_key;
    struct mp_opt_tcprst tcprst;
    uint8_t bad;         /* options passed over: malformed, unknown MPTCP subtype, repeated */
};

/* Parses the option bytes of a TCP header. flags are the TCP flags (the form of MP_JOIN and of MP_CAPABLE
 * depends on SYN). Unknown options are passed over; a malformed MPTCP option is passed over and counted in
 * `bad`. Returns 0, or -EBADMSG when the list itself is broken (a length of 0 or 1, or past the end):
 * *o then untouched. */
int mp_opts_parse(struct mp_opts *o, const uint8_t *p, size_t n, uint8_t flags);
/* Bytes the set takes in a header, padding included (a multiple of 4); may exceed 40: the caller leaves out. */
size_t mp_opts_len(const struct mp_opts *o);
/* Writes exactly mp_opts_len() bytes, which must be <= 40. */
void mp_opts_emit(uint8_t *p, const struct mp_opts *o);

#endif
