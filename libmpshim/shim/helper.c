/* The helper (mpshim-engine): finding the one that serves programs with our settings, started if need be, and opening a
 * connection to it. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <time.h>

#include "engine/asksock.h"
#include "engine/ctlpath.h"
#include "shim/host.h"

static long retry_at;      /* s, monotonic: when a helper that could not be had may be tried again */
static const char *failed; /* why it could not be had */

/* ---- connecting ---- */

static bool is_same_user_or_root(int fd)
{
    struct ucred c;
    socklen_t n = sizeof c;
    return REAL(getsockopt)(fd, SOL_SOCKET, SO_PEERCRED, &c, &n) == 0 && (c.uid == geteuid() || c.uid == 0);
}

static int connect_at(const struct sockaddr_un *a, size_t n)
{
    int fd = (int)shim_neg(syscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (fd < 0) return fd;
    int r = (int)shim_neg(syscall(SYS_connect, fd, a, n));
    if (r == 0 && !is_same_user_or_root(fd)) r = -EACCES;
    if (r == 0) return fd;
    syscall(SYS_close, fd);
    return r;
}

static int connect_to(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path) return -ENAMETOOLONG;
    strcpy(a.sun_path, path);
    return connect_at(&a, sizeof a);
}

int shim_identity_connect(const union ctl_addr *identity)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (identity->sa.sa_family != AF_INET) return -EAFNOSUPPORT; /* a v6-only socket's: ::1 names no engine */
    int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, ASKSOCK_NAME, ntohl(identity->v4.sin_addr.s_addr));
    return connect_at(&a, offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

/* ---- where it is ---- */

/* Without privilege of our own, a helper can only serve if its file has some; asking costs less than a start. */
static bool has_privilege_of_its_own(const char *program)
{
    struct stat st;
    char caps[64];
    if (stat(program, &st)) return false;
    return (st.st_mode & S_ISUID && st.st_uid == 0) || getxattr(program, "security.capability", caps, sizeof caps) > 0;
}

static bool find_program(char program[PATH_MAX]) { return shim_beside(program, "mpshim-engine") && !access(program, X_OK); }

static void look_at_program(void *possible)
{
    char program[PATH_MAX];
    *(bool *)possible = find_program(program) && (shim_is_privileged() || has_privilege_of_its_own(program));
}

bool shim_helper_possible(void)
{
    bool possible = false;
    shim_on_stack(look_at_program, &possible);
    return possible;
}

/* The same for the same settings in any order: FNV-1a of each, summed. */
static uint32_t settings_mark(void)
{
    uint32_t sum = 0;
    for (const char *const *s = shim_conf.settings; s && *s; s++) {
        uint32_t h = 2166136261u;
        for (const char *p = *s; *p; p++) h = (h ^ (unsigned char)*p) * 16777619u;
        sum += h;
    }
    return sum;
}

/* Where the helper is that serves programs with our settings: interfaces that a user excluded must carry nothing of his
 * program, though another program of his runs without that. */
int shim_helper_path(char *path, size_t n)
{
    if (shim_conf.control) return snprintf(path, n, "%s", shim_conf.control) < (int)n ? 0 : -ENAMETOOLONG;
    int r = mpshim_ctl_path(path, n);
    size_t len = r < 0 ? 0 : strlen(path);
    if (r == 0 && shim_conf.settings && shim_conf.settings[0]) snprintf(path + len, n - len, "-%08x", settings_mark());
    return r;
}

/* Ours takes the place of one of another version. 0 or -errno. */
static int replace_helper(void)
{
    char path[PATH_MAX], program[PATH_MAX];
    return shim_helper_path(path, sizeof path) || !find_program(program) ? -ENOENT : shim_helper_launch(program, path, true);
}

/* fd or -errno, *why for people. */
static int connect_helper(bool start, const char **why)
{
    char path[PATH_MAX], program[PATH_MAX];
    int r = shim_helper_path(path, sizeof path);
    if (r < 0) return *why = "no safe place for the helper's control socket", r;
    int fd = connect_to(path);
    if (fd >= 0 || !start) return fd;
    if (!find_program(program))
        return *why = shim_is_uprooted ? SHIM_UPROOTED : "mpshim-engine is not beside libmpshim.so", -ENOENT;
    if (!shim_is_privileged() && !has_privilege_of_its_own(program))
        return *why = "no privilege for raw sockets (CAP_NET_RAW), and mpshim-engine has none either", -EPERM;
    r = shim_helper_launch(program, path, false);
    fd = connect_to(path); /* also if another process was faster */
    if (fd < 0) *why = r == -ETIMEDOUT ? "mpshim-engine does not get ready" : r == -ECHILD ? shim_helper_said : "mpshim-engine could not be started";
    return fd;
}

/* ---- for the engine inside, which starts one from its own thread ---- */

static struct { char *program, *path, **env; uid_t user; } later; /* env: as it was then; the program may be changing it at that moment */

/* Another thread may change it between the two passes: what has no room then is left out. */
static char **environment_copy(void)
{
    size_t n = 0, bytes = 0, j = 0;
    for (const char *s; environ && (s = environ[n]); n++) bytes += strlen(s) + 1;
    char **v = malloc((n + 1) * sizeof *v + bytes), *text = (char *)(v + n + 1);
    const char *s;
    for (size_t i = 0; v && environ && i < n && (s = environ[i]); i++) {
        size_t len = strnlen(s, bytes);
        if (len == bytes || !strncmp(s, "LD_PRELOAD=", 11)) continue; /* it must not load us */
        v[j++] = memcpy(text, s, len);
        text[len] = 0;
        text += len + 1, bytes -= len + 1;
    }
    if (v) v[j] = NULL;
    return v;
}

/* A container's first process would take it along when it ends. */
bool shim_helper_prepare(const char *path)
{
    char program[PATH_MAX];
    if (shim_pid == 1 || !find_program(program)) return false;
    if (later.path) return !strcmp(later.path, path); /* the thread of an engine before may be reading it still */
    char *copy = strdup(program), **env = environment_copy(), *at = strdup(path);
    if (!copy || !env || !at) return free(copy), free(env), free(at), false;
    later.program = copy, later.env = env, later.path = at, later.user = geteuid();
    return true;
}

/* The effective user of the first thread: system calls past libc change one thread's. */
static bool first_thread_is(uid_t user)
{
    char text[2048] = "";
    int fd = (int)shim_neg(syscall(SYS_openat, AT_FDCWD, "/proc/self/status", O_RDONLY | O_CLOEXEC));
    if (fd < 0) return false;
    long n = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    const char *line = n > 0 ? strstr(text, "\nUid:") : NULL;
    unsigned uid;
    return line && sscanf(line + 5, "%*u %u", &uid) == 1 && uid == user;
}

/* A process may give up rights for one thread only (capset(2)): what the first one has not, no helper gets from us. */
static bool first_thread_has_our_rights(void)
{
    struct __user_cap_header_struct first = {_LINUX_CAPABILITY_VERSION_3, shim_pid}, self = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct f[2] = {0}, s[2] = {0};
    if (syscall(SYS_capget, &first, f) || syscall(SYS_capget, &self, s)) return false;
    for (int i = 0; i < 2; i++)
        if (s[i].effective & ~f[i].effective || s[i].permitted & ~f[i].permitted) return false;
    return true;
}

/* Such a process gets what others leave: its wait() would find a helper that it knows nothing of. */
static bool is_subreaper(void)
{
    int yes = 0;
    return syscall(SYS_prctl, PR_GET_CHILD_SUBREAPER, &yes, 0, 0, 0) == 0 && yes;
}

int shim_helper_launch_kept(void)
{
    if (shim_is_restricted || is_subreaper() || geteuid() != later.user || !first_thread_is(later.user)) return -EPERM;
    if (!first_thread_has_our_rights() || (!shim_is_privileged() && !has_privilege_of_its_own(later.program))) return -EPERM;
    return shim_helper_spawn(later.program, later.path, false, later.env);
}

static void look_for_helper(void *p)
{
    const char *why;
    *(int *)p = connect_helper(false, &why);
}

bool shim_helper_runs(void)
{
    int fd = -1;
    shim_on_stack(look_for_helper, &fd);
    if (fd >= 0) shim_sys_close(fd);
    return fd >= 0;
}

/* ---- opening ---- */

/* "name=value" lines behind the request, and our log for the lines about our connections. */
static int hello(int fd, int log)
{
    struct { struct ctl_req q; char text[4096]; } m;
    struct ctl_rep rep = {0};
    shim_req_init(&m.q, CTL_HELLO);
    size_t n = 0;
    m.text[0] = 0;
    for (const char *const *s = shim_conf.settings; s && *s && n < sizeof m.text; s++)
        n += (size_t)snprintf(m.text + n, sizeof m.text - n, "%s\n", *s);
    if (n >= sizeof m.text) return -E2BIG;
    m.q.value = (uint64_t)shim_conf.verbose;
    int r = shim_ask(fd, &m, sizeof m.q + n, log, &rep, sizeof rep, 5000);
    return r ? r : rep.result;
}

struct opening { bool start; int log; const char **why; int fd; };

/* A helper may end, for want of work, just as it is found; then the next one is asked. */
static int helper_open_here(bool start, int log, const char **why)
{
    int fd = -1, r = -EPIPE;
    for (int tries = 0; tries < 3 && (shim_means_gone(r) || r == -EPROTO); tries++) {
        if (r == -EPROTO && (!start || replace_helper())) break;
        fd = connect_helper(start, why);
        if (fd < 0) return fd;
        r = hello(fd, log);
        if (r == 0) return fd;
        shim_sys_close(fd);
    }
    *why = r == -EPROTO ? "the running mpshim-engine has another version" : "mpshim-engine does not answer";
    return r;
}

static void helper_open_there(void *p)
{
    struct opening *o = p;
    o->fd = helper_open_here(o->start, o->log, o->why);
}

int shim_helper_open(bool start, int log, const char **why)
{
    struct opening o = {.start = start, .log = log, .why = why};
    shim_on_stack(helper_open_there, &o);
    return o.fd;
}

void shim_helper_retry(void) { failed = NULL; }

static long now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec;
}

bool shim_have_helper(bool start, const char **why)
{
    if (shim_host_alive(SHIM_HOST_HELPER)) return true;
    if (start && failed && now_s() < retry_at) return *why = failed, false;
    int fd = shim_helper_open(start, shim_log_fd, why);
    if (fd >= 0) return shim_host_set(SHIM_HOST_HELPER, fd), true;
    if (start) failed = *why, retry_at = now_s() + 10;
    return false;
}
