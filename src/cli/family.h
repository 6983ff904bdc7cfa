/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machines of one launcher: a root and its clones, the clones' clones, and so on. A machine's
 * path says where it comes from: the k-th clone ever made of X is X.k. Records stay until the end
 * of the run, since the table at the end names every machine.
 */
#ifndef RAMET_CLI_FAMILY_H
#define RAMET_CLI_FAMILY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <ramet/process.h>

#include "base/err.h"

enum machine_state {
        MACHINE_STARTING, /* asked for; the guest has not run yet */
        MACHINE_RUNNING,
        MACHINE_PAUSED,
        MACHINE_ENDED,
};

struct console;
struct fork_job;

struct machine {
        char *path;             /* web.2.1 */
        char id[33];            /* unique over all runs */
        struct machine *parent; /* NULL: the root */
        unsigned index;         /* its number in the fork that made it, from 1; 0 for the root */
        unsigned clones;        /* how many were made of it, for their names */
        unsigned vcpus;
        uint64_t memory_bytes;
        const struct ramet_vm_options *options; /* of the root; borrowed for the run */
        uint64_t start_ns;                      /* CLOCK_MONOTONIC, when it was asked for */

        struct ramet_process *process; /* NULL before and after */
        struct console *console;
        pid_t pid;
        enum machine_state state;
        const struct fork_job *fork; /* the fork that made it, NULL: the root */
        struct fork_job *made_by;    /* the same, while that fork waits for it */
        struct fork_job *forking;    /* the fork of this machine that is under way */
        bool kill_asked;             /* the launcher or a user wants it dead */

        uint64_t spawn_ns, first_exit_ns; /* clones; 0: not yet */
        const char *how;
        bool reported; /* the exit event is out */
        enum ramet_exit reason;
        int guest_status; /* DEBUG: the guest's own; KILLED: the signal */
        uint64_t shared_bytes, private_bytes, assists;
};

struct family {
        struct machine **machines; /* in the order of their making; the first is the root */
        size_t count, cap;
        size_t alive; /* not MACHINE_ENDED */
};

void family_fini(struct family *f);
/* A new record in state STARTING: the root (@parent NULL, @name its name) or the next clone of
 * @parent, number @index of its fork. 0 or -ENOMEM, or -errno without randomness, with @err set. */
int family_add(struct family *f, struct machine *parent, const char *name, unsigned index,
               struct machine **machine, struct err *err);
struct machine *family_find(const struct family *f, const char *path); /* NULL: no such */
const char *machine_state_name(const struct machine *m);

#endif
