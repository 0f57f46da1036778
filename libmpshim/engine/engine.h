/* engine/engine.h: what libmpshim-engine.so exports to its two hosts: the thread inside a program and mpshim-engine. */
#ifndef ENG_ENGINE_H
#define ENG_ENGINE_H

#include <stdbool.h>

#define ENGINE_API __attribute__((visibility("default")))

struct eng_cfg {
    int ctl_fd;          /* inside: the engine's end of a SOCK_SEQPACKET pair; helper: a listening one. Owned by the engine. */
    int is_listening;    /* ctl_fd accepts connections (helper) */
    int log_fd;          /* -v lines go there; -1: silent. Owned. */
    int verbose;         /* 0, 1 (a verdict per connection), 2 (trace events) */
    const char *const *settings; /* "name=value" strings (core/settings.def and io=, interfaces=, backup=), NULL-terminated; read before return */
    /* inside: called first on the engine's own thread; shim/ sets its thread-local "I am the engine", so that its wrappers
     * step aside also where RTLD_DEEPBIND is not used. May be NULL. */
    void (*thread_begin)(void);
    int lock_fd;         /* helper: held as long as it serves; handed on with the control socket. Owned. 0: none */
    int take_fd;         /* helper: instead of ctl_fd: the running helper's end, which hands over all it has. Owned. 0: none */
    /* inside: where the helper is that is told what to say if this process is killed (engine/will.h); NULL: nobody is. And how
     * one is started, on the engine's own thread: a descriptor that can be read when it serves or cannot, or -errno; NULL: none is. */
    const char *helper_path;
    int (*helper_launch)(void);
    bool (*is_restricted)(void); /* inside: the program may have forbidden itself what it takes; NULL: it has not */
    int idle_exit_s;     /* helper: end when nothing was alive that long; 0: never */
    void (*ready)(void *arg); /* helper: called when it serves; NULL: none */
    void *ready_arg;
    void (*failed)(void *arg, const char *why); /* helper: called with ready_arg when it cannot serve; NULL: none */
};

/* inside: starts the engine thread (signals blocked, own file table by unshare(CLONE_FILES|CLONE_FS), every descriptor
 * that it did not open closed there) and returns when it serves: 0, or -errno with *why (static text) when it cannot
 * (no CAP_NET_RAW, lo down, ...). */
ENGINE_API int mpshim_engine_start(const struct eng_cfg *cfg, const char **why);
#define ENGINE_REPLACED 3
/* helper: the same engine on this thread; returns the exit status; ENGINE_REPLACED: another serves now, with the control
 * socket and its lock. */
ENGINE_API int mpshim_engine_main(const struct eng_cfg *cfg);
/* mptcp-run --check: prints one line per fact, with a remedy where one is needed; settings as in struct eng_cfg, or NULL.
 * 0: several paths can be used; 1: something is missing. */
ENGINE_API int mpshim_engine_check(int fd, const char *const *settings);

#endif
