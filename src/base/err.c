/* SPDX-License-Identifier: Apache-2.0 */
/* The text of an error: see err.h. Everything here is bounded by the array in struct err. */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void err_fill(struct err *err, enum err_class class, const char *fmt, va_list ap)
{
        if (!err)
                return;
        err->class = class;
        vsnprintf(err->text, sizeof err->text, fmt, ap);
}

int err_host(struct err *err, int code, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        err_fill(err, ERR_HOST, fmt, ap);
        va_end(ap);
        return -code;
}

int err_input(struct err *err, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        err_fill(err, ERR_INPUT, fmt, ap);
        va_end(ap);
        return -EINVAL;
}

int err_prefix(struct err *err, int ret, const char *fmt, ...)
{
        char old[sizeof err->text];
        va_list ap;
        size_t n;

        if (!err)
                return ret;
        memcpy(old, err->text, sizeof old);
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
        n = strlen(err->text);
        snprintf(err->text + n, sizeof err->text - n, ": %s", old);
        return ret;
}
