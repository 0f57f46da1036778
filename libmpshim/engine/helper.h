/* engine/helper.h: what the files of mpshim-engine share. helper_main.c the command, helper_proc.c the process, helper_place.c its
 * place among the user's helpers. */
#ifndef MPSHIM_HELPER_H
#define MPSHIM_HELPER_H

#include <sys/un.h>

enum { PATH_ROOM = 108 }; /* a control socket's path, as in struct sockaddr_un */

/* ---- helper_proc.c ---- */
/* Returns in a process that no program reaps; its starter ends in here. *ready_fd: where somebody waits for its word; below 0: the
 * terminal does, and what it is told goes over the descriptor that is then put there. */
void helper_detach(int *ready_fd);
void helper_secure(void); /* no core dumps, no limits of the starter's, enough descriptors */

/* ---- helper_place.c ---- */
struct sockaddr_un helper_address(const char *path);
int helper_lock(const char *path);     /* who has it serves; fd, which goes with the process; -EAGAIN: another one serves; -errno */
int helper_serve_on(const char *path); /* with the lock held; the socket, not yet listening, or -errno */
void helper_remove(const char *path);  /* socket and lock, with the lock held */
void helper_remove_stale(const char *own); /* what helpers left beside it that were killed */

#endif
