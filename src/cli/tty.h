/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal on standard input: raw while a guest has it, as it was before on every way out. */
#ifndef RAMET_CLI_TTY_H
#define RAMET_CLI_TTY_H

#include <stdbool.h>
#include <termios.h>

struct tty {
        int fd;
        bool is_tty;
        bool raw;
        struct termios saved;
};

/* Look at @fd (borrowed) and remember how it is. */
void tty_init(struct tty *tty, int fd);
/* Make it raw. 0, -EAGAIN when this is a background job (which must not touch it), or -errno. */
int tty_enter(struct tty *tty);
/* Put it back. Does nothing if it is not raw. */
void tty_leave(struct tty *tty);

#endif
