/* The settings: one list with the engine's and the shim's, and what the environment says of them. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"
#include "shim/rules.h"

#define PREFIX "MPSHIM_"
#define PREFIX_LEN (sizeof PREFIX - 1)

struct setting run_settings[] = {
#define X(type, field, env, def, range, text) {#env, #def, range, text, NULL, NULL, ""},
#include "core/settings.def"
#include "shim/settings.def"
#undef X
};
const size_t run_nsettings = sizeof run_settings / sizeof *run_settings;

static struct kept { struct kept *next; char *text; } *all_kept;

void run_settings_begin(void)
{
    for (struct kept *k; (k = all_kept);) {
        all_kept = k->next;
        free(k->text);
        free(k);
    }
    for (size_t i = 0; i < run_nsettings; i++) {
        run_settings[i].value = run_settings[i].origin = NULL;
        const char *e = run_settings[i].env;
        char *out = run_settings[i].name;
        for (; *e && out < run_settings[i].name + sizeof run_settings[i].name - 1; e++) *out++ = *e == '_' ? '-' : (char)tolower((unsigned char)*e);
        *out = 0;
    }
}

char *run_keep(char *text)
{
    struct kept *k = text ? malloc(sizeof *k) : NULL;
    if (!k) return text;
    *k = (struct kept){all_kept, text};
    all_kept = k;
    return text;
}

static char plain(char c) { return c == '_' ? '-' : (char)tolower((unsigned char)c); }

struct setting *run_find(const char *name, size_t n)
{
    for (size_t i = 0; i < run_nsettings; i++) {
        size_t j = 0;
        while (j < n && run_settings[i].name[j] == plain(name[j])) j++;
        if (j == n && !run_settings[i].name[n]) return &run_settings[i];
    }
    return NULL;
}

/* ---- which name was meant ---- */

enum { NAME_MAX_LEN = 31 };

/* Edits between two names: a letter more, less, or another one (Levenshtein). */
static size_t distance(const char *a, size_t n, const char *b)
{
    size_t row[NAME_MAX_LEN + 2], m = strlen(b);
    if (n > NAME_MAX_LEN || m > NAME_MAX_LEN) return NAME_MAX_LEN;
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t up = row[j], best = diagonal + (plain(a[i - 1]) != b[j - 1]);
            if (up + 1 < best) best = up + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = up;
            row[j] = best;
        }
    }
    return row[m];
}

const char *run_nearest(const char *name, size_t n)
{
    size_t best = n < 4 ? 1 : n / 3 + 1; /* further away is no misspelling */
    const char *found = NULL;
    for (size_t i = 0; i < run_nsettings; i++) {
        size_t d = distance(name, n, run_settings[i].name);
        bool begins = n >= 3 && !strncmp(run_settings[i].name, name, n);
        if (begins && !found) found = run_settings[i].name;
        if (d <= best) best = d - !!d, found = run_settings[i].name;
    }
    return found;
}

/* ---- values ---- */

bool run_is_switch(const struct setting *s) { return !strcmp(s->range, "on off"); }

static bool is_in_range(const char *value, unsigned long low, unsigned long high)
{
    char *end;
    unsigned long v = strtoul(value, &end, 10);
    return isdigit((unsigned char)*value) && !*end && v >= low && v <= high;
}

static bool is_word_of(const char *value, const char *words)
{
    size_t n = strlen(value);
    for (const char *p = words; n && *p; p += strcspn(p, " "), p += strspn(p, " "))
        if (strcspn(p, " ") == n && !strncmp(p, value, n)) return true;
    return false;
}

/* range: "a..b", words, "{rules}", or empty: anything. */
bool run_is_allowed(const struct setting *s, const char *value)
{
    unsigned long low, high;
    struct shim_rule rules[SHIM_RULES_MAX];
    const char *bad;
    if (!*s->range) return true;
    if (*s->range == '{') return shim_rules_read(value, rules, SHIM_RULES_MAX, &bad) >= 0;
    if (sscanf(s->range, "%lu..%lu", &low, &high) == 2) return is_in_range(value, low, high);
    return is_word_of(value, run_is_switch(s) ? "on off 1 0 yes no true false" : s->range); /* as core/settings.c */
}

const char *run_possible(const struct setting *s)
{
    return *s->range == '{' ? "ADDRESS, ADDRESS/BITS, ADDRESS:PORT, [ADDRESS/BITS]:PORT-PORT, :PORT, comma list" : s->range;
}

const char *run_default(const struct setting *s, char buf[64])
{
    size_t n = strlen(s->def);
    bool quoted = n >= 2 && *s->def == '"';
    snprintf(buf, 64, "%.*s", (int)(quoted ? n - 2 : n), s->def + quoted);
    if (run_is_switch(s) && !quoted) strcpy(buf, *s->def == '1' ? "on" : "off");
    return buf;
}

const char *run_value(const char *name)
{
    static char buf[64];
    const struct setting *s = run_find(name, strlen(name));
    return s->value ? s->value : run_default(s, buf);
}

bool run_is_on(const char *name) { return is_word_of(run_value(name), "on 1 yes true"); }

bool run_accept(const char *where, const char *shown, const struct setting *s, const char *name, size_t n, const char *value)
{
    const char *near = s ? NULL : run_nearest(name, n);
    if (!s && near) fprintf(stderr, "mptcp-run: %s%s: no such setting; is %s meant?\n", where, shown, near);
    else if (!s) fprintf(stderr, "mptcp-run: %s%s: no such setting\n", where, shown);
    else if (*value && !run_is_allowed(s, value)) fprintf(stderr, "mptcp-run: %s%s=%s: not possible; possible: %s\n", where, shown, value, run_possible(s));
    else return true;
    return false;
}

static bool is_wrong(const char *variable)
{
    const char *name = variable + PREFIX_LEN, *eq = strchr(variable, '=');
    char shown[64], *origin;
    if (strncmp(variable, PREFIX, PREFIX_LEN) || !eq || !strncmp(variable, PREFIX "CONF=", PREFIX_LEN + 5)) return false;
    struct setting *s = run_find(name, (size_t)(eq - name));
    snprintf(shown, sizeof shown, "%.*s", (int)(eq - variable), variable);
    if (!run_accept("", shown, s, name, (size_t)(eq - name), eq + 1)) return true;
    if (eq[1] && (origin = run_keep(strdup(shown)))) s->value = eq + 1, s->origin = origin;
    return false;
}

/* Wrong ones are left out: every process of the command would tell it again. */
void run_environment(void)
{
    extern char **environ;
    char **keep = environ;
    for (char **e = environ; *e; e++)
        if (!is_wrong(*e)) *keep++ = *e;
    *keep = NULL;
}
