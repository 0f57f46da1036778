/* The configuration files, in INI form (libinih): "name = value" lines for all programs, [program] sections for one. The
 * user's file counts more than the system's, in each file the program's section more than what stands above all sections.
 *
 * The command may start others, and those have sections of their own: so everything goes into MPSHIM_CONF, the weakest
 * first ("CC=cubic;[curl];IO=raw;[];..."), and libmpshim.so takes from it what is each process's. */
#include <errno.h>
#include <fnmatch.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run.h"
#include "shim/rules.h"

#ifndef MPSHIM_SYSCONFDIR
#define MPSHIM_SYSCONFDIR "/etc"
#endif

enum { TEXT_ROOM = 16384, LIST_ROOM = 4096 };
struct reading {
    const char *path, *program;
    FILE *file;
    int line;
    char section[128];
    const struct setting *list_of; /* the setting that list is of, in this section */
    char list[LIST_ROOM];
    size_t list_at, list_end; /* where it stands in text */
    char text[TEXT_ROOM];
    size_t n;
    bool full; /* from then on nothing is taken: what follows may belong to a section that is not there */
};

/* In place of what stands at offset at and after it. */
static bool add(struct reading *r, size_t at, const char *a, const char *b, const char *c)
{
    if (r->full) return false;
    if (at + strlen(a) + strlen(b) + strlen(c) + 2 > sizeof r->text) {
        run_warn("too much text, the rest is left out", r->path);
        return !(r->full = true);
    }
    r->n = (size_t)(stpcpy(stpcpy(stpcpy(stpcpy(r->text + at, a), b), c), ";") - r->text);
    return true;
}

static char *one_line(char *buf, int n, void *arg)
{
    struct reading *r = arg;
    char *got = fgets(buf, n, r->file);
    r->line++;
    if (!got || strlen(buf) < (size_t)n - 1 || buf[n - 2] == '\n') return got;
    fprintf(stderr, "mptcp-run: %s:%d: the line is longer than %d characters: left out\n", r->path, r->line, n - 1);
    for (int c; (c = getc(r->file)) != EOF && c != '\n';) {}
    return strcpy(buf, "\n");
}

/* A list may go on over several lines, each of which libinih gives by itself. NULL: no room for one more. */
static const char *whole_list(struct reading *r, const struct setting *s, const char *value)
{
    bool goes_on = s == r->list_of;
    if (!goes_on) r->list[0] = 0;
    if (!goes_on || r->list_end != r->n) r->list_at = r->n;
    r->list_of = s;
    size_t before = strlen(r->list), n = before + (before != 0) + strlen(value);
    if (n >= sizeof r->list) return NULL;
    strcpy(stpcpy(r->list + before, before ? "," : ""), value);
    if (!run_is_allowed(s, r->list)) return r->list[before] = 0, NULL; /* each part was: too many */
    while (n > 1 && r->list[n - 1] == ',') r->list[--n] = 0; /* "," alone: none, and that counts */
    return r->list;
}

static void take(struct reading *r, struct setting *s, const char *value)
{
    char *origin;
    if (asprintf(&origin, "%s:%d", r->path, r->line) < 0) return;
    s->value = run_keep(strdup(value)), s->origin = run_keep(origin);
}

static void enter(struct reading *r, const char *section)
{
    if (!strcmp(section, r->section)) return;
    snprintf(r->section, sizeof r->section, "%s", section);
    r->list_of = NULL;
    add(r, r->n, "[", section, "]");
}

static int on_setting(void *arg, const char *section, const char *name, const char *value)
{
    struct reading *r = arg;
    struct setting *s = run_find(name, strlen(name));
    char at[320];
    snprintf(at, sizeof at, "%s:%d: ", r->path, r->line);
    if (!run_accept(at, name, s, name, strlen(name), value) || !*value) return 1; /* empty: no setting, as a variable is */
    if (strpbrk(value, ";\n") || strpbrk(section, ";]")) return fprintf(stderr, "mptcp-run: %sa semicolon cannot stand here\n", at), 1;
    enter(r, section);
    bool list = *s->range == '{';
    if (list && !(value = whole_list(r, s, value)))
        return fprintf(stderr, "mptcp-run: %sthe list is longer than %d characters or %d entries: this is left out\n", at, LIST_ROOM - 1, SHIM_RULES_MAX), 1;
    if (!add(r, list ? r->list_at : r->n, s->env, "=", value)) return 1;
    if (list) r->list_end = r->n;
    if (!*section || fnmatch(section, r->program, 0) == 0) take(r, s, value);
    return 1;
}

/* false: it cannot be read, though it must or though it is there. */
static bool read_file(struct reading *r, const char *path, bool must_exist)
{
    r->path = path;
    r->line = 0;
    r->file = fopen(path, "re");
    if (!r->file) {
        bool is_there = errno != ENOENT && errno != ENOTDIR && (errno != EACCES || access(path, F_OK) == 0); /* sudo -u keeps HOME */
        if (must_exist || is_there) run_warn(strerror(errno), path);
        return !must_exist && !is_there;
    }
    int bad = ini_parse_stream(one_line, r, on_setting, r);
    bool failed = ferror(r->file);
    if (failed) run_warn(strerror(errno), path);
    else if (bad > 0) fprintf(stderr, "mptcp-run: %s:%d: neither \"name = value\" nor [program]\n", r->path, bad);
    fclose(r->file);
    enter(r, "");
    return !failed;
}

static bool user_file(char *path, size_t n)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (config && *config == '/') return snprintf(path, n, "%s/mpshim.conf", config) < (int)n;
    return home && *home && snprintf(path, n, "%s/.config/mpshim.conf", home) < (int)n;
}

bool run_files(const char *instead, const char *program)
{
    bool read = true;
    static struct reading r;
    char path[4096];
    const char *slash = strrchr(program, '/');
    r = (struct reading){.program = slash ? slash + 1 : program};
    if (!instead) {
        read_file(&r, MPSHIM_SYSCONFDIR "/mpshim.conf", false);
        if (user_file(path, sizeof path)) read_file(&r, path, false);
    } else if (strcmp(instead, "none")) {
        read = read_file(&r, instead, true);
    }
    if (r.n) setenv("MPSHIM_CONF", r.text, 1);
    else unsetenv("MPSHIM_CONF");
    return read;
}
