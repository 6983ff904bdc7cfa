/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages on standard error. Each is one write(2), so that lines of several processes do not mix,
 * and holds no control characters, so that no file name or guest can steer the terminal with it.
 *
 * The level and the hook are the only global state of the command: a message may come from anywhere
 * in it, and there is one standard error in a process.
 */
#include "cli/message.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum message_level shown = MESSAGE_WARN;
static void (*before_line)(void *data);
static void *before_data;

void message_set_level(enum message_level level)
{
        shown = level;
}

void message_set_before(void (*before)(void *data), void *data)
{
        before_line = before;
        before_data = data;
}

void message_hide_controls(char *text)
{
        unsigned char before = 0;

        for (; *text; text++) {
                unsigned char c = (unsigned char)*text;

                if (c < ' ' || c == 0x7f || (before == 0xc2 && c >= 0x80 && c < 0xa0))
                        *text = '?';
                before = c;
        }
}

void message(enum message_level level, const char *fmt, ...)
{
        static const char prefix[] = "ramet: ";
        char line[1024];
        size_t len = sizeof prefix - 1;
        va_list ap;

        if (level > shown)
                return;
        memcpy(line, prefix, sizeof prefix);
        va_start(ap, fmt);
        vsnprintf(line + len, sizeof line - len - 1, fmt, ap);
        va_end(ap);
        message_hide_controls(line);
        len = strlen(line);
        line[len++] = '\n';
        if (before_line)
                before_line(before_data);
        if (write(STDERR_FILENO, line, len) < 0)
                return; /* nobody is left to tell */
}
