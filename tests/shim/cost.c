/* The cost of a read() on a descriptor that is not a carrier: ns, best of some rounds. */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 20, CALLS = 20000 };

int main(void)
{
    int fd = open("/dev/zero", O_RDONLY);
    double best = 1e9;
    char c;
    for (int r = 0; r < ROUNDS; r++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (int i = 0; i < CALLS; i++)
            if (read(fd, &c, 1) != 1) return 1;
        clock_gettime(CLOCK_MONOTONIC, &b);
        double ns = ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / CALLS;
        if (ns < best) best = ns;
    }
    printf("%.1f\n", best);
    return 0;
}
