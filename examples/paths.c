/* paths HOST PORT [ADDRESS]: connects to an echo server (socat TCP-LISTEN:PORT,fork EXEC:cat is one), sends a word through it,
 * and tells over which paths; then leaves the local ADDRESS. Runs with and without libmpshim: try `mptcp-run build/examples/paths HOST PORT`.
 * See mpshim.h. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mpshim.h"

static int dial(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
    int fd = -1;
    if (getaddrinfo(host, port, &hints, &list)) return -1;
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen)) close(fd), fd = -1;
    }
    freeaddrinfo(list);
    return fd;
}

static int exchange(int fd)
{
    char b[6] = "";
    if (write(fd, "hello", 5) != 5) return -1;
    return recv(fd, b, 5, MSG_WAITALL) == 5 && !strcmp(b, "hello") ? 0 : -1;
}

static const char *text(const struct sockaddr_storage *a, char *buf)
{
    const void *ip = a->ss_family == AF_INET6 ? (const void *)&((const struct sockaddr_in6 *)a)->sin6_addr
                                              : (const void *)&((const struct sockaddr_in *)a)->sin_addr;
    return inet_ntop(a->ss_family, ip, buf, INET6_ADDRSTRLEN) ? buf : "?";
}

static void tell(int fd)
{
    struct mpshim_subflow v[16];
    char local[INET6_ADDRSTRLEN], remote[INET6_ADDRSTRLEN];
    uint32_t id;
    int n = mpshim_subflows(fd, v, 16);
    if (n < 0 || mpshim_connection_id(fd, &id)) {
        puts("plain TCP");
        return;
    }
    printf("connection %s: %s, %d subflows\n", id ? "identified" : "without identifier", mpshim_is_enabled(fd) ? "MPTCP" : "plain TCP", n);
    for (int i = 0; i < n; i++) printf("  %s: %s -> %s\n", v[i].interface, text(&v[i].local, local), text(&v[i].remote, remote));
}

/* Other subflows join within a few round trips. */
static void await_subflows(int fd, int n)
{
    struct mpshim_subflow v[16];
    for (int i = 0, up; i < 20 && (up = mpshim_subflows(fd, v, 16)) >= 0 && up < n; i++) usleep(100000);
    usleep(300000);
}

int main(int argc, char **argv)
{
    if (argc < 3) return fprintf(stderr, "usage: paths HOST PORT [ADDRESS to leave]\n"), 2;
    int fd = dial(argv[1], argv[2]);
    if (fd < 0 || exchange(fd)) return perror("paths"), 1;
    await_subflows(fd, 2);
    tell(fd);
    if (argc < 4) return 0;
    struct sockaddr_in leave = {.sin_family = AF_INET};
    inet_pton(AF_INET, argv[3], &leave.sin_addr);
    if (mpshim_remove(fd, (struct sockaddr *)&leave, sizeof leave)) perror("mpshim_remove");
    usleep(300000);
    tell(fd);
    if (mpshim_add(fd, (struct sockaddr *)&leave, sizeof leave)) perror("mpshim_add");
    await_subflows(fd, 2);
    tell(fd);
    return exchange(fd) ? perror("paths"), 1 : 0;
}
