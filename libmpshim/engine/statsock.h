/* engine/statsock.h: the name under which each engine, inside or helper, tells its state. Shared with mptcp-stat.
 *
 * An abstract AF_UNIX stream socket, "mpshim/UID/PID/INODE" (the inode is the socket's own: two PID namespaces may share
 * a network namespace). Whoever connects is told everything as JSON until end of file, if he is the engine's user or root.
 * Abstract names live in the network namespace and vanish with the process, however it ends: no file, no directory, and
 * /proc/net/unix is the list. */
#ifndef ENG_STATSOCK_H
#define ENG_STATSOCK_H

#define STATSOCK_NAME "mpshim/%u/%d/%llu"

#endif
