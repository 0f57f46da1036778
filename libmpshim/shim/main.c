/* Birth and death of the library in a process. The constructor does next to nothing: a program that opens no TCP
 * socket pays for reading the names in its environment, and for no file, thread or mapping. */
#include "shim/shim.h"

_Thread_local bool shim_is_engine __attribute__((tls_model("initial-exec")));
pid_t shim_pid;

__attribute__((constructor)) static void begin(int argc, char **argv, char **env)
{
    (void)argc, (void)argv;
    int saved = errno;
    shim_pid = getpid();
    if (!shim_real_ready) shim_real_resolve();
    shim_conf_read(env);
    shim_watch_forks();
    shim_activated();
    errno = saved;
}

/* exit() and the return from main() come here, after the program's own atexit() functions. */
__attribute__((destructor)) static void end(void) { shim_leave(true); }
