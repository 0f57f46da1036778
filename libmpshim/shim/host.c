/* Which engine serves: the one inside this process, the user's helper, or, in a forked child, the one inside its parent.
 * A connecting program gets an engine inside, a listening one the helper. */
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

#include "shim/host.h"

/* ---- one thread at a time ---- */

static _Atomic int lock_owner; /* thread id; 0: free */

bool shim_hosts_lock(void)
{
    int self = (int)syscall(SYS_gettid);
    for (;;) {
        int free = 0;
        if (atomic_compare_exchange_strong(&lock_owner, &free, self)) return true;
        if (free == self) return false;
        sched_yield();
    }
}

void shim_hosts_unlock(void) { atomic_store(&lock_owner, 0); }

/* What is begun with the lock held is ended: no handler of the program's runs meanwhile, which may jump out of it, and no
 * cancellation takes the thread. Else whoever connects next would wait for ever. */
struct quiet { sigset_t mask; int cancel; };

static void quiet_begin(struct quiet *q)
{
    sigset_t all;
    sigfillset(&all);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &q->cancel);
    pthread_sigmask(SIG_BLOCK, &all, &q->mask);
}

static void quiet_end(const struct quiet *q)
{
    int is;
    pthread_sigmask(SIG_SETMASK, &q->mask, NULL);
    pthread_setcancelstate(q->cancel, &is);
}

/* ---- which ---- */

bool shim_is_privileged(void)
{
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2] = {0};
    return syscall(SYS_capget, &h, d) == 0 && (d[0].effective & (1u << CAP_NET_RAW));
}

/* Of several reasons, the one why no engine could run in this process says most. */
static int pick(const int *order, int n, const char **why)
{
    for (int i = 0; i < n; i++) {
        if (order[i] == SHIM_HOST_INSIDE && shim_have_inside(why)) return SHIM_HOST_INSIDE;
        if (order[i] == SHIM_HOST_HELPER && shim_have_helper(true, why)) return SHIM_HOST_HELPER;
        if (order[i] == SHIM_HOST_PARENT && shim_host_alive(SHIM_HOST_PARENT)) return SHIM_HOST_PARENT;
    }
    if (shim_inside_failed) *why = shim_inside_failed;
    return -1;
}

static int pick_for_connect(const char **why)
{
    static const int forked[] = {SHIM_HOST_HELPER, SHIM_HOST_PARENT};
    static const int inside[] = {SHIM_HOST_PARENT, SHIM_HOST_INSIDE};
    static const int helper[] = {SHIM_HOST_HELPER};
    static const int first[] = {SHIM_HOST_INSIDE, SHIM_HOST_HELPER};
    if (shim_conf.engine == SHIM_HELPER || shim_host_alive(SHIM_HOST_HELPER)) return pick(helper, 1, why);
    if (shim_conf.engine == SHIM_INSIDE) return pick(inside, 2, why);
    if (shim_host_alive(SHIM_HOST_INSIDE)) return SHIM_HOST_INSIDE;
    if (shim_is_forked) return pick(forked, 2, why);
    return shim_is_privileged() ? pick(first, 2, why) : pick(helper, 1, why);
}

/* An engine inside loses its rights with the program, and no packet can be given a mark without. */
static int pick_for_marked(const char **why)
{
    static const int lasting[] = {SHIM_HOST_HELPER, SHIM_HOST_INSIDE};
    return shim_conf.engine == SHIM_AUTO && shim_is_privileged() && !shim_is_forked ? pick(lasting, 2, why) : pick_for_connect(why);
}

static int pick_for_listen(const char **why)
{
    static const int inside[] = {SHIM_HOST_INSIDE};
    static const int first[] = {SHIM_HOST_HELPER, SHIM_HOST_INSIDE};
    /* A container's first process would become the helper's parent, and the helper would die with it. */
    if (shim_conf.engine == SHIM_INSIDE || (shim_pid == 1 && shim_conf.engine == SHIM_AUTO && shim_is_privileged())) return pick(inside, 1, why);
    return pick(first, shim_conf.engine == SHIM_AUTO && shim_is_privileged() ? 2 : 1, why);
}

static int host_for(int (*choose)(const char **), enum ctl_why *why, const char **detail)
{
    *why = CTL_NO_ENGINE, *detail = NULL;
    if (shim_conf.engine == SHIM_NEVER) return *why = CTL_NO_ENGINE_WANTED, -1;
    if (shim_is_restricted) return *detail = "the program has restricted itself (seccomp)", -1;
    struct quiet quiet;
    quiet_begin(&quiet);
    int r = -1;
    if (shim_hosts_lock()) r = choose(detail), shim_hosts_unlock();
    else *why = CTL_RESOURCE;
    if (r >= 0) *detail = NULL; /* what was tried on the way to it explains nothing */
    quiet_end(&quiet);
    return r;
}

/* What pick_for_connect() would say, where an engine serves already: nothing is started, so nothing must be kept from it, and
 * it is asked for each connection. -1: not so, or somebody is changing hosts. */
static int serves_already(void)
{
    if (atomic_load(&lock_owner) || shim_is_restricted) return -1;
    if (shim_conf.engine != SHIM_AUTO && shim_conf.engine != SHIM_HELPER) return -1;
    int host = shim_host_known(SHIM_HOST_HELPER) || shim_conf.engine == SHIM_HELPER ? SHIM_HOST_HELPER : SHIM_HOST_INSIDE;
    return shim_host_alive(host) ? host : -1;
}

int shim_host_for_connect(bool marked, enum ctl_why *why, const char **detail)
{
    int host = marked ? -1 : serves_already();
    if (host >= 0) return *detail = NULL, host;
    return host_for(marked ? pick_for_marked : pick_for_connect, why, detail);
}

int shim_host_for_listen(enum ctl_why *why, const char **detail) { return host_for(pick_for_listen, why, detail); }

int shim_host_existing(void)
{
    const char *why;
    struct quiet quiet;
    if (shim_conf.engine == SHIM_NEVER || shim_is_restricted) return -1;
    quiet_begin(&quiet);
    bool mine = shim_hosts_lock(), helper = mine && shim_have_helper(false, &why);
    if (mine) shim_hosts_unlock();
    quiet_end(&quiet);
    if (helper) return SHIM_HOST_HELPER;
    if (!mine) return -1;
    for (int i = 0; i < SHIM_HOSTS; i++)
        if (shim_host_alive(i)) return i;
    return -1;
}

bool shim_host_possible(void)
{
    if (shim_conf.engine == SHIM_NEVER) return false;
    return shim_is_privileged() || shim_helper_possible() || shim_host_existing() >= 0;
}
