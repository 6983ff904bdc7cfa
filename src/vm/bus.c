/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which device answers at an address. What nobody answers reads as all ones and swallows writes, as
 * on a bus with no one there.
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

static bool overlap(const struct device_window *a, const struct device_window *b)
{
        return a->space == b->space && a->base < b->base + b->len && b->base < a->base + a->len;
}

/* Ports at which KVM's own devices answer: PICs, PIT, speaker gate, edge/level control. */
static const struct device_window in_kernel[] = {
        {DEVICE_PIO, 0x20, 2}, {DEVICE_PIO, 0xa0, 2},  {DEVICE_PIO, 0x40, 4},
        {DEVICE_PIO, 0x61, 1}, {DEVICE_PIO, 0x4d0, 2},
};

static int check_apart(const struct vm_device *d, const char *other,
                       const struct device_window *theirs, unsigned n, struct err *err)
{
        for (unsigned i = 0; i < d->nwindows; i++) {
                for (unsigned k = 0; k < n; k++) {
                        if (overlap(&d->windows[i], &theirs[k]))
                                return err_input(
                                        err, "device %s at %#llx: %s answers at %#llx to %#llx",
                                        d->ops->name, (unsigned long long)d->windows[i].base, other,
                                        (unsigned long long)theirs[k].base,
                                        (unsigned long long)(theirs[k].base + theirs[k].len - 1));
                }
        }
        return 0;
}

int bus_check_windows(const struct vm *vm, const struct vm_device *d, struct err *err)
{
        int r = check_apart(d, "KVM", in_kernel, sizeof in_kernel / sizeof in_kernel[0], err);

        for (unsigned i = 0; i < vm->ndevices && r == 0; i++) {
                const struct vm_device *other = &vm->devices[i];

                r = check_apart(d, other->ops->name, other->windows, other->nwindows, err);
        }
        return r;
}
