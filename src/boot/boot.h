/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot protocols: recognise an image, check every number in it, put it into guest memory and say
 * how it wants to be entered. Nothing is believed of a file: offsets and sizes are checked against
 * the file and against RAM before anything is copied, and files are read once.
 *
 *      boot_load() -> bzimage.c | elf.c (PVH, 64-bit) | multiboot.c | flat.c -> struct x86_entry
 */
#ifndef RAMET_BOOT_BOOT_H
#define RAMET_BOOT_BOOT_H

#include "base/err.h"
#include "mem/guest_mem.h"
#include "x86/entry.h"

struct boot_source {
        int kernel_fd;              /* borrowed; need not be seekable to anywhere special */
        const char *kernel_name;    /* as the user gave it: for messages and multiboot's argv[0] */
        int initramfs_fd;           /* borrowed, or -1 */
        const char *initramfs_name; /* NULL when there is none */
        const char *cmdline;        /* never NULL */
        unsigned tsc_khz;           /* of the guest's TSC, 0: not known; see boot_put_cmdline() */
        int flat;                   /* a flat binary: loaded and entered at flat_address */
        uint64_t flat_address;      /* guest-physical */
        unsigned flat_bits;         /* 16, 32 or 64: the processor mode it is entered in */
};

/* Load everything and fill @entry. Guest memory is untouched or partly written on failure, and the
 * VM is then not to be started. 0, or -EINVAL (err says which file, what is wrong, what was
 * expected), or another -errno from reading. */
int boot_load(const struct boot_source *src, const struct guest_mem *mem, struct x86_entry *entry,
              struct err *err);

/* --- for the files of this directory --- */

#define BOOT_E820_MAX      8
#define BOOT_E820_RAM      1u
#define BOOT_E820_RESERVED 2u

struct boot_e820 {
        uint64_t addr;
        uint64_t size;
        uint32_t type;
};

/* The memory map that every protocol hands to its guest (see layout.h). Returns the entry count. */
unsigned boot_e820_map(const struct guest_mem *mem, struct boot_e820 map[BOOT_E820_MAX]);

#endif
