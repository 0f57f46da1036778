/* io/dropall.c: the filter of the sockets that only hold a port: it drops everything.
 *
 * A classic program is copied, translated and given pages of its own for each socket that it is attached to: 5 KB of the
 * kernel's memory, and most of what a guard costs to open and close. So where bpf(2) is allowed (CAP_BPF, CAP_SYS_ADMIN)
 * one program is loaded, and all sockets share it. */
#include <errno.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/io.h"

#ifndef SO_ATTACH_BPF
#define SO_ATTACH_BPF 50
#endif

enum { UNTRIED = -2, NONE = -1 };

/* A descriptor, or NONE. A seccomp filter may kill for a call that it does not know. */
static int load(void)
{
    static const struct bpf_insn drop[] = {
        { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0 },
        { .code = BPF_JMP | BPF_EXIT },
    };
    union bpf_attr a;

    if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 0) return NONE;
    memset(&a, 0, sizeof a);
    a.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
    a.insns = (uintptr_t)drop;
    a.insn_cnt = sizeof drop / sizeof *drop;
    a.license = (uintptr_t) "";
    return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof a);
}

/* Each thread its own: an engine inside a program has a file table of its own, which ends with its thread. */
static bool attach_shared(int fd)
{
    static _Thread_local int prog = UNTRIED;

    if (prog == UNTRIED) prog = load();
    return prog >= 0 && setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &prog, sizeof prog) == 0;
}

int io_attach_drop_all(int fd)
{
    static const struct sock_filter drop[] = { { BPF_RET | BPF_K, 0, 0, 0 } };
    struct sock_fprog own = { .len = 1, .filter = (struct sock_filter *)drop };

    if (attach_shared(fd)) return 0;
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &own, sizeof own) ? -errno : 0;
}
