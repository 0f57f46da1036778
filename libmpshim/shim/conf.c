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
static const char *engine_settings[MAX_SETTINGS + 1];
static int n_engine_settings;

enum owner { OWNER_NONE, OWNER_ENGINE, OWNER_SHIM };
static const struct { const char *suffix; enum owner owner; } known[] = {
#define X(type, field, env, def, range, text) {#env, OWNER_ENGINE},
#include "core/settings.def"
#undef X
#define X(type, field, env, def, range, text) {#env, OWNER_##type},
#include "shim/settings.def"
#undef X
};

static enum owner owner_of(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strncmp(known[i].suffix, name, n) && !known[i].suffix[n]) return known[i].owner;
    return OWNER_NONE;
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
    const char *log = NULL, *unknown = NULL;
    shim_conf.settings = engine_settings;
    for (; env && *env; env++) {
        if (strncmp(*env, PREFIX, sizeof PREFIX - 1)) continue;
        const char *setting = *env + sizeof PREFIX - 1, *eq = strchr(setting, '=');
        if (!eq) continue;
        enum owner owner = owner_of(setting, (size_t)(eq - setting));
        char *s = owner == OWNER_NONE ? NULL : lowered(setting);
        if (owner == OWNER_NONE) unknown = setting;
        if (!s) continue;
        if (owner == OWNER_SHIM) shim_setting(s, &log);
        else if (n_engine_settings < MAX_SETTINGS && eq[1]) engine_settings[n_engine_settings++] = s;
    }
    if (shim_conf.verbose > 0) open_log(log);
    if (unknown) shim_log(1, "unknown setting " PREFIX "%s", unknown);
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
