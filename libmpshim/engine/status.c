/* engine/status.c: the engine's state as JSON, for mptcp-stat and tests. */
#define _GNU_SOURCE
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/event.h"
#include "engine/carrier.h"
#include "engine/ctl_conn.h"

static json_t *ep_json(const struct mp_endpoint *ep)
{
    char b[64];
    return json_string(eng_ep_text(ep, b));
}

/* The program may bear any name; JSON is UTF-8. */
static const char *program_name(char buf[64])
{
    int n = snprintf(buf, 64, "%s", program_invocation_short_name);
    for (int i = 0; i < n && i < 63; i++)
        if ((unsigned char)buf[i] < ' ' || (unsigned char)buf[i] > '~')
            buf[i] = '?';
    return buf;
}

static json_t *subflow_json(const struct mpc_subflow_info *s)
{
    json_t *o = json_pack("{s:o, s:o, s:s, s:s, s:b, s:b, s:b, s:i, s:i}", "local", ep_json(&s->local), "remote", ep_json(&s->remote),
                          "interface", s->ifname, "state", s->state ? s->state : "?", "backup", s->backup, "stale", s->stale,
                          "initial", s->initial, "local_id", (int)s->addr_id_local, "remote_id", (int)s->addr_id_remote);
    json_t *figures = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i}",
                     "srtt_us", (json_int_t)(s->srtt / 1000), "rttvar_us", (json_int_t)(s->rttvar / 1000),
                     "min_rtt_us", (json_int_t)(s->min_rtt / 1000), "cwnd", (json_int_t)s->cwnd, "ssthresh", (json_int_t)s->ssthresh,
                     "flight", (json_int_t)s->flight, "bytes_sent", (json_int_t)s->bytes_sent,
                     "bytes_acked", (json_int_t)s->bytes_acked, "bytes_received", (json_int_t)s->bytes_received,
                     "bytes_retrans", (json_int_t)s->bytes_retrans, "mss", (int)s->mss);
    json_object_update(o, figures);
    json_decref(figures);
    return o;
}

static json_t *subflows_json(const struct mpc *m)
{
    struct mpc_subflow_info v[16];
    json_t *a = json_array();
    int n = mpc_get_subflows(m, v, 16);
    for (int i = 0; i < n; i++)
        json_array_append_new(a, subflow_json(&v[i]));
    return a;
}

static json_t *paths_json(const struct mpc *m)
{
    struct mpc_path_info v[16];
    char ip[48];
    json_t *a = json_array();
    int n = mpc_get_paths(m, v, 16);
    for (int i = 0; i < n; i++)
        json_array_append_new(a, json_pack("{s:s, s:s, s:I, s:I, s:b}", "interface", v[i].ifname,
                                           "local", eng_ip_text(&v[i].local, ip), "bytes_sent", (json_int_t)v[i].bytes_sent,
                                           "bytes_received", (json_int_t)v[i].bytes_received, "live", v[i].live));
    return a;
}

/* What it holds and may send, in bytes. */
static json_t *queues_json(const struct mpc_info *i)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "bytes_written", (json_int_t)i->bytes_written,
                     "bytes_acked", (json_int_t)i->bytes_acked, "bytes_read", (json_int_t)i->bytes_read,
                     "reinjected", (json_int_t)i->reinjected, "unsent", (json_int_t)i->unsent, "unread", (json_int_t)i->unread,
                     "snd_wnd", (json_int_t)i->snd_wnd, "rcv_wnd", (json_int_t)i->rcv_wnd);
}

static json_t *conn_json(const struct carrier *c)
{
    struct mpc_info i;
    mpc_get_info(c->mpc, &i);
    json_t *o = json_pack("{s:i, s:o, s:o, s:b, s:b, s:b, s:s, s:s?, s:s?, s:b, s:I, s:I, s:o, s:o}",
                     "pid", (int)c->pid, "local", ep_json(&i.local), "remote", ep_json(&i.remote), "server", i.server,
                     "established", i.established, "multipath", i.multipath,
                     "why", i.multipath ? "" : mp_plain_why_text(i.why), "cc", i.cc, "scheduler", i.sched, "checksum", i.csum,
                     "token", (json_int_t)i.token, "age_ms", (json_int_t)((eng_now() - i.opened) / MP_MS(1)),
                     "subflows", subflows_json(c->mpc), "paths", paths_json(c->mpc));
    json_t *queues = queues_json(&i);
    json_object_update(o, queues);
    json_decref(queues);
    return o;
}

static json_t *conns_json(struct engine *e)
{
    json_t *a = json_array();
    for (struct carrier *c = e->all; c; c = c->next)
        if (c->mpc)
            json_array_append_new(a, conn_json(c));
    return a;
}

static json_t *ports_json(struct engine *e)
{
    struct port_info i;
    json_t *a = json_array();
    for (struct port *p = eng_port_next(e, NULL, &i); p; p = eng_port_next(e, p, &i))
        json_array_append_new(a, json_pack("{s:o, s:i, s:b, s:i, s:i}", "at", ep_json(&i.at), "families", (int)i.families,
                                           "live", i.live, "connections", i.conns, "pid", (int)i.pid));
    return a;
}

static json_t *counters_json(struct engine *e)
{
    json_t *o = json_object();
    for (int i = 0; i < MP_E_COUNT; i++) {
        uint64_t n = mp_stack_counter(e->stack, i);
        if (n)
            json_object_set_new(o, mp_events[i].name, json_integer((json_int_t)n));
    }
    return o;
}

/* Peers whose next connections the kernel carries. */
static json_t *plain_json(struct engine *e)
{
    struct mp_endpoint at;
    mp_time until, now = eng_now();
    json_t *a = json_array();
    for (int i = 0; (i = eng_plain_next(e, i, now, &at, &until)); )
        json_array_append_new(a, json_pack("{s:o, s:I}", "peer", ep_json(&at), "for_s", (json_int_t)((until - now) / MP_SEC(1))));
    return a;
}

static json_t *kernel_json(const struct engine *e)
{
    static const char *const text[] = {
#define X(name, what) what,
        CTL_WHYS(X)
#undef X
    };
    json_t *o = json_object();
    for (int i = 0; i < CTL_WHY_COUNT; i++)
        if (e->kernel_by[i])
            json_object_set_new(o, text[i], json_integer((json_int_t)e->kernel_by[i]));
    return o;
}

/* Programs for which this helper would speak if they were killed, and ports that it would hold meanwhile. */
static int wills(struct engine *e, int *ports)
{
    int n = 0;
    *ports = 0;
    for (struct ctl_conn *k = e->conns; k; k = k->next)
        if (k->heir && eng_heir_matters(k->heir))
            n++, *ports += eng_heir_ports(k->heir);
    return n;
}

static char *status_text(struct engine *e)
{
    char program[64];
    int ports, n = wills(e, &ports);
    json_t *o = json_pack("{s:i, s:i, s:i, s:s, s:b, s:i, s:i, s:I, s:I, s:I, s:I, s:i, s:i, s:b, s:o, s:o, s:o, s:o, s:o}", "version", CTL_VERSION,
                          "pid", (int)getpid(), "uid", (int)geteuid(), "program", program_name(program),
                          "helper", e->is_listening, "carriers", (int)e->nlive, "stack_connections", mp_stack_live(e->stack),
                          "now_us", (json_int_t)(eng_now() / 1000), "total_connects", (json_int_t)e->total_connects,
                          "total_accepts", (json_int_t)e->total_accepts, "total_kernel", (json_int_t)e->total_kernel,
                          "wills", n, "will_ports", ports, "will_told", eng_will_is_told(e),
                          "left_to_kernel", kernel_json(e), "connections", conns_json(e), "listeners", ports_json(e), "plain_peers", plain_json(e),
                          "counters", counters_json(e));
    if (!o)
        return NULL;
    char *text = json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(o);
    return text;
}

/* ---- sending, as the reader takes it ---- */

struct status_out { ev_io io; char *text; size_t at, len; int fd; };

static void out_free(struct ev_loop *loop, struct status_out *o)
{
    ev_io_stop(loop, &o->io);
    close(o->fd);
    free(o->text);
    free(o);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int events)
{
    (void)events;
    struct status_out *o = w->data;
    while (o->at < o->len) {
        size_t n = o->len - o->at < 32768 ? o->len - o->at : 32768;
        ssize_t r = send(o->fd, o->text + o->at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (r < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (r < 0)
            break;
        o->at += (size_t)r;
    }
    out_free(loop, o);
}

void eng_status_send(struct engine *e, int fd)
{
    if (fd < 0)
        return;
    struct status_out *o = calloc(1, sizeof *o);
    char *text = o ? status_text(e) : NULL;
    if (!text) {
        free(o);
        close(fd);
        return;
    }
    *o = (struct status_out){ .text = text, .len = strlen(text), .fd = fd };
    ev_io_init(&o->io, on_writable, fd, EV_WRITE);
    o->io.data = o;
    ev_io_start(e->loop, &o->io);
}
