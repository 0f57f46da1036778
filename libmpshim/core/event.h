/* core/event.h: the counters and trace events of events.def. */
#ifndef MP_EVENT_H
#define MP_EVENT_H

enum mp_event_id {
#define X(name, level, meaning) MP_E_##name,
#include "core/events.def"
#undef X
    MP_E_COUNT
};

struct mp_event_desc {
    const char *name;
    int level;
    const char *meaning;
};
extern const struct mp_event_desc mp_events[MP_E_COUNT];

#endif
