/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The debug exit port: a write of any width ends the run with the status (value << 1) | 1, so that
 * it is never 0 and a test's success is told from a run that ended otherwise. Behaves as QEMU's
 * isa-debug-exit with iosize=4 (hw/misc/debugexit.c): reads give 0, every offset is the same.
 * Only there when the user asked for it. The status that a process can pass on is the caller's
 * matter.
 */
#include "devices/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PORTS 4

struct debug_exit {
        const struct device_env *env; /* [I] */
        uint16_t port;                /* [I] */
};

struct debug_exit_record {
        uint16_t port;
        uint8_t reserved[6];
};

static int debug_exit_create(const struct device_env *env, const struct device_params *params,
                             unsigned index, void **dev,
                             struct device_window windows[DEVICE_WINDOWS], unsigned *nwindows,
                             struct err *err)
{
        struct debug_exit *d;

        *dev = NULL;
        *nwindows = 0;
        if (!params->debug_exit_port)
                return 0;
        if (params->debug_exit_port > 0x10000 - PORTS)
                return err_input(err, "debug-exit: port 0x%x: its %d ports end past 0xffff",
                                 params->debug_exit_port, PORTS);
        d = calloc(1, sizeof *d);
        if (!d)
                return err_host(err, ENOMEM, "debug-exit: out of memory");
        d->env = env;
        d->port = params->debug_exit_port;
        windows[0] = (struct device_window){DEVICE_PIO, d->port, PORTS};
        *nwindows = 1;
        *dev = d;
        return 0;
}

static void debug_exit_destroy(void *dev)
{
        free(dev);
}

static void debug_exit_read(void *dev, unsigned window, uint64_t offset, uint8_t *data,
                            unsigned len)
{
        memset(data, 0, len);
}

static void debug_exit_write(void *dev, unsigned window, uint64_t offset, const uint8_t *data,
                             unsigned len)
{
        struct debug_exit *d = dev;

        d->env->notify(d->env->machine, DEVICE_EXIT, device_get(data, len) << 1 | 1);
}

static void debug_exit_save(void *dev, void *record)
{
        struct debug_exit *d = dev;
        const struct debug_exit_record r = {.port = d->port};

        memcpy(record, &r, sizeof r);
}

static int debug_exit_restore(void *dev, const void *record, uint32_t version, struct err *err)
{
        static const uint8_t zero[sizeof((struct debug_exit_record *)0)->reserved];
        struct debug_exit *d = dev;
        struct debug_exit_record r;

        memcpy(&r, record, sizeof r);
        if (r.port != d->port)
                return err_input(err, "debug-exit: port 0x%x, but this machine has 0x%x", r.port,
                                 d->port);
        if (memcmp(r.reserved, zero, sizeof zero))
                return err_input(err, "debug-exit: reserved bytes are not zero");
        return 0;
}

const struct device_ops debug_exit_ops = {
        .name = "debug-exit",
        .record_kind = RECORD_DEV_DEBUG_EXIT,
        .record_version = 1,
        .record_length = sizeof(struct debug_exit_record),
        .create = debug_exit_create,
        .destroy = debug_exit_destroy,
        .read = debug_exit_read,
        .write = debug_exit_write,
        .save = debug_exit_save,
        .restore = debug_exit_restore,
};
