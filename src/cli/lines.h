/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The output of several machines on one terminal: whole lines, each behind its machine's name. No
 * descriptors and no clock in here: bytes go in, text comes out, and the caller owns the timer for
 * the beginnings of lines that never end (prompts).
 */
#ifndef RAMET_CLI_LINES_H
#define RAMET_CLI_LINES_H

#include <stdbool.h>
#include <stddef.h>

#define LINES_MAX        2048 /* bytes of a line that are held back */
#define LINES_PREFIX_MAX 96

struct lines;

/* What all machines' lines come together in. Zero it and set the functions and the mode. */
struct line_mux {
        /* Output. With @line set, that is called for each whole line instead, without its end. */
        void (*out)(void *data, const char *text, size_t len);
        void (*line)(void *data, struct lines *lines, const char *text, size_t len);
        void *data;
        bool raw; /* no prefixes: bytes pass as they come */

        const struct lines *open; /* whose unfinished line the output ends with, NULL: nobody's */
};

/* One machine's output. */
struct lines {
        char prefix[LINES_PREFIX_MAX];
        char buf[LINES_MAX];
        size_t len;
        bool cr; /* a carriage return has come, and not yet what follows it */
};

/* @path: the machine's, for the prefix "[web.3] ". */
void lines_init(struct lines *l, const char *path);
/* Take @len bytes. True when the beginning of a line is held back: call lines_flush() in a while.
 */
bool lines_push(struct line_mux *mux, struct lines *l, const char *data, size_t len);
/* Show the beginning of the line as far as it has come. */
void lines_flush(struct line_mux *mux, struct lines *l);
/* No more will come: show what is left, and end the line. */
void lines_close(struct line_mux *mux, struct lines *l);
/* Somebody else is about to write to the terminal: end the open line, whosever it is. */
void lines_break(struct line_mux *mux);

#endif
