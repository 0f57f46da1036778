#include "core/event.h"

const struct mp_event_desc mp_events[MP_E_COUNT] = {
#define X(name, level, meaning) { #name, level, meaning },
#include "core/events.def"
#undef X
};
