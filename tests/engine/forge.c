/* forge CTL raw|none IFINDEX LOCAL PORT REMOTE PORT SEQ ACK: gives a helper a will (engine/will.h) that asks for a reset of a
 * connection that is not the giver's, and ends. Status 0: the helper took it; 2: it refused. IPv4. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/will.h"

static struct mp_endpoint endpoint(const char *ip, const char *port)
{
    struct mp_endpoint e = { .ip.family = 4, .port = (uint16_t)atoi(port) };
    if (inet_pton(AF_INET, ip, e.ip.b) != 1) exit(1);
    return e;
}

static int file(char **arg)
{
    struct will_file head = { .magic = WILL_MAGIC, .size = sizeof head.slot[0], .top = 1, .filled = 1 };
    struct will_slot s = { .kind = MP_LAST_RST, .words = { .ifindex = atoi(arg[0]), .local = endpoint(arg[1], arg[2]), .remote = endpoint(arg[3], arg[4]),
                                                           .seq = (uint32_t)strtoul(arg[5], NULL, 0), .ack = (uint32_t)strtoul(arg[6], NULL, 0) } };
    int fd = memfd_create("forged", MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)WILL_BYTES) || pwrite(fd, &head, sizeof head, 0) < 0 || pwrite(fd, &s, sizeof s, sizeof head) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
        exit(1);
    return fd;
}

int main(int n, char **arg)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct ctl_req q = { .version = CTL_VERSION, .op = CTL_WILL, .value = WILL_BYTES };
    if (n != 10) return 1;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", arg[1]);
    int ctl = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    int fds[] = { file(arg + 3), socket(AF_INET, SOCK_RAW, IPPROTO_TCP) };
    if (connect(ctl, (struct sockaddr *)&a, sizeof a) || eng_send_fds(ctl, &q, fds, arg[2][0] == 'r' ? 2 : 1)) return 1;
    struct pollfd p = { .fd = ctl, .events = POLLIN };
    return poll(&p, 1, 300) ? 2 : 0;
}
