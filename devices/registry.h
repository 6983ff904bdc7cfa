/* SPDX-License-Identifier: Apache-2.0 */
/* The ops of each device, for registry.c and the tests; everyone else walks device_registry[]. */
#ifndef RAMET_DEVICES_REGISTRY_H
#define RAMET_DEVICES_REGISTRY_H

#include "devices/device.h"

extern const struct device_ops serial_ops;
extern const struct device_ops rtc_ops;
extern const struct device_ops i8042_ops;
extern const struct device_ops pm_ops;
extern const struct device_ops debug_exit_ops;
extern const struct device_ops rng_ops;
extern const struct device_ops virtio_blk_ops; /* one for each disk */
extern const struct device_ops virtio_console_ops;

#endif
