/* SPDX-License-Identifier: Apache-2.0 */
/* The written pages of an instruction: see operands.h. Nothing is decoded yet. */
#include "x86/operands.h"

#include <errno.h>

struct x86_paging x86_paging_of(const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                                uint8_t maxphyaddr)
{
        return (struct x86_paging){
                .cr0 = sregs->cr0,
                .cr3 = sregs->cr3,
                .cr4 = sregs->cr4,
                .efer = sregs->efer,
                .rflags = regs->rflags,
                .cpl = sregs->ss.dpl, /* as KVM does it: SS.DPL is the CPL in every mode */
                .maxphyaddr = maxphyaddr,
        };
}

int x86_written_pages(const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                      const uint8_t *bytes, size_t n, size_t xsave_bytes,
                      const struct x86_mem_reader *reader, uint64_t *gpas, unsigned *ngpas)
{
        return -ENOTSUP;
}
