/* engine/marks.c: SO_MARK and SO_PRIORITY of the program's sockets, which go with the packets of its connections.
 *
 * Both need privileges that an engine has and its program may not: a helper serves programs without any. So they are never
 * taken as numbers, only read from a socket that the program shows, where the kernel let it set them. */
#include <errno.h>
#include <sys/socket.h>

#include "engine/eng.h"

static uint32_t number(int fd, int opt)
{
    uint32_t v = 0;
    socklen_t n = sizeof v;
    return getsockopt(fd, SOL_SOCKET, opt, &v, &n) ? 0 : v;
}

struct eng_marks eng_marks_of(int fd)
{
    if (fd < 0)
        return (struct eng_marks){ 0 };
    return (struct eng_marks){ number(fd, SO_MARK), number(fd, SO_PRIORITY) };
}

/* Set as it is, so that zero takes it away. */
void eng_marks_set(struct mpc *m, const struct eng_marks *k, mp_time now)
{
    mpc_setopt(m, MPC_MARK, k->mark, now);
    mpc_setopt(m, MPC_PRIORITY, k->priority, now);
}
