/* SPDX-License-Identifier: Apache-2.0 */
/* Every device there is: one line each. Devices are created, saved and restored in this order. */
#include <stddef.h>

#include "devices/registry.h"

/* clang-format off */
const struct device_ops *const device_registry[] = {
        &serial_ops,
        &rtc_ops,
        &i8042_ops,
        &pm_ops,
        &debug_exit_ops,
        &doorbell_ops,
        &vmgenid_ops,
        &virtio_blk_ops,
        &rng_ops,
        &virtio_console_ops,
        NULL,
};
/* clang-format on */
