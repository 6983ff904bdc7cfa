/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard input on its way to a machine's console. At a terminal it is raw, Ctrl-A is an escape
 * key, and the input can go to any machine; otherwise it is forwarded to one machine until it ends.
 */
#ifndef RAMET_CLI_INPUT_H
#define RAMET_CLI_INPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/escape.h"
#include "cli/tty.h"
#include "io/loop.h"

struct input_ops {
        void (*command)(void *data, enum escape_action action); /* QUIT, NEXT, HELP */
        void (*ended)(void *data); /* end of file: close the target's pipe */
};

struct input {
        struct loop *loop;
        const struct input_ops *ops;
        void *data;
        struct tty tty;
        struct escape escape;
        struct loop_watch *source; /* waits for standard input */
        struct loop_watch *target; /* waits for room in the pipe */
        int target_fd;             /* a machine's console, -1: nobody listens */
        bool ended;
        bool always_ready; /* a file: cannot be polled, and never blocks */
        char buf[4096];    /* on its way */
        size_t len;
};

void input_init(struct input *in, struct loop *loop, int fd, const struct input_ops *ops,
                void *data);
void input_fini(struct input *in); /* leaves raw mode */
/* Begin, or go on after input_suspend(): raw mode if it is a terminal and ours. */
void input_resume(struct input *in);
/* Leave raw mode and stop reading. */
void input_suspend(struct input *in);
/* Send to @fd (non-blocking, borrowed) from now on; -1 to nobody. */
void input_set_target(struct input *in, int fd);

#endif
