/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-mmio transport, version 2 (virtio 1.2, section 4.2): registers on one side, queues on
 * the other, and the life of the device in between. virtio.h says who does what in which thread.
 *
 * A vCPU's write changes registers under the lock. Two of them mean work for the loop, which is
 * left to it by a flag and a write to the eventfd that notifications come by:
 *
 *      vCPU                                    loop
 *      Status |= DRIVER_OK  --> activating --> copy the set-up, look at memory, make the queues
 *      Status = 0           --> resetting  --> wait for what is in flight, forget the driver
 *        ... held                              ... release
 *
 * From DRIVER_OK until the reset is done nothing that the driver wrote before can be changed, so
 * the two sides need no agreement but that. A reset before DRIVER_OK concerns registers alone and
 * is done at once. While a reset waits for the loop, writes change nothing.
 *
 * A turn of the loop: the eventfd is read first, and then all queues are looked at, whichever was
 * meant (KVM_IOEVENTFD tells no value). A notification that comes meanwhile makes it readable
 * again. Each queue is processed once in a turn, by a device that does a bounded amount; when
 * something is left, the loop pokes itself and serves others first. So a guest that fills its queue
 * as fast as it is emptied gets its share and no more.
 *
 * Interrupts are edges: each one sets its bit in InterruptStatus and then writes the eventfd of
 * KVM_IRQFD. KVM hands such a write to a kernel thread, and when the machine's state is saved it
 * may not have arrived; so a device that is restored with a bit set raises it once more. A driver
 * takes an interrupt that says nothing new.
 *
 * Saving and restoring is in state.c.
 */
#include "devices/virtio/internal.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WINDOW_BYTES 4096u
#define MAGIC        0x74726976u /* "virt" */
#define VENDOR       0x54454d52u /* "RMET" */

#define BIT(n) (1ull << (n))

/* --- signals --- */

static void write_eventfd(int fd)
{
        const uint64_t one = 1;

        /* It fails when the count is at its end, and then it is readable anyway. */
        while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
                ;
}

void virtio_signal(struct virtio_device *v)
{
        if (v->slot.irq_fd >= 0) {
                write_eventfd(v->slot.irq_fd);
                return;
        }
        v->env->irq(v->env->machine, v->slot.gsi, true);
        v->env->irq(v->env->machine, v->slot.gsi, false);
}

/* The bit is set before the interrupt can be seen. */
static void raise_irq(struct virtio_device *v, uint32_t bit)
{
        pthread_mutex_lock(&v->lock);
        v->isr |= bit;
        v->interrupts++;
        pthread_mutex_unlock(&v->lock);
        virtio_signal(v);
}

/* --- features --- */

static uint64_t with_ours(uint64_t own)
{
        return own | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) |
               BIT(VIRTIO_RING_F_EVENT_IDX);
}

static uint64_t offered(struct virtio_device *v)
{
        return with_ours(v->ops->features ? v->ops->features(v) : 0);
}

bool virtio_acceptable(struct virtio_device *v, uint64_t features, const void *record)
{
        uint64_t all = record && v->ops->features_of ? with_ours(v->ops->features_of(v, record))
                                                     : offered(v);

        return !(features & ~all) && features & BIT(VIRTIO_F_VERSION_1);
}

bool virtio_has(const struct virtio_device *v, unsigned feature)
{
        return v->driver_features & BIT(feature);
}

/* --- registers: under the lock --- */

static bool in_use(const struct virtio_device *v)
{
        return v->status & VIRTIO_CONFIG_S_DRIVER_OK;
}

static void forget_registers(struct virtio_device *v)
{
        v->status = 0;
        v->isr = 0;
        v->features_sel = v->driver_features_sel = v->queue_sel = 0;
        v->driver_features = 0;
        memset(v->setup, 0, sizeof v->setup);
        v->activating = v->resetting = false;
}

static uint32_t half(uint64_t value, uint32_t sel)
{
        return sel == 0 ? (uint32_t)value : sel == 1 ? (uint32_t)(value >> 32) : 0;
}

static void set_half(uint64_t *value, uint32_t sel, uint32_t to)
{
        if (sel == 0)
                *value = (*value & ~(uint64_t)UINT32_MAX) | to;
        else if (sel == 1)
                *value = (*value & UINT32_MAX) | (uint64_t)to << 32;
}

static uint32_t read_register(struct virtio_device *v, uint64_t offset)
{
        bool queue = v->queue_sel < v->ops->nqueues;

        switch (offset) {
        case VIRTIO_MMIO_MAGIC_VALUE:
                return MAGIC;
        case VIRTIO_MMIO_VERSION:
                return 2;
        case VIRTIO_MMIO_DEVICE_ID:
                return v->ops->device_id;
        case VIRTIO_MMIO_VENDOR_ID:
                return VENDOR;
        case VIRTIO_MMIO_DEVICE_FEATURES:
                return half(offered(v), v->features_sel);
        case VIRTIO_MMIO_QUEUE_NUM_MAX:
                return queue ? v->ops->queue_size_max : 0;
        case VIRTIO_MMIO_QUEUE_READY:
                return queue ? v->setup[v->queue_sel].enabled : 0;
        case VIRTIO_MMIO_INTERRUPT_STATUS:
                return v->isr;
        case VIRTIO_MMIO_STATUS:
                return v->status;
        case VIRTIO_MMIO_SHM_LEN_LOW: /* there are no such regions (4.2.2) */
        case VIRTIO_MMIO_SHM_LEN_HIGH:
        case VIRTIO_MMIO_SHM_BASE_LOW:
        case VIRTIO_MMIO_SHM_BASE_HIGH:
                return UINT32_MAX;
        case VIRTIO_MMIO_CONFIG_GENERATION:
                return v->generation;
        default: /* what is not there, or cannot be read */
                return 0;
        }
}

/* The driver is done with the device. When the loop knows of it, that takes the loop, and the vCPU
 * waits; the flag and the hold come in one, so that no release comes before its hold. */
static void ask_reset(struct virtio_device *v)
{
        if (!in_use(v)) {
                forget_registers(v);
                return;
        }
        v->resetting = true;
        v->held++;
        v->env->hold(v->env->machine);
        write_eventfd(v->slot.notify_fd);
}

/* Bits are added, never taken away (2.1.1); what may not be added yet, is not. */
static void write_status(struct virtio_device *v, uint32_t value)
{
        uint32_t added = value & VIRTIO_DRIVER_BITS & ~v->status;

        if (value == 0) {
                ask_reset(v);
                return;
        }
        if (v->resetting)
                return;
        if (added & VIRTIO_CONFIG_S_FEATURES_OK && !virtio_acceptable(v, v->driver_features, NULL))
                added &= ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK;
        if (!((v->status | added) & VIRTIO_CONFIG_S_FEATURES_OK))
                added &= ~(uint32_t)VIRTIO_CONFIG_S_DRIVER_OK;
        v->status |= added;
        if (added & VIRTIO_CONFIG_S_DRIVER_OK) {
                v->activating = true;
                write_eventfd(v->slot.notify_fd);
        }
}

/* Set-up of a queue: as long as it is not ready, and the device not in use. */
static void write_queue(struct virtio_device *v, uint64_t offset, uint32_t value)
{
        struct virtio_setup *s = &v->setup[v->queue_sel % VIRTIO_QUEUES_MAX];

        if (v->queue_sel >= v->ops->nqueues || in_use(v))
                return;
        if (offset == VIRTIO_MMIO_QUEUE_READY) {
                s->enabled = value & 1;
                return;
        }
        if (s->enabled)
                return;
        switch (offset) {
        case VIRTIO_MMIO_QUEUE_NUM: /* 0 is no size, and is found to be wrong by the loop */
                s->at.size = value <= v->ops->queue_size_max ? (uint16_t)value : 0;
                break;
        case VIRTIO_MMIO_QUEUE_DESC_LOW:
        case VIRTIO_MMIO_QUEUE_DESC_HIGH:
                set_half(&s->at.desc, offset == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
                break;
        case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
        case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
                set_half(&s->at.driver, offset == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, value);
                break;
        default:
                set_half(&s->at.device, offset == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
                break;
        }
}

static void write_register(struct virtio_device *v, uint64_t offset, uint32_t value)
{
        if (offset == VIRTIO_MMIO_STATUS) {
                write_status(v, value);
                return;
        }
        if (v->resetting)
                return;
        switch (offset) {
        case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
                v->features_sel = value;
                break;
        case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
                v->driver_features_sel = value;
                break;
        case VIRTIO_MMIO_DRIVER_FEATURES:
                if (!(v->status & VIRTIO_CONFIG_S_FEATURES_OK))
                        set_half(&v->driver_features, v->driver_features_sel, value);
                break;
        case VIRTIO_MMIO_QUEUE_SEL:
                v->queue_sel = value;
                break;
        case VIRTIO_MMIO_QUEUE_NUM:
        case VIRTIO_MMIO_QUEUE_READY:
        case VIRTIO_MMIO_QUEUE_DESC_LOW:
        case VIRTIO_MMIO_QUEUE_DESC_HIGH:
        case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
        case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
        case VIRTIO_MMIO_QUEUE_USED_LOW:
        case VIRTIO_MMIO_QUEUE_USED_HIGH:
                write_queue(v, offset, value);
                break;
        case VIRTIO_MMIO_QUEUE_NOTIFY: /* the host has no KVM_IOEVENTFD, or not for this access */
                if (in_use(v) && value < v->ops->nqueues)
                        write_eventfd(v->slot.notify_fd);
                break;
        case VIRTIO_MMIO_INTERRUPT_ACK:
                v->isr &= ~value;
                break;
        default: /* what is not there, or cannot be written */
                break;
        }
}

/* --- accesses: vCPU threads --- */

static bool is_register(uint64_t offset, unsigned len)
{
        return offset < VIRTIO_MMIO_CONFIG && offset % 4 == 0 && len == 4;
}

/* What the device can take at once: a length that it knows, inside the space. Else by bytes. */
static unsigned config_piece(const struct virtio_device *v, uint64_t offset, unsigned len)
{
        bool known = len == 1 || len == 2 || len == 4 || len == 8;

        if (offset >= v->ops->config_bytes)
                return 0;
        return known && len <= v->ops->config_bytes - offset ? len : 1;
}

void virtio_mmio_read(void *dev, unsigned window, uint64_t offset, uint8_t *data, unsigned len)
{
        struct virtio_device *v = dev;
        unsigned n;

        memset(data, 0, len);
        pthread_mutex_lock(&v->lock);
        if (is_register(offset, len))
                device_put(data, len, read_register(v, offset));
        for (; offset >= VIRTIO_MMIO_CONFIG && len > 0; offset += n, data += n, len -= n) {
                n = config_piece(v, offset - VIRTIO_MMIO_CONFIG, len);
                if (n == 0)
                        break;
                v->ops->read_config(v, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), data, n);
        }
        pthread_mutex_unlock(&v->lock);
}

void virtio_mmio_write(void *dev, unsigned window, uint64_t offset, const uint8_t *data,
                       unsigned len)
{
        struct virtio_device *v = dev;
        unsigned n;

        pthread_mutex_lock(&v->lock);
        if (is_register(offset, len))
                write_register(v, offset, (uint32_t)device_get(data, len));
        for (; offset >= VIRTIO_MMIO_CONFIG && len > 0 && v->ops->write_config && !v->resetting;
             offset += n, data += n, len -= n) {
                n = config_piece(v, offset - VIRTIO_MMIO_CONFIG, len);
                if (n == 0)
                        break;
                v->ops->write_config(v, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), data, n);
        }
        pthread_mutex_unlock(&v->lock);
}

/* --- the loop's side --- */

void virtio_break(struct virtio_device *v, const char *why)
{
        if (v->broken || !v->active)
                return;
        v->broken = true;
        v->stats.errors++;
        snprintf(v->why, sizeof v->why, "%s", why);
        memset(v->queues, 0, sizeof v->queues);
        pthread_mutex_lock(&v->lock);
        v->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        pthread_mutex_unlock(&v->lock);
        raise_irq(v, VIRTIO_MMIO_INT_CONFIG);
}

void virtio_used(struct virtio_device *v, unsigned q)
{
        if (virtq_interrupt_wanted(&v->queues[q], v->env->mem))
                raise_irq(v, VIRTIO_MMIO_INT_VRING);
}

void virtio_config_changed(struct virtio_device *v)
{
        bool tell;

        pthread_mutex_lock(&v->lock);
        v->generation++;
        tell = in_use(v);
        pthread_mutex_unlock(&v->lock);
        if (tell)
                raise_irq(v, VIRTIO_MMIO_INT_CONFIG);
}

void virtio_poke(struct virtio_device *v, unsigned q)
{
        (void)q; /* all of them are looked at */
        write_eventfd(v->slot.notify_fd);
}

void virtio_release(struct virtio_device *v, unsigned held)
{
        while (held-- > 0)
                v->env->release(v->env->machine);
}

int virtio_make_queue(struct virtio_device *v, const struct virtq_layout *at, uint64_t features,
                      struct virtq *q, struct err *err)
{
        return virtq_init(q, v->env->mem, at, features & BIT(VIRTIO_RING_F_EVENT_IDX),
                          features & BIT(VIRTIO_RING_F_INDIRECT_DESC), err);
}

/* What the driver set up is fixed by now. A queue that cannot be used is found here, where memory
 * may be looked at. */
static void activate(struct virtio_device *v)
{
        struct virtio_setup setup[VIRTIO_QUEUES_MAX];
        struct err err = {0};

        pthread_mutex_lock(&v->lock);
        v->activating = false;
        memcpy(setup, v->setup, sizeof setup);
        pthread_mutex_unlock(&v->lock);
        v->active = true;
        for (unsigned i = 0; i < v->ops->nqueues; i++) {
                if (setup[i].enabled &&
                    virtio_make_queue(v, &setup[i].at, v->driver_features, &v->queues[i], &err)) {
                        err_prefix(&err, 0, "queue %u", i);
                        virtio_break(v, err.text);
                        return;
                }
        }
        if (v->ops->activate)
                v->ops->activate(v);
}

static void reset(struct virtio_device *v)
{
        bool quiesced = v->quiesced, was_active = v->active;
        unsigned held;

        v->quiesced = true;
        loop_io_drain(v->env->loop);
        v->quiesced = quiesced;
        memset(v->queues, 0, sizeof v->queues);
        v->active = v->broken = false;
        if (was_active && v->ops->reset)
                v->ops->reset(v);
        pthread_mutex_lock(&v->lock);
        forget_registers(v);
        held = v->held;
        v->held = 0;
        pthread_mutex_unlock(&v->lock);
        virtio_release(v, held);
}

void virtio_finish(struct virtio_device *v)
{
        bool resetting, activating;

        pthread_mutex_lock(&v->lock);
        resetting = v->resetting;
        activating = v->activating;
        pthread_mutex_unlock(&v->lock);
        if (resetting)
                reset(v);
        else if (activating)
                activate(v);
}

/* One turn of one queue; true when it is to have another. Notifications are off while the device is
 * at it anyway. What came between its last look and their being on again is found by the index, and
 * not by the queue's having entries: those may be there because the device cannot take them now. */
static bool process_queue(struct virtio_device *v, unsigned i)
{
        struct virtq *q = &v->queues[i];
        uint16_t seen;
        bool more;

        virtq_ask_notify(q, v->env->mem, false);
        virtq_available(q, v->env->mem);
        seen = q->seen;
        more = v->ops->process(v, i);
        if (v->broken)
                return false;
        if (!q->ready) {
                virtio_break(v, "a queue is broken");
                return false;
        }
        if (more)
                return true;
        return virtq_ask_notify(q, v->env->mem, true) && q->seen != seen;
}

static void process(struct virtio_device *v)
{
        bool more = false;

        guest_access_begin(v->env->mem);
        for (unsigned i = 0; i < v->ops->nqueues && !v->broken; i++) {
                if (v->queues[i].ready)
                        more |= process_queue(v, i);
        }
        guest_access_end(v->env->mem);
        if (more && !v->broken)
                write_eventfd(v->slot.notify_fd);
}

static void turn(struct virtio_device *v)
{
        virtio_finish(v);
        if (v->active && !v->broken && !v->quiesced)
                process(v);
}

static void notified(void *data, int fd, unsigned events)
{
        struct virtio_device *v = data;
        uint64_t count;

        if (events & POLLIN && read(fd, &count, sizeof count) == sizeof count)
                v->stats.notifications++;
        turn(v);
}

void virtio_quiesce(void *dev)
{
        struct virtio_device *v = dev;

        v->quiesced = true;
        loop_io_drain(v->env->loop);
}

/* Notifications may have been taken meanwhile, or have stayed behind in another process. */
void virtio_resume(void *dev)
{
        struct virtio_device *v = dev;

        v->quiesced = false;
        turn(v);
}

/* --- life --- */

int virtio_init(struct virtio_device *v, const struct virtio_ops *ops, const struct device_env *env,
                struct device_window *window, struct err *err)
{
        int r = env->slot(env->machine, &v->slot);

        if (r < 0)
                return err_host(err, -r, "%s: no place on the bus is free", ops->name);
        v->ops = ops;
        v->env = env;
        pthread_mutex_init(&v->lock, NULL);
        r = loop_add_fd(env->loop, v->slot.notify_fd, POLLIN, notified, v, &v->watch);
        if (r < 0) {
                pthread_mutex_destroy(&v->lock);
                return err_host(err, -r, "%s: watching for notifications: %s", ops->name,
                                strerror(-r));
        }
        *window = (struct device_window){DEVICE_MMIO, v->slot.base, WINDOW_BYTES};
        return 0;
}

void virtio_fini(struct virtio_device *v)
{
        loop_remove(v->watch);
        pthread_mutex_destroy(&v->lock);
}
