/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flat binary: bytes, an address and a processor mode, all the user's choice. There is no
 * protocol, hence no way to hand over a command line or an initramfs; asking for one is an error
 * rather than a thing silently dropped. The stack pointer is LAYOUT_BOOT_STACK; what the binary
 * must not lie over is what its mode needs: the stack, a GDT, page tables.
 */
#include "boot/internal.h"

#include "x86/layout.h"

static int flat_mode(struct boot_job *job, enum x86_mode *mode)
{
        uint64_t limit = LAYOUT_HIGH_RAM; /* as far as the entry state can address */

        switch (job->src->flat_bits) {
        case 16:
                *mode = X86_REAL16;
                limit = LAYOUT_BIOS_END;
                break;
        case 32:
                *mode = X86_PROT32;
                break;
        case 64:
                *mode = X86_LONG64;
                break;
        default:
                return err_input(job->err,
                                 "%s: a flat binary is entered in 16, 32 or 64-bit mode, "
                                 "not in %u",
                                 job->kernel.name, job->src->flat_bits);
        }
        if (job->src->flat_address >= limit)
                return err_input(job->err, "%s: %u-bit mode cannot be entered at 0x%llx",
                                 job->kernel.name, job->src->flat_bits,
                                 (unsigned long long)job->src->flat_address);
        return 0;
}

int flat_load(struct boot_job *job, struct x86_entry *entry)
{
        uint64_t at = job->src->flat_address;
        enum x86_mode mode = X86_PROT32;
        int ret;

        if (job->initramfs.size)
                return err_input(job->err, "%s: a flat binary takes no initramfs",
                                 job->kernel.name);
        if (job->src->cmdline[0])
                return err_input(job->err, "%s: a flat binary takes no command line",
                                 job->kernel.name);
        ret = flat_mode(job, &mode);
        if (ret == 0)
                ret = boot_claim_tables(job, mode);
        if (ret == 0)
                ret = boot_claim(job, at, job->kernel.size, "the flat binary");
        if (ret == 0)
                ret = boot_put_file(job, &job->kernel, at, 0, job->kernel.size);
        if (ret < 0)
                return ret;
        *entry = (struct x86_entry){.mode = mode, .rip = at, .rsp = LAYOUT_BOOT_STACK};
        return 0;
}
