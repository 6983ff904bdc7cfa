/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The consoles of a launcher's machines: a pipe each for output and, where there is input to give,
 * one for input; or files. The hub brings them together on standard output and hands out standard
 * input. Belongs to the loop's thread.
 */
#ifndef RAMET_CLI_CONSOLE_H
#define RAMET_CLI_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "cli/parse.h"
#include "cli/tty.h"
#include "io/loop.h"

struct console_hub;
struct console; /* one machine's */

struct console_hub_ops {
        void (*quit)(void *data);    /* the user asks for the end: Ctrl-A x */
        void (*closed)(void *data);  /* nobody reads standard output any more */
        void (*drained)(void *data); /* console_hub_drained() has become true */
        /* Set: gets each line, which is then not printed. @owner: as given to console_open(). */
        void (*line)(void *data, void *owner, const char *text, size_t len);
};

/* @prefixed: more than one machine will print. 0 or -errno. */
int console_hub_create(struct loop *loop, const struct console_spec *spec, bool prefixed,
                       const struct console_hub_ops *ops, void *data, struct console_hub **hub);
void console_hub_destroy(struct console_hub *hub); /* puts the terminal back; NULL is fine */

/* Lines have prefixes from now on: a machine that was alone gets clones. */
void console_hub_prefix(struct console_hub *hub);
/* True when every console is closed and all of it has been written. */
bool console_hub_drained(const struct console_hub *hub);
/* Begin with the input, or go on after console_hub_suspend(). */
void console_hub_resume(struct console_hub *hub);
void console_hub_suspend(struct console_hub *hub);
/* The terminal that has to be put back if this process is killed, NULL: none. */
const struct tty *console_hub_tty(const struct console_hub *hub);

/* A console for the machine @path. The machine's ends are put into *in_fd and *out_fd, -1 for none;
 * they are the caller's to close. 0 or -errno with @err set. */
int console_open(struct console_hub *hub, const char *path, void *owner, int *in_fd, int *out_fd,
                 struct console **console, struct err *err);
/* The machine's process is gone: what it left in the pipe is still printed. Frees the console when
 * that is done. NULL is fine. */
void console_close(struct console *console);

#endif
