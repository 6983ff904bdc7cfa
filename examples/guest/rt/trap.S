/* SPDX-License-Identifier: Apache-2.0 */
/* Exception and interrupt stubs, and the way into CPL 3 and back. */
#include "rt/asm.h"

        .text
        .code64

/* One stub for each vector 0..63; 8 10-14 17 21 29 30 bring an error code (SDM vol. 3, 6.15). */
        .set vec, 0
        .rept 64
        .balign 16
        .if vec == 0
        .globl trap_stubs
trap_stubs:
        .endif
        .if !(vec == 8 || (vec >= 10 && vec <= 14) || vec == 17 || vec == 21 || vec == 29 || vec == 30)
        pushq $0
        .endif
        pushq $vec
        jmp trap_common
        .set vec, vec + 1
        .endr

trap_common:
        cld
        push %rax
        push %rcx
        push %rdx
        push %rbx
        push %rbp
        push %rsi
        push %rdi
        push %r8
        push %r9
        push %r10
        push %r11
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsp, %rdi
        pushq FRAME_RIP(%rdi) /* a frame: a backtrace goes on in what was interrupted */
        push %rbp
        mov %rsp, %rbp
        call trap_handle
        add $16, %rsp
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %r11
        pop %r10
        pop %r9
        pop %r8
        pop %rdi
        pop %rsi
        pop %rbp
        pop %rbx
        pop %rdx
        pop %rcx
        pop %rax
        add $16, %rsp
        iretq

/*
 * uint64_t user_enter(fn, arg, stack_top): call fn(arg) in CPL 3. The processor's stack below here
 * serves the traps taken meanwhile; user_leave() comes back with what fn returned.
 */
        .globl user_enter
user_enter:
        push %rbp
        push %rbx
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsp, %rcx
        and $-RT_STACK_SIZE, %rcx
        mov %rsp, CPU_USER_RSP0(%rcx)
        mov %rsp, CPU_TSS + 4(%rcx)
        movq $user_return, -8(%rdx)
        sub $8, %rdx
        pushq $SEL_UDATA
        push %rdx
        pushq $0x202
        pushq $SEL_UCODE
        push %rdi
        mov %rsi, %rdi
        xor %ebp, %ebp
        iretq

user_return: /* in CPL 3 */
        mov %rax, %rdi
        mov $SYS_RETURN, %eax
        ud2

/* void user_leave(rsp0, value): what user_enter() pushed is at rsp0. */
        .globl user_leave
user_leave:
        mov %rdi, %rsp
        mov %rsi, %rax
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbx
        pop %rbp
        ret

/* The C compiler may call these by itself. */
        .globl memcpy, memset
memcpy:
        mov %rdi, %rax
        mov %rdx, %rcx
        rep movsb
        ret
memset:
        mov %rdi, %r8
        mov %esi, %eax
        mov %rdx, %rcx
        rep stosb
        mov %r8, %rax
        ret

        .section .note.GNU-stack, "", @progbits
