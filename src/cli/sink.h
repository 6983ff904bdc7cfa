/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard output, without ever waiting for it. Text is queued and written as the other side takes
 * it; whoever produces looks at sink_full() and holds back. Belongs to the loop's thread.
 */
#ifndef RAMET_CLI_SINK_H
#define RAMET_CLI_SINK_H

#include <stdbool.h>
#include <stddef.h>

#include "io/loop.h"

struct sink;

struct sink_ops {
        void (*room)(void *data);    /* it was full, and is not any more */
        void (*emptied)(void *data); /* all has been written */
        void (*broken)(void *data,
                       int code); /* nothing can be written any more: a positive errno */
};

/* @fd is borrowed, and its flags are left alone: they are shared with other processes. 0 or -errno.
 */
int sink_create(struct loop *loop, int fd, const struct sink_ops *ops, void *data,
                struct sink **sink);
void sink_destroy(struct sink *sink); /* NULL is fine; drops what is queued */

void sink_write(struct sink *sink, const char *text, size_t len);
bool sink_full(const struct sink *sink);
bool sink_empty(const struct sink *sink);

#endif
