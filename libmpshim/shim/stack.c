/* Room to work in. A program's threads may have small stacks (PTHREAD_STACK_MIN is 16 KB), made for calls that need a few
 * hundred bytes. What needs more, loading the engine with its libraries above all (dlopen() takes some 12 KB), runs on a
 * stack of its own, in the same thread: with another thread a dlopen() of the program's, whose constructor connects, would
 * wait for itself. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "shim/shim.h"

#define STACK_BYTES (512 * 1024) /* address space; mapped as it is touched */
#define GUARD_BYTES (64 * 1024)  /* no less than a page anywhere */

/* The sanitizers follow a thread's stack themselves, and want more than a small one anyway. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
void shim_on_stack(void (*work)(void *), void *arg) { work(arg); }
#else

/* At the top of the mapping; contexts hold a signal frame's worth of registers each. */
struct room {
    ucontext_t program, ours;
    void (*work)(void *);
    void *arg;
    int err; /* errno after the work */
};

/* makecontext() passes ints only. */
static void begin(unsigned high, unsigned low)
{
    struct room *r = (struct room *)((uintptr_t)high << 16 << 16 | low);
    r->work(r->arg);
    r->err = errno;
}

static void switch_to(struct room *r, char *stack)
{
    uintptr_t at = (uintptr_t)r;
    void (*make)(ucontext_t *, void (*)(void), int, ...);
    int (*swap)(ucontext_t *, const ucontext_t *);
    *(void **)&make = dlsym(RTLD_NEXT, "makecontext"); /* libc's: a sanitizer's in the program would warn */
    *(void **)&swap = dlsym(RTLD_NEXT, "swapcontext");
    if (!make || !swap || getcontext(&r->ours)) {
        r->work(r->arg);
        return;
    }
    r->ours.uc_stack.ss_sp = stack + GUARD_BYTES;
    r->ours.uc_stack.ss_size = (size_t)((char *)r - stack) - GUARD_BYTES;
    r->ours.uc_link = &r->program;
    make(&r->ours, (void (*)(void))begin, 2, (unsigned)((uint64_t)at >> 32), (unsigned)at);
    swap(&r->program, &r->ours);
    errno = r->err;
}

/* No handler of the program's runs meanwhile, which may jump away, and no cancellation takes the thread: either would leave
 * the stack behind. */
void shim_on_stack(void (*work)(void *), void *arg)
{
    sigset_t all, program;
    int cancel, ignored;
    char *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) {
        work(arg);
        return;
    }
    mprotect(stack, GUARD_BYTES, PROT_NONE);
    sigfillset(&all);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    pthread_sigmask(SIG_BLOCK, &all, &program);
    struct room *r = (struct room *)(void *)(stack + STACK_BYTES - (sizeof *r + 63) / 64 * 64);
    r->work = work, r->arg = arg;
    switch_to(r, stack);
    pthread_sigmask(SIG_SETMASK, &program, NULL);
    pthread_setcancelstate(cancel, &ignored);
    munmap(stack, STACK_BYTES);
}
#endif
