/* SPDX-License-Identifier: Apache-2.0 */
/* What the transport (mmio.c) and its saved state (state.c) share. */
#ifndef RAMET_DEVICES_VIRTIO_INTERNAL_H
#define RAMET_DEVICES_VIRTIO_INTERNAL_H

#include <linux/virtio_config.h>

#include "devices/virtio/virtio.h"

/* Status bits that a driver can set. */
#define VIRTIO_DRIVER_BITS                                                                         \
        (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |        \
         VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)

/* May a driver take just these? @record: of the device that is in that record (its own part), NULL:
 * of this one. */
bool virtio_acceptable(struct virtio_device *v, uint64_t features, const void *record);
/* virtq_init() with what was negotiated. */
int virtio_make_queue(struct virtio_device *v, const struct virtq_layout *at, uint64_t features,
                      struct virtq *q, struct err *err);
/* Loop thread: do what vCPUs have left to it, activation and reset. */
void virtio_finish(struct virtio_device *v);
/* Let that many held vCPUs go. */
void virtio_release(struct virtio_device *v, unsigned held);
/* The interrupt, whatever InterruptStatus says. */
void virtio_signal(struct virtio_device *v);

#endif
