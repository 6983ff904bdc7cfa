/* SPDX-License-Identifier: Apache-2.0 */
/* What all devices need: values of an access, as bytes in guest order. See device.h. */
#include "devices/device.h"

uint64_t device_get(const uint8_t *data, unsigned len)
{
        uint64_t value = 0;

        for (unsigned i = 0; i < len && i < 8; i++)
                value |= (uint64_t)data[i] << (8 * i);
        return value;
}

void device_put(uint8_t *data, unsigned len, uint64_t value)
{
        for (unsigned i = 0; i < len; i++)
                data[i] = (uint8_t)(i < 8 ? value >> (8 * i) : 0);
}
