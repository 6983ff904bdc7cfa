/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which guest pages may the instruction at RIP write? The question of a copy-on-write engine when
 * KVM gave up emulating a store into read-only memory: it makes these pages writable and lets the
 * processor do the instruction. decode.h finds linear addresses, walk.h translates them; this puts
 * both together. Pure functions; any thread.
 */
#ifndef RAMET_X86_OPERANDS_H
#define RAMET_X86_OPERANDS_H

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/decode.h"
#include "x86/walk.h"

/* Enough for one instruction of any kind: two descriptor tables of 64 KiB, or two operands of
 * X86_REP_BYTES, and all page tables on the way. */
#define X86_WRITTEN_PAGES_MAX 128

/* The registers that a walk depends on, from KVM's. */
struct x86_paging x86_paging_of(const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                                uint8_t maxphyaddr);

/* What decode.h asks for, from KVM's registers. @xsave_bytes: see below. */
struct x86_state x86_state_of(const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                              size_t xsave_bytes);

/* Find the guest-physical pages that the instruction may write, and the page tables that the
 * processor goes through for its operands (accessed and dirty bits).
 *
 * @bytes, @n: what stands at RIP, from KVM or memory; at most 15 are looked at
 * @xsave_bytes: size of the XSAVE area with everything in use that the guest may enable, CPUID
 *      0xd; 0 when not known, and then XSAVE cannot be told
 * @gpas, @ngpas: room for *@ngpas addresses; set to the number written, each 4 KiB aligned, none
 *      twice, in no order. Only written on success.
 *
 * Too many pages is no error of this function, too few would be: pages are counted although a mask,
 * a fault or a failed comparison may leave them alone. A page that the guest has not mapped is left
 * out: the instruction faults there.
 *
 * 0, or, and then the caller has to take every page as written:
 *      -ENODATA  @bytes end before the instruction does
 *      -EILSEQ   no instruction that is known here
 *      -ENOTSUP  what it writes is not to be told from these registers
 *      -E2BIG    more pages than there is room for
 *      -EIO      a page table lies outside memory */
int x86_written_pages(const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                      const uint8_t *bytes, size_t n, size_t xsave_bytes,
                      const struct x86_mem_reader *reader, uint64_t *gpas, unsigned *ngpas);

#endif
