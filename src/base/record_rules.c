/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of each kind of record: one line a kind, in the order of record.h. Adding a kind is
 * a line here, a number in record.h and a golden file in tests/unit/golden. A payload that grows
 * gets a new version and a wider length range, so that old state can still be read.
 *
 * Sizes of the processor's records are those of <linux/kvm.h>; the lengths of device records are
 * the record_length of the device's ops, which a unit test compares with these.
 */
#include <linux/kvm.h>

#include "base/record.h"

/* KVM allows many more vCPUs on some hosts; the machine refuses to be larger than this. */
#define VCPUS 1024

#define FIXED(k, n, size, count)                                                                   \
        {                                                                                          \
                .kind = (k), .name = (n), .version = 1, .min_length = (size),                      \
                .max_length = (size), .unit = 1, .instances = (count)                              \
        }
#define RANGE(k, n, min, max, each, count)                                                         \
        {                                                                                          \
                .kind = (k), .name = (n), .version = 1, .min_length = (min), .max_length = (max),  \
                .unit = (each), .instances = (count)                                               \
        }

const struct record_rule record_rules[] = {
        RANGE(RECORD_VM, "vm", 8, 4096, 1, 1),
        RANGE(RECORD_LAYOUT, "layout", 0, 1 << 20, 32, 1),
        RANGE(RECORD_CPUID, "cpuid", 0, 256 * sizeof(struct kvm_cpuid_entry2),
              sizeof(struct kvm_cpuid_entry2), 1),
        RANGE(RECORD_FILES, "files", 0, 64 * 16, 16, 1),
        FIXED(RECORD_CLOCK, "clock", sizeof(struct kvm_clock_data) + 8, 1),
        FIXED(RECORD_IRQCHIP, "irqchip", sizeof(struct kvm_irqchip), KVM_NR_IRQCHIPS),
        FIXED(RECORD_PIT, "pit", sizeof(struct kvm_pit_state2), 1),

        FIXED(RECORD_REGS, "regs", sizeof(struct kvm_regs), VCPUS),
        FIXED(RECORD_SREGS, "sregs", sizeof(struct kvm_sregs), VCPUS),
        FIXED(RECORD_SREGS2, "sregs2", sizeof(struct kvm_sregs2), VCPUS),
        RANGE(RECORD_XSAVE, "xsave", 4096, 1 << 20, 1, VCPUS),
        FIXED(RECORD_XCRS, "xcrs", sizeof(struct kvm_xcrs), VCPUS),
        RANGE(RECORD_MSRS, "msrs", 0, 4096 * sizeof(struct kvm_msr_entry),
              sizeof(struct kvm_msr_entry), VCPUS),
        FIXED(RECORD_LAPIC, "lapic", sizeof(struct kvm_lapic_state), VCPUS),
        FIXED(RECORD_EVENTS, "events", sizeof(struct kvm_vcpu_events), VCPUS),
        FIXED(RECORD_MP_STATE, "mp-state", sizeof(struct kvm_mp_state), VCPUS),
        FIXED(RECORD_DEBUGREGS, "debugregs", sizeof(struct kvm_debugregs), VCPUS),
        FIXED(RECORD_TSC, "tsc", 16, VCPUS),

        FIXED(RECORD_DEV_SERIAL, "serial", 32, 1),
        FIXED(RECORD_DEV_RTC, "rtc", 144, 1),
        FIXED(RECORD_DEV_I8042, "i8042", 8, 1),
        FIXED(RECORD_DEV_DEBUG_EXIT, "debug-exit", 8, 1),
        FIXED(RECORD_DEV_PM, "pm", 8, 1),
        FIXED(RECORD_DEV_DOORBELL, "doorbell", 8, 1),
        FIXED(RECORD_DEV_VMGENID, "vmgenid", 16, 1),
        FIXED(RECORD_DEV_VIRTIO_BLK, "virtio-blk", 1472, 8),
        FIXED(RECORD_DEV_VIRTIO_RNG, "virtio-rng", 1456, 1),
        FIXED(RECORD_DEV_VIRTIO_CONSOLE, "virtio-console", 368, 1),
        {.kind = RECORD_END},
};
