/* sim/watch.h: what must hold of a host's stack at every moment, whatever the network does: windows and numbers only
 * grow, timers are near and none is missed, memory stays within the buffers' limits. It looks into core/. */
#ifndef SIM_WATCH_H
#define SIM_WATCH_H

#include "core/pkt.h"
#include "sim/host.h"

struct sim_watch;

struct sim_watch *sim_watch_new(void);
void sim_watch_free(struct sim_watch *w);
/* A packet that the stack is sending: the window it offers. */
void sim_watch_packet(struct sim_watch *w, struct sim_host *h, const struct mp_pkt *p);
/* All connections, between two moments of the simulation. */
void sim_watch_stack(struct sim_watch *w, struct sim_host *h);

#endif
