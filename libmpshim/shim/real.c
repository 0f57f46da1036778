/* The real functions, found once. */
#include <dlfcn.h>

#include "shim/shim.h"

struct shim_real shim_real_calls;
bool shim_real_ready;

/* Two threads may come here at once: both write the same values. */
void shim_real_resolve(void)
{
    int saved = errno;
#define X(ret, name, params, args) *(void **)&shim_real_calls.name = dlsym(RTLD_NEXT, #name);
#include "shim/calls.def"
#undef X
    atomic_thread_fence(memory_order_release);
    shim_real_ready = true;
    errno = saved;
}
