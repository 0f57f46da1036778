/* tests/fuzz/conf.c: any configuration file. mptcp-run reads it (tools/mptcp-run/files.c) and hands it on as MPSHIM_CONF,
 * which libmpshim.so reads by code of its own (shim/conf.c). Input: the file.
 *
 * Invariants: what mptcp-run hands on, the library accepts whole; both find the same value for every setting. */
#include <stdlib.h>

static char *kept(const char *text);
#define strdup(text) kept(text) /* the library keeps its settings for the life of a process; here they go after each input */
#include "shim/conf.c"
#undef strdup

#include <sys/mman.h>

#include "tools/mptcp-run/run.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* What the two files use of others. */
struct shim_real shim_real_calls;
bool shim_real_ready = true;
void shim_real_resolve(void) {}
void shim_own_add(_Atomic int *slot) { (void)slot; }
int shim_own_high(int fd) { return fd; }
void run_warn(const char *what, const char *about) { (void)what, (void)about; }

static struct keep { struct keep *next; char text[]; } *keeps;

static char *kept(const char *text)
{
    struct keep *k = malloc(sizeof *k + strlen(text) + 1);
    if (!k) abort();
    k->next = keeps;
    keeps = k;
    return strcpy(k->text, text);
}

static void forget(void)
{
    for (struct keep *k; (k = keeps);) {
        keeps = k->next;
        free(k);
    }
    memset(engine_settings, 0, sizeof engine_settings);
    n_engine_settings = n_rules = 0;
    shim_conf = (struct shim_conf){.drain_ms = 60000};
}

static void broken(const char *what, const char *name)
{
    dprintf(2, "%s: %s\n", what, name);
    abort();
}

static const char *engine_value(const char *env)
{
    char name[64];
    int n = snprintf(name, sizeof name, "%s=", env);
    for (int i = 0; i < n_engine_settings; i++)
        if (!strncasecmp(engine_settings[i], name, (size_t)n)) return engine_settings[i] + n;
    return "";
}

static void same_values(void)
{
    for (size_t i = 0; i < run_nsettings; i++) {
        const struct setting *s = &run_settings[i];
        const char *v = s->value ? s->value : "";
        enum owner owner = find(s->env, strlen(s->env))->owner;
        if (owner == OWNER_ENGINE && strcmp(engine_value(s->env), v)) broken("mptcp-run and the library differ", s->env);
        if (!strcmp(s->env, "DRAIN_MS") && atoi(*v ? v : "60000") != shim_conf.drain_ms) broken("differs", s->env);
        if (!strcmp(s->env, "EXCLUDE") && read_rules(v, NULL) != n_rules) broken("differs", s->env);
        if (!strcmp(s->env, "STRICT") && is_on(v) != shim_conf.strict) broken("differs", s->env);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static bool quiet;
    char path[64];
    struct reading r = {0};
    int fd = memfd_create("mpshim.conf", MFD_CLOEXEC);
    if (!quiet) stderr = fopen("/dev/null", "we"); /* what mptcp-run says of the file */
    quiet = true;
    program_invocation_short_name = "curl";
    if (fd < 0 || write(fd, data, n) != (ssize_t)n) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    run_settings_begin();
    run_files(path, "/usr/bin/curl");
    const char *text = getenv("MPSHIM_CONF");
    if (text) take_files(&r, text);
    if (r.n_wrong) broken("the library refuses what mptcp-run accepted", r.wrong[0]);
    same_values();
    forget();
    close(fd);
    return 0;
}
