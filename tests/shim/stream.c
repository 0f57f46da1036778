/* Writes to a carrier through stdio, and ends without fclose(): exit() must flush before the engine ends. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    if (argc != 3 || inet_pton(AF_INET, argv[1], &a.sin_addr) != 1) return 2;
    a.sin_port = htons((unsigned short)atoi(argv[2]));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) return perror("connect"), 1;
    FILE *f = fdopen(fd, "w");
    fprintf(f, "buffered until exit\n");
    return 0;
}
