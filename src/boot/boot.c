/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which protocol an image speaks. The first 8 KiB are read once and decide:
 *
 *      bzImage header                                  -> bzimage.c
 *      ELF, a multiboot header, 32-bit                 -> multiboot.c
 *      ELF, a PVH note                                 -> pvh.c
 *      ELF, a multiboot header, 64-bit without note    -> multiboot.c, as GRUB does
 *      ELF, 64-bit                                     -> linux64.c
 *      a multiboot header                              -> multiboot.c
 *      the user says that it is a flat binary          -> flat.c, nothing is looked at
 *
 * A multiboot header in a 64-bit ELF says that its entry point expects 32-bit mode, so starting
 * such an image by the 64-bit protocol would only make it crash without a word.
 */
#include "boot/internal.h"

#include <elf.h>
#include <string.h>

/* What else a file may be, to say so: a magic at its start, and what the user can do. */
static const struct known_file {
        const char *magic;
        unsigned len;
        const char *hint;
} known_files[] = {
        {"\x1f\x8b", 2, "gzip data: decompress it first"},
        {"\xfd"
         "7zXZ",
         5, "xz data: decompress it first"},
        {"\x28\xb5\x2f\xfd", 4, "zstd data: decompress it first"},
        {"BZh", 3, "bzip2 data: decompress it first"},
        {"\x04\x22\x4d\x18", 4, "lz4 data: decompress it first"},
        {"\x02\x21\x4c\x18", 4, "lz4 data: decompress it first"},
        {"\x5d\0\0", 3, "lzma data: decompress it first"},
        {"07070", 5, "a cpio archive, perhaps an initramfs"},
        {"\x27\x05\x19\x56", 4, "a U-Boot image"},
        {"MZ", 2, "an EFI program"},
        {"#!", 2, "a script"},
};

static int not_a_kernel(struct boot_job *job)
{
        const struct known_file *f = known_files;
        const char *name = job->kernel.name;

        for (size_t i = 0; i < sizeof known_files / sizeof known_files[0]; i++, f++) {
                if (job->head_len >= f->len && memcmp(job->head, f->magic, f->len) == 0)
                        return err_input(job->err, "%s: not a kernel: %s", name, f->hint);
        }
        if (job->kernel.size < sizeof(Elf32_Ehdr))
                return err_input(job->err, "%s: not a kernel: only %s", name,
                                 boot_size(job->kernel.size).text);
        return err_input(job->err,
                         "%s: not a kernel: no bzImage header, ELF, or multiboot magic in "
                         "its first 8 KiB",
                         name);
}

static int load_elf(struct boot_job *job, struct x86_entry *entry)
{
        struct multiboot_header header;
        struct elf_image elf;
        int has_multiboot = multiboot_find(job, &header);
        int ret;

        ret = elf_parse(job, &elf);
        if (ret < 0)
                return ret;
        if (has_multiboot && (elf.bits == 32 || !elf.has_pvh))
                return multiboot_load(job, &header, &elf, entry);
        if (elf.has_pvh)
                return pvh_load(job, &elf, entry);
        if (elf.bits == 64)
                return linux64_load_elf(job, &elf, entry);
        return err_input(job->err,
                         "%s: a 32-bit ELF with neither a multiboot header nor a PVH note",
                         job->kernel.name);
}

static int load_kernel(struct boot_job *job, struct x86_entry *entry)
{
        struct multiboot_header header;

        if (job->src->flat)
                return flat_load(job, entry);
        if (bzimage_probe(job))
                return bzimage_load(job, entry);
        if (job->head_len >= SELFMAG && memcmp(job->head, ELFMAG, SELFMAG) == 0)
                return load_elf(job, entry);
        if (multiboot_find(job, &header))
                return multiboot_load(job, &header, NULL, entry);
        return not_a_kernel(job);
}

int boot_load(const struct boot_source *src, const struct guest_mem *mem, struct x86_entry *entry,
              struct err *err)
{
        struct boot_job job = {.src = src, .mem = mem, .err = err};
        int ret;

        ret = boot_file_init(&job.kernel, src->kernel_fd, src->kernel_name, err);
        if (ret == 0 && src->initramfs_fd >= 0)
                ret = boot_file_init(&job.initramfs, src->initramfs_fd,
                                     src->initramfs_name ? src->initramfs_name : "initramfs", err);
        if (ret < 0)
                return ret;
        job.head_len = job.kernel.size < sizeof job.head ? job.kernel.size : sizeof job.head;
        ret = boot_file_read(&job.kernel, 0, job.head, job.head_len, err);
        if (ret < 0)
                return ret;
        return load_kernel(&job, entry);
}
