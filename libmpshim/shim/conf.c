/* Settings from the environment, read once when the process starts, and the log. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "shim/shim.h"

struct shim_conf shim_conf = {.drain_ms = 60000};
int shim_log_fd = -1;
static _Atomic int log_slot = -1;

#define PREFIX "MPSHIM_"
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

/* range: "a..b", words, or empty: anything. An empty value is no setting. */
static bool is_allowed(const char *range, const char *value)
{
    size_t n = strlen(value);
    const char *dots = strstr(range, "..");
    if (!*range || !n) return true;
    if (dots) return is_in_range(range, dots, value);
    if (!strcmp(range, "on off")) range = "on off 1 0 yes no true false"; /* as core/settings.c */
    for (const char *p = range; *p; p += strcspn(p, " "), p += *p == ' ')
        if (strcspn(p, " ") == n && !strncmp(p, value, n)) return true;
    return false;
}

/* "CC=lia" becomes "cc=lia". Kept for the life of the process: a program may rewrite its environment. */
static char *lowered(const char *setting)
{
    char *s = strdup(setting);
    for (char *p = s; p && *p && *p != '='; p++)
        if (*p >= 'A' && *p <= 'Z') *p += 'a' - 'A';
    return s;
}

static void open_log(const char *path)
{
    int fd = path && *path ? REAL(fcntl)(open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), F_DUPFD_CLOEXEC, (void *)900L)
                           : REAL(fcntl)(2, F_DUPFD_CLOEXEC, (void *)900L);
    if (fd < 0 && !(path && *path)) fd = REAL(fcntl)(2, F_DUPFD_CLOEXEC, (void *)3L);
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
}

void shim_conf_read(char **env)
{
    const char *log = NULL, *wrong[MAX_WRONG], *possible[MAX_WRONG];
    int n_wrong = 0;
    shim_conf.settings = engine_settings;
    for (; env && *env; env++) {
        if (strncmp(*env, PREFIX, sizeof PREFIX - 1)) continue;
        const char *setting = *env + sizeof PREFIX - 1, *eq = strchr(setting, '=');
        if (!eq) continue;
        const struct known *k = find(setting, (size_t)(eq - setting));
        if (!k || !is_allowed(k->range, eq + 1)) { /* left out; told once the log is open */
            if (n_wrong < MAX_WRONG) wrong[n_wrong] = setting, possible[n_wrong++] = k ? k->range : NULL;
            continue;
        }
        char *s = lowered(setting);
        if (!s) continue;
        if (k->owner == OWNER_SHIM) shim_setting(s, &log);
        else if (n_engine_settings < MAX_SETTINGS && eq[1]) engine_settings[n_engine_settings++] = s;
    }
    if (shim_conf.verbose > 0) open_log(log);
    for (int i = 0; i < n_wrong; i++) {
        if (possible[i]) shim_log(1, PREFIX "%s: not possible; possible: %s", wrong[i], possible[i]);
        else shim_log(1, "unknown setting " PREFIX "%s", wrong[i]);
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
    (void)!REAL(write)(atomic_load(&log_slot), line, (size_t)n);
    errno = saved;
}
