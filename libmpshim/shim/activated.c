/* Socket activation: listeners that the program does not open but is started with, by systemd say (sd_listen_fds(3)):
 * LISTEN_FDS of them, from descriptor 3 on, for process LISTEN_PID. There is no listen() to see, and the first accept() may
 * come after epoll_wait() has slept for long: they are taken before main(). Their maker keeps them, to start the program again when
 * it has ended, and with it, in one cgroup, perhaps the helper: so nothing stays on them that makes them deaf without. */
#include <stdlib.h>

#include "shim/shim.h"

#define FIRST 3
#define MOST 1024

static bool listens(int fd)
{
    int v = 0;
    socklen_t n = sizeof v;
    return REAL(getsockopt)(fd, SOL_SOCKET, SO_ACCEPTCONN, &v, &n) == 0 && v;
}

void shim_activated(void)
{
    const char *number = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    if (SHIM_LIKELY(!number || !pid) || atol(pid) != shim_pid) return;
    int n = atoi(number);
    for (int fd = FIRST; fd < FIRST + n && fd < FIRST + MOST; fd++)
        if (listens(fd)) shim_listen_inherited(fd, false);
}
