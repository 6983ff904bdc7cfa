/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest pages that the processor writes on its own behalf: descriptor tables (accessed and busy
 * bits) and the stacks on which it puts the frame of an interrupt or exception. A pure function of
 * registers and memory; any thread.
 */
#ifndef RAMET_X86_SYSTEM_PAGES_H
#define RAMET_X86_SYSTEM_PAGES_H

#include <linux/kvm.h>
#include <stdint.h>

#include "x86/walk.h"

#define X86_SYSTEM_PAGES_MAX 64u /* GDT and LDT: 17 pages each; 11 stacks of up to 2 pages */

/* Of a vCPU in long mode. What is not mapped is left out. Returns how many; some may be there
 * twice. */
unsigned x86_system_pages(const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                          const struct x86_paging *paging, const struct x86_mem_reader *reader,
                          uint64_t gpas[X86_SYSTEM_PAGES_MAX]);

#endif
