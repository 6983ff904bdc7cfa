// SPDX-License-Identifier: Apache-2.0
/*
 * The driver. Devices are found where the machine puts them, by looking into every slot: ACPI and
 * the command line say the same, and are tested by Linux. "virtio=BASE virtio_stride=N
 * virtio_gsi=N" on the command line are for other machines (QEMU's microvm: 0xfeb00000, 0x200, 16),
 * which is how the driver itself was tested.
 */
#include "virtio_driver.h"

#define LAPIC_LVT_TIMER 0x320
#define LAPIC_TIMER_ICR 0x380
#define TICKS_PER_MS    1000000u
#define SPINS           20000

static struct vdev *irq_devs[VDEV_SLOTS];
static unsigned nirq_devs;

/* --- the transport --- */

static uint64_t slot_base(unsigned slot)
{
        return cmd_hex("virtio", LAYOUT_VIRTIO) + slot * cmd_hex("virtio_stride", 0x1000);
}

static unsigned slot_gsi(unsigned slot)
{
        uint64_t first = cmd_u64("virtio_gsi", 0);
#ifdef LAYOUT_VIRTIO_GSIS
        static const uint8_t gsis[] = LAYOUT_VIRTIO_GSIS;

        if (!first)
                return gsis[slot];
#endif
        return (unsigned)first + slot;
}

int virtio_find(struct vdev *dev, uint32_t id, unsigned nth)
{
        for (unsigned slot = 0; slot < VDEV_SLOTS; slot++) {
                uint64_t base = slot_base(slot);

                if (mmio_read(base + VIRTIO_MMIO_MAGIC_VALUE) != 0x74726976 ||
                    mmio_read(base + VIRTIO_MMIO_VERSION) != 2 ||
                    mmio_read(base + VIRTIO_MMIO_DEVICE_ID) != id || nth--)
                        continue;
                *dev = (struct vdev){.base = base, .slot = slot, .gsi = slot_gsi(slot), .id = id};
                return 1;
        }
        return 0;
}

uint64_t virtio_offered(const struct vdev *dev)
{
        uint64_t low;

        vreg_write(dev, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
        low = vreg(dev, VIRTIO_MMIO_DEVICE_FEATURES);
        vreg_write(dev, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
        return low | (uint64_t)vreg(dev, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
}

void virtio_reset(struct vdev *dev)
{
        vreg_write(dev, VIRTIO_MMIO_STATUS, 0);
        while (vdev_status(dev))
                sleep_ms(1);
}

int virtio_begin(struct vdev *dev, uint64_t wanted)
{
        uint32_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE;

        virtio_reset(dev);
        vreg_write(dev, VIRTIO_MMIO_STATUS, status);
        status |= VIRTIO_CONFIG_S_DRIVER;
        vreg_write(dev, VIRTIO_MMIO_STATUS, status);
        dev->offered = virtio_offered(dev);
        dev->features = dev->offered & (wanted | VIRTIO_F(VIRTIO_F_VERSION_1));
        vreg_write(dev, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
        vreg_write(dev, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)dev->features);
        vreg_write(dev, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        vreg_write(dev, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(dev->features >> 32));
        vreg_write(dev, VIRTIO_MMIO_STATUS, status | VIRTIO_CONFIG_S_FEATURES_OK);
        return vdev_status(dev) & VIRTIO_CONFIG_S_FEATURES_OK ? 0 : -1;
}

void virtio_go(struct vdev *dev)
{
        vreg_write(dev, VIRTIO_MMIO_STATUS, vdev_status(dev) | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void on_interrupt(void)
{
        for (unsigned i = 0; i < nirq_devs; i++) {
                uint32_t isr = vreg(irq_devs[i], VIRTIO_MMIO_INTERRUPT_STATUS);

                if (!isr)
                        continue;
                vreg_write(irq_devs[i], VIRTIO_MMIO_INTERRUPT_ACK, isr);
                irq_devs[i]->isr |= isr;
                irq_devs[i]->irqs++;
        }
}

void virtio_irq(struct vdev *dev)
{
        unsigned vector = VEC_FIRST + dev->slot;

        irq_handlers[vector] = on_interrupt;
        irq_devs[nirq_devs++] = dev;
        dev->irq_on = 1;
        ioapic_route(dev->gsi, vector);
}

/* --- queues --- */

void vq_place(const struct vdev *dev, unsigned index, uint32_t size, uint64_t desc, uint64_t avail,
              uint64_t used)
{
        vreg_write(dev, VIRTIO_MMIO_QUEUE_SEL, index);
        vreg_write(dev, VIRTIO_MMIO_QUEUE_NUM, size);
        vreg_write(dev, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)desc);
        vreg_write(dev, VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(desc >> 32));
        vreg_write(dev, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)avail);
        vreg_write(dev, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (uint32_t)(avail >> 32));
        vreg_write(dev, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)used);
        vreg_write(dev, VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(used >> 32));
        vreg_write(dev, VIRTIO_MMIO_QUEUE_READY, 1);
}

int vq_setup(struct vq *q, struct vdev *dev, unsigned index, unsigned size, struct vq_mem *mem)
{
        unsigned max;

        vreg_write(dev, VIRTIO_MMIO_QUEUE_SEL, index);
        max = vreg(dev, VIRTIO_MMIO_QUEUE_NUM_MAX);
        if (!max)
                return -1;
        if (!size || size > max)
                size = max;
        if (size > VQ_SIZE_MAX)
                size = VQ_SIZE_MAX;
        __builtin_memset(mem, 0, sizeof *mem);
        *q = (struct vq){.dev = dev, .mem = mem, .index = index, .size = size};
        q->event_idx = !!(dev->features & VIRTIO_F(VIRTIO_RING_F_EVENT_IDX));
        q->indirect = !!(dev->features & VIRTIO_F(VIRTIO_RING_F_INDIRECT_DESC));
        for (q->nfree = 0; q->nfree < size; q->nfree++)
                q->free[q->nfree] = (uint16_t)(size - 1 - q->nfree);
        vq_place(dev, index, size, (uint64_t)mem->desc, (uint64_t)&mem->avail,
                 (uint64_t)&mem->used);
        return 0;
}

static void describe(struct vring_desc *d, const struct vbuf *b, int writable, int more,
                     unsigned next)
{
        d->addr = (uint64_t)b->at;
        d->len = b->len;
        d->flags = (uint16_t)((writable ? VRING_DESC_F_WRITE : 0) | (more ? VRING_DESC_F_NEXT : 0));
        d->next = (uint16_t)next;
}

int vq_add(struct vq *q, const struct vbuf *bufs, unsigned nout, unsigned nin)
{
        unsigned n = nout + nin;
        int indirect = q->indirect && n > 1 && n <= VQ_INDIRECT_MAX;
        unsigned head;

        if (!n || q->nfree < (indirect ? 1 : n))
                return -1;
        head = q->free[q->nfree - 1];
        if (indirect) {
                struct vring_desc *table = q->mem->tables[head];
                struct vbuf whole = {table, n * (uint32_t)sizeof *table};

                for (unsigned i = 0; i < n; i++)
                        describe(table + i, bufs + i, i >= nout, i + 1 < n, i + 1);
                describe(q->mem->desc + head, &whole, 0, 0, 0);
                q->mem->desc[head].flags = VRING_DESC_F_INDIRECT;
                q->nfree--;
        } else {
                for (unsigned i = 0; i < n; i++) {
                        unsigned at = q->free[--q->nfree];

                        describe(q->mem->desc + at, bufs + i, i >= nout, i + 1 < n,
                                 i + 1 < n ? q->free[q->nfree - 1] : 0);
                }
        }
        q->mem->avail.ring[q->avail_idx++ % q->size] = (uint16_t)head;
        return (int)head;
}

void vq_notify(const struct vq *q)
{
        vreg_write(q->dev, VIRTIO_MMIO_QUEUE_NOTIFY, q->index);
}

void vq_kick(struct vq *q)
{
        uint16_t old = q->kicked, new = q->avail_idx;
        int wanted;

        virtio_mb();
        q->mem->avail.idx = new;
        q->kicked = new;
        virtio_mb();
        if (q->event_idx) /* it stands behind the last entry of this queue */
                wanted = vring_need_event(*(volatile uint16_t *)&q->mem->used.ring[q->size], new,
                                          old);
        else
                wanted = !(q->mem->used.flags & VRING_USED_F_NO_NOTIFY);
        if (wanted)
                vq_notify(q);
}

int vq_get(struct vq *q, uint32_t *written)
{
        unsigned at = q->used_idx % q->size, head, next;

        virtio_mb();
        if (q->mem->used.idx == q->used_idx)
                return VQ_TIMEOUT;
        virtio_mb();
        head = q->mem->used.ring[at].id;
        *written = q->mem->used.ring[at].len;
        q->used_idx++;
        if (q->event_idx)
                q->mem->avail.ring[q->size] = q->used_idx;
        if (head >= q->size)
                return (int)head; /* the caller finds out */
        for (next = head;; next = q->mem->desc[next].next) {
                q->free[q->nfree++] = (uint16_t)next;
                if (!(q->mem->desc[next].flags & VRING_DESC_F_NEXT) || q->nfree == q->size)
                        return (int)head;
        }
}

/* Halt until an interrupt of the device or the timer has come. */
static uint64_t halt_for(void *arg)
{
        struct vq *q = arg;

        lapic_write(LAPIC_LVT_TIMER, VEC_TIMER);
        lapic_write(LAPIC_TIMER_ICR, 20 * TICKS_PER_MS);
        if (q->mem->used.idx == q->used_idx)
                asm volatile("sti; hlt; cli" : : : "memory");
        return 0;
}

int vq_wait(struct vq *q, unsigned ms, uint32_t *written)
{
        unsigned spins = in_user() ? SPINS : SPINS / 100;

        for (unsigned waited = 0;; waited += q->dev->irq_on ? 20 : 1) {
                for (unsigned i = 0; i < (q->dev->irq_on ? 1 : spins); i++) {
                        int head = vq_get(q, written);

                        if (head >= 0)
                                return head;
                        cpu_relax();
                }
                if (vdev_status(q->dev) & VIRTIO_CONFIG_S_NEEDS_RESET)
                        return VQ_NEEDS_RESET;
                if (waited >= ms)
                        return VQ_TIMEOUT;
                if (q->dev->irq_on)
                        call_kernel(halt_for, q);
                else
                        sleep_ms(1);
        }
}

/* --- block devices --- */

int vblk_open(struct vblk *b, unsigned nth, struct vq_mem *mem)
{
        if (!virtio_find(&b->dev, VIRTIO_ID_BLOCK, nth))
                return 0;
        if (virtio_begin(&b->dev, ~0ull) || vq_setup(&b->q, &b->dev, 0, 0, mem))
                return -1;
        b->mem = mem;
        b->sectors = vreg(&b->dev, VIRTIO_MMIO_CONFIG) |
                     (uint64_t)vreg(&b->dev, VIRTIO_MMIO_CONFIG + 4) << 32;
        b->readonly = !!(b->dev.features & VIRTIO_F(VIRTIO_BLK_F_RO));
        virtio_go(&b->dev);
        return 1;
}

int vblk_do(struct vblk *b, uint32_t type, uint64_t sector, void *data, uint32_t len)
{
        struct vbuf bufs[3];
        unsigned n = 0;
        int out = type != VIRTIO_BLK_T_IN && type != VIRTIO_BLK_T_GET_ID, head;
        uint32_t written;

        b->one.hdr = (struct virtio_blk_outhdr){.type = type, .sector = sector};
        b->one.status = 0xff;
        bufs[n++] = (struct vbuf){&b->one.hdr, sizeof b->one.hdr};
        if (len)
                bufs[n++] = (struct vbuf){data, len};
        bufs[n++] = (struct vbuf){&b->one.status, 1};
        if (vq_add(&b->q, bufs, out ? n - 1 : 1, out ? 1 : n - 1) < 0)
                return VQ_TIMEOUT;
        vq_kick(&b->q);
        head = vq_wait(&b->q, 20000, &written);
        return head < 0 ? head : b->one.status;
}

/* --- entropy --- */

int vrng_read(unsigned nth, void *data, uint32_t len, struct vq_mem *mem)
{
        struct vdev dev;
        struct vq q;
        struct vbuf buf = {data, len};
        uint32_t written;
        int head;

        if (!virtio_find(&dev, VIRTIO_ID_RNG, nth))
                return 0;
        if (virtio_begin(&dev, ~0ull) || vq_setup(&q, &dev, 0, 0, mem))
                return VQ_NEEDS_RESET;
        virtio_go(&dev);
        vq_add(&q, &buf, 0, 1);
        vq_kick(&q);
        head = vq_wait(&q, 10000, &written);
        return head < 0 ? head : (int)written;
}
