/* SPDX-License-Identifier: Apache-2.0 */
/*
 * void fpu_probe(struct user_state *in, struct user_state *out, int ring), for CPL 3: load all
 * registers from *in, ring the doorbell (or wait until fpu_go is set), store them all in *out. Only
 * RSP is the caller's (it is put into *in), and who waits needs RCX.
 */
#include "fpu.h"

#define DOORBELL_RING 0xd0000008

        .macro load_all
        pushq STATE_FLAGS(%rdi)
        popfq
        mov 0(%rdi), %rax
        mov 8(%rdi), %rcx
        mov 16(%rdi), %rdx
        mov 24(%rdi), %rbx
        mov %rsp, 32(%rdi)
        mov 40(%rdi), %rbp
        mov 48(%rdi), %rsi
        mov 64(%rdi), %r8
        mov 72(%rdi), %r9
        mov 80(%rdi), %r10
        mov 88(%rdi), %r11
        mov 96(%rdi), %r12
        mov 104(%rdi), %r13
        mov 112(%rdi), %r14
        mov 120(%rdi), %r15
        mov 56(%rdi), %rdi
        .endm

        .text
        .code64
        .globl fpu_probe
fpu_probe:
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        push %rsi
        fxrstor64 STATE_FX(%rdi)
        cmpq $0, STATE_AVX(%rdi)
        je 1f
        .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        vinsertf128 $1, STATE_YMMH + 16 * \n(%rdi), %ymm\n, %ymm\n
        .endr
1:      test %edx, %edx
        jz wait

        load_all
        movabs %eax, DOORBELL_RING
        jmp collect

wait:   load_all
2:      pause
        mov fpu_go(%rip), %ecx
        jrcxz 2b

collect: /* leaves everything in the order of struct user_state on the stack */
        pushfq
        push %r15
        push %r14
        push %r13
        push %r12
        push %r11
        push %r10
        push %r9
        push %r8
        push %rdi
        push %rsi
        push %rbp
        push %rsp
        push %rbx
        push %rdx
        push %rcx
        push %rax
        cld
        addq $12 * 8, 32(%rsp) /* pushed before RSP was */
        mov 17 * 8(%rsp), %rdi
        mov %rsp, %rsi
        mov $17, %ecx
        rep movsq
        mov 17 * 8(%rsp), %rdi
        fxsave64 STATE_FX(%rdi)
        cmpq $0, STATE_AVX(%rdi)
        je 3f
        .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        vextractf128 $1, %ymm\n, STATE_YMMH + 16 * \n(%rdi)
        .endr
        vzeroupper
3:      add $18 * 8, %rsp
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        ret

        .section .note.GNU-stack, "", @progbits
