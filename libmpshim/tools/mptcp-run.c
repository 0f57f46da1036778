/* mptcp-run: runs a program with its TCP connections over several paths. Sets the environment, then exec. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mptcp-run/run.h"

#ifndef MPSHIM_VERSION
#define MPSHIM_VERSION "0.1"
#endif

enum action { RUN, CHECK, SETTINGS, ENV };
struct options {
    enum action action;
    const char *config;
    struct { struct setting *s; const char *value; char *origin; } flag[64]; /* in order; the later one counts */
    int nflags;
    int command; /* index; argc: none */
};

static void add_flag(struct options *o, const char *shown, size_t shown_len, const char *name, size_t n, const char *value)
{
    struct setting *s = run_find(name, n);
    char *origin = run_keep(strndup(shown, shown_len));
    if (!value && s && !run_is_switch(s)) {
        fprintf(stderr, "mptcp-run: %s: needs a value, --%s=...\n", shown, s->name);
        exit(EXIT_USAGE);
    }
    if (!origin || !run_accept("", origin, s, name, n, value ? value : "on")) exit(EXIT_USAGE);
    if (o->nflags == (int)(sizeof o->flag / sizeof *o->flag)) return;
    o->flag[o->nflags].s = s;
    o->flag[o->nflags].value = value ? value : "on";
    o->flag[o->nflags++].origin = origin;
}

/* --name=value, --switch, --no-switch. "--name value" is not offered: the command's own words must not be swallowed. */
static void setting_flag(struct options *o, const char *arg)
{
    const char *eq = strchr(arg, '='), *name = arg + 2;
    size_t n = eq ? (size_t)(eq - name) : strlen(name);
    struct setting *s = !eq && !strncmp(name, "no-", 3) ? run_find(name + 3, n - 3) : NULL;
    if (s && run_is_switch(s)) add_flag(o, arg, n + 2, name + 3, n - 3, "off");
    else add_flag(o, arg, n + 2, name, n, eq ? eq + 1 : NULL);
}

static void print_and_exit(const char *form)
{
    if (run_print_as(form)) exit(0);
    fprintf(stderr, "mptcp-run: %s: no such form\n", form);
    exit(EXIT_USAGE);
}

/* Options end at the first word that is none. */
static void options(int argc, char **argv, struct options *o)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "--")) {
            i++;
            break;
        }
        if (!strcmp(a, "--help") || !strcmp(a, "-h")) run_usage(), exit(0);
        else if (!strcmp(a, "--version")) puts("mptcp-run " MPSHIM_VERSION), exit(0);
        else if (!strcmp(a, "--check")) o->action = CHECK;
        else if (!strcmp(a, "--settings")) o->action = SETTINGS;
        else if (!strcmp(a, "--env")) o->action = ENV;
        else if (!strncmp(a, "--config=", 9)) o->config = a + 9;
        else if (!strncmp(a, "--completion=", 13)) print_and_exit(a + 13);
        else if (!strncmp(a, "--print-as=", 11)) print_and_exit(a + 11);
        else if (!strcmp(a, "-v")) add_flag(o, a, 2, "verbose", 7, "1");
        else if (!strcmp(a, "-vv")) add_flag(o, a, 3, "verbose", 7, "2");
        else if (!strncmp(a, "--", 2)) setting_flag(o, a);
        else {
            fprintf(stderr, "mptcp-run: %s: no such option (see mptcp-run --help)\n", a);
            exit(EXIT_USAGE);
        }
    }
    o->command = i;
}

/* Files, then the environment, then flags: the later counts more. */
static void settle(struct options *o, const char *command)
{
    if (!run_files(o->config, command)) exit(EXIT_USAGE); /* what it says may be what must not be carried, or --strict */
    run_environment();
    for (int i = 0; i < o->nflags; i++) {
        char env[64];
        o->flag[i].s->value = o->flag[i].value;
        o->flag[i].s->origin = o->flag[i].origin;
        snprintf(env, sizeof env, "MPSHIM_%s", o->flag[i].s->env);
        setenv(env, o->flag[i].value, 1);
    }
}

/* The lines of -v would be lost, and nobody told. */
static void look_at_log(void)
{
    const struct setting *s = run_find("log", 3);
    int fd = s->value && *s->value && strcmp(run_value("verbose"), "0") ? open(s->value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : 0;
    if (fd > 0) close(fd);
    if (fd >= 0) return;
    fprintf(stderr, "mptcp-run: %s=%s: %s\n", s->origin, s->value, strerror(errno));
    if (*s->origin == '-') exit(EXIT_USAGE);
}

static void refuse(const char *about, const char *why)
{
    if (why) run_warn(why, about);
    run_warn("not started, since --strict asks for multipath", about);
    exit(EXIT_STRICT);
}

/* What will become of it; --strict: it is started only if that is multipath, as far as can be seen before. */
static void before_start(const char *name)
{
    char path[PATH_MAX];
    const char *why = NULL;
    bool strict = run_is_on("strict"), known = run_find_command(name, path, sizeof path);
    enum run_reach reach = known ? run_look(path, sizeof path, &why) : RUN_REACHED;
    if (reach != RUN_REACHED) run_warn(why, path);
    if (strict && reach != RUN_REACHED) refuse(name, NULL);
    if (strict && !strcmp(run_value("engine"), "never")) refuse(name, "--engine=never is kernel TCP only");
    if (strict && known && !run_check_quiet()) refuse(name, NULL);
    if (reach == RUN_FOREIGN) return; /* its loader would only complain */
    if (run_preload()) return;
    if (strict) refuse(name, "libmpshim.so is not to be had");
    run_warn("libmpshim.so is not to be had: the command runs on kernel TCP", NULL);
}

int main(int argc, char **argv)
{
    static struct options o;
    run_settings_begin();
    options(argc, argv, &o);
    char **command = argv + o.command;
    settle(&o, *command ? *command : "");
    if (o.action == CHECK) return run_check();
    if (o.action == SETTINGS) return run_print_settings(), 0;
    if (o.action == ENV) return run_preload() ? (run_print_env(), 0) : (run_warn("libmpshim.so is not to be had", NULL), 1);
    if (!*command) {
        fprintf(stderr, "mptcp-run: no command (see mptcp-run --help)\n");
        return EXIT_USAGE;
    }
    look_at_log();
    before_start(*command);
    execvp(*command, command);
    int err = errno;
    run_warn(strerror(err), *command);
    return err == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}
