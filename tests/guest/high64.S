/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flat binary in 64-bit mode, for a machine with 5 GiB: writes to the first and the last word of
 * the RAM above 4 GiB, rings the doorbell, finds both as they were, writes its own number there, and
 * finds that. Prints "high64: ok" and ends by the debug-exit port with its number, or "high64: bad"
 * and 0x7f. Uses no stack.
 *
 * The tables that it was entered with map the first 4 GiB; it adds 2 GiB with pages of 2 MiB.
 */
#define PDPT   0xa000                   /* the second of LAYOUT_BOOT_PAGETABLES */
#define TABLES 0x30000                  /* two page directories, in RAM that nobody uses */
#define FIRST  0x100000000              /* 3 GiB of RAM end below 4 GiB, */
#define LAST   (0x180000000 - 8)        /* 2 GiB lie above */
#define RING   0xf08                    /* the doorbell's */
#define RESULT 0xf0c
#define VALUE  0x5aa5c33c96690ff0

        .code64
        cli
        movl $TABLES, %edi              /* 2 x 512 entries: present, writable, large */
        movabs $FIRST + 0x83, %rax
        movl $1024, %ecx
1:      mov %rax, (%rdi)
        add $0x200000, %rax
        add $8, %rdi
        loop 1b
        movl $PDPT + 4 * 8, %edi
        movq $TABLES + 3, (%rdi)
        movq $TABLES + 0x1000 + 3, 8(%rdi)
        mov %cr3, %rax
        mov %rax, %cr3

        movabs $FIRST, %r8
        movabs $LAST, %r9
        movabs $VALUE, %r10
        mov %r10, (%r8)
        not %r10
        mov %r10, (%r9)

        mov $RING, %edx
        mov $1, %eax
        out %eax, %dx
        mov $RESULT, %edx
        in %dx, %eax
        mov %eax, %ebx                  /* this machine's number */

        movabs $VALUE, %r10
        cmp %r10, (%r8)
        jne bad
        not %r10
        cmp %r10, (%r9)
        jne bad
        mov %rbx, (%r8)
        mov %rbx, (%r9)
        cmp %rbx, (%r8)
        jne bad
        cmp %rbx, (%r9)
        jne bad
        lea good_text(%rip), %rsi
        mov $bad_text - good_text, %ecx
        jmp 2f
bad:    mov $0x7f, %ebx
        lea bad_text(%rip), %rsi
        mov $text_end - bad_text, %ecx
2:      mov $0x3fd, %edx
3:      in %dx, %al
        test $0x20, %al
        jz 3b
        mov $0x3f8, %edx
        mov (%rsi), %al
        out %al, %dx
        inc %rsi
        loop 2b
        mov %ebx, %eax
        out %al, $0xf4
4:      hlt
        jmp 4b
good_text:
        .ascii "high64: ok\n"
bad_text:
        .ascii "high64: bad\n"
text_end:
