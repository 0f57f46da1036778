/* What lies beside libmpshim.so: found and loaded. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "shim/host.h"

static const char *own_dir(void)
{
    static char dir[PATH_MAX];
    Dl_info i;
    if (dir[0] || !dladdr(&shim_real_ready, &i) || !i.dli_fname) return dir;
    char path[PATH_MAX];
    if (!realpath(i.dli_fname, path)) return dir;
    char *slash = strrchr(path, '/');
    if (slash) *slash = 0;
    snprintf(dir, sizeof dir, "%s", path);
    return dir;
}

bool shim_beside(char path[PATH_MAX], const char *name)
{
    return !shim_is_uprooted && own_dir()[0] && snprintf(path, PATH_MAX, "%s/%s", own_dir(), name) < PATH_MAX;
}

/* Programs carry other OpenSSLs, hence DEEPBIND; a sanitizer's runtime ends the process for it. */
bool shim_has_sanitizer(void) { return dlsym(RTLD_DEFAULT, "__sanitizer_print_stack_trace") != NULL; }

void *shim_open_library(const char *path)
{
    return dlopen(path, RTLD_NOW | RTLD_LOCAL | (shim_has_sanitizer() ? 0 : RTLD_DEEPBIND));
}
