/* tests/unit/lab_silence.h: two paths that bring data in turns, until one of them brings nothing any more. */
#ifndef MP_LAB_SILENCE_H
#define MP_LAB_SILENCE_H

#include "lab.h"

#define SEG 1000u

/* Both paths bring data, in turns; the stream has come to 2 * n * SEG. */
LAB static void take_turns(struct lab *l, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        lab_data(l, &l->p[0], 1 + i * SEG, 1, 2 * i * SEG, SEG);
        lab_data(l, &l->p[1], 1 + i * SEG, 1, (2 * i + 1) * SEG, SEG);
        lab_wait(l, MP_MS(1));
    }
    lab_read(l);
    lab_forget(l);
}

/* The next segment of the first path is missing; the second goes on, one segment each ms, for some time. */
LAB static void go_on_without_first(struct lab *l, uint32_t from, uint32_t ms)
{
    for (uint32_t i = 0; i < ms; i++) {
        lab_data(l, &l->p[1], 1 + (from + i) * SEG, 1, (2 * from + 1 + i) * SEG, SEG);
        lab_wait(l, MP_MS(1));
    }
}

LAB static const struct got *with(const struct lab *l, const struct peer *p, enum mp_subtype t)
{
    for (int i = l->qi; i < l->qn; i++)
        if (l->q[i].p == p && (l->q[i].o.mp & MP_OPT_HAS(t))) return &l->q[i];
    return NULL;
}

LAB static bool asked(const struct lab *l, const struct peer *p) /* a segment below the window, RFC 9293 3.8.4 */
{
    for (int i = l->qi; i < l->qn; i++)
        if (l->q[i].p == p && l->q[i].seq == 0 && !(l->q[i].flags & MP_SYN)) return true;
    return false;
}

#endif
