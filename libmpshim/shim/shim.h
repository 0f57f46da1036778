/* shim/shim.h: what the files of libmpshim.so share: the real calls, the table of descriptors, the hosts.
 *
 * Rules of this library: only libc; no thread of its own but the one of watch.c; a call on a descriptor that is not ours is exactly the
 * real one; only shim_ret() writes errno; nothing is opened or started before a program connects or listens. */
#ifndef SHIM_H
#define SHIM_H

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/ctl.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef SOL_MPTCP
#define SOL_MPTCP 284
#endif

#define SHIM_LIKELY(x) __builtin_expect(!!(x), 1)
#define SHIM_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define SHIM_APART __attribute__((noinline)) /* a large frame that only few calls of its caller need */

/* ---- the real calls (real.c) ---- */

struct shim_real {
#define X(ret, name, params, args) ret(*name) params;
#include "shim/calls.def"
#undef X
};
extern struct shim_real shim_real_calls;
extern bool shim_real_ready;
void shim_real_resolve(void);

/* REAL(connect)(fd, sa, n): also right before our constructor has run (another library's constructor calls us). */
#define REAL(name) (*(SHIM_LIKELY(shim_real_ready) ? 0 : (shim_real_resolve(), 0), &shim_real_calls.name))

/* The wrappers are w_connect, ..., under libc's names only for the linker: libc's headers declare some of them with
 * transparent unions, which a definition cannot repeat. */
#define X(ret, name, params, args) __attribute__((visibility("default"))) ret w_##name params __asm__(#name);
#include "shim/calls.def"
#undef X

/* ---- this process ---- */

/* True on the engine's thread, whose descriptors are its own: every wrapper steps aside. */
extern _Thread_local bool shim_is_engine __attribute__((tls_model("initial-exec")));
extern pid_t shim_pid; /* of the process whose memory this is; a vfork child's getpid() differs */

/* true in a child that shares our memory but not our descriptors (vfork): it must not touch the table. */
static inline bool shim_is_borrowed(void) { return getpid() != shim_pid; }

/* The border to the program: -errno becomes -1 and errno; otherwise errno is as it was (saved). */
static inline long shim_ret(long r, int saved)
{
    errno = r < 0 ? (int)-r : saved;
    return r < 0 ? -1 : r;
}
static inline long shim_neg(long r) { return r < 0 ? -errno : r; } /* of a real call: -errno */

/* ---- settings (conf.c) ---- */

enum shim_engine_mode { SHIM_AUTO, SHIM_INSIDE, SHIM_HELPER, SHIM_NEVER };
struct shim_conf {
    enum shim_engine_mode engine;
    int verbose;                 /* 0, 1, 2 */
    int drain_ms;                /* longest wait at exit for data in flight */
    bool strict;                 /* fail rather than use plain TCP */
    const char *control;         /* MPSHIM_CONTROL: the helper's control socket; NULL: the usual place */
    const char *const *settings; /* "name=value" for the engine, NULL-terminated */
};
extern struct shim_conf shim_conf;
void shim_conf_read(char **env);
bool shim_is_excluded(const union ctl_addr *a); /* by the user's rules (rules.h) */
/* --strict: may the kernel not carry it instead? What is the host's own, or the user excluded, stays the kernel's. */
static inline bool shim_is_refused(enum ctl_why why) { return shim_conf.strict && why != CTL_LOCAL_ROUTE && why != CTL_EXCLUDED; }

/* One line "mptcp-run: ..." to the log if level <= verbose. Keeps errno. */
void shim_log(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));
extern int shim_log_fd; /* -1: none */

/* ---- the table of descriptors (table.c) ---- */

enum shim_kind {
    SHIM_NONE = 0,
    SHIM_CARRIER,
    SHIM_LISTENER,
    SHIM_TRIED, /* connect() failed; the kernel has freed the socket, but its old port still shows in getsockname() */
    SHIM_ASKED,  /* not connected: what the program asked for is remembered (IPPROTO_MPTCP, TCP_CONGESTION) */
    SHIM_KERNEL, /* the program asked for what only the kernel's TCP does (sockopt.c) */
};
enum shim_host_id { SHIM_HOST_INSIDE, SHIM_HOST_HELPER, SHIM_HOST_PARENT, SHIM_HOSTS, SHIM_HOST_ANY = SHIM_HOSTS };

/* What we know about a descriptor. Only a hint: a descriptor may be closed behind our back (a raw system call,
 * fclose), so the socket itself is asked (its cookie, its peer) before anything is concluded from an entry. */
struct shim_fd {
    _Atomic uint8_t kind;   /* enum shim_kind; written last */
    uint8_t host;           /* enum shim_host_id: whose engine */
    uint8_t pending;        /* CARRIER: connect() has not been seen to end */
    uint8_t mptcp;          /* the program asked for IPPROTO_MPTCP */
    uint8_t has_truth;      /* truth_local and truth_remote are final */
    uint32_t listener;      /* LISTENER: equal for duplicates */
    int backlog;            /* LISTENER */
    uint8_t filtered;       /* LISTENER: deaf to the network without an engine; enum below */
    uint8_t kept;           /* LISTENER: inherited: others may keep it when this process has ended */
    uint8_t guarded;        /* LISTENER, and CARRIERs from it: SO_REUSEPORT is ours, not the program's */
    uint8_t cc;             /* TCP_CONGESTION that the program set: its number among the engine's, from 1 (congestion.c) */
    uint64_t cookie;        /* SO_COOKIE of the socket */
    FILE *file;             /* CARRIER: a stream that fdopen() made of it; flushed at exit */
    union ctl_addr identity, local;            /* CARRIER: the kernel's peer and own address, normalised (v4 if mapped) */
    union ctl_addr truth_remote, truth_local;  /* CARRIER: the MPTCP connection's */
};
enum { SHIM_UNFILTERED, SHIM_FILTERED, SHIM_DEAF }; /* the last: no engine answers, and the log has been told */
#define SHIM_FD_MAX (1 << 18) /* descriptors above are left to the kernel */
extern struct shim_fd *_Atomic shim_fds; /* NULL until something is ours */

/* NULL: not ours (the usual case: a load and a branch). */
static inline struct shim_fd *shim_find(int fd)
{
    struct shim_fd *t = atomic_load_explicit(&shim_fds, memory_order_acquire);
    if (SHIM_LIKELY(!t) || (unsigned)fd >= SHIM_FD_MAX) return NULL;
    struct shim_fd *f = &t[fd];
    if (SHIM_LIKELY(atomic_load_explicit(&f->kind, memory_order_acquire) == SHIM_NONE) || shim_is_engine) return NULL;
    return f;
}
/* Writes an entry (a copy of *v); false: no room for this number. */
bool shim_put(int fd, const struct shim_fd *v);
/* Before a number is closed: forgets its entry. The hosts (bits) to be told once it is closed, because it was the last of a
 * listener in this process: told before, an engine would look too early, and find the listener alive. */
unsigned shim_take(int fd);
unsigned shim_take_range(unsigned first, unsigned last);
void shim_unlisten(unsigned hosts);
void shim_forget(int fd); /* both, of a number that was closed already */
void shim_copy(int from, int to);
int shim_fd_top(void); /* one above the highest number ever put */

/* Descriptors of the shim itself (control connections, log), which the program's closing must not hit. */
extern _Atomic int shim_own_least; /* INT_MAX: none */
bool shim_is_own_slow(int fd);
static inline bool shim_is_own(int fd)
{
    return SHIM_UNLIKELY(fd >= atomic_load_explicit(&shim_own_least, memory_order_relaxed)) && !shim_is_engine && shim_is_own_slow(fd);
}
#define SHIM_OWN_MAX (2 * SHIM_HOSTS + 2) /* the hosts' two, the log, the watch's */
int shim_own_high(int fd);               /* moves fd to a high number, close-on-exec; the number */
void shim_own_add(_Atomic int *slot);    /* *slot is such a descriptor or -1, for ever */
void shim_own_dodge(int fd);             /* the program is about to take this number: go elsewhere */
int shim_own_sorted(int *v, int max);    /* all, ascending */

/* Runs work(arg) on a large stack, in this thread: for what must work on a small one and needs more than some KB (stack.c). */
void shim_on_stack(void (*work)(void *), void *arg);

/* ---- hosts and requests (host.c, control.c, inside.c) ---- */

/* An engine for a new connection or listener, started if need be; -1 and *why if the kernel must carry it. */
int shim_host_for_connect(bool marked, enum ctl_why *why, const char **detail); /* marked: it has an SO_MARK */
int shim_host_for_listen(enum ctl_why *why, const char **detail);
int shim_host_existing(void); /* one that runs, never starting one: helper, own, parent's; -1: none */
/* Sends req (fds: up to two more descriptors) and waits for the answer: 0 or -errno (-EPIPE: the engine is gone). */
int shim_request(int host, struct ctl_req *req, int fd, struct ctl_rep *rep, int timeout_ms);
int shim_request_into(int host, struct ctl_req *req, int fd, void *rep, size_t size, int timeout_ms); /* an answer of another size */
/* One question to the engine of q->identity, with which this process has no control connection. 0 or -errno. */
int shim_request_stranger(const struct ctl_req *q, int fd, void *rep, size_t size, int timeout_ms);
void shim_tell(int host, struct ctl_req *req); /* no answer */
int shim_host_fd(int host); /* its control connection, -1: none */
void shim_host_check(int host); /* if it has gone, another takes its listeners */
void shim_req_init(struct ctl_req *req, enum ctl_op op);
void shim_leave(bool flush); /* the process ends: nothing that it sent may be lost (exit.c) */
void shim_leave_by_signal(void); /* the same from a signal handler, and nobody waits for what no helper takes */
void shim_fatal_arm(void);   /* an engine runs inside: the signals that end the process are caught (fatal.c) */
extern bool shim_is_uprooted; /* sandbox.c: the program has another root directory; nothing is loaded or started from there */
extern bool shim_is_restricted; /* sandbox.c: the program has given up rights that an engine needs */
void shim_leave_inside(void); /* exit.c: the engine inside ends now; what it carries goes on in the helper */
#define SHIM_UPROOTED "the program has changed its root directory"
#define SHIM_OTHER_NETWORK "a socket of another network namespace than the engine"
bool shim_host_fits(int host, int fd); /* this socket is of the engine's network namespace */
void shim_inside_lost(void);  /* forgets it */
bool shim_hosts_inside(void); /* an engine's thread runs in this very process */
bool shim_host_possible(void); /* an engine runs or can be started */
bool shim_is_privileged(void); /* CAP_NET_RAW is effective */
bool shim_hand_over(void);    /* all that it carries goes to the helper, started if need be; false: it stays */
void shim_helper_retry(void); /* the next question for a helper tries to start one, however lately that failed */
bool shim_helper_runs(void);  /* there is one already */
const char *shim_why_text(enum ctl_why why);

void shim_watch_forks(void);

/* ---- the helper, and what lies beside libmpshim.so (helper.c, beside.c) ---- */

bool shim_helper_possible(void); /* it may be started by this user */
int shim_identity_connect(const union ctl_addr *identity); /* to the engine whose identity this is (engine/asksock.h); fd or -errno */
/* The path of a file beside libmpshim.so, be it there or not. false: unknown, or the root directory is another now, where
 * anybody may have put something under that name. */
bool shim_beside(char path[PATH_MAX], const char *name);
void *shim_open_library(const char *path); /* dlopen() of one of ours */

/* ---- addresses (truth.c) ---- */

/* The address of an identity's form? ::1 only with an entry that says so. v4-mapped counts as v4. */
bool shim_is_identity(const struct sockaddr *sa, const struct shim_fd *f);
bool shim_is_loopback(const struct sockaddr *sa); /* 127/8, ::1, mapped 127/8 */
/* Reads an AF_INET/AF_INET6 address; a v4-mapped one becomes AF_INET. false: another family, too short. */
bool shim_addr_in(union ctl_addr *a, const struct sockaddr *sa, socklen_t n);
/* The form that a socket of this family uses (v4 in AF_INET6: mapped). Returns its length. */
socklen_t shim_addr_for(union ctl_addr *out, const union ctl_addr *a, int family);
bool shim_addr_eq(const union ctl_addr *a, const union ctl_addr *b);
const char *shim_addr_text(const union ctl_addr *a, char *buf, size_t n);
/* Asks the engine about a carrier; f may be NULL (another process made it). 0 or -errno. */
int shim_query(int fd, struct shim_fd *f, struct ctl_rep *rep);
int shim_query_info(int fd, struct shim_fd *f, struct ctl_info *info); /* with its subflows */
/* The true errno of a failed carrier, or err if the engine knows none. */
int shim_true_error(int fd, struct shim_fd *f, int err);
bool shim_is_carrier(int fd, struct shim_fd *f, union ctl_addr *identity, union ctl_addr *local); /* asks the socket */

/* ---- calls with logic of their own; all return 0 or more, or -errno ---- */
int shim_connect(int fd, const struct sockaddr *sa, socklen_t n);
int shim_listen(int fd, int backlog);
void shim_listen_inherited(int fd, bool is_served); /* a listener that the program has without having called listen() */
void shim_activated(void); /* activated.c: listeners that the program is started with */
void shim_listen_again(void); /* the helper is gone: another takes its listeners, or the kernel */
static inline bool shim_needs_helper(const struct shim_fd *f) /* a listener that is deaf without it */
{
    return f && f->kind == SHIM_LISTENER && f->host == SHIM_HOST_HELPER && f->filtered;
}
bool shim_any_filtered(void); /* there are such */
void shim_watch(void);        /* watch.c: a thread sees to it that they have one */
void shim_watch_daemon(void); /* a forked process does what daemons do */
bool shim_watches(void);
void shim_watch_stop(void);   /* for good */
void shim_watch_in_child(void);
void shim_options_read(int fd, int family, struct ctl_req *req); /* sockopt.c: what the program set before connect() */
void shim_listen_options(int fd, struct shim_fd *f); /* listen.c: an option of a listener was set */
bool shim_is_info(int level, int opt); /* info.c: a figure of the connection */
void shim_info_get(int fd, struct shim_fd *f, int level, int opt, void *v, socklen_t n); /* v: as the kernel answered */
struct tcp_info;
uint32_t shim_ms_since(uint64_t monotonic_ms); /* 0: never */
void shim_info_subflow(const struct ctl_subflow *s, struct tcp_info *i);
bool shim_is_readable(const void *p); /* truth.c */
void shim_option_tell(int fd, int opt, int value); /* enum mpc_opt; the engine, if it is concerned: of a carrier, or a listener */
int shim_congestion_set(int fd, const void *v, socklen_t n);             /* congestion.c; as setsockopt() */
void shim_congestion_get(const struct shim_fd *f, void *v, socklen_t n); /* v: as the kernel answered */
int shim_mpshim_set(int fd, int opt, const void *v, socklen_t n);
int shim_mptcp_get(int fd, int level, int opt, void *v, socklen_t *n); /* mptcp.c; as getsockopt() */
bool shim_is_packet_options(int level, int opt); /* info.c */
void shim_packet_options(int fd, struct shim_fd *f, void *v, socklen_t n); /* v: as the kernel answered */
void shim_error_queue(int fd, struct msghdr *m, socklen_t room); /* errqueue.c; m: as the kernel answered */
uint64_t shim_linger(int fd, struct shim_fd *w); /* linger.c */
void shim_linger_wait(struct shim_fd *w, uint64_t end);
void shim_bound_unsent(int fd); /* a carrier holds no more unsent data than the network's own socket would */
bool shim_is_tcp(int fd, int *family);
uint64_t shim_cookie(int fd);

#endif
