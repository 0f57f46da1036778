/* core/settings.h: the engine's settings, from the list in settings.def. */
#ifndef MP_SETTINGS_H
#define MP_SETTINGS_H

#include "core/base.h"

struct mp_settings {
#define MP_SETTING_T_U32 uint32_t
#define MP_SETTING_T_BOOL bool
#define MP_SETTING_T_STR const char *
#define X(type, field, env, def, range, text) MP_SETTING_T_##type field;
#include "core/settings.def"
#undef X
};

void mp_settings_default(struct mp_settings *s);
/* Sets one by its MPSHIM_ suffix or flag name ("cc", "CC", "rcvbuf-kb"). 0; -ENOENT unknown name; -EINVAL with
 * *why naming what is allowed (static text). String values are kept by pointer: they must outlive s. */
int mp_settings_set(struct mp_settings *s, const char *name, const char *value, const char **why);

/* The list as data, for the wrapper's help and the documentation. Ends with name NULL. */
struct mp_setting_desc {
    const char *name;  /* the field's; as a flag with '-' for '_' */
    const char *env;   /* whole variable name, MPSHIM_... */
    const char *type;  /* "U32", "BOOL" or "STR" */
    const char *def;   /* default, as a user would write it */
    const char *range; /* "a..b", or the words that are allowed, separated by spaces */
    const char *text;  /* what it does */
};
extern const struct mp_setting_desc mp_setting_list[];

#endif
