/* The box matrix: each kind of middlebox (sim/box.h) × where it sits × the direction that it works on × who sends ×
 * from the start or from mid-connection × IP version. In each cell both streams arrive whole, within a bound; what
 * became of multipath is one of the outcomes that the box allows; a fallback says why.
 *
 *   sim_matrix                 all cells; told are failures and a summary
 *   sim_matrix --write FILE    and the table as Markdown (make matrix: docs/box-matrix.md)
 *   sim_matrix --box NAME      that box's cells, each told
 *   sim_matrix --cell ID       one cell, as failures name it: BOX/PLACE/DIRECTION/SENDER/TIME/IP; --trace, --pcap PREFIX
 *   --seed N                   with any of these: other losses than make matrix's, which are those of 0 */
#include <stdlib.h>

#include "report.h"

enum place { FIRST, ONLY, PLACES };
enum sender { CLIENT, SERVER, BOTH_SEND, SENDERS };
enum when { START, MID, WHENS };

/* What became of the connection. */
enum outcome {
    BOTH,    /* MPTCP, and both paths carried data after the box had acted */
    ONE,     /* MPTCP to the end, over one path (all there is, where the box is on the only path) */
    PLAIN,   /* went on as plain TCP */
    FAILED,
    OUTCOMES
};
static const char *const outcome_name[] = {"both paths", "one path", "plain TCP", "FAILED"};
enum { B = 1 << BOTH, O = 1 << ONE, P = 1 << PLAIN };

enum { UP = 1, DOWN = 2, TWO_WAY = 4, ANY_WAY = 7 };
static const char *const place_name[] = {"first", "only"}, *const sender_name[] = {"client", "server", "both"},
                  *const when_name[] = {"start", "mid"}, *const way_name[] = {"up", "down", "two-way"}, *const ip_name[] = {"v4", "v6"};

#define KB(n) ((uint64_t)(n) * 1000)
#define MID_AT MP_MS(200)   /* half of the data is still to come */
#define EARLY MP_MS(45)     /* "from the start" of what happens to a connection that exists */
#define WITHIN MP_MS(2500)  /* 1 MB at 2 × 10 Mbit/s: 0.45 s; at 10 Mbit/s: 0.85 s */

struct box_row {
    const char *name;
    const char *what;          /* for the table */
    struct sim_box_cfg cfg;
    unsigned ways;             /* directions that make a difference */
    unsigned may[PLACES][WHENS]; /* outcomes */
    mp_dur within;             /* 0: WITHIN */
    uint32_t loss_ppm;         /* of the box's path: some boxes matter only then */
    bool event;                /* happens once to connections that exist */
    bool homes;                /* the server has two addresses: the second path needs its announcement */
    bool may_change;           /* it changes payload: plain TCP delivers that */
    uint32_t may_insert, may_remove;
    bool second;               /* it sits on the path of the join, not of the first subflow */
};

#define ALL(a) .may = {{a, a}, {a, a}}
#define KEPT .may = {{B, B}, {O, O}}
/* What must not happen: a fallback while another path works, one for what concerns only SYNs when they are over. */
#define FALLS .may = {{B | O | P, B | O}, {O | P, O | P}}
#define AT_SYN .may = {{B | O | P, B}, {O | P, O}}

static const struct box_row rows[] = {
    {"none", "no box", {.what = SIM_BOX_DELAY, .hold = 1}, TWO_WAY, KEPT},
    {"strip-syn", "MPTCP options in SYNs made NOPs", {.what = SIM_BOX_STRIP_SYN}, UP, AT_SYN},
    {"strip-syn-cut", "… taken out", {.what = SIM_BOX_STRIP_SYN, .cut_out = true}, UP, AT_SYN},
    {"strip-synack", "MPTCP options in SYN/ACKs made NOPs", {.what = SIM_BOX_STRIP_SYNACK}, DOWN, AT_SYN},
    {"strip-synack-cut", "… taken out", {.what = SIM_BOX_STRIP_SYNACK, .cut_out = true}, DOWN, AT_SYN},
    {"strip-nonsyn", "… in all but SYNs made NOPs", {.what = SIM_BOX_STRIP_NONSYN}, ANY_WAY, FALLS},
    {"strip-nonsyn-cut", "… taken out", {.what = SIM_BOX_STRIP_NONSYN, .cut_out = true}, ANY_WAY, FALLS},
    {"strip-all", "… in all packets made NOPs", {.what = SIM_BOX_STRIP_ALL}, ANY_WAY, FALLS},
    {"strip-add-addr", "ADD_ADDR made NOPs", {.what = SIM_BOX_STRIP_ADD_ADDR}, ANY_WAY, ALL(B | O), .homes = true},
    {"strip-add-addr-cut", "… taken out", {.what = SIM_BOX_STRIP_ADD_ADDR, .cut_out = true}, ANY_WAY, ALL(B | O), .homes = true},
    {"drop-syn", "SYNs with MPTCP options dropped", {.what = SIM_BOX_DROP_SYN}, ANY_WAY, AT_SYN, .within = MP_SEC(6)},
    {"strip-join", "MP_JOIN in SYNs and SYN/ACKs made NOPs", {.what = SIM_BOX_STRIP_JOIN}, ANY_WAY, ALL(B | O), .second = true},
    {"drop-join", "SYNs with MP_JOIN dropped", {.what = SIM_BOX_DROP_JOIN}, ANY_WAY, ALL(B | O), .second = true},
    {"answer", "a proxy answers for both sides, no MPTCP option passes", {.what = SIM_BOX_ANSWER}, TWO_WAY, FALLS},
    {"nat", "address and port translated", {.what = SIM_BOX_NAT}, TWO_WAY, KEPT},
    {"nat-rebind", "NAT that changes its ports", {.what = SIM_BOX_NAT_REBIND}, TWO_WAY, ALL(B | O), .event = true, .within = MP_SEC(6)},
    {"nat-expire", "NAT that forgets its flows", {.what = SIM_BOX_NAT_EXPIRE}, TWO_WAY, ALL(B | O), .event = true, .within = MP_SEC(6)},
    {"seq", "sequence numbers moved, SACK blocks too", {.what = SIM_BOX_SEQ}, ANY_WAY, ALL(B | O), .loss_ppm = 5000, .within = MP_SEC(6)},
    {"seq-no-sack", "sequence numbers moved, SACK blocks not", {.what = SIM_BOX_SEQ_NO_SACK}, ANY_WAY, ALL(B | O), .loss_ppm = 5000, .within = MP_SEC(6)},
    {"split", "segments split, options on both parts", {.what = SIM_BOX_SPLIT}, ANY_WAY, KEPT},
    {"split-first", "segments split, options on the first part", {.what = SIM_BOX_SPLIT_FIRST}, ANY_WAY, KEPT},
    {"merge", "segments with equal options joined", {.what = SIM_BOX_MERGE, .hold = MP_MS(2)}, ANY_WAY, KEPT},
    {"merge-any", "segments joined, the first one's options kept", {.what = SIM_BOX_MERGE_ANY, .size = 2920, .hold = MP_MS(2)}, ANY_WAY, FALLS, .within = MP_SEC(6)},
    {"merge-any-once", "… only once", {.what = SIM_BOX_MERGE_ANY, .size = 2920, .hold = MP_MS(2), .most = 1}, ANY_WAY, FALLS, .within = MP_SEC(6)},
    {"payload", "a byte of each data packet changed", {.what = SIM_BOX_PAYLOAD}, ANY_WAY, FALLS, .may_change = true},
    {"payload-100", "… of each hundredth", {.what = SIM_BOX_PAYLOAD, .nth = 100, .first = 20}, ANY_WAY, FALLS, .may_change = true},
    {"alg", "5 bytes inserted, numbers mended", {.what = SIM_BOX_ALG, .size = 5, .first = 5}, ANY_WAY, FALLS, .may_insert = 5},
    {"alg-shrink", "5 bytes taken out, numbers mended", {.what = SIM_BOX_ALG_SHRINK, .size = 5, .first = 5}, ANY_WAY, FALLS, .may_remove = 5},
    {"proxy", "data acknowledged ahead, without MPTCP options", {.what = SIM_BOX_PROXY}, ANY_WAY, FALLS},
    {"holes", "data after a hole dropped", {.what = SIM_BOX_HOLES}, ANY_WAY, ALL(B | O), .within = MP_SEC(6), .loss_ppm = 5000},
    {"ack-unseen", "ACKs of unseen data dropped", {.what = SIM_BOX_ACK_UNSEEN}, ANY_WAY, KEPT, .loss_ppm = 5000},
    {"clamp", "windows no larger than 16 KB", {.what = SIM_BOX_CLAMP, .size = 16000}, ANY_WAY, KEPT},
    {"mss", "the MSS option lowered to 700", {.what = SIM_BOX_MSS, .size = 700}, ANY_WAY, KEPT},
    {"strip-ts", "timestamps made NOPs", {.what = SIM_BOX_STRIP_TS}, ANY_WAY, KEPT},
    {"strip-ts-cut", "… taken out", {.what = SIM_BOX_STRIP_TS, .cut_out = true}, ANY_WAY, KEPT},
    {"strip-sack-ok", "SACK-permitted made NOPs", {.what = SIM_BOX_STRIP_SACK_OK}, ANY_WAY, KEPT, .loss_ppm = 5000, .within = MP_SEC(6)},
    {"strip-sack", "SACK blocks made NOPs", {.what = SIM_BOX_STRIP_SACK}, ANY_WAY, ALL(B | O), .loss_ppm = 5000, .within = MP_SEC(6)},
    {"strip-wscale", "the window scale made NOPs", {.what = SIM_BOX_STRIP_WSCALE}, ANY_WAY, KEPT, .within = MP_SEC(10)},
    {"opt-order", "options in reverse order", {.what = SIM_BOX_OPT_ORDER}, ANY_WAY, KEPT},
    {"opt-dup", "an MPTCP option twice", {.what = SIM_BOX_OPT_DUP}, ANY_WAY, ALL(B | O)},
    {"dup", "each third packet twice", {.what = SIM_BOX_DUP, .nth = 3, .hold = MP_MS(3)}, ANY_WAY, KEPT},
    {"delay", "200 ms more", {.what = SIM_BOX_DELAY, .hold = MP_MS(200)}, ANY_WAY, ALL(B | O), .within = MP_SEC(10)},
    {"reorder", "each seventh packet 15 ms late", {.what = SIM_BOX_REORDER, .nth = 7, .hold = MP_MS(15)}, ANY_WAY, KEPT, .within = MP_SEC(4)},
    {"corrupt", "each fiftieth packet's checksum wrong", {.what = SIM_BOX_CORRUPT, .nth = 50}, ANY_WAY, KEPT, .within = MP_SEC(4)},
    {"big", "packets of more than 1300 bytes lost, no ICMP", {.what = SIM_BOX_BIG, .size = 1300}, ANY_WAY, ALL(B | O), .within = MP_SEC(10)},
    {"big-icmp", "… and ICMP tells", {.what = SIM_BOX_BIG_ICMP, .size = 1300}, ANY_WAY, KEPT},
    {"icmp-lies", "an ICMP error for each twentieth data packet, which goes on", {.what = SIM_BOX_ICMP_LIES, .nth = 20}, ANY_WAY, KEPT},
};
enum { ROWS = sizeof rows / sizeof *rows };

struct cell {
    const struct box_row *row;
    enum place place;
    int way; /* 0 up, 1 down, 2 both */
    enum sender sender;
    enum when when;
    bool v6;
};

struct verdict {
    enum outcome outcome;
    struct sim_result r;
    char why[400]; /* what failed */
};

/* What the table says of a row. */
struct tally {
    int n[PLACES][OUTCOMES];
    mp_dur worst[PLACES];
    int why[32];              /* cells, by enum mp_plain_why */
    int counted[MP_E_COUNT];  /* cells */
    int changed;              /* cells in which plain TCP delivered what the box made of the payload */
};

static struct sim_link_cfg link_of(const struct cell *c, int path)
{
    return (struct sim_link_cfg){.rate_bps = 10000000, .delay = MP_MS(10), .queue_bytes = 60000, .loss_ppm = path ? 0 : c->row->loss_ppm};
}

static struct sim_conn_cfg conn_of(const struct cell *c)
{
    switch (c->sender) {
    case CLIENT: return (struct sim_conn_cfg){{.bytes = KB(1000)}, {.bytes = 100, .after_eof = true}, .v6 = c->v6};
    case SERVER: return (struct sim_conn_cfg){{.bytes = 100, .late_shut = true}, {.bytes = KB(1000)}, .v6 = c->v6};
    default: return (struct sim_conn_cfg){{.bytes = KB(700)}, {.bytes = KB(700)}, .v6 = c->v6};
    }
}

/* The client has two interfaces; the server one, unless it has to announce the other. */
static struct sim_scen scen_of(const struct cell *c)
{
    const struct box_row *row = c->row;
    uint8_t families = c->v6 ? 2 : 1;
    struct sim_scen sc = {.name = row->name, .npaths = c->place == ONLY ? 1 : 2, .conn = conn_of(c)};
    for (int i = 0; i < sc.npaths; i++) {
        sc.path[i].up = sc.path[i].down = link_of(c, i);
        sc.path[i].client_iface = i;
        sc.path[i].server_iface = row->homes ? i : 0;
        sc.client_iface[i].families = sc.server_iface[i].families = families;
    }
    struct sim_path_cfg *boxed = &sc.path[row->second && c->place == FIRST];
    struct sim_box_cfg *b = &boxed->box[0];
    *b = row->cfg;
    b->dirs = c->way == 2 ? 0 : (uint8_t)(1 << c->way);
    b->from = c->when == MID ? MID_AT : row->event ? EARLY : 0;
    b->nat_ip = c->v6 ? sim_addr("fd00:99::9") : sim_addr("192.0.2.9");
    boxed->nbox = 1;
    sc.within = row->within ? row->within : WITHIN;
    sc.may_change = row->may_change;
    sc.may_insert = row->may_insert;
    sc.may_remove = row->may_remove;
    return sc;
}

static uint64_t more_seed;

static uint64_t seed_of(const struct cell *c)
{
    uint64_t h = c->place + 2u * ((unsigned)c->way + 3u * (c->sender + 3u * (c->when + 2u * c->v6)));
    for (const char *p = c->row->name; *p; p++) h = sim_mix(h + (uint8_t)*p);
    return (more_seed ? sim_mix(h + more_seed) : h) >> 1;
}

static void cell_id(const struct cell *c, char buf[96])
{
    snprintf(buf, 96, "%s/%s/%s/%s/%s/%s", c->row->name, place_name[c->place], way_name[c->way], sender_name[c->sender],
             when_name[c->when], ip_name[c->v6]);
}

static bool carried(const struct sim_result *r, int path) { return mp_max(r->after_bytes[path][0], r->after_bytes[path][1]) >= 40000; }

static enum outcome outcome_of(const struct cell *c, const struct sim_result *r)
{
    if (r->why > MP_WHY_PENDING || r->why_server > MP_WHY_PENDING) return PLAIN;
    return c->place == FIRST && carried(r, 0) && carried(r, 1) ? BOTH : ONE;
}

static void judge(const struct cell *c, struct verdict *v)
{
    const struct sim_result *r = &v->r;
    unsigned may = c->row->may[c->place][c->when];
    if (!r->ok) {
        v->outcome = FAILED;
        snprintf(v->why, sizeof v->why, "at %.3f s: %s", (double)r->failed_at / 1e9, r->failure);
        return;
    }
    v->outcome = outcome_of(c, r);
    if (!(may >> v->outcome & 1)) {
        snprintf(v->why, sizeof v->why, "became \"%s\" (%s; %s)", outcome_name[v->outcome], mp_plain_why_text((enum mp_plain_why)r->why),
                 mp_plain_why_text((enum mp_plain_why)r->why_server));
        v->outcome = FAILED;
    } else if (v->outcome != PLAIN && (r->changed || r->inserted)) {
        snprintf(v->why, sizeof v->why, "%llu changed and %llu inserted bytes delivered by MPTCP", (unsigned long long)r->changed,
                 (unsigned long long)r->inserted);
        v->outcome = FAILED;
    }
}

static void run_cell(const struct cell *c, struct verdict *v, FILE *trace, const char *pcap)
{
    struct sim_scen sc = scen_of(c);
    v->why[0] = 0;
    sim_scen_run(&sc, seed_of(c), trace, pcap, &v->r);
    judge(c, v);
}

static void tell_cell(FILE *f, const struct cell *c, const struct verdict *v)
{
    char id[96];
    cell_id(c, id);
    fprintf(f, "%-40s %-10s %6.3f s", id, outcome_name[v->outcome], (double)v->r.took / 1e9);
    for (int i = 0; i < (c->place == ONLY ? 1 : 2); i++)
        fprintf(f, "  %llu/%llu KB", (unsigned long long)v->r.after_bytes[i][0] / 1000, (unsigned long long)v->r.after_bytes[i][1] / 1000);
    if (v->outcome == PLAIN)
        fprintf(f, "  %s; %s", mp_plain_why_text((enum mp_plain_why)v->r.why), mp_plain_why_text((enum mp_plain_why)v->r.why_server));
    fprintf(f, "%s%s\n", v->why[0] ? "  " : "", v->why);
    if (v->outcome == FAILED) fprintf(f, "  again, traced: sim_matrix --seed %llu --cell %s --trace\n", (unsigned long long)more_seed, id);
}

static void add(struct tally *t, const struct cell *c, const struct verdict *v)
{
    t->n[c->place][v->outcome]++;
    if (v->outcome < FAILED) t->worst[c->place] = mp_max(t->worst[c->place], v->r.took);
    t->changed += v->outcome == PLAIN && (v->r.changed || v->r.inserted);
    if (v->outcome == PLAIN) t->why[v->r.why > MP_WHY_PENDING ? v->r.why : v->r.why_server]++;
    for (int e = 0; e < MP_E_COUNT; e++) t->counted[e] += v->r.counter[0][e] || v->r.counter[1][e];
}

/* ---- the whole matrix ---- */

struct matrix {
    struct tally tally[ROWS];
    int cells, failed, step;
    bool tell_all;
};

static void one(struct matrix *m, const struct cell *c)
{
    struct verdict v;
    run_cell(c, &v, NULL, NULL);
    m->cells++;
    add(&m->tally[c->row - rows], c, &v);
    m->failed += v.outcome == FAILED;
    if (m->tell_all || v.outcome == FAILED) tell_cell(stdout, c, &v);
}

static void run_row(struct matrix *m, const struct box_row *row)
{
    int count = 0;
    for (int i = 0; i < PLACES * 3 * SENDERS * WHENS * 2; i++) {
        struct cell c = {row, i % 2, i / 2 % 3, i / 6 % 3, i / 18 % 2, i / 36 % 2};
        if (!(row->ways >> c.way & 1)) continue;
        if (count++ % m->step) continue;
        one(m, &c);
    }
}

static int sums(const struct matrix *m, enum place p, enum outcome o)
{
    int n = 0;
    for (int i = 0; i < ROWS; i++) n += m->tally[i].n[p][o];
    return n;
}

static void write_summary(FILE *f, const struct matrix *m)
{
    int n[OUTCOMES] = {0}, two = 0, changed = 0;
    for (int o = 0; o < OUTCOMES; o++) {
        for (int p = 0; p < PLACES; p++) n[o] += sums(m, p, o);
        two += sums(m, FIRST, o);
    }
    for (int i = 0; i < ROWS; i++) changed += m->tally[i].changed;
    fprintf(f, "%d cells: multipath kept in %d (both paths in use after the box acted: %d of the %d with two paths), %d fell back to plain TCP "
               "(in %d of these it delivered payload as the box had changed it), %d failed\n",
            m->cells, n[BOTH] + n[ONE], n[BOTH], two, n[PLAIN], changed, n[FAILED]);
}

/* ---- the table ---- */

static void write_reasons(FILE *f, const struct matrix *m, const struct tally *t)
{
    const char *sep = "";
    for (int i = MP_WHY_PENDING + 1; i < 32; i++) {
        if (!t->why[i]) continue;
        fprintf(f, "%s%s (%d)", sep, mp_plain_why_text((enum mp_plain_why)i), t->why[i]);
        sep = "; ";
    }
    /* Those that do not happen without a box, the commonest first. */
    bool told[MP_E_COUNT] = {false};
    for (int k = 0; k < 5; k++) {
        int best = -1;
        for (int e = 0; e < MP_E_COUNT; e++)
            if (!told[e] && t->counted[e] && !m->tally[0].counted[e] && (best < 0 || t->counted[e] > t->counted[best])) best = e;
        if (best < 0) break;
        told[best] = true;
        fprintf(f, "%s`%s`", sep, mp_events[best].name);
        sep = " ";
    }
}

static void cell_number(FILE *f, int n) { n ? fprintf(f, " %d |", n) : fprintf(f, " |"); }

static void write_row(FILE *f, const struct matrix *m, int i)
{
    const struct tally *t = &m->tally[i];
    fprintf(f, "| `%s` | %s |", rows[i].name, rows[i].what);
    for (int o = BOTH; o < OUTCOMES; o++) cell_number(f, t->n[FIRST][o]);
    fprintf(f, " %.2f |", (double)t->worst[FIRST] / 1e9);
    for (int o = ONE; o < OUTCOMES; o++) cell_number(f, t->n[ONLY][o]);
    fprintf(f, " %.2f | ", (double)t->worst[ONLY] / 1e9);
    write_reasons(f, m, t);
    if (t->changed) fprintf(f, ". Changed payload delivered by plain TCP: %d", t->changed);
    fputs(" |\n", f);
}

/* The lab's part of the file (tests/lab/boxes.py), from its mark on; NULL: there is none. */
static char *lab_part(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = f ? calloc(1, 1 << 20) : NULL, *at = NULL;
    if (text && fread(text, 1, (1 << 20) - 1, f)) at = strstr(text, "<!-- lab -->");
    if (at) memmove(text, at, strlen(at) + 1);
    else free(text), text = NULL;
    if (f) fclose(f);
    return text;
}

static bool write_table(const char *path, const struct matrix *m)
{
    char *rest = lab_part(path);
    FILE *f = fopen(path, "w");
    if (!f) {
        perror(path);
        return false;
    }
    fputs("# The box matrix\n\n"
          "Written by `make matrix` (`tests/sim/matrix.c`), from simulated connections: each middlebox × on the first of two paths or on\n"
          "the only one × the direction that it works on × who sends (client, server, both) × from the start or from mid-connection ×\n"
          "IPv4/IPv6. Both paths: 10 Mbit/s, 20 ms round trip; 1 MB is sent, or 0.7 MB each way. In each cell that did not fail both\n"
          "streams arrived whole and within a bound, and nothing was left behind. The numbers are cells; s: the slowest one's seconds.\n"
          "*Kept*: still MPTCP at the end; *both*: and both paths carried data after the box had acted; *plain*: fell back to TCP\n"
          "(RFC 8684 3.7), the last column says why, and names events (`core/events.def`) that do not happen without a box.\n"
          "A box that changes payload changes that of plain TCP unseen, whoever speaks it: such cells are told of.\n\n", f);
    write_summary(f, m);
    fputs("\n| box | | first of two: both | kept, one path | plain | failed | s | only path: kept | plain | failed | s | reasons |\n"
          "|---|---|---|---|---|---|---|---|---|---|---|---|\n", f);
    for (int i = 0; i < ROWS; i++) write_row(f, m, i);
    if (rest) fprintf(f, "\n%s", rest);
    free(rest);
    return fclose(f) == 0;
}

/* ---- the command line ---- */

static int index_of(const char *const *names, int n, const char *word)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], word) == 0) return i;
    return -1;
}

static const struct box_row *row_of(const char *name)
{
    for (int i = 0; i < ROWS; i++)
        if (strcmp(rows[i].name, name) == 0) return &rows[i];
    return NULL;
}

static bool parse_cell(const char *text, struct cell *c)
{
    char w[6][32];
    if (sscanf(text, "%31[^/]/%31[^/]/%31[^/]/%31[^/]/%31[^/]/%31s", w[0], w[1], w[2], w[3], w[4], w[5]) != 6) return false;
    int place = index_of(place_name, PLACES, w[1]), way = index_of(way_name, 3, w[2]), sender = index_of(sender_name, SENDERS, w[3]),
        when = index_of(when_name, WHENS, w[4]), ip = index_of(ip_name, 2, w[5]);
    *c = (struct cell){row_of(w[0]), (enum place)place, way, (enum sender)sender, (enum when)when, ip == 1};
    return c->row && place >= 0 && way >= 0 && sender >= 0 && when >= 0 && ip >= 0;
}

static int run_one(const char *id, FILE *trace, const char *pcap)
{
    struct cell c;
    if (!parse_cell(id, &c)) {
        fprintf(stderr, "no such cell: %s\n", id);
        return 2;
    }
    struct verdict v;
    run_cell(&c, &v, trace, pcap);
    tell_cell(stdout, &c, &v);
    for (int e = 0; e < MP_E_COUNT; e++)
        if (v.r.counter[0][e] || v.r.counter[1][e])
            printf("  %-20s client %llu, server %llu\n", mp_events[e].name, (unsigned long long)v.r.counter[0][e],
                   (unsigned long long)v.r.counter[1][e]);
    return v.outcome == FAILED;
}

int main(int argc, char **argv)
{
    const char *write = NULL, *box = NULL, *cell = NULL, *pcap = NULL;
    bool trace = false;
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--trace") == 0) trace = true;
        else if (strcmp(argv[i], "--write") == 0) write = next, i++;
        else if (strcmp(argv[i], "--box") == 0) box = next, i++;
        else if (strcmp(argv[i], "--cell") == 0) cell = next, i++;
        else if (strcmp(argv[i], "--pcap") == 0) pcap = next, i++;
        else if (strcmp(argv[i], "--seed") == 0) more_seed = strtoull(next, NULL, 10), i++;
        else return fputs("usage: sim_matrix [--write FILE] [--box NAME] [--cell ID [--trace] [--pcap PREFIX]] [--seed N]\n", stderr), 2;
    }
    if (cell) return run_one(cell, trace ? stdout : NULL, pcap);
    if (box && !row_of(box)) return fprintf(stderr, "no such box: %s\n", box), 2;
    static struct matrix m = {.step = 1};
#ifdef __SANITIZE_ADDRESS__
    m.step = 7;
#endif
    m.tell_all = box;
    for (int i = 0; i < ROWS; i++)
        if (!box || strcmp(rows[i].name, box) == 0) run_row(&m, &rows[i]);
    if (write && !write_table(write, &m)) return 2;
    printf("sim_matrix: ");
    write_summary(stdout, &m);
    return m.failed != 0;
}
