/* engine/will.c: an engine inside writes its will (will.h), and sees to it that a helper has it. */
#include "engine/will.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define OLD MP_SEC(1)         /* a connection that lived so long is worth a helper, and a descriptor of its port there */
#define LOOK_AGAIN MP_SEC(1)  /* for a helper that somebody else started */
#define TRY_AGAIN MP_SEC(10)  /* one that could not be started, or ended at once */
#define AT_MOST MP_SEC(60)    /* where no helper can be started, time and again */
#define ANSWER MP_SEC(1)      /* of a helper that was asked */
#define SOON MP_MS(20)        /* a program may end before, which needs none; one that has ended may have another in its place by then */

enum { PAGE = 4096 /* bytes; a larger one is had whole */ };

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* ---- the file ---- */

static void file_close(struct eng_will *w)
{
    if (w->file)
        munmap(w->file, WILL_BYTES);
    if (w->fd >= 0)
        close(w->fd);
    w->file = NULL;
    w->fd = -1;
}

/* An older kernel does not know F_SEAL_FUTURE_WRITE: its reader could write. What we read back ourselves is bounded where we do. */
static bool seal(int fd)
{
    int sizes = F_SEAL_SHRINK | F_SEAL_GROW;
    return fcntl(fd, F_ADD_SEALS, sizes | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0 || fcntl(fd, F_ADD_SEALS, sizes | F_SEAL_SEAL) == 0;
}

static bool is_restricted(const struct eng_will *w) { return w->is_restricted && w->is_restricted(); }

/* Pages up to here are there before they are written: where memory is promised strictly, a write to one that cannot be had is SIGBUS. No new
 * ones for a program that restricted itself: its filter may kill for a system call that it does not know. */
static bool has_pages(struct eng_will *w, size_t end)
{
    size_t more = end > w->pages ? (end - w->pages + PAGE - 1) / PAGE * PAGE : 0;
    if (more && (is_restricted(w) || fallocate(w->fd, 0, (off_t)w->pages, (off_t)mp_min(more, WILL_BYTES - w->pages))))
        return false;
    w->pages += more;
    return true;
}

static bool file_open(struct eng_will *w)
{
    w->fd = memfd_create("mpshim-will", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (w->fd < 0 || ftruncate(w->fd, (off_t)WILL_BYTES) || !has_pages(w, sizeof *w->file))
        return false;
    void *p = mmap(NULL, WILL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
    if (p == MAP_FAILED)
        return false;
    w->file = p;
    (void)madvise(p, WILL_BYTES, MADV_DONTDUMP);
    (void)madvise(p, WILL_BYTES, MADV_DONTFORK);
    w->file->magic = WILL_MAGIC;
    w->file->size = sizeof w->file->slot[0];
    return seal(w->fd);
}

/* Only once: a program that has no room for it has none the next time either. */
static bool has_file(struct eng_will *w)
{
    if (w->file || w->none)
        return w->file;
    if (file_open(w))
        return true;
    file_close(w);
    w->none = true;
    return false;
}

/* ---- its slots ---- */

static void set_kind(struct will_slot *s, uint32_t kind) { __atomic_store_n(&s->kind, kind, __ATOMIC_RELEASE); }

static uint32_t bounded(const uint32_t *p)
{
    uint32_t n = __atomic_load_n(p, __ATOMIC_RELAXED);
    return n <= WILL_SLOTS ? n : 0;
}

/* Index + 1; 0: there is none. */
static uint32_t slot_get(struct eng_will *w)
{
    uint32_t n = w->first_free;
    if (n) {
        w->first_free = bounded(&w->file->slot[n - 1].next_free);
        return n;
    }
    n = bounded(&w->file->top) + 1;
    if (n > WILL_SLOTS || !has_pages(w, offsetof(struct will_file, slot) + n * sizeof w->file->slot[0]))
        return 0;
    w->file->top = n;
    return n;
}

/* Filled or changed. Nothing is to be said any more, but the subflow is there: kind 0. */
static void slot_write(struct engine *e, struct will_slot *s, const struct mp_last_words *words)
{
    struct will_file *f = e->will.file;
    uint32_t kind = words ? (uint32_t)words->kind : 0;
    if (kind && !s->kind && !f->filled++) {
        e->will.look_at = mp_max(e->will.look_at, eng_now() + SOON);
        eng_sweep_at(e, e->will.look_at); /* is there a helper? */
    }
    if (!kind && s->kind)
        f->filled--;
    if (words)
        s->words = *words;
    if (kind != s->kind)
        set_kind(s, kind);
}

void eng_will_note(struct engine *e, const struct mpc *c, const void *flow)
{
    struct eng_will *w = &e->will;
    struct mp_last_words words;
    if (!w->helper || !c)
        return;
    bool any = mpc_last_words(c, flow, &words);
    uint32_t *n = any ? io_flow_word(words.flow) : flow ? io_flow_word((void *)(uintptr_t)flow) : NULL;
    if (!n || (!*n && (!any || !has_file(w) || !(*n = slot_get(w)))))
        return;
    struct will_slot *s = &w->file->slot[*n - 1];
    if (!s->opened_ms) {
        s->opened_ms = ((uint32_t)(eng_now() / MP_MS(1)) - 1) | 1; /* not in the future */
        w->young = true;
    }
    slot_write(e, s, any ? &words : NULL);
}

void eng_will_forget(struct engine *e, void *flow)
{
    struct eng_will *w = &e->will;
    uint32_t *n = w->file && flow ? io_flow_word(flow) : NULL;
    if (!n || !*n)
        return;
    struct will_slot *s = &w->file->slot[*n - 1];
    slot_write(e, s, NULL);
    explicit_bzero(&s->words, sizeof s->words);
    s->opened_ms = 0;
    s->next_free = w->first_free;
    w->first_free = *n;
    *n = 0;
}

/* ---- the helper ---- */

static bool send_now(int to, enum ctl_op op, const int *fd, int n)
{
    struct ctl_req q = { .version = CTL_VERSION, .op = (uint16_t)op, .pid = getpid(), .value = WILL_BYTES };
    return n ? eng_send_fds_now(to, &q, fd, n) == 0 : send(to, &q, sizeof q, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof q;
}

static void helper_lost(struct engine *e)
{
    struct eng_will *w = &e->will;
    if (!ev_is_active(&w->io))
        return;
    ev_io_stop(e->loop, &w->io);
    close(w->io.fd);
    free(w->given);
    w->given = NULL;
    w->told = false;
    w->young = true;
}

/* It has answered, and gets the file; the guards later. */
static bool is_told_now(struct engine *e)
{
    struct eng_will *w = &e->will;
    int with[] = { w->fd, e->lo4 };
    char yes;
    if (w->told || recv(w->io.fd, &yes, 1, MSG_DONTWAIT) != 1 || !send_now(w->io.fd, CTL_WILL, with, 2))
        return false;
    w->told = true;
    w->pause = 0;
    eng_sweep_at(e, eng_now() + OLD);
    return true;
}

/* Its answer. Or it ended, for want of work or killed, or another has its place. One that ends so soon may not want us, and is not asked all the time. */
static void on_helper(struct ev_loop *loop, ev_io *io, int events)
{
    (void)loop, (void)events;
    struct engine *e = io->data;
    mp_time now = eng_now();
    if (is_told_now(e))
        return;
    helper_lost(e);
    e->will.look_at = now + (now - e->will.asked_at < OLD ? TRY_AGAIN : SOON);
    eng_sweep_at(e, e->will.look_at);
}

/* true: a helper is asked whether it wants it. */
static bool ask(struct engine *e)
{
    struct eng_will *w = &e->will;
    int fd = eng_ctl_connect(w->helper, SOCK_NONBLOCK);
    if (fd < 0)
        return false;
    if (!eng_is_for_us(fd) || !send_now(fd, CTL_WILL, NULL, 0)) {
        close(fd);
        return false;
    }
    ev_io_init(&w->io, on_helper, fd, EV_READ);
    w->io.data = e;
    ev_io_start(e->loop, &w->io);
    w->asked_at = eng_now();
    eng_sweep_at(e, w->asked_at + ANSWER);
    return true;
}

static void starting_over(struct engine *e)
{
    if (!ev_is_active(&e->will.starting))
        return;
    ev_io_stop(e->loop, &e->will.starting);
    close(e->will.starting.fd);
}

/* '1', or why not: it shows when we look for it. */
static void on_started(struct ev_loop *loop, ev_io *io, int events)
{
    (void)loop, (void)events;
    struct engine *e = io->data;
    starting_over(e);
    if (!ev_is_active(&e->will.io))
        ask(e);
    eng_sweep_at(e, eng_now());
}

static void start(struct engine *e)
{
    struct eng_will *w = &e->will;
    int fd = w->launch ? w->launch() : -1;
    w->pause = w->pause ? mp_min(2 * w->pause, AT_MOST) : TRY_AGAIN;
    w->look_at = eng_now() + w->pause;
    if (fd < 0)
        return;
    ev_io_init(&w->starting, on_started, fd, EV_READ);
    w->starting.data = e;
    ev_io_start(e->loop, &w->starting);
}

/* ---- the guards of ports ---- */

static bool is_old(const struct will_slot *s, mp_time now)
{
    uint32_t ms = (uint32_t)(now / MP_MS(1)) - s->opened_ms;
    return ms >= OLD / MP_MS(1) && ms < UINT32_MAX - OLD / MP_MS(1); /* it may have been opened since now was looked at */
}

static bool any_old(const struct will_file *f, mp_time now)
{
    for (uint32_t i = 0, n = bounded(&f->top); i < n; i++)
        if (f->slot[i].kind && is_old(&f->slot[i], now))
            return true;
    return false;
}

struct batch { int fd[CTL_FDS], n; uint16_t port[CTL_FDS]; };

static uint8_t *given(const struct eng_will *w, uint16_t port) { return &w->given[port / 8]; }
static uint8_t bit(uint16_t port) { return (uint8_t)(1 << port % 8); }

/* false: the helper does not keep up; another time. */
static bool give(struct eng_will *w, struct batch *b)
{
    bool ok = !b->n || send_now(w->io.fd, CTL_WILL_GUARDS, b->fd, b->n);
    for (int i = 0; i < b->n && !ok; i++)
        *given(w, b->port[i]) &= (uint8_t)~bit(b->port[i]);
    b->n = 0;
    return ok;
}

static bool add(struct engine *e, struct batch *b, uint16_t port)
{
    struct eng_will *w = &e->will;
    int fd = *given(w, port) & bit(port) ? -1 : io_guard_fd(e->io, port);
    if (fd < 0)
        return true;
    *given(w, port) |= bit(port);
    b->fd[b->n] = fd;
    b->port[b->n++] = port;
    return b->n < CTL_FDS || give(w, b);
}

/* Those of connections that lived a second; most do not, and are not worth a message. */
static void give_guards(struct engine *e, mp_time now)
{
    struct eng_will *w = &e->will;
    struct batch b = { .n = 0 };
    bool ok = w->given || (w->given = calloc(1, 65536 / 8)), young = false;
    for (uint32_t i = 0, n = bounded(&w->file->top); i < n && ok; i++) {
        const struct will_slot *s = &w->file->slot[i];
        if (s->kind && is_old(s, now))
            ok = add(e, &b, s->words.local.port);
        else if (s->kind)
            young = true;
    }
    w->young = !(ok && give(w, &b)) || young;
}

/* ---- now and then ---- */

void eng_will_sweep(struct engine *e, mp_time now)
{
    struct eng_will *w = &e->will;
    if (!w->file || !w->file->filled || is_restricted(w))
        return;
    if (ev_is_active(&w->io) && w->told) {
        if (w->young)
            give_guards(e, now);
        return;
    }
    if (ev_is_active(&w->io)) {
        if (now - w->asked_at < ANSWER)
            return;
        helper_lost(e); /* of an older build, or stopped */
        w->look_at = now + TRY_AGAIN;
    }
    if (now < w->look_at)
        return;
    starting_over(e); /* it was started long ago, and says nothing */
    w->look_at = now + LOOK_AGAIN;
    if (!ask(e) && (eng_port_any(e) || any_old(w->file, now)))
        start(e);
}

mp_time eng_will_next(const struct engine *e)
{
    const struct eng_will *w = &e->will;
    if (!w->file || !w->file->filled || is_restricted(w) || (w->told && !w->young))
        return MP_NEVER;
    return w->told ? eng_now() + OLD : ev_is_active(&w->io) ? w->asked_at + ANSWER : w->look_at;
}

/* ---- life ---- */

int eng_will_init(struct engine *e, const struct eng_cfg *cfg)
{
    e->will.fd = -1;
    e->will.launch = cfg->helper_launch;
    e->will.is_restricted = cfg->is_restricted;
    e->will.helper = cfg->helper_path ? mp_text_copy(cfg->helper_path) : NULL;
    return cfg->helper_path && !e->will.helper ? -ENOMEM : 0;
}

bool eng_will_is_told(const struct engine *e) { return e->will.told; }

void eng_will_revoke(struct engine *e, bool yes)
{
    if (e->will.file)
        __atomic_store_n(&e->will.file->revoked, yes, __ATOMIC_RELEASE);
}

/* What is in it now stays: connections that an engine leaves without a word. */
void eng_will_close(struct engine *e)
{
    struct eng_will *w = &e->will;
    if (e->loop) {
        helper_lost(e);
        starting_over(e);
    }
    file_close(w);
    free(w->helper);
    w->helper = NULL;
}
