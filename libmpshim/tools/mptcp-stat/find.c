/* Finds the engines: each has an abstract AF_UNIX name (engine/statsock.h), and /proc/net/unix lists those of this network
 * namespace. Anybody may take such a name, so the answer counts only if the socket is the user's whose name it bears. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/statsock.h"
#include "stat.h"

/* Of a program that is stopped the engine is too, and whoever called before still waits in its queue: connect() may have to
 * wait as well. An answer that trickles in ends some time. */
enum { ANSWER_MAX = 64 << 20, PATIENCE_S = 2, WHOLE_ANSWER_S = 10 };

static int connect_to(const char *name, unsigned uid)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct timeval patience = {PATIENCE_S, 0};
    struct ucred who;
    socklen_t n = sizeof who;
    size_t len = strlen(name);
    if (len > sizeof a.sun_path - 1) return -1;
    memcpy(a.sun_path + 1, name, len);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience); /* connect()'s */
    if (connect(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len)) == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 && who.uid == uid)
        return fd;
    close(fd);
    return -1;
}

static char *read_all(int fd)
{
    size_t n = 0, room = 65536;
    char *text = malloc(room + 1);
    ssize_t r = 0;
    double end = stat_clock() + WHOLE_ANSWER_S;
    while (text && n < ANSWER_MAX && stat_clock() < end && (r = read(fd, text + n, room - n)) > 0) {
        n += (size_t)r;
        if (n < room) continue;
        char *more = realloc(text, (room *= 2) + 1);
        if (!more) break;
        text = more;
    }
    if (text) text[n] = 0;
    return text;
}

/* It comes from whoever took the name, and goes to a terminal, root's perhaps: an engine's words are printable, and for what
 * is not, as it is or as \u001b, stands a '?'. */
static void make_printable(char *text)
{
    char *to = text;
    for (const char *p = text; *p; p++) {
        if (*p != '\\') {
            *to++ = *p == '\n' || (*p >= ' ' && *p <= '~') ? *p : '?';
        } else if (strchr("\"\\/", p[1]) && p[1]) {
            *to++ = *p++, *to++ = *p;
        } else {
            *to++ = '?';
            for (int n = p[1] == 'u' ? 5 : 1; n && p[1]; n--) p++;
        }
    }
    *to = 0;
}

/* NULL: it has gone, or does not answer us. */
static json_t *ask(const char *name, unsigned uid)
{
    int fd = connect_to(name, uid);
    if (fd < 0) return NULL;
    char *text = read_all(fd);
    close(fd);
    if (text) make_printable(text);
    json_t *o = text && *text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    if (o && !json_is_object(o)) json_decref(o), o = NULL;
    if (o) json_object_set_new(o, "socket", json_string(name));
    return o;
}

/* A helper's connections are those of other processes. */
static void name_programs(json_t *engine)
{
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(engine, "connections"), i, c) {
        char path[48], name[64] = "";
        int pid = (int)stat_num(c, "pid");
        snprintf(path, sizeof path, "/proc/%d/comm", pid);
        FILE *f = pid > 0 ? fopen(path, "re") : NULL;
        if (f && fgets(name, sizeof name, f)) name[strcspn(name, "\n")] = 0;
        if (f) fclose(f);
        for (char *p = name; *p; p++)
            if (*p < ' ' || *p > '~') *p = '?';
        json_object_set_new(c, "program", json_string(*name ? name : stat_is(engine, "helper") ? "?" : stat_str(engine, "program")));
    }
}

json_t *stat_take(struct found *f)
{
    json_t *engines = json_array();
    char line[512];
    FILE *list = fopen("/proc/net/unix", "re");
    *f = (struct found){0, 0};
    while (list && fgets(line, sizeof line, list)) {
        unsigned uid;
        int pid;
        unsigned long long inode;
        char name[108], *at = strstr(line, " @mpshim/");
        if (!at || sscanf(at, " @" STATSOCK_NAME, &uid, &pid, &inode) != 3) continue;
        if (strstr(line, " 00000000 00010000 ") == NULL) continue; /* not the listening one: an answer on its way has its name too */
        snprintf(name, sizeof name, STATSOCK_NAME, uid, pid, inode);
        json_t *o = ask(name, uid);
        if (o) {
            f->engines++;
            name_programs(o);
            json_array_append_new(engines, o);
        } else if (geteuid() != 0 && uid != geteuid()) {
            f->refused++;
        }
    }
    if (list) fclose(list);
    return engines;
}
