/* engine/ctlpath.c: where the helper's control socket lies. */
#include "engine/ctlpath.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SUN_PATH = 108 };

/* Who became another user may still have the first one's in the environment. */
static int is_ours(const char *dir)
{
    struct stat st;
    return dir && dir[0] == '/' && stat(dir, &st) == 0 && st.st_uid == geteuid();
}

static int dir_name(char *buf, size_t n)
{
    uid_t uid = geteuid();
    const char *xdg = uid == 0 ? NULL : getenv("XDG_RUNTIME_DIR");
    int r;
    if (uid == 0)
        r = snprintf(buf, n, "/run/mpshim-0");
    else if (is_ours(xdg))
        r = snprintf(buf, n, "%s/mpshim", xdg);
    else
        r = snprintf(buf, n, "/tmp/mpshim-%u", (unsigned)uid);
    return r < 0 || (size_t)r >= n ? -ENAMETOOLONG : 0;
}

/* Not a link, ours, and closed to everybody else: in /tmp, anybody could have made it first. */
static int dir_safe(const char *dir)
{
    struct stat st;
    if (lstat(dir, &st))
        return -errno;
    return S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 077) ? 0 : -EPERM;
}

static int net_inode(unsigned long long *ino)
{
    struct stat st;
    if (stat("/proc/thread-self/ns/net", &st))
        return -errno;
    *ino = st.st_ino;
    return 0;
}

int mpshim_ctl_path(char *buf, size_t n)
{
    char dir[SUN_PATH];
    unsigned long long ino = 0;
    int err = dir_name(dir, sizeof dir);
    if (err)
        return err;
    if ((err = dir_safe(dir)) && err != -ENOENT)
        return err;
    if ((err = net_inode(&ino)))
        return err;
    int r = snprintf(buf, n, "%s/ctl-%llu", dir, ino);
    return r < 0 || (size_t)r >= n || r >= SUN_PATH ? -ENAMETOOLONG : 0;
}

int mpshim_ctl_dir(const char *path)
{
    char dir[SUN_PATH];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (!n || n >= sizeof dir)
        return n ? -ENAMETOOLONG : -EINVAL;
    memcpy(dir, path, n);
    dir[n] = 0;
    if (mkdir(dir, 0700) && errno != EEXIST)
        return -errno;
    return dir_safe(dir);
}
