/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's two ways to say which pages were written: the dirty log, a bitmap per slot (api.rst 4.8,
 * KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 in 7.18), and dirty rings, one per vCPU (8.29). A machine has
 * one of them, chosen before its vCPUs are made.
 */
#ifndef RAMET_KVM_DIRTY_H
#define RAMET_KVM_DIRTY_H

#include "kvm/kvm.h"

/* The most entries that a vCPU's ring can have here; 0: this host's KVM has no dirty rings. */
uint32_t kvm_dirty_ring_max(const struct kvm_host *host);

/* Before the first vCPU. @entries: a power of two, at most kvm_dirty_ring_max(); 0: the log, where
 * pages are write-protected anew only when asked if KVM can do that. 0 or -errno. */
int kvm_vm_dirty_init(const struct kvm_host *host, struct kvm_vm *vm, uint32_t entries,
                      struct err *err);

/* Fill @bitmap, a bit per page of the slot, rounded up to 64. Clears nothing if vm->manual_log.
 * 0 or -errno. */
int kvm_vm_get_dirty_log(const struct kvm_vm *vm, unsigned slot, uint64_t *bitmap);
/* Clear what is set in @bitmap. 0 or -errno. */
int kvm_vm_clear_dirty_log(const struct kvm_vm *vm, unsigned slot, uint64_t pages,
                           const uint64_t *bitmap);

/* Call @page for each entry that waits in @vcpu's ring, and mark it as read. One caller at a time,
 * any thread; kvm_vm_reset_rings() afterwards. */
void kvm_vcpu_read_ring(struct kvm_vcpu *vcpu,
                        void (*page)(void *data, unsigned slot, uint64_t page), void *data);
/* Write-protect the pages of all entries that were read, and let KVM use these again. 0 or
 * -errno. */
int kvm_vm_reset_rings(const struct kvm_vm *vm);

#endif
