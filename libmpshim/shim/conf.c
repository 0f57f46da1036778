/* Settings from the environment, read once when the process starts, and the log. */
#include <fcntl.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/syscall.h>
#include <time.h>

#include "shim/rules.h"
#include "shim/shim.h"

struct shim_conf shim_conf = {.drain_ms = 60000};
int shim_log_fd = -1;
static _Atomic int log_slot = -1;

static struct shim_rule *rules; /* NULL: none */
static int n_rules;

#define PREFIX "MPSHIM_"
#define FILES PREFIX "CONF="
#define MAX_SETTINGS 48
#define MAX_WRONG 8 /* told of; more are left out silently */
static const char *engine_settings[MAX_SETTINGS + 1];
static int n_engine_settings;

enum owner { OWNER_ENGINE, OWNER_SHIM };
static const struct known { const char *suffix; enum owner owner; const char *range; } known[] = {
#define X(type, field, env, def, range, text) {#env, OWNER_ENGINE, range},
#include "core/settings.def"
#undef X
#define X(type, field, env, def, range, text) {#env, OWNER_##type, range},
#include "shim/settings.def"
#undef X
};

static const struct known *find(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strncmp(known[i].suffix, name, n) && !known[i].suffix[n]) return &known[i];
    return NULL;
}

/* "64..1048576" */
static bool is_in_range(const char *range, const char *dots, const char *value)
{
    char *end;
    unsigned long low = strtoul(range, NULL, 10), high = strtoul(dots + 2, NULL, 10), v = strtoul(value, &end, 10);
    return *value >= '0' && *value <= '9' && !*end && v >= low && v <= high;
}

static int read_rules(const char *list, struct shim_rule *into)
{
    struct shim_rule v[SHIM_RULES_MAX];
    const char *bad;
    return shim_rules_read(list, into ? into : v, SHIM_RULES_MAX, &bad);
}

static void take_rules(const char *list)
{
    if (!rules) rules = malloc(SHIM_RULES_MAX * sizeof *rules);
    if (rules) n_rules = read_rules(list, rules);
}

bool shim_is_excluded(const union ctl_addr *a) { return SHIM_UNLIKELY(rules) && shim_rules_match(rules, n_rules, &a->sa); }

/* As core/settings.c. */
static bool is_on(const char *v) { return !strcmp(v, "on") || !strcmp(v, "1") || !strcmp(v, "yes") || !strcmp(v, "true"); }

/* range: "{rules}", "a..b", words, or empty: anything. An empty value is no setting. */
static bool is_allowed(const char *range, const char *value)
{
    size_t n = strlen(value);
    const char *dots = strstr(range, "..");
    if (!*range || !n) return true;
    if (*range == '{') return read_rules(value, NULL) >= 0;
    if (dots) return is_in_range(range, dots, value);
    if (!strcmp(range, "on off")) range = "on off 1 0 yes no true false"; /* as core/settings.c */
    for (const char *p = range; *p; p += strcspn(p, " "), p += *p == ' ')
        if (strcspn(p, " ") == n && !strncmp(p, value, n)) return true;
    return false;
}

/* Texts are kept for the life of the process: a program may rewrite its environment. All within reach of a leak checker. */
static struct kept { struct kept *next; char text[]; } *all_kept;

static char *keep(const char *text)
{
    struct kept *k = malloc(sizeof *k + strlen(text) + 1);
    if (!k) return NULL;
    k->next = all_kept, all_kept = k;
    return strcpy(k->text, text);
}

/* "CC=lia" becomes "cc=lia". */
static char *lowered(const char *setting)
{
    char *s = keep(setting);
    for (char *p = s; p && *p && *p != '='; p++)
        if (*p >= 'A' && *p <= 'Z') *p += 'a' - 'A';
    return s;
}

static void open_log(const char *path)
{
    int fd = path && *path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : REAL(fcntl)(2, F_DUPFD_CLOEXEC, (void *)3L);
    if (fd >= 0) fd = shim_own_high(fd);
    shim_log_fd = fd;
    atomic_store(&log_slot, fd);
    shim_own_add(&log_slot);
}

static void shim_setting(const char *setting, const char **log)
{
    const char *v = strchr(setting, '=') + 1;
    if (!strncmp(setting, "engine=", 7))
        shim_conf.engine = !strcmp(v, "inside") ? SHIM_INSIDE : !strcmp(v, "helper") ? SHIM_HELPER : !strcmp(v, "never") ? SHIM_NEVER : SHIM_AUTO;
    else if (!strncmp(setting, "verbose=", 8))
        shim_conf.verbose = atoi(v);
    else if (!strncmp(setting, "drain_ms=", 9))
        shim_conf.drain_ms = atoi(v);
    else if (!strncmp(setting, "control=", 8) && *v)
        shim_conf.control = v;
    else if (!strncmp(setting, "log=", 4))
        *log = v;
    else if (!strncmp(setting, "strict=", 7))
        shim_conf.strict = is_on(v);
    else if (!strncmp(setting, "exclude=", 8))
        take_rules(v);
}

/* A later one of the same name takes the place of the earlier. */
static void engine_setting(char *s)
{
    size_t n = strcspn(s, "=") + 1;
    for (int i = 0; i < n_engine_settings; i++)
        if (!strncmp(engine_settings[i], s, n)) {
            engine_settings[i] = s;
            return;
        }
    if (n_engine_settings < MAX_SETTINGS) engine_settings[n_engine_settings++] = s;
}

struct reading { const char *log, *wrong[MAX_WRONG], *possible[MAX_WRONG]; int n_wrong; };

/* "CC=lia"; wrong ones are left out, and told once the log is open. */
static void take(struct reading *r, const char *setting)
{
    const char *eq = strchr(setting, '=');
    if (!eq) return;
    const struct known *k = find(setting, (size_t)(eq - setting));
    if (!k || !is_allowed(k->range, eq + 1)) {
        if (r->n_wrong < MAX_WRONG) r->wrong[r->n_wrong] = setting, r->possible[r->n_wrong++] = k ? k->range : NULL;
        return;
    }
    char *s = eq[1] ? lowered(setting) : NULL;
    if (!s) return;
    if (k->owner == OWNER_SHIM) shim_setting(s, &r->log);
    else engine_setting(s);
}

/* What mptcp-run found in the configuration files, the weakest first: "CC=cubic;[curl];IO=raw;[];..." Each program of the
 * tree takes what stands under no name, or under its own. */
static void take_files(struct reading *r, const char *text)
{
    bool mine = true;
    char *copy = keep(text), *save = NULL; /* settings point into it */
    for (char *p = copy ? strtok_r(copy, ";", &save) : NULL; p; p = strtok_r(NULL, ";", &save)) {
        size_t n = strlen(p);
        if (*p == '[' && p[n - 1] == ']') {
            p[n - 1] = 0;
            mine = !p[1] || fnmatch(p + 1, program_invocation_short_name, 0) == 0;
        } else if (mine) {
            take(r, p);
        }
    }
}

void shim_conf_read(char **env)
{
    struct reading r = {0};
    shim_conf.settings = engine_settings;
    for (char **e = env; e && *e; e++)
        if (!strncmp(*e, FILES, sizeof FILES - 1)) take_files(&r, *e + sizeof FILES - 1);
    for (; env && *env; env++)
        if (!strncmp(*env, PREFIX, sizeof PREFIX - 1) && strncmp(*env, FILES, sizeof FILES - 1)) take(&r, *env + sizeof PREFIX - 1);
    if (shim_conf.verbose > 0) open_log(r.log);
    for (int i = 0; i < r.n_wrong; i++) {
        if (r.possible[i]) shim_log(1, PREFIX "%s: not possible; possible: %s", r.wrong[i], r.possible[i]);
        else shim_log(1, "unknown setting " PREFIX "%s", r.wrong[i]);
    }
}

void shim_log(int level, const char *format, ...)
{
    if (level > shim_conf.verbose || shim_log_fd < 0) return;
    int saved = errno;
    char line[512];
    int n = snprintf(line, sizeof line, "mptcp-run: ");
    va_list ap;
    va_start(ap, format);
    n += vsnprintf(line + n, sizeof line - (size_t)n - 1, format, ap);
    va_end(ap);
    if (n > (int)sizeof line - 2) n = (int)sizeof line - 2;
    line[n++] = '\n';
    (void)!syscall(SYS_write, atomic_load(&log_slot), line, (size_t)n); /* no cancellation point */
    errno = saved;
}
