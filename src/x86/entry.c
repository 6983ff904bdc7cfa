/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a boot protocol's promise to registers: see entry.h.
 *
 * One GDT serves the protected and the long mode. Its selectors are those of Linux's 64-bit boot
 * protocol (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol": __BOOT_CS 0x10, __BOOT_DS
 * 0x18), which suits PVH and multiboot as well, since both only ask for flat segments and leave the
 * selectors open (Xen docs/misc/pvh.pandoc, "VCPU initial state"; Multiboot 0.6.96, section 3.2).
 * PVH also wants a loaded task register with base 0 and limit 0x67, and VT-x refuses to enter a
 * guest without one, so every mode gets it.
 *
 * The segments are written twice: into kvm_sregs, which is what the processor starts with, and into
 * the GDT in memory, so that a guest that reloads a selector before it has a GDT of its own finds
 * the same thing. Both come from one struct kvm_segment, so they cannot disagree.
 *
 *      LAYOUT_BOOT_PAGETABLES:  PML4 | PDPT | PD 0 | PD 1 | PD 2 | PD 3
 *                               one entry, four, then 4 * 512 pages of 2 MiB
 */
#include "x86/entry.h"

#include <errno.h>
#include <string.h>

#include "x86/layout.h"

/* Intel SDM volume 3, sections 2.5 (control registers), 2.2.1 (EFER), 4.5 (4-level paging). */
#define CR0_PE     (1ull << 0)
#define CR0_ET     (1ull << 4)
#define CR0_PG     (1ull << 31)
#define CR4_PAE    (1ull << 5)
#define EFER_LME   (1ull << 8)
#define EFER_LMA   (1ull << 10)
#define PTE_P      (1ull << 0)
#define PTE_RW     (1ull << 1)
#define PTE_PS     (1ull << 7)
#define RFLAGS_ONE (1ull << 1) /* reads as one, always */

#define PAGE     4096u
#define PTES     512u
#define BIG_PAGE (2ull << 20)

/* Segment types: Intel SDM volume 3, sections 3.4.5.1 and 3.5. */
#define TYPE_LDT      2
#define TYPE_DATA     3  /* read, write, accessed */
#define TYPE_CODE     11 /* execute, read, accessed */
#define TYPE_TSS_BUSY 11

enum { GDT_CODE = 2, GDT_DATA = 3, GDT_TSS = 4, GDT_ENTRIES = 6 }; /* a long mode TSS takes two */

static struct kvm_segment flat_code(int is_long)
{
        return (struct kvm_segment){
                .selector = GDT_CODE * 8,
                .limit = 0xffffffff,
                .type = TYPE_CODE,
                .present = 1,
                .s = 1,
                .g = 1,
                .db = !is_long,
                .l = (uint8_t)is_long,
        };
}

static struct kvm_segment flat_data(void)
{
        return (struct kvm_segment){
                .selector = GDT_DATA * 8,
                .limit = 0xffffffff,
                .type = TYPE_DATA,
                .present = 1,
                .s = 1,
                .g = 1,
                .db = 1,
        };
}

static struct kvm_segment real_segment(uint16_t selector, uint8_t type)
{
        return (struct kvm_segment){
                .selector = selector,
                .base = (uint64_t)selector << 4,
                .limit = 0xffff,
                .type = type,
                .present = 1,
                .s = 1,
        };
}

static struct kvm_segment tss(uint16_t selector)
{
        return (struct kvm_segment){
                .selector = selector,
                .limit = 0x67,
                .type = TYPE_TSS_BUSY,
                .present = 1,
        };
}

static struct kvm_segment no_ldt(void)
{
        return (struct kvm_segment){
                .limit = 0xffff,
                .type = TYPE_LDT,
                .unusable = 1,
        };
}

/* A segment descriptor as the GDT holds it (Intel SDM volume 3, figure 3-8). */
static uint64_t descriptor(const struct kvm_segment *s)
{
        uint64_t limit = s->g ? s->limit >> 12 : s->limit;

        return (limit & 0xffff) | (s->base & 0xffffff) << 16 | (uint64_t)s->type << 40 |
               (uint64_t)s->s << 44 | (uint64_t)s->dpl << 45 | (uint64_t)s->present << 47 |
               (limit >> 16 & 0xf) << 48 | (uint64_t)s->avl << 52 | (uint64_t)s->l << 53 |
               (uint64_t)s->db << 54 | (uint64_t)s->g << 55 | (s->base >> 24 & 0xff) << 56;
}

static int write_gdt(const struct guest_mem *mem, const struct kvm_sregs *sregs)
{
        uint64_t gdt[GDT_ENTRIES] = {
                [GDT_CODE] = descriptor(&sregs->cs),
                [GDT_DATA] = descriptor(&sregs->ds),
                [GDT_TSS] = descriptor(&sregs->tr),
                [GDT_TSS + 1] = sregs->tr.base >> 32,
        };

        return guest_mem_write(mem, LAYOUT_BOOT_GDT, gdt, sizeof gdt);
}

static int write_table(const struct guest_mem *mem, unsigned number, const uint64_t table[PTES])
{
        return guest_mem_write(mem, LAYOUT_BOOT_PAGETABLES + (uint64_t)number * PAGE, table, PAGE);
}

/* The first 4 GiB, one to one. */
static int write_pagetables(const struct guest_mem *mem)
{
        uint64_t table[PTES] = {LAYOUT_BOOT_PAGETABLES + PAGE + (PTE_P | PTE_RW)};
        int ret;

        ret = write_table(mem, 0, table);
        for (unsigned i = 0; i < 4; i++)
                table[i] = LAYOUT_BOOT_PAGETABLES + (2ull + i) * PAGE + (PTE_P | PTE_RW);
        if (ret == 0)
                ret = write_table(mem, 1, table);
        for (unsigned i = 0; ret == 0 && i < 4; i++) {
                for (unsigned j = 0; j < PTES; j++)
                        table[j] = ((uint64_t)i * PTES + j) * BIG_PAGE + (PTE_P | PTE_RW | PTE_PS);
                ret = write_table(mem, 2 + i, table);
        }
        return ret;
}

static void set_segments(struct kvm_sregs *sregs, struct kvm_segment code, struct kvm_segment data,
                         struct kvm_segment task)
{
        sregs->cs = code;
        sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
        sregs->tr = task;
        sregs->ldt = no_ldt();
}

/* As after a reset, but CS:IP is the entry's, and caches are on. The IVT is at 0. */
static int setup_real(struct kvm_regs *regs, struct kvm_sregs *sregs)
{
        uint64_t rip = regs->rip;

        if (rip >= 1u << 20)
                return -EINVAL;
        set_segments(sregs, real_segment((uint16_t)(rip >> 4), TYPE_CODE),
                     real_segment(0, TYPE_DATA), tss(0));
        regs->rip = rip & 15;
        sregs->idt.limit = 0x3ff;
        return 0;
}

static int setup_flat(int is_long, const struct guest_mem *mem, struct kvm_sregs *sregs)
{
        int ret;

        set_segments(sregs, flat_code(is_long), flat_data(), tss(GDT_TSS * 8));
        sregs->gdt.base = LAYOUT_BOOT_GDT;
        sregs->gdt.limit = GDT_ENTRIES * 8 - 1;
        sregs->cr0 |= CR0_PE;
        ret = write_gdt(mem, sregs);
        if (ret < 0 || !is_long)
                return ret;
        sregs->cr0 |= CR0_PG;
        sregs->cr3 = LAYOUT_BOOT_PAGETABLES;
        sregs->cr4 = CR4_PAE;
        sregs->efer = EFER_LME | EFER_LMA;
        return write_pagetables(mem);
}

int x86_entry_setup(const struct x86_entry *entry, const struct guest_mem *mem,
                    struct kvm_regs *regs, struct kvm_sregs *sregs)
{
        *regs = (struct kvm_regs){
                .rip = entry->rip,
                .rsp = entry->rsp,
                .rax = entry->rax,
                .rbx = entry->rbx,
                .rsi = entry->rsi,
                .rflags = RFLAGS_ONE,
        };
        sregs->cr0 = CR0_ET;
        sregs->cr2 = sregs->cr3 = sregs->cr4 = sregs->cr8 = sregs->efer = 0;
        memset(&sregs->gdt, 0, sizeof sregs->gdt);
        memset(&sregs->idt, 0, sizeof sregs->idt);
        memset(sregs->interrupt_bitmap, 0, sizeof sregs->interrupt_bitmap);
        if (entry->mode == X86_REAL16)
                return setup_real(regs, sregs);
        return setup_flat(entry->mode == X86_LONG64, mem, sregs);
}
