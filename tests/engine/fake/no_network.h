/* tests/engine/fake/no_network.h: what an io.h without a network does not do. Included by one file of a program, which has the rest. */
#ifndef FAKE_NO_NETWORK_H
#define FAKE_NO_NETWORK_H

#include <stdlib.h>
#include <unistd.h>

#include "io/io.h"

uint32_t io_slice_max(void *io, void *f, uint32_t m) { (void)io, (void)f; return m; }
uint32_t *io_flow_word(void *f) { static uint32_t none; (void)f; none = 0; return &none; }
int io_guard_fd(struct io *io, uint16_t port) { (void)io, (void)port; return -1; }
bool io_writable(void *io, void *f) { (void)io, (void)f; return true; }
bool io_route(void *io, int i, const struct mp_addr *l, const struct mp_addr *r, uint32_t mark) { (void)io, (void)i, (void)l, (void)r, (void)mark; return true; }
bool io_withheld(void *io, void *flow, uint32_t mark) { (void)io, (void)flow, (void)mark; return false; }
bool io_may_mark(void) { return true; }
uint32_t io_mtu(void *io, int i) { (void)io, (void)i; return 1500; }
void io_port_put(void *io, uint8_t f, uint16_t p) { (void)io, (void)f, (void)p; }
void io_port_hold(void *io, uint8_t f, uint16_t p) { (void)io, (void)f, (void)p; }
void io_give(struct io *io, void (*each)(void *, const struct io_item *, int), void *arg) { (void)io, (void)each, (void)arg; }
void io_take_begin(struct io *io) { (void)io; }
void io_take(struct io *io, const struct io_item *i, int fd) { (void)io, (void)i; close(fd); }
void io_take_end(struct io *io) { (void)io; }
void io_output(struct io *io, const struct mp_pkt *p) { (void)io, (void)p; }
int io_listen(struct io *io, uint8_t f, uint16_t p) { (void)io, (void)f, (void)p; return 0; }
void io_unlisten(struct io *io, uint8_t f, uint16_t p) { (void)io, (void)f, (void)p; }
void io_paths_start(struct io *io) { (void)io; }
int io_doctor(struct io *io, void (*put)(void *, bool, const char *, const char *), void *arg) { (void)io, (void)put, (void)arg; return 0; }

#endif
