/* engine/hosts.c: the two hosts of an engine: a thread of the program, and a process of its own (mpshim-engine). */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/host.h"

#define ENGINE_STACK_BYTES (1024 * 1024) /* at least; address space, mapped as it is touched */

/* ---- host: a thread of the program ---- */

struct start {
    struct engine *e;
    void (*thread_begin)(void);
    int err;
    const char *why;
    bool done;
    pthread_mutex_t lock;
    pthread_cond_t cond;
};

static int cmp_int(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static void close_between(int from, int to)
{
    if (from <= to)
        syscall(SYS_close_range, (unsigned)from, (unsigned)to, 0u);
}

/* In the thread's own file table: everything goes but what the engine was given. */
static void close_others(const int *keep_in, int n)
{
    int keep[4], from = 0, kept = 0;
    for (int i = 0; i < n; i++)
        if (keep_in[i] >= 0)
            keep[kept++] = keep_in[i];
    qsort(keep, (size_t)kept, sizeof *keep, cmp_int);
    for (int i = 0; i < kept; i++) {
        close_between(from, keep[i] - 1);
        from = keep[i] + 1;
    }
    syscall(SYS_close_range, (unsigned)from, ~0u, 0u);
}

static int own_files(struct engine *e, const char **why)
{
    if (unshare(CLONE_FILES | CLONE_FS)) {
        *why = "cannot have a file table of its own (unshare)";
        return -errno;
    }
    int keep[] = { e->ctl_fd, e->log_fd };
    close_others(keep, 2);
    return 0;
}

static void started(struct start *s, int err)
{
    pthread_mutex_lock(&s->lock);
    s->err = err;
    s->done = true;
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

/* Copies of keys stay on the stack for a while. With -vv it is dumped all the same, for who looks for a fault here. */
static void stack_in_dumps(int advice)
{
    pthread_attr_t a;
    void *at;
    size_t n;
    if (pthread_getattr_np(pthread_self(), &a))
        return;
    if (pthread_attr_getstack(&a, &at, &n) == 0)
        (void)madvise(at, n, advice);
    pthread_attr_destroy(&a);
}

static void *engine_thread(void *arg)
{
    struct start *s = arg;
    struct engine *e = s->e;
    if (e->verbose < 2)
        stack_in_dumps(MADV_DONTDUMP);
    if (s->thread_begin)
        s->thread_begin();
    prctl(PR_SET_NAME, "mpshim-engine");
    int err = own_files(e, &s->why);
    bool own = !err;
    if (!err)
        err = eng_open(e, &s->why);
    if (!own)
        e->ctl_fd = e->log_fd = -1; /* the starter closes them: one table still */
    started(s, err); /* s is gone from here on */
    if (!err)
        eng_run(e);
    eng_free(e);
    stack_in_dumps(MADV_DODUMP); /* it may become another thread's */
    return NULL;
}

/* The default follows RLIMIT_STACK and the program (pthread_setattr_default_np), whose threads may need little. */
static void room_for_engine(pthread_attr_t *attr)
{
    size_t n = 0;
    if (pthread_attr_getstacksize(attr, &n) == 0 && n < ENGINE_STACK_BYTES)
        pthread_attr_setstacksize(attr, ENGINE_STACK_BYTES);
}

static int thread_create(struct start *s)
{
    pthread_t t;
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    room_for_engine(&attr);
    /* The C library keeps its own signals open in this set: setuid() in the program must still reach this thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = pthread_create(&t, &attr, engine_thread, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return -err;
}

static void wait_started(struct start *s)
{
    pthread_mutex_lock(&s->lock);
    while (!s->done)
        pthread_cond_wait(&s->cond, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static void close_cfg(const struct eng_cfg *cfg)
{
    if (cfg->ctl_fd >= 0)
        close(cfg->ctl_fd);
    if (cfg->log_fd >= 0)
        close(cfg->log_fd);
}

int mpshim_engine_start(const struct eng_cfg *cfg, const char **why)
{
    struct start s = { .thread_begin = cfg->thread_begin, .why = "" };
    const char *none;
    int err = 0;
    if (!why)
        why = &none;
    s.e = eng_new(cfg, &err, why);
    if (!s.e) {
        close_cfg(cfg);
        return err;
    }
    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.cond, NULL);
    err = thread_create(&s);
    if (err) {
        *why = "cannot create a thread";
        s.e->ctl_fd = s.e->log_fd = -1;
        eng_free(s.e);
    } else {
        wait_started(&s);
        err = s.err;
        *why = s.why;
    }
    close_cfg(cfg); /* the thread has its own copies */
    pthread_mutex_destroy(&s.lock);
    pthread_cond_destroy(&s.cond);
    return err;
}

/* ---- host: a process of its own ---- */

int mpshim_engine_main(const struct eng_cfg *cfg)
{
    const char *why = "";
    int err = 0;
    struct engine *e = eng_new(cfg, &err, &why);
    if (e)
        err = eng_open(e, &why);
    if (err) {
        dprintf(2, "mpshim-engine: %s: %s\n", why, strerror(-err));
        if (cfg->failed)
            cfg->failed(cfg->ready_arg, why);
    } else {
        eng_run(e);
    }
    bool never = !err && e->ctl_fd < 0 && !e->replaced; /* it was to replace another */
    if (never && cfg->failed)
        cfg->failed(cfg->ready_arg, "the running mpshim-engine keeps what it has");
    int status = err || never ? 1 : e->replaced ? ENGINE_REPLACED : 0;
    eng_free(e);
    return status;
}
