/* tests/fuzz/replay.c: main() for a fuzz target without libFuzzer: runs it over files, or all files of directories.
 * What the sanitizers or an invariant find ends the run; the file's name stands before it. */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char current[4096];
static unsigned nfiles;

void __asan_set_death_callback(void (*f)(void)) __attribute__((weak));
static void on_death(void) { fprintf(stderr, "input: %s\n", current); }

static void on_abort(int sig)
{
    on_death();
    signal(sig, SIG_DFL);
    raise(sig);
}

static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(1 << 20);
    if (!f || !data) {
        perror(path);
        exit(2);
    }
    size_t n = fread(data, 1, 1 << 20, f);
    fclose(f);
    uint8_t *exact = realloc(data, n ? n : 1);
    snprintf(current, sizeof current, "%s", path);
    if (getenv("REPLAY_VERBOSE")) fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    nfiles++;
    return 0;
}

static void run(const char *path)
{
    struct stat st;
    char sub[4096];
    DIR *d = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? opendir(path) : NULL;
    if (!d) {
        run_file(path);
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        snprintf(sub, sizeof sub, "%s/%s", path, e->d_name);
        run(sub);
    }
    closedir(d);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s FILE-OR-DIRECTORY...\n", argv[0]);
        return 2;
    }
    if (__asan_set_death_callback) __asan_set_death_callback(on_death);
    signal(SIGABRT, on_abort);
    for (int i = 1; i < argc; i++) run(argv[i]);
    printf("%s: %u inputs\n", strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0], nfiles);
    return 0;
}
