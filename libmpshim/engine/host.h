/* engine/host.h: an engine's life, for who runs one: its two hosts (hosts.c), mptcp-run --check (check.c), a test. In this
 * order: new, open (or its parts, one by one), run, free. */
#ifndef ENG_HOST_H
#define ENG_HOST_H

#include "engine/eng.h"

/* ---- engine.c ---- */
struct engine *eng_new(const struct eng_cfg *cfg, int *err, const char **why); /* NULL: *err, and what cfg owns stays the caller's */
int eng_open(struct engine *e, const char **why);           /* loop, network, control socket. 0 or -errno */
int eng_net_open(struct engine *e, const char **why);       /* loopback's raw socket, then the stack */
int eng_net_open_stack(struct engine *e, const char **why);
void eng_run(struct engine *e);                             /* until nothing is left to do, or all has moved to another engine */
void eng_free(struct engine *e);                            /* NULL: nothing */

/* ---- loop.c ---- */
int eng_loop_open(struct engine *e, const char **why);      /* 0 or -errno */

#endif
