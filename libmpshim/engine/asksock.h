/* engine/asksock.h: where a process asks about a carrier that it did not make and whose engine it has no connection to:
 * it got the descriptor by posix_spawn(), exec or a message.
 *
 * An abstract AF_UNIX SOCK_SEQPACKET socket, "mpshim-id/ADDRESS": the engine's identity address in hexadecimal, which the
 * carrier's kernel peer shows. One struct ctl_req (CTL_QUERY, CTL_INFO or CTL_SETOPT, which may have the socket beside it), its answer on the same connection.
 * The engine's own user and root may ask; who asks checks that the engine is his own user's or root's. */
#ifndef ENG_ASKSOCK_H
#define ENG_ASKSOCK_H

#define ASKSOCK_NAME "mpshim-id/%08x"

#endif
