/* core/opt_bits.h: options by their numbers on the wire, for opt_parse.c, opt_emit.c and the simulator's boxes. */
#ifndef MP_OPT_BITS_H
#define MP_OPT_BITS_H

enum { /* kinds, IANA */
    OPT_EOL = 0, OPT_NOP = 1, OPT_MSS = 2, OPT_WSCALE = 3, OPT_SACK_OK = 4, OPT_SACK = 5, OPT_TS = 8, OPT_MPTCP = 30
};
enum { /* flag bits of MPTCP options */
    CAP_A = 0x80, CAP_B = 0x40, CAP_C = 0x20, CAP_H = 0x01,                       /* RFC 8684 3.1 */
    DSS_A = 0x01, DSS_a = 0x02, DSS_M = 0x04, DSS_m = 0x08, DSS_F = 0x10,         /* RFC 8684 3.3 */
    LOW_BIT = 0x01 /* MP_JOIN and MP_PRIO: B, ADD_ADDR: E (echo), MP_TCPRST: T, all beside the subtype */
};

#endif
