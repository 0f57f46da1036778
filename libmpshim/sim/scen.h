/* sim/scen.h: a scenario: two hosts, the paths between them, what happens on these, who sends what, and what must
 * hold at the end. A table of named ones (table.c) and random ones from a seed (random.c) run through one function.
 *
 *   client host                                                        server host
 *   iface ── up:   [link] ── box ── box ── ... ──┬── [bottleneck up] ──► iface
 *   iface ◄── down: ... ── box ── [link] ◄───────┴── (bottleneck down) ── iface
 *
 * Path i joins client interface path[i].client_iface and server interface path[i].server_iface; interfaces
 * may be shared by paths. Times are relative to the start of the run. */
#ifndef SIM_SCEN_H
#define SIM_SCEN_H

#include "core/event.h"
#include "sim/app.h"
#include "sim/box.h"

/* When a path has forgotten a connection for good, who has data in flight notices by RFC 6298's time-outs alone: the first,
 * 15 more that are doubled up to a minute each (RFC 1122 4.2.3.5, setting data_tries; Linux: tcp_retries2), and the one that
 * finds these used up. A minute and a half for what follows: keepalives, a reset, TIME_WAIT. */
#define SIM_GIVE_UP MP_SEC(17 * 60 + 90)

enum { SIM_SCEN_PATHS = 4, SIM_SCEN_BOXES = 3, SIM_SCEN_CHANGES = 24, SIM_SCEN_SETTINGS = 8 };

struct sim_path_cfg {
    struct sim_link_cfg up, down;  /* away from the client, towards it */
    struct sim_box_cfg box[SIM_SCEN_BOXES];
    int nbox;
    int client_iface, server_iface;
};

struct sim_iface_cfg {
    uint8_t families;   /* 1: IPv4, 2: IPv6, 3: both; 0: IPv4 */
    uint32_t mtu;       /* 0: 1500 */
    bool backup, starts_down;
    bool quiet;         /* not announced to the peer by ADD_ADDR */
};

enum sim_change_what {
    SIM_CH_BLACKHOLE,   /* value 1: both directions of the path drop all silently; 0: again as before */
    SIM_CH_BLACKHOLE_UP, SIM_CH_BLACKHOLE_DOWN, /* one direction only */
    SIM_CH_CLIENT_LINK, /* value 0: the client's interface of this path goes down, told by the kernel; 1: up */
    SIM_CH_SERVER_LINK,
    SIM_CH_RATE,        /* bits per second, both directions */
    SIM_CH_DELAY,       /* ns, both */
    SIM_CH_LOSS,        /* ppm, both */
    SIM_CH_MTU          /* bytes of an IP packet, larger ones vanish; 0: any; both (random scenarios have none) */
};

struct sim_change {
    mp_time at;
    int path;
    enum sim_change_what what;
    uint64_t value;
};

struct sim_conn_cfg {
    struct sim_app_cfg client, server;
    mp_time start;
    int path;           /* the first subflow's */
    bool v6;            /* the first subflow's family */
};

struct sim_scen {
    const char *name;
    struct sim_path_cfg path[SIM_SCEN_PATHS];
    int npaths;
    struct sim_iface_cfg client_iface[SIM_SCEN_PATHS], server_iface[SIM_SCEN_PATHS];
    bool has_bottleneck;
    struct sim_link_cfg bottleneck; /* shared by all paths, both directions */
    struct sim_conn_cfg conn;       /* the pattern of all connections */
    int nconn;                      /* 0: 1 */
    mp_dur conn_gap;                /* between the starts of two connections */
    const char *set_client[SIM_SCEN_SETTINGS], *set_server[SIM_SCEN_SETTINGS]; /* "name=value" */
    uint32_t slice_max;             /* of both hosts, as struct sim_host */
    uint64_t local_queue_bytes;
    mp_dur batch;
    struct sim_change change[SIM_SCEN_CHANGES];
    int nchanges;
    mp_time save_load_at;           /* the client's connections are saved and loaded into a new stack then; 0: never */
    bool only_touched;              /* ... or are only looked at once more, for a run to compare with */
    bool save_load_server;          /* the server's instead (those in the middle of their handshake are lost to it) */

    /* What must hold. */
    mp_dur within;          /* all connections are finished by then */
    mp_dur not_before;      /* and not before (the simulator itself lies otherwise) */
    mp_time calm_from;      /* from here on the network works, and the applications have no long pauses: ... */
    mp_dur calm_stall_max;  /* longest time without any progress of any application then; 0: not asserted */
    mp_dur stall_max;       /* longest time without a byte read, of any reader; 0: not asserted */
    int subflows;           /* the first connection's client once had at least so many; 0: not asserted */
    int why;                /* enum mp_plain_why of the clients at the end, plus 1; 0: not asserted */
    uint8_t path_used;      /* bit i: path i carried at least 64 KB up or down */
    mp_time back_at;        /* path back_path carries at least 30 KB down or up in the back_within after this time (multiples of 50 ms) */
    mp_dur back_within;
    int back_path;
    bool options_may_die;   /* on every path: no way may be left to go on; see sim_scen_run_random */
    bool may_change;        /* payload of plain TCP may differ (a middlebox changes it) */
    bool must_change;       /* ... and it does */
    uint32_t may_remove;    /* so many bytes may be taken out of a plain TCP stream, at once (SIM_BOX_ALG_SHRINK) */
    uint32_t may_insert;    /* so many bytes of SIM_BOX_MARK may be put into a plain TCP stream once (SIM_BOX_ALG) */
};

struct sim_result {
    bool ok;
    bool excused;            /* only because connections might fail; failure and failed_at say what happened first */
    char failure[320];
    mp_dur failed_at;
    mp_dur took;             /* until the last connection was done */
    mp_dur stall;            /* longest of any reader */
    mp_dur stall_at;
    mp_dur calm_stall;      /* longest without progress after calm_from, in steps of 50 ms */
    uint64_t hash, events, packets;
    int subflows;
    int why;                 /* of the first connection's client */
    int why_server;          /* ... of its server */
    uint64_t link_bytes[SIM_SCEN_PATHS][2]; /* delivered up, down */
    uint64_t after_bytes[SIM_SCEN_PATHS][2]; /* of these, after the first box first touched a packet (seen each 50 ms) */
    uint64_t touched;        /* packets that the first path's first box changed, dropped, held, ... */
    uint64_t changed, inserted; /* bytes that came otherwise than sent, bytes that nobody sent */
    uint64_t counter[2][MP_E_COUNT]; /* of the client's stack and the server's */
    uint64_t reinjected;
    int saved;               /* connections that were saved and loaded */
    uint32_t mtu[2];         /* the largest packet that a subflow of either stack sends, when last looked at (each 50 ms) */
    uint64_t memory_peak[2]; /* of the client's stack and the server's */
    double goodput_bps;      /* bytes of both directions of all connections over took */
};

/* Runs print the first connection's subflows on stdout this often; 0: not. For people looking for a stall. */
extern mp_dur sim_watch_every;

/* Runs one scenario. trace, pcap: may be NULL. r->ok tells; the function returns it. */
bool sim_scen_run(const struct sim_scen *sc, uint64_t seed, FILE *trace, const char *pcap, struct sim_result *r);

extern const struct sim_scen sim_table[];
extern const int sim_table_n;
const struct sim_scen *sim_table_find(const char *name);

/* A random scenario: the seed decides everything. */
struct sim_scen sim_scen_random(uint64_t seed);
/* Runs it. If it fails where options may die on every path, and the server has answered a join, so that RFC 8684 3.7 may forbid
 * both ends to fall back, it runs once more, and *sc lets connections fail then: never with a wrong byte, nor for ever. */
bool sim_scen_run_random(struct sim_scen *sc, uint64_t seed, FILE *trace, const char *pcap, struct sim_result *r);
void sim_scen_print(const struct sim_scen *sc, FILE *f); /* for people */

#endif
