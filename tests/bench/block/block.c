// SPDX-License-Identifier: Apache-2.0
/*
 * Ramet's side of the figures about the block device: the device itself, its loop and its disk,
 * with a driver in the same thread that does what Linux's does (indirect descriptors, event index,
 * an interrupt for each group of requests). No vCPU: where KVM would signal QueueNotify's eventfd
 * the driver writes it, and the interrupt is an eventfd, too, that it reads. Prints nanoseconds,
 * one sample a line. The floors are in ../floor/block.c, under the same names.
 *
 * block MODE FILE N: N requests to FILE; each is timed from before the driver builds it until it
 *     has seen it in the used ring. MODE is rand-qd1, rand-qd32, seq or seq-write.
 * block quiesce FILE N [DEPTH]: N times, quiesce() with DEPTH 4 KiB reads just begun.
 * block restore FILE N: N times, a device that was made without a disk takes the files and the
 *     state of one that has an image and an overlay, 32 of its blocks written.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "devices/registry.h"
#include "devices/virtio/virtio.h"

#define MEMORY     (64u << 20)
#define QUEUE_SIZE 256
#define DEPTH_MAX  32
/* Where things are in guest memory. */
#define DESC       0x10000u
#define AVAIL      0x12000u
#define USED       0x13000u
#define SLOTS      0x20000u /* for each request: indirect table, header, status */
#define SLOT       192u
#define BUFFERS    0x1000000u

struct machine {
        uint8_t *ram;
        struct guest_mem mem;
        struct sync_domain domain;
        struct sync_participant part;
        struct tlb tlb;
        struct guest_access access;
        struct loop *loop;
        struct device_env env;
        struct device_slot slot;
        struct device_window windows[DEVICE_WINDOWS];
        void *dev;
        uint16_t avail, seen; /* free-running indices: the driver's */
};

static struct err err;

static uint64_t now_ns(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void die(const char *what)
{
        fprintf(stderr, "block: %s: %s\n", what, err.text[0] ? err.text : strerror(errno));
        exit(1);
}

/* xorshift64: the same places in each run */
static uint64_t next_random(void)
{
        static uint64_t x = 88172645463325252ull;

        x ^= x << 13;
        x ^= x >> 7;
        return x ^= x << 17;
}

/* --- a machine around the device --- */

static int give_slot(void *machine, struct device_slot *slot)
{
        struct machine *m = machine;

        m->slot = (struct device_slot){.base = 0xd0000000, .gsi = 16};
        m->slot.notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        m->slot.irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        *slot = m->slot;
        return 0;
}

static void nothing(void *machine)
{
}

static void settle(void *loop)
{
        loop_io_settle(loop);
}

/* @path NULL: without a disk, as a clone is before it is restored. */
static void machine_init(struct machine *m, const char *path)
{
        struct device_disk disk = {.image_fd = -1,
                                   .image_ro_fd = -1,
                                   .overlay_fd = -1,
                                   .overlay_ro_fd = -1,
                                   .serial = "bench",
                                   .name = "bench"};
        struct device_params params = {.ndisks = 1, .disks = &disk};
        unsigned nwindows;

        *m = (struct machine){0};
        m->ram = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | (path ? MAP_POPULATE : 0), -1, 0);
        if (m->ram == MAP_FAILED || loop_create(true, &m->loop) < 0)
                die("machine");
        m->mem.nregions = 1;
        m->mem.regions[0] = (struct guest_region){.size = MEMORY, .hva = m->ram};
        sync_domain_init(&m->domain);
        sync_join(&m->domain, &m->part, NULL, NULL);
        tlb_init(&m->tlb);
        guest_access_init(&m->access, &m->mem, &m->part, &m->tlb);
        guest_access_lending(&m->access, settle, m->loop);
        m->env = (struct device_env){.mem = &m->access,
                                     .loop = m->loop,
                                     .slot = give_slot,
                                     .hold = nothing,
                                     .release = nothing,
                                     .machine = m};
        if (path) {
                disk.image_fd = open(path, O_RDWR | O_CLOEXEC);
                disk.image_ro_fd = open(path, O_RDONLY | O_CLOEXEC);
                if (disk.image_fd < 0 || disk.image_ro_fd < 0)
                        die(path);
        }
        if (virtio_blk_ops.create(&m->env, &params, 0, &m->dev, m->windows, &nwindows, &err) < 0)
                die("create");
}

static void machine_fini(struct machine *m)
{
        virtio_blk_ops.destroy(m->dev);
        guest_access_lending_end(&m->access);
        sync_leave(&m->part);
        sync_domain_fini(&m->domain);
        loop_destroy(m->loop);
        close(m->slot.notify_fd);
        close(m->slot.irq_fd);
        munmap(m->ram, MEMORY);
}

/* --- the driver --- */

static void reg(struct machine *m, unsigned offset, uint32_t value)
{
        uint8_t data[4];

        device_put(data, 4, value);
        virtio_blk_ops.write(m->dev, 0, offset, data, 4);
}

static uint32_t read_reg(struct machine *m, unsigned offset)
{
        uint8_t data[4];

        virtio_blk_ops.read(m->dev, 0, offset, data, 4);
        return (uint32_t)device_get(data, 4);
}

static uint64_t sectors(struct machine *m)
{
        uint8_t data[8];

        virtio_blk_ops.read(m->dev, 0, VIRTIO_MMIO_CONFIG, data, 4);
        virtio_blk_ops.read(m->dev, 0, VIRTIO_MMIO_CONFIG + 4, data + 4, 4);
        return device_get(data, 8);
}

static void driver_init(struct machine *m)
{
        unsigned status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

        reg(m, VIRTIO_MMIO_STATUS, status);
        reg(m, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
        reg(m, VIRTIO_MMIO_DRIVER_FEATURES,
            1u << VIRTIO_BLK_F_FLUSH | 1u << VIRTIO_BLK_F_SEG_MAX |
                    1u << VIRTIO_RING_F_INDIRECT_DESC | 1u << VIRTIO_RING_F_EVENT_IDX);
        reg(m, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        reg(m, VIRTIO_MMIO_DRIVER_FEATURES, 1u << (VIRTIO_F_VERSION_1 - 32));
        status |= VIRTIO_CONFIG_S_FEATURES_OK;
        reg(m, VIRTIO_MMIO_STATUS, status);
        if (!(read_reg(m, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK))
                die("features");
        reg(m, VIRTIO_MMIO_QUEUE_SEL, 0);
        reg(m, VIRTIO_MMIO_QUEUE_NUM, QUEUE_SIZE);
        reg(m, VIRTIO_MMIO_QUEUE_DESC_LOW, DESC);
        reg(m, VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAIL);
        reg(m, VIRTIO_MMIO_QUEUE_USED_LOW, USED);
        reg(m, VIRTIO_MMIO_QUEUE_READY, 1);
        reg(m, VIRTIO_MMIO_STATUS, status | VIRTIO_CONFIG_S_DRIVER_OK);
        loop_step(m->loop, 1000000);
}

static void *at(struct machine *m, uint32_t gpa)
{
        return m->ram + gpa;
}

/* Build the request of @slot and make it available. */
static void queue(struct machine *m, unsigned slot, uint32_t type, uint64_t sector, uint32_t len)
{
        uint32_t table_at = SLOTS + slot * SLOT, header = table_at + 64, status = table_at + 128;
        struct vring_desc *table = at(m, table_at), *desc = at(m, DESC);
        struct virtio_blk_outhdr *h = at(m, header);
        uint16_t *avail = at(m, AVAIL);

        *h = (struct virtio_blk_outhdr){.type = type, .sector = sector};
        *(uint8_t *)at(m, status) = 0xff;
        table[0] = (struct vring_desc){header, sizeof *h, VRING_DESC_F_NEXT, 1};
        table[1] = (struct vring_desc){
                BUFFERS + slot * len, len,
                VRING_DESC_F_NEXT | (type == VIRTIO_BLK_T_IN ? VRING_DESC_F_WRITE : 0), 2};
        table[2] = (struct vring_desc){status, 1, VRING_DESC_F_WRITE, 0};
        desc[slot] = (struct vring_desc){table_at, 48, VRING_DESC_F_INDIRECT, 0};
        avail[2 + m->avail % QUEUE_SIZE] = (uint16_t)slot;
        m->avail++;
}

/* Tell the device of what was queued, if it wants to be told. */
static void kick(struct machine *m, uint16_t from)
{
        uint16_t *avail = at(m, AVAIL);
        const uint16_t *event = at(m, USED + 4 + 8 * QUEUE_SIZE);

        avail[2 + QUEUE_SIZE] = m->seen; /* used_event: interrupt me at the next */
        __atomic_store_n(&avail[1], m->avail, __ATOMIC_SEQ_CST);
        if (vring_need_event(__atomic_load_n(event, __ATOMIC_SEQ_CST), m->avail, from))
                eventfd_write(m->slot.notify_fd, 1);
}

/* The slot of the next request that is done, or -1. */
static int next_used(struct machine *m)
{
        const uint16_t *idx = at(m, USED + 2);
        const struct vring_used_elem *ring = at(m, USED + 4);
        unsigned slot;

        if (__atomic_load_n(idx, __ATOMIC_ACQUIRE) == m->seen)
                return -1;
        slot = ring[m->seen++ % QUEUE_SIZE].id;
        if (*(uint8_t *)at(m, SLOTS + slot * SLOT + 128) != VIRTIO_BLK_S_OK)
                die("a request failed");
        return (int)slot;
}

static void wait_used(struct machine *m)
{
        const uint16_t *idx = at(m, USED + 2);
        eventfd_t irqs;

        while (__atomic_load_n(idx, __ATOMIC_ACQUIRE) == m->seen)
                if (loop_step(m->loop, UINT64_MAX) < 0)
                        die("loop");
        eventfd_read(m->slot.irq_fd, &irqs);
}

/* --- what is measured --- */

static void requests(const char *path, uint64_t n, unsigned depth, uint32_t block, bool sequential,
                     uint32_t type)
{
        static struct machine m;
        static uint64_t began[DEPTH_MAX];
        uint64_t *took = calloc(n, sizeof *took), left = n, seen = 0, next = 0, blocks;
        unsigned idle[DEPTH_MAX], nidle = depth;

        machine_init(&m, path);
        driver_init(&m);
        blocks = sectors(&m) * 512 / block;
        for (unsigned i = 0; i < depth; i++)
                idle[i] = i;
        while (seen < n) {
                uint64_t start = now_ns();
                uint16_t from = m.avail;
                int slot;

                for (; nidle > 0 && left > 0; left--) {
                        uint64_t place = (sequential ? next++ : next_random()) % blocks;

                        slot = (int)idle[--nidle];
                        began[slot] = start;
                        queue(&m, (unsigned)slot, type, place * block / 512, block);
                }
                kick(&m, from);
                wait_used(&m);
                while ((slot = next_used(&m)) >= 0) {
                        took[seen++] = now_ns() - began[slot];
                        idle[nidle++] = (unsigned)slot;
                }
        }
        for (uint64_t i = 0; i < n; i++)
                printf("%llu\n", (unsigned long long)took[i]);
        free(took);
        machine_fini(&m);
}

static void quiesce(const char *path, uint64_t n, unsigned depth)
{
        static struct machine m;
        uint64_t start, blocks;

        machine_init(&m, path);
        driver_init(&m);
        blocks = sectors(&m) / 8;
        for (uint64_t i = 0; i < n; i++) {
                uint16_t from = m.avail;

                for (unsigned slot = 0; slot < depth; slot++)
                        queue(&m, slot, VIRTIO_BLK_T_IN, next_random() % blocks * 8, 4096);
                if (depth > 0) {
                        kick(&m, from);
                        guest_access_begin(&m.access);
                        ((struct virtio_device *)m.dev)->ops->process(m.dev, 0);
                        guest_access_end(&m.access);
                }
                start = now_ns();
                virtio_blk_ops.quiesce(m.dev);
                printf("%llu\n", (unsigned long long)(now_ns() - start));
                virtio_blk_ops.resume(m.dev);
                for (unsigned done = 0; done < depth; done++)
                        if (next_used(&m) < 0)
                                die("quiesced with requests in flight");
                loop_step(m.loop, 0);
        }
        machine_fini(&m);
}

static void freeze(struct machine *m, uint8_t *record, struct device_files *files)
{
        files->n = 0;
        virtio_blk_ops.quiesce(m->dev);
        if (virtio_blk_ops.freeze_prepare(m->dev, &err) < 0)
                die("freeze_prepare");
        virtio_blk_ops.save(m->dev, record);
        virtio_blk_ops.freeze(m->dev);
        if (virtio_blk_ops.freeze_publish(m->dev, files, &err) < 0)
                die("freeze_publish");
        virtio_blk_ops.resume(m->dev);
}

static void write_some(struct machine *m)
{
        uint16_t from = m->avail;

        for (unsigned slot = 0; slot < DEPTH_MAX; slot++)
                queue(m, slot, VIRTIO_BLK_T_OUT, slot * 5000, 4096);
        kick(m, from);
        for (unsigned left = DEPTH_MAX; left > 0; left--) {
                wait_used(m);
                next_used(m);
        }
}

/* The image, and the overlay of what was written between two freezes. */
static void restore(const char *path, uint64_t n)
{
        static struct machine m, clone;
        static struct device_files files;
        uint8_t *record = calloc(1, virtio_blk_ops.record_length);

        machine_init(&m, path);
        driver_init(&m);
        freeze(&m, record, &files);
        write_some(&m);
        freeze(&m, record, &files);
        for (uint64_t i = 0; i < n; i++) {
                uint64_t start;

                machine_init(&clone, NULL);
                start = now_ns();
                if (virtio_blk_ops.restore_files(clone.dev, files.fds, files.n, &err) < 0 ||
                    virtio_blk_ops.restore(clone.dev, record, virtio_blk_ops.record_version, &err) <
                            0)
                        die("restore");
                printf("%llu\n", (unsigned long long)(now_ns() - start));
                machine_fini(&clone);
        }
        free(record);
        machine_fini(&m);
}

int main(int argc, char **argv)
{
        const char *mode = argc > 3 ? argv[1] : "", *file = argc > 3 ? argv[2] : "";
        uint64_t n = argc > 3 ? strtoull(argv[3], NULL, 0) : 0;

        if (!strcmp(mode, "rand-qd1"))
                requests(file, n, 1, 4096, false, VIRTIO_BLK_T_IN);
        else if (!strcmp(mode, "rand-qd32"))
                requests(file, n, 32, 4096, false, VIRTIO_BLK_T_IN);
        else if (!strcmp(mode, "seq"))
                requests(file, n, 1, 131072, true, VIRTIO_BLK_T_IN);
        else if (!strcmp(mode, "seq-write"))
                requests(file, n, 1, 131072, true, VIRTIO_BLK_T_OUT);
        else if (!strcmp(mode, "quiesce"))
                quiesce(file, n, argc > 4 ? (unsigned)atoi(argv[4]) % (DEPTH_MAX + 1) : 0);
        else if (!strcmp(mode, "restore"))
                restore(file, n);
        else
                return fprintf(stderr, "block: see the comment in block.c\n"), 2;
        return 0;
}
