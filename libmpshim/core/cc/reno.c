/* core/cc/reno.c: standard TCP congestion control, one subflow for itself. */
#include "core/cc/common.h"

const struct mp_cc mp_cc_reno = {
    .name = "reno",
    .source = "RFC 5681, bytes counted as in RFC 3465, slow start of RFC 9406",
    .summary = "standard TCP: one segment a round trip, half on loss; subflows not coupled",
    .on_ack = mp_cc_reno_ack,
    .on_loss = mp_cc_reno_loss,
    .on_rto = mp_cc_reno_rto,
    .on_idle = mp_cc_reno_idle,
    .on_undo = mp_cc_reno_undo,
};
