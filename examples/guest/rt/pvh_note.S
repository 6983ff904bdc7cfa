/* SPDX-License-Identifier: Apache-2.0 */
/* The ELF note that makes a guest bootable by PVH: Xen's public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY. */
        .section .note.Xen, "a", @note
        .balign 4
        .long 2f - 1f
        .long 4f - 3f
        .long 18
1:      .asciz "Xen"
2:      .balign 4
3:      .long start_pvh
4:
        .section .note.GNU-stack, "", @progbits
