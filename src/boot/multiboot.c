/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multiboot, version 1. Source: Multiboot Specification 0.6.96, sections 3.1 (header), 3.2 (machine
 * state), 3.3 (information).
 *
 * Of the requirements (flag bits 0 to 15, which a loader must understand or refuse): bit 0, modules
 * on page boundaries, and bit 1, memory information, are always given. Bit 2 asks for information
 * about the video mode; there is no video, so bits 11 and 12 of the information's flags stay clear
 * and the image is loaded all the same, as other loaders do. Any other bit refuses the image.
 *
 *      LAYOUT_BOOT_INFO:  information | one module | memory map | loader's name
 *      LAYOUT_CMDLINE:    command line | the module's string
 */
#include "boot/internal.h"

#include <string.h>

#include "x86/layout.h"

#define HEADER_MAGIC 0x1badb002u
#define ENTRY_MAGIC  0x2badb002u /* in EAX at the entry */
#define KNOWN_FLAGS  7u

#define INFO_MEM     (1u << 0)
#define INFO_CMDLINE (1u << 2)
#define INFO_MODS    (1u << 3)
#define INFO_MMAP    (1u << 6)
#define INFO_NAME    (1u << 9)

struct mb_module {
        uint32_t start, end; /* end is one past the last byte */
        uint32_t string;
        uint32_t reserved;
};

struct mb_mmap {
        uint32_t size; /* of what follows it */
        uint64_t addr, len;
        uint32_t type; /* e820's numbers */
} __attribute__((packed));
_Static_assert(sizeof(struct mb_mmap) == 24, "multiboot memory map");

struct mb_info {
        uint32_t flags;
        uint32_t mem_lower, mem_upper; /* KiB from 0, KiB from 1 MiB */
        uint32_t boot_device;
        uint32_t cmdline;
        uint32_t mods_count, mods_addr;
        uint32_t syms[4];
        uint32_t mmap_length, mmap_addr;
        uint32_t drives_length, drives_addr;
        uint32_t config_table;
        uint32_t boot_loader_name;
        uint32_t apm_table;
        uint32_t vbe[4];
        uint8_t framebuffer[28];
        /* The specification's structure ends here; what it points at follows. */
        struct mb_module module;
        struct mb_mmap mmap[BOOT_E820_MAX];
        char name[8];
};
_Static_assert(offsetof(struct mb_info, module) == 116, "multiboot information");

static uint32_t word_at(const uint8_t *p)
{
        uint32_t v;

        memcpy(&v, p, sizeof v);
        return v;
}

int multiboot_find(const struct boot_job *job, struct multiboot_header *header)
{
        for (uint32_t at = 0; at + 12 <= job->head_len; at += 4) {
                const uint8_t *p = job->head + at;
                uint32_t flags = word_at(p + 4);

                if (word_at(p) != HEADER_MAGIC || HEADER_MAGIC + flags + word_at(p + 8) != 0)
                        continue;
                *header = (struct multiboot_header){.offset = at, .flags = flags};
                if (!(flags & MULTIBOOT_ADDRESSES))
                        return 1;
                if (at + 32 > job->head_len)
                        continue; /* the header is whole inside the first 8 KiB, or it is none */
                header->header_addr = word_at(p + 12);
                header->load_addr = word_at(p + 16);
                header->load_end_addr = word_at(p + 20);
                header->bss_end_addr = word_at(p + 24);
                header->entry_addr = word_at(p + 28);
                return 1;
        }
        return 0;
}

/* --- loading by the header's addresses --- */

/* All values are 32-bit and the sums 64-bit, so nothing wraps. */
static int load_addresses(struct boot_job *job, const struct multiboot_header *h, uint64_t *rip)
{
        const char *name = job->kernel.name;
        uint64_t before, offset, len, end;
        int ret;

        if (h->header_addr < h->load_addr || h->header_addr - h->load_addr > h->offset)
                return err_input(job->err,
                                 "%s: multiboot load_addr 0x%x does not fit header_addr "
                                 "0x%x",
                                 name, h->load_addr, h->header_addr);
        before = h->header_addr - h->load_addr;
        offset = h->offset - before;
        if (h->load_end_addr != 0 && h->load_end_addr <= h->load_addr)
                return err_input(job->err,
                                 "%s: multiboot load_end_addr 0x%x is not above load_addr"
                                 " 0x%x",
                                 name, h->load_end_addr, h->load_addr);
        len = h->load_end_addr ? h->load_end_addr - h->load_addr : job->kernel.size - offset;
        if (!boot_file_has(&job->kernel, offset, len))
                return err_input(job->err,
                                 "%s: multiboot load_end_addr 0x%x lies past the end of "
                                 "the file",
                                 name, h->load_end_addr);
        end = h->load_addr + len;
        if (h->entry_addr < h->load_addr || h->entry_addr >= end)
                return err_input(job->err,
                                 "%s: multiboot entry_addr 0x%x is not inside what is "
                                 "loaded",
                                 name, h->entry_addr);
        if (h->bss_end_addr != 0 && h->bss_end_addr < end)
                return err_input(job->err,
                                 "%s: multiboot bss_end_addr 0x%x is below the loaded "
                                 "data's end",
                                 name, h->bss_end_addr);
        end = h->bss_end_addr ? h->bss_end_addr : end;
        ret = boot_claim(job, h->load_addr, end - h->load_addr, "the multiboot image");
        if (ret == 0)
                ret = boot_put_file(job, &job->kernel, h->load_addr, offset, len);
        if (ret == 0)
                ret = boot_zero(job, h->load_addr + len, end - h->load_addr - len);
        *rip = h->entry_addr;
        return ret;
}

static int load_image(struct boot_job *job, const struct multiboot_header *h,
                      const struct elf_image *elf, uint64_t *rip)
{
        int ret;

        if (h->flags & MULTIBOOT_ADDRESSES)
                return load_addresses(job, h, rip);
        if (!elf)
                return err_input(job->err,
                                 "%s: a multiboot image that is neither ELF nor has load "
                                 "addresses (flag bit 16)",
                                 job->kernel.name);
        ret = elf_entry(job, elf, rip);
        if (ret == 0 && *rip > UINT32_MAX)
                ret = err_input(job->err, "%s: its entry point 0x%llx is not below 4 GiB",
                                job->kernel.name, (unsigned long long)*rip);
        return ret < 0 ? ret : elf_load(job, elf);
}

/* --- the information --- */

/* "name arguments" and, behind it, the module's name. *module is where that went. */
static int put_strings(struct boot_job *job, uint32_t *module)
{
        const char *args = job->src->cmdline, *initramfs = job->src->initramfs_name;
        size_t name = strlen(job->src->kernel_name), len = strlen(args), at = name;
        int ret;

        if (!initramfs)
                initramfs = "";
        if (name + 1 + len + 1 + strlen(initramfs) + 1 > LAYOUT_CMDLINE_MAX)
                return err_input(job->err,
                                 "%s: the command line has %zu bytes, with the names of "
                                 "kernel and initramfs it must fit into %s",
                                 job->kernel.name, len, boot_size(LAYOUT_CMDLINE_MAX).text);
        ret = boot_put(job, LAYOUT_CMDLINE, job->src->kernel_name, name + 1);
        if (ret == 0 && len > 0) {
                ret = boot_put(job, LAYOUT_CMDLINE + at++, " ", 1);
                if (ret == 0)
                        ret = boot_put(job, LAYOUT_CMDLINE + at, args, len + 1);
                at += len;
        }
        *module = (uint32_t)(LAYOUT_CMDLINE + at + 1);
        if (ret == 0)
                ret = boot_put(job, *module, initramfs, strlen(initramfs) + 1);
        return ret;
}

static void fill_info(const struct boot_job *job, struct mb_info *info, uint64_t initramfs,
                      uint32_t module_string)
{
        uint64_t low_end = guest_mem_low_end(job->mem);
        struct boot_e820 map[BOOT_E820_MAX];
        unsigned n = boot_e820_map(job->mem, map);

        *info = (struct mb_info){
                .flags = INFO_MEM | INFO_CMDLINE | INFO_MODS | INFO_MMAP | INFO_NAME,
                .mem_lower = LAYOUT_EBDA / 1024,
                .mem_upper = low_end > LAYOUT_BIOS_END
                                     ? (uint32_t)((low_end - LAYOUT_BIOS_END) / 1024)
                                     : 0,
                .cmdline = LAYOUT_CMDLINE,
                .mods_count = initramfs != 0,
                .mods_addr = LAYOUT_BOOT_INFO + offsetof(struct mb_info, module),
                .mmap_length = n * (uint32_t)sizeof(struct mb_mmap),
                .mmap_addr = LAYOUT_BOOT_INFO + offsetof(struct mb_info, mmap),
                .boot_loader_name = LAYOUT_BOOT_INFO + offsetof(struct mb_info, name),
                .name = "ramet",
        };
        if (initramfs)
                info->module = (struct mb_module){
                        .start = (uint32_t)initramfs,
                        .end = (uint32_t)(initramfs + job->initramfs.size),
                        .string = module_string,
                };
        for (unsigned i = 0; i < n; i++)
                info->mmap[i] = (struct mb_mmap){sizeof(struct mb_mmap) - 4, map[i].addr,
                                                 map[i].size, map[i].type};
}

int multiboot_load(struct boot_job *job, const struct multiboot_header *header,
                   const struct elf_image *elf, struct x86_entry *entry)
{
        uint64_t rip = 0, initramfs = 0;
        uint32_t module_string = 0;
        struct mb_info info;
        int ret;

        if (header->flags & 0xffff & ~KNOWN_FLAGS)
                return err_input(job->err, "%s: multiboot flags 0x%x require what is not supported",
                                 job->kernel.name, header->flags & 0xffff & ~KNOWN_FLAGS);
        ret = boot_claim_tables(job, X86_PROT32);
        if (ret == 0)
                ret = load_image(job, header, elf, &rip);
        if (ret == 0)
                ret = boot_put_initramfs(job, LAYOUT_LOW_RAM_END, &initramfs);
        if (ret == 0)
                ret = put_strings(job, &module_string);
        if (ret < 0)
                return ret;
        fill_info(job, &info, initramfs, module_string);
        *entry = (struct x86_entry){
                .mode = X86_PROT32,
                .rip = rip,
                .rax = ENTRY_MAGIC,
                .rbx = LAYOUT_BOOT_INFO,
                .rsp = LAYOUT_BOOT_STACK,
        };
        return boot_put(job, LAYOUT_BOOT_INFO, &info, sizeof info);
}
