/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fork doorbell: include/ramet/fork_abi.h has the registers, docs/fork-abi.md the story. The
 * same registers answer in I/O ports and in a page of MMIO.
 *
 * A write to RING tells the machine, which deals with it before the writing vCPU runs on: it forks,
 * or says through doorbell_set_result() why not. No lock is held meanwhile, since the machine stops
 * the other vCPUs, saves this device, and sets its result while the write is still under way.
 * RESULT and COUNT of a fork are set while no vCPU runs, so a guest reads both of one fork; a
 * refusal is set by the vCPU that rang, while others may read: hence they are atomic.
 *
 * The first read of RESULT after a fork is the first thing that a guest does in it, which is what
 * the time of a fork is measured to; `fresh` finds it, exchanged by whichever vCPU reads first.
 */
#include "devices/device.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "ramet/fork_abi.h"
#include "x86/layout.h"

_Static_assert(LAYOUT_DOORBELL == RAMET_DOORBELL_MMIO, "the ABI and the address map agree");
_Static_assert(LAYOUT_PORT_DOORBELL == RAMET_DOORBELL_PORT, "the ABI and the address map agree");

#define PIO_LEN  (RAMET_DOORBELL_COUNT + 4)
#define MMIO_LEN 4096

struct doorbell {
        const struct device_env *env; /* [I] */
        atomic_uint result;           /* [a] */
        atomic_uint count;            /* [a] */
        atomic_bool fresh;            /* [a] RESULT has not been read since it was set */
        void (*read_fn)(void *data);  /* [I] after set-up */
        void *read_data;              /* [I] */
};

struct doorbell_record {
        uint32_t result;
        uint32_t count;
};

static int doorbell_create(const struct device_env *env, const struct device_params *params,
                           unsigned index, void **dev, struct device_window windows[DEVICE_WINDOWS],
                           unsigned *nwindows, struct err *err)
{
        struct doorbell *d = calloc(1, sizeof *d);

        if (!d)
                return err_host(err, ENOMEM, "doorbell: out of memory");
        d->env = env;
        windows[0] = (struct device_window){DEVICE_PIO, LAYOUT_PORT_DOORBELL, PIO_LEN};
        windows[1] = (struct device_window){DEVICE_MMIO, LAYOUT_DOORBELL, MMIO_LEN};
        *nwindows = 2;
        *dev = d;
        return 0;
}

static void doorbell_destroy(void *dev)
{
        free(dev);
}

static uint32_t read_result(struct doorbell *d)
{
        uint32_t result = atomic_load(&d->result);

        if (atomic_load_explicit(&d->fresh, memory_order_relaxed) &&
            atomic_exchange(&d->fresh, false) && d->read_fn)
                d->read_fn(d->read_data);
        return result;
}

static void doorbell_read(void *dev, unsigned window, uint64_t offset, uint8_t *data, unsigned len)
{
        struct doorbell *d = dev;
        uint32_t value = UINT32_MAX;

        if (len != 4) {
                memset(data, 0xff, len);
                return;
        }
        switch (offset) {
        case RAMET_DOORBELL_MAGIC:
                value = RAMET_DOORBELL_MAGIC_VALUE;
                break;
        case RAMET_DOORBELL_VERSION:
                value = RAMET_DOORBELL_VERSION_VALUE;
                break;
        case RAMET_DOORBELL_RESULT:
                value = read_result(d);
                break;
        case RAMET_DOORBELL_COUNT:
                value = atomic_load(&d->count);
                break;
        default: /* RING, what is not aligned, and what is not there */
                break;
        }
        device_put(data, len, value);
}

static void doorbell_write(void *dev, unsigned window, uint64_t offset, const uint8_t *data,
                           unsigned len)
{
        struct doorbell *d = dev;

        if (len == 4 && offset == RAMET_DOORBELL_RING)
                d->env->notify(d->env->machine, DEVICE_FORK_RING, device_get(data, len));
}

static void doorbell_save(void *dev, void *record)
{
        struct doorbell *d = dev;
        const struct doorbell_record r = {
                .result = atomic_load(&d->result),
                .count = atomic_load(&d->count),
        };

        memcpy(record, &r, sizeof r);
}

static int doorbell_restore(void *dev, const void *record, uint32_t version, struct err *err)
{
        struct doorbell *d = dev;
        struct doorbell_record r;

        memcpy(&r, record, sizeof r);
        if (r.count >= RAMET_DOORBELL_ERROR)
                return err_input(err, "doorbell: count %u is out of range", r.count);
        if (r.result > r.count && r.result != RAMET_DOORBELL_FAILED &&
            r.result != RAMET_DOORBELL_NOT_ARMED)
                return err_input(err, "doorbell: result %u of %u clones is out of range", r.result,
                                 r.count);
        atomic_store(&d->result, r.result);
        atomic_store(&d->count, r.count);
        atomic_store(&d->fresh, false);
        return 0;
}

void doorbell_set_result(void *doorbell, uint32_t result, uint32_t count)
{
        struct doorbell *d = doorbell;

        atomic_store(&d->result, result);
        atomic_store(&d->count, count);
        atomic_store(&d->fresh, true);
}

void doorbell_on_result_read(void *doorbell, void (*fn)(void *data), void *data)
{
        struct doorbell *d = doorbell;

        d->read_fn = fn;
        d->read_data = data;
}

const struct device_ops doorbell_ops = {
        .name = "doorbell",
        .record_kind = RECORD_DEV_DOORBELL,
        .record_version = 1,
        .record_length = sizeof(struct doorbell_record),
        .create = doorbell_create,
        .destroy = doorbell_destroy,
        .read = doorbell_read,
        .write = doorbell_write,
        .save = doorbell_save,
        .restore = doorbell_restore,
};
