/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PVH: an ELF names a 32-bit entry point in a Xen note and is entered there in protected mode, with
 * EBX pointing at a description of the machine. Source: Xen's public headers
 * arch-x86/hvm/start_info.h (the structures) and docs/misc/pvh.pandoc (the processor state).
 *
 *      LAYOUT_BOOT_INFO:  start info | one module | memory map
 */
#include "boot/internal.h"

#include <string.h>

#include "x86/layout.h"

#define PVH_MAGIC 0x336ec578u

struct pvh_start_info {
        uint32_t magic;
        uint32_t version; /* 1: has the memory map */
        uint32_t flags;
        uint32_t nr_modules;
        uint64_t modules; /* addresses are guest-physical */
        uint64_t cmdline;
        uint64_t rsdp;
        uint64_t memmap;
        uint32_t memmap_entries;
        uint32_t reserved;
};
_Static_assert(sizeof(struct pvh_start_info) == 56, "hvm_start_info");

struct pvh_module {
        uint64_t address;
        uint64_t size;
        uint64_t cmdline; /* 0: none */
        uint64_t reserved;
};

struct pvh_memmap {
        uint64_t address;
        uint64_t size;
        uint32_t type; /* e820's numbers */
        uint32_t reserved;
};

struct pvh_info {
        struct pvh_start_info start;
        struct pvh_module module;
        struct pvh_memmap memmap[BOOT_E820_MAX];
};

static void fill_info(const struct boot_job *job, uint64_t initramfs, struct pvh_info *info)
{
        struct boot_e820 map[BOOT_E820_MAX];
        unsigned n = boot_e820_map(job->mem, map);

        *info = (struct pvh_info){
                .start.magic = PVH_MAGIC,
                .start.version = 1,
                .start.cmdline = LAYOUT_CMDLINE,
                .start.rsdp = LAYOUT_ACPI,
                .start.memmap = LAYOUT_BOOT_INFO + offsetof(struct pvh_info, memmap),
                .start.memmap_entries = n,
        };
        if (initramfs) {
                info->start.nr_modules = 1;
                info->start.modules = LAYOUT_BOOT_INFO + offsetof(struct pvh_info, module);
                info->module.address = initramfs;
                info->module.size = job->initramfs.size;
        }
        for (unsigned i = 0; i < n; i++)
                info->memmap[i] = (struct pvh_memmap){map[i].addr, map[i].size, map[i].type, 0};
}

int pvh_load(struct boot_job *job, const struct elf_image *elf, struct x86_entry *entry)
{
        struct pvh_info info;
        uint64_t initramfs = 0;
        int ret;

        if (elf->pvh_entry > UINT32_MAX)
                return err_input(job->err, "%s: the PVH entry point 0x%llx is not below 4 GiB",
                                 job->kernel.name, (unsigned long long)elf->pvh_entry);
        ret = elf_check_entry(job, elf, elf->pvh_entry, "the PVH entry point");
        if (ret == 0)
                ret = boot_claim_tables(job, X86_PROT32);
        if (ret == 0)
                ret = elf_load(job, elf);
        if (ret == 0)
                ret = boot_put_initramfs(job, LAYOUT_LOW_RAM_END, &initramfs);
        if (ret == 0)
                ret = boot_put_cmdline(job, LAYOUT_CMDLINE_MAX);
        if (ret < 0)
                return ret;
        fill_info(job, initramfs, &info);
        *entry = (struct x86_entry){
                .mode = X86_PROT32,
                .rip = elf->pvh_entry,
                .rbx = LAYOUT_BOOT_INFO,
                .rsp = LAYOUT_BOOT_STACK,
        };
        return boot_put(job, LAYOUT_BOOT_INFO, &info, sizeof info);
}
