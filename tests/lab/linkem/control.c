/* control.c: commands, from stdin and from the control socket. */
#include "linkem.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/if_packet.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void say(struct text *t, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(t->at, t->room, format, ap);
    va_end(ap);
    size_t used = n < 0 ? 0 : (size_t)n < t->room ? (size_t)n : t->room - 1;
    t->at += used;
    t->room -= used;
}

/* Numbers with a suffix, each kind of value with suffixes of its own. */
struct suffix { const char *text; double factor; };
static const struct suffix rate_suffixes[] = { {"", 1}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {0} };
static const struct suffix time_suffixes[] = { {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9},
                                               {"", 1e9}, {0} };
static const struct suffix byte_suffixes[] = { {"", 1}, {"k", 1024}, {"M", 1 << 20}, {0} };
static const struct suffix plain[] = { {"", 1}, {"%", 0.01}, {0} };

static bool parse_number(const char *text, const struct suffix *suffix, double *value)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || !(number >= 0))
        return false;
    for (; suffix->text; suffix++)
        if (!strcmp(end, suffix->text)) {
            *value = number * suffix->factor;
            return true;
        }
    return false;
}

enum key { K_RATE, K_DELAY, K_JITTER, K_QUEUE_TIME, K_QUEUE_BYTES, K_LOSS, K_DUPLICATE,
           K_REORDER, K_REORDER_DELAY, K_DROP_NEXT, K_CE, K_BLACKHOLE, K_SEED };

/* A name may stand twice: the first row whose suffixes fit is taken. */
static const struct {
    const char *name; enum key key; const struct suffix *suffixes; const char *meaning;
} all_keys[] = {
    { "rate",      K_RATE,        rate_suffixes, "bit/s (k, M, G); 0: unlimited" },
    { "delay",     K_DELAY,       time_suffixes, "one way (ns, us, ms, s)" },
    { "jitter",    K_JITTER,      time_suffixes, "up to this much more delay, order kept" },
    { "queue",     K_QUEUE_BYTES, byte_suffixes, "limit in bytes (k, M)" },
    { "queue",     K_QUEUE_TIME,  time_suffixes, "or in time at the rate (us, ms, s)" },
    { "loss",      K_LOSS,        plain,         "probability, or with %" },
    { "duplicate", K_DUPLICATE,   plain,         "probability" },
    { "reorder",   K_REORDER,     plain,         "probability of being held back" },
    { "reorder_delay", K_REORDER_DELAY, time_suffixes, "by this time" },
    { "drop_next", K_DROP_NEXT,   plain,         "lose this many frames" },
    { "ce",        K_CE,          byte_suffixes, "ECT packets that find more bytes in the queue are marked; 0: none" },
    { "blackhole", K_BLACKHOLE,   plain,         "1: everything vanishes, what is on its way too" },
    { "seed",      K_SEED,        plain,         "of the random numbers" },
};
enum { N_KEYS = sizeof all_keys / sizeof *all_keys };

static void apply_key(struct dir *d, enum key key, double v)
{
    int64_t whole = (int64_t)v;
    switch (key) {
    case K_RATE:          d->p.rate_bps = v; break;
    case K_DELAY:         d->p.delay_ns = whole; break;
    case K_JITTER:        d->p.jitter_ns = whole; break;
    case K_QUEUE_BYTES:   d->p.queue_bytes = max64(whole, 1); break;
    case K_QUEUE_TIME:    d->p.queue_ns = whole; d->p.queue_bytes = 0; break;
    case K_LOSS:          d->p.loss = v; break;
    case K_DUPLICATE:     d->p.duplicate = v; break;
    case K_REORDER:       d->p.reorder = v; break;
    case K_REORDER_DELAY: d->p.reorder_delay_ns = whole; break;
    case K_DROP_NEXT:     d->p.drop_next = whole; break;
    case K_CE:            d->p.ce_bytes = whole; break;
    case K_BLACKHOLE:     d->p.blackhole = whole != 0; break;
    case K_SEED:          d->random = (uint64_t)whole; break;
    }
}

bool parse_time(const char *text, int64_t *ns)
{
    double v;
    bool ok = parse_number(text, time_suffixes, &v);
    if (ok) *ns = (int64_t)v;
    return ok;
}

bool parse_bytes(const char *text, uint64_t *n)
{
    double v;
    bool ok = parse_number(text, byte_suffixes, &v);
    if (ok) *n = (uint64_t)v;
    return ok;
}

static bool set_one(struct dir *d, const char *name, const char *value)
{
    double v;
    for (int i = 0; i < N_KEYS; i++)
        if (!strcmp(all_keys[i].name, name) && parse_number(value, all_keys[i].suffixes, &v)) {
            apply_key(d, all_keys[i].key, v);
            return true;
        }
    return false;
}

/* "0 a2b" or "all both": fills dirs, returns how many; 0 if there is no such. */
static int pick_dirs(const char *link, const char *dir, struct dir **dirs)
{
    char *end = NULL;
    long only = link && strcmp(link, "all") ? strtol(link, &end, 10) : -1;
    int n = 0;
    if (!link || !dir || (end && *end))
        return 0;
    for (int i = 0; i < n_links; i++) {
        if (only >= 0 && i != only)
            continue;
        if (!strcmp(dir, "a2b") || !strcmp(dir, "both"))
            dirs[n++] = &links[i].a2b;
        if (!strcmp(dir, "b2a") || !strcmp(dir, "both"))
            dirs[n++] = &links[i].b2a;
    }
    return n;
}

static void command_set(struct dir **dirs, int n, char **save, struct text *out)
{
    char *word;
    while ((word = strtok_r(NULL, " ", save))) {
        char *value = strchr(word, '=');
        if (value)
            *value++ = 0;
        for (int i = 0; i < n; i++)
            if (!value || !set_one(dirs[i], word, value)) {
                say(out, "error: bad setting %s=%s\n", word, value ? value : "");
                return;
            }
    }
    say(out, "ok\n");
}

/* The boxes of a link see both directions; those of the words a2b, b2a and both act on what that says. */
static void command_hook(const char *link, const char *dir, char **save, struct text *out)
{
    char *specs[BOXES_MAX + 1], *word;
    int n = 0;
    unsigned dirs = !strcmp(dir, "a2b") ? 1 : !strcmp(dir, "b2a") ? 2 : 3;
    while ((word = strtok_r(NULL, " ", save)) && n <= BOXES_MAX)
        specs[n++] = word;
    for (int i = 0; i < n_links; i++) {
        if (strcmp(link, "all") && atoi(link) != i)
            continue;
        const char *wrong = n > BOXES_MAX ? "too many" : boxes_set(&links[i], specs, n, dirs);
        if (wrong) {
            say(out, "error: no such middlebox or setting: %s\n", wrong);
            return;
        }
    }
    say(out, "ok\n");
}

static void read_overruns(struct dir *d)
{
    struct tpacket_stats st;
    socklen_t len = sizeof st;
    if (!getsockopt(d->rx_fd, SOL_PACKET, PACKET_STATISTICS, &st, &len))
        d->stats.rx_overruns += st.tp_drops;
}

static void say_stats(struct dir *d, struct text *out)
{
    const char *comma = "";
    struct stats s = d->stats;
    read_overruns(d);
    s.rx_overruns = d->stats.rx_overruns;
    boxes_stats(d, &s);
    say(out, "{");
#define X(field, meaning) say(out, "%s\"" #field "\":%" PRId64, comma, s.field); comma = ",";
    STATS(X)
#undef X
    say(out, "}");
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec)
         + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void command_stats(struct text *out)
{
    say(out, "{\"cpu_s\":%.3f,\"links\":[", cpu_seconds());
    for (int i = 0; i < n_links; i++) {
        say(out, "%s{\"a\":\"%s\",\"b\":\"%s\",\"a2b\":", i ? "," : "", links[i].name_a, links[i].name_b);
        say_stats(&links[i].a2b, out);
        say(out, ",\"b2a\":");
        say_stats(&links[i].b2a, out);
        say(out, "}");
    }
    say(out, "]}\n");
}

static void command_help(struct text *out)
{
    say(out, "{\"set\":[");
    for (int i = 0; i < N_KEYS; i++)
        say(out, "%s[\"%s\",\"%s\"]", i ? "," : "", all_keys[i].name, all_keys[i].meaning);
    say(out, "],\"hook\":[");
    for (int i = 0; i < SIM_BOX_COUNT; i++)
        say(out, "%s[\"%s\",\"%s\"]", i ? "," : "", sim_box_name((enum sim_box_what)i), sim_box_text((enum sim_box_what)i));
    say(out, "]}\n");
}

static void run_command(char *line, struct text *out)
{
    struct dir *dirs[2 * LINKS_MAX];
    char *save;
    char *verb = strtok_r(line, " \r\n", &save);
    if (!verb)
        say(out, "error: empty command\n");
    else if (!strcmp(verb, "stats"))
        command_stats(out);
    else if (!strcmp(verb, "help"))
        command_help(out);
    else if (strcmp(verb, "set") && strcmp(verb, "hook"))
        say(out, "error: no command %s\n", verb);
    else {
        char *link = strtok_r(NULL, " ", &save);
        char *dir = strtok_r(NULL, " ", &save);
        int n = pick_dirs(link, dir, dirs);
        if (!n)
            say(out, "error: no such link or direction\n");
        else if (!strcmp(verb, "set"))
            command_set(dirs, n, &save, out);
        else
            command_hook(link, dir, &save, out);
    }
}

static void answer_line(char *line)
{
    char answer[TEXT_MAX];
    struct text out = { answer, sizeof answer };
    run_command(line, &out);
    fputs(answer, stdout);
    fflush(stdout);
}

/* Returns false when stdin has closed. */
bool read_stdin(void)
{
    static char buffer[TEXT_MAX];
    static size_t used;
    ssize_t n = read(STDIN_FILENO, buffer + used, sizeof buffer - 1 - used);
    if (n <= 0)
        return n < 0 && errno == EINTR;
    used += (size_t)n;
    buffer[used] = 0;
    char *line = buffer, *end;
    while ((end = strchr(line, '\n'))) {
        *end = 0;
        answer_line(line);
        line = end + 1;
    }
    used = strlen(line);
    memmove(buffer, line, used);
    return used < sizeof buffer - 1;
}

int open_control(const char *path)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    if (!path)
        return -1;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof un))
        die("control socket", path);
    return fd;
}

void read_control(int fd)
{
    char line[TEXT_MAX], answer[TEXT_MAX];
    struct sockaddr_un from;
    socklen_t from_len = sizeof from;
    struct text out = { answer, sizeof answer };
    ssize_t n = recvfrom(fd, line, sizeof line - 1, 0, (struct sockaddr *)&from, &from_len);
    if (n < 0)
        return;
    line[n] = 0;
    line[strcspn(line, "\n")] = 0;
    run_command(line, &out);
    sendto(fd, answer, strlen(answer), MSG_DONTWAIT, (struct sockaddr *)&from, from_len);
}
