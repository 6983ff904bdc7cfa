/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard output, without ever waiting for it: a terminal that was stopped by Ctrl-S or a slow
 * pipe must not keep the launcher from its machines, its timers and its control socket.
 *
 * O_NONBLOCK cannot be set on standard output, because it is a property of the open file
 * description, which the shell and others share. So a terminal or pipe is opened once more, through
 * /proc, which gives a description of our own; a socket is written with MSG_DONTWAIT. A regular
 * file never blocks for long and must keep its shared offset: it is written as it is. Where opening
 * again is forbidden (a terminal of another user, after su), writes may block, as those of most
 * programs do.
 */
#include "cli/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FULL_BYTES (64u << 10)

struct sink {
        struct loop *loop;
        int fd;
        bool own_fd, is_socket, broken;
        const struct sink_ops *ops;
        void *data;
        struct loop_watch *watch; /* while something is queued */
        char *buf;
        size_t len, cap;
};

static void open_own(struct sink *sink, int fd)
{
        struct stat st;
        char path[32];
        int own;

        sink->fd = fd;
        if (fstat(fd, &st))
                return;
        sink->is_socket = S_ISSOCK(st.st_mode);
        if (!S_ISFIFO(st.st_mode) && !isatty(fd))
                return;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (own < 0)
                return;
        sink->fd = own;
        sink->own_fd = true;
}

int sink_create(struct loop *loop, int fd, const struct sink_ops *ops, void *data,
                struct sink **out)
{
        struct sink *sink = calloc(1, sizeof *sink);

        if (!sink)
                return -ENOMEM;
        sink->loop = loop;
        sink->ops = ops;
        sink->data = data;
        open_own(sink, fd);
        *out = sink;
        return 0;
}

void sink_destroy(struct sink *sink)
{
        if (!sink)
                return;
        loop_remove(sink->watch);
        if (sink->own_fd)
                close(sink->fd);
        free(sink->buf);
        free(sink);
}

bool sink_full(const struct sink *sink)
{
        return sink->len >= FULL_BYTES;
}

bool sink_empty(const struct sink *sink)
{
        return sink->len == 0;
}

static void fail(struct sink *sink, int code)
{
        sink->broken = true;
        sink->len = 0;
        loop_remove(sink->watch);
        sink->watch = NULL;
        sink->ops->broken(sink->data, code);
}

/* Write what the other side takes. False: the sink broke. */
static bool drain(struct sink *sink)
{
        size_t done = 0;
        ssize_t n;

        while (done < sink->len) {
                n = sink->is_socket
                            ? send(sink->fd, sink->buf + done, sink->len - done, MSG_DONTWAIT)
                            : write(sink->fd, sink->buf + done, sink->len - done);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        break;
                if (n < 0) {
                        fail(sink, errno);
                        return false;
                }
                done += (size_t)n;
        }
        sink->len -= done;
        memmove(sink->buf, sink->buf + done, sink->len);
        return true;
}

static void writable(void *data, int fd, unsigned events)
{
        struct sink *sink = data;
        bool was_full = sink_full(sink);

        if (!drain(sink))
                return;
        if (sink_empty(sink)) {
                loop_remove(sink->watch);
                sink->watch = NULL;
        }
        if (was_full && !sink_full(sink))
                sink->ops->room(sink->data);
        if (sink_empty(sink))
                sink->ops->emptied(sink->data);
}

static bool reserve(struct sink *sink, size_t len)
{
        size_t cap = sink->cap ? sink->cap : 4096;
        char *buf;

        while (cap < sink->len + len)
                cap *= 2;
        if (cap == sink->cap)
                return true;
        buf = realloc(sink->buf, cap);
        if (!buf)
                return false;
        sink->buf = buf;
        sink->cap = cap;
        return true;
}

void sink_write(struct sink *sink, const char *text, size_t len)
{
        bool was_empty = sink_empty(sink);

        if (sink->broken || !reserve(sink, len))
                return;
        memcpy(sink->buf + sink->len, text, len);
        sink->len += len;
        if (!was_empty || !drain(sink) || sink_empty(sink))
                return;
        if (loop_add_fd(sink->loop, sink->fd, POLLOUT, writable, sink, &sink->watch))
                fail(sink, ENOMEM);
}
