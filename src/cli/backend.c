/* SPDX-License-Identifier: Apache-2.0 */
/* The library as the launcher's backend. */
#include "cli/backend.h"

const struct backend backend_library = {
        .spawner_create = ramet_spawner_create,
        .spawner_destroy = ramet_spawner_destroy,
        .spawner_fd = ramet_spawner_fd,
        .spawner_next = ramet_spawner_next,
        .start = ramet_process_start,
        .clone = ramet_process_clone,
        .prewarm = ramet_process_prewarm,
        .fork = ramet_process_fork,
        .pause = ramet_process_pause,
        .resume = ramet_process_resume,
        .reset = ramet_process_reset,
        .kill = ramet_process_kill,
        .overlay = ramet_process_overlay,
        .set_data = ramet_process_set_data,
        .data = ramet_process_data,
        .release = ramet_process_release,
        .frozen_release = ramet_frozen_release,
};
