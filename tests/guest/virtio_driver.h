/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio driver for guests of ours: virtio-mmio version 2 and split virtqueues (virtio 1.2,
 * sections 2.7 and 4.2), with blk and rng on top. All of it works at both privilege levels but for
 * what says so. It does not hide anything: a guest that means harm takes the rings into its own
 * hands.
 *
 *      struct vdev dev;
 *      static struct vq queue;
 *      static struct vq_mem memory;
 *
 *      virtio_find(&dev, VIRTIO_ID_RNG, 0) && !virtio_begin(&dev, ~0ull);
 *      vq_setup(&queue, &dev, 0, 64, &memory);
 *      virtio_go(&dev);
 *      vq_add(&queue, buffers, nout, nin);
 *      vq_kick(&queue);
 *      head = vq_wait(&queue, 1000, &written);
 */
#ifndef VIRTIO_DRIVER_H
#define VIRTIO_DRIVER_H

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "rt/rt.h"

#define VDEV_SLOTS      16
#define VQ_SIZE_MAX     256
#define VQ_INDIRECT_MAX 16 /* descriptors of a chain that goes through an indirect table */
#define VQ_NEEDS_RESET  (-2)
#define VQ_TIMEOUT      (-1)

#define VIRTIO_F(bit) (1ull << (bit))

struct vdev {
        uint64_t base;
        unsigned slot, gsi;
        uint32_t id;
        uint64_t offered, features; /* what the device can; what was agreed upon */
        volatile unsigned irqs;     /* interrupts taken since virtio_irq() */
        volatile unsigned isr;      /* all that InterruptStatus said in them */
        int irq_on;
};

/* What the device sees of a queue; each area in pages of its own. */
struct vq_mem {
        _Alignas(4096) struct vring_desc desc[VQ_SIZE_MAX];
        _Alignas(4096) struct {
                volatile uint16_t flags, idx, ring[VQ_SIZE_MAX + 1]; /* the last: used_event */
        } avail;
        _Alignas(4096) struct {
                volatile uint16_t flags, idx;
                volatile struct {
                        uint32_t id, len;
                } ring[VQ_SIZE_MAX];
                volatile uint16_t avail_event;
        } used;
        _Alignas(4096) struct vring_desc tables[VQ_SIZE_MAX][VQ_INDIRECT_MAX];
};

struct vq {
        struct vdev *dev;
        struct vq_mem *mem;
        unsigned index, size;
        int event_idx, indirect; /* use them: what was negotiated, unless changed by the guest */
        uint16_t free[VQ_SIZE_MAX], nfree;
        uint16_t avail_idx, kicked, used_idx;
};

struct vbuf {
        const volatile void *at;
        uint32_t len;
};

static inline uint32_t vreg(const struct vdev *dev, unsigned offset)
{
        return mmio_read(dev->base + offset);
}

static inline void vreg_write(const struct vdev *dev, unsigned offset, uint32_t value)
{
        mmio_write(dev->base + offset, value);
}

static inline uint32_t vdev_status(const struct vdev *dev)
{
        return vreg(dev, VIRTIO_MMIO_STATUS);
}

/* A whole barrier, by an instruction that every host has for CPL 0. */
static inline void virtio_mb(void)
{
        asm volatile("lock; addl $0, -4(%%rsp)" : : : "memory", "cc");
}

/* Device number @nth of kind @id, in the order of the slots. 1, or 0 when there is none. */
int virtio_find(struct vdev *dev, uint32_t id, unsigned nth);

/* Reset, ACKNOWLEDGE, DRIVER, features (@wanted of what is offered, and VERSION_1), FEATURES_OK. 0,
 * or -1 when the device does not agree. Queues come then, and virtio_go(): DRIVER_OK. */
int virtio_begin(struct vdev *dev, uint64_t wanted);
void virtio_go(struct vdev *dev);
void virtio_reset(struct vdev *dev);
uint64_t virtio_offered(const struct vdev *dev);
/* From now on vq_wait() waits by interrupts. CPL 0, the first processor. */
void virtio_irq(struct vdev *dev);

/* Queue @index with @size entries (0: as many as the device has, at most VQ_SIZE_MAX), in @mem,
 * which is zeroed. 0, or -1 when the device has no such queue. */
int vq_setup(struct vq *q, struct vdev *dev, unsigned index, unsigned size, struct vq_mem *mem);
/* Tell the device where queue @index is, and that it is ready. */
void vq_place(const struct vdev *dev, unsigned index, uint32_t size, uint64_t desc, uint64_t avail,
              uint64_t used);
/* Put a chain into the available ring: @nout buffers to be read, then @nin to be written. The
 * number of its first descriptor, or -1 when there is no room. */
int vq_add(struct vq *q, const struct vbuf *bufs, unsigned nout, unsigned nin);
/* Publish what was added, and notify if the device wants that (or @always). */
void vq_kick(struct vq *q);
void vq_notify(const struct vq *q);
/* The next chain that was used: its first descriptor (*@written: bytes), or VQ_TIMEOUT when there
 * is none. Its descriptors are free again. */
int vq_get(struct vq *q, uint32_t *written);
/* The same, waiting up to @ms; VQ_NEEDS_RESET when the device says so meanwhile. */
int vq_wait(struct vq *q, unsigned ms, uint32_t *written);

/* --- block devices --- */

struct vblk {
        struct vdev dev;
        struct vq q;
        uint64_t sectors;
        int readonly;
        /* What the device reads and writes; the caller's, one for each request in flight. */
        struct vblk_slot {
                struct virtio_blk_outhdr hdr;
                volatile uint8_t status;
        } one;
        struct vq_mem *mem;
};

/* Block device @nth, with all features it has. 1; 0 when there is none; -1 when it refuses. */
int vblk_open(struct vblk *b, unsigned nth, struct vq_mem *mem);
/* One request of @len bytes at @data, waited for. The status (VIRTIO_BLK_S_OK...), or VQ_TIMEOUT,
 * VQ_NEEDS_RESET. */
int vblk_do(struct vblk *b, uint32_t type, uint64_t sector, void *data, uint32_t len);

/* --- entropy --- */

/* @len bytes of device @nth. Bytes written, or negative as above; 0 when there is no device. */
int vrng_read(unsigned nth, void *data, uint32_t len, struct vq_mem *mem);

#endif
