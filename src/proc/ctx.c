/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts and errors: see ctx.h. */
#include "proc/ctx.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct err last;

int ramet_ctx_create(struct ramet_ctx **ctx)
{
        struct ramet_ctx *c;

        if (!ctx)
                return ctx_fail(NULL, -EINVAL,
                                &(struct err){ERR_INPUT, "ctx: NULL given, where to put one was "
                                                         "expected"});
        c = calloc(1, sizeof *c);
        if (!c)
                return ctx_fail(NULL, -ENOMEM, &(struct err){ERR_HOST, "no memory for a context"});
        c->kick_signal = SIGSTKFLT;
        *ctx = c;
        return 0;
}

void ramet_ctx_destroy(struct ramet_ctx *ctx)
{
        free(ctx);
}

const char *ramet_last_error(const struct ramet_ctx *ctx)
{
        return last.text;
}

bool ramet_last_error_is_input(const struct ramet_ctx *ctx)
{
        return last.class == ERR_INPUT;
}

const char *ramet_version(void)
{
        return RAMET_VERSION;
}

int ramet_abi(void)
{
        return RAMET_ABI;
}

int ctx_fail(const struct ramet_ctx *ctx, int ret, const struct err *err)
{
        last.class = err->class;
        strcpy(last.text, err->text); /* as large, and its end is never touched */
        return ret;
}

int ctx_null(const char *name)
{
        struct err err;

        return ctx_fail(NULL, err_input(&err, "%s: NULL given", name), &err);
}

const struct err *ctx_last(void)
{
        return &last;
}
