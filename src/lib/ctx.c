/* SPDX-License-Identifier: Apache-2.0 */
/* What the machines of a context are made with. Contexts themselves are in proc/ctx.c. */
#include "lib/lib.h"

int ramet_ctx_set_kick_signal(struct ramet_ctx *ctx, int signal)
{
        struct err err = {0};
        int ret;

        if (!ctx)
                return lib_result(err_input(&err, "ctx: NULL given, a context expected"), &err);
        ret = vm_kick_signal_check(signal, &err);
        if (ret < 0)
                return lib_result(err_prefix(&err, ret, "signal"), &err);
        atomic_store(&ctx->kick_signal, signal);
        return 0;
}
