/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ELF, both classes, for every protocol that loads one (PVH, Linux's 64-bit entry, multiboot).
 *
 * Headers of the two classes are read into copies and brought into the 64-bit form at once; all
 * checks are written once, against that. A program header is refused, by its number, when it
 * points outside the file, when a sum of its fields wraps, when it has more in the file than in
 * memory; whether it hits RAM, the boot structures or another segment is decided when its range
 * is claimed (plan.c). Segments are loaded at their physical addresses.
 *
 * Source: System V ABI, chapters 4 and 5 (object files, program loading); the i386 and x86-64
 * supplements for the machine numbers.
 */
#include "boot/internal.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Xen public/elfnote.h: the physical address of the 32-bit PVH entry point. */
#define XEN_ELFNOTE_PHYS32_ENTRY 18

#define NOTES_MAX (1u << 20) /* bytes of one PT_NOTE segment */

/* ELF32's header in ELF64's form. */
static Elf64_Ehdr widen_header(const Elf32_Ehdr *h)
{
        Elf64_Ehdr w = {
                .e_type = h->e_type,
                .e_machine = h->e_machine,
                .e_version = h->e_version,
                .e_entry = h->e_entry,
                .e_phoff = h->e_phoff,
                .e_phentsize = h->e_phentsize,
                .e_phnum = h->e_phnum,
        };

        memcpy(w.e_ident, h->e_ident, sizeof w.e_ident);
        return w;
}

static Elf64_Phdr widen_segment(const Elf32_Phdr *p)
{
        return (Elf64_Phdr){
                .p_type = p->p_type,
                .p_flags = p->p_flags,
                .p_offset = p->p_offset,
                .p_vaddr = p->p_vaddr,
                .p_paddr = p->p_paddr,
                .p_filesz = p->p_filesz,
                .p_memsz = p->p_memsz,
                .p_align = p->p_align,
        };
}

/* The head begins with ELF's magic, the caller has seen to that. */
static int read_header(struct boot_job *job, Elf64_Ehdr *h, unsigned *bits)
{
        const char *name = job->kernel.name;
        uint8_t class = job->head_len > EI_CLASS ? job->head[EI_CLASS] : 0;
        size_t need = class == ELFCLASS64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr);
        Elf32_Ehdr h32;

        if (job->head_len < need)
                return err_input(job->err, "%s: cut short inside its ELF header: %zu bytes of %zu",
                                 name, job->head_len, need);
        if (class != ELFCLASS32 && class != ELFCLASS64)
                return err_input(job->err, "%s: ELF class %u is neither 32-bit nor 64-bit", name,
                                 class);
        if (class == ELFCLASS64) {
                memcpy(h, job->head, sizeof *h);
                *bits = 64;
        } else {
                memcpy(&h32, job->head, sizeof h32);
                *h = widen_header(&h32);
                *bits = 32;
        }
        return 0;
}

static int check_header(struct boot_job *job, const Elf64_Ehdr *h, unsigned bits)
{
        const char *name = job->kernel.name;
        unsigned machine = bits == 64 ? EM_X86_64 : EM_386;
        size_t phentsize = bits == 64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);

        if (h->e_ident[EI_DATA] != ELFDATA2LSB)
                return err_input(job->err, "%s: a big-endian ELF; x86 is little-endian", name);
        if (h->e_ident[EI_VERSION] != EV_CURRENT || h->e_version != EV_CURRENT)
                return err_input(job->err, "%s: unknown ELF version", name);
        if (h->e_machine != machine)
                return err_input(job->err, "%s: a %u-bit ELF for machine %u; expected %u (x86%s)",
                                 name, bits, h->e_machine, machine, bits == 64 ? "-64" : "");
        if (h->e_type != ET_EXEC)
                return err_input(job->err,
                                 "%s: ELF type %u is not an executable at a fixed address (link "
                                 "it with -no-pie)",
                                 name, h->e_type);
        if (h->e_phnum == 0)
                return err_input(job->err, "%s: an ELF without program headers", name);
        if (h->e_phentsize != phentsize)
                return err_input(job->err, "%s: ELF program headers of %u bytes; expected %zu",
                                 name, h->e_phentsize, phentsize);
        if (h->e_phnum > ELF_SEGMENTS)
                return err_input(job->err, "%s: %u ELF program headers; at most %u are taken", name,
                                 h->e_phnum, ELF_SEGMENTS);
        if (!boot_file_has(&job->kernel, h->e_phoff, h->e_phnum * phentsize))
                return err_input(job->err,
                                 "%s: the ELF program headers lie past the end of the "
                                 "file",
                                 name);
        return 0;
}

/* --- program headers --- */

static int check_segment(struct boot_job *job, const Elf64_Phdr *p, unsigned number, unsigned bits)
{
        const char *name = job->kernel.name;
        uint64_t limit = bits == 64 ? UINT64_MAX : UINT32_MAX;

        if (p->p_filesz > limit - p->p_offset)
                return err_input(job->err, "%s: segment %u: its file offset and size wrap around",
                                 name, number);
        if (!boot_file_has(&job->kernel, p->p_offset, p->p_filesz))
                return err_input(job->err,
                                 "%s: segment %u: file bytes 0x%llx + 0x%llx lie past the end of "
                                 "the file (0x%llx)",
                                 name, number, (unsigned long long)p->p_offset,
                                 (unsigned long long)p->p_filesz,
                                 (unsigned long long)job->kernel.size);
        if (p->p_type != PT_LOAD)
                return 0;
        if (p->p_filesz > p->p_memsz)
                return err_input(job->err,
                                 "%s: segment %u: 0x%llx bytes in the file, but 0x%llx in memory",
                                 name, number, (unsigned long long)p->p_filesz,
                                 (unsigned long long)p->p_memsz);
        if (p->p_memsz > limit - p->p_paddr)
                return err_input(job->err,
                                 "%s: segment %u: its physical address and size wrap "
                                 "around",
                                 name, number);
        return 0;
}

/* Look for the PVH note in one PT_NOTE segment's bytes, and for notes by which Linux owns up. Every
 * step goes on by at least a note header, and none is made that does not fit; lengths have 32 bits
 * and sums 64, so none wraps. What follows name and descriptor is aligned to @align. */
static void find_notes(const uint8_t *notes, size_t len, size_t align, struct elf_image *elf,
                       bool *linux_kernel)
{
        size_t at = 0;

        while (len - at >= sizeof(Elf64_Nhdr)) {
                Elf64_Nhdr n; /* Elf32_Nhdr is the same */
                size_t name, desc;

                memcpy(&n, notes + at, sizeof n);
                name = at + sizeof n;
                desc = (name + n.n_namesz + align - 1) & ~(align - 1);
                if (desc > len || n.n_descsz > len - desc)
                        return;
                if (n.n_namesz == sizeof "Linux" &&
                    memcmp(notes + name, "Linux", sizeof "Linux") == 0)
                        *linux_kernel = true;
                if (n.n_type == XEN_ELFNOTE_PHYS32_ENTRY && !elf->has_pvh &&
                    n.n_namesz == sizeof "Xen" && memcmp(notes + name, "Xen", sizeof "Xen") == 0 &&
                    (n.n_descsz == 4 || n.n_descsz == 8)) {
                        elf->pvh_entry = 0;
                        memcpy(&elf->pvh_entry, notes + desc, n.n_descsz);
                        elf->has_pvh = 1;
                }
                at = (desc + n.n_descsz + align - 1) & ~(align - 1);
                if (at > len)
                        return;
        }
}

static int read_notes(struct boot_job *job, const Elf64_Phdr *p, unsigned number,
                      struct elf_image *elf)
{
        uint8_t *notes;
        int ret;

        if (p->p_filesz == 0)
                return 0;
        if (p->p_filesz > NOTES_MAX)
                return err_input(job->err, "%s: segment %u: %s of notes; at most %s are looked at",
                                 job->kernel.name, number, boot_size(p->p_filesz).text,
                                 boot_size(NOTES_MAX).text);
        notes = malloc(p->p_filesz);
        if (!notes)
                return err_host(job->err, ENOMEM, "%s: no memory for its notes", job->kernel.name);
        ret = boot_file_read(&job->kernel, p->p_offset, notes, p->p_filesz, job->err);
        if (ret == 0)
                find_notes(notes, p->p_filesz, p->p_align == 8 ? 8 : 4, elf, &job->linux_kernel);
        free(notes);
        return ret;
}

static int take_segment(struct boot_job *job, const Elf64_Phdr *p, unsigned number,
                        struct elf_image *elf)
{
        int ret;

        if (p->p_type != PT_LOAD && p->p_type != PT_NOTE)
                return 0;
        ret = check_segment(job, p, number, elf->bits);
        if (ret < 0)
                return ret;
        if (p->p_type == PT_NOTE)
                return read_notes(job, p, number, elf);
        if (p->p_memsz > 0)
                elf->segments[elf->nsegments++] = (struct elf_segment){
                        .number = number,
                        .offset = p->p_offset,
                        .filesz = p->p_filesz,
                        .vaddr = p->p_vaddr,
                        .paddr = p->p_paddr,
                        .memsz = p->p_memsz,
                };
        return 0;
}

int elf_parse(struct boot_job *job, struct elf_image *elf)
{
        union {
                Elf32_Phdr p32[ELF_SEGMENTS];
                Elf64_Phdr p64[ELF_SEGMENTS];
        } table;
        Elf64_Ehdr h;
        int ret;

        *elf = (struct elf_image){0};
        ret = read_header(job, &h, &elf->bits);
        if (ret == 0)
                ret = check_header(job, &h, elf->bits);
        if (ret == 0)
                ret = boot_file_read(&job->kernel, h.e_phoff, &table,
                                     (size_t)h.e_phnum * h.e_phentsize, job->err);
        for (unsigned i = 0; ret == 0 && i < h.e_phnum; i++) {
                Elf64_Phdr p = elf->bits == 64 ? table.p64[i] : widen_segment(&table.p32[i]);

                ret = take_segment(job, &p, i, elf);
        }
        if (ret < 0)
                return ret;
        if (elf->nsegments == 0)
                return err_input(job->err, "%s: an ELF with nothing to load", job->kernel.name);
        elf->entry = h.e_entry;
        return 0;
}

/* --- loading --- */

int elf_load(struct boot_job *job, const struct elf_image *elf)
{
        int ret = 0;

        for (unsigned i = 0; ret == 0 && i < elf->nsegments; i++)
                ret = boot_claim(job, elf->segments[i].paddr, elf->segments[i].memsz, "segment %u",
                                 elf->segments[i].number);
        for (unsigned i = 0; ret == 0 && i < elf->nsegments; i++) {
                const struct elf_segment *s = &elf->segments[i];

                ret = boot_put_file(job, &job->kernel, s->paddr, s->offset, s->filesz);
                if (ret == 0)
                        ret = boot_zero(job, s->paddr + s->filesz, s->memsz - s->filesz);
        }
        return ret;
}

static int in_segment(uint64_t addr, uint64_t start, uint64_t len)
{
        return addr >= start && addr - start < len;
}

int elf_check_entry(struct boot_job *job, const struct elf_image *elf, uint64_t gpa,
                    const char *what)
{
        for (unsigned i = 0; i < elf->nsegments; i++) {
                if (in_segment(gpa, elf->segments[i].paddr, elf->segments[i].filesz))
                        return 0;
        }
        return err_input(job->err, "%s: %s 0x%llx is not inside a loaded segment", job->kernel.name,
                         what, (unsigned long long)gpa);
}

/* e_entry is a virtual address by the letter, but kernels whose two addresses differ mostly put the
 * physical one there, as Linux does. Both are taken, the physical meaning first. */
int elf_entry(struct boot_job *job, const struct elf_image *elf, uint64_t *gpa)
{
        for (unsigned i = 0; i < elf->nsegments; i++) {
                if (in_segment(elf->entry, elf->segments[i].paddr, elf->segments[i].filesz)) {
                        *gpa = elf->entry;
                        return 0;
                }
        }
        for (unsigned i = 0; i < elf->nsegments; i++) {
                const struct elf_segment *s = &elf->segments[i];

                if (in_segment(elf->entry, s->vaddr, s->filesz)) {
                        *gpa = elf->entry - s->vaddr + s->paddr;
                        return 0;
                }
        }
        return elf_check_entry(job, elf, elf->entry, "its entry point");
}
