/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's process may make the system calls of the loop, of character backends and of every
 * device in the registry, whether it has the device or not: so there is one filter for all
 * machines, and the spawner compiles it before the first of them.
 */
#include "proc/confine.h"

#include <malloc.h>

#include <ramet/ramet.h>

#include "devices/device.h"
#include "io/chardev.h"
#include "io/loop.h"

#define LISTS_MAX 64

static int build_filter(bool log, struct jail_filter *filter, struct err *err)
{
        const char *const *lists[LISTS_MAX] = {loop_syscalls, chardev_syscalls};
        size_t n = 2;

        for (size_t i = 0; device_registry[i] && n < LISTS_MAX; i++)
                lists[n++] = device_registry[i]->syscalls;
        return jail_filter_build(log, lists, n, filter, err);
}

void vm_process_prepare(void *data)
{
        struct vm_process_shared *shared = data;

        shared->error = build_filter(false, &shared->filter, &shared->err);
        malloc_trim(0); /* what is mapped here is copied by every fork */
}

int confine(const struct vm_process_shared *shared, uint32_t mode, struct err *err)
{
        struct jail_filter log;
        int ret;

        if (mode == RAMET_SECCOMP_OFF)
                return 0;
        if (mode == RAMET_SECCOMP_LOG) {
                ret = build_filter(true, &log, err);
                if (ret)
                        return ret;
                ret = jail_filter_install(&log, err);
                jail_filter_fini(&log);
                return ret;
        }
        if (shared->error)
                *err = shared->err;
        return shared->error ?: jail_filter_install(&shared->filter, err);
}
