/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket of a running launcher, which serves its whole family. docs/control.md
 * describes the protocol. Belongs to the loop's thread; no client can make the launcher wait.
 */
#ifndef RAMET_CLI_CONTROL_H
#define RAMET_CLI_CONTROL_H

#include <ramet/process.h>

#include "base/err.h"

#define CONTROL_VERSION  1
#define CONTROL_LINE_MAX 4096 /* bytes of a request, with its newline */

struct control;
struct control_request;
struct fork_job;
struct launcher;
struct machine;

/* Take the name in the directory of sockets and listen. 0, -EADDRINUSE when it is in use, or
 * -errno; with @err set. */
int control_create(struct launcher *l, const char *name, struct control **control, struct err *err);
void control_destroy(struct control *c);           /* removes the socket; NULL is fine */
const char *control_path(const struct control *c); /* of the socket */

/* What the requests wait for. All are fine with NULL for @c. */
void control_machine_event(struct control *c, struct machine *m, const struct ramet_event *event);
void control_fork_over(struct control *c, struct control_request *request,
                       const struct fork_job *job, const char *text);

#endif
