/* shim/host.h: what the files share that find, start and speak to engines. Hosts: the engine inside this process, the user's
 * helper, and, in a forked child, the engine inside its parent (enum shim_host_id). What the other files ask is in shim.h.
 *
 * host.c     which of them serves     control.c       control connections, and requests over them
 * inside.c   the engine inside        helper.c        the helper, found and opened
 * beside.c   our other files          helper_start.c  mpshim-engine, started */
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
/* As shim_request_into(), of any message (n bytes) over any control connection; the errors are the socket's. */
int shim_ask(int ctl, const void *msg, size_t n, int fd, void *rep, size_t size, int timeout_ms);
bool shim_means_gone(long r); /* this -errno says that the engine at the other end has gone */

/* ---- inside.c; with the lock held ---- */

extern bool shim_is_forked;            /* a child of a process that had an engine inside */
extern const char *shim_inside_failed; /* why there cannot be one, which is not tried twice; NULL: not known */
bool shim_have_inside(const char **why); /* started if need be */

/* ---- helper.c; with the lock held ---- */

bool shim_have_helper(bool start, const char **why); /* after a failure not tried again for 10 s */
int shim_helper_open(bool start, int log, const char **why); /* a control connection of its own, greeted; log: its verdict lines go there, -1; fd or -errno */

/* ---- helper_start.c; with the lock held ---- */

/* Runs this program until it says that it serves at path: 0; -ETIMEDOUT; -ECHILD: it could not, see shim_helper_said; -errno. */
int shim_helper_launch(const char *program, const char *path, bool replace);
extern char shim_helper_said[128];

/* ---- beside.c ---- */

bool shim_has_sanitizer(void); /* the program runs under one */

#endif
