/* engine/hostkey.c: what all engines of a host have in common, whoever's they are, and the network does not know: the kernel's
 * boot id. (A local user can read it, and learn from our timestamps how long the host has been up, which it can read as well.) */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "engine/eng.h"

static int digit(char c)
{
    static const char all[] = "0123456789abcdef";
    const char *at = c ? strchr(all, c) : NULL;
    return at ? (int)(at - all) : -1;
}

/* "42e826b2-4113-...": 32 digits. */
static bool parse(const char *text, uint8_t key[16])
{
    int n = 0;
    for (; *text && n < 32; text++) {
        int d = digit(*text);
        if (d < 0)
            continue;
        key[n / 2] = (uint8_t)(n % 2 ? key[n / 2] << 4 | d : d);
        n++;
    }
    return n == 32;
}

/* Without it (no /proc): a key of this engine's own. */
void eng_host_key(struct engine *e, uint8_t key[16])
{
    char text[64] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = read(fd, text, sizeof text - 1);
        text[n > 0 ? n : 0] = 0;
        close(fd);
    }
    if (!parse(text, key))
        eng_random(e, key, 16);
}
