/* tools/mptcp-stat/stat.h: what the files of mptcp-stat share. A snapshot is the engines' own JSON (engine/status.c), as an
 * array, to which the names of programs and the rates since an earlier snapshot are added.
 *
 * find.c   the engines of this network namespace, and what they say     rate.c     what moved between two snapshots
 * table.c  connections as lines                                         watch.c    the same again and again, on a terminal
 * counters.c  core/events.def's counters */
#ifndef STAT_H
#define STAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* ---- find.c ---- */
struct found { int engines, refused; }; /* refused: other users' engines, which answer only them and root */
json_t *stat_take(struct found *f);     /* array of engines; owned by the caller */

/* ---- rate.c: adds "tx_rate" and "rx_rate", bytes per second, to connections and subflows, and "tx_share" and "rx_share"
 * (0..1) to subflows: of the rate where something moved, else of all that the connection ever carried. old: NULL: no rates are added */
void stat_rates(json_t *now, const json_t *old, double seconds);

/* ---- table.c ---- */
struct lines { int max; int n; bool color; FILE *out; const char *const *want; };
void stat_table(json_t *engines, struct lines *l);
void stat_sum(json_t *engines, char *buf, size_t n);
/* Is this connection among the wanted ones: each word is part of its program, addresses, interface or pid. */
bool stat_wanted(const json_t *engine, const json_t *conn, const char *const *want);

/* ---- watch.c, counters.c ---- */
int stat_watch(double interval, const char *const *want); /* exit status */
void stat_counters(json_t *engines, const json_t *old, double seconds, bool all, const char *const *want);

/* ---- small words ---- */
static inline double stat_num(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }
static inline bool stat_is(const json_t *o, const char *key) { return json_is_true(json_object_get(o, key)); }
static inline const char *stat_str(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}
void stat_pause(double seconds);
double stat_clock(void); /* seconds, monotonic */

#endif
