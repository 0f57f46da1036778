/* Everything that is printed from the list of settings: help, the settings in force, the man page's table, completions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

/* What stands for the value: --cc=WORD, --syn-tries=N. */
static const char *kind(const struct setting *s)
{
    if (*s->range == '{') return "RULES";
    return !*s->range ? "..." : strstr(s->range, "..") ? "N" : "WORD";
}

static void flag(const struct setting *s, char out[96])
{
    if (run_is_switch(s)) snprintf(out, 96, strncmp(s->name, "no-", 3) ? "--%s, --no-%s" : "--%s", s->name, s->name);
    else snprintf(out, 96, "--%s=%s", s->name, kind(s));
}

void run_usage(void)
{
    printf("Usage: mptcp-run [OPTION]... COMMAND [ARGUMENT]...\n"
           "Runs COMMAND with its TCP connections over several paths at once (Multipath TCP).\n\n"
           "  -v, -vv                  tell what becomes of each connection; -vv: more\n"
           "  --check                  tell what this machine has and lacks, each with its remedy; runs nothing\n"
           "  --settings [COMMAND]     print the settings in force, and where each comes from; runs nothing\n"
           "  --env [COMMAND]          print the environment that makes a program use libmpshim, for a service file\n"
           "  --config=FILE            this file instead of /etc/mpshim.conf and ~/.config/mpshim.conf; none: no file\n"
           "  --completion=SHELL       print completions for bash or zsh\n"
           "  --help, --version\n\n"
           "Settings; also as MPSHIM_NAME in the environment, and in the files as name = value, or in a section [program]:\n");
    for (size_t i = 0; i < run_nsettings; i++) {
        const struct setting *s = &run_settings[i];
        char with[96], def[64];
        flag(s, with);
        printf("  %-24s %s", with, s->text);
        if (*s->range && *s->range != '{' && !run_is_switch(s)) printf(" (%s)", s->range);
        if (*run_default(s, def)) printf(" [%s]", def);
        putchar('\n');
    }
    printf("\nA flag counts more than the environment, that more than the user's file, that more than the system's.\n"
           "Exit status: COMMAND's; 2: wrong usage; 125: refused, with --strict; 126: COMMAND cannot be run; 127: it is not found.\n"
           "With --check: 0: several paths can be used; 1: something is MISSING.\n");
}

void run_print_settings(void)
{
    printf("%-16s %-16s %s\n", "setting", "value", "from");
    for (size_t i = 0; i < run_nsettings; i++) {
        char def[64];
        const struct setting *s = &run_settings[i];
        printf("%-16s %-16s %s\n", s->name, s->value ? s->value : run_default(s, def), s->origin ? s->origin : "default");
    }
}

/* ---- the environment, for who starts programs by other means (LD_PRELOAD alone) ---- */

/* As systemd's EnvironmentFile= and shells read it. */
static void print_quoted(const char *name, const char *value)
{
    printf("%s=\"", name);
    for (const char *p = value; *p; p++) {
        if (strchr("\"\\$`", *p)) putchar('\\');
        putchar(*p);
    }
    puts("\"");
}

void run_print_env(void)
{
    extern char **environ;
    print_quoted("LD_PRELOAD", getenv("LD_PRELOAD"));
    for (char **e = environ; *e; e++) {
        char *eq = strncmp(*e, "MPSHIM_", 7) ? NULL : strchr(*e, '=');
        char name[64];
        if (!eq) continue;
        snprintf(name, sizeof name, "%.*s", (int)(eq - *e), *e);
        print_quoted(name, eq + 1);
    }
}

/* ---- docs/man ---- */

static void print_roff(void)
{
    puts(".\\\" This table is printed by mptcp-run --print-as=roff; tests/test_run.py compares.");
    for (size_t i = 0; i < run_nsettings; i++) {
        char with[96], def[64];
        const struct setting *s = &run_settings[i];
        flag(s, with);
        printf(".TP\n.B ");
        for (const char *p = with; *p; p++) printf(*p == '-' ? "\\-" : "%c", *p);
        printf("\n%s.\n", s->text);
        const char *to = strstr(s->range, "..");
        if (to) printf("From %.*s to %s.\n", (int)(to - s->range), s->range, to + 2);
        else if (*s->range && *s->range != '{' && !run_is_switch(s)) printf("One of: %s.\n", s->range);
        if (*run_default(s, def)) printf("Default: %s.\n", def);
        printf(".br\nVariable:\n.BR MPSHIM_%s .\n", s->env);
    }
}

/* ---- completions ---- */

static const char *const plain_options[] = {"-v", "-vv", "--check", "--settings", "--env", "--config=", "--completion=", "--help", "--version"};

static void print_bash(void)
{
    puts("# bash completion for mptcp-run; printed by mptcp-run --completion=bash\n"
         "_mptcp_run()\n"
         "{\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} i name\n"
         "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "        case ${COMP_WORDS[i]} in -*|=) ;; *) [[ ${COMP_WORDS[i-1]} = \"=\" ]] || { _command_offset $i 2> /dev/null; return; } ;; esac\n"
         "    done\n"
         "    if [[ $cur = \"=\" ]]; then name=${COMP_WORDS[COMP_CWORD-1]} cur=\n"
         "    elif [[ ${COMP_WORDS[COMP_CWORD-1]} = \"=\" ]]; then name=${COMP_WORDS[COMP_CWORD-2]}; fi\n"
         "    case $name in");
    for (size_t i = 0; i < run_nsettings; i++) {
        const struct setting *s = &run_settings[i];
        bool words = *s->range && *s->range != '{' && !strstr(s->range, "..");
        if (words) printf("    --%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n", s->name, s->range);
        if (!strcmp(s->name, "interfaces") || !strcmp(s->name, "backup"))
            printf("    --%s) COMPREPLY=($(compgen -W \"$(ls /sys/class/net 2> /dev/null)\" -- \"$cur\")); return ;;\n", s->name);
    }
    puts("    --completion) COMPREPLY=($(compgen -W 'bash zsh' -- \"$cur\")); return ;;\n"
         "    --config|--log|--control) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
         "    --*) return ;;\n"
         "    esac\n"
         "    if [[ $cur = -* ]]; then\n"
         "        compopt -o nospace 2> /dev/null");
    printf("        COMPREPLY=($(compgen -W '");
    for (size_t i = 0; i < sizeof plain_options / sizeof *plain_options; i++) printf("%s ", plain_options[i]);
    for (size_t i = 0; i < run_nsettings; i++) {
        const struct setting *s = &run_settings[i];
        printf(run_is_switch(s) ? "--%s --no-%s " : "--%s= ", s->name, s->name);
    }
    puts("' -- \"$cur\"))\n"
         "        [[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} = *= ]] || COMPREPLY[0]+=' '\n"
         "    else\n"
         "        COMPREPLY=($(compgen -c -- \"$cur\"))\n"
         "    fi\n"
         "}\n"
         "complete -F _mptcp_run mptcp-run");
}

/* zsh's own quoting of a description: no brackets, colons or quotes. */
static void zsh_text(const char *text)
{
    for (const char *p = text; *p; p++) putchar(strchr("[]:'", *p) ? ' ' : *p);
}

static void print_zsh(void)
{
    puts("#compdef mptcp-run\n# printed by mptcp-run --completion=zsh\n_arguments -S \\\n"
         "  '-v[tell what becomes of each connection]' '-vv[tell more]' \\\n"
         "  '--check[tell what this machine has and lacks]' '--settings[print the settings in force]' '--env[print the environment]' \\\n"
         "  '--config=[configuration file]:file:_files' '--completion=[print completions]:shell:(bash zsh)' '--help[help]' '--version[version]' \\");
    for (size_t i = 0; i < run_nsettings; i++) {
        const struct setting *s = &run_settings[i];
        printf(run_is_switch(s) ? "  '--%s[" : "  '--%s=[", s->name);
        zsh_text(s->text);
        if (run_is_switch(s)) printf("]' '--no-%s[not", s->name), printf("]' \\\n");
        else if (*s->range && *s->range != '{' && !strstr(s->range, "..")) printf("]:%s:(%s)' \\\n", s->name, s->range);
        else if (!strcmp(s->name, "interfaces") || !strcmp(s->name, "backup")) printf("]:%s:_net_interfaces' \\\n", s->name);
        else printf("]:%s:' \\\n", s->name);
    }
    puts("  '(-)1:command:_command_names -e' '*::arguments:_normal'");
}

bool run_print_as(const char *form)
{
    if (!strcmp(form, "roff")) print_roff();
    else if (!strcmp(form, "bash")) print_bash();
    else if (!strcmp(form, "zsh")) print_zsh();
    else return false;
    return true;
}
