/* core/settings.c: see settings.h. One handler a type; the list does the rest. */
#include "core/settings.h"

#include <errno.h>
#include <stddef.h>

enum type { T_U32, T_BOOL, T_STR };

#define DEF_TEXT_U32(def) #def
#define DEF_TEXT_BOOL(def) ((def) ? "on" : "off")
#define DEF_TEXT_STR(def) def
#define WHY_U32(field, range) #field ": a number in " range
#define WHY_BOOL(field, range) #field ": one of: " range
#define WHY_STR(field, range) #field ": one of: " range

const struct mp_setting_desc mp_setting_list[] = {
#define X(type, field, env, def, range, text) { #field, "MPSHIM_" #env, #type, DEF_TEXT_##type(def), range, text },
#include "core/settings.def"
#undef X
    { 0 }
};

static const struct setting {
    const char *name;
    enum type type;
    size_t offset;
    const char *range, *why;
} settings[] = {
#define X(type, field, env, def, range, text) { #field, T_##type, offsetof(struct mp_settings, field), range, WHY_##type(field, range) },
#include "core/settings.def"
#undef X
};

void mp_settings_default(struct mp_settings *s)
{
    memset(s, 0, sizeof *s);
#define X(type, field, env, def, range, text) s->field = def;
#include "core/settings.def"
#undef X
}

/* The locale's tolower would be the program's. */
static char plain(char c)
{
    if (c == '-') return '_';
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool same_name(const char *a, const char *b)
{
    for (; *a && plain(*a) == plain(*b); a++) b++;
    return plain(*a) == plain(*b);
}

static const struct setting *find(const char *name)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (same_name(settings[i].name, name)) return &settings[i];
    return NULL;
}

/* Decimal digits only, up to end (NULL: to the end of the text); saturates above UINT32_MAX. */
static bool parse_number(const char *p, const char *end, uint64_t *v)
{
    if (p == end || !*p) return false;
    for (*v = 0; p != end && *p; p++) {
        if (*p < '0' || *p > '9') return false;
        if (*v <= UINT32_MAX) *v = *v * 10 + (uint64_t)(*p - '0');
    }
    return true;
}

static int set_u32(uint32_t *field, const char *range, const char *value)
{
    const char *dots = strstr(range, "..");
    uint64_t v, lo, hi;

    if (!parse_number(range, dots, &lo) || !parse_number(dots + 2, NULL, &hi)) return -EINVAL;
    if (!parse_number(value, NULL, &v) || v < lo || v > hi) return -EINVAL;
    *field = (uint32_t)v;
    return 0;
}

static bool is_word_of(const char *word, const char *list)
{
    size_t n = strlen(word);

    for (; n && *list; list += strcspn(list, " "), list += *list == ' ')
        if (strcspn(list, " ") == n && memcmp(list, word, n) == 0) return true;
    return false;
}

static int set_bool(bool *field, const char *value)
{
    if (!is_word_of(value, "on off 1 0 yes no true false")) return -EINVAL;
    *field = is_word_of(value, "on 1 yes true");
    return 0;
}

static int set_str(const char **field, const char *range, const char *value)
{
    if (!is_word_of(value, range)) return -EINVAL;
    *field = value;
    return 0;
}

int mp_settings_set(struct mp_settings *s, const char *name, const char *value, const char **why)
{
    const struct setting *d = find(name);
    char *field;
    int r = -EINVAL;

    if (!d) return -ENOENT;
    field = (char *)s + d->offset;
    switch (d->type) {
    case T_U32:  r = set_u32((uint32_t *)(void *)field, d->range, value); break;
    case T_BOOL: r = set_bool((bool *)(void *)field, value); break;
    case T_STR:  r = set_str((const char **)(void *)field, d->range, value); break;
    }
    if (r && why) *why = d->why;
    return r;
}
