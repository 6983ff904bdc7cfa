/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved state of a virtio device: its registers, where each queue was, and the device's own part.
 *
 * A device is saved when it is quiesced, so every chain that was taken has been given back, and a
 * queue's two indices are one. (That is why a record has no list of what is in flight: nothing is.)
 * What vCPUs have left to the loop is finished first: the clone's loop would not know of it.
 *
 * A record is believed no more than the guest itself, which may have taken over the process that
 * wrote it: what it says must be a state that the registers could have led to. Then everything else
 * follows from the registers and is only compared. Nothing is changed before all is checked.
 */
#include <errno.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "devices/virtio/internal.h"

_Static_assert(sizeof(struct virtq_record) == 40, "no padding");
_Static_assert(sizeof(struct virtio_record) == 40 + VIRTIO_QUEUES_MAX * 40, "no padding");

#define DRIVER_OK   VIRTIO_CONFIG_S_DRIVER_OK
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET

static void save_queue(const struct virtio_setup *s, const struct virtq *q, struct virtq_record *r)
{
        *r = (struct virtq_record){
                .desc = s->at.desc,
                .driver = s->at.driver,
                .device = s->at.device,
                .size = s->at.size,
                .next_avail = q->next_avail,
                .next_used = q->next_used,
                .signalled = q->signalled,
                .ready = q->ready,
                .event_idx = q->event_idx,
                .indirect = q->indirect,
                .signalled_valid = q->signalled_valid,
                .enabled = s->enabled,
        };
}

void virtio_save(void *dev, void *record)
{
        struct virtio_device *v = dev;
        struct virtio_record r = {
                .device_id = v->ops->device_id,
                .nqueues = v->ops->nqueues,
        };

        virtio_finish(v);
        pthread_mutex_lock(&v->lock);
        r.status = v->status;
        r.isr = v->isr;
        r.generation = v->generation;
        r.features_sel = v->features_sel;
        r.driver_features_sel = v->driver_features_sel;
        r.queue_sel = v->queue_sel;
        r.driver_features = v->driver_features;
        for (unsigned i = 0; i < v->ops->nqueues; i++)
                save_queue(&v->setup[i], &v->queues[i], &r.queues[i]);
        pthread_mutex_unlock(&v->lock);
        memcpy(record, &r, sizeof r);
        if (v->ops->save)
                v->ops->save(v, (uint8_t *)record + sizeof r);
}

static int check_registers(struct virtio_device *v, const struct virtio_record *r, const void *own,
                           struct err *err)
{
        const char *name = v->ops->name;
        bool features_ok = r->status & VIRTIO_CONFIG_S_FEATURES_OK;

        if (r->device_id != v->ops->device_id || r->nqueues != v->ops->nqueues)
                return err_input(err, "%s: a record of device id %u with %u queues", name,
                                 r->device_id, r->nqueues);
        if (r->status & ~(uint32_t)(VIRTIO_DRIVER_BITS | NEEDS_RESET))
                return err_input(err, "%s: reserved bits in status 0x%x", name, r->status);
        if ((r->status & DRIVER_OK && !features_ok) ||
            (r->status & NEEDS_RESET && !(r->status & DRIVER_OK)))
                return err_input(err, "%s: status 0x%x cannot be", name, r->status);
        if (r->isr & ~(uint32_t)(VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG))
                return err_input(err, "%s: reserved bits in interrupt status 0x%x", name, r->isr);
        if (features_ok && !virtio_acceptable(v, r->driver_features, own))
                return err_input(err, "%s: features 0x%llx cannot have been accepted", name,
                                 (unsigned long long)r->driver_features);
        return 0;
}

/* What a queue is, if it is of a device in use; else *q is zeroed. */
static int restore_queue(struct virtio_device *v, const struct virtio_record *r, unsigned i,
                         struct virtq *q, struct err *err)
{
        const struct virtq_record *s = &r->queues[i];
        const struct virtq_layout at = {s->desc, s->driver, s->device, s->size};
        int ret = 0;

        *q = (struct virtq){0};
        if (s->enabled > 1)
                return err_input(err, "enabled is %u, not 0 or 1", s->enabled);
        if (s->size > v->ops->queue_size_max)
                return err_input(err, "size %u is too large", s->size);
        if (s->enabled && r->status & DRIVER_OK && !(r->status & NEEDS_RESET))
                ret = virtio_make_queue(v, &at, r->driver_features, q, err);
        if (ret < 0)
                return ret;
        if (s->ready != q->ready || s->event_idx != q->event_idx || s->indirect != q->indirect)
                return err_input(err, "its state is not that of its device");
        if (!q->ready && (s->next_avail || s->next_used || s->signalled || s->signalled_valid))
                return err_input(err, "it has indices, and is not in use");
        if (s->next_avail != s->next_used)
                return err_input(err, "%u were taken and %u used", s->next_avail, s->next_used);
        if (s->signalled_valid > 1)
                return err_input(err, "signalled_valid is %u, not 0 or 1", s->signalled_valid);
        q->next_avail = s->next_avail;
        q->next_used = s->next_used;
        q->signalled = s->signalled;
        q->signalled_valid = s->signalled_valid;
        return 0;
}

static int restore_queues(struct virtio_device *v, const struct virtio_record *r,
                          struct virtq queues[VIRTIO_QUEUES_MAX], struct err *err)
{
        static const struct virtq_record zero;

        memset(queues, 0, VIRTIO_QUEUES_MAX * sizeof queues[0]);
        for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
                int ret = 0;

                if (i < v->ops->nqueues)
                        ret = restore_queue(v, r, i, &queues[i], err);
                else if (memcmp(&r->queues[i], &zero, sizeof zero))
                        ret = err_input(err, "it is not there");
                if (ret < 0)
                        return err_prefix(err, ret, "%s: queue %u", v->ops->name, i);
        }
        return 0;
}

static void apply(struct virtio_device *v, const struct virtio_record *r,
                  const struct virtq queues[VIRTIO_QUEUES_MAX])
{
        unsigned held;

        pthread_mutex_lock(&v->lock);
        v->status = r->status;
        v->isr = r->isr;
        v->generation = r->generation;
        v->features_sel = r->features_sel;
        v->driver_features_sel = r->driver_features_sel;
        v->queue_sel = r->queue_sel;
        v->driver_features = r->driver_features;
        for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
                const struct virtq_record *s = &r->queues[i];

                v->setup[i] = (struct virtio_setup){
                        .at = {s->desc, s->driver, s->device, s->size},
                        .enabled = s->enabled,
                };
        }
        v->activating = v->resetting = false;
        held = v->held;
        v->held = 0;
        pthread_mutex_unlock(&v->lock);
        memcpy(v->queues, queues, sizeof v->queues);
        v->active = r->status & DRIVER_OK;
        v->broken = r->status & NEEDS_RESET;
        v->quiesced = true; /* until resume() */
        virtio_release(v, held);
}

int virtio_restore(void *dev, const void *record, uint32_t version, struct err *err)
{
        struct virtq queues[VIRTIO_QUEUES_MAX];
        struct virtio_device *v = dev;
        struct virtio_record r;
        int ret;

        memcpy(&r, record, sizeof r);
        ret = check_registers(v, &r, (const uint8_t *)record + sizeof r, err);
        if (ret == 0)
                ret = restore_queues(v, &r, queues, err);
        if (ret == 0 && v->ops->restore)
                ret = v->ops->restore(v, (const uint8_t *)record + sizeof r, err);
        if (ret < 0)
                return ret;
        apply(v, &r, queues);
        if (v->isr)
                virtio_signal(v);
        if (v->ops->restored)
                v->ops->restored(v);
        return 0;
}
