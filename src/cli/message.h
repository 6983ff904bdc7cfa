/* SPDX-License-Identifier: Apache-2.0 */
/* Messages to the person at the terminal: one line each on standard error, "ramet: ..." */
#ifndef RAMET_CLI_MESSAGE_H
#define RAMET_CLI_MESSAGE_H

enum message_level {
        MESSAGE_ERROR = 0,
        MESSAGE_WARN,
        MESSAGE_INFO,
        MESSAGE_DEBUG,
};

/* Show messages up to this level (MESSAGE_WARN at first). */
void message_set_level(enum message_level level);

/* Call @before ahead of each line, so that whoever has left half a line on the terminal can end it
 * (NULL: nobody). */
void message_set_before(void (*before)(void *data), void *data);

/* One line; newlines and control characters in it, which may come from a guest or a file name, are
 * shown as '?'. */
void message(enum message_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* What message() does to its lines, for whatever else is shown on a terminal: control characters,
 * also those of UTF-8 (U+0080 to U+009F), become '?'. */
void message_hide_controls(char *text);

#endif
