/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instructions of the guest "conform", one a function: void op_<name>(uint8_t *at, const
 * uint8_t *src), where RDI is the lowest byte that is written and RSI what to write. Those that
 * push run on the stack in question for that one instruction.
 */
#include "rt/asm.h"
#include "conform.h"

        .text
        .code64

        .macro OP name
        .balign 16
        .globl op_\name
op_\name:
        .endm

/* --- plain stores --- */

OP mov8
        mov (%rsi), %al
        mov %al, (%rdi)
        ret
OP mov16
        mov (%rsi), %ax
        mov %ax, (%rdi)
        ret
OP mov32
        mov (%rsi), %eax
        mov %eax, (%rdi)
        ret
OP mov64
        mov (%rsi), %rax
        mov %rax, (%rdi)
        ret
OP mov_imm
        movl $0x5a6b7c8d, (%rdi)
        ret
OP mov_seg
        mov %ds, (%rdi)
        ret
OP movbe
        mov (%rsi), %rax
        movbe %rax, (%rdi)
        ret
OP movnti
        mov (%rsi), %rax
        movnti %rax, (%rdi)
        sfence
        ret
OP movdiri
        mov (%rsi), %rax
        movdiri %rax, (%rdi)
        sfence
        ret
OP movdir64b
        movdir64b (%rsi), %rdi
        sfence
        ret
OP setc
        stc
        setc (%rdi)
        ret
OP pop_mem
        pushq (%rsi)
        popq (%rdi)
        ret

/* --- read, change, write --- */

OP add
        mov (%rsi), %rax
        add %rax, (%rdi)
        ret
OP not
        notq (%rdi)
        ret
OP bts /* bit 67 of the bits that begin 8 bytes lower is bit 3 of the byte at RDI */
        mov $67, %eax
        bts %rax, -8(%rdi)
        ret
OP shld
        mov (%rsi), %rax
        shld $12, %rax, (%rdi)
        ret
OP xchg
        mov (%rsi), %rax
        xchg %rax, (%rdi)
        ret
OP lock_inc
        lock incq (%rdi)
        ret
OP lock_add
        mov (%rsi), %rax
        lock add %rax, (%rdi)
        ret
OP lock_or8
        lock orb $0xff, (%rdi)
        ret
OP lock_xadd
        mov (%rsi), %rax
        lock xadd %rax, (%rdi)
        ret
OP lock_bts
        lock btsq $3, (%rdi)
        ret
OP lock_cmpxchg
        mov (%rdi), %rax
        mov (%rsi), %rcx
        lock cmpxchg %rcx, (%rdi)
        ret
OP lock_cmpxchg_fails /* memory gets back what it had */
        mov (%rdi), %rax
        not %rax
        mov (%rsi), %rcx
        lock cmpxchg %rcx, (%rdi)
        ret
OP cmpxchg8b
        mov %rbx, %r8
        mov (%rdi), %eax
        mov 4(%rdi), %edx
        mov (%rsi), %ebx
        mov 4(%rsi), %ecx
        lock cmpxchg8b (%rdi)
        mov %r8, %rbx
        ret
OP cmpxchg16b
        mov %rbx, %r8
        mov (%rdi), %rax
        mov 8(%rdi), %rdx
        mov (%rsi), %rbx
        mov 8(%rsi), %rcx
        lock cmpxchg16b (%rdi)
        mov %r8, %rbx
        ret

/* --- strings --- */

OP movsb
        movsb
        ret
OP rep_movsb
        mov $REP_BYTES, %ecx
        rep movsb
        ret
OP rep_movsq
        mov $REP_BYTES / 8, %ecx
        rep movsq
        ret
OP rep_stosb
        mov (%rsi), %al
        mov $REP_BYTES, %ecx
        rep stosb
        ret
OP rep_stosq
        mov (%rsi), %rax
        mov $REP_BYTES / 8, %ecx
        rep stosq
        ret
OP rep_movsb_back
        add $REP_BYTES - 1, %rsi
        add $REP_BYTES - 1, %rdi
        mov $REP_BYTES, %ecx
        std
        rep movsb
        cld
        ret
OP rep_movsq_back
        add $REP_BYTES - 8, %rsi
        add $REP_BYTES - 8, %rdi
        mov $REP_BYTES / 8, %ecx
        std
        rep movsq
        cld
        ret
OP rep_stosb_back
        mov (%rsi), %al
        add $REP_BYTES - 1, %rdi
        mov $REP_BYTES, %ecx
        std
        rep stosb
        cld
        ret
OP rep_stosq_back
        mov (%rsi), %rax
        add $REP_BYTES - 8, %rdi
        mov $REP_BYTES / 8, %ecx
        std
        rep stosq
        cld
        ret
OP rep_movsb_overlap /* from a little higher in the same pages */
        lea OVERLAP(%rdi), %rsi
        mov $REP_BYTES, %ecx
        rep movsb
        ret
OP rep_movsq_overlap
        lea OVERLAP(%rdi), %rsi
        mov $REP_BYTES / 8, %ecx
        rep movsq
        ret
OP rep_movsb_overlap_back /* from a little lower */
        lea REP_BYTES - 1 - OVERLAP(%rdi), %rsi
        add $REP_BYTES - 1, %rdi
        mov $REP_BYTES, %ecx
        std
        rep movsb
        cld
        ret

/* --- stack --- */

OP push
        mov (%rsi), %rax
        mov %rsp, %rcx
        lea 8(%rdi), %rsp
        push %rax
        mov %rcx, %rsp
        ret
OP push_mem
        mov %rsp, %rcx
        lea 8(%rdi), %rsp
        pushq (%rsi)
        mov %rcx, %rsp
        ret
OP pushf
        mov %rsp, %rcx
        lea 8(%rdi), %rsp
        xor %eax, %eax
        pushfq
        mov %rcx, %rsp
        ret
OP call
        mov %rsp, %rcx
        lea 8(%rdi), %rsp
        call 1f
        .globl op_call_return
op_call_return:
1:      mov %rcx, %rsp
        ret
OP enter
        mov %rsp, %rcx
        mov %rbp, %r8
        mov (%rsi), %rbp
        lea 8(%rdi), %rsp
        enter $ENTER_BYTES, $0
        mov %r8, %rbp
        mov %rcx, %rsp
        ret
OP enter_nested
        mov %rsp, %rcx
        mov %rbp, %r8
        mov (%rsi), %rbp
        lea 16(%rdi), %rsp
        enter $ENTER_BYTES, $1
        mov %r8, %rbp
        mov %rcx, %rsp
        ret

/* --- x87, SSE --- */

OP fistp
        fninit
        fildll (%rsi)
        fistpll (%rdi)
        ret
OP fstpt
        fninit
        fildll (%rsi)
        fstpt (%rdi)
        ret
OP fnstcw
        fninit
        fnstcw (%rdi)
        ret
OP fnstenv
        fninit
        fnstenv (%rdi)
        fninit
        ret
OP stmxcsr
        stmxcsr (%rdi)
        ret
OP movq_xmm
        movq (%rsi), %xmm0
        movq %xmm0, (%rdi)
        ret
OP movups
        movups (%rsi), %xmm0
        movups %xmm0, (%rdi)
        ret
OP movaps
        movups (%rsi), %xmm0
        movaps %xmm0, (%rdi)
        ret
OP movntdq
        movups (%rsi), %xmm0
        movntdq %xmm0, (%rdi)
        sfence
        ret
OP maskmovdqu
        movups (%rsi), %xmm0
        movups SRC_MASK(%rsi), %xmm1
        maskmovdqu %xmm1, %xmm0
        sfence
        ret

/* --- AVX, AVX-512 --- */

OP vmovups_ymm
        vmovups (%rsi), %ymm0
        vmovups %ymm0, (%rdi)
        vzeroupper
        ret
OP vmovntdq_ymm
        vmovups (%rsi), %ymm0
        vmovntdq %ymm0, (%rdi)
        sfence
        vzeroupper
        ret
OP vmaskmovps
        vmovups (%rsi), %ymm0
        vmovups SRC_MASK(%rsi), %ymm1
        vmaskmovps %ymm0, %ymm1, (%rdi)
        vzeroupper
        ret
OP vmovups_zmm
        vmovups (%rsi), %zmm0
        vmovups %zmm0, (%rdi)
        vzeroupper
        ret
OP vmovntdq_zmm
        vmovups (%rsi), %zmm0
        vmovntdq %zmm0, (%rdi)
        sfence
        vzeroupper
        ret
OP vmovdqu8_masked
        movabs $BYTE_LANES, %rax
        kmovq %rax, %k1
        vmovups (%rsi), %zmm0
        vmovdqu8 %zmm0, (%rdi){%k1}
        vzeroupper
        ret
OP vpscatterdd
        mov $SCATTER_LANES, %eax
        kmovw %eax, %k1
        vmovups (%rsi), %zmm0
        vmovups SRC_INDEX(%rsi), %zmm1
        vpscatterdd %zmm0, (%rdi,%zmm1,4){%k1}
        vzeroupper
        ret

/* --- whole register files; nothing is in its initial state, which some would leave out --- */

OP fxsave
        fninit
        fld1
        movups (%rsi), %xmm0
        fxsave64 (%rdi)
        fninit
        ret

        .macro SAVE insn
        fninit
        fld1
        vmovups (%rsi), %ymm0
        mov $7, %eax
        xor %edx, %edx
        \insn (%rdi)
        fninit
        vzeroupper
        ret
        .endm

OP xsave
        SAVE xsave64
OP xsaveopt
        SAVE xsaveopt64
OP xsavec
        SAVE xsavec64

OP sgdt
        sgdt (%rdi)
        ret

/* --- exceptions: see conform_tables.c --- */

        .globl exc_user, exc_kernel, exc_insn_user, exc_insn_kernel, exc_stub, exc_stub_gp, wrmsr_safe

        .macro PREPARE_DIVISION
        xor %edx, %edx
        xor %ecx, %ecx
        pushfq
        popq exc_flags(%rip)
        mov $1, %eax
        .endm

exc_user: /* onto TSS.rsp0 */
        PREPARE_DIVISION
        mov %rsp, exc_rsp(%rip)
exc_insn_user:
        div %ecx
        ret

exc_kernel: /* onto the stack that it runs on, which ends at RDI */
        PREPARE_DIVISION
        mov %rsp, %r8
        mov %rdi, exc_rsp(%rip)
        mov %rdi, %rsp
exc_insn_kernel:
        div %ecx
        mov %r8, %rsp
        ret

/* #DE: put TSS.rsp0 back, then divide by 1. The frame is only read. */
exc_stub:
        mov exc_restore(%rip), %rax
        mov exc_restore_value(%rip), %rcx
        mov %rcx, (%rax)
        mov $1, %eax
        mov $1, %ecx
        iretq

/* int wrmsr_safe(uint32_t msr, uint64_t value): 0, or 1 when there is no such MSR. */
wrmsr_safe:
        mov %edi, %ecx
        mov %esi, %eax
        mov %rsi, %rdx
        shr $32, %rdx
        movq $1f, gp_fixup(%rip)
        wrmsr
        xor %eax, %eax
        jmp 2f
1:      mov $1, %eax
2:      movq $0, gp_fixup(%rip)
        ret

exc_stub_gp:
        cmpq $0, gp_fixup(%rip)
        je 1f
        push %rax
        mov gp_fixup(%rip), %rax
        mov %rax, 16(%rsp)
        pop %rax
        add $8, %rsp
        iretq
1:      jmp *exc_old_gp(%rip)

        .data
        .balign 8
        .globl exc_rsp, exc_flags, exc_restore, exc_restore_value, exc_old_gp
exc_rsp:
        .quad 0
exc_flags:
        .quad 0
exc_restore:
        .quad 0
exc_restore_value:
        .quad 0
exc_old_gp:
        .quad 0
gp_fixup:
        .quad 0

        .section .note.GNU-stack, "", @progbits
