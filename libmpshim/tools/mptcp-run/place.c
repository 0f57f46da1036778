/* Our files: beside this program (build tree), else where they were installed, as seen from it (the tree may have been moved
 * as a whole), or by the name given at the build. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run.h"

#ifndef MPSHIM_LIBDIR
#define MPSHIM_LIBDIR "/usr/local/lib/libmpshim"
#endif
#ifndef MPSHIM_LIBREL
#define MPSHIM_LIBREL "lib"
#endif

void run_warn(const char *what, const char *about)
{
    fprintf(stderr, "mptcp-run: %s%s%s\n", about ? about : "", about ? ": " : "", what);
}

static bool joined(char *path, size_t n, const char *dir, const char *between, const char *name)
{
    size_t a = strlen(dir), b = strlen(between), c = strlen(name) + 1;
    if (a + b + c > n) return false;
    memcpy(path, dir, a);
    memcpy(path + a, between, b);
    memcpy(path + a + b, name, c);
    return true;
}

bool run_our_file(const char *name, char *path, size_t n)
{
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len > 0) {
        self[len] = 0;
        *strrchr(self, '/') = 0;
        if (joined(path, n, self, "/", name) && access(path, R_OK) == 0) return true;
        if (joined(path, n, self, "/../" MPSHIM_LIBREL "/libmpshim/", name) && access(path, R_OK) == 0) return true;
        if (joined(path, n, self, "/../lib/libmpshim/", name) && access(path, R_OK) == 0) return true;
    }
    return joined(path, n, MPSHIM_LIBDIR, "/", name) && access(path, R_OK) == 0;
}

/* Appended: what the user preloads may need to come first (sanitizers, allocators), and sees our answers. */
bool run_preload(void)
{
    char path[PATH_MAX], real[PATH_MAX];
    if (!run_our_file("libmpshim.so", path, sizeof path)) return false;
    const char *lib = realpath(path, real) ? real : path, *old = getenv("LD_PRELOAD");
    char *both = NULL;
    if (strpbrk(lib, " \t\n:;")) return run_warn("LD_PRELOAD cannot hold a name with a space or a colon", lib), false;
    if (old && strstr(old, lib)) return true;
    if (old && *old && asprintf(&both, "%s:%s", old, lib) < 0) both = NULL;
    setenv("LD_PRELOAD", both ? both : lib, 1);
    free(both);
    return true;
}
