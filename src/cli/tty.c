/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The terminal on standard input. Raw means that every key goes to the guest, Ctrl-C too; the
 * guest's own terminal driver echoes and edits. Output processing stays on, so that a guest that
 * ends its lines with a bare newline is readable as well.
 *
 * Who puts it back: the launcher on every way out that it lives to see, and the keeper (keeper.h)
 * when the launcher is killed.
 */
#include "cli/tty.h"

#include <errno.h>
#include <unistd.h>

void tty_init(struct tty *tty, int fd)
{
        *tty = (struct tty){.fd = fd};
        tty->is_tty = isatty(fd) && !tcgetattr(fd, &tty->saved);
}

int tty_enter(struct tty *tty)
{
        struct termios raw = tty->saved;

        if (!tty->is_tty)
                return -ENOTTY;
        if (tcgetpgrp(tty->fd) != getpgrp())
                return -EAGAIN;
        raw.c_iflag &=
                ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
        raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
        raw.c_cc[VMIN] = 1;
        raw.c_cc[VTIME] = 0;
        if (tcsetattr(tty->fd, TCSADRAIN, &raw))
                return -errno;
        tty->raw = true;
        return 0;
}

void tty_leave(struct tty *tty)
{
        if (!tty->raw)
                return;
        tcsetattr(tty->fd, TCSANOW, &tty->saved);
        tty->raw = false;
}
