/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes for the spawner, which the program does not hear of. Both ways give it a socket to the
 * launcher and a pidfd of it, and return 0 or -errno.
 */
#ifndef RAMET_PROC_LAUNCH_H
#define RAMET_PROC_LAUNCH_H

#include <sys/types.h>

#include "proc/spawner.h"

/* What an executed spawner finds open, beside 0, 1 and 2. */
#define LAUNCH_SOCKET_FD   3
#define LAUNCH_LAUNCHER_FD 4

struct launched {
        pid_t pid; /* 0: none */
        int pidfd; /* -1: it is a child */
};

/* A copy of this process, which must have one thread only; @other is closed in it. */
int launch_fork(int sock, int launcher, int other, const struct spawner_ops *ops,
                struct launched *launched);
/* The program @path, which is given the library's version. From any thread. */
int launch_execute(const char *path, int sock, int launcher, struct launched *launched);
/* Until it has ended. One of pid 0 is fine. */
void launch_wait(struct launched *launched);

#endif
