/* SPDX-License-Identifier: Apache-2.0 */
/* Multiboot v1 header (specification 0.6.96, 3.1): modules page-aligned, memory information. */
#define FLAGS 3

        .section .head, "a"
        .balign 4
        .long 0x1badb002
        .long FLAGS
        .long -(0x1badb002 + FLAGS)

        .section .note.GNU-stack, "", @progbits
