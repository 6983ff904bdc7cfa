/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine for one virtio device, and a driver for it: on top of device_fake.h. Include after
 * cmocka.h, or after no_cmocka.h where there is none.
 *
 *      struct vfake v;
 *      struct vbuf bufs[2];
 *
 *      vfake_init(&v, &rng_ops, 0, 64);           machine, device, features, queues, DRIVER_OK
 *      bufs[0] = vfake_in(&v, 512);               memory of the guest's, that the device writes
 *      head = vfake_add(&v, 0, bufs, 1);          into queue 0
 *      vfake_kick(&v, 0);
 *      assert_int_equal(vfake_wait(&v, 0, &len), head);
 *
 * Memory: 4 MiB from address 0 on, a hole, and VFAKE_HIGH_BYTES at VFAKE_HIGH. The driver's
 * allocator gives out what is below VFAKE_RAM_END; the rest is the test's own. The device's thread
 * and the guest are the caller's one, unless a test does otherwise.
 */
#ifndef RAMET_TESTS_VIRTIO_FAKE_H
#define RAMET_TESTS_VIRTIO_FAKE_H

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <time.h>

#ifndef FAKE_MEMORY
#define FAKE_MEMORY 0x400000u
#endif

#include "device_fake.h"
#include "devices/virtio/virtio.h"

#define VFAKE_RAM_BEGIN  0x100000ull
#define VFAKE_RAM_END    0x300000ull
#define VFAKE_HIGH       0x800000ull /* a hole lies below it */
#define VFAKE_HIGH_BYTES 0x100000ull
#define VFAKE_ALL        UINT64_MAX /* features: whatever is offered */
#define VFAKE_END        0xffff     /* of a list of descriptors */

/* The driver's side of a queue. */
struct vfake_queue {
        struct virtq_layout at;
        uint16_t avail, used; /* indices, free-running */
        uint16_t free;        /* list of descriptors, by next[] */
        uint16_t next[VIRTQ_SIZE_MAX];
};

struct vfake {
        struct fake f;
        struct sync_domain domain;
        struct sync_participant part;
        uint64_t features; /* negotiated */
        struct vfake_queue q[VIRTIO_QUEUES_MAX];
        uint64_t top; /* of what was allocated */
};

/* A buffer of the driver's. */
struct vbuf {
        uint64_t gpa;
        uint32_t len;
        bool writable; /* by the device */
};

/* --- memory --- */

/* The host's address of what the guest has at @gpa, which is RAM. */
static inline void *vfake_ptr(struct vfake *v, uint64_t gpa)
{
        for (unsigned i = 0; i < v->f.mem.nregions; i++) {
                struct guest_region *r = &v->f.mem.regions[i];

                if (gpa >= r->gpa && gpa - r->gpa < r->size)
                        return r->hva + (gpa - r->gpa);
        }
        fail_msg("0x%llx is not RAM\n", (unsigned long long)gpa);
        return NULL;
}

/* @align: a power of two. */
static inline uint64_t vfake_alloc(struct vfake *v, uint64_t len, uint64_t align)
{
        uint64_t gpa = (v->top + align - 1) & ~(align - 1);

        v->top = gpa + len;
        assert_true(v->top <= VFAKE_RAM_END);
        return gpa;
}

/* A new buffer that the device reads, with these bytes, or that it writes. */
static inline struct vbuf vfake_out(struct vfake *v, const void *data, uint32_t len)
{
        struct vbuf b = {vfake_alloc(v, len, 8), len, false};

        memcpy(vfake_ptr(v, b.gpa), data, len);
        return b;
}

static inline struct vbuf vfake_in(struct vfake *v, uint32_t len)
{
        return (struct vbuf){vfake_alloc(v, len, 8), len, true};
}

static inline void vfake_put16(struct vfake *v, uint64_t gpa, uint16_t value)
{
        __atomic_store_n((uint16_t *)vfake_ptr(v, gpa), value, __ATOMIC_SEQ_CST);
}

static inline uint16_t vfake_get16(struct vfake *v, uint64_t gpa)
{
        return __atomic_load_n((uint16_t *)vfake_ptr(v, gpa), __ATOMIC_SEQ_CST);
}

/* --- machine and loop --- */

/* All but the device: to be able to set f.params. */
static inline void vfake_machine(struct vfake *v)
{
        memset(v, 0, sizeof *v);
        fake_machine(&v->f);
        fake_add_memory(&v->f, VFAKE_HIGH, VFAKE_HIGH_BYTES);
        sync_domain_init(&v->domain);
        sync_join(&v->domain, &v->part, NULL, NULL);
        guest_access_init(&v->f.access, &v->f.mem, &v->part, &v->f.tlb);
        guest_access_lending(&v->f.access, (void (*)(void *))loop_io_settle, v->f.env.loop);
        v->top = VFAKE_RAM_BEGIN;
}

static inline void vfake_fini(struct vfake *v)
{
        if (v->f.ops)
                v->f.ops->destroy(v->f.dev);
        v->f.ops = NULL;
        guest_access_lending_end(&v->f.access);
        sync_leave(&v->part);
        sync_domain_fini(&v->domain);
        fake_fini(&v->f);
}

/* The transport's part of the device. */
static inline struct virtio_device *vfake_device(struct vfake *v)
{
        return v->f.dev;
}

/* Let the loop do what there is to do now; what takes time (I/O) is for vfake_wait(). */
static inline void vfake_run(struct vfake *v)
{
        for (int i = 0; i < 4; i++)
                assert_int_equal(loop_step(v->f.env.loop, 0), 0);
}

/* How often the interrupt was raised since the last question. */
static inline unsigned vfake_irqs(struct vfake *v)
{
        uint64_t n = 0;

        if (read(v->f.slots[0].irq_fd, &n, sizeof n) != sizeof n)
                return 0;
        return (unsigned)n;
}

/* --- registers --- */

static inline uint32_t vfake_read(struct vfake *v, unsigned reg)
{
        return (uint32_t)fake_read(&v->f, 0, reg, 4);
}

static inline void vfake_write(struct vfake *v, unsigned reg, uint32_t value)
{
        fake_write(&v->f, 0, reg, 4, value);
}

static inline uint32_t vfake_status(struct vfake *v)
{
        return vfake_read(v, VIRTIO_MMIO_STATUS);
}

static inline void vfake_add_status(struct vfake *v, uint32_t bits)
{
        vfake_write(v, VIRTIO_MMIO_STATUS, vfake_status(v) | bits);
}

static inline bool vfake_needs_reset(struct vfake *v)
{
        return vfake_status(v) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/* InterruptStatus, acknowledged. */
static inline uint32_t vfake_ack(struct vfake *v)
{
        uint32_t isr = vfake_read(v, VIRTIO_MMIO_INTERRUPT_STATUS);

        vfake_write(v, VIRTIO_MMIO_INTERRUPT_ACK, isr);
        return isr;
}

static inline uint64_t vfake_offered(struct vfake *v)
{
        uint64_t features;

        vfake_write(v, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
        features = (uint64_t)vfake_read(v, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
        vfake_write(v, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
        return features | vfake_read(v, VIRTIO_MMIO_DEVICE_FEATURES);
}

/* Status 0, and what the driver had is its own again. */
static inline void vfake_reset(struct vfake *v)
{
        vfake_write(v, VIRTIO_MMIO_STATUS, 0);
        vfake_run(v);
        assert_int_equal(vfake_status(v), 0);
        assert_int_equal(atomic_load(&v->f.held), 0);
        memset(v->q, 0, sizeof v->q);
        v->top = VFAKE_RAM_BEGIN;
}

static inline void vfake_take_features(struct vfake *v, uint64_t features)
{
        vfake_write(v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
        vfake_write(v, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
        vfake_write(v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        vfake_write(v, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
        v->features = features;
}

/* Up to FEATURES_OK; takes those of @wanted that are offered, and VERSION_1. */
static inline void vfake_negotiate(struct vfake *v, uint64_t wanted)
{
        vfake_reset(v);
        vfake_add_status(v, VIRTIO_CONFIG_S_ACKNOWLEDGE);
        vfake_add_status(v, VIRTIO_CONFIG_S_DRIVER);
        vfake_take_features(v, (wanted | 1ull << VIRTIO_F_VERSION_1) & vfake_offered(v));
        vfake_add_status(v, VIRTIO_CONFIG_S_FEATURES_OK);
        assert_true(vfake_status(v) & VIRTIO_CONFIG_S_FEATURES_OK);
}

/* --- queues --- */

/* Write these areas to the registers, and QueueReady. */
static inline void vfake_set_queue(struct vfake *v, unsigned q, const struct virtq_layout *at)
{
        vfake_write(v, VIRTIO_MMIO_QUEUE_SEL, q);
        vfake_write(v, VIRTIO_MMIO_QUEUE_NUM, at->size);
        vfake_write(v, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)at->desc);
        vfake_write(v, VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(at->desc >> 32));
        vfake_write(v, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)at->driver);
        vfake_write(v, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (uint32_t)(at->driver >> 32));
        vfake_write(v, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)at->device);
        vfake_write(v, VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(at->device >> 32));
        vfake_write(v, VIRTIO_MMIO_QUEUE_READY, 1);
}

/* The driver's side of a queue of @size entries, in new memory, zeroed. */
static inline void vfake_make_queue(struct vfake *v, unsigned q, uint16_t size)
{
        struct vfake_queue *d = &v->q[q];

        *d = (struct vfake_queue){.at.size = size};
        d->at.desc = vfake_alloc(v, 16ull * size, 16);
        d->at.driver = vfake_alloc(v, 6 + 2ull * size, 2);
        d->at.device = vfake_alloc(v, 6 + 8ull * size, 4);
        memset(vfake_ptr(v, d->at.desc), 0, v->top - d->at.desc);
        for (uint16_t i = 0; i < size; i++)
                d->next[i] = i + 1 < size ? i + 1 : VFAKE_END;
}

/* The same, and the device is told. */
static inline void vfake_queue(struct vfake *v, unsigned q, uint16_t size)
{
        vfake_make_queue(v, q, size);
        vfake_set_queue(v, q, &v->q[q].at);
}

/* From any state to DRIVER_OK, with all queues, or with none (@size 0: the test sets them up). */
static inline void vfake_start(struct vfake *v, uint64_t wanted, uint16_t size)
{
        unsigned n = vfake_device(v)->ops->nqueues;

        vfake_negotiate(v, wanted);
        for (unsigned i = 0; i < n && size > 0; i++)
                vfake_queue(v, i, size);
        vfake_add_status(v, VIRTIO_CONFIG_S_DRIVER_OK);
        vfake_run(v);
}

static inline void vfake_init(struct vfake *v, const struct device_ops *ops, uint64_t wanted,
                              uint16_t size)
{
        vfake_machine(v);
        fake_create(&v->f, ops);
        vfake_start(v, wanted, size);
}

/* One descriptor, as it is. */
static inline void vfake_desc(struct vfake *v, uint64_t table, uint16_t i, uint64_t gpa,
                              uint32_t len, uint16_t flags, uint16_t next)
{
        const struct vring_desc d = {gpa, len, flags, next};

        memcpy(vfake_ptr(v, table + sizeof d * i), &d, sizeof d);
}

static inline uint16_t vfake_take_desc(struct vfake *v, unsigned q)
{
        uint16_t i = v->q[q].free;

        assert_true(i != VFAKE_END);
        v->q[q].free = v->q[q].next[i];
        return i;
}

/* Put a head into the available ring, and not tell. */
static inline void vfake_offer(struct vfake *v, unsigned q, uint16_t head)
{
        struct vfake_queue *d = &v->q[q];

        vfake_put16(v, d->at.driver + 4 + 2ull * (d->avail % d->at.size), head);
        vfake_put16(v, d->at.driver + 2, ++d->avail);
}

/* A chain of these buffers in the queue's own table; it is offered. Returns its head. */
static inline uint16_t vfake_add(struct vfake *v, unsigned q, const struct vbuf *bufs, unsigned n)
{
        struct vfake_queue *d = &v->q[q];
        uint16_t head = vfake_take_desc(v, q), i = head, next;

        for (unsigned k = 0; k < n; k++, i = next) {
                bool last = k + 1 == n;

                next = last ? VFAKE_END : vfake_take_desc(v, q);
                d->next[i] = next;
                vfake_desc(v, d->at.desc, i, bufs[k].gpa, bufs[k].len,
                           (uint16_t)((bufs[k].writable ? VRING_DESC_F_WRITE : 0) |
                                      (last ? 0 : VRING_DESC_F_NEXT)),
                           last ? 0 : next);
        }
        vfake_offer(v, q, head);
        return head;
}

/* The same by an indirect table, which takes one descriptor. */
static inline uint16_t vfake_add_indirect(struct vfake *v, unsigned q, const struct vbuf *bufs,
                                          unsigned n)
{
        uint64_t table = vfake_alloc(v, 16ull * n, 16);
        uint16_t head = vfake_take_desc(v, q);

        for (unsigned k = 0; k < n; k++)
                vfake_desc(v, table, (uint16_t)k, bufs[k].gpa, bufs[k].len,
                           (uint16_t)((bufs[k].writable ? VRING_DESC_F_WRITE : 0) |
                                      (k + 1 == n ? 0 : VRING_DESC_F_NEXT)),
                           (uint16_t)(k + 1 == n ? 0 : k + 1));
        v->q[q].next[head] = VFAKE_END;
        vfake_desc(v, v->q[q].at.desc, head, table, 16 * n, VRING_DESC_F_INDIRECT, 0);
        vfake_offer(v, q, head);
        return head;
}

/* Would a driver notify now, of all that came after @old (an available index)? */
static inline bool vfake_notify_wanted(struct vfake *v, unsigned q, uint16_t old)
{
        struct vfake_queue *d = &v->q[q];

        if (!(v->features & 1ull << VIRTIO_RING_F_EVENT_IDX))
                return !(vfake_get16(v, d->at.device) & VRING_USED_F_NO_NOTIFY);
        return vring_need_event(vfake_get16(v, d->at.device + 4 + 8ull * d->at.size), d->avail,
                                old);
}

/* Notify, by the register, and let the loop do its work. */
static inline void vfake_kick(struct vfake *v, unsigned q)
{
        vfake_write(v, VIRTIO_MMIO_QUEUE_NOTIFY, q);
        vfake_run(v);
}

/* Take a used element: its head, whose descriptors are free again, or -1 when there is none. */
static inline int vfake_used(struct vfake *v, unsigned q, uint32_t *len)
{
        struct vfake_queue *d = &v->q[q];
        struct vring_used_elem e;
        uint16_t last;

        if (vfake_get16(v, d->at.device + 2) == d->used)
                return -1;
        memcpy(&e, vfake_ptr(v, d->at.device + 4 + sizeof e * (d->used % d->at.size)), sizeof e);
        d->used++;
        assert_true(e.id < d->at.size);
        for (last = (uint16_t)e.id; d->next[last] != VFAKE_END;)
                last = d->next[last];
        d->next[last] = d->free;
        d->free = (uint16_t)e.id;
        if (len)
                *len = e.len;
        return (int)e.id;
}

/* The same, after at most 5 seconds of the loop's work; -1. */
static inline int vfake_wait(struct vfake *v, unsigned q, uint32_t *len)
{
        struct timespec now, begin;
        int head;

        clock_gettime(CLOCK_MONOTONIC, &begin);
        for (;;) {
                head = vfake_used(v, q, len);
                clock_gettime(CLOCK_MONOTONIC, &now);
                if (head >= 0 || now.tv_sec - begin.tv_sec > 5)
                        return head;
                assert_int_equal(loop_step(v->f.env.loop, 1000000), 0);
        }
}

/* Driver's reset after a break, and the device works as before. */
static inline void vfake_recover(struct vfake *v, uint16_t size)
{
        assert_true(vfake_needs_reset(v));
        vfake_start(v, v->features, size);
        assert_false(vfake_needs_reset(v));
}

#endif
