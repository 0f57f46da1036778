/* shim/host.h: what the files share that find, start and speak to engines. Hosts: the engine inside this process, the user's
 * helper, and, in a forked child, the engine inside its parent (enum shim_host_id). What the other files ask is in shim.h.
 *
 * host.c     which of them serves     control.c       control connections, and requests over them
 * inside.c   the engine inside        helper.c        the helper, found and opened
 * beside.c   our other files          helper_start.c  mpshim-engine, started
 * ask.c      questions and answers */
#ifndef SHIM_HOST_H
#define SHIM_HOST_H

#include <sys/syscall.h>

#include "shim/shim.h"

static inline long shim_sys_close(int fd) { return syscall(SYS_close, fd); } /* no cancellation point, as close() is */

/* ---- host.c ---- */

/* Starting an engine excludes other threads that start one. false: this very thread holds the lock (a signal
 * handler that connects while its thread starts the engine): the kernel carries that connection. */
bool shim_hosts_lock(void);
void shim_hosts_unlock(void);

/* ---- control.c ---- */

bool shim_host_alive(int host);       /* there is a control connection, and its descriptor is still that */
bool shim_host_known(int host);       /* there was one, and it was not found lost */
void shim_host_set(int host, int fd); /* owns fd, which moves to a high number */
void shim_host_lost(int host);        /* closes and forgets it */
/* The control connection of the engine inside, and all that has it for its host, are another host's from now on; where that one
 * has a connection already, this one is lost. */
void shim_inside_becomes(int to);
void shim_answers_forked(void);       /* in a forked child: the sockets for answers are the parent's */
bool shim_means_gone(long r); /* this -errno says that the engine at the other end has gone */

/* ---- ask.c; the errors are the socket's ---- */

struct shim_answers { /* a socket on which one engine answers, kept from one question to the next */
    _Atomic int fd;     /* -1: none */
    _Atomic bool busy;  /* a question is on its way */
    _Atomic bool asked; /* it has connected before */
    ino_t ino;
    dev_t dev;          /* both of fd: another file under this number is not ours */
    uint64_t name;      /* by which the engine knows its end */
    int timeout_ms;     /* what is set on fd; 0: nothing yet */
};

long shim_send_message(int ctl, const void *p, size_t n, const int *fds, int nfds); /* bytes or -errno */
int shim_await(int fd, void *rep, size_t size, int timeout_ms); /* the answer on its own socket; -EPIPE: end of file, the engine went away */
/* As shim_request_into(), of any message (n bytes) over any control connection. */
int shim_ask(int ctl, const void *msg, size_t n, int fd, void *rep, size_t size, int timeout_ms);
/* The same, with the socket that is kept if it is one of the questions that are asked often. */
int shim_ask_often(struct shim_answers *a, int ctl, struct ctl_req *q, int fd, void *rep, size_t size, int timeout_ms);
void shim_answers_end(struct shim_answers *a);   /* the control connection has gone */
void shim_answers_leave(struct shim_answers *a); /* it is another process's */

/* ---- inside.c; with the lock held ---- */

extern bool shim_is_forked;            /* a child of a process that had an engine inside */
extern const char *shim_inside_failed; /* why there cannot be one, which is not tried twice; NULL: not known */
bool shim_have_inside(const char **why); /* started if need be */

/* ---- helper.c; with the lock held ---- */

bool shim_have_helper(bool start, const char **why); /* after a failure not tried again for 10 s */
int shim_helper_open(bool start, int log, const char **why); /* a control connection of its own, greeted; log: its verdict lines go there, -1; fd or -errno */

int shim_helper_path(char *path, size_t n); /* where its control socket is: 0 or -errno */
/* Keeps what an engine inside needs to start one from its own thread, later; false: none may be started so. */
bool shim_helper_prepare(const char *path);
int shim_helper_launch_kept(void); /* from any thread: a descriptor that can be read when it serves or cannot, or -errno */

/* ---- helper_start.c; with the lock held, but shim_helper_spawn() ---- */

/* Runs this program until it says that it serves at path: 0; -ETIMEDOUT; -ECHILD: it could not, see shim_helper_said; -errno. */
int shim_helper_launch(const char *program, const char *path, bool replace);
/* The same without waiting, with this environment: the pipe on which it says so, or -errno. */
int shim_helper_spawn(const char *program, const char *path, bool replace, char *const *envp);
extern char shim_helper_said[128];

/* ---- beside.c ---- */

bool shim_has_sanitizer(void); /* the program runs under one */

#endif
