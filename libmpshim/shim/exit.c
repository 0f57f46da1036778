/* How a process ends or becomes another, when its engine is inside: what it sent must still arrive, and what other
 * processes hold must live on.
 *
 * The kernel would go on after the process; an engine inside ends with it. So the process's own carriers are closed, as
 * the kernel would a moment later, and if the engine then still has something to do, all of it moves to the helper, which
 * takes some milliseconds and for which nobody waits. Only where no helper can run the process waits until all is
 * delivered, at most MPSHIM_DRAIN_MS. */
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "shim/shim.h"

extern char **environ;

/* A stream that another thread holds is left alone: exit() itself does not wait for it either. */
static void flush(FILE *s)
{
    if (!s || ftrylockfile(s)) return;
    fflush(s);
    funlockfile(s);
}

static void flush_carriers(void)
{
    for (int fd = 0; fd < shim_fd_top(); fd++) {
        struct shim_fd *f = shim_find(fd);
        if (!f || f->kind != SHIM_CARRIER) continue;
        flush(fd == 1 ? stdout : fd == 2 ? stderr : f->file);
    }
}

/* The listeners of the engine inside too: those that only we hold are over, those of a child are not. */
static void close_own(void)
{
    unsigned listened = 0;
    for (int fd = 0; fd < shim_fd_top(); fd++) {
        struct shim_fd *f = shim_find(fd);
        union ctl_addr identity, local;
        if (!f || (f->kind != SHIM_CARRIER && !(f->kind == SHIM_LISTENER && f->host == SHIM_HOST_INSIDE))) continue;
        bool is = (f->kind == SHIM_CARRIER && shim_is_carrier(fd, f, &identity, &local)) || f->cookie == shim_cookie(fd);
        listened |= shim_take(fd);
        if (is) REAL(close)(fd);
    }
    shim_unlisten(listened);
}

static int ask_engine(enum ctl_op op, int ms)
{
    struct ctl_req q;
    struct ctl_rep rep;
    shim_req_init(&q, op);
    q.value = (uint64_t)ms;
    int r = shim_request(SHIM_HOST_INSIDE, &q, -1, &rep, ms + 1000);
    return r ? r : rep.result;
}

/* The last FINs of a connection mostly take one round trip; starting a helper for them would take as long. */
#define LAST_FINS_MS 50

/* What is alive goes on elsewhere, or is waited for. The first process of a container takes the helper with it. */
static void leave_engine(int drain_ms)
{
    if (ask_engine(CTL_LEAVE, shim_helper_runs() ? 0 : LAST_FINS_MS) != -EINPROGRESS) return;
    if (shim_pid != 1 && shim_hand_over()) return;
    if (drain_ms > 0) ask_engine(CTL_DRAIN, drain_ms);
}

void shim_leave_inside(void)
{
    if (ask_engine(CTL_LEAVE, 0) != -EINPROGRESS) shim_inside_lost();
    else if (shim_pid != 1) shim_hand_over(); /* else it goes on with us as long as it is let */
}

static void leave(bool flushing, int drain_ms)
{
    static atomic_flag done = ATOMIC_FLAG_INIT;
    if (shim_is_engine || !shim_hosts_inside() || shim_is_borrowed() || atomic_flag_test_and_set(&done)) return;
    int saved = errno;
    if (flushing) flush_carriers();
    close_own();
    leave_engine(drain_ms);
    errno = saved;
}

void shim_leave(bool flushing) { leave(flushing, shim_conf.drain_ms); }

#define LAST_WORDS_MS 1000 /* so long may a process that was told to end stay for what no helper can take */
void shim_leave_by_signal(void) { leave(false, LAST_WORDS_MS < shim_conf.drain_ms ? LAST_WORDS_MS : shim_conf.drain_ms); }

__attribute__((noreturn)) void w__exit(int status)
{
    shim_leave(false);
    REAL(_exit)(status);
    __builtin_unreachable();
}

__attribute__((noreturn)) void w__Exit(int status)
{
    shim_leave(false);
    REAL(_Exit)(status);
    __builtin_unreachable();
}

__attribute__((noreturn)) void w_quick_exit(int status)
{
    shim_leave(false);
    REAL(quick_exit)(status);
    __builtin_unreachable();
}

/* libc's own ends the parent past us. So another child of ours calls it, as after fork() and _exit(). */
int w_daemon(int nochdir, int noclose)
{
    bool inside = !shim_is_engine && shim_hosts_inside() && !shim_is_borrowed();
    pid_t pid = inside ? fork() : 0;
    if (pid > 0) w__exit(0);
    int r = pid < 0 ? -1 : REAL(daemon)(nochdir, noclose);
    if (r == 0) shim_watch_daemon();
    return r;
}

/* ---- exec: the engine's thread ends with the old program ---- */

static void before_exec(void)
{
    if (shim_is_engine || !shim_hosts_inside() || shim_is_borrowed()) return;
    int saved = errno;
    leave_engine(shim_conf.drain_ms);
    errno = saved;
}

int w_execve(const char *path, char *const argv[], char *const envp[])
{
    before_exec();
    return REAL(execve)(path, argv, envp);
}

int w_execv(const char *path, char *const argv[])
{
    before_exec();
    return REAL(execv)(path, argv);
}

int w_execvp(const char *file, char *const argv[])
{
    before_exec();
    return REAL(execvp)(file, argv);
}

int w_execvpe(const char *file, char *const argv[], char *const envp[])
{
    before_exec();
    return REAL(execvpe)(file, argv, envp);
}

int w_fexecve(int fd, char *const argv[], char *const envp[])
{
    before_exec();
    return REAL(fexecve)(fd, argv, envp);
}

int w_execveat(int dir, const char *path, char *const argv[], char *const envp[], int flags)
{
    before_exec();
    return REAL(execveat)(dir, path, argv, envp, flags);
}

/* The list forms become the array forms. As libc, no more stack is taken than the list needs; a long one has pages of its own,
 * as a signal handler may exec. */
struct list {
    size_t n; /* with the last one, which is NULL */
    char **argv, *few[32];
    va_list ap;
};

static bool list_room(struct list *l, const char *arg)
{
    va_list c;
    va_copy(c, l->ap);
    l->n = arg ? 2 : 1;
    while (arg && va_arg(c, char *)) l->n++;
    va_end(c);
    l->argv = l->few;
    if (l->n <= sizeof l->few / sizeof *l->few) return true;
    l->argv = mmap(NULL, l->n * sizeof *l->argv, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (l->argv != MAP_FAILED) return true;
    errno = E2BIG;
    return false;
}

static void list_take(struct list *l, const char *arg)
{
    l->argv[0] = (char *)arg;
    for (size_t i = 1; i < l->n; i++) l->argv[i] = va_arg(l->ap, char *);
}

static int list_end(struct list *l, int r)
{
    int saved = errno;
    if (l->argv != l->few) munmap(l->argv, l->n * sizeof *l->argv);
    errno = saved;
    return r;
}

#define LIST_FROM(l, arg)                      \
    struct list l;                             \
    va_start(l.ap, arg);                       \
    bool has_room = list_room(&l, arg);        \
    if (has_room) list_take(&l, arg)

int w_execl(const char *path, const char *arg, ...)
{
    LIST_FROM(l, arg);
    va_end(l.ap);
    if (!has_room) return -1;
    before_exec();
    return list_end(&l, REAL(execv)(path, l.argv));
}

int w_execlp(const char *file, const char *arg, ...)
{
    LIST_FROM(l, arg);
    va_end(l.ap);
    if (!has_room) return -1;
    before_exec();
    return list_end(&l, REAL(execvp)(file, l.argv));
}

int w_execle(const char *path, const char *arg, ...)
{
    LIST_FROM(l, arg);
    char *const *envp = has_room ? va_arg(l.ap, char *const *) : NULL;
    va_end(l.ap);
    if (!has_room) return -1;
    before_exec();
    return list_end(&l, REAL(execve)(path, l.argv, envp));
}
