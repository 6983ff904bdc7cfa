/* SPDX-License-Identifier: Apache-2.0 */
/* Puts the demo guest into the ramet executable; DEMO_GUEST is its path in the build directory. */
        .section .rodata
        .balign 16
        .globl ramet_demo_guest, ramet_demo_guest_end
        .type ramet_demo_guest, @object
        .size ramet_demo_guest, ramet_demo_guest_end - ramet_demo_guest
ramet_demo_guest:
        .incbin DEMO_GUEST
ramet_demo_guest_end:
        .byte 0

        .section .note.GNU-stack, "", @progbits
