/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bzImage, entered by the 64-bit protocol. Source: Linux Documentation/arch/x86/boot.rst.
 *
 *      file:   boot sector and setup code, (setup_sects + 1) * 512 | protected-mode kernel
 *      header: inside the former, 0x1f1 to 0x202 + the byte at 0x201
 *
 * Only the setup header is taken from the first part. The second part is loaded and entered at its
 * byte 0x200.
 *
 * It goes to pref_address and nowhere else. The document speaks of relocatable kernels that load
 * anywhere, but the 64-bit entry code (arch/x86/boot/compressed/head_64.S, startup_64) never runs
 * below LOAD_PHYSICAL_ADDR, which is what pref_address says: loaded at 1 MiB it would move itself
 * up to there. So when init_size bytes from there on are not RAM, no other place helps, and the
 * user hears how much memory the kernel needs instead of watching it die.
 */
#include "boot/internal.h"

#include <asm/bootparam.h>
#include <stddef.h>
#include <string.h>

#include "x86/layout.h"

#define SETUP_START  0x1f1u
#define SETUP_LIMIT  0x290u  /* boot_params has something else from here on */
#define MIN_VERSION  0x020cu /* 2.12: xloadflags */
#define ENTRY_64     0x200u
#define SETUP_NEEDED (SETUP_START + (unsigned)offsetof(struct setup_header, handover_offset))

int bzimage_probe(const struct boot_job *job)
{
        return job->head_len >= 0x206 && job->head[0x1fe] == 0x55 && job->head[0x1ff] == 0xaa &&
               memcmp(job->head + 0x202, "HdrS", 4) == 0;
}

/* Copy the setup header as far as it says it goes, fields that this loader does not know included.
 * Those past its end stay zero. */
static int read_setup(struct boot_job *job, struct boot_params *bp)
{
        size_t end = 0x202u + job->head[0x201];
        uint16_t version;

        memcpy(&version, job->head + 0x206, sizeof version);
        if (version < MIN_VERSION)
                return err_input(job->err,
                                 "%s: Linux boot protocol %u.%02u is too old: 2.12 (Linux 3.8) is "
                                 "the oldest that has the 64-bit entry",
                                 job->kernel.name, version >> 8, version & 0xff);
        if (end < SETUP_NEEDED)
                return err_input(
                        job->err,
                        "%s: its setup header ends at 0x%zx, before that of init_size (0x%x)",
                        job->kernel.name, end, SETUP_NEEDED);
        end = end < SETUP_LIMIT ? end : SETUP_LIMIT;
        memcpy((uint8_t *)bp + SETUP_START, job->head + SETUP_START, end - SETUP_START);
        return 0;
}

static int check_setup(struct boot_job *job, const struct setup_header *hdr)
{
        const char *name = job->kernel.name;
        uint32_t align = hdr->kernel_alignment;

        if (!(hdr->xloadflags & XLF_KERNEL_64))
                return err_input(job->err, "%s: a 32-bit bzImage; a 64-bit kernel is needed", name);
        if (!(hdr->loadflags & LOADED_HIGH))
                return err_input(job->err,
                                 "%s: a zImage, which loads below 1 MiB; a bzImage is "
                                 "needed",
                                 name);
        if (hdr->relocatable_kernel && (align == 0 || (align & (align - 1)) != 0))
                return err_input(job->err, "%s: kernel_alignment 0x%x is not a power of two", name,
                                 align);
        if (hdr->pref_address < LAYOUT_BIOS_END || hdr->pref_address >= LAYOUT_HIGH_RAM)
                return err_input(job->err, "%s: pref_address 0x%llx is not between 1 MiB and 4 GiB",
                                 name, (unsigned long long)hdr->pref_address);
        return 0;
}

/* The part of the file that is loaded: all that follows the setup code, as other loaders do it,
 * since signatures may stand behind what syssize counts. */
static int check_payload(struct boot_job *job, const struct setup_header *hdr, uint64_t *offset,
                         uint64_t *len)
{
        uint64_t sectors = hdr->setup_sects ? hdr->setup_sects : 4; /* 0 means 4 */
        uint64_t counted = (uint64_t)hdr->syssize * 16;
        const char *name = job->kernel.name;

        *offset = (sectors + 1) * 512;
        if (*offset >= job->kernel.size)
                return err_input(job->err, "%s: cut short: nothing follows its setup code", name);
        *len = job->kernel.size - *offset;
        if (counted > *len)
                return err_input(job->err, "%s: cut short: its header counts %s, the file has %s",
                                 name, boot_size(counted).text, boot_size(*len).text);
        if (*len <= ENTRY_64)
                return err_input(job->err, "%s: cut short before its 64-bit entry point", name);
        return 0;
}

/* Claim where the kernel is loaded and where it runs: from pref_address (which a relocatable kernel
 * aligns up) for init_size bytes. */
static int claim_kernel(struct boot_job *job, const struct setup_header *hdr, uint64_t len)
{
        uint64_t mask = hdr->relocatable_kernel ? hdr->kernel_alignment - 1ull : 0;
        uint64_t start = hdr->pref_address;
        uint64_t need = ((start + mask) & ~mask) + hdr->init_size - start;

        if (len > need)
                need = len;
        if (start + need > guest_mem_low_end(job->mem))
                return err_input(job->err,
                                 "%s: runs from %s on and needs %s there; the VM's memory below 4 "
                                 "GiB ends at %s",
                                 job->kernel.name, boot_size(start).text, boot_size(need).text,
                                 boot_size(guest_mem_low_end(job->mem)).text);
        return boot_claim(job, start, need, "the kernel");
}

int bzimage_load(struct boot_job *job, struct x86_entry *entry)
{
        struct boot_params bp = {0};
        uint64_t offset = 0, len = 0, load;
        int ret;

        if (job->head_len < SETUP_LIMIT)
                return err_input(job->err, "%s: cut short inside its setup header",
                                 job->kernel.name);
        job->linux_kernel = true;
        ret = read_setup(job, &bp);
        if (ret == 0)
                ret = check_setup(job, &bp.hdr);
        if (ret == 0)
                ret = check_payload(job, &bp.hdr, &offset, &len);
        if (ret == 0)
                ret = boot_claim_tables(job, X86_LONG64);
        if (ret == 0)
                ret = claim_kernel(job, &bp.hdr, len);
        if (ret < 0)
                return ret;
        load = bp.hdr.pref_address;
        ret = boot_put_file(job, &job->kernel, load, offset, len);
        if (ret < 0)
                return ret;
        bp.hdr.code32_start = (uint32_t)load;
        bp.hdr.setup_data = 0;    /* a list in memory: the file cannot have one */
        bp.hdr.vid_mode = 0xffff; /* "normal" */
        return linux64_finish(job, &bp, load + ENTRY_64, entry);
}
