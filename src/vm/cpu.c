/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's registers, and interrupts, for the machine's owner.
 *
 * Registers are of a vCPU that is parked at the top of its loop, its last instruction finished.
 * Interrupts take no lock and no turn: the machine's descriptor in KVM lives as long as the
 * machine, and KVM serializes what is done with it.
 */
#include <errno.h>
#include <string.h>

#include "vm/machine.h"

#define LINES    24u /* of the IOAPIC */
#define MSI_BASE 0xfee00000ull

int vm_check_vcpu(const struct vm *vm, unsigned vcpu, struct err *err)
{
        if (vcpu >= vm->shape.vcpus)
                return err_input(err, "vcpu: %u given, less than %u expected", vcpu,
                                 vm->shape.vcpus);
        return 0;
}

static int check_stopped(const struct vm *vm, unsigned vcpu, struct err *err)
{
        if (vm->started && !vm->paused)
                return err_host(err, EBUSY, "the machine runs");
        return vm_check_vcpu(vm, vcpu, err);
}

int vm_get_regs(struct vm *vm, unsigned vcpu, struct ramet_regs *regs, struct err *err)
{
        int r = check_stopped(vm, vcpu, err);

        return r < 0 ? r : kvm_vcpu_get_regs(&vm->vcpus[vcpu].kvm, regs, err);
}

/* The engine `rom` has to know of page tables that a new CR3 leads to. */
int vm_set_regs(struct vm *vm, unsigned vcpu, const struct ramet_regs *regs, struct err *err)
{
        int r = check_stopped(vm, vcpu, err);

        if (r == 0)
                r = kvm_vcpu_set_regs(&vm->vcpus[vcpu].kvm, regs, err);
        if (r < 0)
                return r;
        vm_memory_changed(vm);
        cow_finish_msrs(vm);
        r = cow_prepare(vm, err);
        if (r < 0)
                vm_exit_with(vm, RAMET_EXIT_HOST, 0, "%s", err->text);
        return r;
}

int vm_irq(struct vm *vm, unsigned line, bool level, struct err *err)
{
        int r;

        if (line >= LINES)
                return err_input(err, "line: %u given, at most %u expected", line, LINES - 1);
        if (level)
                atomic_fetch_or(&vm->lines, 1u << line);
        r = kvm_vm_irq_line(&vm->kvm, line, level);
        return r < 0 ? err_host(err, -r, "KVM_IRQ_LINE: %s", strerror(-r)) : 0;
}

void vm_lower_lines(struct vm *vm)
{
        const uint32_t lines = atomic_exchange(&vm->lines, 0);

        for (unsigned line = 0; line < LINES; line++)
                if (lines >> line & 1)
                        kvm_vm_irq_line(&vm->kvm, line, false);
}

static int signal_result(int r, struct err *err)
{
        return r < 0 ? err_host(err, -r, "KVM_SIGNAL_MSI: %s", strerror(-r)) : 0;
}

static int check_msi(const struct vm *vm, struct err *err)
{
        if (!vm->host.signal_msi)
                return err_host(err, ENOTSUP, "this host's KVM has no KVM_SIGNAL_MSI");
        return 0;
}

int vm_nmi(struct vm *vm, unsigned vcpu, struct err *err)
{
        int r = vm_check_vcpu(vm, vcpu, err);

        if (r == 0)
                r = check_msi(vm, err);
        return r < 0 ? r : signal_result(kvm_vm_nmi(&vm->kvm, vcpu), err);
}

int vm_msi(struct vm *vm, uint64_t address, uint32_t data, struct err *err)
{
        int r = check_msi(vm, err);

        if (address >> 20 != MSI_BASE >> 20)
                return err_input(err, "address: %#llx given, 0xfee00000 to 0xfeefffff expected",
                                 (unsigned long long)address);
        return r < 0 ? r : signal_result(kvm_vm_msi(&vm->kvm, address, data), err);
}
