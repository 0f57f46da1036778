/* Programs that LD_PRELOAD cannot reach. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "run.h"

bool run_find_command(const char *name, char *out, size_t n)
{
    if (strchr(name, '/')) return snprintf(out, n, "%s", name) < (int)n && access(out, F_OK) == 0;
    const char *path = getenv("PATH");
    for (const char *p = path ? path : "/bin:/usr/bin"; p; p = strchr(p, ':') ? strchr(p, ':') + 1 : NULL) {
        int len = (int)strcspn(p, ":");
        if (snprintf(out, n, "%.*s/%s", len ? len : 1, len ? p : ".", name) < (int)n && access(out, X_OK) == 0) return true;
    }
    return false;
}

struct facts {
    bool is_elf, has_interp, is_go, is_32bit;
    uint16_t machine;
    char interp[PATH_MAX]; /* the loader's path, or a script's interpreter */
    bool is_script;
};

/* Reads the program headers of a 64-bit ELF file; anything odd: is_elf stays false. */
static void elf_look(const unsigned char *p, size_t n, struct facts *f)
{
    const Elf64_Ehdr *h = (const void *)p;
    if (n < sizeof *h || memcmp(h->e_ident, ELFMAG, SELFMAG)) return;
    f->is_32bit = h->e_ident[EI_CLASS] == ELFCLASS32;
    if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_ident[EI_DATA] != ELFDATA2LSB) return;
    if (h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phoff > n || (n - h->e_phoff) / sizeof(Elf64_Phdr) < h->e_phnum) return;
    f->is_elf = true;
    f->machine = h->e_machine;
    const Elf64_Phdr *ph = (const void *)(p + h->e_phoff);
    for (int i = 0; i < h->e_phnum; i++) {
        if (ph[i].p_offset > n || ph[i].p_filesz > n - ph[i].p_offset) continue;
        if (ph[i].p_type == PT_INTERP) {
            f->has_interp = true;
            snprintf(f->interp, sizeof f->interp, "%.*s", (int)ph[i].p_filesz, (const char *)p + ph[i].p_offset);
        }
        if (ph[i].p_type != PT_NOTE || ph[i].p_filesz < sizeof(Elf64_Nhdr) + 4) continue;
        const Elf64_Nhdr *note = (const void *)(p + ph[i].p_offset);
        if (note->n_namesz == 4 && !memcmp(note + 1, "Go\0", 4)) f->is_go = true;
    }
}

/* "#!/bin/sh -e" */
static void script_look(const unsigned char *p, size_t n, struct facts *f)
{
    if (n < 3 || p[0] != '#' || p[1] != '!') return;
    const char *line = (const char *)p + 2, *end = memchr(line, '\n', n - 2);
    size_t len = end ? (size_t)(end - line) : n - 2, skip = 0;
    while (skip < len && (line[skip] == ' ' || line[skip] == '\t')) skip++;
    snprintf(f->interp, sizeof f->interp, "%.*s", (int)(len - skip), line + skip);
    f->interp[strcspn(f->interp, " \t")] = 0;
    f->is_script = f->interp[0] == '/';
}

/* false: it cannot be read. */
static bool look_into(const char *path, struct facts *f, struct stat *st)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    memset(f, 0, sizeof *f);
    if (fd < 0 || fstat(fd, st) || !S_ISREG(st->st_mode)) {
        if (fd >= 0) close(fd);
        return false;
    }
    void *m = mmap(NULL, (size_t)st->st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (m == MAP_FAILED) return false;
    elf_look(m, (size_t)st->st_size, f);
    script_look(m, (size_t)st->st_size, f);
    munmap(m, (size_t)st->st_size);
    return true;
}

/* Our libraries run with this loader, for this machine. */
static bool is_foreign(const struct facts *f)
{
    struct facts self;
    struct stat st;
    const char *a = strrchr(f->interp, '/'), *b;
    if (!look_into("/proc/self/exe", &self, &st)) return false;
    b = strrchr(self.interp, '/');
    return f->machine != self.machine || !a || !b || strcmp(a, b) != 0;
}

static bool has_set_id(const struct stat *st)
{
    return ((st->st_mode & S_ISUID) && st->st_uid != geteuid()) || ((st->st_mode & S_ISGID) && st->st_gid != getegid());
}

/* For root, too, for whom its set-user-ID bit means nothing. */
static bool clears_environment(const char *path)
{
    static const char *const names[] = {"sudo", "doas", "pkexec"};
    const char *slash = strrchr(path, '/');
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(slash ? slash + 1 : path, names[i])) return true;
    return false;
}

enum run_reach run_look(char *path, size_t n, const char **why)
{
    struct facts f;
    struct stat st;
    char caps[64];
    *why = "takes LD_PRELOAD from what it starts, which runs on kernel TCP: write mptcp-run behind it";
    if (clears_environment(path)) return RUN_NOT;
    bool readable = look_into(path, &f, &st);
    if (readable && f.is_script) { /* its own set-user-ID bit counts for nothing */
        snprintf(path, n, "%s", f.interp);
        readable = look_into(path, &f, &st);
    }
    if (!readable && stat(path, &st)) return RUN_REACHED;
    *why = "is set-user-ID or set-group-ID: it runs on kernel TCP";
    if (has_set_id(&st)) return RUN_NOT;
    *why = "has file capabilities: it runs on kernel TCP";
    if (geteuid() != 0 && getxattr(path, "security.capability", caps, sizeof caps) > 0) return RUN_NOT;
    *why = "is statically linked: it runs on kernel TCP";
    if (f.is_elf && !f.has_interp) return RUN_NOT;
    *why = "is a 32-bit program: it runs on kernel TCP";
    if (f.is_32bit) return RUN_FOREIGN;
    *why = "uses another C library than ours: it runs on kernel TCP";
    if (f.is_elf && is_foreign(&f)) return RUN_FOREIGN;
    *why = "is written in Go, which mostly makes its system calls itself: it may run on kernel TCP";
    if (f.is_go) return RUN_MAYBE;
    return RUN_REACHED;
}
