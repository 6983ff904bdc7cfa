/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry points. All ways in end at long_mode with flat 64-bit segments and the page tables below:
 *
 *      start_pvh   PVH: 32-bit, flat, paging off, EBX = start info, EAX = anything
 *      start32     multiboot: the same, EAX = magic
 *      start64     Linux 64-bit protocol: RSI = boot_params
 *      ap_start    real mode after SIPI, copied to RT_TRAMPOLINE
 *
 * The first 4 GiB are mapped one to one with 2 MiB pages that CPL 3 may use; the tables are made by
 * the assembler, because code at CPL 0 may be slow (some hosts emulate it). The last GiB, with the
 * doorbell and the APICs, is uncached.
 *
 * boot_rsp and boot_entry say where the processor that comes through here goes on: the first one to
 * rt_main; for each further one smp_run() sets them anew.
 */
#include "rt/asm.h"

#define CR0_BITS 0x80010033 /* PG WP NE ET MP PE */
#define CR4_BITS 0x00000620 /* OSXMMEXCPT OSFXSR PAE */

        .section .text.start, "ax"
        .code32
        .globl start_pvh, start32
start_pvh:
        xor %eax, %eax
start32:
        cli
        cld
        mov %eax, boot_magic
        mov %ebx, boot_info
        lgdt gdt_ptr
        ljmp $SEL_CODE32, $protected

        .globl protected
protected:
        mov $SEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $CR4_BITS, %eax
        mov %eax, %cr4
        mov $pml4, %eax
        mov %eax, %cr3
        mov $0xc0000080, %ecx /* EFER: LME */
        xor %edx, %edx
        mov $0x100, %eax
        wrmsr
        mov $CR0_BITS, %eax
        mov %eax, %cr0
        ljmp $SEL_CODE64, $long_mode

        .code64
        .globl start64
start64:
        cli
        cld
        movl $BOOT_MAGIC_LINUX64, boot_magic(%rip)
        mov %rsi, boot_info(%rip)
        lgdt gdt_ptr(%rip)
        mov $CR4_BITS, %eax
        mov %rax, %cr4
        mov $pml4, %eax
        mov %rax, %cr3
        mov $CR0_BITS, %eax
        mov %rax, %cr0
        mov boot_rsp(%rip), %rsp
        pushq $SEL_CODE64
        pushq $long_mode
        lretq

long_mode:
        mov $SEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        xor %eax, %eax
        mov %eax, %fs
        mov %eax, %gs
        mov boot_rsp(%rip), %rsp
        xor %ebp, %ebp
        call *boot_entry(%rip)
1:      cli
        hlt
        jmp 1b

        .section .rodata
        .globl ap_start, ap_end
        .code16
ap_start:
        cli
        mov %cs, %ax
        mov %ax, %ds
        lgdtl ap_gdt_ptr - ap_start
        mov $0x11, %eax
        mov %eax, %cr0
        ljmpl $SEL_CODE32, $protected
ap_gdt_ptr:
        .word gdt_end - gdt - 1
        .long gdt
ap_end:

        .data
        .balign 8
        .globl boot_magic, boot_info, boot_rsp, boot_entry, gdt
boot_info:
        .quad 0
boot_rsp:
        .quad cpu_stacks + RT_STACK_SIZE
boot_entry:
        .quad rt_main
boot_magic:
        .long 0
        .balign 8
gdt:
        .quad 0
        .quad 0x00cf9a000000ffff /* SEL_CODE32 */
        .quad 0x00af9a000000ffff /* SEL_CODE64 */
        .quad 0x00cf92000000ffff /* SEL_DATA */
        .quad 0x00affa000000ffff /* SEL_UCODE */
        .quad 0x00cff2000000ffff /* SEL_UDATA */
        .fill 2 * RT_MAX_CPUS, 8, 0
gdt_end:
        .word 0, 0, 0
gdt_ptr:
        .word gdt_end - gdt - 1
        .quad gdt

        .balign 4096
pml4:
        .quad pdpt + 7 /* present, writable, user */
        .fill 511, 8, 0
pdpt:
        .quad pd + 7, pd + 0x1007, pd + 0x2007, pd + 0x3007
        .fill 508, 8, 0
pd:
        .set gpa, 0
        .rept 1536
        .quad gpa + 0x87 /* and: 2 MiB */
        .set gpa, gpa + 0x200000
        .endr
        .rept 512
        .quad gpa + 0x9f /* and: uncached */
        .set gpa, gpa + 0x200000
        .endr

        .section .note.GNU-stack, "", @progbits
