/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bzImage around a guest: boot sector with setup header and one setup sector, then the kernel with
 * its 64-bit entry 0x200 bytes in. It needs a loader of the 64-bit protocol and has no real-mode
 * code. Offsets: Linux Documentation/arch/x86/boot.rst.
 */
        .section .setup, "a"
setup:
        .org 0x1f1
        .byte 1                                 /* setup_sects */
        .word 0                                 /* root_flags */
        .long image_paragraphs                  /* syssize */
        .word 0                                 /* ram_size */
        .word 0xffff                            /* vid_mode */
        .word 0                                 /* root_dev */
        .word 0xaa55                            /* boot_flag */
        .byte 0xeb, header_end - 1f             /* jump */
1:      .ascii "HdrS"
        .word 0x020f                            /* version */
        .long 0                                 /* realmode_swtch */
        .word 0                                 /* start_sys_seg */
        .word 0                                 /* kernel_version */
        .byte 0                                 /* type_of_loader */
        .byte 1                                 /* loadflags: LOADED_HIGH */
        .word 0                                 /* setup_move_size */
        .long 0x100000                          /* code32_start */
        .long 0                                 /* ramdisk_image */
        .long 0                                 /* ramdisk_size */
        .long 0                                 /* bootsect_kludge */
        .word 0                                 /* heap_end_ptr */
        .byte 0, 0                              /* ext_loader_ver, ext_loader_type */
        .long 0                                 /* cmd_line_ptr */
        .long 0x7fffffff                        /* initrd_addr_max */
        .long 0x200000                          /* kernel_alignment */
        .byte 0                                 /* relocatable_kernel: no */
        .byte 21                                /* min_alignment */
        .word 1                                 /* xloadflags: XLF_KERNEL_64 */
        .long 2047                              /* cmdline_size */
        .long 0                                 /* hardware_subarch */
        .quad 0                                 /* hardware_subarch_data */
        .long 0                                 /* payload_offset */
        .long 0                                 /* payload_length */
        .quad 0                                 /* setup_data */
        .quad 0x100000                          /* pref_address */
        .long bss_end - 0x100000                /* init_size */
        .long 0                                 /* handover_offset */
        .long 0                                 /* kernel_info_offset */
header_end:
        .org 0x400

        .section .head, "ax"
        .code32
        cli /* 32-bit entry: not supported */
        hlt
        .org 0x200
        .code64
        cld
        mov $image_end, %edi /* nobody promises that what follows the image is zero */
        mov $bss_end, %ecx
        sub %edi, %ecx
        shr $3, %ecx
        xor %eax, %eax
        rep stosq
        jmp start64

        .section .note.GNU-stack, "", @progbits
