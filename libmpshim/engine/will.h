/* engine/will.h: what is told to peers in the name of a program that was killed.
 *
 * An engine inside dies with its program: by SIGKILL, by a signal that leaves a core, by an exec that nobody saw. The kernel would
 * tell the peers of its own sockets; of ours it knows nothing, and a peer that only reads would wait for ever. So the engine keeps
 * its will in a memory file that it shares with a helper of the same user and network namespace: for each subflow what a reset of
 * it takes (struct mp_last_words). When the engine's end of their connection closes, the helper says it (RFC 8684 3.5).
 *
 *   engine inside (will.c)                                  helper (heir.c)
 *   a subflow is established: it gets a slot
 *   a helper runs, or it lived a second: one is started ──► CTL_WILL: are wills known there?
 *                                                     ◄──── a byte: yes
 *                                                     ────► CTL_WILL: the memory file, and a raw socket that shows the right to
 *   numbers change: they are written to the slot            send what it says
 *   ports of connections a second old, their guards   ────► CTL_WILL_GUARDS: kept open, so that no reset of the kernel's, which
 *                                                           ends a subflow and no connection, comes first
 *   all ends in order: slots are cleared, file closed ────► nothing is left to say
 *   all moves to another engine: revoked              ────► nothing is to be said
 *   the program is killed                             ────► each filled slot: said, and twice more for what is lost; then the
 *                                                           guards are closed
 *   the helper ends (killed, replaced, idle)          ◄──── its end closes: another is looked for, and started if need be
 *
 * States of the engine's side: no file yet (nothing was established), ALONE (nobody knows of it: looked for a helper now and then),
 * STARTING (mpshim-engine was started, its word is awaited), ASKED, TOLD. One that was asked and does not answer in a second is left
 * alone for ten: it has nothing yet that it could say, whenever it reads the question.
 *
 * No lock: a slot's kind is written last when it is filled and first when it is cleared, and each number stands for itself. Keys are
 * in it, so it is as the memory of connections (secret.c): in no core dump and no forked child. The file is sealed: it has one size,
 * and nobody who gets it can write. The reader copies a slot and believes nothing in it (eng_will_read). */
#ifndef ENG_WILL_H
#define ENG_WILL_H

#include "engine/eng.h"

#define WILL_MAGIC 0x6d70776cu
enum { WILL_SLOTS = 16384 /* subflows beyond these are not in it; pages are made as they are touched */ };

struct will_slot {
    uint32_t kind;     /* enum mp_last_kind; 0: nothing is to be said */
    uint32_t opened_ms; /* CLOCK_MONOTONIC, its low bits */
    struct mp_last_words words; /* flow means nothing to another process */
    uint32_t next_free; /* the writer's: index + 1; 0: none */
};

struct will_file {
    uint32_t magic;
    uint32_t size;     /* of a slot: another build's may differ */
    uint32_t top;      /* slots from here on were never filled */
    uint32_t filled;   /* slots that are */
    uint32_t revoked;  /* not 0: nothing is to be said */
    struct will_slot slot[];
};
#define WILL_BYTES (sizeof(struct will_file) + WILL_SLOTS * sizeof(struct will_slot))

/* ---- will_read.c: another process's file, of which nothing is believed ---- */
bool eng_will_is_file(int fd);       /* one that never blocks, with our layout */
uint32_t eng_will_filled(int fd);    /* slots that have something to say; 0 also if it was revoked, or is none */
uint32_t eng_will_top(int fd);       /* how many to read; 0 likewise */
/* The i-th slot: false: nothing to say, or not so that it could be said to a peer. */
bool eng_will_read(int fd, uint32_t i, struct mp_last_words *w);

#endif
