/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots: the places on the bus of virtio devices. Slot n has the page at LAYOUT_VIRTIO + n pages
 * and an interrupt of its own, whichever device comes to be there; so a machine, its shells and its
 * clones agree, and the guest's tables can be written before there is any device.
 *
 * KVM's part is made together with the machine: a notification is then no exit to user space, and
 * an interrupt no ioctl. That is 1 us for each eventfd and each registration, if it comes after the
 * memory slots (a memory slot that is set after an ioeventfd waits 7 ms on the test host); and it
 * is in the shell, not in what a fork waits for.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vm/machine.h"
#include "x86/layout.h"

static const uint8_t gsis[DEVICE_SLOTS_MAX] = LAYOUT_VIRTIO_GSIS;
_Static_assert(DEVICE_SLOTS_MAX == LAYOUT_VIRTIO_SLOTS, "slots");

static int make_eventfd(int *fd, struct err *err)
{
        *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        return *fd < 0 ? err_host(err, errno, "eventfd: %s", strerror(errno)) : 0;
}

static int make_irq(struct vm *vm, struct device_slot *s, struct err *err)
{
        int r = make_eventfd(&s->irq_fd, err);

        if (r < 0)
                return r;
        r = kvm_vm_irqfd(&vm->kvm, s->gsi, s->irq_fd);
        return r < 0 ? err_host(err, -r, "KVM_IRQFD: GSI %u: %s", s->gsi, strerror(-r)) : 0;
}

static int make(struct vm *vm, unsigned n, struct err *err)
{
        struct device_slot *s = &vm->device_slots.slot[n];
        int r;

        *s = (struct device_slot){
                .base = LAYOUT_VIRTIO + n * LAYOUT_VIRTIO_SLOT,
                .gsi = gsis[n],
                .notify_fd = -1,
                .irq_fd = -1,
        };
        vm->device_slots.made = n + 1;
        r = make_eventfd(&s->notify_fd, err);
        if (r < 0)
                return r;
        if (vm->host.ioeventfd)
                r = kvm_vm_ioeventfd(&vm->kvm, s->base + DEVICE_NOTIFY, 4, s->notify_fd);
        if (r < 0)
                return err_host(err, -r, "KVM_IOEVENTFD: slot %u: %s", n, strerror(-r));
        return vm->host.irqfd ? make_irq(vm, s, err) : 0;
}

int device_slots_create(struct vm *vm, struct err *err)
{
        unsigned n = machine_slots_needed(vm);
        int r = 0;

        if (n > DEVICE_SLOTS_MAX)
                return err_input(err, "%u virtio devices: expected at most %d", n,
                                 DEVICE_SLOTS_MAX);
        for (unsigned i = 0; i < n && r == 0; i++)
                r = make(vm, i, err);
        return r;
}

char *device_slots_cmdline(const struct vm *vm, const char *cmdline)
{
        const size_t each = sizeof "virtio_mmio.device=4K@0x00000000:00 ";
        const size_t size = vm->device_slots.made * each + strlen(cmdline) + 1;
        char *text = malloc(size);
        size_t n = 0;

        for (unsigned i = 0; text && i < vm->device_slots.made; i++) {
                const struct device_slot *s = &vm->device_slots.slot[i];

                n += (size_t)snprintf(text + n, size - n, "virtio_mmio.device=4K@0x%llx:%u ",
                                      (unsigned long long)s->base, s->gsi);
        }
        if (text)
                snprintf(text + n, size - n, "%s", cmdline);
        return text;
}

int device_slots_take(void *machine, struct device_slot *slot)
{
        struct vm_slots *slots = &((struct vm *)machine)->device_slots;

        if (slots->taken == slots->made)
                return -ENOSPC;
        *slot = slots->slot[slots->taken++];
        return 0;
}

void device_slots_destroy(struct vm *vm)
{
        struct vm_slots *slots = &vm->device_slots;

        while (slots->made > 0) {
                const struct device_slot *s = &slots->slot[--slots->made];

                if (s->notify_fd >= 0)
                        close(s->notify_fd);
                if (s->irq_fd >= 0)
                        close(s->irq_fd);
        }
}
