/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which bytes of memory does an instruction write, and read? Nothing is executed or emulated: the
 * answer is a few ranges of linear addresses that contain every byte the instruction may write,
 * and often more. A pure function of registers and instruction bytes; any thread.
 */
#ifndef RAMET_X86_DECODE_H
#define RAMET_X86_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define X86_INSN_BYTES 15
#define X86_RANGES_MAX 16

/* Of a repeated string instruction, what is reported of each operand at most: the next element, and
 * as many of those after it as are in this many bytes. */
#define X86_REP_BYTES 32768u

/* Numbers of registers, as instructions encode them. */
enum { X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI, X86_R8 };
enum { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS };

/* The state of the processor before the instruction. */
struct x86_state {
        uint8_t bits;       /* 16, 32 or 64: what EFER.LMA, CS.L and CS.D say */
        uint8_t stack_bits; /* 64 in 64-bit mode, else 32 or 16: what SS.B says */
        uint8_t cpl;        /* 0 to 3 */
        bool real_mode;     /* CR0.PE is clear */
        bool long_mode;     /* EFER.LMA is set, compatibility mode included */
        bool shadow_stack;  /* CR4.CET is set: calls may write to a stack that is not known here */
        uint64_t gpr[16];   /* by number */
        uint64_t rip, rflags;          /* rip: of the instruction, relative to CS */
        uint64_t base[6];              /* of segments, by number */
        uint64_t gdt, ldt;             /* linear addresses of the descriptor tables, */
        uint32_t gdt_bytes, ldt_bytes; /* and their sizes (limit + 1) */
        size_t xsave_bytes; /* of an XSAVE area with all that the guest may enable; 0: not known */
};

struct x86_range {
        uint64_t linear; /* below 4 GiB when bits is not 64 */
        uint64_t bytes; /* 1 or more; linear + bytes is at most 4 GiB, or 2^64 (which reads as 0) */
        bool write;     /* else it is only read */
};

struct x86_ranges {
        unsigned n;
        struct x86_range range[X86_RANGES_MAX];
        uint8_t insn_bytes; /* the length of the instruction */
};

/* Find what the instruction in @bytes (@n of them; at most 15 are looked at) does to memory in
 * @state. Faults are not foreseen: limits, alignment and privileges are not checked.
 *
 * Written ranges are complete: every byte that the instruction can write to memory, the accessed
 * and busy bits of segment descriptors included, lies in one, if masks, comparisons and faults
 * allow everything. Read ranges are a help, not a promise: the operands of gathers and what
 * segment loads read of descriptors are missing.
 *
 * 0, or with nothing in @out:
 *      -ENODATA  @bytes end before the instruction does
 *      -EILSEQ   not an instruction, or one that Zydis does not know
 *      -ENOTSUP  it writes memory at an address that @state does not tell (scatter, AMX tile
 * stores, interrupts and gates, task switches, VMX and SVM, SGX, shadow stacks, ...) */
int x86_decode(const struct x86_state *state, const uint8_t *bytes, size_t n,
               struct x86_ranges *out);

#endif
