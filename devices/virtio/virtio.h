/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a virtio device is to the transport (mmio.c), and what the transport does for it. A virtio
 * device is one file: a struct virtio_ops, a struct device_ops made by VIRTIO_DEVICE_OPS, a line in
 * the registry.
 *
 *      vCPU threads    registers of the transport, under its lock. They never touch guest memory or
 *                      queues; what needs the loop is left to it by an eventfd.
 *      loop thread     everything else: activation, queues, the device's work, reset, saving.
 *
 * Life of a device, after the driver's status writes (virtio 1.2, sections 2.1 and 3.1):
 *
 *      set up --DRIVER_OK--> active --queue errors--> broken (NEEDS_RESET)
 *         ^                    |                         |
 *         '---- status 0 ------+-------------------------'
 *
 * A reset by the driver of an active device waits for the loop: the vCPU is held (device.h) until
 * nothing of the old life is in flight. What the driver set up is copied at DRIVER_OK; writes to
 * queue registers after that change nothing.
 */
#ifndef RAMET_DEVICES_VIRTIO_VIRTIO_H
#define RAMET_DEVICES_VIRTIO_VIRTIO_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "devices/device.h"
#include "devices/virtio/queue.h"

#define VIRTIO_QUEUES_MAX 8

struct virtio_device;

struct virtio_ops {
        const char *name;
        uint32_t device_id;      /* virtio 1.2, section 5 */
        unsigned nqueues;        /* 1 to VIRTIO_QUEUES_MAX */
        uint16_t queue_size_max; /* of each; at most VIRTQ_SIZE_MAX */

        /* Features besides those of the transport (VERSION_1, INDIRECT_DESC, EVENT_IDX). Any
         * thread; does not change after create and restore. NULL: none. */
        uint64_t (*features)(struct virtio_device *v);
        /* The same when it is going to be restored from @record, its own part, which has not been
         * checked. NULL: features(), which no saved state changes. */
        uint64_t (*features_of)(struct virtio_device *v, const void *record);
        /* Device configuration space: any thread, under the transport's lock. @len is 1, 2, 4 or 8,
         * any offset and alignment; beyond the end reads are zeros, and writes nothing. write: NULL
         * when nothing there can be written. */
        uint32_t config_bytes;
        void (*read_config)(struct virtio_device *v, uint32_t offset, uint8_t *data, unsigned len);
        void (*write_config)(struct virtio_device *v, uint32_t offset, const uint8_t *data,
                             unsigned len);

        /* Loop thread. activate (may be NULL): the driver is ready; v->driver_features says what it
         * wants. process: there may be something in queue @q; called inside a section, and to do a
         * bounded amount of work: when it left some that it could do, it returns true and is called
         * again. What it leaves for want of something else is its own matter: when that is there,
         * it goes on, or calls virtio_poke(). Nothing is begun while v->quiesced, so not by a
         * done() of loop_io_drain() either, which would never end. reset (may be NULL): forget the
         * driver; nothing is in flight. */
        void (*activate)(struct virtio_device *v);
        bool (*process)(struct virtio_device *v, unsigned q);
        void (*reset)(struct virtio_device *v);

        /* The device's own part of the record, @record_bytes long, all of which save fills. restore
         * checks it before it changes anything, and then forgets all that was before; the
         * transport's part is not there yet. NULL when 0. */
        uint32_t record_bytes;
        void (*save)(struct virtio_device *v, void *record);
        int (*restore)(struct virtio_device *v, const void *record, struct err *err);
        /* The transport's part is there, too; the guest does not run yet. May be NULL. */
        void (*restored)(struct virtio_device *v);
};

/* The transport's part; a device's struct begins with it. */
struct virtio_device {
        const struct virtio_ops *ops; /* [I] */
        const struct device_env *env; /* [I] */
        struct device_slot slot;      /* [I] */
        struct loop_watch *watch;     /* [I] of slot.notify_fd */

        pthread_mutex_t lock;
        uint32_t status;       /* [lock] */
        uint32_t isr;          /* [lock] InterruptStatus: bit 0 used buffers, 1 configuration */
        uint32_t generation;   /* [lock] ConfigGeneration */
        uint32_t features_sel; /* [lock] DeviceFeaturesSel */
        uint32_t driver_features_sel; /* [lock] */
        uint64_t driver_features;     /* [lock] until FEATURES_OK, then fixed until a reset */
        uint32_t queue_sel;           /* [lock] */
        struct virtio_setup {
                struct virtq_layout at;
                bool enabled;       /* QueueReady */
        } setup[VIRTIO_QUEUES_MAX]; /* [lock] what the driver writes */
        bool activating;            /* [lock] DRIVER_OK was written, the loop has not seen it */
        bool resetting;             /* [lock] 0 was written, the loop has not seen it */
        unsigned held;              /* [lock] how many vCPUs wait for that */
        uint64_t interrupts;        /* [lock] statistics */

        bool active;                            /* [loop] */
        bool broken;                            /* [loop] */
        bool quiesced;                          /* [loop] */
        struct virtq queues[VIRTIO_QUEUES_MAX]; /* [loop] */
        struct virtio_stats {
                uint64_t notifications, errors;
        } stats;       /* [loop] */
        char why[128]; /* [loop] what virtio_break() was last told */
};

/* --- for a device's create and destroy --- */

/* Take a slot and be there: fills *window. @v is part of the caller's struct, zeroed. 0 or -errno
 * with err. */
int virtio_init(struct virtio_device *v, const struct virtio_ops *ops, const struct device_env *env,
                struct device_window *window, struct err *err);
/* Stop watching. What was lent and is in flight has been drained by the caller (loop_io_drain). */
void virtio_fini(struct virtio_device *v);

/* --- for a device at work; loop thread --- */

/* Buffers were pushed to queue @q: interrupt the driver if it wants that. Inside a section. Once
 * for all of a turn costs least. */
void virtio_used(struct virtio_device *v, unsigned q);
/* The configuration space changed: a new generation, and an interrupt. Any thread; without the
 * lock. */
void virtio_config_changed(struct virtio_device *v);
/* The driver broke the rules: NEEDS_RESET, and nothing more is done for it before a reset. Its
 * queues are gone: what is in flight ends, and virtq_push() then says -EPROTO. Idempotent. */
void virtio_break(struct virtio_device *v, const char *why);
/* Call process() of queue @q soon, as if the driver had notified it. */
void virtio_poke(struct virtio_device *v, unsigned q);
bool virtio_has(const struct virtio_device *v, unsigned feature); /* was negotiated; a bit number */

/* --- for device_ops --- */

/* Saved state of the transport; the device's own part follows it. */
struct virtio_record {
        uint32_t device_id, status, isr, generation;
        uint32_t features_sel, driver_features_sel, queue_sel, nqueues;
        uint64_t driver_features;
        struct virtq_record queues[VIRTIO_QUEUES_MAX];
};

void virtio_mmio_read(void *dev, unsigned window, uint64_t offset, uint8_t *data, unsigned len);
void virtio_mmio_write(void *dev, unsigned window, uint64_t offset, const uint8_t *data,
                       unsigned len);
void virtio_save(void *dev, void *record);
int virtio_restore(void *dev, const void *record, uint32_t version, struct err *err);
void virtio_quiesce(void *dev);
void virtio_resume(void *dev);

/* The members of a struct device_ops that are the same for all virtio devices. */
#define VIRTIO_DEVICE_OPS                                                                          \
        .slot = true, .read = virtio_mmio_read, .write = virtio_mmio_write, .save = virtio_save,   \
        .restore = virtio_restore, .quiesce = virtio_quiesce, .resume = virtio_resume

#endif
