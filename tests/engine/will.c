/* A will (engine/will.h) as a hostile program may write it: what the helper believes of it. Needs no network. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../unit/test.h"
#include "engine/will.h"

static const int sizes = F_SEAL_SHRINK | F_SEAL_GROW;

static int memory(size_t n, int seals)
{
    int fd = memfd_create("will", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)n) || fcntl(fd, F_ADD_SEALS, seals)) abort();
    return fd;
}

static const struct will_file head = { .magic = WILL_MAGIC, .size = sizeof(struct will_slot), .top = 1, .filled = 1 };

static struct will_slot right(void)
{
    return (struct will_slot){ .kind = MP_LAST_FASTCLOSE,
                               .words = { .kind = MP_LAST_RST, .flow = (void *)1, .ifindex = 3, .key = 7, .seq = 1, .ack = 2, .has_ts = true,
                                          .local = { { 4, { 10, 0, 0, 1 } }, 4000 }, .remote = { { 4, { 10, 0, 0, 2 } }, 80 } } };
}

static void put(int fd, const void *p, size_t n, size_t at)
{
    if (pwrite(fd, p, n, (off_t)at) != (ssize_t)n) abort();
}

static int made(const struct will_file *h, const struct will_slot *s)
{
    int fd = memory(WILL_BYTES, sizes);
    put(fd, h, sizeof *h, 0);
    put(fd, s, sizeof *s, offsetof(struct will_file, slot));
    return fd;
}

static bool is_read(const struct will_slot *s, struct mp_last_words *w)
{
    int fd = made(&head, s);
    bool r = eng_will_read(fd, 0, w);
    close(fd);
    return r;
}

TEST(only_a_sealed_memory_file_of_this_size_is_taken)
{
    int pipes[2], fd;
    CHECK(eng_will_is_file(fd = memory(WILL_BYTES, sizes)));
    close(fd);
    CHECK(!eng_will_is_file(fd = memory(WILL_BYTES, F_SEAL_GROW)));
    close(fd);
    CHECK(!eng_will_is_file(fd = memory(WILL_BYTES - 1, sizes)));
    close(fd);
    CHECK(!eng_will_is_file(fd = open("/dev/zero", O_RDONLY)));
    close(fd);
    if (pipe(pipes)) abort();
    CHECK(!eng_will_is_file(pipes[0]));
    CHECK(!eng_will_is_file(-1));
    CHECK_EQ(eng_will_filled(pipes[0]), 0);
}

TEST(a_right_one_is_read)
{
    struct will_slot s = right();
    struct mp_last_words w;
    CHECK(is_read(&s, &w));
    CHECK_EQ(w.kind, MP_LAST_FASTCLOSE);
    CHECK(!w.flow);
    CHECK_EQ(w.key, 7);
    CHECK_EQ(w.remote.port, 80);
}

TEST(of_a_false_head_nothing_is_said)
{
    struct { const char *name; size_t at; uint32_t v; uint32_t top; } rows[] = {
        { "magic", offsetof(struct will_file, magic), 1, 0 },     { "size", offsetof(struct will_file, size), 1, 0 },
        { "revoked", offsetof(struct will_file, revoked), 1, 0 }, { "top", offsetof(struct will_file, top), UINT32_MAX, WILL_SLOTS },
        { "filled", offsetof(struct will_file, filled), 0, 1 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct will_file h = { 0 };
        memcpy(&h, &head, sizeof h);
        struct will_slot s = right();
        memcpy((char *)&h + rows[i].at, &rows[i].v, 4);
        int fd = made(&h, &s);
        ROW("%s", rows[i].name);
        CHECK_EQ(eng_will_top(fd), rows[i].top);
        CHECK(rows[i].at == offsetof(struct will_file, top) || eng_will_filled(fd) == 0);
        close(fd);
    }
}

#define BAD(field, value) { struct will_slot s = right(); s.field = value; ROW(#field " %d", (int)(value)); CHECK(!is_read(&s, &w)); }

TEST(what_could_not_be_said_to_a_peer_is_passed_over)
{
    static const uint8_t no_host[][5] = { { 127, 0, 0, 1 }, { 0, 0, 0, 0 }, { 224, 0, 0, 1 }, { 255, 255, 255, 255 } };
    struct mp_last_words w;
    BAD(kind, 0)
    BAD(kind, 4)
    BAD(kind, UINT32_MAX)
    BAD(words.ifindex, 0)
    BAD(words.ifindex, -1)
    BAD(words.local.port, 0)
    BAD(words.remote.port, 0)
    BAD(words.local.ip.family, 0)
    BAD(words.local.ip.family, 6)
    BAD(words.remote.ip.family, 255)
    for (size_t i = 0; i < sizeof no_host / sizeof *no_host; i++) {
        struct will_slot s = right(), t = right();
        memcpy(s.words.remote.ip.b, no_host[i], 4);
        memcpy(t.words.local.ip.b, no_host[i], 4);
        ROW("address %zu", i);
        CHECK(!is_read(&s, &w) && !is_read(&t, &w));
    }
    struct will_slot s = right();
    *(uint8_t *)&s.words.has_ts = 2;
    CHECK(!is_read(&s, &w));
    int fd = memory(WILL_BYTES, sizes);
    CHECK(!eng_will_read(fd, WILL_SLOTS, &w) && !eng_will_read(fd, UINT32_MAX, &w));
    close(fd);
}

/* Whatever is in it: what is read are hosts and ports, and the sanitizers have nothing to say. */
TEST(random_bytes_do_no_harm)
{
    uint64_t seed = 1;
    int fd = memory(WILL_BYTES, sizes), n = 0;
    for (int i = 0; i < 20000; i++) {
        struct will_slot s = right();
        struct mp_last_words w;
        for (int k = 0; k < 1 + i % 9; k++) ((uint8_t *)&s)[test_random(&seed) % sizeof s] = (uint8_t)test_random(&seed);
        put(fd, &s, sizeof s, offsetof(struct will_file, slot));
        if (!eng_will_read(fd, 0, &w)) continue;
        n++;
        CHECK(w.local.ip.family == w.remote.ip.family && (w.local.ip.family == 4 || w.local.ip.family == 6) && w.local.port && w.remote.port && w.ifindex > 0);
    }
    CHECK(n > 100);
    close(fd);
}

/* ---- guards of ports ---- */

/* Only who has one has a say; who has no privilege has it in a network of his own. */
static int raw_socket(void)
{
    int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0) fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0) abort();
    return fd;
}

static int listening(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || listen(fd, 1)) abort();
    return fd;
}

static struct engine helper;

static struct heir *heir(void)
{
    helper.lo4 = raw_socket();
    struct heir *h = eng_heir_new(&helper, memory(WILL_BYTES, sizes), helper.lo4);
    if (!h) abort();
    return h;
}

TEST(of_what_comes_as_guards_only_listening_sockets_are_taken)
{
    struct heir *h = heir();
    int fd[] = { open("/dev/null", O_RDONLY), -1, listening() };
    eng_heir_guards(h, fd, 0);
    eng_heir_guards(h, fd, 2); /* no guard in it */
    CHECK(fd[0] >= 0);
    eng_heir_guards(h, fd, 0); /* nothing in it */
    CHECK_EQ(eng_heir_ports(h), 0);
    eng_heir_guards(h, fd, 3);
    CHECK_EQ(eng_heir_ports(h), 1);
    CHECK(fd[0] >= 0 && fd[2] < 0);
    close(fd[0]);
    eng_heir_free(h);
    close(helper.lo4);
}

TEST(guards_leave_half_of_the_descriptors_to_the_helper)
{
    struct rlimit rl = { 0, 0 }, was;
    struct heir *h = heir();
    int fd[] = { listening(), fcntl(helper.lo4, F_DUPFD_CLOEXEC, 32) };
    int low = fd[0];
    if (getrlimit(RLIMIT_NOFILE, &was) || dup3(low, fd[1], O_CLOEXEC) < 0) abort();
    rl = (struct rlimit){ 64, was.rlim_max };
    if (setrlimit(RLIMIT_NOFILE, &rl)) abort();
    eng_heir_guards(h, fd, 2);
    CHECK(fd[0] < 0 && fd[1] >= 32);
    CHECK_EQ(eng_heir_ports(h), 1);
    setrlimit(RLIMIT_NOFILE, &was);
    close(fd[1]);
    eng_heir_free(h);
    close(helper.lo4);
}
