/* The engine inside this process: started, what a forked child keeps of it, and its end, at which all that it carries goes on
 * in the helper.
 *
 * A forked child keeps its parent's control connection for the carriers that it inherited; what it opens itself goes to the
 * helper where there is one, because the parent, and with it the parent's engine, may end first (daemon()). */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "engine/engine.h"
#include "shim/host.h"

#define HANDOVER_TIMEOUT_MS 8000

bool shim_is_forked;
const char *shim_inside_failed;

static void engine_thread_begins(void) { shim_is_engine = true; }

static bool is_restricted(void) { return shim_is_restricted; }

static int (*engine_start(const char **why))(const struct eng_cfg *, const char **)
{
    char path[PATH_MAX];
    if (!shim_beside(path, "libmpshim-engine.so")) return *why = SHIM_UPROOTED, NULL;
    void *lib = shim_open_library(path), *f = lib ? dlsym(lib, "mpshim_engine_start") : NULL;
    if (f) return (int (*)(const struct eng_cfg *, const char **))f;
    const char *e = dlerror();
    shim_log(1, "%s", e ? e : path);
    *why = "libmpshim-engine.so cannot be loaded";
    return NULL;
}

static int start_inside(const char **why)
{
    int pair[2], (*start)(const struct eng_cfg *, const char **) = engine_start(why);
    if (!start) return -ENOENT;
    if (syscall(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) return -errno;
    struct stat st = {0};
    syscall(SYS_fstat, pair[1], &st);
    char helper[PATH_MAX];
    bool has_place = shim_helper_path(helper, sizeof helper) == 0;
    struct eng_cfg cfg = {
        .ctl_fd = pair[1],
        .log_fd = shim_log_fd >= 0 ? REAL(fcntl)(shim_log_fd, F_DUPFD_CLOEXEC, NULL) : -1,
        .verbose = shim_conf.verbose,
        .settings = shim_conf.settings,
        .thread_begin = engine_thread_begins,
        .helper_path = has_place ? helper : NULL,
        .is_restricted = is_restricted,
        .helper_launch = has_place && shim_helper_prepare(helper) ? shim_helper_launch_kept : NULL,
    };
    int r = start(&cfg, why);
    /* The engine owns both from here on, but in the file table of its own thread: where it left them open in ours,
     * they are closed, or the engine would never see that the program is gone. */
    struct stat now = {0};
    if (syscall(SYS_fstat, pair[1], &now) == 0 && now.st_ino == st.st_ino && now.st_dev == st.st_dev) shim_sys_close(pair[1]);
    if (r) {
        shim_sys_close(pair[0]);
        return r;
    }
    shim_host_set(SHIM_HOST_INSIDE, pair[0]);
    shim_fatal_arm();
    return 0;
}

struct starting { const char **why; int r; };

static void start_inside_there(void *p)
{
    struct starting *s = p;
    s->r = start_inside(s->why);
}

/* For now: the program may close some, or raise its limit. */
static bool is_short(int err)
{
    int fd = err == -ENOENT ? (int)syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1; /* dlopen() does not say why */
    if (fd >= 0) shim_sys_close(fd);
    return (err == -ENOENT && fd < 0) || err == -EMFILE || err == -ENFILE || err == -ENOMEM || err == -EAGAIN;
}

bool shim_have_inside(const char **why)
{
    if (shim_host_alive(SHIM_HOST_INSIDE)) return true;
    if (!shim_inside_failed && shim_conf.engine == SHIM_AUTO && shim_has_sanitizer()) shim_inside_failed = "the program runs under a sanitizer, which would look at the engine too";
    if (shim_inside_failed) return *why = shim_inside_failed, false;
    struct starting s = {.why = why};
    shim_on_stack(start_inside_there, &s);
    int r = s.r;
    if (r == 0) return true;
    if (!*why || !**why) *why = strerrordesc_np(-r);
    if (!is_short(r)) shim_inside_failed = *why;
    return false;
}

/* ---- forked children ---- */

/* A child keeps the parent's connection, under another name, and starts what it needs itself. */
static void in_child(void)
{
    shim_pid = getpid();
    shim_hosts_unlock();
    shim_answers_forked();
    shim_watch_in_child();
    if (!shim_host_known(SHIM_HOST_INSIDE)) return;
    shim_is_forked = true;
    if (shim_host_known(SHIM_HOST_PARENT)) shim_host_lost(SHIM_HOST_PARENT);
    shim_inside_becomes(SHIM_HOST_PARENT);
}

/* From the start: a child forked before the first engine would else be taken for a vfork's, which may change nothing. */
void shim_watch_forks(void) { pthread_atfork(NULL, NULL, in_child); }

/* ---- its end ---- */

bool shim_hand_over(void)
{
    struct ctl_req q;
    struct ctl_rep rep;
    const char *why = NULL;
    if (!shim_hosts_lock()) return false;
    int to = shim_helper_open(true, -1, &why), r = to;
    if (to >= 0) {
        shim_req_init(&q, CTL_HANDOVER);
        r = shim_ask(shim_host_fd(SHIM_HOST_INSIDE), &q, sizeof q, to, &rep, sizeof rep, HANDOVER_TIMEOUT_MS);
        if (r == 0) r = rep.result;
        shim_sys_close(to);
    }
    /* Its control connection has moved with it: whoever holds it, a forked child too, speaks to the helper from now on. */
    if (r == 0) shim_inside_becomes(SHIM_HOST_HELPER);
    shim_hosts_unlock();
    if (r) shim_log(2, "the connections stay in this process until it ends: %s", why ? why : strerrordesc_np(-r));
    return r == 0;
}
