/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that KVM itself writes for a guest, at an address that the guest gave it in an MSR:
 * clocks, steal time, flags. KVM writes it through the host's address of the slot, and drops the
 * write silently when the slot is read-only. Whoever uses such slots has to know these pages, and
 * learns of new ones by having the MSRs' writes come out as exits.
 *
 * Sources: the kernel's Documentation/virt/kvm/x86/msr.rst; api.rst 4.97 and 7.20 to 7.22; the
 * Hyper-V TLFS for the synthetic MSRs.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm/kvm.h"

static const struct pv_msr {
        uint32_t index;
        uint32_t len;     /* bytes that KVM writes */
        uint64_t enable;  /* must be set, or the value names nothing; 0: an address of 0 is none */
        uint64_t address; /* bits of the value that are the address */
} pv_msrs[] = {
        {0x11, 16, 0, ~0ull},            /* wall clock, as it was first */
        {0x12, 32, 1, ~1ull},            /* kvmclock, as it was first */
        {0x4b564d00, 16, 0, ~0ull},      /* wall clock */
        {0x4b564d01, 32, 1, ~1ull},      /* kvmclock */
        {0x4b564d02, 68, 1, ~0x3full},   /* asynchronous page faults */
        {0x4b564d03, 64, 1, ~0x3full},   /* steal time */
        {0x4b564d04, 4, 1, ~3ull},       /* end of interrupt */
        {0x40000001, 4096, 1, ~4095ull}, /* Hyper-V: hypercall page */
        {0x40000021, 4096, 1, ~4095ull}, /* reference TSC */
        {0x40000073, 4096, 1, ~4095ull}, /* VP assist */
        {0x40000082, 4096, 1, ~4095ull}, /* event flags */
        {0x40000083, 4096, 1, ~4095ull}, /* messages */
};
#define NPV (sizeof pv_msrs / sizeof pv_msrs[0])

bool kvm_pv_msr(uint32_t index, uint64_t value, uint64_t *gpa, uint64_t *len)
{
        for (size_t i = 0; i < NPV; i++) {
                const struct pv_msr *m = &pv_msrs[i];

                if (m->index != index)
                        continue;
                *gpa = value & m->address;
                *len = m->len;
                return m->enable ? value & m->enable : *gpa != 0;
        }
        return false;
}

unsigned kvm_pv_msrs_get(const struct kvm_vcpu *vcpu, const struct kvm_msr_set *list,
                         struct kvm_msr_entry entries[KVM_PV_MSRS_MAX])
{
        unsigned n = 0;

        for (unsigned i = 0; i < list->count && n < KVM_PV_MSRS_MAX; i++) {
                struct {
                        struct kvm_msrs head;
                        struct kvm_msr_entry entry;
                } one = {.head.nmsrs = 1, .entry.index = list->index[i]};
                bool known = false;

                for (size_t k = 0; k < NPV && !known; k++)
                        known = pv_msrs[k].index == list->index[i];
                if (known && kvm_ioctl(vcpu->fd, KVM_GET_MSRS, &one) == 1)
                        entries[n++] = one.entry;
        }
        return n;
}

int kvm_msr_set_one(const struct kvm_vcpu *vcpu, uint32_t index, uint64_t value)
{
        struct {
                struct kvm_msrs head;
                struct kvm_msr_entry entry;
        } one = {.head.nmsrs = 1, .entry = {.index = index, .data = value}};
        int r = kvm_ioctl(vcpu->fd, KVM_SET_MSRS, &one);

        return r < 0 ? r : r == 1 ? 0 : -EINVAL;
}

/* One range of the filter for each run of MSRs; a clear bit denies. */
int kvm_pv_msrs_exit(const struct kvm_vm *vm)
{
        static uint8_t deny_all[8];
        struct kvm_msr_filter filter = {
                .flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
                .ranges =
                        {
                                {KVM_MSR_FILTER_WRITE, 2, 0x11, deny_all},
                                {KVM_MSR_FILTER_WRITE, 5, 0x4b564d00, deny_all},
                                {KVM_MSR_FILTER_WRITE, 1, 0x40000001, deny_all},
                                {KVM_MSR_FILTER_WRITE, 1, 0x40000021, deny_all},
                                {KVM_MSR_FILTER_WRITE, 1, 0x40000073, deny_all},
                                {KVM_MSR_FILTER_WRITE, 2, 0x40000082, deny_all},
                        },
        };
        struct kvm_enable_cap cap = {.cap = KVM_CAP_X86_USER_SPACE_MSR,
                                     .args = {KVM_MSR_EXIT_REASON_FILTER}};
        int r;

        if (kvm_vm_has(vm, KVM_CAP_X86_USER_SPACE_MSR) <= 0 ||
            kvm_vm_has(vm, KVM_CAP_X86_MSR_FILTER) <= 0)
                return -ENOTSUP;
        r = kvm_ioctl(vm->fd, KVM_ENABLE_CAP, &cap);
        return r < 0 ? r : kvm_ioctl(vm->fd, KVM_X86_SET_MSR_FILTER, &filter);
}

/* Linux 6.12; the header may be older. */
#define QUIRK_SLOT_ZAP_ALL (1u << 7)

bool kvm_vm_zap_slots_only(const struct kvm_vm *vm)
{
        struct kvm_enable_cap cap = {.cap = KVM_CAP_DISABLE_QUIRKS2, .args = {QUIRK_SLOT_ZAP_ALL}};

        return kvm_vm_has(vm, KVM_CAP_DISABLE_QUIRKS2) & QUIRK_SLOT_ZAP_ALL &&
               kvm_ioctl(vm->fd, KVM_ENABLE_CAP, &cap) == 0;
}
