/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flat binary in 32-bit protected mode, paging off: prints "flat32: ok" and ends by the debug-exit
 * port with 0x20. Runs where it is loaded, which it learns from a call on a stack at 0x7000.
 */
        .code32
        cli
        mov $0x7000, %esp
        call 1f
1:      pop %esi
        add $text - 1b, %esi
        mov $text_end - text, %ecx
next:   mov $0x3fd, %edx
wait:   in %dx, %al
        test $0x20, %al
        jz wait
        mov $0x3f8, %edx
        mov (%esi), %al
        out %al, %dx
        inc %esi
        loop next
        mov $0x20, %al
        out %al, $0xf4
1:      hlt
        jmp 1b
text:   .ascii "flat32: ok\n"
text_end:
