/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which device answers at an address, and the devices' birth and death. What nobody answers reads
 * as all ones and swallows writes, as on a bus with no one there.
 */
#include <errno.h>
#include <string.h>

#include "vm/machine.h"

static const struct vm_device *find(const struct vm *vm, enum device_space space, uint64_t address,
                                    unsigned len, unsigned *window)
{
        for (unsigned i = 0; i < vm->ndevices; i++) {
                const struct vm_device *d = &vm->devices[i];

                for (unsigned w = 0; w < d->nwindows; w++) {
                        const struct device_window *win = &d->windows[w];
                        uint64_t offset = address - win->base;

                        if (win->space == space && address >= win->base && offset < win->len &&
                            len <= win->len - offset) {
                                *window = w;
                                return d;
                        }
                }
        }
        return NULL;
}

void bus_access(struct vm *vm, enum device_space space, uint64_t address, uint8_t *data,
                unsigned len, bool write)
{
        unsigned window;
        const struct vm_device *d = find(vm, space, address, len, &window);
        uint64_t offset;

        if (!d) {
                if (!write)
                        memset(data, 0xff, len);
                return;
        }
        offset = address - d->windows[window].base;
        if (write)
                d->ops->write(d->dev, window, offset, data, len);
        else
                d->ops->read(d->dev, window, offset, data, len);
}

int machine_devices_create(struct vm *vm, struct err *err)
{
        const struct device_params params = {
                .debug_exit_port = (uint16_t)vm->shape.debug_exit_port,
        };

        for (const struct device_ops *const *ops = device_registry; *ops; ops++) {
                struct vm_device *d = &vm->devices[vm->ndevices];
                int r;

                if (vm->ndevices == VM_DEVICES_MAX)
                        return err_host(err, ENOSPC, "more than %d devices", VM_DEVICES_MAX);
                *d = (struct vm_device){.ops = *ops};
                r = (*ops)->create(&vm->env, &params, &d->dev, d->windows, &d->nwindows, err);
                if (r < 0)
                        return err_prefix(err, r, "device %s", (*ops)->name);
                if (!d->dev)
                        continue;
                if (*ops == &doorbell_ops)
                        vm->doorbell = d->dev;
                if (*ops == &vmgenid_ops)
                        vm->vmgenid = d->dev;
                vm->ndevices++;
        }
        return 0;
}

void machine_devices_destroy(struct vm *vm)
{
        while (vm->ndevices > 0) {
                struct vm_device *d = &vm->devices[--vm->ndevices];

                d->ops->destroy(d->dev);
        }
}
