/* mptcp-stat: live connections and subflows of all engines of the user (root: of everybody) in this network namespace. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mptcp-stat/stat.h"

#ifndef MPSHIM_VERSION
#define MPSHIM_VERSION "0.1"
#endif

enum { EXIT_USAGE = 2 };
#define SAMPLE_S 0.25 /* long enough for a rate, short enough to wait for */

static void usage(FILE *to)
{
    fputs("Usage: mptcp-stat [OPTION]... [WORD]...\n"
          "Shows the connections that libmpshim's engines carry, with their subflows. Only those of which every WORD is a\n"
          "part: of the program's name, an address and port, an interface, or a pid.\n\n"
          "  -w, --watch[=SECONDS]    again and again, as a view of the terminal (q ends it)\n"
          "  -j, --json               everything, as JSON\n"
          "  -c, --counters           the engines' counters, summed; WORDs choose by name\n"
          "  -a, --all                with --counters: those that are zero too\n"
          "  -i, --interval=SECONDS   measure rates over this time (0.25; 0: no rates, no wait)\n"
          "      --help, --version\n\n"
          "RX/s and TX/s: bytes a second of the program, or of a subflow. RTT, LOSS (bytes sent again of those sent) and WINDOW\n"
          "(bytes; a connection's: what the peer still takes; a subflow's: congestion window) are of the sending direction.\n"
          "RX% and TX%: a subflow's share; TX% is the scheduler's choice, RX% the peer's.\n"
          "Exit status: 0; 1: nothing is carried now (--counters: no engine runs; --json: never); 2: wrong usage.\n", to);
}

void stat_pause(double seconds)
{
    struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
}

double stat_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct options { bool watch, json, counters, all, has_interval; double interval; };

static double seconds(const char *text)
{
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (errno || end == text || *end || !(v >= 0 && v <= 86400)) {
        fprintf(stderr, "mptcp-stat: %s: not a number of seconds\n", text);
        exit(EXIT_USAGE);
    }
    return v;
}

static struct options options(int argc, char **argv)
{
    static const struct option names[] = {
        {"watch", optional_argument, NULL, 'w'}, {"json", no_argument, NULL, 'j'}, {"counters", no_argument, NULL, 'c'},
        {"all", no_argument, NULL, 'a'}, {"interval", required_argument, NULL, 'i'}, {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'}, {0},
    };
    struct options o = {.interval = SAMPLE_S};
    for (int c; (c = getopt_long(argc, argv, "w::jcai:h", names, NULL)) != -1;) {
        switch (c) {
        case 'w': o.watch = true; if (!optarg) break; /* fall through */
        case 'i': o.interval = seconds(optarg), o.has_interval = true; break;
        case 'j': o.json = true; break;
        case 'c': o.counters = true; break;
        case 'a': o.all = true; break;
        case 'h': usage(stdout), exit(0);
        case 'V': puts("mptcp-stat " MPSHIM_VERSION), exit(0);
        default: usage(stderr), exit(EXIT_USAGE);
        }
    }
    return o;
}

static void drop_unwanted(json_t *engines, const char *const *want)
{
    size_t i;
    json_t *e;
    json_array_foreach(engines, i, e) {
        json_t *conns = json_object_get(e, "connections");
        for (size_t j = json_array_size(conns); j-- > 0;)
            if (!stat_wanted(e, json_array_get(conns, j), want)) json_array_remove(conns, j);
    }
}

static bool print_table(json_t *engines, const char *const *want)
{
    char sum[512];
    struct lines l = {.out = stdout, .want = want};
    stat_table(engines, &l);
    stat_sum(engines, sum, sizeof sum);
    printf("%s%s\n", l.n ? "\n" : *want ? "none of these; in all: " : "", sum);
    return l.n > 0;
}

static bool print_json(json_t *engines, const char *const *want)
{
    drop_unwanted(engines, want);
    json_dumpf(engines, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    putchar('\n');
    return true;
}

int main(int argc, char **argv)
{
    struct found f;
    struct options o = options(argc, argv);
    const char *const *want = (const char *const *)argv + optind;
    if (o.watch) return stat_watch(o.has_interval ? o.interval : 1, want);
    json_t *now = stat_take(&f), *old = NULL;
    double took = 0;
    bool sample = json_array_size(now) && (o.counters ? o.has_interval : o.interval > 0);
    if (sample) {
        double at = stat_clock();
        stat_pause(o.interval);
        old = now;
        now = stat_take(&f);
        took = stat_clock() - at;
    }
    stat_rates(now, old, took);
    bool any = json_array_size(now) > 0;
    if (o.counters) stat_counters(now, old, took, o.all, want);
    else any = o.json ? print_json(now, want) : print_table(now, want);
    if (f.refused) fprintf(stderr, "mptcp-stat: %d engine%s of other users: root sees them\n", f.refused, f.refused == 1 ? "" : "s");
    json_decref(now);
    json_decref(old);
    return any ? 0 : 1;
}
