/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers that the runtime's assembler and C files share. */
#ifndef RT_ASM_H
#define RT_ASM_H

/* Selectors, in the order of gdt[] in start.S; the TSS of CPU n is at SEL_TSS + 16 * n. */
#define SEL_CODE32 0x08
#define SEL_CODE64 0x10
#define SEL_DATA   0x18
#define SEL_UCODE  0x23
#define SEL_UDATA  0x2b
#define SEL_TSS    0x30

#define RT_MAX_CPUS   16
#define RT_STACK_SIZE 8192
#define RT_TRAMPOLINE 0x10000 /* page-aligned, below 1 MiB, used by nothing else */

/* Offsets in struct cpu, checked in trap.c. */
#define CPU_USER_RSP0 0
#define CPU_TSS       8
#define FRAME_RIP     136 /* in struct frame */

/* boot_magic: what a multiboot loader leaves in EAX, what start64 puts there; 0 means PVH. */
#define BOOT_MAGIC_MULTIBOOT 0x2badb002
#define BOOT_MAGIC_LINUX64   0x34364c58

/* Calls out of CPL 3: ud2 with the number in RAX, arguments in RDI and RSI. */
#define SYS_RETURN 1 /* the function given to run_user() returned RDI */
#define SYS_WRITE  2 /* RDI, RSI: bytes, count */
#define SYS_SLEEP  3 /* RDI: milliseconds */
#define SYS_EXIT   4 /* RDI: value for the debug-exit port */
#define SYS_OFF    5
#define SYS_GETC   6 /* a byte from the serial port, or -1 */
#define SYS_CALL   7 /* RDI(RSI) at CPL 0, with interrupts off */

#endif
