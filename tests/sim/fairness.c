/* RFC 6356: through one shared bottleneck, an MPTCP connection with two coupled subflows takes no more than one TCP flow
 * would. Goal: 0.7 to 1.3 times a Reno flow beside it, over 120 simulated seconds, the first 20 left out. The
 * kernel's uncoupled subflows take 1.8 times. A delay-based control has one subflow of its own kind beside it: Reno fills
 * the queue and pushes it aside.
 *
 * And with a bottleneck to each subflow, one of them shared with three TCP flows, it takes the free one and leaves the
 * other to them (resource pooling): all of the free one, and of the other less than uncoupled subflows do. */
#include <stdlib.h>

#include "core/cc/cc.h"
#include "sim/scen.h"

#define WARMUP_S 20
#ifdef __SANITIZE_ADDRESS__
enum { SEEDS = 1, RUN_S = 40, JUDGED = false }; /* the same code on one network for a while; what is fair, the plain build says */
#else
enum { SEEDS = 3, RUN_S = 140, JUDGED = true };
#endif

static const struct sim_link_cfg access_link = {.rate_bps = 1000000000, .delay = MP_MS(5)};

struct fair_net {
    char cc[32], single[32]; /* settings refer to them */
    struct sim sim;
    struct sim_host *mp[2], *tcp[2]; /* client, server */
    struct sim_app app_mp[2], app_tcp[2];
};

/* Sorts packets that left the bottleneck by address. */
struct sorter {
    struct sim_node node;
    int n;
    struct mp_addr ip[8];
    struct sim_node *to[8];
};

static void sorter_forward(struct sim_node *n, struct sim_pkt *p)
{
    struct sorter *s = (struct sorter *)n;
    for (int i = 0; i < s->n; i++)
        if (mp_addr_eq(&s->ip[i], &p->h.dst.ip)) {
            sim_send(s->to[i], p);
            return;
        }
    sim_pkt_free(n->sim, p);
}
static mp_time sorter_next(const struct sim_node *n) { return (void)n, MP_NEVER; }
static void sorter_run(struct sim_node *n) { (void)n; }
static void sorter_free(struct sim_node *n) { free(n); }
static const struct sim_node_ops sorter_ops = {sorter_forward, sorter_next, sorter_run, sorter_free};

static struct sorter *sorter_new(struct sim *s, const char *name)
{
    struct sorter *t = calloc(1, sizeof *t);
    if (!t) abort();
    sim_node_add(s, &t->node, &sorter_ops, name);
    return t;
}

/* An interface with that address, its way out through the bottleneck. Returns the way out. */
static struct sim_node *host_addr(struct sim_host *h, struct sorter *back, const char *ip, struct sim_node *bottleneck)
{
    struct sim *s = h->node.sim;
    int i = sim_host_iface(h, "eth", 1500);
    sim_host_ip(h, i, ip);
    char name[24];
    snprintf(name, sizeof name, "out-%s", ip);
    struct sim_link *out = sim_link_new(s, name, &access_link, bottleneck);
    sim_host_route(h, i, NULL, &out->node);
    snprintf(name, sizeof name, "in-%s", ip);
    struct sim_link *in = sim_link_new(s, name, &access_link, &h->node);
    back->ip[back->n] = sim_addr(ip);
    back->to[back->n++] = &in->node;
    return &out->node;
}

static void flow(struct sim_app *client, struct sim_app *server, const char *from, const char *to, uint16_t port)
{
    struct sim_app_cfg endless = {.bytes = UINT64_MAX / 2}, none = {0};
    struct sim_conn *s = sim_app_server(server, &none, port, port);
    struct sim_conn *k = sim_app_client(client, &endless, port, SIM_START + MP_MS(port % 7), 0, from, to, port);
    s->expect_rx = endless.bytes;
    k->expect_rx = 0;
}

struct setup {
    uint64_t seed, rate_bps;
    uint32_t queue;
    const char *cc, *single; /* of the connection; of the single flows beside it */
    int singles;
    bool pool;               /* the second subflow has a bottleneck of its own */
};

struct outcome {
    double mp, tcp, first, second; /* Mbit/s: the connection, a single flow; the connection's subflows */
    int subflows;
    bool failed;
};

static uint64_t single_bytes(const struct fair_net *n, int singles)
{
    uint64_t sum = 0;
    for (int i = 0; i < singles; i++) sum += n->app_tcp[1].conn[i].rx;
    return sum;
}

static void path_bytes(const struct fair_net *n, uint64_t v[2])
{
    struct mpc_subflow_info f[8];
    struct mpc *c = n->app_mp[0].conn[0].c;
    int k = c ? mpc_get_subflows(c, f, 8) : 0;
    v[0] = v[1] = 0;
    for (int i = 0; i < k; i++) v[!f[i].initial] += f[i].bytes_acked;
}

static void build(struct fair_net *n, const struct setup *u)
{
    struct sim *s = &n->sim;
    struct sim_link_cfg narrow = {.rate_bps = u->rate_bps, .delay = MP_MS(10), .jitter = MP_US(500), .queue_bytes = u->queue};
    struct sorter *to_servers = sorter_new(s, "to-servers"), *to_clients = sorter_new(s, "to-clients");
    struct sim_link *up = sim_link_new(s, "narrow-up", &narrow, &to_servers->node), *up2 = up;
    struct sim_link *down = sim_link_new(s, "narrow-down", &narrow, &to_clients->node);
    if (u->pool) up2 = sim_link_new(s, "free-up", &narrow, &to_servers->node); /* the way back has only ACKs: one is enough */
    for (int i = 0; i < 2; i++) {
        n->mp[i] = sim_host_new(s, i ? "mp-server" : "mp-client");
        n->tcp[i] = sim_host_new(s, i ? "tcp-server" : "tcp-client");
        sim_app_init(&n->app_mp[i], n->mp[i]);
        sim_app_init(&n->app_tcp[i], n->tcp[i]);
    }
    host_addr(n->mp[0], to_clients, "10.1.0.2", &up->node);
    host_addr(n->mp[0], to_clients, "10.2.0.2", &up2->node);
    host_addr(n->mp[1], to_servers, "10.1.0.1", &down->node);
    host_addr(n->tcp[0], to_clients, "10.3.0.2", &up->node);
    host_addr(n->tcp[1], to_servers, "10.3.0.1", &down->node);
    snprintf(n->cc, sizeof n->cc, "cc=%s", u->cc);
    snprintf(n->single, sizeof n->single, "cc=%s", u->single);
    const char *multi[] = {n->cc, NULL}, *one[] = {n->single, "max-subflows=1", NULL};
    for (int i = 0; i < 2; i++) {
        sim_host_start(n->mp[i], multi);
        sim_host_start(n->tcp[i], one);
    }
    flow(&n->app_mp[0], &n->app_mp[1], "10.1.0.2", "10.1.0.1", 5001);
    for (int i = 0; i < u->singles; i++) flow(&n->app_tcp[0], &n->app_tcp[1], "10.3.0.2", "10.3.0.1", (uint16_t)(5004 + i));
}

static struct outcome run(const struct setup *u)
{
    struct fair_net n;
    memset(&n, 0, sizeof n);
    sim_init(&n.sim, u->seed);
    build(&n, u);
    uint64_t path0[2], path[2];
    sim_run_until(&n.sim, SIM_START + MP_SEC(WARMUP_S));
    uint64_t mp0 = n.app_mp[1].conn[0].rx, tcp0 = single_bytes(&n, u->singles);
    path_bytes(&n, path0);
    sim_run_until(&n.sim, SIM_START + MP_SEC(RUN_S));
    path_bytes(&n, path);
    const double mbit = 8e-6 / (RUN_S - WARMUP_S);
    struct outcome o = {.mp = (double)(n.app_mp[1].conn[0].rx - mp0) * mbit,
                        .tcp = (double)(single_bytes(&n, u->singles) - tcp0) * mbit / u->singles,
                        .first = (double)(path[0] - path0[0]) * mbit, .second = (double)(path[1] - path0[1]) * mbit,
                        .subflows = n.app_mp[0].conn[0].subflows_max, .failed = sim_failed(&n.sim)};
    if (o.failed) printf("seed %llu: %s\n", (unsigned long long)u->seed, n.sim.failure);
    sim_fini(&n.sim);
    for (int i = 0; i < 2; i++) {
        sim_app_fini(&n.app_mp[i]);
        sim_app_fini(&n.app_tcp[i]);
    }
    return o;
}

static double ratio(const struct setup *u)
{
    struct outcome o = run(u);
    printf("seed %llu, %2.0f Mbit/s, queue %6u: %d subflows of %-6s %6.2f Mbit/s, one %s flow %6.2f: ratio %.2f\n",
           (unsigned long long)u->seed, (double)u->rate_bps / 1e6, u->queue, o.subflows, u->cc, o.mp, u->single, o.tcp,
           o.mp / o.tcp);
    if (o.failed || o.subflows != 2) return -1;
    return o.tcp > 0 ? o.mp / o.tcp : 1e9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool is_fair(const struct mp_cc *cc)
{
    static const struct {
        uint64_t rate_bps;
        uint32_t queue;
    } nets[] = {{10000000, 40000}, {10000000, 80000}, {20000000, 80000}};
    int failed = 0;
    unsigned first = cc == mp_cc_all[0] ? 0 : 1, last = JUDGED ? sizeof nets / sizeof *nets - 1 : first;
    for (unsigned i = first; i <= last; i++) { /* the default's: all of them */
        double r[SEEDS];
        bool broken = false;
        for (int k = 0; k < SEEDS; k++) {
            struct setup u = {.seed = (uint64_t)k + 1, .rate_bps = nets[i].rate_bps, .queue = nets[i].queue, .cc = cc->name,
                              .single = cc->delay_based ? cc->name : "reno", .singles = 1};
            r[k] = ratio(&u);
            broken |= r[k] < 0;
        }
        qsort(r, SEEDS, sizeof *r, compare);
        double median = r[SEEDS / 2];
        bool fair = median >= 0.7 && median <= 1.3, ok = !broken && (fair || !JUDGED);
        printf("median %.2f: %s\n", median, fair ? "fair" : "NOT between 0.7 and 1.3");
        failed += !ok;
    }
    return !failed;
}

/* What uncoupled subflows would take of the shared bottleneck: measured by Reno's. */
static bool pools(const struct mp_cc *cc, double uncoupled)
{
    struct setup u = {.seed = 1, .rate_bps = 10000000, .queue = 80000, .cc = cc->name, .single = cc->delay_based ? cc->name : "reno",
                      .singles = 3, .pool = true};
    struct outcome o = run(&u);
    bool pooled = o.second >= 8.5 && o.first <= 0.8 * uncoupled, ok = !o.failed && o.subflows == 2 && (pooled || !JUDGED);
    printf("%-6s beside 3 %s flows %5.2f Mbit/s (uncoupled subflows: %.2f), and %5.2f of 10 that are free: %s\n", cc->name, u.single,
           o.first, uncoupled, o.second, pooled ? "pools" : "does NOT pool");
    return ok;
}

/* sim_fairness [CC]: all that are coupled, or that one. */
int main(int argc, char **argv)
{
    int failed = 0, checked = 0;
    struct setup uncoupled = {.seed = 1, .rate_bps = 10000000, .queue = 40000, .cc = "reno", .single = "reno", .singles = 1};
    ratio(&uncoupled); /* for comparison */
    uncoupled = (struct setup){.seed = 1, .rate_bps = 10000000, .queue = 80000, .cc = "reno", .single = "reno", .singles = 3, .pool = true};
    double taken = run(&uncoupled).first;
    for (int i = 0; mp_cc_all[i]; i++) {
        const struct mp_cc *cc = mp_cc_all[i];
        if (!cc->coupled || (argc > 1 && strcmp(argv[1], cc->name) != 0)) continue;
        failed += !is_fair(cc) + !pools(cc, taken);
        checked += 2;
    }
    printf("sim_fairness: %d of %d failed\n", failed, checked);
    return failed != 0;
}
