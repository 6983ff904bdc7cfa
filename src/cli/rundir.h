/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory of control sockets, one NAME.sock for each running launcher:
 * $XDG_RUNTIME_DIR/ramet, /run/ramet for root without that variable, and /tmp/ramet-UID for others.
 */
#ifndef RAMET_CLI_RUNDIR_H
#define RAMET_CLI_RUNDIR_H

#include <stddef.h>

#include "base/err.h"

struct rundir {
        int fd;         /* of the directory, O_PATH-like use */
        char path[256]; /* absolute */
};

/* Open the directory, made if it is not there; refused if it is not this user's alone. 0 or -errno
 * with @err set. */
int rundir_open(struct rundir *dir, struct err *err);
void rundir_close(struct rundir *dir);

/* Take NAME: a listening, non-blocking socket, in the place of one that nobody listens to any more.
 * 0, -EADDRINUSE when a launcher has that name, or -errno; with @err set. */
int rundir_listen(struct rundir *dir, const char *name, int *fd, struct err *err);
/* Connect to NAME. 0, -ENOENT when there is no such launcher (a socket that one left is removed),
 * or -errno. The socket is blocking. */
int rundir_connect(struct rundir *dir, const char *name, int *fd);
void rundir_unlink(struct rundir *dir, const char *name);
/* Call @each with every NAME for which there is a socket, live or not. 0 or -errno. */
int rundir_each(struct rundir *dir, void (*each)(void *data, const char *name), void *data);

#endif
