/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard input on its way to a machine's console. Bytes wait in one small buffer until the pipe
 * takes them. A file or pipe is read no faster than that; a terminal is always read, because the
 * escape key has to work when the guest does not read, and what finds no room is dropped, as a
 * serial line would.
 *
 * Standard input stays in blocking mode, which it shares with others: it is read only when poll
 * said that something is there, and at most what is there.
 */
#include "cli/input.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TURNS_MAX 16 /* buffers of a file forwarded before others get a turn */

static void pump(struct input *in);

static void source_ready(void *data, int fd, unsigned events)
{
        pump(data);
}

static void target_ready(void *data, int fd, unsigned events)
{
        struct input *in = data;

        loop_remove(in->target);
        in->target = NULL;
        pump(in);
}

static void stop_source(struct input *in)
{
        loop_remove(in->source);
        in->source = NULL;
}

static void stop_target(struct input *in)
{
        loop_remove(in->target);
        in->target = NULL;
}

static void wait_source(struct input *in)
{
        if (in->source || in->always_ready || in->ended)
                return;
        if (loop_add_fd(in->loop, in->tty.fd, POLLIN, source_ready, in, &in->source))
                in->always_ready = !in->tty.is_tty;
}

static void wait_target(struct input *in)
{
        if (!in->target && in->target_fd >= 0)
                (void)loop_add_fd(in->loop, in->target_fd, POLLOUT, target_ready, in, &in->target);
}

/* Write what is buffered. False: it has to wait. */
static bool flush(struct input *in)
{
        size_t done = 0;
        ssize_t n;

        while (done < in->len && in->target_fd >= 0) {
                n = write(in->target_fd, in->buf + done, in->len - done);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        break;
                if (n < 0)
                        n = (ssize_t)(in->len - done); /* the machine is gone: so is its input */
                done += (size_t)n;
        }
        if (in->target_fd < 0)
                done = in->len;
        in->len -= done;
        memmove(in->buf, in->buf + done, in->len);
        return in->len == 0;
}

static void end(struct input *in)
{
        in->ended = true;
        stop_source(in);
        tty_leave(&in->tty);
        in->ops->ended(in->data);
}

static void take_keys(struct input *in, const char *keys, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                enum escape_action action = escape_key(&in->escape, keys[i]);

                if (action == ESCAPE_PASS && in->len < sizeof in->buf)
                        in->buf[in->len++] = keys[i];
                if (action == ESCAPE_QUIT || action == ESCAPE_NEXT || action == ESCAPE_HELP)
                        in->ops->command(in->data, action);
        }
}

/* Read once. False: nothing more for now. */
static bool fetch(struct input *in)
{
        char keys[256];
        ssize_t n;

        if (in->tty.is_tty)
                n = read(in->tty.fd, keys, sizeof keys);
        else
                n = read(in->tty.fd, in->buf + in->len, sizeof in->buf - in->len);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
                return false;
        if (n <= 0) {
                end(in);
                return false;
        }
        if (in->tty.is_tty)
                take_keys(in, keys, (size_t)n);
        else
                in->len += (size_t)n;
        return true;
}

/* Would a read return at once? Asked before each: whoever shares a terminal may have been faster.
 */
static bool readable(const struct input *in)
{
        struct pollfd p = {.fd = in->tty.fd, .events = POLLIN};

        return in->always_ready || poll(&p, 1, 0) > 0;
}

static void pump(struct input *in)
{
        for (unsigned turn = 0; turn < TURNS_MAX; turn++) {
                if (!flush(in) && !in->tty.is_tty) {
                        stop_source(in);
                        wait_target(in);
                        return;
                }
                if (in->ended || !readable(in) || !fetch(in))
                        break;
        }
        if (!flush(in) || (in->always_ready && !in->ended))
                wait_target(in);
        if (in->tty.is_tty || !in->len)
                wait_source(in);
}

void input_init(struct input *in, struct loop *loop, int fd, const struct input_ops *ops,
                void *data)
{
        struct stat st;

        *in = (struct input){.loop = loop, .ops = ops, .data = data, .target_fd = -1};
        tty_init(&in->tty, fd);
        in->always_ready = !fstat(fd, &st) && S_ISREG(st.st_mode);
}

void input_fini(struct input *in)
{
        stop_source(in);
        stop_target(in);
        tty_leave(&in->tty);
}

void input_resume(struct input *in)
{
        if (in->ended || (in->tty.is_tty && tty_enter(&in->tty)))
                return;
        wait_source(in);
        if (in->always_ready)
                pump(in);
}

void input_suspend(struct input *in)
{
        stop_source(in);
        tty_leave(&in->tty);
}

void input_set_target(struct input *in, int fd)
{
        stop_target(in);
        in->target_fd = fd;
        if (fd < 0 && !in->tty.is_tty)
                stop_source(in);
        flush(in);
}
