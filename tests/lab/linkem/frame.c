/* frame.c: frames, kept for reuse, and lists of them. */
#include "linkem.h"

#include <stdlib.h>
#include <string.h>

static struct frame *spare_frames;

struct frame *frame_get(void)
{
    struct frame *f = spare_frames;
    if (f) {
        spare_frames = f->next;
        return f;
    }
    f = malloc(sizeof *f);
    if (!f) {
        fputs("linkem: out of memory\n", stderr);
        exit(1);
    }
    return f;
}

void frame_put(struct frame *f)
{
    f->next = spare_frames;
    spare_frames = f;
}

struct frame *frame_copy(const struct frame *f)
{
    struct frame *copy = frame_get();
    copy->at_ns = f->at_ns;
    copy->len = f->len;
    memcpy(copy->data, f->data, f->len);
    return copy;
}

static void list_insert_after(struct frame_list *l, struct frame *before, struct frame *f)
{
    f->prev = before;
    f->next = before ? before->next : l->head;
    *(f->prev ? &f->prev->next : &l->head) = f;
    *(f->next ? &f->next->prev : &l->tail) = f;
}

void list_append(struct frame_list *l, struct frame *f)
{
    list_insert_after(l, l->tail, f);
}

/* Keeps the list sorted by time; nearly always the place is the tail. */
void list_insert_by_time(struct frame_list *l, struct frame *f)
{
    struct frame *before = l->tail;
    while (before && before->at_ns > f->at_ns)
        before = before->prev;
    list_insert_after(l, before, f);
}

struct frame *list_pop(struct frame_list *l)
{
    struct frame *f = l->head;
    l->head = f->next;
    *(f->next ? &f->next->prev : &l->tail) = NULL;
    return f;
}
