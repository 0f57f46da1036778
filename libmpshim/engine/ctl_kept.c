/* engine/ctl_kept.c: sockets for answers that an asker keeps from one question to the next (ctl.h, CTL_F_KEEP). */
#include <poll.h>
#include <unistd.h>

#include "engine/ctl_conn.h"

static void kept_close(struct ctl_conn *k, struct ctl_kept *at)
{
    close(at->fd);
    *at = k->kept[--k->nkept];
}

void ctl_kept_close(struct ctl_conn *k)
{
    while (k->nkept)
        kept_close(k, &k->kept[0]);
}

static struct ctl_kept *kept_find(struct ctl_conn *k, uint64_t name)
{
    for (int i = 0; i < k->nkept; i++)
        if (k->kept[i].name == name)
            return &k->kept[i];
    return NULL;
}

/* Whoever held the other end has gone: a child that was forked, mostly. */
static void kept_tidy(struct ctl_conn *k)
{
    for (int i = k->nkept; i-- > 0;) {
        struct pollfd p = { .fd = k->kept[i].fd };
        if (poll(&p, 1, 0) == 1)
            kept_close(k, &k->kept[i]);
    }
}

static bool kept_add(struct ctl_conn *k, uint64_t name, int fd)
{
    struct ctl_kept *old = kept_find(k, name);
    if (old)
        kept_close(k, old);
    if (k->nkept == CTL_KEPT_MAX)
        kept_tidy(k);
    if (fd < 0 || k->nkept == CTL_KEPT_MAX)
        return false;
    k->kept[k->nkept++] = (struct ctl_kept){ .name = name, .fd = fd };
    return true;
}

static bool is_for_kept(const struct ctl_req *q)
{
    return q->flags & CTL_F_KEPT && (q->op == CTL_CONNECT || q->op == CTL_QUERY || q->op == CTL_INFO);
}

bool ctl_nobody_hears(struct ctl_conn *k, const struct ctl_req *q) { return is_for_kept(q) && !kept_find(k, q->value); }

void ctl_answer_often(struct ctl_conn *k, struct ctl_msg *m, struct ctl_rep *rep, size_t n)
{
    struct ctl_kept *to = is_for_kept(&m->q) ? kept_find(k, m->q.value) : NULL;
    if (to) {
        rep->op |= CTL_KEPT;
        if (send(to->fd, rep, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            kept_close(k, to); /* the asker has gone, or does not read: end of file makes it ask again */
        return;
    }
    int fd = ctl_take_fd(m, 0);
    if (!(m->q.flags & CTL_F_KEEP) || !kept_add(k, m->q.value, fd)) {
        ctl_answer_bytes(fd, rep, n);
        return;
    }
    rep->op |= CTL_KEPT;
    (void)send(fd, rep, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}
