/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who answers at an address: a device, or after them a function of the owner's (vm_handle). What
 * nobody answers reads as all ones and swallows writes, as on a bus with no one there.
 */
#include <errno.h>
#include <string.h>

#include "vm/machine.h"
#include "x86/layout.h"

#define PORTS        0x10000ull
#define PHYSICAL_END (1ull << 52) /* SDM vol. 3, 4.1.4: no processor has more address bits */

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

static const struct vm_handler *find_handler(const struct vm *vm, enum device_space space,
                                             uint64_t address, unsigned len)
{
        for (unsigned i = 0; i < vm->nhandlers; i++) {
                const struct vm_handler *h = &vm->handlers[i];
                uint64_t offset = address - h->base;

                if (h->space == space && address >= h->base && offset < h->length &&
                    len <= h->length - offset)
                        return h;
        }
        return NULL;
}

static void call_handler(const struct vm_handler *h, uint64_t address, uint8_t *data, unsigned len,
                         bool write)
{
        if (write && h->write)
                h->write(h->data, address - h->base, len, device_get(data, len));
        if (write)
                return;
        if (h->read)
                device_put(data, len, h->read(h->data, address - h->base, len));
        else
                memset(data, 0xff, len);
}

bool bus_access(struct vm *vm, enum device_space space, uint64_t address, uint8_t *data,
                unsigned len, bool write)
{
        unsigned window;
        const struct vm_device *d = find(vm, space, address, len, &window);
        const struct vm_handler *h;
        uint64_t offset;

        if (d) {
                offset = address - d->windows[window].base;
                if (write)
                        d->ops->write(d->dev, window, offset, data, len);
                else
                        d->ops->read(d->dev, window, offset, data, len);
                return true;
        }
        h = find_handler(vm, space, address, len);
        if (h)
                call_handler(h, address, data, len, write);
        else if (!write)
                memset(data, 0xff, len);
        return h != NULL;
}

static bool overlap(const struct device_window *a, const struct device_window *b)
{
        return a->space == b->space && a->base < b->base + b->len && b->base < a->base + a->len;
}

/* Where KVM answers itself: PICs, PIT, speaker gate, edge/level control; IOAPIC, local APICs, and
 * the pages that it needs on VT-x. */
static const struct device_window in_kernel[] = {
        {DEVICE_PIO, 0x20, 2},
        {DEVICE_PIO, 0xa0, 2},
        {DEVICE_PIO, 0x40, 4},
        {DEVICE_PIO, 0x61, 1},
        {DEVICE_PIO, 0x4d0, 2},
        {DEVICE_MMIO, LAYOUT_IOAPIC, 0x1000},
        {DEVICE_MMIO, LAYOUT_LAPIC, 0x1000},
        {DEVICE_MMIO, LAYOUT_IDENTITY_MAP, 0x4000},
};
#define IN_KERNEL (sizeof in_kernel / sizeof in_kernel[0])

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
        int r = check_apart(d, "KVM", in_kernel, IN_KERNEL, err);

        for (unsigned i = 0; i < vm->ndevices && r == 0; i++) {
                const struct vm_device *other = &vm->devices[i];

                r = check_apart(d, other->ops->name, other->windows, other->nwindows, err);
        }
        return r;
}

/* --- functions of the owner's --- */

static int taken(const struct device_window *mine, const char *who,
                 const struct device_window *theirs, unsigned n, struct err *err)
{
        for (unsigned i = 0; i < n; i++) {
                if (overlap(mine, &theirs[i]))
                        return err_host(
                                err, EEXIST, "%llu bytes at %#llx: %s answers at %#llx to %#llx",
                                (unsigned long long)mine->len, (unsigned long long)mine->base, who,
                                (unsigned long long)theirs[i].base,
                                (unsigned long long)(theirs[i].base + theirs[i].len - 1));
        }
        return 0;
}

static int check_free(const struct vm *vm, const struct device_window *w, struct err *err)
{
        int r = taken(w, "KVM", in_kernel, IN_KERNEL, err);

        for (unsigned i = 0; i < vm->ndevices && r == 0; i++) {
                const struct vm_device *d = &vm->devices[i];

                r = taken(w, d->ops->name, d->windows, d->nwindows, err);
        }
        for (unsigned i = 0; i < vm->nhandlers && r == 0; i++) {
                const struct vm_handler *h = &vm->handlers[i];
                const struct device_window theirs = {h->space, h->base, h->length};

                r = taken(w, "another handler", &theirs, 1, err);
        }
        for (unsigned i = 0; i < vm->mem.nregions && r == 0; i++) {
                const struct guest_region *g = &vm->mem.regions[i];
                const struct device_window theirs = {DEVICE_MMIO, g->gpa, g->size};

                r = taken(w, "RAM", &theirs, 1, err);
        }
        return r;
}

int vm_handle(struct vm *vm, const struct vm_handler *handler, struct err *err)
{
        const struct device_window w = {handler->space, handler->base, handler->length};
        const uint64_t end = w.space == DEVICE_PIO ? PORTS : PHYSICAL_END;
        int r;

        if (w.space != DEVICE_PIO && w.space != DEVICE_MMIO)
                return err_input(err, "space: %d given, ports or addresses expected", (int)w.space);
        if (w.len == 0 || w.base >= end || w.len > end - w.base)
                return err_input(err, "%llu bytes at %#llx: 1 or more below %#llx expected",
                                 (unsigned long long)w.len, (unsigned long long)w.base,
                                 (unsigned long long)end);
        if (vm->started && !vm->paused)
                return err_host(err, EBUSY,
                                "the machine runs: handlers are for one that is paused");
        if (vm->nhandlers == VM_HANDLERS_MAX)
                return err_host(err, ENOSPC, "%u handlers are there, as many as there can be",
                                vm->nhandlers);
        r = check_free(vm, &w, err);
        if (r == 0)
                vm->handlers[vm->nhandlers++] = *handler;
        return r;
}
