/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests over the control socket: one JSON object a line, and one in answer.
 *
 *      {"v":1,"op":"fork","vm":"web.2","n":3}
 *      {"v":1,"ok":true,"clones":[{"name":"web.2.1",...},...]}
 *      {"v":1,"ok":false,"error":"no machine is named 'web.9'","status":2}
 *
 * pause, resume, reset, kill and fork are answered when they have happened, which an event of the
 * machine tells; until then the request stands in the control's list. A request outlives its
 * connection if a fork still points to it.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "base/clock.h"
#include "cli/control_internal.h"
#include "cli/launcher.h"

enum request_wait {
        WAIT_PAUSED,
        WAIT_RESUMED,
        WAIT_RESET,
        WAIT_GONE,
        WAIT_FORK, /* control_fork_over() */
};

struct control_request {
        struct control_request *next;
        struct connection *connection; /* NULL: it was closed */
        struct machine *machine;
        enum request_wait wait;
};

/* --- answers --- */

static json_t *answer(bool ok)
{
        json_t *reply = json_object();

        json_object_set_new(reply, "v", json_integer(CONTROL_VERSION));
        json_object_set_new(reply, "ok", json_boolean(ok));
        return reply;
}

/* Takes @reply. Without memory the connection just closes. */
static void put_answer(struct connection *c, json_t *reply)
{
        char *text = json_dumps(reply, JSON_COMPACT);

        json_decref(reply);
        c->out = text;
        c->out_len = text ? strlen(text) + 1 : 0;
        c->closing |= !text;
        if (text)
                text[c->out_len - 1] = '\n';
}

static void refuse(struct connection *c, int status, const char *text)
{
        json_t *reply = answer(false);

        json_object_set_new(reply, "error", json_string(text));
        json_object_set_new(reply, "status", json_integer(status));
        put_answer(c, reply);
}

void request_refuse(struct connection *c, const char *text)
{
        refuse(c, CLI_INPUT, text);
}

static void set_number(json_t *o, const char *key, uint64_t n)
{
        json_object_set_new(o, key, json_integer((json_int_t)n));
}

static json_t *describe(const struct machine *m)
{
        json_t *o = json_object();

        json_object_set_new(o, "name", json_string(m->path));
        json_object_set_new(o, "vm", json_string(m->id));
        json_object_set_new(o, "parent", m->parent ? json_string(m->parent->id) : json_null());
        set_number(o, "index", m->index);
        set_number(o, "pid", (uint64_t)m->pid);
        json_object_set_new(o, "state", json_string(machine_state_name(m)));
        set_number(o, "cpus", m->vcpus);
        set_number(o, "memory_bytes", m->memory_bytes);
        set_number(o, "uptime_ns", clock_now_ns() - m->start_ns);
        if (m->parent && m->first_exit_ns)
                set_number(o, "first_exit_ns", m->first_exit_ns);
        return o;
}

static json_t *describe_living(const struct launcher *l)
{
        json_t *list = json_array();

        for (size_t i = 0; i < l->family.count; i++)
                if (l->family.machines[i]->state != MACHINE_ENDED)
                        json_array_append_new(list, describe(l->family.machines[i]));
        return list;
}

/* --- waiting --- */

static struct control_request *add_request(struct connection *c, struct machine *m,
                                           enum request_wait wait)
{
        struct control_request *r = calloc(1, sizeof *r);

        if (!r) {
                refuse(c, CLI_HOST, "no memory");
                return NULL;
        }
        r->connection = c;
        r->machine = m;
        r->wait = wait;
        r->next = c->control->requests;
        c->control->requests = r;
        c->request = r;
        return r;
}

/* Takes @reply. */
static void complete(struct control *control, struct control_request *r, json_t *reply)
{
        struct control_request **link = &control->requests;
        struct connection *c = r->connection;

        while (*link != r)
                link = &(*link)->next;
        *link = r->next;
        free(r);
        if (!c) {
                json_decref(reply);
                return;
        }
        c->request = NULL;
        put_answer(c, reply);
        connection_answered(c);
}

void request_abandon(struct connection *c)
{
        struct control_request *r = c->request;

        if (!r)
                return;
        r->connection = NULL;
        c->request = NULL;
        if (r->wait != WAIT_FORK)
                complete(c->control, r, NULL);
}

void requests_fini(struct control *c)
{
        while (c->requests) {
                struct control_request *r = c->requests;

                c->requests = r->next;
                free(r);
        }
}

/* --- operations --- */

static void op_pause(struct connection *c, struct machine *m, bool pause)
{
        struct launcher *l = c->control->l;
        int ret;

        if (m->state == (pause ? MACHINE_PAUSED : MACHINE_RUNNING)) {
                put_answer(c, answer(true));
                return;
        }
        ret = pause ? l->be->pause(m->process) : l->be->resume(m->process);
        if (ret)
                refuse(c, CLI_HOST, launcher_why(l, ret));
        else
                add_request(c, m, pause ? WAIT_PAUSED : WAIT_RESUMED);
}

static void op_reset(struct connection *c, struct machine *m)
{
        struct launcher *l = c->control->l;
        int ret = l->be->reset(m->process);

        if (ret)
                refuse(c, CLI_HOST, launcher_why(l, ret));
        else
                add_request(c, m, WAIT_RESET);
}

static void op_kill(struct connection *c, struct machine *m)
{
        if (add_request(c, m, WAIT_GONE))
                launcher_kill_machine(c->control->l, m);
}

static void op_fork(struct connection *c, struct machine *m, const json_t *request)
{
        const json_t *n = json_object_get(request, "n");
        json_int_t count = n ? json_integer_value(n) : 1;
        struct control_request *r;
        struct err err = {0};

        if ((n && !json_is_integer(n)) || count < 1 || count > (json_int_t)RAMET_CLONES_MAX) {
                refuse(c, CLI_INPUT, "n: expected a whole number from 1 to 10000");
                return;
        }
        r = add_request(c, m, WAIT_FORK);
        if (!r || !forks_ask(c->control->l, m, (unsigned)count, r, &err))
                return;
        r->wait = WAIT_GONE; /* no fork points to it: it can go */
        request_abandon(c);
        refuse(c, CLI_HOST, err.text);
}

static void machine_op(struct connection *c, const char *op, const json_t *request)
{
        const char *name = json_string_value(json_object_get(request, "vm"));
        struct machine *m = name ? family_find(&c->control->l->family, name) : NULL;
        char text[256];

        if (!name) {
                refuse(c, CLI_INPUT, "vm: expected the name of a machine");
        } else if (!m || m->state == MACHINE_ENDED || !m->process) {
                snprintf(text, sizeof text,
                         m ? "'%.100s' has ended" : "no machine is named '%.100s'", name);
                refuse(c, CLI_INPUT, text);
        } else if (!strcmp(op, "pause") || !strcmp(op, "resume")) {
                op_pause(c, m, op[0] == 'p');
        } else if (!strcmp(op, "reset")) {
                op_reset(c, m);
        } else if (!strcmp(op, "kill")) {
                op_kill(c, m);
        } else {
                op_fork(c, m, request);
        }
}

static void dispatch(struct connection *c, const json_t *request)
{
        static const char *const machine_ops[] = {"pause", "resume", "reset", "kill", "fork"};
        const json_t *v = json_object_get(request, "v");
        const char *op = json_string_value(json_object_get(request, "op"));

        if (!json_is_integer(v) || json_integer_value(v) != CONTROL_VERSION) {
                refuse(c, CLI_INPUT, "v: only version 1 of the protocol is spoken here");
                return;
        }
        if (op && !strcmp(op, "list")) {
                json_t *reply = answer(true);

                json_object_set_new(reply, "vms", describe_living(c->control->l));
                put_answer(c, reply);
                return;
        }
        for (unsigned i = 0; op && i < sizeof machine_ops / sizeof machine_ops[0]; i++) {
                if (!strcmp(op, machine_ops[i])) {
                        machine_op(c, op, request);
                        return;
                }
        }
        refuse(c, CLI_INPUT, "op: expected list, pause, resume, reset, kill or fork");
}

void request_take(struct connection *c, const char *line, size_t len)
{
        json_error_t where;
        json_t *request = json_loadb(line, len, JSON_REJECT_DUPLICATES, &where);

        if (json_is_object(request))
                dispatch(c, request);
        else
                refuse(c, CLI_INPUT, "expected a JSON object, on one line");
        json_decref(request);
}

/* --- what is waited for --- */

/* What the event says of a request that waits for something of that machine: NULL, nothing; "", it
 * has come; or why it never will. */
static const char *verdict(const struct control_request *r, const struct ramet_event *event)
{
        switch (event->type) {
        case RAMET_EVENT_PAUSED:
                return r->wait == WAIT_PAUSED ? "" : NULL;
        case RAMET_EVENT_RESUMED:
                return r->wait == WAIT_RESUMED ? "" : NULL;
        case RAMET_EVENT_RESET:
                return r->wait == WAIT_RESET ? "" : NULL;
        case RAMET_EVENT_RESET_FAILED:
                return r->wait == WAIT_RESET ? event->text : NULL;
        case RAMET_EVENT_GONE:
                if (r->wait == WAIT_FORK)
                        return NULL;
                return r->wait == WAIT_GONE ? "" : "the machine has ended";
        default:
                return NULL;
        }
}

void control_machine_event(struct control *c, struct machine *m, const struct ramet_event *event)
{
        struct control_request *next;

        for (struct control_request *r = c ? c->requests : NULL; r; r = next) {
                const char *why = r->machine == m ? verdict(r, event) : NULL;
                json_t *reply;

                next = r->next;
                if (!why)
                        continue;
                reply = answer(!*why);
                if (*why) {
                        json_object_set_new(reply, "error", json_string(why));
                        json_object_set_new(reply, "status", json_integer(CLI_HOST));
                }
                complete(c, r, reply);
        }
}

void control_fork_over(struct control *c, struct control_request *request,
                       const struct fork_job *job, const char *text)
{
        const struct family *family = &c->l->family;
        json_t *reply = answer(!*text), *clones;

        if (*text) {
                json_object_set_new(reply, "error", json_string(text));
                json_object_set_new(reply, "status", json_integer(CLI_HOST));
                complete(c, request, reply);
                return;
        }
        set_number(reply, "pause_ns", job->figures.frozen.pause_ns);
        set_number(reply, "generation", job->figures.frozen.generation);
        set_number(reply, "failed", job->failed);
        clones = json_array();
        for (size_t i = 0; i < family->count; i++)
                if (family->machines[i]->fork == job)
                        json_array_append_new(clones, describe(family->machines[i]));
        json_object_set_new(reply, "clones", clones);
        complete(c, request, reply);
}
