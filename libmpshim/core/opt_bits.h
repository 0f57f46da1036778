/* core/opt_bits.h: the numbers on the wire that opt_parse.c and opt_emit.c share. */
#ifndef MP_OPT_BITS_H
#define MP_OPT_BITS_H

enum { /* kinds, IANA */
    K_EOL = 0, K_NOP = 1, K_MSS = 2, K_WSCALE = 3, K_SACK_OK = 4, K_SACK = 5, K_TS = 8, K_MPTCP = 30
};
enum { /* flag bits of MPTCP options */
    CAP_A = 0x80, CAP_B = 0x40, CAP_C = 0x20, CAP_H = 0x01,                       /* RFC 8684 3.1 */
    DSS_A = 0x01, DSS_a = 0x02, DSS_M = 0x04, DSS_m = 0x08, DSS_F = 0x10,         /* RFC 8684 3.3 */
    LOW_BIT = 0x01 /* MP_JOIN and MP_PRIO: B, ADD_ADDR: E (echo), MP_TCPRST: T, all beside the subtype */
};

#endif
