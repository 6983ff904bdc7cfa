/* SPDX-License-Identifier: Apache-2.0 */
/* The calling thread's last error, which the harness shares with the rest of the library. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "harness/internal.h"
#include "proc/ctx.h"

int harness_result(int ret, struct err *err)
{
        if (ret >= 0)
                return ret;
        if (!err->text[0])
                err_host(err, -ret, "%s", strerror(-ret));
        return ctx_fail(NULL, ret, err);
}

int harness_invalid(const char *fmt, ...)
{
        struct err err = {.class = ERR_INPUT};
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(err.text, sizeof err.text, fmt, ap);
        va_end(ap);
        return ctx_fail(NULL, -EINVAL, &err);
}

int harness_null(const char *call, const char *argument)
{
        return harness_invalid("%s: %s: NULL", call, argument);
}
