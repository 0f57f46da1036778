/* engine/keeper.c: a helper that is killed has somebody who starts another.
 *
 * A listener whose filter lets in only what comes over loopback is deaf without an engine (listener.c: --strict, groups of
 * SO_REUSEPORT), and its program, asleep in accept(), may not notice. So the helper has a keeper as long as it has such
 * listeners: a process of its own that knows their names, and sleeps. If the connection ends without a word, it starts a
 * helper as a program would, tells it the names, and goes; that helper has a keeper of its own. The listeners themselves
 * it does not hold: a port is free when its program has closed it. */
#define _GNU_SOURCE
#include "engine/keeper.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/eng.h"

enum { KEPT_MAX = 128, SETTINGS_ROOM = 4096, KEEPER_FD = 3, TRIES = 20 };
/* What the keeper is told: all of it each time. */
struct kept {
    uint32_t n;
    char settings[SETTINGS_ROOM]; /* of the helper's clients, as in CTL_HELLO */
    struct ctl_req port[KEPT_MAX];
};

static size_t kept_size(const struct kept *k) { return offsetof(struct kept, port) + k->n * sizeof *k->port; }

/* ---- the helper's side ---- */

static void keeper_gone(struct engine *e)
{
    if (!ev_is_active(&e->keeper_io))
        return;
    ev_io_stop(e->loop, &e->keeper_io);
    close(e->keeper_io.fd);
    free(e->kept);
    e->kept = NULL;
}

/* It was killed; the next look at the ports starts another. */
static void on_keeper(struct ev_loop *loop, ev_io *w, int events)
{
    (void)loop, (void)events;
    keeper_gone(w->data);
}

static bool control_path(const struct engine *e, struct sockaddr_un *a)
{
    socklen_t n = sizeof *a;
    return getsockname(e->ctl_fd, (struct sockaddr *)a, &n) == 0 && a->sun_path[0] == '/';
}

/* Not our child for long: nobody would wait for it. */
static int spawn(int fd, const char *path)
{
    char *argv[] = { "mpshim-keeper", "--keep", (char *)path, NULL };
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none;
    pid_t pid;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_adddup2(&files, fd, KEEPER_FD);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    int err = posix_spawn(&pid, "/proc/self/exe", &files, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    while (!err && waitpid(pid, NULL, 0) < 0 && errno == EINTR) /* it forks itself away at once */
        ;
    return -err;
}

static bool keeper_start(struct engine *e)
{
    struct sockaddr_un a = { 0 };
    int pair[2];
    if (!control_path(e, &a) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return false;
    int err = spawn(pair[1], a.sun_path);
    close(pair[1]);
    if (err) {
        close(pair[0]);
        return false;
    }
    ev_io_init(&e->keeper_io, on_keeper, pair[0], EV_READ);
    e->keeper_io.data = e;
    ev_io_start(e->loop, &e->keeper_io);
    return true;
}

static void collect(struct engine *e, struct kept *k)
{
    struct port_info i;
    memset(k, 0, sizeof *k);
    if (e->client_settings)
        snprintf(k->settings, sizeof k->settings, "%s", e->client_settings);
    for (struct port *p = eng_port_next(e, NULL, &i); p && k->n < KEPT_MAX; p = eng_port_next(e, p, &i)) {
        if (!i.live || !i.filtered)
            continue;
        struct ctl_req *q = &k->port[k->n++];
        *q = i.options;
        q->op = CTL_KEEP;
        eng_to_sa(&i.at, AF_INET, &q->local);
    }
}

void eng_keeper_tell(struct engine *e)
{
    struct kept *k = e->is_listening && e->ctl_fd >= 0 ? malloc(sizeof *k) : NULL;
    if (!k)
        return;
    collect(e, k);
    size_t n = kept_size(k);
    bool runs = ev_is_active(&e->keeper_io);
    if ((!runs && !k->n) || (runs && e->kept && n == e->nkept && memcmp(k, e->kept, n) == 0) || (!runs && !keeper_start(e)) ||
        send(e->keeper_io.fd, k, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        free(k); /* nothing to tell, or the next look tries again */
        return;
    }
    free(e->kept);
    e->kept = (char *)k;
    e->nkept = n;
}

void eng_keeper_end(struct engine *e)
{
    static const struct kept nothing;
    if (ev_is_active(&e->keeper_io))
        (void)send(e->keeper_io.fd, &nothing, kept_size(&nothing), MSG_NOSIGNAL | MSG_DONTWAIT);
    keeper_gone(e);
}

/* ---- the keeper ---- */

/* mpshim-engine itself sees to it that there is one only, and returns when one serves. */
static int start_helper(const char *path)
{
    char *argv[] = { "mpshim-engine", "--ctl", (char *)path, NULL };
    pid_t pid;
    int status;
    if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ))
        return -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return eng_ctl_connect(path, 0);
}

static int ask(int ctl, const void *msg, size_t n)
{
    struct ctl_rep rep;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -errno;
    union { struct cmsghdr h; char b[CMSG_SPACE(sizeof(int))]; } c = { 0 };
    struct iovec v = { (void *)msg, n };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c };
    c.h.cmsg_level = SOL_SOCKET, c.h.cmsg_type = SCM_RIGHTS, c.h.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&c.h), &pair[1], sizeof(int));
    int err = sendmsg(ctl, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
    close(pair[1]);
    if (!err && recv(pair[0], &rep, sizeof rep, 0) != sizeof rep)
        err = -EPIPE;
    close(pair[0]);
    return err ? err : rep.result;
}

static int tell_all(int ctl, const struct kept *k)
{
    struct { struct ctl_req q; char text[SETTINGS_ROOM]; } hello = { .q = { .version = CTL_VERSION, .op = CTL_HELLO, .pid = getpid() } };
    memcpy(hello.text, k->settings, sizeof hello.text);
    int err = ask(ctl, &hello, sizeof hello.q + strlen(hello.text));
    for (uint32_t i = 0; i < k->n && err != -EPIPE; i++)
        err = ask(ctl, &k->port[i], sizeof k->port[i]);
    return err == -EPIPE ? err : 0; /* one that is not there any more is nobody's loss */
}

static int serve_again(const char *path, const struct kept *k)
{
    struct timespec pause = { .tv_nsec = 50 * 1000 * 1000 };
    for (int i = 0; i < TRIES; i++) {
        int ctl = start_helper(path);
        if (ctl >= 0 && tell_all(ctl, k) == 0)
            return 0;
        nanosleep(&pause, NULL);
    }
    return 1;
}

int mpshim_keeper_main(int fd, const char *path)
{
    struct kept *k = calloc(1, sizeof *k);
    ssize_t n;
    prctl(PR_SET_NAME, "mpshim-keeper");
    prctl(PR_SET_DUMPABLE, 0);
    if (!k || fork() || chdir("/"))
        _exit(0); /* the helper waits for this one only */
    while ((n = recv(fd, k, sizeof *k, 0)) > 0 || (n < 0 && errno == EINTR))
        ;
    return k->n ? serve_again(path, k) : 0;
}
