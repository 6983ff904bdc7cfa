/* SPDX-License-Identifier: Apache-2.0 */
/* The other end of the control socket, as `ramet list` and the like use it. */
#ifndef RAMET_CLI_CLIENT_H
#define RAMET_CLI_CLIENT_H

#include <jansson.h>

#include "base/err.h"
#include "cli/rundir.h"

/* Send @request (taken) to the launcher NAME and wait for its answer, @timeout_ms at most (0: as
 * long as it takes). 0 and the answer in *@reply, which may say "ok": false; -ENOENT when there is
 * no such launcher, or -errno, with @err set. */
int client_ask(struct rundir *dir, const char *name, json_t *request, int timeout_ms,
               json_t **reply, struct err *err);

#endif
