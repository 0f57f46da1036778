/* The one source of the control socket's place, compiled into this library too: it links with libc only. */
#include "engine/ctlpath.c"
