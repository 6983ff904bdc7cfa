/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images for the tests of src/boot, made byte by byte, and a guest memory of plain malloc to load
 * them into (so that the address sanitizer sees every byte beside it).
 */
#ifndef TESTS_BOOT_IMAGES_H
#define TESTS_BOOT_IMAGES_H

#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "boot/boot.h"
#include "x86/layout.h"

#define MIB (1ull << 20)

/* --- a machine --- */

struct machine {
        struct guest_mem mem;
        uint8_t *ram;
        int kernel_fd, initramfs_fd;
        struct boot_source src;
        struct x86_entry entry;
        struct err err;
};

/* @size bytes of RAM from 0 on, all 0xcc, so that bytes that should be zeroed show. */
static inline void machine_init(struct machine *m, uint64_t size)
{
        memset(m, 0, sizeof *m);
        m->ram = malloc(size);
        assert_non_null(m->ram);
        memset(m->ram, 0xcc, size);
        m->mem.nregions = 1;
        m->mem.regions[0] = (struct guest_region){.gpa = 0, .size = size, .hva = m->ram};
        m->kernel_fd = m->initramfs_fd = -1;
        m->src = (struct boot_source){
                .kernel_fd = -1,
                .kernel_name = "kernel.img",
                .initramfs_fd = -1,
                .cmdline = "",
        };
}

static inline void machine_fini(struct machine *m)
{
        free(m->ram);
        if (m->kernel_fd >= 0)
                close(m->kernel_fd);
        if (m->initramfs_fd >= 0)
                close(m->initramfs_fd);
}

static inline int file_of(const void *bytes, size_t len)
{
        int fd = memfd_create("test", MFD_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, bytes, len, 0), (ssize_t)len);
        return fd;
}

static inline void machine_kernel(struct machine *m, const void *bytes, size_t len)
{
        m->src.kernel_fd = m->kernel_fd = file_of(bytes, len);
}

static inline void machine_initramfs(struct machine *m, const void *bytes, size_t len)
{
        m->src.initramfs_fd = m->initramfs_fd = file_of(bytes, len);
        m->src.initramfs_name = "initrd.cpio";
}

static inline int machine_boot(struct machine *m)
{
        return boot_load(&m->src, &m->mem, &m->entry, &m->err);
}

/* The load is refused, and the reason holds @text. */
static inline void expect_refused(struct machine *m, const char *text)
{
        int ret = machine_boot(m);

        if (ret != -EINVAL || !strstr(m->err.text, text) || strchr(m->err.text, '\n'))
                fail_msg("expected \"%s\", got %d \"%s\"", text, ret, m->err.text);
        assert_int_equal(m->err.class, ERR_INPUT);
}

static inline void expect_loaded(struct machine *m)
{
        int ret = machine_boot(m);

        if (ret != 0)
                fail_msg("not loaded: %d \"%s\"", ret, m->err.text);
}

static inline uint32_t ram32(const struct machine *m, uint64_t gpa)
{
        uint32_t v;

        memcpy(&v, m->ram + gpa, sizeof v);
        return v;
}

static inline uint64_t ram64(const struct machine *m, uint64_t gpa)
{
        uint64_t v;

        memcpy(&v, m->ram + gpa, sizeof v);
        return v;
}

/* --- images --- */

#define IMAGE_MAX 0x4000u

struct image {
        uint8_t bytes[IMAGE_MAX];
        size_t len;
};

/* Program headers stand right behind the ELF header; file bytes from 0x1000 on. */
#define ELF_TEXT    0x1000u /* file offset and size of the first segment */
#define ELF_DATA    0x2000u /* of the second: 0x100 bytes in the file, 0x1800 in memory */
#define ELF_ENTRY   0x10
#define ELF_TEXT_PA 0x100000u
#define ELF_DATA_PA 0x200000u
#define ELF_NOTE    0x2100u

struct image_elf64 {
        Elf64_Ehdr h;
        Elf64_Phdr p[3]; /* text, data, note */
};

struct image_elf32 {
        Elf32_Ehdr h;
        Elf32_Phdr p[3];
};

static inline void image_fill(struct image *im)
{
        memset(im, 0, sizeof *im);
        memset(im->bytes + ELF_TEXT, 0x90, 0x1000);
        memset(im->bytes + ELF_DATA, 0xdd, 0x100);
        im->len = ELF_NOTE + 0x100;
}

static inline void image_note(struct image *im, uint64_t entry, unsigned size)
{
        /* Another note stands first, with lengths that need padding. */
        Elf64_Nhdr other = {.n_namesz = 4, .n_descsz = 5, .n_type = 3};
        Elf64_Nhdr pvh = {.n_namesz = 4, .n_descsz = size, .n_type = 18};
        uint8_t *p = im->bytes + ELF_NOTE;

        memcpy(p, &other, 12);
        memcpy(p + 12, "GNU", 4);
        memcpy(p + 24, &pvh, 12);
        memcpy(p + 36, "Xen", 4);
        memcpy(p + 40, &entry, size);
}

static inline struct image_elf64 *image_elf64(struct image *im)
{
        struct image_elf64 *e = (void *)im->bytes;

        image_fill(im);
        *e = (struct image_elf64){
                .h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                      .e_type = ET_EXEC,
                      .e_machine = EM_X86_64,
                      .e_version = EV_CURRENT,
                      .e_entry = ELF_TEXT_PA + ELF_ENTRY,
                      .e_phoff = sizeof e->h,
                      .e_ehsize = sizeof e->h,
                      .e_phentsize = sizeof e->p[0],
                      .e_phnum = 2},
                .p = {{.p_type = PT_LOAD,
                       .p_offset = ELF_TEXT,
                       .p_vaddr = 0xffffffff80100000,
                       .p_paddr = ELF_TEXT_PA,
                       .p_filesz = 0x1000,
                       .p_memsz = 0x1000},
                      {.p_type = PT_LOAD,
                       .p_offset = ELF_DATA,
                       .p_vaddr = 0xffffffff80200000,
                       .p_paddr = ELF_DATA_PA,
                       .p_filesz = 0x100,
                       .p_memsz = 0x1800},
                      {.p_type = PT_NOTE, .p_offset = ELF_NOTE, .p_filesz = 0x30, .p_align = 4}},
        };
        return e;
}

static inline struct image_elf64 *image_pvh(struct image *im)
{
        struct image_elf64 *e = image_elf64(im);

        e->h.e_phnum = 3;
        image_note(im, ELF_TEXT_PA + 0x40, 8);
        return e;
}

static inline struct image_elf32 *image_elf32(struct image *im)
{
        struct image_elf32 *e = (void *)im->bytes;

        image_fill(im);
        *e = (struct image_elf32){
                .h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
                      .e_type = ET_EXEC,
                      .e_machine = EM_386,
                      .e_version = EV_CURRENT,
                      .e_entry = ELF_TEXT_PA + ELF_ENTRY,
                      .e_phoff = sizeof e->h,
                      .e_ehsize = sizeof e->h,
                      .e_phentsize = sizeof e->p[0],
                      .e_phnum = 2},
                .p = {{.p_type = PT_LOAD,
                       .p_offset = ELF_TEXT,
                       .p_vaddr = 0xc0100000,
                       .p_paddr = ELF_TEXT_PA,
                       .p_filesz = 0x1000,
                       .p_memsz = 0x1000},
                      {.p_type = PT_LOAD,
                       .p_offset = ELF_DATA,
                       .p_vaddr = 0xc0200000,
                       .p_paddr = ELF_DATA_PA,
                       .p_filesz = 0x100,
                       .p_memsz = 0x1800},
                      {.p_type = PT_NOTE, .p_offset = ELF_NOTE, .p_filesz = 0x30, .p_align = 4}},
        };
        return e;
}

#define MB_AT ELF_TEXT /* where the multiboot header stands: at the start of the text */

static inline void image_multiboot_header(struct image *im, size_t at, uint32_t flags)
{
        uint32_t words[3] = {0x1badb002, flags, 0u - 0x1badb002 - flags};

        memcpy(im->bytes + at, words, sizeof words);
}

static inline struct image_elf32 *image_multiboot(struct image *im, uint32_t flags)
{
        struct image_elf32 *e = image_elf32(im);

        image_multiboot_header(im, MB_AT, flags);
        return e;
}

/* No ELF: the header at 0x20 of the file, loaded at 0x300000 from file offset 0x10 on. */
#define KLUDGE_AT   0x20u
#define KLUDGE_FROM 0x10u
#define KLUDGE_PA   0x300000u

static inline uint32_t *image_kludge(struct image *im)
{
        uint32_t *words = (void *)(im->bytes + KLUDGE_AT);

        memset(im, 0, sizeof *im);
        im->len = 0x800;
        memset(im->bytes, 0x90, im->len);
        image_multiboot_header(im, KLUDGE_AT, 1u << 16);
        words[3] = KLUDGE_PA + KLUDGE_AT - KLUDGE_FROM; /* header_addr */
        words[4] = KLUDGE_PA;                           /* load_addr */
        words[5] = KLUDGE_PA + 0x700;                   /* load_end_addr */
        words[6] = KLUDGE_PA + 0x1000;                  /* bss_end_addr */
        words[7] = KLUDGE_PA + 0x80;                    /* entry_addr */
        return words;
}

/* Two setup sectors, then 0x800 bytes of kernel that want to run at 2 MiB. */
static inline struct setup_header *image_bzimage(struct image *im)
{
        struct setup_header *h = (void *)(im->bytes + 0x1f1);

        memset(im, 0, sizeof *im);
        im->len = 3 * 512 + 0x800;
        memset(im->bytes + 3 * 512, 0xb2, 0x800);
        im->bytes[0x1ef] = 0xff; /* the sentinel, which a loader must not copy */
        *h = (struct setup_header){
                .setup_sects = 2,
                .syssize = 0x80,
                .boot_flag = 0xaa55,
                .jump = 0x66eb, /* the header ends at 0x268 */
                .header = 0x53726448,
                .version = 0x020c,
                .loadflags = LOADED_HIGH,
                .initrd_addr_max = 0x7fffffff,
                .kernel_alignment = 0x200000,
                .relocatable_kernel = 1,
                .xloadflags = XLF_KERNEL_64,
                .cmdline_size = 2047,
                .pref_address = 0x200000,
                .init_size = 0x100000,
        };
        return h;
}

#endif
