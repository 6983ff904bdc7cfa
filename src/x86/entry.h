/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the boot processor enters a guest. A boot protocol describes the state it promises in a
 * struct x86_entry; this turns it into registers and puts the GDT and page tables it needs into
 * guest memory. Pure functions of memory and registers: no KVM descriptor is involved.
 */
#ifndef RAMET_X86_ENTRY_H
#define RAMET_X86_ENTRY_H

#include <linux/kvm.h>
#include <stdint.h>

#include "mem/guest_mem.h"

enum x86_mode {
        X86_REAL16, /* CS:IP = (rip >> 4) : (rip & 15), rip below 1 MiB */
        X86_PROT32, /* flat 4 GiB segments, paging off */
        X86_LONG64, /* flat, the first 4 GiB mapped one to one with 2 MiB pages */
};

struct x86_entry {
        enum x86_mode mode;
        uint64_t rip;
        uint64_t rax, rbx, rsi, rsp;
};

/* Fill @regs and @sregs (which come in as KVM_GET_SREGS gave them: APIC base and so on are kept)
 * for @entry, and write GDT and page tables at LAYOUT_BOOT_GDT and LAYOUT_BOOT_PAGETABLES.
 * 0, -EFAULT when guest memory is too small for them, or -EINVAL when a real-mode rip is above 1
 * MiB. */
int x86_entry_setup(const struct x86_entry *entry, const struct guest_mem *mem,
                    struct kvm_regs *regs, struct kvm_sregs *sregs);

#endif
