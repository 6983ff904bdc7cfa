/* SPDX-License-Identifier: Apache-2.0 */
/* The context of a caller: the text of its last error, and whose fault that was. */
#include <errno.h>
#include <stdlib.h>

#include "proc/launcher.h"

int ramet_ctx_create(struct ramet_ctx **ctx)
{
        struct ramet_ctx *c = calloc(1, sizeof *c);

        if (!c)
                return -ENOMEM;
        *ctx = c;
        return 0;
}

void ramet_ctx_destroy(struct ramet_ctx *ctx)
{
        free(ctx);
}

const char *ramet_last_error(const struct ramet_ctx *ctx)
{
        return ctx->err.text;
}

bool ramet_last_error_is_input(const struct ramet_ctx *ctx)
{
        return ctx->err.class == ERR_INPUT;
}

const char *ramet_version(void)
{
        return RAMET_VERSION;
}

int ctx_fail(struct ramet_ctx *ctx, int ret, const struct err *err)
{
        ctx->err = *err;
        return ret;
}
