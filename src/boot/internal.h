/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the boot protocols share: the files, and the plan of who lies where in guest memory.
 *
 * Order, the same in every protocol:
 *
 *      parse       the image, from copies: file bytes are read once, then checked, then used
 *      claim       every range that will be written, each before its first byte is; a claim that
 *                  is not RAM or clashes with an earlier one refuses the image
 *      put         bytes into guest memory
 */
#ifndef RAMET_BOOT_INTERNAL_H
#define RAMET_BOOT_INTERNAL_H

#include <stdbool.h>

#include "boot/boot.h"

/* Multiboot headers stand in these first bytes (Multiboot 0.6.96, section 3.1). */
#define BOOT_HEAD_BYTES 8192u

#define BOOT_PAGE 4096u

/* --- file.c: an input file, looked at once --- */

struct boot_file {
        int fd;
        const char *name;
        uint64_t size; /* when it was opened; reading past the end of a file that shrank fails */
};

/* 0, -EINVAL for what is not a regular file with something in it, or another -errno. */
int boot_file_init(struct boot_file *file, int fd, const char *name, struct err *err);

/* Copy @len bytes from @offset. 0, or -errno with err set: all or nothing. */
int boot_file_read(const struct boot_file *file, uint64_t offset, void *buf, size_t len,
                   struct err *err);

/* True when [offset, offset + len) lies in the file; nothing wraps. */
int boot_file_has(const struct boot_file *file, uint64_t offset, uint64_t len);

struct boot_size_text {
        char text[24];
};

/* "128 MiB", "1.5 GiB", "37 bytes" */
struct boot_size_text boot_size(uint64_t bytes);

/* --- plan.c: who lies where --- */

#define BOOT_RANGES 96u

struct boot_range {
        uint64_t start;
        uint64_t end; /* one past the last byte */
        char what[40];
};

/* One boot_load(). Lives on its stack. */
struct boot_job {
        const struct boot_source *src;
        const struct guest_mem *mem;
        struct err *err;

        struct boot_file kernel;
        struct boot_file initramfs; /* size 0: there is none */
        uint8_t head[BOOT_HEAD_BYTES];
        size_t head_len; /* bytes of the kernel file that are in head */

        bool linux_kernel; /* it is Linux: a bzImage, or an ELF with Linux's own notes */

        struct boot_range taken[BOOT_RANGES];
        unsigned ntaken;
};

/* Claim [gpa, gpa + len) for what the format says ("segment 3"): it must be RAM that the guest's
 * memory map calls RAM, and nobody else's. len 0 claims nothing. 0 or -EINVAL with err set. */
int boot_claim(struct boot_job *job, uint64_t gpa, uint64_t len, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));

/* Claim what the entry into @mode and the protocol's tables need (layout.h, LAYOUT_BOOT_*). */
int boot_claim_tables(struct boot_job *job, enum x86_mode mode);

/* Put bytes, zeroes or a piece of the kernel into what was claimed before. 0 or -errno. */
int boot_put(struct boot_job *job, uint64_t gpa, const void *bytes, size_t len);
int boot_zero(struct boot_job *job, uint64_t gpa, uint64_t len);
int boot_put_file(struct boot_job *job, const struct boot_file *file, uint64_t gpa, uint64_t offset,
                  uint64_t len);

/* Put the initramfs as high as it goes below @limit (one past the last byte allowed) and below the
 * end of low RAM, page-aligned. Call it when everything else is claimed. *gpa is 0 when there is no
 * initramfs. 0 or -errno. */
int boot_put_initramfs(struct boot_job *job, uint64_t limit, uint64_t *gpa);

/* Put the command line at LAYOUT_CMDLINE, at most @max bytes without its NUL. A Linux kernel is
 * told the TSC's frequency besides, unless the user did. 0 or -EINVAL. */
int boot_put_cmdline(struct boot_job *job, uint64_t max);

/* --- elf.c --- */

#define ELF_SEGMENTS 64u /* program headers that are looked at; Linux has 4 or 5 */

struct elf_segment {
        unsigned number; /* in the program header table: what messages call it */
        uint64_t offset, filesz;
        uint64_t vaddr, paddr, memsz;
};

struct elf_image {
        unsigned bits;  /* 32 or 64 */
        uint64_t entry; /* e_entry, as it stands in the file */
        int has_pvh;
        uint64_t pvh_entry;
        unsigned nsegments; /* those to load, with something in them */
        struct elf_segment segments[ELF_SEGMENTS];
};

int elf_parse(struct boot_job *job, struct elf_image *elf);

/* Claim and load every segment. */
int elf_load(struct boot_job *job, const struct elf_image *elf);

/* Where e_entry lies physically. -EINVAL (err set) when that is in no segment's file bytes. */
int elf_entry(struct boot_job *job, const struct elf_image *elf, uint64_t *gpa);

/* The same for an address that is physical already; @what names it. */
int elf_check_entry(struct boot_job *job, const struct elf_image *elf, uint64_t gpa,
                    const char *what);

/* --- the protocols: claim, load, and fill @entry --- */

int pvh_load(struct boot_job *job, const struct elf_image *elf, struct x86_entry *entry);
int bzimage_load(struct boot_job *job, struct x86_entry *entry);
int flat_load(struct boot_job *job, struct x86_entry *entry);

/* An ELF by Linux's 64-bit protocol. */
int linux64_load_elf(struct boot_job *job, const struct elf_image *elf, struct x86_entry *entry);

/* The last steps of Linux's 64-bit protocol: @bp has its setup header; the rest of it, command line
 * and initramfs follow, and the entry at @rip. */
struct boot_params;
int linux64_finish(struct boot_job *job, struct boot_params *bp, uint64_t rip,
                   struct x86_entry *entry);

/* True when the head is that of a bzImage. */
int bzimage_probe(const struct boot_job *job);

struct multiboot_header {
        uint32_t offset; /* in the file */
        uint32_t flags;
        uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};
#define MULTIBOOT_ADDRESSES (1u << 16) /* the five addresses are valid and override ELF's */

/* True when the head holds a multiboot header with a right checksum. */
int multiboot_find(const struct boot_job *job, struct multiboot_header *header);

/* @elf is NULL for an image that is not ELF. */
int multiboot_load(struct boot_job *job, const struct multiboot_header *header,
                   const struct elf_image *elf, struct x86_entry *entry);

#endif
