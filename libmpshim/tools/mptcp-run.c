/* mptcp-run: runs a program with its TCP connections over several paths. Sets the environment, then exec. */
#include <ctype.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef MPSHIM_LIBDIR
#define MPSHIM_LIBDIR "/usr/local/lib/libmpshim"
#endif
#ifndef MPSHIM_VERSION
#define MPSHIM_VERSION "0.1"
#endif

enum { EXIT_USAGE = 2, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

/* ---- the settings: one list with the engine's and the shim's ---- */

struct setting { const char *env, *def, *range, *text; };
static const struct setting settings[] = {
#define X(type, field, env, def, range, text) {#env, #def, range, text},
#include "core/settings.def"
#undef X
#define X(type, field, env, def, range, text) {#env, #def, range, text},
#include "shim/settings.def"
#undef X
};
#define N_SETTINGS (sizeof settings / sizeof *settings)

/* "max-subflows", "max_subflows", "MAX_SUBFLOWS" are one name. */
static bool is_named(const struct setting *s, const char *name, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = name[i] == '-' ? '_' : (char)toupper((unsigned char)name[i]);
        if (s->env[i] != c) return false;
    }
    return s->env[n] == 0;
}

static const struct setting *setting_find(const char *name, size_t n)
{
    for (size_t i = 0; i < N_SETTINGS; i++)
        if (is_named(&settings[i], name, n)) return &settings[i];
    return NULL;
}

/* range: "a..b", words, or empty: anything. */
static bool is_allowed(const struct setting *s, const char *value)
{
    unsigned long low, high;
    if (!*s->range) return true;
    if (sscanf(s->range, "%lu..%lu", &low, &high) == 2) {
        char *end;
        unsigned long v = strtoul(value, &end, 10);
        return isdigit((unsigned char)*value) && !*end && v >= low && v <= high;
    }
    size_t n = strlen(value);
    const char *words = strcmp(s->range, "on off") ? s->range : "on off 1 0 yes no true false"; /* as core/settings.c */
    for (const char *p = words; *p; p += strcspn(p, " "), p += strspn(p, " "))
        if (n && !strncmp(p, value, n) && (!p[n] || p[n] == ' ')) return true;
    return false;
}

static void flag_name(const struct setting *s, char *out)
{
    *out++ = '-', *out++ = '-';
    for (const char *p = s->env; *p; p++) *out++ = *p == '_' ? '-' : (char)tolower((unsigned char)*p);
    *out = 0;
}

static void print_default(const struct setting *s)
{
    const char *d = s->def;
    if (!strcmp(s->range, "on off")) d = *d == '1' ? "on" : "off";
    size_t n = strlen(d);
    bool quoted = n >= 2 && *d == '"';
    if (quoted) d++, n -= 2;
    if (n) printf(" [%.*s]", (int)n, d);
}

static void usage(void)
{
    printf("Usage: mptcp-run [OPTION]... COMMAND [ARGUMENT]...\n"
           "Runs COMMAND with its TCP connections over several paths at once (Multipath TCP).\n\n"
           "  -v, -vv                  tell what becomes of each connection; -vv: more\n"
           "  --check                  tell what this machine has and lacks, each with its remedy; runs nothing\n"
           "  --help, --version\n\n"
           "Settings, also as MPSHIM_NAME in the environment:\n");
    for (size_t i = 0; i < N_SETTINGS; i++) {
        char flag[64], with[128];
        const struct setting *s = &settings[i];
        flag_name(s, flag);
        snprintf(with, sizeof with, "%s=%s", flag, !*s->range ? "..." : strstr(s->range, "..") ? "N" : "WORD");
        printf("  %-24s %s", with, s->text);
        if (*s->range) printf(" (%s)", s->range);
        print_default(s);
        putchar('\n');
    }
    printf("\nExit status: COMMAND's; 2: wrong usage; 126: COMMAND cannot be run; 127: it is not found.\n"
           "With --check: 0: several paths can be used; 1: something is MISSING.\n");
}

/* ---- our files: beside this program (build tree), else where they were installed ---- */

static bool joined(char *path, size_t n, const char *dir, const char *between, const char *name)
{
    size_t a = strlen(dir), b = strlen(between), c = strlen(name) + 1;
    if (a + b + c > n) return false;
    memcpy(path, dir, a);
    memcpy(path + a, between, b);
    memcpy(path + a + b, name, c);
    return true;
}

static bool our_file(const char *name, char *path, size_t n)
{
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len > 0) {
        self[len] = 0;
        *strrchr(self, '/') = 0;
        if (joined(path, n, self, "/", name) && access(path, R_OK) == 0) return true;
        if (joined(path, n, self, "/../lib/libmpshim/", name) && access(path, R_OK) == 0) return true;
    }
    snprintf(path, n, "%s/%s", MPSHIM_LIBDIR, name);
    return access(path, R_OK) == 0;
}

static void warn(const char *what, const char *about)
{
    fprintf(stderr, "mptcp-run: %s%s%s\n", about ? about : "", about ? ": " : "", what);
}

/* ---- programs that LD_PRELOAD cannot reach ---- */

/* PATH as execvp() walks it. */
static bool find_command(const char *name, char *out, size_t n)
{
    if (strchr(name, '/')) return snprintf(out, n, "%s", name) < (int)n && access(out, F_OK) == 0;
    const char *path = getenv("PATH");
    for (const char *p = path ? path : "/bin:/usr/bin"; p; p = strchr(p, ':') ? strchr(p, ':') + 1 : NULL) {
        int len = (int)strcspn(p, ":");
        if (snprintf(out, n, "%.*s/%s", len ? len : 1, len ? p : ".", name) < (int)n && access(out, X_OK) == 0) return true;
    }
    return false;
}

struct elf_facts { bool is_elf, has_interp, is_go; };

/* Reads the program headers of a 64-bit ELF file; a script or anything odd: is_elf stays false. */
static void elf_look(const unsigned char *p, size_t n, struct elf_facts *f)
{
    const Elf64_Ehdr *h = (const void *)p;
    if (n < sizeof *h || memcmp(h->e_ident, ELFMAG, SELFMAG) || h->e_ident[EI_CLASS] != ELFCLASS64) return;
    if (h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phoff > n || (n - h->e_phoff) / sizeof(Elf64_Phdr) < h->e_phnum) return;
    f->is_elf = true;
    const Elf64_Phdr *ph = (const void *)(p + h->e_phoff);
    for (int i = 0; i < h->e_phnum; i++) {
        if (ph[i].p_type == PT_INTERP) f->has_interp = true;
        if (ph[i].p_type != PT_NOTE || ph[i].p_offset > n || n - ph[i].p_offset < sizeof(Elf64_Nhdr) + 4) continue;
        const Elf64_Nhdr *note = (const void *)(p + ph[i].p_offset);
        if (note->n_namesz == 4 && !memcmp(note + 1, "Go\0", 4)) f->is_go = true;
    }
}

static void tell_if_unreachable(const char *path)
{
    struct stat st;
    char caps[64];
    struct elf_facts f = {false, false, false};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        if (fd >= 0) close(fd);
        return;
    }
    void *m = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (m != MAP_FAILED) {
        elf_look(m, (size_t)st.st_size, &f);
        munmap(m, (size_t)st.st_size);
    }
    close(fd);
    bool setid = ((st.st_mode & S_ISUID) && st.st_uid != geteuid()) || ((st.st_mode & S_ISGID) && st.st_gid != getegid());
    if (f.is_elf && !f.has_interp) warn("is statically linked: it runs on kernel TCP", path);
    else if (setid) warn("is set-user-ID or set-group-ID: it runs on kernel TCP", path);
    else if (geteuid() != 0 && getxattr(path, "security.capability", caps, sizeof caps) > 0) warn("has file capabilities: it runs on kernel TCP", path);
    else if (f.is_go) warn("is written in Go, which mostly makes its system calls itself: it may run on kernel TCP", path);
}

/* ---- --check ---- */

/* What decides which interfaces count, as the engine's settings. */
static int check_with(int (*f)(int, const char *const *))
{
    static const char *const names[] = {"interfaces", "backup", "io"};
    char text[3][512];
    const char *settings[4];
    int n = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char env[64];
        const char *value;
        snprintf(env, sizeof env, "MPSHIM_%s", names[i]);
        for (char *p = env; *p; p++) *p = (char)toupper((unsigned char)*p);
        if (!(value = getenv(env)) || !*value) continue;
        snprintf(text[n], sizeof text[n], "%s=%s", names[i], value);
        settings[n] = text[n], n++;
    }
    settings[n] = NULL;
    return f(STDOUT_FILENO, settings);
}

static int check(void)
{
    char path[PATH_MAX];
    if (!our_file("libmpshim-engine.so", path, sizeof path)) return warn("libmpshim-engine.so is not found", NULL), 1;
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    int (*f)(int, const char *const *) = lib ? (int (*)(int, const char *const *))dlsym(lib, "mpshim_engine_check") : NULL;
    if (!f) return warn(dlerror(), NULL), 1;
    return check_with(f);
}

/* ---- main ---- */

/* --name=value, --name value is not offered: the command's own words must not be swallowed. */
static bool take_setting(const char *arg)
{
    char env[64];
    const char *eq = strchr(arg, '=');
    const struct setting *s = eq ? setting_find(arg + 2, (size_t)(eq - arg - 2)) : NULL;
    if (!s) return false;
    if (!is_allowed(s, eq + 1)) {
        fprintf(stderr, "mptcp-run: %.*s: not %s; possible: %s\n", (int)(eq - arg), arg, eq + 1, s->range);
        exit(EXIT_USAGE);
    }
    snprintf(env, sizeof env, "MPSHIM_%s", s->env);
    setenv(env, eq + 1, 1);
    return true;
}

static bool is_wrong(const char *variable)
{
    const char *name = variable + 7, *eq = strchr(variable, '=');
    if (strncmp(variable, "MPSHIM_", 7) || !eq) return false;
    const struct setting *s = setting_find(name, (size_t)(eq - name));
    bool wrong = !s || (eq[1] && !is_allowed(s, eq + 1));
    if (!s) fprintf(stderr, "mptcp-run: %.*s: no such setting\n", (int)(eq - variable), variable);
    else if (wrong) fprintf(stderr, "mptcp-run: %s: not possible; possible: %s\n", variable, s->range);
    return wrong;
}

/* Told here once, and left out: every process of the command would tell it again. */
static void check_environment(void)
{
    extern char **environ;
    char **keep = environ;
    for (char **e = environ; *e; e++)
        if (!is_wrong(*e)) *keep++ = *e;
    *keep = NULL;
}

/* Appended: what the user preloads may need to come first (sanitizers, allocators), and sees our answers. */
static void preload(const char *lib)
{
    const char *old = getenv("LD_PRELOAD");
    char *both = NULL;
    if (old && *old && !strstr(old, lib) && asprintf(&both, "%s:%s", old, lib) < 0) both = NULL;
    if (!(old && strstr(old, lib))) setenv("LD_PRELOAD", both ? both : lib, 1);
    free(both);
}

static bool want_check;

/* The index of the command; options end at the first word that is none. */
static int options(int argc, char **argv)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "--")) return i + 1;
        if (!strcmp(a, "--help") || !strcmp(a, "-h")) usage(), exit(0);
        if (!strcmp(a, "--version")) puts("mptcp-run " MPSHIM_VERSION), exit(0);
        if (!strcmp(a, "--check")) want_check = true;
        else if (!strcmp(a, "-v")) setenv("MPSHIM_VERBOSE", "1", 1);
        else if (!strcmp(a, "-vv")) setenv("MPSHIM_VERBOSE", "2", 1);
        else if (strncmp(a, "--", 2) || !take_setting(a)) {
            fprintf(stderr, "mptcp-run: %s: no such option (see mptcp-run --help)\n", a);
            exit(EXIT_USAGE);
        }
    }
    return i;
}

int main(int argc, char **argv)
{
    char lib[PATH_MAX], command[PATH_MAX];
    int i = options(argc, argv);
    if (want_check) return check();
    if (i >= argc) {
        fprintf(stderr, "mptcp-run: no command (see mptcp-run --help)\n");
        return EXIT_USAGE;
    }
    check_environment();
    if (our_file("libmpshim.so", lib, sizeof lib)) {
        char real[PATH_MAX];
        preload(realpath(lib, real) ? real : lib);
    } else {
        warn("libmpshim.so is not found: the command runs on kernel TCP", NULL);
    }
    if (find_command(argv[i], command, sizeof command)) tell_if_unreachable(command);
    execvp(argv[i], argv + i);
    int err = errno;
    warn(strerror(err), argv[i]);
    return err == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}
