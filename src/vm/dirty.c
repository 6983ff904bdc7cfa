/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's dirty pages: KVM's side of src/mem/dirty.h, and the owner's calls. The map of slots
 * can change under a vCPU that breaks a page (engine `rom`), with everybody else stopped; so
 * whoever asks is inside a read section meanwhile, unless it has stopped the machine itself.
 */
#include <errno.h>

#include "kvm/dirty.h"
#include "vm/machine.h"

static int get(void *data, unsigned slot, uint64_t *bitmap)
{
        const struct vm *vm = data;

        return kvm_vm_get_dirty_log(&vm->kvm, slot, bitmap);
}

static int clear(void *data, unsigned slot, uint64_t pages, const uint64_t *bitmap)
{
        const struct vm *vm = data;

        return kvm_vm_clear_dirty_log(&vm->kvm, slot, pages, bitmap);
}

static int reap(void *data, void (*page)(void *dirty, unsigned slot, uint64_t page), void *dirty)
{
        struct vm *vm = data;

        for (unsigned i = 0; i < vm->shape.vcpus; i++)
                kvm_vcpu_read_ring(&vm->vcpus[i].kvm, page, dirty);
        return kvm_vm_reset_rings(&vm->kvm);
}

int vm_dirty_start(struct vm *vm, struct err *err)
{
        const struct dirty_kvm kvm = {
                .get = get,
                .clear = vm->kvm.manual_log ? clear : NULL,
                .reap = vm->kvm.ring_entries ? reap : NULL,
                .data = vm,
        };
        bool was_paused = vm->paused;
        int r = 0;

        if (!vm->dirty.mem)
                r = dirty_init(&vm->dirty, &vm->mem, &vm->slots, &kvm);
        if (r < 0)
                return err_host(err, -r, "no memory to track dirty pages");
        vm_pause(vm);
        r = dirty_start(&vm->dirty, err);
        if (!was_paused)
                vm_run(vm);
        return r;
}

int vm_dirty_stop(struct vm *vm, struct err *err)
{
        bool was_paused = vm->paused;
        int r;

        vm_pause(vm);
        r = dirty_stop(&vm->dirty, err);
        if (!was_paused)
                vm_run(vm);
        return r;
}

size_t vm_dirty_words(const struct vm *vm)
{
        return (vm->shape.memory_bytes / 4096 + 63) / 64;
}

int vm_dirty_collect(struct vm *vm, uint64_t *bitmap, uint64_t *count, struct err *err)
{
        bool inside = !vm->paused;
        int r;

        if (inside)
                guest_access_begin(&vm->access);
        r = dirty_collect(&vm->dirty, bitmap, count, err);
        if (inside)
                guest_access_end(&vm->access);
        return r;
}
