/* tools/mptcp-run/run.h: what the files of mptcp-run share.
 *
 * settings.c  the list of settings, and the value of each with where it comes from
 * files.c     /etc/mpshim.conf and the user's own               target.c  programs that LD_PRELOAD cannot reach
 * place.c     where our libraries are                           check.c   --check, and --strict's look before the start
 * print.c     --help, --settings and the shells' completions */
#ifndef RUN_H
#define RUN_H

#include <stdbool.h>
#include <stddef.h>

enum { EXIT_USAGE = 2, EXIT_STRICT = 125, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

/* ---- settings.c: the core's, the engine's and the shim's as one list ---- */
struct setting {
    const char *env, *def, *range, *text; /* env: without MPSHIM_; def: as written in the .def file */
    const char *value, *origin;           /* NULL: the default */
    char name[32];                        /* as a flag: "max-subflows" */
};
extern struct setting run_settings[];
extern const size_t run_nsettings;
void run_settings_begin(void);                             /* every value is the default again */
char *run_keep(char *text);                                 /* owned here, until the settings begin again; NULL stays NULL */
struct setting *run_find(const char *name, size_t n);       /* "max-subflows", "max_subflows" and "MAX_SUBFLOWS" are one */
const char *run_nearest(const char *name, size_t n);        /* the flag's name that was meant, NULL: none is like it */
bool run_is_allowed(const struct setting *s, const char *value);
bool run_is_switch(const struct setting *s);                /* on or off */
const char *run_possible(const struct setting *s);          /* in words, for messages */
const char *run_default(const struct setting *s, char buf[64]);
const char *run_value(const char *name);                    /* in force; the default where nothing is said */
bool run_is_on(const char *name);
/* Tells what is wrong with a name or value and where; true: nothing is. */
bool run_accept(const char *where, const char *shown, const struct setting *s, const char *name, size_t n, const char *value);
void run_environment(void);                                 /* takes MPSHIM_*; what is wrong is told here once, and left out */

/* ---- files.c ---- */
/* Reads the system's file and the user's (or `instead` of both; "none": neither), for this program and all others it may
 * start: MPSHIM_CONF tells each process. false: `instead` cannot be read. */
bool run_files(const char *instead, const char *program);

/* ---- target.c ---- */
enum run_reach { RUN_REACHED, RUN_MAYBE, RUN_NOT, RUN_FOREIGN /* nor may it be tried: another C library or machine */ };
bool run_find_command(const char *name, char *out, size_t n); /* as execvp() walks PATH */
/* Of a script, its interpreter is looked at, and path becomes its. */
enum run_reach run_look(char *path, size_t n, const char **why);

/* ---- place.c ---- */
bool run_our_file(const char *name, char *path, size_t n);
bool run_preload(void); /* appends libmpshim.so to LD_PRELOAD; false: it is not found */
void run_warn(const char *what, const char *about);

/* ---- check.c ---- */
int run_check(void);        /* prints; exit status */
bool run_check_quiet(void); /* several paths can be used? else says on stderr what is missing */

/* ---- print.c ---- */
void run_usage(void);
void run_print_settings(void);
bool run_print_as(const char *form); /* "roff", "bash", "zsh"; false: no such form */
void run_print_env(void);

#endif
