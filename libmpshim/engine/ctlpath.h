/* engine/ctlpath.h: where the helper's control socket lies. Shared by shim/, mpshim-engine and mptcp-stat;
 * depends on nothing but libc, allocates nothing.
 *
 * One per user and network namespace: DIR/ctl-<inode of /proc/self/ns/net>, and beside it one for each set of settings that
 * programs run with at the same time (shim/helper.c adds "-<mark>"). DIR is its user's alone, 0700:
 *   root                     /run/mpshim-0
 *   a user with XDG_RUNTIME_DIR   $XDG_RUNTIME_DIR/mpshim
 *   others                   /tmp/mpshim-<uid> */
#ifndef ENG_CTLPATH_H
#define ENG_CTLPATH_H

#include <stddef.h>

/* Writes the path (at most 107 bytes and a zero: sun_path); the directory need not exist. 0; -EPERM: there is one that
 * somebody else could enter, do not use it; -ENAMETOOLONG; other -errno. */
int mpshim_ctl_path(char *buf, size_t n);
/* Makes the directory of this path, for its user alone. 0 or -errno, -EPERM as above. */
int mpshim_ctl_dir(const char *path);

#endif
