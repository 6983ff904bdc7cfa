/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of <ramet/process.h> that the launcher uses, as a table, so that its unit test can put
 * machines in its place that do as they are told. backend_library is the library itself.
 */
#ifndef RAMET_CLI_BACKEND_H
#define RAMET_CLI_BACKEND_H

#include <ramet/process.h>

struct backend {
        int (*spawner_create)(struct ramet_ctx *ctx, struct ramet_spawner **spawner);
        void (*spawner_destroy)(struct ramet_spawner *spawner);
        int (*spawner_fd)(const struct ramet_spawner *spawner);
        int (*spawner_next)(struct ramet_spawner *spawner, struct ramet_event *event);
        int (*start)(struct ramet_spawner *spawner, const struct ramet_vm_options *options,
                     struct ramet_process **process);
        int (*clone)(struct ramet_spawner *spawner, struct ramet_frozen *frozen,
                     const struct ramet_clone_options *options, struct ramet_process **process);
        int (*prewarm)(struct ramet_process *like, unsigned count);
        int (*fork)(struct ramet_process *process, unsigned count);
        int (*pause)(struct ramet_process *process);
        int (*resume)(struct ramet_process *process);
        int (*reset)(struct ramet_process *process);
        int (*kill)(struct ramet_process *process);
        const char *(*overlay)(struct ramet_process *process, unsigned disk);
        void (*set_data)(struct ramet_process *process, void *data);
        void *(*data)(const struct ramet_process *process);
        void (*release)(struct ramet_process *process);
        void (*frozen_release)(struct ramet_frozen *frozen);
};

extern const struct backend backend_library;

#endif
