/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flat binary in real mode: prints "flat16: ok" and ends by the debug-exit port with 0x10. Loaded
 * anywhere below 1 MiB on 16 bytes; uses no stack, and no segment but CS.
 */
        .code16
start:
        cli
        xor %si, %si
next:   mov $0x3fd, %dx
wait:   in %dx, %al
        test $0x20, %al
        jz wait
        mov $0x3f8, %dx
        mov %cs:text - start(%si), %al
        out %al, %dx
        inc %si
        cmp $text_end - text, %si
        jne next
        mov $0x10, %al
        out %al, $0xf4
1:      hlt
        jmp 1b
text:   .ascii "flat16: ok\n"
text_end:
