/* RFC 6356: through one shared bottleneck, an MPTCP connection with two LIA subflows takes no more than one TCP flow
 * would. Goal: 0.7 to 1.3 times a Reno flow beside it, over 200 simulated seconds, the first 20 left out. The
 * kernel's uncoupled subflows take 1.8 times. */
#include <stdlib.h>

#include "sim/scen.h"

#define RUN_S 220
#define WARMUP_S 20

static const struct sim_link_cfg access_link = {.rate_bps = 1000000000, .delay = MP_MS(5)};

struct fair_net {
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

static void host_addr(struct sim_host *h, struct sorter *back, const char *ip, struct sim_node *bottleneck)
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
}

static void flow(struct sim_app *client, struct sim_app *server, const char *from, const char *to, uint16_t port)
{
    struct sim_app_cfg endless = {.bytes = UINT64_MAX / 2}, none = {0};
    struct sim_conn *s = sim_app_server(server, &none, port, port);
    struct sim_conn *k = sim_app_client(client, &endless, port, SIM_START + MP_MS(port % 7), 0, from, to, port);
    s->expect_rx = endless.bytes;
    k->expect_rx = 0;
}

static double ratio(uint64_t seed, const char *cc, uint64_t rate_bps, uint32_t queue)
{
    struct fair_net n;
    memset(&n, 0, sizeof n);
    sim_init(&n.sim, seed);
    struct sim_link_cfg narrow = {.rate_bps = rate_bps, .delay = MP_MS(10), .jitter = MP_US(500), .queue_bytes = queue};
    struct sorter *to_servers = sorter_new(&n.sim, "to-servers"), *to_clients = sorter_new(&n.sim, "to-clients");
    struct sim_link *up = sim_link_new(&n.sim, "narrow-up", &narrow, &to_servers->node);
    struct sim_link *down = sim_link_new(&n.sim, "narrow-down", &narrow, &to_clients->node);
    for (int i = 0; i < 2; i++) {
        n.mp[i] = sim_host_new(&n.sim, i ? "mp-server" : "mp-client");
        n.tcp[i] = sim_host_new(&n.sim, i ? "tcp-server" : "tcp-client");
        sim_app_init(&n.app_mp[i], n.mp[i]);
        sim_app_init(&n.app_tcp[i], n.tcp[i]);
    }
    host_addr(n.mp[0], to_clients, "10.1.0.2", &up->node);
    host_addr(n.mp[0], to_clients, "10.2.0.2", &up->node);
    host_addr(n.mp[1], to_servers, "10.1.0.1", &down->node);
    host_addr(n.tcp[0], to_clients, "10.3.0.2", &up->node);
    host_addr(n.tcp[1], to_servers, "10.3.0.1", &down->node);
    char cc_set[32];
    snprintf(cc_set, sizeof cc_set, "cc=%s", cc);
    const char *multi[] = {cc_set, NULL}, *reno[] = {"cc=reno", "max-subflows=1", NULL};
    for (int i = 0; i < 2; i++) {
        sim_host_start(n.mp[i], multi);
        sim_host_start(n.tcp[i], reno);
    }
    flow(&n.app_mp[0], &n.app_mp[1], "10.1.0.2", "10.1.0.1", 5001);
    flow(&n.app_tcp[0], &n.app_tcp[1], "10.3.0.2", "10.3.0.1", 5004);
    sim_run_until(&n.sim, SIM_START + MP_SEC(WARMUP_S));
    uint64_t mp0 = n.app_mp[1].conn[0].rx, tcp0 = n.app_tcp[1].conn[0].rx;
    sim_run_until(&n.sim, SIM_START + MP_SEC(RUN_S));
    double mp = (double)(n.app_mp[1].conn[0].rx - mp0), tcp = (double)(n.app_tcp[1].conn[0].rx - tcp0);
    int subflows = n.app_mp[0].conn[0].subflows_max;
    double rates[2] = {mp * 8 / (RUN_S - WARMUP_S) / 1e6, tcp * 8 / (RUN_S - WARMUP_S) / 1e6};
    bool failed = sim_failed(&n.sim);
    if (failed) printf("seed %llu: %s\n", (unsigned long long)seed, n.sim.failure);
    sim_fini(&n.sim);
    for (int i = 0; i < 2; i++) {
        sim_app_fini(&n.app_mp[i]);
        sim_app_fini(&n.app_tcp[i]);
    }
    printf("seed %llu, %2.0f Mbit/s, queue %6u: %d subflows of %-5s %6.2f Mbit/s, one Reno flow %6.2f: ratio %.2f\n",
           (unsigned long long)seed, (double)rate_bps / 1e6, queue, subflows, cc, rates[0], rates[1], mp / tcp);
    if (failed || subflows != 2) return -1;
    return tcp > 0 ? mp / tcp : 1e9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void)
{
    static const struct {
        uint64_t rate_bps;
        uint32_t queue;
    } nets[] = {{10000000, 40000}, {10000000, 80000}, {20000000, 80000}};
    int failed = 0;
    for (unsigned i = 0; i < sizeof nets / sizeof *nets; i++) {
        double r[3];
        for (int k = 0; k < 3; k++) r[k] = ratio((uint64_t)k + 1, "lia", nets[i].rate_bps, nets[i].queue);
        bool broken = r[0] < 0 || r[1] < 0 || r[2] < 0;
        qsort(r, 3, sizeof *r, compare);
        bool ok = !broken && r[1] >= 0.7 && r[1] <= 1.3;
        printf("median %.2f: %s\n", r[1], ok ? "fair" : "NOT between 0.7 and 1.3");
        failed += !ok;
    }
    ratio(1, "reno", 10000000, 40000); /* for comparison: uncoupled */
    printf("sim_fairness: %d of 3 networks failed\n", failed);
    return failed != 0;
}
