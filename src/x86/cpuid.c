/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID leaves that differ from one vCPU to the next or from host to guest: the local APIC's number
 * (leaf 1 EBX, leaves 0xB and 0x1F EDX), how many there are, the hypervisor bit and the TSC
 * deadline timer, which the in-kernel APIC has whether KVM lists it or not (api.rst 4.46).
 * Processors show as one package of single-thread cores.
 *
 * VMX and SVM are not offered: the state of a nested guest is neither saved nor restored, and a
 * clone of a machine that runs one would not know of it.
 */
#include "x86/cpuid.h"

#include <stdbool.h>

#include "kvm/kvm.h"

#define LEAF1_ECX_VMX          (1u << 5)
#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_HYPERVISOR   (1u << 31)
#define LEAF1_EDX_HTT          (1u << 28)
#define EXT1_ECX_SVM           (1u << 2)
#define LEVEL_SMT              1u
#define LEVEL_CORE             2u

static unsigned bits_for(unsigned count)
{
        unsigned bits = 0;

        while ((1u << bits) < count)
                bits++;
        return bits;
}

static void topology(struct kvm_cpuid_entry2 *e, unsigned id, unsigned count)
{
        e->edx = id;
        switch (e->index) {
        case 0:
                e->eax = 0;
                e->ebx = 1;
                e->ecx = LEVEL_SMT << 8;
                break;
        case 1:
                e->eax = bits_for(count);
                e->ebx = count;
                e->ecx = LEVEL_CORE << 8 | 1;
                break;
        default:
                e->eax = e->ebx = 0;
                e->ecx = e->index;
        }
}

static bool has(const struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index)
{
        for (unsigned i = 0; i < cpuid->nent; i++) {
                if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
                        return true;
        }
        return false;
}

/* KVM tells nothing of the host's topology since Linux 6.2, one empty entry for the whole leaf:
 * then the level of cores is missing, without which each processor is a package of its own. */
static void add_core_level(struct kvm_cpuid2 *cpuid, uint32_t function)
{
        if (!has(cpuid, function, 0) || has(cpuid, function, 1) ||
            cpuid->nent >= KVM_HOST_CPUID_MAX)
                return;
        cpuid->entries[cpuid->nent++] = (struct kvm_cpuid_entry2){
                .function = function, .index = 1, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX};
}

void x86_cpuid_for_vcpu(struct kvm_cpuid2 *cpuid, unsigned id, unsigned count)
{
        add_core_level(cpuid, 0xb);
        add_core_level(cpuid, 0x1f);
        for (unsigned i = 0; i < cpuid->nent; i++) {
                struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

                switch (e->function) {
                case 0x1:
                        e->ebx = (e->ebx & 0x0000ffffu) | id << 24 | (count & 0xff) << 16;
                        e->ecx &= ~LEAF1_ECX_VMX;
                        e->ecx |= LEAF1_ECX_HYPERVISOR | LEAF1_ECX_TSC_DEADLINE;
                        e->edx &= ~LEAF1_EDX_HTT;
                        if (count > 1)
                                e->edx |= LEAF1_EDX_HTT;
                        break;
                case 0x4: /* cores in the package; caches are shared by one thread each */
                        e->eax &= 0x00003fffu;
                        e->eax |= (count - 1) << 26;
                        break;
                case 0xb:
                case 0x1f:
                        topology(e, id, count);
                        break;
                case 0x80000001:
                        e->ecx &= ~EXT1_ECX_SVM;
                        break;
                default:
                        break;
                }
        }
}

uint8_t x86_cpuid_maxphyaddr(const struct kvm_cpuid2 *cpuid)
{
        for (unsigned i = 0; i < cpuid->nent; i++) {
                if (cpuid->entries[i].function == 0x80000008)
                        return (uint8_t)cpuid->entries[i].eax;
        }
        return 36;
}
