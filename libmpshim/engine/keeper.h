/* engine/keeper.h: mpshim-keeper, a process that waits for the helper's death: see keeper.c. */
#ifndef ENG_KEEPER_H
#define ENG_KEEPER_H

#include "engine/engine.h"

/* fd: the helper's end is the other one; path: its control socket. Returns the exit status. */
ENGINE_API int mpshim_keeper_main(int fd, const char *path);

#endif
