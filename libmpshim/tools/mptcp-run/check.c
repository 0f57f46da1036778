/* --check: what this machine has and lacks; and the same look before a start with --strict. The engine looks; where we may
 * not open raw sockets and the helper may, the helper does, since it is what would carry the command's connections. */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "run.h"

/* What decides which interfaces count, as "name=value" of the engine's settings. */
struct relevant { char text[4][512]; const char *list[5]; };

static void relevant_settings(struct relevant *r)
{
    static const char *const names[] = {"interfaces", "backup", "io", "virtual"};
    int n = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = run_value(names[i]);
        if (!*value) continue;
        snprintf(r->text[n], sizeof r->text[n], "%s=%s", names[i], value);
        r->list[n] = r->text[n], n++;
    }
    r->list[n] = NULL;
}

static bool may_open_raw(void)
{
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2] = {{0}};
    return syscall(SYS_capget, &h, d) == 0 && (d[0].effective & (1u << CAP_NET_RAW));
}

static bool helper_may(char *path, size_t n)
{
    char caps[64];
    return run_our_file("mpshim-engine", path, n) && access(path, X_OK) == 0 && getxattr(path, "security.capability", caps, sizeof caps) > 0;
}

static int ask_helper(const char *path, const struct relevant *r, int out)
{
    const char *argv[11] = {path, "--check"};
    int n = 2, status = 0;
    for (int i = 0; r->list[i]; i++) argv[n++] = "--setting", argv[n++] = r->list[i];
    argv[n] = NULL;
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out, STDOUT_FILENO);
        execv(path, (char **)argv);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status)) return 1;
    return WEXITSTATUS(status);
}

static int ask_library(const struct relevant *r, int out)
{
    char path[PATH_MAX];
    if (!run_our_file("libmpshim-engine.so", path, sizeof path)) return run_warn("libmpshim-engine.so is not found", NULL), 1;
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    int (*check)(int, const char *const *) = lib ? (int (*)(int, const char *const *))dlsym(lib, "mpshim_engine_check") : NULL;
    return check ? check(out, r->list) : (run_warn(dlerror(), NULL), 1);
}

static int ask(int out)
{
    char helper[PATH_MAX];
    struct relevant r;
    relevant_settings(&r);
    return !may_open_raw() && helper_may(helper, sizeof helper) ? ask_helper(helper, &r, out) : ask_library(&r, out);
}

int run_check(void) { return ask(STDOUT_FILENO); }

/* The lines that say what is missing, each with its remedy in the line after it. */
static void tell_missing(FILE *f)
{
    char line[1024];
    bool remedy = false;
    while (fgets(line, sizeof line, f)) {
        bool missing = !strncmp(line, "  MISSING", 9);
        if (missing || (remedy && strstr(line, "->"))) fprintf(stderr, "mptcp-run: %s", line + strspn(line, " "));
        remedy = missing;
    }
}

bool run_check_quiet(void)
{
    FILE *f = NULL;
    int fd = memfd_create("check", MFD_CLOEXEC), bad = fd < 0 || ask(fd);
    if (bad && fd >= 0 && lseek(fd, 0, SEEK_SET) == 0 && (f = fdopen(fd, "r"))) tell_missing(f);
    if (f) fclose(f);
    else if (fd >= 0) close(fd);
    return !bad;
}
