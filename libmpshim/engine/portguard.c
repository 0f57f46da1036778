/* engine/portguard.c: what keeps a program's listener from what the engine answers itself.
 *
 * Beside it stands a listening socket of ours that drops everything, in one SO_REUSEPORT group with it, and the group's
 * program sends what comes over lo to the listener and the rest to the guard: a socket is found (no reset), and the
 * segment is dropped silently. If this engine dies, its guard dies with it; the group's program then names a socket that
 * does not exist, and the kernel takes the one that is left: plain TCP, but never deaf. */
#include <errno.h>
#include <linux/filter.h>
#include <unistd.h>

#include "engine/eng.h"

#ifndef SO_DETACH_REUSEPORT_BPF
#define SO_DETACH_REUSEPORT_BPF 68 /* Linux 5.3 */
#endif
#ifndef SO_ATTACH_REUSEPORT_CBPF
#define SO_ATTACH_REUSEPORT_CBPF 51
#endif

enum { LO_IFINDEX = 1, LISTENER = 0, GUARD = 1 /* places in the group: who came first, who came next */ };

static int attach_choice(int fd)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_IFINDEX)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, LO_IFINDEX, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, LISTENER),
        BPF_STMT(BPF_RET | BPF_K, GUARD),
    };
    struct sock_fprog p = { .len = 4, .filter = code };
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &p, sizeof p) ? -errno : 0;
}

void eng_guard_leave(int fd)
{
    int zero = 0;
    setsockopt(fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &zero, sizeof zero);
}

int eng_guard_open(const struct mp_endpoint *at, unsigned families, bool beside)
{
    int on = 1, v6only = !(families & 1), err = 0;
    union ctl_addr a;
    socklen_t n = eng_to_sa(at, AF_INET, &a);
    int fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (beside)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (a.sa.sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only);
    if ((err = io_attach_drop_all(fd)) || bind(fd, &a.sa, n) || listen(fd, 1) || (beside && (err = attach_choice(fd)))) {
        err = err ? err : -errno;
        close(fd);
        return err;
    }
    return fd;
}
