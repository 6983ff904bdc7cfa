/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processor that a guest sees: what KVM offers, with each vCPU's own number and the number of
 * processors put in. Source: Intel SDM volume 2A, CPUID.
 */
#ifndef RAMET_X86_CPUID_H
#define RAMET_X86_CPUID_H

#include <linux/kvm.h>
#include <stdint.h>

/* Change @cpuid (KVM_GET_SUPPORTED_CPUID's answer, or the result of an earlier call; room for
 * KVM_HOST_CPUID_MAX entries) to that of vCPU @id of @count. */
void x86_cpuid_for_vcpu(struct kvm_cpuid2 *cpuid, unsigned id, unsigned count);

/* Bits of a physical address: leaf 0x80000008, or 36 where there is none. */
uint8_t x86_cpuid_maxphyaddr(const struct kvm_cpuid2 *cpuid);

#endif
