/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text that grows: reports, results, what a guest has printed. Zeroed it is empty; when memory is
 * short it stays as it is and says so, since a report that is cut off is better than none.
 */
#ifndef RAMET_HARNESS_TEXT_H
#define RAMET_HARNESS_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {
        char *data; /* NUL-terminated, or NULL: text_str() */
        size_t len, size;
        bool failed; /* something did not fit into memory */
};

void text_fini(struct text *t);
void text_clear(struct text *t);
static inline const char *text_str(const struct text *t)
{
        return t->data ? t->data : "";
}

void text_add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_bytes(struct text *t, const char *bytes, size_t len);
/* Forget the first @len bytes. */
void text_drop(struct text *t, size_t len);

/* A NUL-terminated copy, cut off where it does not fit; @size is at least 1. */
void text_cut(const struct text *t, char *buf, size_t size);

/* What somebody else wrote, such that it is one line of valid UTF-8 and moves no cursor: control
 * characters, backslashes and what is no UTF-8 as \n, \\, \x1b. */
void text_visible(struct text *t, const char *bytes, size_t len);
/* Each line of @lines with @prefix before it; without blanks at its end. */
void text_prefixed(struct text *t, const char *prefix, const char *lines);
/* The last @max lines of what a guest has printed, visible, with @prefix; long ones are cut. */
void text_last_lines(struct text *t, const char *prefix, const char *bytes, size_t len,
                     unsigned max);

#endif
