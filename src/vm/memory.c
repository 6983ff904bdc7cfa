/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory for the machine's owner: by guest-physical address whenever it likes, by linear
 * address while all vCPUs are stopped, since only then are there registers to go by.
 *
 * What a vCPU's registers and page tables said is kept until something may have changed either:
 * until the vCPUs run on (any of them: page tables are shared), or state is put into them.
 * vm_memory_changed() counts that, and the count is part of every translation's tag.
 */
#include <errno.h>

#include "vm/machine.h"
#include "x86/cpuid.h"
#include "x86/operands.h"

void vm_memory_changed(struct vm *vm)
{
        vm->memory_epoch++;
}

/* A shell has addresses and nothing behind them. Devices are made when there is memory. */
static bool has_memory(const struct vm *vm)
{
        return vm->env.mem != NULL;
}

int vcpu_view(struct vcpu *vcpu, uint64_t run, struct x86_view *view)
{
        struct kvm_sregs sregs;
        struct kvm_regs regs;
        struct x86_paging paging;
        int r = kvm_ioctl(vcpu->kvm.fd, KVM_GET_SREGS, &sregs);

        if (r == 0)
                r = kvm_ioctl(vcpu->kvm.fd, KVM_GET_REGS, &regs);
        if (r < 0)
                return r;
        paging = x86_paging_of(&regs, &sregs, x86_cpuid_maxphyaddr(vcpu->vm->cpuid));
        x86_view_init(view, &paging, vcpu->kvm.id, run);
        return 0;
}

/* The owner's view of @vcpu. */
static int view_of(struct vm *vm, unsigned vcpu, const struct guest_view **view)
{
        int r;

        if (!has_memory(vm))
                return -ENODEV;
        if (vm->started && !vm->paused)
                return -EBUSY;
        if (vcpu >= vm->shape.vcpus)
                return -EINVAL;
        if (vm->view_epoch != vm->memory_epoch || vm->view.view.space.vcpu != vcpu) {
                r = vcpu_view(&vm->vcpus[vcpu], vm->memory_epoch, &vm->view);
                if (r < 0)
                        return r;
                vm->view_epoch = vm->memory_epoch;
        }
        *view = &vm->view.view;
        return 0;
}

int vm_read(struct vm *vm, uint64_t gpa, void *buf, size_t len)
{
        return has_memory(vm) ? guest_access_read(&vm->access, gpa, buf, len) : -ENODEV;
}

int vm_write(struct vm *vm, uint64_t gpa, const void *buf, size_t len)
{
        return has_memory(vm) ? guest_access_write(&vm->access, gpa, buf, len) : -ENODEV;
}

int vm_read_gva(struct vm *vm, unsigned vcpu, uint64_t gva, void *buf, size_t len, uint64_t *failed)
{
        const struct guest_view *view;
        int r = view_of(vm, vcpu, &view);

        if (r < 0)
                return r;
        return guest_access_read_gva(&vm->access, view, X86_DEBUG, gva, buf, len, failed);
}

int vm_write_gva(struct vm *vm, unsigned vcpu, uint64_t gva, const void *buf, size_t len,
                 uint64_t *failed)
{
        const struct guest_view *view;
        int r = view_of(vm, vcpu, &view);

        if (r < 0)
                return r;
        return guest_access_write_gva(&vm->access, view, X86_DEBUG, gva, buf, len, failed);
}

void vm_access_begin(struct vm *vm)
{
        guest_access_begin(&vm->access);
}

void vm_access_end(struct vm *vm)
{
        guest_access_end(&vm->access);
}

/* Pieces that lie in a row here are one. It is marked before the caller writes, which is as good:
 * nobody takes the marks in between, since that is the owner's to do. */
int vm_access_span(struct vm *vm, uint64_t gpa, size_t len, bool write, void **pointer)
{
        uint8_t *first = NULL;
        uint64_t piece;

        if (!has_memory(vm))
                return -ENODEV;
        for (uint64_t done = 0; done == 0 || done < len; done += piece) {
                uint8_t *p = guest_access_span(&vm->access, gpa + done, len - done, write, &piece);

                if (!p || (first && p != first + done))
                        return -EFAULT;
                first = first ?: p;
        }
        if (write)
                guest_access_wrote(&vm->access, gpa, len);
        *pointer = first;
        return 0;
}

int vm_translate(struct vm *vm, unsigned vcpu, uint64_t gva, uint64_t *gpa)
{
        const struct guest_view *view;
        int r = view_of(vm, vcpu, &view);

        return r < 0 ? r : guest_access_translate(&vm->access, view, X86_DEBUG, gva, gpa);
}

void vm_memory_bypass(struct vm *vm, bool bypass)
{
        vm->access.bypass = bypass;
}

void vm_memory_stats(const struct vm *vm, struct tlb_stats *stats)
{
        *stats = vm->owner_tlb.stats;
}
