/* SPDX-License-Identifier: Apache-2.0 */
/* Between control.c (connections) and requests.c (what is asked for). */
#ifndef RAMET_CLI_CONTROL_INTERNAL_H
#define RAMET_CLI_CONTROL_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include <ramet/ramet.h>

#include "cli/control.h"
#include "cli/rundir.h"
#include "io/loop.h"

struct connection {
        struct connection *next;
        struct control *control;
        int fd;
        struct loop_watch *watch, *silence;
        char in[CONTROL_LINE_MAX];
        size_t in_len;
        char *out; /* the answer on its way, NULL: none */
        size_t out_len, sent;
        struct control_request *request; /* being worked on, NULL: none */
        bool closing;                    /* after the answer */
        bool eof;                        /* the client sends no more */
};

struct control {
        struct launcher *l;
        struct rundir dir;
        char name[RAMET_NAME_MAX + 1];
        char path[sizeof((struct rundir *)0)->path + RAMET_NAME_MAX + 8];
        int fd;
        struct loop_watch *watch, *again;
        struct connection *connections;
        unsigned nconnections;
        struct control_request *requests; /* all that wait for something */
};

/* requests.c. Work on one line; the answer, at once or later, is put into c->out. */
void request_take(struct connection *c, const char *line, size_t len);
/* Put an error into c->out. */
void request_refuse(struct connection *c, const char *text);
/* The connection is closed: nobody waits for its request any more. */
void request_abandon(struct connection *c);
void requests_fini(struct control *c);

/* control.c. c->out has been filled outside of request_take(). May free @c. */
void connection_answered(struct connection *c);

#endif
