/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state that the vCPUs share: interrupt controllers, PIT, and the KVM clock.
 *
 * The clock is the one thing that does not come back as it was: a clone's guest must see time go on
 * without a jump, so it is set to the saved value plus the host time that has gone by since.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "kvm/kvm.h"

static uint64_t boottime_ns(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_BOOTTIME, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int save_irqchip(const struct kvm_vm *vm, struct record_writer *w, struct err *err)
{
        for (uint32_t i = 0; i < KVM_NR_IRQCHIPS; i++) {
                struct kvm_irqchip chip;
                int r;

                memset(&chip, 0, sizeof chip);
                chip.chip_id = i;
                r = kvm_ioctl(vm->fd, KVM_GET_IRQCHIP, &chip);
                if (r < 0)
                        return err_host(err, -r, "KVM_GET_IRQCHIP: %u: %s", i, strerror(-r));
                record_add(w, RECORD_IRQCHIP, i, 1, &chip, sizeof chip);
        }
        return 0;
}

int kvm_vm_save(const struct kvm_host *host, const struct kvm_vm *vm, struct record_writer *w,
                struct err *err)
{
        struct kvm_pit_state2 pit;
        struct vm_clock clock;
        int r = save_irqchip(vm, w, err);

        if (r < 0)
                return r;
        if (vm->pit) {
                memset(&pit, 0, sizeof pit);
                r = kvm_ioctl(vm->fd, KVM_GET_PIT2, &pit);
                if (r < 0)
                        return err_host(err, -r, "KVM_GET_PIT2: %s", strerror(-r));
                record_add(w, RECORD_PIT, 0, 1, &pit, sizeof pit);
        }
        if (host->adjust_clock) {
                memset(&clock, 0, sizeof clock);
                r = kvm_ioctl(vm->fd, KVM_GET_CLOCK, &clock.data);
                if (r < 0)
                        return err_host(err, -r, "KVM_GET_CLOCK: %s", strerror(-r));
                clock.host_ns = boottime_ns();
                record_add(w, RECORD_CLOCK, 0, 1, &clock, sizeof clock);
        }
        return 0;
}

int kvm_vm_restore_irqchip(const struct kvm_vm *vm, const struct record_reader *reader,
                           struct err *err)
{
        struct kvm_irqchip chip;
        int r;

        for (uint32_t i = 0; i < KVM_NR_IRQCHIPS; i++) {
                r = record_get(reader, RECORD_IRQCHIP, i, &chip, sizeof chip, err);
                if (r < 0)
                        return r;
                chip.chip_id = i;
                r = kvm_ioctl(vm->fd, KVM_SET_IRQCHIP, &chip);
                if (r < 0)
                        return err_host(err, -r, "KVM_SET_IRQCHIP: %u: %s", i, strerror(-r));
        }
        return 0;
}

int kvm_vm_restore_pit(const struct kvm_vm *vm, const struct record_reader *reader, struct err *err)
{
        struct kvm_pit_state2 pit;
        int r;

        if (!vm->pit)
                return 0;
        r = record_get(reader, RECORD_PIT, 0, &pit, sizeof pit, err);
        if (r < 0)
                return r;
        r = kvm_ioctl(vm->fd, KVM_SET_PIT2, &pit);
        if (r < 0)
                return err_host(err, -r, "KVM_SET_PIT2: %s", strerror(-r));
        return 0;
}

/* A mode that is none destroys KVM's timer, and waits for its last tick to be through. */
int kvm_vm_forget(const struct kvm_vm *vm, struct err *err)
{
        struct kvm_pit_state2 pit;
        int r = 0;

        memset(&pit, 0, sizeof pit);
        pit.channels[0].mode = 0xff;
        if (vm->pit)
                r = kvm_ioctl(vm->fd, KVM_SET_PIT2, &pit);
        return r < 0 ? err_host(err, -r, "KVM_SET_PIT2: %s", strerror(-r)) : 0;
}

int kvm_vm_restore_clock(const struct kvm_host *host, const struct kvm_vm *vm,
                         const struct record_reader *reader, struct err *err)
{
        struct kvm_clock_data data;
        struct vm_clock clock;
        uint64_t now;
        int r;

        if (!host->adjust_clock)
                return 0;
        r = record_get(reader, RECORD_CLOCK, 0, &clock, sizeof clock, err);
        if (r < 0)
                return r;
        now = boottime_ns();
        memset(&data, 0, sizeof data);
        data.clock = clock.data.clock;
        if (now > clock.host_ns)
                data.clock += now - clock.host_ns;
        r = kvm_ioctl(vm->fd, KVM_SET_CLOCK, &data);
        if (r < 0)
                return err_host(err, -r, "KVM_SET_CLOCK: %s", strerror(-r));
        return 0;
}
