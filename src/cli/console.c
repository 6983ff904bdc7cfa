/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The consoles of a launcher's machines.
 *
 *      machine "web"   --pipe--> lines --.
 *      machine "web.1" --pipe--> lines --+--> mux --> sink --> standard output
 *      machine "web.2" --pipe--> lines --'
 *      standard input  --> input --pipe--> the machine that has the input ("focus")
 *
 * Each machine has a pipe of its own, so no machine can write into another's line, and a machine
 * that dies closes nothing but its own. When standard output does not keep up, the pipes are not
 * read; they fill, and the guests see a serial line that is busy.
 *
 * Both ends of a pipe are non-blocking: that is a property of the pipe's own descriptions, which
 * nobody else has.
 */
#include "cli/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/input.h"
#include "cli/lines.h"
#include "cli/message.h"
#include "cli/sink.h"

#define HOLD_NS     (100u * 1000000u) /* how long the beginning of a line waits for more of it, ... */
#define HOLD_MAX_NS (10 * HOLD_NS)    /* ... and for its end */

struct console {
        struct console_hub *hub;
        struct console *next, **link;
        struct lines lines;
        void *owner;
        struct loop_watch *watch; /* on out_fd, NULL while standard output does not keep up */
        int out_fd;               /* our end of the machine's output, -1: none or at its end */
        int in_fd;                /* our end of its input, -1: none */
        uint64_t held_ns;         /* when the line that is held back began, ... */
        uint64_t said_ns;         /* ... and when the last of it came */
        bool closing;
};

struct console_hub {
        struct loop *loop;
        struct console_spec spec;
        const struct console_hub_ops *ops;
        void *data;
        struct line_mux mux;
        struct sink *sink;
        struct input input;
        struct loop_watch *hold; /* timer for beginnings of lines */
        bool hold_set;
        struct console *consoles, **tail;
        struct console *focus;
        bool shares_terminal; /* standard output and error are both terminals */
        bool input_started;
        bool input_given; /* the first machine has been there */
        bool ending;      /* being destroyed: nobody is told */
};

static void console_free(struct console *c);
static bool console_read(struct console *c);

static void check_drained(struct console_hub *hub)
{
        if (!hub->ending && console_hub_drained(hub))
                hub->ops->drained(hub->data);
}

static void hub_out(void *data, const char *text, size_t len)
{
        struct console_hub *hub = data;

        sink_write(hub->sink, text, len);
}

static void hub_line(void *data, struct lines *lines, const char *text, size_t len)
{
        struct console_hub *hub = data;
        struct console *c = (struct console *)((char *)lines - offsetof(struct console, lines));

        hub->ops->line(hub->data, c->owner, text, len);
}

static void output_readable(void *data, int fd, unsigned events)
{
        struct console *c = data;

        if (!console_read(c))
                console_free(c);
}

static void watch_output(struct console *c)
{
        struct console_hub *hub = c->hub;

        if (!c->watch && c->out_fd >= 0 &&
            loop_add_fd(hub->loop, c->out_fd, POLLIN, output_readable, c, &c->watch))
                message(MESSAGE_ERROR, "%s: the console is lost: no memory", c->lines.prefix);
}

static void sink_room(void *data)
{
        struct console_hub *hub = data;
        struct console *next;

        for (struct console *c = hub->consoles; c; c = next) {
                next = c->next;
                if (c->closing && !console_read(c))
                        console_free(c);
                else
                        watch_output(c);
        }
}

static void sink_emptied(void *data)
{
        check_drained(data);
}

static void sink_broken(void *data, int code)
{
        struct console_hub *hub = data;

        if (code != EPIPE)
                message(MESSAGE_ERROR, "standard output: %s", strerror(code));
        hub->ops->closed(hub->data);
}

static const struct sink_ops sink_ops = {
        .room = sink_room,
        .emptied = sink_emptied,
        .broken = sink_broken,
};

static void hold_over(void *data);

static void set_hold(struct console_hub *hub, uint64_t delay_ns)
{
        int ret = 0;

        if (hub->hold_set)
                return;
        if (hub->hold)
                ret = loop_rearm_timer(hub->hold, delay_ns);
        else
                ret = loop_add_timer(hub->loop, delay_ns, hold_over, hub, &hub->hold);
        hub->hold_set = !ret;
}

/* How much longer a machine's line is held back; 0: it is to be shown as it is. */
static uint64_t hold_left(const struct console *c, uint64_t now)
{
        uint64_t until = c->said_ns + HOLD_NS, last = c->held_ns + HOLD_MAX_NS;

        until = until < last ? until : last;
        return until > now ? until - now : 0;
}

/* One timer serves all: each line is looked at by its own times, as one that is still being printed
 * must not be torn because another has waited for long. */
static void hold_over(void *data)
{
        struct console_hub *hub = data;
        uint64_t now = clock_now_ns(), next = UINT64_MAX;

        hub->hold_set = false;
        for (struct console *c = hub->consoles; c; c = c->next) {
                uint64_t left = hold_left(c, now);

                if (!left)
                        lines_flush(&hub->mux, &c->lines);
                else if (c->lines.len && left < next)
                        next = left;
        }
        if (next != UINT64_MAX)
                set_hold(hub, next);
}

/* @c has taken bytes; @was_held: it held some back before. */
static void hold_line(struct console *c, bool was_held)
{
        c->said_ns = clock_now_ns();
        if (!was_held)
                c->held_ns = c->said_ns;
        set_hold(c->hub, HOLD_NS);
}

/* Read once and pass it on. False: that was the last of it, and the console is to be freed. */
static bool console_read(struct console *c)
{
        struct console_hub *hub = c->hub;
        char data[4096];
        bool was_held;
        ssize_t n;

        do {
                if (sink_full(hub->sink)) {
                        loop_remove(c->watch);
                        c->watch = NULL;
                        return true;
                }
                n = read(c->out_fd, data, sizeof data);
                was_held = c->lines.len > 0 && n > 0 && !memchr(data, '\n', (size_t)n);
                if (n > 0 && lines_push(&hub->mux, &c->lines, data, (size_t)n))
                        hold_line(c, was_held);
        } while (n > 0 && c->closing);
        if (n > 0 || (n < 0 && errno == EINTR) || (n < 0 && errno == EAGAIN && !c->closing))
                return true;
        loop_remove(c->watch);
        c->watch = NULL;
        close(c->out_fd);
        c->out_fd = -1;
        lines_close(&hub->mux, &c->lines);
        return !c->closing;
}

/* --- input --- */

static void give_focus(struct console_hub *hub, struct console *c)
{
        hub->focus = c;
        input_set_target(&hub->input, c ? c->in_fd : -1);
}

static struct console *next_with_input(struct console_hub *hub, struct console *from)
{
        struct console *c = from ? from->next : hub->consoles;

        for (; c; c = c->next)
                if (c->in_fd >= 0)
                        return c;
        for (c = hub->consoles; c; c = c->next)
                if (c->in_fd >= 0)
                        return c;
        return NULL;
}

static void input_command(void *data, enum escape_action action)
{
        struct console_hub *hub = data;

        if (action == ESCAPE_QUIT) {
                hub->ops->quit(hub->data);
        } else if (action == ESCAPE_NEXT) {
                give_focus(hub, next_with_input(hub, hub->focus));
                if (hub->focus)
                        message(MESSAGE_ERROR, "input goes to %.*s",
                                (int)strlen(hub->focus->lines.prefix) - 1,
                                hub->focus->lines.prefix);
        } else {
                message(MESSAGE_ERROR, "Ctrl-A x: quit   Ctrl-A n: input to the next machine   "
                                       "Ctrl-A Ctrl-A: Ctrl-A   Ctrl-A h: this");
        }
}

static void input_ended(void *data)
{
        struct console_hub *hub = data;

        if (!hub->focus)
                return;
        close(hub->focus->in_fd);
        hub->focus->in_fd = -1;
        give_focus(hub, NULL);
}

static const struct input_ops input_ops = {.command = input_command, .ended = input_ended};

/* --- the hub --- */

/* A message is about to be printed: it must not go on in a guest's line on the same terminal. */
static void before_message(void *data)
{
        struct console_hub *hub = data;

        if (hub->shares_terminal)
                lines_break(&hub->mux);
}

int console_hub_create(struct loop *loop, const struct console_spec *spec, bool prefixed,
                       const struct console_hub_ops *ops, void *data, struct console_hub **out)
{
        struct console_hub *hub = calloc(1, sizeof *hub);
        int ret;

        if (!hub)
                return -ENOMEM;
        hub->loop = loop;
        hub->tail = &hub->consoles;
        hub->spec = *spec;
        hub->ops = ops;
        hub->data = data;
        hub->mux = (struct line_mux){
                .out = hub_out, .line = ops->line ? hub_line : NULL, .data = hub, .raw = !prefixed};
        hub->shares_terminal = isatty(STDOUT_FILENO) && isatty(STDERR_FILENO);
        ret = sink_create(loop, STDOUT_FILENO, &sink_ops, hub, &hub->sink);
        if (ret) {
                free(hub);
                return ret;
        }
        input_init(&hub->input, loop, STDIN_FILENO, &input_ops, hub);
        if (!ops->line) /* what is captured leaves no open lines */
                message_set_before(before_message, hub);
        *out = hub;
        return 0;
}

void console_hub_destroy(struct console_hub *hub)
{
        if (!hub)
                return;
        hub->ending = true;
        if (!hub->ops->line)
                message_set_before(NULL, NULL);
        input_fini(&hub->input);
        while (hub->consoles)
                console_free(hub->consoles);
        loop_remove(hub->hold);
        sink_destroy(hub->sink);
        free(hub);
}

void console_hub_prefix(struct console_hub *hub)
{
        hub->mux.raw = false;
}

bool console_hub_drained(const struct console_hub *hub)
{
        return !hub->consoles && sink_empty(hub->sink);
}

void console_hub_resume(struct console_hub *hub)
{
        if (hub->spec.kind != CONSOLE_STDIO || hub->ops->line)
                return;
        hub->input_started = true;
        input_resume(&hub->input);
}

void console_hub_suspend(struct console_hub *hub)
{
        if (hub->input_started)
                input_suspend(&hub->input);
}

const struct tty *console_hub_tty(const struct console_hub *hub)
{
        bool used = hub->spec.kind == CONSOLE_STDIO && !hub->ops->line && hub->input.tty.is_tty;

        return used ? &hub->input.tty : NULL;
}

/* --- one console --- */

static int open_file(const struct console_hub *hub, const char *path, int *fd, struct err *err)
{
        char name[4096];
        size_t n = 0;

        for (const char *p = hub->spec.pattern; *p; p++) {
                const char *add = p;
                size_t len = 1;

                if (*p == '%' && *++p == 'c') { /* parse_console() lets only %c and %% pass */
                        add = path;
                        len = strlen(path);
                }
                if (n + len >= sizeof name)
                        return err_input(err, "--console: the name of the file is too long");
                memcpy(name + n, add, len);
                n += len;
        }
        name[n] = '\0';
        /* O_NONBLOCK: a FIFO that nobody reads is an error now, not a wait for ever. */
        *fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
        if (*fd < 0)
                return err_input(err, "--console file=%s: %s", name, strerror(errno));
        return 0;
}

static int open_pipes(struct console *c, bool input, int *in_fd, int *out_fd, struct err *err)
{
        int in[2] = {-1, -1}, out[2];

        if (input && pipe2(in, O_NONBLOCK | O_CLOEXEC))
                return err_host(err, errno, "no pipe for a console: %s", strerror(errno));
        if (pipe2(out, O_NONBLOCK | O_CLOEXEC)) {
                int code = errno;

                if (input) {
                        close(in[0]);
                        close(in[1]);
                }
                return err_host(err, code, "no pipe for a console: %s", strerror(code));
        }
        *in_fd = in[0];
        c->in_fd = in[1];
        c->out_fd = out[0];
        *out_fd = out[1];
        return 0;
}

static void enlist(struct console_hub *hub, struct console *c)
{
        c->link = hub->tail;
        *c->link = c;
        hub->tail = &c->next;
}

static void delist(struct console_hub *hub, struct console *c)
{
        *c->link = c->next;
        if (c->next)
                c->next->link = c->link;
        else
                hub->tail = c->link;
}

int console_open(struct console_hub *hub, const char *path, void *owner, int *in_fd, int *out_fd,
                 struct console **out, struct err *err)
{
        /* A terminal can talk to every machine in turn; any other input is the first machine's. */
        bool input = !hub->ops->line && (hub->input.tty.is_tty || !hub->input_given);
        struct console *c = calloc(1, sizeof *c);
        int ret = 0;

        if (!c)
                return err_host(err, ENOMEM, "no memory for a console");
        c->hub = hub;
        c->owner = owner;
        c->in_fd = c->out_fd = -1;
        *in_fd = *out_fd = -1;
        lines_init(&c->lines, path);
        if (hub->spec.kind == CONSOLE_FILE)
                ret = open_file(hub, path, out_fd, err);
        else if (hub->spec.kind == CONSOLE_STDIO)
                ret = open_pipes(c, input, in_fd, out_fd, err);
        if (ret) {
                free(c);
                return ret;
        }
        enlist(hub, c);
        hub->input_given = true;
        watch_output(c);
        if (!hub->focus && c->in_fd >= 0)
                give_focus(hub, c);
        *out = c;
        return 0;
}

static void console_free(struct console *c)
{
        struct console_hub *hub = c->hub;

        delist(hub, c);
        if (hub->focus == c)
                give_focus(hub, hub->input.tty.is_tty ? next_with_input(hub, c) : NULL);
        loop_remove(c->watch);
        if (c->out_fd >= 0)
                close(c->out_fd);
        if (c->in_fd >= 0)
                close(c->in_fd);
        if (hub->mux.open == &c->lines)
                hub->mux.open = NULL;
        free(c);
        check_drained(hub);
}

void console_close(struct console *c)
{
        if (!c || c->closing)
                return;
        c->closing = true;
        if (c->out_fd < 0 || !console_read(c))
                console_free(c);
}
