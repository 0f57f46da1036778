/* What moved between two snapshots. */
#include <string.h>

#include "stat.h"

static bool is_same(const json_t *a, const json_t *b, const char *key) { return !strcmp(stat_str(a, key), stat_str(b, key)); }

static const json_t *same_engine(const json_t *engines, const json_t *e)
{
    size_t i;
    json_t *o;
    json_array_foreach((json_t *)engines, i, o)
        if (is_same(o, e, "socket")) return o;
    return NULL;
}

/* Of an array of connections or subflows: the one between the same ends. */
static const json_t *same_ends(const json_t *all, const json_t *x)
{
    size_t i;
    json_t *o;
    json_array_foreach((json_t *)all, i, o)
        if (is_same(o, x, "local") && is_same(o, x, "remote")) return o;
    return NULL;
}

static void set(json_t *o, const char *key, double v) { json_object_set_new(o, key, json_real(v)); }

static double rate(const json_t *now, const json_t *old, const char *key, double seconds)
{
    double d = stat_num(now, key) - (old ? stat_num(old, key) : 0);
    return d > 0 ? d / seconds : 0;
}

static void shares(json_t *subflows, const char *rate_key, const char *bytes_key, const char *share_key)
{
    size_t i;
    json_t *s;
    double rates = 0, bytes = 0;
    json_array_foreach(subflows, i, s) rates += stat_num(s, rate_key), bytes += stat_num(s, bytes_key);
    json_array_foreach(subflows, i, s)
        set(s, share_key, rates > 0 ? stat_num(s, rate_key) / rates : bytes > 0 ? stat_num(s, bytes_key) / bytes : 0);
}

/* Subflows tell bytes on the wire; the connection's rate is what its program wrote and read. A subflow that was not there
 * before counts from its beginning: it is no older than the last snapshot. */
static void rates(json_t *c, const json_t *old, double seconds)
{
    size_t i;
    json_t *s;
    set(c, "tx_rate", rate(c, old, "bytes_acked", seconds));
    set(c, "rx_rate", rate(c, old, "bytes_read", seconds));
    json_array_foreach(json_object_get(c, "subflows"), i, s) {
        const json_t *was = old ? same_ends(json_object_get(old, "subflows"), s) : NULL;
        set(s, "tx_rate", rate(s, was, "bytes_acked", seconds));
        set(s, "rx_rate", rate(s, was, "bytes_received", seconds));
    }
}

static void connection(json_t *c, const json_t *old, double seconds)
{
    json_t *subflows = json_object_get(c, "subflows");
    if (seconds > 0) rates(c, old, seconds);
    shares(subflows, "tx_rate", "bytes_acked", "tx_share");
    shares(subflows, "rx_rate", "bytes_received", "rx_share");
}

void stat_rates(json_t *now, const json_t *old, double seconds)
{
    size_t i, j;
    json_t *e, *c;
    json_array_foreach(now, i, e) {
        const json_t *was = old ? same_engine(old, e) : NULL;
        json_array_foreach(json_object_get(e, "connections"), j, c)
            connection(c, was ? same_ends(json_object_get(was, "connections"), c) : NULL, old ? seconds : 0);
    }
}
