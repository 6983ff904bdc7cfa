/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flat binary in 64-bit mode: prints "flat64: ok" and ends by the debug-exit port with 0x40. Runs
 * where it is loaded; uses no stack.
 */
        .code64
        cli
        lea text(%rip), %rsi
        mov $text_end - text, %ecx
next:   mov $0x3fd, %edx
wait:   in %dx, %al
        test $0x20, %al
        jz wait
        mov $0x3f8, %edx
        mov (%rsi), %al
        out %al, %dx
        inc %rsi
        loop next
        mov $0x40, %al
        out %al, $0xf4
1:      hlt
        jmp 1b
text:   .ascii "flat64: ok\n"
text_end:
