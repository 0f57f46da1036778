/* Signals that end the process. The kernel would go on with its sockets: what was written arrives, then the peer hears of
 * the end. An engine inside dies with its process, and a peer that only reads would hear nothing. So while one runs, the
 * signals that people and other programs end a process with, where their action is the default one, first let the process
 * leave as _exit() does; then they do what they do. SIGKILL, and those that leave a core, end it at once.
 *
 * The program sees none of this: sigaction() and signal() speak of the default action. In the handler only system calls are
 * made, and no memory is allocated: it may have interrupted anything. */
#include <signal.h>
#include <sys/syscall.h>

#include "shim/shim.h"

/* All whose default action ends the process without a core (signal(7)); those of real time beside them. */
static const int fatal[] = {SIGHUP, SIGINT, SIGPIPE, SIGALRM, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGSTKFLT};
static atomic_bool armed;

static void on_fatal(int sig)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    int saved = errno;
    if (!shim_is_borrowed()) shim_leave_by_signal();
    REAL(sigaction)(sig, &dfl, NULL);
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), sig); /* blocked until this returns */
    errno = saved;
}

static bool is_fatal(int sig)
{
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        if (fatal[i] == sig) return true;
    return sig >= SIGRTMIN && sig <= SIGRTMAX;
}

static bool is_default(const struct sigaction *a) { return !(a->sa_flags & SA_SIGINFO) && a->sa_handler == SIG_DFL; }
static bool is_ours(const struct sigaction *a) { return !(a->sa_flags & SA_SIGINFO) && a->sa_handler == on_fatal; }

static void arm(int sig)
{
    struct sigaction ours = {.sa_handler = on_fatal, .sa_flags = SA_RESTART}, is;
    if (REAL(sigaction)(sig, NULL, &is) == 0 && is_default(&is)) REAL(sigaction)(sig, &ours, NULL);
}

void shim_fatal_arm(void)
{
    if (atomic_exchange(&armed, true)) return;
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) arm(fatal[i]);
    for (int sig = SIGRTMIN; sig <= SIGRTMAX; sig++) arm(sig);
}

int w_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
    if (SHIM_LIKELY(!atomic_load_explicit(&armed, memory_order_relaxed)) || !is_fatal(sig) || shim_is_borrowed()) return REAL(sigaction)(sig, act, old);
    struct sigaction a = act ? *act : (struct sigaction){0}, was;
    if (act && is_default(act)) a.sa_handler = on_fatal, a.sa_flags |= SA_RESTART;
    int r = REAL(sigaction)(sig, act ? &a : NULL, &was);
    if (r == 0 && is_ours(&was)) was.sa_handler = SIG_DFL;
    if (r == 0 && old) *old = was;
    return r;
}

sighandler_t w_signal(int sig, sighandler_t handler)
{
    if (SHIM_LIKELY(!atomic_load_explicit(&armed, memory_order_relaxed)) || !is_fatal(sig) || shim_is_borrowed()) return REAL(signal)(sig, handler);
    sighandler_t was = REAL(signal)(sig, handler == SIG_DFL ? on_fatal : handler);
    return was == on_fatal ? SIG_DFL : was;
}
