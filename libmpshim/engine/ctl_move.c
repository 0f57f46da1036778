/* engine/ctl_move.c: what engines ask of each other (ctl.h): everything goes to another one, or only the place. */
#include <errno.h>
#include <unistd.h>

#include "engine/ctl_conn.h"

/* Outside of the loop: no watcher may touch a socket any more once it is another's (engine.c). */
void ctl_do_handover(struct ctl_conn *k, struct ctl_msg *m)
{
    struct engine *e = k->e;
    if (m->nfd < 2 || e->move_to >= 0 || e->is_listening)
        return; /* the closed reply socket says no */
    e->move_reply = ctl_take_fd(m, 0);
    e->move_to = ctl_take_fd(m, 1);
    ev_break(e->loop, EVBREAK_ALL);
}

void ctl_do_replace(struct ctl_conn *k, struct ctl_msg *m)
{
    struct engine *e = k->e;
    if (m->nfd < 2 || e->move_to >= 0 || !e->is_listening || e->ctl_fd < 0 || !eng_move_may(e, m->fd[1]))
        return;
    e->move_to = ctl_take_fd(m, 0); /* the end of that connection says no */
    ev_break(e->loop, EVBREAK_ALL);
}

/* The new helper is of another build: programs that start from now on are its, those that run stay ours. */
static void give_place(struct engine *e)
{
    if (eng_place_give(e, e->move_to))
        return;
    ev_io_stop(e->loop, &e->accept_io);
    close(e->ctl_fd);
    if (e->lock_fd >= 0)
        close(e->lock_fd);
    e->ctl_fd = e->lock_fd = -1;
    e->replaced = true;
    e->idle_exit_s = 1;
    mp_stack_join_elsewhere(e->stack, true);
    eng_sweep_at(e, eng_now());
    if (ctl_conn_new(e, e->move_to) == 0) {
        e->conns->elder = true;
        e->move_to = -1;
    }
}

bool eng_ctl_moved(struct engine *e)
{
    struct ctl_rep rep = { .version = CTL_VERSION, .op = CTL_HANDOVER, .result = eng_move_out(e, e->move_to) };
    if (rep.result && e->is_listening)
        give_place(e);
    if (e->move_to >= 0)
        close(e->move_to);
    ctl_answer(e->move_reply, &rep);
    e->move_to = e->move_reply = -1;
    e->replaced |= e->is_listening && rep.result == 0;
    return rep.result == 0;
}

void ctl_do_place(struct ctl_conn *k, struct ctl_msg *m)
{
    struct engine *e = k->e;
    struct ctl_rep rep = ctl_reply_to(&m->q);
    if (!e->is_listening || e->ctl_fd >= 0 || m->nfd < 3)
        return;
    e->ctl_fd = ctl_take_fd(m, 1);
    e->lock_fd = ctl_take_fd(m, 2);
    k->elder = true;
    mp_stack_join_elsewhere(e->stack, true);
    ctl_answer(ctl_take_fd(m, 0), &rep);
    eng_ctl_serve(e);
}

void ctl_do_move_sockets(struct ctl_conn *k, struct ctl_msg *m)
{
    if (k->e->is_listening)
        k->in = eng_move_sockets(k->in, m->fd, m->nfd);
}

void ctl_do_move(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = ctl_reply_to(&m->q);
    int file = ctl_take_fd(m, 1);
    rep.result = file < 0 ? -EBADF : eng_move_check(k->e, k->in, file, m->q.value);
    if (rep.result) {
        eng_move_drop(k->in);
        k->in = NULL;
    }
    ctl_answer(ctl_take_fd(m, 0), &rep);
}

void ctl_do_move_go(struct ctl_conn *k)
{
    struct move_in *in = k->in;
    k->in = NULL;
    eng_move_go(k->e, in);
}
