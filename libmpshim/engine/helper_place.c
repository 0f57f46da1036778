/* engine/helper_place.c: the helper's control socket, its lock, and what others left that were killed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/helper.h"

enum { LOCK_TRIES = 60 };

struct sockaddr_un helper_address(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    memcpy(a.sun_path, path, strlen(path) + 1); /* both hold PATH_ROOM */
    return a;
}

static bool somebody_serves(const char *path)
{
    struct sockaddr_un a = helper_address(path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    bool r = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0)
        close(fd);
    return r;
}

static void lock_name(char name[PATH_ROOM + 8], const char *path) { snprintf(name, PATH_ROOM + 8, "%s.lock", path); }

/* A lock counts only while its file still has its name: the one who holds it may remove it. */
static bool is_named(int fd, const char *name)
{
    struct stat mine, there;
    return fstat(fd, &mine) == 0 && stat(name, &there) == 0 && mine.st_ino == there.st_ino && mine.st_dev == there.st_dev;
}

/* fd; -EAGAIN: held by another; -errno. */
static int try_lock(const char *path)
{
    char name[PATH_ROOM + 8];
    lock_name(name, path);
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_named(fd, name))
        return fd;
    close(fd);
    return -EAGAIN;
}

/* The lock decides who serves; it goes with the process. fd, or -EAGAIN: another one serves already. */
int helper_lock(const char *path)
{
    struct timespec pause = { .tv_nsec = 50 * 1000 * 1000 };
    int fd = try_lock(path);
    for (int i = 1; i < LOCK_TRIES && fd == -EAGAIN && !somebody_serves(path); i++) {
        nanosleep(&pause, NULL); /* it is starting, or ending */
        fd = try_lock(path);
    }
    return fd;
}

void helper_remove(const char *path)
{
    char name[PATH_ROOM + 8];
    unlink(path);
    lock_name(name, path);
    unlink(name); /* last: who holds it speaks for the socket */
}

/* Helpers that were killed leave their files, and nobody comes back for those of a network namespace that is gone. */
static void remove_if_stale(const char *path)
{
    int fd = try_lock(path);
    if (fd < 0)
        return;
    helper_remove(path);
    close(fd);
}

/* "ctl-4026531840", "ctl-4026531840-1a2b3c4d" */
static bool is_socket_name(const char *name)
{
    return strncmp(name, "ctl-", 4) == 0 && name[4] && !name[4 + strspn(name + 4, "0123456789abcdef-")];
}

/* Beside our own socket, which nobody else may write to; sockets first made their locks, so those with a lock are all. */
void helper_remove_stale(const char *own)
{
    char dir[PATH_ROOM], path[PATH_ROOM];
    size_t n = (size_t)(strrchr(own, '/') - own);
    memcpy(dir, own, n);
    dir[n] = 0;
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));) {
        char *end = strstr(f->d_name, ".lock");
        if (!end || end[5])
            continue;
        *end = 0;
        if (is_socket_name(f->d_name) && strcmp(f->d_name, own + n + 1) &&
            snprintf(path, sizeof path, "%s/%s", dir, f->d_name) < (int)sizeof path)
            remove_if_stale(path);
    }
    if (d)
        closedir(d);
}

int helper_serve_on(const char *path)
{
    struct sockaddr_un a = helper_address(path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    unlink(path); /* left by one that was killed: we hold the lock */
    if (bind(fd, (struct sockaddr *)&a, sizeof a)) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}
