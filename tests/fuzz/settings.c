/* tests/fuzz/settings.c: any name and value given to mp_settings_set. Input: name, zero byte, value. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void broken(const char *what)
{
    fprintf(stderr, "%s\n", what);
    abort();
}

static bool in_list(const char *word, const char *list)
{
    for (size_t n; *list; list += n, list += *list == ' ') {
        n = strcspn(list, " ");
        if (strlen(word) == n && memcmp(word, list, n) == 0) return true;
    }
    return false;
}

/* Every field is still within its range. */
static void check(const struct mp_settings *s)
{
    char *end;
#define RANGE_U32(field, range) (s->field >= strtoul(range, &end, 10) && s->field <= strtoul(end + 2, NULL, 10))
#define RANGE_BOOL(field, range) (*(const unsigned char *)&s->field <= 1 && *(range))
#define RANGE_STR(field, range) in_list(s->field, range)
#define X(type, field, env, def, range, text) if (!RANGE_##type(field, range)) broken(#field " out of range");
#include "core/settings.def"
#undef X
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct mp_settings s, before;
    const char *why = NULL;
    char *text = malloc(n + 2), *value; /* exact: a read past the end is seen */
    if (n) memcpy(text, data, n);
    text[n] = text[n + 1] = 0;
    value = text + strlen(text) + 1;
    if (value > text + n + 1) value = text + n;
    mp_settings_default(&s);
    check(&s);
    before = s;
    int r = mp_settings_set(&s, text, value, &why);
    if (r != 0 && r != -ENOENT && r != -EINVAL) broken("unknown error code");
    if (r == -EINVAL && !why) broken("refused without a reason");
    if (r && memcmp(&s, &before, sizeof s)) broken("written on error");
    check(&s);
    free(text);
    return 0;
}
