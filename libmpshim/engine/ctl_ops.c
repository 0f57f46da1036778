/* engine/ctl_ops.c: what programs ask for (ctl.h), one function an operation. */
#include <errno.h>
#include <unistd.h>

#include "engine/ctl_conn.h"
#include "engine/will.h"

static void do_hello(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = ctl_reply_to(&m->q);
    rep.result = m->q.version == CTL_VERSION ? 0 : -EPROTO;
    if (k->log_fd >= 0)
        close(k->log_fd); /* it says hello once more */
    k->log_fd = ctl_take_fd(m, 1);
    k->verbose = k->log_fd >= 0 ? (int)m->q.value : 0;
    if (rep.result == 0 && k->e->is_listening)
        eng_reconfigure(k->e, m->text);
    ctl_answer(ctl_take_fd(m, 0), &rep);
}

static void left_to_kernel(struct engine *e, enum ctl_why why)
{
    e->total_kernel++;
    if ((unsigned)why < CTL_WHY_COUNT)
        e->kernel_by[why]++;
}

static void do_connect(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = ctl_reply_to(&m->q);
    struct mp_endpoint id;
    enum ctl_why why = CTL_BAD_REQUEST;
    struct eng_marks marks = eng_marks_of(m->nfd > 1 ? m->fd[1] : -1);
    rep.result = eng_carrier_connect(k->e, k->id, &m->q, &marks, &id, &why);
    rep.why = why;
    if (rep.result == 0)
        eng_to_sa(&id, AF_INET, &rep.identity);
    else
        left_to_kernel(k->e, why); /* the shim tells it at once */
    ctl_answer_often(k, m, &rep, sizeof rep);
}

static void do_listen(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = ctl_reply_to(&m->q);
    enum ctl_why why = CTL_BAD_REQUEST;
    int fd = ctl_take_fd(m, 1);
    rep.result = fd < 0 ? -EBADF : eng_port_listen(k->e, k->id, &m->q, fd, &why);
    rep.why = why;
    if (fd >= 0)
        close(fd); /* the port lives as long as the program holds it */
    ctl_answer(ctl_take_fd(m, 0), &rep);
}

static void do_query(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = ctl_reply_to(&m->q);
    eng_carrier_query(k->e, &m->q, &rep);
    ctl_answer_often(k, m, &rep, sizeof rep);
}

static void do_unlisten(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = ctl_reply_to(&m->q);
    eng_port_check(k->e, 0);
    ctl_answer(ctl_take_fd(m, 0), &rep);
}

static void do_info(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_info info = { .rep = ctl_reply_to(&m->q) };
    eng_carrier_info(k->e, &m->q, &info);
    ctl_answer_often(k, m, &info.rep, sizeof info);
}

static void do_setopt(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = ctl_reply_to(&m->q);
    rep.result = eng_carrier_setopt(k->e, &m->q, m->nfd > 1 ? m->fd[1] : -1);
    ctl_answer(ctl_take_fd(m, 0), &rep);
}

static void do_use_local(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = ctl_reply_to(&m->q);
    rep.result = eng_carrier_use_local(k->e, &m->q);
    ctl_answer(ctl_take_fd(m, 0), &rep);
}

static struct ctl_conn *elder(const struct engine *e)
{
    struct ctl_conn *k = e->conns;
    while (k && !k->elder)
        k = k->next;
    return k;
}

/* A port may be under guard of the helper that was here before, whose connections go on there: it answers itself then. */
static void do_release_port(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = ctl_reply_to(&m->q);
    struct mp_endpoint at;
    struct ctl_conn *old = k->elder ? NULL : elder(k->e);
    eng_port_check(k->e, 0);
    if (eng_from_sa(&m->q.local, &at))
        eng_port_release(k->e, at.port);
    if (!old || m->nfd < 1 || eng_send_fds(old->fd, &m->q, m->fd, 1))
        ctl_answer(ctl_take_fd(m, 0), &rep);
}

static void do_keep(struct ctl_conn *k, struct ctl_msg *m)
{
    struct ctl_rep rep = ctl_reply_to(&m->q);
    rep.result = k->e->is_listening ? eng_port_keep(k->e, k->uid, &m->q) : -EPERM;
    ctl_answer(ctl_take_fd(m, 0), &rep);
}

/* Without a file: the question. */
static void do_will(struct ctl_conn *k, struct ctl_msg *m)
{
    bool may = k->e->is_listening && !k->heir && m->q.value == WILL_BYTES;
    int file = ctl_take_fd(m, 0);
    if (file < 0 && may && send(k->fd, "1", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1)
        return;
    if (file >= 0 && may)
        k->heir = eng_heir_new(k->e, file, m->nfd > 1 ? m->fd[1] : -1);
    else if (file >= 0)
        close(file);
    if (!k->heir)
        shutdown(k->fd, SHUT_RDWR); /* the end of file says no, here as there */
}

static void do_will_guards(struct ctl_conn *k, struct ctl_msg *m)
{
    if (k->heir)
        eng_heir_guards(k->heir, m->fd, m->nfd);
    else
        shutdown(k->fd, SHUT_RDWR); /* its will did not come: another is looked for */
}

void ctl_dispatch(struct ctl_conn *k, struct ctl_msg *m)
{
    struct engine *e = k->e;
    if (ctl_nobody_hears(k, &m->q))
        return; /* of the engine that had this connection before: its end of file makes the asker ask again */
    switch (m->q.op) {
    case CTL_HELLO: do_hello(k, m); break;
    case CTL_CONNECT: do_connect(k, m); break;
    case CTL_LISTEN: do_listen(k, m); break;
    case CTL_UNLISTEN: do_unlisten(k, m); break;
    case CTL_QUERY: do_query(k, m); break;
    case CTL_INFO: do_info(k, m); break;
    case CTL_USE_LOCAL: do_use_local(k, m); break;
    case CTL_SETOPT: do_setopt(k, m); break;
    case CTL_DRAIN: eng_drain_add(e, ctl_take_fd(m, 0), m->q.value, false); break;
    case CTL_LEAVE: eng_drain_add(e, ctl_take_fd(m, 0), m->q.value, true); break;
    case CTL_HANDOVER: ctl_do_handover(k, m); break;
    case CTL_REPLACE: ctl_do_replace(k, m); break;
    case CTL_MOVE_SOCKETS: ctl_do_move_sockets(k, m); break;
    case CTL_MOVE: ctl_do_move(k, m); break;
    case CTL_MOVE_GO: ctl_do_move_go(k); break;
    case CTL_PLACE: ctl_do_place(k, m); break;
    case CTL_KEEP: do_keep(k, m); break;
    case CTL_WILL: do_will(k, m); break;
    case CTL_WILL_GUARDS: do_will_guards(k, m); break;
    case CTL_STATUS: eng_status_send(e, ctl_take_fd(m, 0)); break;
    case CTL_RELEASE_PORT: do_release_port(k, m); break;
    default: break; /* of a later version: the closed reply socket says no */
    }
}
