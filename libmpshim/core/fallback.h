/* core/fallback.h: when MPTCP gives way to plain TCP, as one table (fallback.def). Pure. */
#ifndef MP_FALLBACK_H
#define MP_FALLBACK_H

enum fb_state { FB_OFFERED, FB_UNCONFIRMED, FB_CONFIRMED, FB_PLAIN, FB_STATES };
enum fb_event {
    FB_SYNACK_WITHOUT_OPTION, FB_SYN_WITHOUT_OPTION, FB_ACK_WITHOUT_OPTION, FB_VERSION_UNKNOWN, FB_SIMULTANEOUS_OPEN,
    FB_HANDSHAKE_DONE, FB_DSS_SEEN, FB_DATA_WITHOUT_DSS, FB_DATA_WITHOUT_DSS_SINGLE, FB_ACK_WITHOUT_DSS, FB_FIN_WITHOUT_DSS, FB_CSUM_BAD_SINGLE, FB_CSUM_BAD_MULTI,
    FB_DATA_ACK_STUCK, FB_DATA_FIN_STUCK,
    FB_PEER_FAIL, FB_PEER_INFINITE, FB_EVENTS
};
/* send_fail: MP_FAIL at once, the infinite mapping with the next data, and DATA_ACKs until the peer's infinite mapping */
enum fb_action { FB_none, FB_stop_options, FB_send_fail, FB_send_infinite, FB_reset_subflow };

struct fb_step {
    enum fb_state next;
    enum fb_action action;
    const char *source; /* NULL: cannot be, the table says: refused, next is the state itself */
};
struct fb_step fb_lookup(enum fb_state s, enum fb_event e);

#endif
