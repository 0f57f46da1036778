/* tests/unit/settings.c: the settings list. */
#include "core/settings.h"

#include <errno.h>

#include "core/cc/cc.h"
#include "core/sched/sched.h"
#include "test.h"

static int set(const char *name, const char *value, struct mp_settings *s, const char **why)
{
    *why = NULL;
    mp_settings_default(s);
    return mp_settings_set(s, name, value, why);
}

TEST(names_are_taken_in_every_spelling)
{
    static const char *const name[] = { "rcvbuf_kb", "RCVBUF_KB", "rcvbuf-kb", "Rcvbuf-KB" };
    struct mp_settings s;
    const char *why;

    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        ROW("%s", name[i]);
        CHECK_EQ(set(name[i], "128", &s, &why), 0);
        CHECK_EQ(s.rcvbuf_kb, 128);
    }
    CHECK(set("rcvbuf", "128", &s, &why) == -ENOENT);
    CHECK(set("rcvbuf_kbs", "128", &s, &why) == -ENOENT);
    CHECK(set("", "128", &s, &why) == -ENOENT);
}

TEST(values_out_of_range_are_refused_with_what_is_allowed)
{
    static const struct { const char *name, *value, *why; int result; } row[] = {
        { "max_subflows", "1", NULL, 0 },
        { "max_subflows", "8", NULL, 0 },
        { "max_subflows", "0", "max_subflows: a number in 1..8", -EINVAL },
        { "max_subflows", "9", "max_subflows: a number in 1..8", -EINVAL },
        { "max_subflows", "", "max_subflows: a number in 1..8", -EINVAL },
        { "max_subflows", "-1", "max_subflows: a number in 1..8", -EINVAL },
        { "max_subflows", "2x", "max_subflows: a number in 1..8", -EINVAL },
        { "max_subflows", " 2", "max_subflows: a number in 1..8", -EINVAL },
        { "max_subflows", "4294967298", "max_subflows: a number in 1..8", -EINVAL },
        { "max_subflows", "18446744073709551618", "max_subflows: a number in 1..8", -EINVAL },
        { "checksum", "on", NULL, 0 },
        { "checksum", "0", NULL, 0 },
        { "checksum", "false", NULL, 0 },
        { "checksum", "maybe", "checksum: one of: on off", -EINVAL },
        { "checksum", "", "checksum: one of: on off", -EINVAL },
        { "checksum", "on off", "checksum: one of: on off", -EINVAL },
        { "cc", "cubic", NULL, 0 },
        { "cc", "cub", "cc: one of: lia olia balia wvegas cubic reno", -EINVAL },
        { "cc", "", "cc: one of: lia olia balia wvegas cubic reno", -EINVAL },
        { "cc", "lia cubic", "cc: one of: lia olia balia wvegas cubic reno", -EINVAL },
    };
    struct mp_settings s;
    const char *why;

    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        int r = set(row[i].name, row[i].value, &s, &why);

        ROW("%s=%s: %d %s", row[i].name, row[i].value, r, why ? why : "-");
        CHECK(r == row[i].result);
        if (row[i].why && row[i].name[0] != 'c') CHECK(why && strcmp(why, row[i].why) == 0);
        if (row[i].why) CHECK(why && strncmp(why, row[i].name, strlen(row[i].name)) == 0);
    }
}

TEST(refused_value_leaves_the_setting)
{
    struct mp_settings s, d;
    const char *why;

    mp_settings_default(&d);
    set("rto_min_ms", "5", &s, &why);
    CHECK_EQ(s.rto_min_ms, d.rto_min_ms);
    set("cc", "vegas", &s, &why);
    CHECK(strcmp(s.cc, d.cc) == 0);
}

/* Each default passes its own check, so the range cannot exclude it. */
TEST(every_default_is_allowed)
{
    struct mp_settings s;
    const char *why;

    for (const struct mp_setting_desc *d = mp_setting_list; d->name; d++) {
        ROW("%s=%s", d->name, d->def);
        CHECK_EQ(set(d->name, d->def, &s, &why), 0);
        CHECK(strncmp(d->env, "MPSHIM_", 7) == 0);
        CHECK_EQ(set(d->env + 7, d->def, &s, &why), 0);
        CHECK(d->text[0] && d->range[0]);
    }
}

static const char *range_of(const char *name)
{
    for (const struct mp_setting_desc *d = mp_setting_list; d->name; d++)
        if (strcmp(d->name, name) == 0) return d->range;
    return "";
}

TEST(words_of_cc_and_scheduler_are_the_algorithms)
{
    char words[200] = "";

    for (int i = 0; mp_cc_all[i]; i++) {
        if (i) strcat(words, " ");
        strcat(words, mp_cc_all[i]->name);
    }
    ROW("%s", words);
    CHECK(strcmp(words, range_of("cc")) == 0);
    words[0] = 0;
    for (int i = 0; mp_sched_all[i]; i++) {
        if (i) strcat(words, " ");
        strcat(words, mp_sched_all[i]->name);
    }
    ROW("%s", words);
    CHECK(strcmp(words, range_of("scheduler")) == 0);
}
