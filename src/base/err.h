/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors as they travel up: functions return 0 or -errno, and describe the failure once, in words,
 * in the caller's struct err. The first description wins nothing: the deepest function that knows
 * what happened sets the text, callers above may only put a prefix before it.
 *
 * A class goes along, since the exit status of the command depends on whose fault it was.
 */
#ifndef RAMET_BASE_ERR_H
#define RAMET_BASE_ERR_H

#include <stdarg.h>

enum err_class {
        ERR_HOST = 0,  /* the host lacks something or refused it: exit status 4 */
        ERR_INPUT = 1, /* what the user gave cannot be used: exit status 2 */
};

struct err {
        enum err_class class;
        char text[512]; /* one line, no newline, empty when nothing was set */
};

/* Describe a failure of the host. Returns -@code (code is a positive errno). err may be NULL. */
int err_host(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Describe input that cannot be used. Returns -EINVAL. err may be NULL. */
int err_input(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Put "<prefix>: " before the text that is there; the class stays. Returns @ret, for `return`. */
int err_prefix(struct err *err, int ret, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));

#endif
