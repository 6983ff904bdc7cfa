/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linux's 64-bit boot protocol, the part that a bzImage and an uncompressed vmlinux share: a page
 * of boot_params, its address in RSI, long mode with the kernel, the page and the command line
 * mapped one to one. Source: Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol", and
 * zero-page.rst.
 *
 * A vmlinux has no setup header of its own, so it gets one with what the protocol lets a loader
 * write; its kernel reads nothing else of it.
 */
#include "boot/internal.h"

#include <asm/bootparam.h>

#include "x86/layout.h"

_Static_assert(sizeof(struct boot_params) == BOOT_PAGE, "boot_params is one page");

#define SETUP_BOOT_FLAG 0xaa55
#define SETUP_MAGIC     0x53726448 /* "HdrS" */
#define SETUP_VERSION   0x020f
#define LOADER_UNKNOWN  0xff /* no id was assigned to this loader */

static void fill_e820(const struct boot_job *job, struct boot_params *bp)
{
        struct boot_e820 map[BOOT_E820_MAX];
        unsigned n = boot_e820_map(job->mem, map);

        for (unsigned i = 0; i < n; i++)
                bp->e820_table[i] = (struct boot_e820_entry){map[i].addr, map[i].size, map[i].type};
        bp->e820_entries = (uint8_t)n;
}

int linux64_finish(struct boot_job *job, struct boot_params *bp, uint64_t rip,
                   struct x86_entry *entry)
{
        uint64_t initramfs = 0;
        int ret;

        ret = boot_put_initramfs(job, bp->hdr.initrd_addr_max + 1ull, &initramfs);
        if (ret == 0)
                ret = boot_put_cmdline(job, bp->hdr.cmdline_size);
        if (ret < 0)
                return ret;
        bp->hdr.type_of_loader = LOADER_UNKNOWN;
        bp->hdr.cmd_line_ptr = LAYOUT_CMDLINE;
        bp->hdr.ramdisk_image = (uint32_t)initramfs; /* low RAM ends at 3 GiB */
        bp->hdr.ramdisk_size = initramfs ? (uint32_t)job->initramfs.size : 0;
        bp->acpi_rsdp_addr = LAYOUT_ACPI;
        fill_e820(job, bp);
        *entry = (struct x86_entry){
                .mode = X86_LONG64,
                .rip = rip,
                .rsi = LAYOUT_BOOT_INFO,
                .rsp = LAYOUT_BOOT_STACK,
        };
        return boot_put(job, LAYOUT_BOOT_INFO, bp, sizeof *bp);
}

int linux64_load_elf(struct boot_job *job, const struct elf_image *elf, struct x86_entry *entry)
{
        struct boot_params bp = {
                .hdr.boot_flag = SETUP_BOOT_FLAG,
                .hdr.header = SETUP_MAGIC,
                .hdr.version = SETUP_VERSION,
                .hdr.loadflags = LOADED_HIGH,
                .hdr.initrd_addr_max = UINT32_MAX,
                .hdr.cmdline_size = LAYOUT_CMDLINE_MAX - 1,
        };
        uint64_t rip = 0;
        int ret;

        ret = elf_entry(job, elf, &rip);
        if (ret == 0 && rip > UINT32_MAX)
                ret = err_input(job->err, "%s: its entry point 0x%llx is not below 4 GiB",
                                job->kernel.name, (unsigned long long)rip);
        if (ret == 0)
                ret = boot_claim_tables(job, X86_LONG64);
        if (ret == 0)
                ret = elf_load(job, elf);
        if (ret < 0)
                return ret;
        return linux64_finish(job, &bp, rip, entry);
}
