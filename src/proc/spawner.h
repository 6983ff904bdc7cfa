/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spawner's side: a process that forks one child for each machine and reaps it. What a child
 * then does is given as operations, so that tests bring their own.
 */
#ifndef RAMET_PROC_SPAWNER_H
#define RAMET_PROC_SPAWNER_H

struct spawner_ops {
        /* Once, in the spawner, before the first request: what every machine needs and need not
         * make anew. Whatever it finds wrong, machine() must tell. NULL: nothing. */
        void (*prepare)(void *shared);
        /* In a child of its own: @channel is a connected SOCK_SEQPACKET socket, and beside 0, 1 and
         * 2 the only descriptor. The result becomes the exit status. */
        int (*machine)(void *shared, int channel);
        void *shared; /* for both */
};

/* The whole life of the spawner, in a freshly forked process. @sock: to the launcher; @launcher: a
 * pidfd of it. Every other descriptor is closed. Never returns. */
_Noreturn void spawner_main(int sock, int launcher, const struct spawner_ops *ops);

#endif
