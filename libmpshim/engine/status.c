/* engine/status.c: the engine's state as JSON, for mptcp-stat and tests. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/event.h"
#include "engine/carrier.h"

static json_t *ep_json(const struct mp_endpoint *ep)
{
    char b[64];
    return json_string(eng_ep_text(ep, b));
}

static json_t *subflow_json(const struct mpc_subflow_info *s)
{
    return json_pack("{s:o, s:o, s:s, s:s, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i}",
                     "local", ep_json(&s->local), "remote", ep_json(&s->remote), "interface", s->ifname,
                     "state", s->state ? s->state : "?", "backup", s->backup, "stale", s->stale, "initial", s->initial,
                     "srtt_us", (json_int_t)(s->srtt / 1000), "cwnd", (json_int_t)s->cwnd, "flight", (json_int_t)s->flight,
                     "bytes_sent", (json_int_t)s->bytes_sent, "bytes_acked", (json_int_t)s->bytes_acked,
                     "bytes_received", (json_int_t)s->bytes_received, "bytes_retrans", (json_int_t)s->bytes_retrans,
                     "mss", (int)s->mss);
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

static json_t *conn_json(const struct carrier *c)
{
    struct mpc_info i;
    mpc_get_info(c->mpc, &i);
    return json_pack("{s:i, s:o, s:o, s:b, s:b, s:b, s:s, s:s?, s:s?, s:b, s:I, s:I, s:I, s:I, s:o, s:o}",
                     "pid", (int)c->pid, "local", ep_json(&i.local), "remote", ep_json(&i.remote), "server", i.server,
                     "established", i.established, "multipath", i.multipath,
                     "why", i.multipath ? "" : mp_plain_why_text(i.why), "cc", i.cc, "scheduler", i.sched, "checksum", i.csum,
                     "bytes_written", (json_int_t)i.bytes_written, "bytes_acked", (json_int_t)i.bytes_acked,
                     "bytes_read", (json_int_t)i.bytes_read, "reinjected", (json_int_t)i.reinjected,
                     "subflows", subflows_json(c->mpc), "paths", paths_json(c->mpc));
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

static char *status_text(struct engine *e)
{
    json_t *o = json_pack("{s:i, s:i, s:b, s:i, s:i, s:I, s:I, s:I, s:o, s:o, s:o}", "version", CTL_VERSION, "pid", (int)getpid(),
                          "helper", e->is_listening, "carriers", (int)e->nlive, "stack_connections", mp_stack_live(e->stack),
                          "total_connects", (json_int_t)e->total_connects, "total_accepts", (json_int_t)e->total_accepts,
                          "total_kernel", (json_int_t)e->total_kernel, "connections", conns_json(e),
                          "listeners", ports_json(e), "counters", counters_json(e));
    if (!o)
        return NULL;
    char *text = json_dumps(o, JSON_INDENT(1));
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
