/* Connections as lines: one each, one for each of its subflows, and the reason where it is not multipath. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "stat.h"

/* "1.2k", "34M": at most four characters and a letter. */
static const char *amount(double v, char buf[16])
{
    static const char unit[] = " kMGTP";
    int u = 0;
    while (v >= 999.5 && u < 5) v /= 1000, u++;
    snprintf(buf, 16, v < 9.95 && u ? "%.1f%c" : "%.0f%c", v, unit[u]);
    if (!u) buf[strlen(buf) - 1] = 0;
    return buf;
}

/* A rate that was measured, or "-". */
static const char *rate(const json_t *o, const char *key, char buf[16])
{
    return json_object_get(o, key) ? amount(stat_num(o, key), buf) : "-";
}

static void put(struct lines *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct lines *l, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    if (l->max && l->n >= l->max) return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    size_t n = strlen(line);
    while (n && line[n - 1] == ' ') line[--n] = 0;
    fprintf(l->out, "%s%s\n", line, l->color ? "\033[K" : "");
    l->n++;
}

#define ROW "%s%-22.22s %-25s %-25s %-12.12s%s %6s %6s %7s %7s %5s %6s %6s"

static void head(struct lines *l)
{
    put(l, ROW, l->color ? "\033[1m" : "", "PROGRAM", "LOCAL", "REMOTE", "STATE", l->color ? "\033[0m\033[1m" : "", "RX/s", "TX/s", "RTT", "WINDOW",
        "LOSS", "RX%", "TX%");
    if (l->color) fputs("\033[0m", l->out);
}

static const char *state_of(const json_t *c)
{
    if (stat_is(c, "multipath")) return "MPTCP";
    if (!stat_is(c, "established")) return "connecting";
    return strcmp(stat_str(c, "why"), "not known yet") ? "TCP" : "MPTCP?"; /* agreed in the handshake, no data has proved it yet */
}

static void connection(struct lines *l, const json_t *c)
{
    char who[64], rx[16], tx[16], wnd[16];
    const char *state = state_of(c), *on = !l->color ? "" : !strcmp(state, "TCP") ? "\033[33m" : "\033[32m";
    snprintf(who, sizeof who, "%s/%d", stat_str(c, "program"), (int)stat_num(c, "pid"));
    put(l, ROW, on, who, stat_str(c, "local"), stat_str(c, "remote"), state, l->color ? "\033[0m" : "", rate(c, "rx_rate", rx), rate(c, "tx_rate", tx), "", amount(stat_num(c, "snd_wnd"), wnd), "", "", "");
}

static const char *percent(double v, char buf[16])
{
    snprintf(buf, 16, v && v < 0.0995 ? "%.1f%%" : "%.0f%%", v * 100);
    return buf;
}

static const char *rtt(const json_t *s, char buf[16])
{
    double ms = stat_num(s, "srtt_us") / 1000;
    snprintf(buf, 16, ms < 10 ? "%.2fms" : "%.0fms", ms);
    return buf;
}

static void subflow(struct lines *l, const json_t *s)
{
    char name[64], state[32], rx[16], tx[16], ms[16], wnd[16], loss[16], rxs[16], txs[16];
    double sent = stat_num(s, "bytes_sent");
    snprintf(name, sizeof name, "  %.16s%s%s", stat_str(s, "interface"), stat_is(s, "backup") ? " backup" : "", stat_is(s, "stale") ? " stalled" : "");
    snprintf(state, sizeof state, "%s", stat_str(s, "state"));
    put(l, ROW, "", name, stat_str(s, "local"), stat_str(s, "remote"), state, "", rate(s, "rx_rate", rx), rate(s, "tx_rate", tx), rtt(s, ms), amount(stat_num(s, "cwnd"), wnd),
        percent(sent > 0 ? stat_num(s, "bytes_retrans") / sent : 0, loss), percent(stat_num(s, "rx_share"), rxs), percent(stat_num(s, "tx_share"), txs));
}

static bool has(const char *text, const char *word) { return strstr(text, word) != NULL; }

static bool one_wanted(const json_t *engine, const json_t *c, const char *word)
{
    char pid[24];
    size_t i;
    json_t *s;
    snprintf(pid, sizeof pid, "%d", (int)stat_num(c, "pid"));
    if (!strcmp(pid, word) || has(stat_str(c, "program"), word) || has(stat_str(c, "local"), word) || has(stat_str(c, "remote"), word)) return true;
    json_array_foreach(json_object_get(c, "subflows"), i, s)
        if (!strcmp(stat_str(s, "interface"), word) || has(stat_str(s, "local"), word) || has(stat_str(s, "remote"), word)) return true;
    return stat_is(engine, "helper") && !strcmp(word, "helper");
}

bool stat_wanted(const json_t *engine, const json_t *c, const char *const *want)
{
    for (; want && *want; want++)
        if (!one_wanted(engine, c, *want)) return false;
    return true;
}

/* ---- order: the busiest first ---- */

struct row { const json_t *engine, *conn; double busy; };

static int busier(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    if (x->busy != y->busy) return x->busy < y->busy ? 1 : -1;
    return strcmp(stat_str(x->conn, "local"), stat_str(y->conn, "local"));
}

static size_t rows(json_t *engines, const char *const *want, struct row **out)
{
    size_t n = 0, i, j;
    json_t *e, *c;
    *out = NULL;
    json_array_foreach(engines, i, e)
        json_array_foreach(json_object_get(e, "connections"), j, c) {
            struct row *more = stat_wanted(e, c, want) ? realloc(*out, (n + 1) * sizeof **out) : NULL;
            if (!more) continue;
            *out = more;
            more[n++] = (struct row){e, c, stat_num(c, "rx_rate") + stat_num(c, "tx_rate")};
        }
    if (n) qsort(*out, n, sizeof **out, busier);
    return n;
}

void stat_table(json_t *engines, struct lines *l)
{
    struct row *r;
    size_t n = rows(engines, l->want, &r), i, j;
    json_t *s;
    if (n) head(l);
    for (i = 0; i < n; i++) {
        connection(l, r[i].conn);
        json_array_foreach(json_object_get(r[i].conn, "subflows"), j, s) subflow(l, s);
        if (!strcmp(state_of(r[i].conn), "TCP")) put(l, "  plain TCP: %s", stat_str(r[i].conn, "why"));
    }
    free(r);
}

/* "; left to the kernel so far: 3 a local address, 1 no suitable interface" */
static void add_kernel(json_t *engines, char *buf, size_t n)
{
    size_t i, used = strlen(buf);
    json_t *e, *count, *sum = json_object();
    const char *why, *before = "; left to the kernel so far: ";
    json_array_foreach(engines, i, e)
        json_object_foreach(json_object_get(e, "left_to_kernel"), why, count)
            json_object_set_new(sum, why, json_integer(json_integer_value(count) + json_integer_value(json_object_get(sum, why))));
    json_object_foreach(sum, why, count) {
        int r = snprintf(buf + used, n - used, "%s%d %s", before, (int)json_integer_value(count), why);
        if (r < 0 || (size_t)r >= n - used) break;
        used += (size_t)r;
        before = ", ";
    }
    json_decref(sum);
}

void stat_sum(json_t *engines, char *buf, size_t n)
{
    size_t i, j;
    json_t *e, *c;
    int conns = 0, multipath = 0, plain = 0;
    bool measured = false;
    double rx = 0, tx = 0;
    char a[16], b[16];
    json_array_foreach(engines, i, e) {
        json_array_foreach(json_object_get(e, "connections"), j, c) {
            conns++;
            multipath += stat_is(c, "multipath");
            plain += !strcmp(state_of(c), "TCP");
            rx += stat_num(c, "rx_rate"), tx += stat_num(c, "tx_rate");
            measured |= json_object_get(c, "rx_rate") != NULL;
        }
    }
    int used = snprintf(buf, n, "%zu engine%s, %d connection%s: %d multipath, %d plain TCP", json_array_size(engines),
                        json_array_size(engines) == 1 ? "" : "s", conns, conns == 1 ? "" : "s", multipath, plain);
    if (measured) snprintf(buf + used, n - (size_t)used, "; %s bit/s in, %s bit/s out", amount(rx * 8, a), amount(tx * 8, b));
    add_kernel(engines, buf, n);
}
