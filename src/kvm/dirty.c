/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty log and dirty rings: see dirty.h. An entry of a ring goes from "empty" to "dirty" by KVM,
 * to "to be reset" by us, and back to "empty" by KVM_RESET_DIRTY_RINGS; its flags are read with
 * acquire before slot and offset, and written with release after them (the kernel's side pairs with
 * both).
 */
#include "kvm/dirty.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

/* Newer than some headers that this must build with. */
#ifndef KVM_CAP_DIRTY_LOG_RING_ACQ_REL
#define KVM_CAP_DIRTY_LOG_RING_ACQ_REL 223
#endif

static long ring_cap(const struct kvm_host *host, uint32_t *max_bytes)
{
        static const long caps[] = {KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING};

        for (unsigned i = 0; i < 2; i++) {
                int r = ioctl(host->fd, KVM_CHECK_EXTENSION, caps[i]);

                if (r > 0) {
                        *max_bytes = (uint32_t)r;
                        return caps[i];
                }
        }
        return 0;
}

uint32_t kvm_dirty_ring_max(const struct kvm_host *host)
{
        uint32_t bytes = 0;

        ring_cap(host, &bytes);
        return bytes / (uint32_t)sizeof(struct kvm_dirty_gfn);
}

int kvm_vm_dirty_init(const struct kvm_host *host, struct kvm_vm *vm, uint32_t entries,
                      struct err *err)
{
        struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                                     .args = {KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE}};
        uint32_t max_bytes = 0;
        int r;

        if (entries == 0) {
                vm->manual_log = kvm_ioctl(vm->fd, KVM_ENABLE_CAP, &cap) == 0;
                return 0;
        }
        cap = (struct kvm_enable_cap){.cap = (uint32_t)ring_cap(host, &max_bytes)};
        if (!cap.cap)
                return err_host(err, ENOTSUP, "this host's KVM has no dirty rings: use the log");
        if (entries & (entries - 1) || entries > max_bytes / sizeof(struct kvm_dirty_gfn))
                return err_input(err,
                                 "a dirty ring of %u entries: expected a power of two, at "
                                 "most %zu",
                                 entries, max_bytes / sizeof(struct kvm_dirty_gfn));
        cap.args[0] = entries * sizeof(struct kvm_dirty_gfn);
        r = kvm_ioctl(vm->fd, KVM_ENABLE_CAP, &cap);
        if (r < 0)
                return err_host(err, -r, "KVM_CAP_DIRTY_LOG_RING: %u entries: %s", entries,
                                strerror(-r));
        vm->ring_entries = entries;
        return 0;
}

int kvm_vm_get_dirty_log(const struct kvm_vm *vm, unsigned slot, uint64_t *bitmap)
{
        struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bitmap};

        return kvm_ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log);
}

int kvm_vm_clear_dirty_log(const struct kvm_vm *vm, unsigned slot, uint64_t pages,
                           const uint64_t *bitmap)
{
        struct kvm_clear_dirty_log clear = {
                .slot = slot,
                .num_pages = (uint32_t)pages,
                .dirty_bitmap = (void *)(uintptr_t)bitmap,
        };

        return kvm_ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear);
}

void kvm_vcpu_read_ring(struct kvm_vcpu *vcpu,
                        void (*page)(void *data, unsigned slot, uint64_t page), void *data)
{
        for (;;) {
                struct kvm_dirty_gfn *e = &vcpu->ring[vcpu->ring_next & (vcpu->ring_entries - 1)];

                if (!(__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
                        return;
                page(data, e->slot & 0xffff,
                     e->offset); /* above it: the address space, SMM's is 1 */
                __atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
                vcpu->ring_next++;
        }
}

int kvm_vm_reset_rings(const struct kvm_vm *vm)
{
        int r = kvm_ioctl(vm->fd, KVM_RESET_DIRTY_RINGS, NULL);

        return r < 0 ? r : 0;
}
