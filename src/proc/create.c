/* SPDX-License-Identifier: Apache-2.0 */
/* A spawner of real machines. In a file of its own, so that a test of the launcher, whose machines
 * are fakes, does not link KVM. */
#include <stdlib.h>

#include "proc/launcher.h"
#include "proc/vm_process.h"

int ramet_spawner_create(struct ramet_ctx *ctx, struct ramet_spawner **spawner)
{
        /* Used by the spawner alone, which has a copy of this stack frame for its life. */
        struct vm_process_shared shared = {0};
        const struct spawner_ops ops = {
                .prepare = vm_process_prepare,
                .machine = vm_process_main,
                .shared = &shared,
        };

        if (!ctx || !spawner)
                return ctx_null(ctx ? "spawner" : "ctx");
        return spawner_open(ctx, &ops, NULL, spawner);
}

/* What the caller says, or the user, or where it was installed. */
int ramet_spawner_execute(struct ramet_ctx *ctx, const char *path, struct ramet_spawner **spawner)
{
        if (!ctx || !spawner)
                return ctx_null(ctx ? "spawner" : "ctx");
        if (!path)
                path = secure_getenv("RAMET_SPAWNER");
        return spawner_open(ctx, NULL, path ?: RAMET_SPAWNER_PATH, spawner);
}
