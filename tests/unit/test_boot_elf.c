/* SPDX-License-Identifier: Apache-2.0 */
/* ELF by PVH, by Linux's 64-bit entry, by multiboot; and headers that lie. */
#include "boot_images.h"

#include <asm/bootparam.h>

static void check_segments(const struct machine *m)
{
        assert_int_equal(m->ram[ELF_TEXT_PA - 1], 0xcc);
        assert_int_equal(m->ram[ELF_TEXT_PA + 0x80], 0x90);
        assert_int_equal(m->ram[ELF_TEXT_PA + 0xfff], 0x90);
        assert_int_equal(m->ram[ELF_TEXT_PA + 0x1000], 0xcc);
        assert_int_equal(m->ram[ELF_DATA_PA + 0xff], 0xdd);
        assert_int_equal(m->ram[ELF_DATA_PA + 0x100], 0); /* bss */
        assert_int_equal(m->ram[ELF_DATA_PA + 0x17ff], 0);
        assert_int_equal(m->ram[ELF_DATA_PA + 0x1800], 0xcc);
}

static void pvh_gets_its_start_info(void **state)
{
        struct machine m;
        struct image im;
        uint64_t map;

        machine_init(&m, 8 * MIB);
        image_pvh(&im);
        machine_kernel(&m, im.bytes, im.len);
        machine_initramfs(&m, "070701 and so on", 16);
        m.src.cmdline = "console=ttyS0 quiet";
        expect_loaded(&m);
        check_segments(&m);
        assert_int_equal(m.entry.mode, X86_PROT32);
        assert_int_equal(m.entry.rip, ELF_TEXT_PA + 0x40);
        assert_int_equal(m.entry.rbx, LAYOUT_BOOT_INFO);
        assert_int_equal(ram32(&m, LAYOUT_BOOT_INFO), 0x336ec578);
        assert_int_equal(ram32(&m, LAYOUT_BOOT_INFO + 4), 1);  /* version */
        assert_int_equal(ram32(&m, LAYOUT_BOOT_INFO + 12), 1); /* modules */
        assert_string_equal(m.ram + ram64(&m, LAYOUT_BOOT_INFO + 24), "console=ttyS0 quiet");
        assert_int_equal(ram64(&m, LAYOUT_BOOT_INFO + 32), LAYOUT_ACPI);
        uint64_t module = ram64(&m, LAYOUT_BOOT_INFO + 16);
        assert_int_equal(ram64(&m, module), 8 * MIB - 4096);
        assert_int_equal(ram64(&m, module + 8), 16);
        assert_memory_equal(m.ram + ram64(&m, module), "070701 and so on", 16);
        map = ram64(&m, LAYOUT_BOOT_INFO + 40);
        assert_int_equal(ram32(&m, LAYOUT_BOOT_INFO + 48), 4);
        assert_int_equal(ram64(&m, map + 8), LAYOUT_EBDA);
        assert_int_equal(ram32(&m, map + 16), 1);
        assert_int_equal(ram64(&m, map + 3 * 24), 1 * MIB);
        assert_int_equal(ram64(&m, map + 3 * 24 + 8), 7 * MIB);
        machine_fini(&m);
}

static void pvh_in_elf32_and_4_byte_note(void **state)
{
        struct machine m;
        struct image im;

        machine_init(&m, 8 * MIB);
        image_elf32(&im)->h.e_phnum = 3;
        image_note(&im, ELF_TEXT_PA + 0x44, 4);
        machine_kernel(&m, im.bytes, im.len);
        expect_loaded(&m);
        assert_int_equal(m.entry.rip, ELF_TEXT_PA + 0x44);
        assert_int_equal(ram32(&m, LAYOUT_BOOT_INFO + 12), 0); /* no module */
        assert_int_equal(ram64(&m, LAYOUT_BOOT_INFO + 16), 0);
        machine_fini(&m);
}

static void elf64_without_note_goes_by_linux64(void **state)
{
        const struct boot_params *bp;
        struct machine m;
        struct image im;

        machine_init(&m, 8 * MIB);
        image_elf64(&im);
        machine_kernel(&m, im.bytes, im.len);
        machine_initramfs(&m, "0123456789abcdef", 16);
        m.src.cmdline = "root=/dev/vda";
        expect_loaded(&m);
        check_segments(&m);
        assert_int_equal(m.entry.mode, X86_LONG64);
        assert_int_equal(m.entry.rip, ELF_TEXT_PA + ELF_ENTRY);
        assert_int_equal(m.entry.rsi, LAYOUT_BOOT_INFO);
        bp = (const void *)(m.ram + LAYOUT_BOOT_INFO);
        assert_int_equal(bp->hdr.header, 0x53726448);
        assert_int_equal(bp->hdr.type_of_loader, 0xff);
        assert_int_equal(bp->sentinel, 0);
        assert_string_equal(m.ram + bp->hdr.cmd_line_ptr, "root=/dev/vda");
        assert_int_equal(bp->hdr.ramdisk_size, 16);
        assert_memory_equal(m.ram + bp->hdr.ramdisk_image, "0123456789abcdef", 16);
        assert_int_equal(bp->acpi_rsdp_addr, LAYOUT_ACPI);
        assert_int_equal(bp->e820_entries, 4);
        assert_int_equal(bp->e820_table[3].addr, 1 * MIB);
        machine_fini(&m);
}

/* A virtual e_entry, as the ELF specification has it, is brought to its physical address. */
static void virtual_entry_is_translated(void **state)
{
        struct machine m;
        struct image im;

        machine_init(&m, 8 * MIB);
        image_elf64(&im)->h.e_entry = 0xffffffff80100020;
        machine_kernel(&m, im.bytes, im.len);
        expect_loaded(&m);
        assert_int_equal(m.entry.rip, ELF_TEXT_PA + 0x20);
        machine_fini(&m);
}

/* --- lies --- */

static void p64_offset_past_end(struct image_elf64 *e)
{
        e->p[1].p_offset = 0x5000;
}

static void p64_size_past_end(struct image_elf64 *e)
{
        e->p[1].p_filesz = e->p[1].p_memsz = 0x10000;
}

static void p64_file_wraps(struct image_elf64 *e)
{
        e->p[1].p_offset = UINT64_MAX - 0x7f;
}

static void p64_memory_wraps(struct image_elf64 *e)
{
        e->p[1].p_paddr = UINT64_MAX - 0xfff;
}

static void p64_memsz_huge(struct image_elf64 *e)
{
        e->p[1].p_memsz = UINT64_MAX - ELF_DATA_PA + 1; /* the sum is 0 */
}

static void p64_filesz_above_memsz(struct image_elf64 *e)
{
        e->p[1].p_memsz = 0xff;
}

static void p64_overlap(struct image_elf64 *e)
{
        e->p[1].p_paddr = ELF_TEXT_PA + 0xfff;
}

static void p64_overlap_below(struct image_elf64 *e)
{
        e->p[1].p_paddr = ELF_TEXT_PA;
        e->p[0].p_paddr = ELF_TEXT_PA + 0x17ff;
        e->h.e_entry = ELF_TEXT_PA + 0x1800;
}

static void p64_outside_ram(struct image_elf64 *e)
{
        e->p[1].p_paddr = 8 * MIB - 0x17ff;
}

static void p64_far_outside_ram(struct image_elf64 *e)
{
        e->p[1].p_paddr = 1ull << 40;
}

static void p64_in_hole(struct image_elf64 *e)
{
        e->p[1].p_paddr = 0xb8000;
}

static void p64_in_acpi(struct image_elf64 *e)
{
        e->p[1].p_paddr = LAYOUT_ACPI;
}

static void p64_over_gdt(struct image_elf64 *e)
{
        e->p[1].p_paddr = 0x100;
}

static void p64_over_info(struct image_elf64 *e)
{
        e->p[1].p_paddr = LAYOUT_BOOT_INFO - 0x17ff;
}

static void p64_over_pagetables(struct image_elf64 *e)
{
        e->p[1].p_paddr = LAYOUT_BOOT_PAGETABLES + 0x5fff;
}

static void p64_over_cmdline(struct image_elf64 *e)
{
        e->p[1].p_paddr = LAYOUT_CMDLINE + 0x8000;
}

static void h64_many_headers(struct image_elf64 *e)
{
        e->h.e_phnum = 65;
}

static void h64_most_headers(struct image_elf64 *e)
{
        e->h.e_phnum = 0xffff;
}

static void h64_no_headers(struct image_elf64 *e)
{
        e->h.e_phnum = 0;
}

static void h64_phentsize(struct image_elf64 *e)
{
        e->h.e_phentsize = 32;
}

static void h64_phoff_past_end(struct image_elf64 *e)
{
        e->h.e_phoff = 0x21f0;
}

static void h64_phoff_wraps(struct image_elf64 *e)
{
        e->h.e_phoff = UINT64_MAX - 8;
}

static void h64_machine(struct image_elf64 *e)
{
        e->h.e_machine = EM_AARCH64;
}

static void h64_type(struct image_elf64 *e)
{
        e->h.e_type = ET_REL;
}

static void h64_dyn(struct image_elf64 *e)
{
        e->h.e_type = ET_DYN;
}

static void h64_class(struct image_elf64 *e)
{
        e->h.e_ident[EI_CLASS] = 7;
}

static void h64_endian(struct image_elf64 *e)
{
        e->h.e_ident[EI_DATA] = ELFDATA2MSB;
}

static void h64_version(struct image_elf64 *e)
{
        e->h.e_version = 2;
}

static void h64_entry_outside(struct image_elf64 *e)
{
        e->h.e_entry = ELF_TEXT_PA + 0x1000;
}

static void h64_entry_in_bss(struct image_elf64 *e)
{
        e->h.e_entry = ELF_DATA_PA + 0x100;
}

static void p64_nothing_to_load(struct image_elf64 *e)
{
        e->p[0].p_type = e->p[1].p_type = PT_NULL;
}

static void note_past_end(struct image_elf64 *e)
{
        e->h.e_phnum = 3;
        e->p[2].p_offset = 0x21f0;
}

static void note_wraps(struct image_elf64 *e)
{
        e->h.e_phnum = 3;
        e->p[2].p_filesz = UINT64_MAX - 0xff;
}

static const struct lie {
        void (*lie)(struct image_elf64 *);
        const char *text;
} lies[] = {
        {p64_offset_past_end, "segment 1: file bytes 0x5000 + 0x100 lie past the end of the file"},
        {p64_size_past_end, "segment 1: file bytes 0x2000 + 0x10000 lie past the end of the file"},
        {p64_file_wraps, "segment 1: its file offset and size wrap around"},
        {p64_memory_wraps, "segment 1: its physical address and size wrap around"},
        {p64_memsz_huge, "segment 1: its physical address and size wrap around"},
        {p64_filesz_above_memsz, "segment 1: 0x100 bytes in the file, but 0xff in memory"},
        {p64_overlap, "segment 1 (0x100fff-0x1027fe) overlaps segment 0 (0x100000-0x100fff)"},
        {p64_overlap_below, "segment 1 (0x100000-0x1017ff) overlaps segment 0 (0x1017ff-0x1027fe)"},
        {p64_outside_ram, "segment 1 (0x7fe801-0x800000) lies outside RAM (0x0-0x9fbff, "
                          "0x100000-0x7fffff)"},
        {p64_far_outside_ram, "segment 1 (0x10000000000-0x100000017ff) lies outside RAM"},
        {p64_in_hole, "segment 1 (0xb8000-0xb97ff) lies outside RAM"},
        {p64_in_acpi, "segment 1 (0xe0000-0xe17ff) lies outside RAM"},
        {p64_over_gdt, "segment 1 (0x100-0x18ff) overlaps the boot GDT (0x500-0x52f)"},
        {p64_over_info, "segment 1 (0x5801-0x7000) overlaps the boot information (0x7000-0x7fff)"},
        {p64_over_pagetables, "segment 1 (0xefff-0x107fe) overlaps the page tables"},
        {p64_over_cmdline, "segment 1 (0x28000-0x297ff) overlaps the command line"},
        {h64_many_headers, "65 ELF program headers; at most 64 are taken"},
        {h64_most_headers, "65535 ELF program headers; at most 64 are taken"},
        {h64_no_headers, "an ELF without program headers"},
        {h64_phentsize, "ELF program headers of 32 bytes; expected 56"},
        {h64_phoff_past_end, "the ELF program headers lie past the end of the file"},
        {h64_phoff_wraps, "the ELF program headers lie past the end of the file"},
        {h64_machine, "a 64-bit ELF for machine 183; expected 62 (x86-64)"},
        {h64_type, "ELF type 1 is not an executable at a fixed address"},
        {h64_dyn, "ELF type 3 is not an executable at a fixed address"},
        {h64_class, "ELF class 7 is neither 32-bit nor 64-bit"},
        {h64_endian, "a big-endian ELF"},
        {h64_version, "unknown ELF version"},
        {h64_entry_outside, "its entry point 0x101000 is not inside a loaded segment"},
        {h64_entry_in_bss, "its entry point 0x200100 is not inside a loaded segment"},
        {p64_nothing_to_load, "an ELF with nothing to load"},
        {note_past_end, "segment 2: file bytes 0x21f0 + 0x30 lie past the end of the file"},
        {note_wraps, "segment 2: its file offset and size wrap around"},
};

static void lies_are_refused_by_name(void **state)
{
        for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
                struct machine m;
                struct image im;

                machine_init(&m, 8 * MIB);
                lies[i].lie(image_elf64(&im));
                machine_kernel(&m, im.bytes, im.len);
                expect_refused(&m, lies[i].text);
                assert_non_null(strstr(m.err.text, "kernel.img: "));
                machine_fini(&m);
        }
}

/* What wraps in 32 bits does not pass because the sum is made in 64. */
static void elf32_wraps_at_4_gib(void **state)
{
        struct machine m;
        struct image im;
        struct image_elf32 *e;

        machine_init(&m, 8 * MIB);
        e = image_multiboot(&im, 0);
        e->p[1].p_paddr = 0xfffff000;
        e->p[1].p_memsz = 0x2000;
        machine_kernel(&m, im.bytes, im.len);
        expect_refused(&m, "segment 1: its physical address and size wrap around");
        e->p[1].p_paddr = ELF_DATA_PA;
        e->p[1].p_offset = 0xffffff80;
        pwrite(m.kernel_fd, im.bytes, im.len, 0);
        expect_refused(&m, "segment 1: its file offset and size wrap around");
        machine_fini(&m);
}

static void pvh_entry_must_be_loaded(void **state)
{
        static const struct {
                uint64_t entry;
                const char *text;
        } cases[] = {
                {0x500000, "the PVH entry point 0x500000 is not inside a loaded segment"},
                {0, "the PVH entry point 0x0 is not inside"},
                {1ull << 32, "the PVH entry point 0x100000000 is not below 4 GiB"},
        };

        for (unsigned i = 0; i < 3; i++) {
                struct machine m;
                struct image im;

                machine_init(&m, 8 * MIB);
                image_pvh(&im);
                image_note(&im, cases[i].entry, 8);
                machine_kernel(&m, im.bytes, im.len);
                expect_refused(&m, cases[i].text);
                machine_fini(&m);
        }
}

/* Notes whose lengths lie end the walk: the image is then one without a PVH note. */
static void lying_notes_are_not_followed(void **state)
{
        static const struct {
                size_t offset; /* in the note segment */
                uint32_t value;
        } cases[] = {{0, 0xffffffff}, {4, 0xffffffff}, {24, 0xfffffffd}, {28, 0xfffffffd},
                     {28, 0x40},      {4, 0xfffffff0}, {0, 0x21},        {28, 3}};

        for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                struct machine m;
                struct image im;

                machine_init(&m, 8 * MIB);
                image_pvh(&im);
                memcpy(im.bytes + ELF_NOTE + cases[i].offset, &cases[i].value, 4);
                machine_kernel(&m, im.bytes, im.len);
                expect_loaded(&m);
                assert_int_equal(m.entry.mode, X86_LONG64);
                machine_fini(&m);
        }
}

/* A kernel with a note of Linux's own gets the TSC's frequency, others get what the user gave. */
static void tsc_frequency_is_for_linux(void **state)
{
        static const Elf64_Nhdr note = {.n_namesz = 6, .n_descsz = 4, .n_type = 256};
        struct machine m;
        struct image im;

        machine_init(&m, 8 * MIB);
        image_pvh(&im)->p[2].p_filesz = 0x30 + 24;
        machine_kernel(&m, im.bytes, im.len);
        m.src.cmdline = "quiet";
        m.src.tsc_khz = 2000000;
        expect_loaded(&m);
        assert_string_equal(m.ram + LAYOUT_CMDLINE, "quiet");
        memcpy(im.bytes + ELF_NOTE + 0x30, &note, sizeof note);
        memcpy(im.bytes + ELF_NOTE + 0x3c, "Linux", 6);
        assert_int_equal(pwrite(m.kernel_fd, im.bytes, im.len, 0), (ssize_t)im.len);
        expect_loaded(&m);
        assert_string_equal(m.ram + LAYOUT_CMDLINE, "tsc_early_khz=2000000 quiet");
        assert_int_equal(m.entry.mode, X86_PROT32);
        machine_fini(&m);
}

/* Nor is a note read that sticks out of its segment, at whatever byte that ends. */
static void notes_end_with_their_segment(void **state)
{
        for (unsigned len = 0; len <= 0x30; len++) {
                struct machine m;
                struct image im;

                machine_init(&m, 8 * MIB);
                image_pvh(&im)->p[2].p_filesz = len;
                machine_kernel(&m, im.bytes, im.len);
                expect_loaded(&m);
                assert_int_equal(m.entry.mode, len == 0x30 ? X86_PROT32 : X86_LONG64);
                machine_fini(&m);
        }
}

static void cut_short_anywhere(void **state)
{
        struct machine m;
        struct image im;

        machine_init(&m, 8 * MIB);
        image_pvh(&im);
        machine_kernel(&m, im.bytes, im.len);
        for (off_t len = (off_t)im.len - 0xd1; len >= 0; len -= len > 0x200 ? 61 : 1) {
                assert_int_equal(ftruncate(m.kernel_fd, len), 0);
                m.err.text[0] = 0;
                assert_int_equal(machine_boot(&m), -EINVAL);
                assert_true(m.err.text[0]);
        }
        assert_non_null(strstr(m.err.text, "kernel.img: the file is empty"));
        machine_fini(&m);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(pvh_gets_its_start_info),
                cmocka_unit_test(pvh_in_elf32_and_4_byte_note),
                cmocka_unit_test(elf64_without_note_goes_by_linux64),
                cmocka_unit_test(virtual_entry_is_translated),
                cmocka_unit_test(lies_are_refused_by_name),
                cmocka_unit_test(elf32_wraps_at_4_gib),
                cmocka_unit_test(pvh_entry_must_be_loaded),
                cmocka_unit_test(lying_notes_are_not_followed),
                cmocka_unit_test(tsc_frequency_is_for_linux),
                cmocka_unit_test(notes_end_with_their_segment),
                cmocka_unit_test(cut_short_anywhere),
        };

        return cmocka_run_group_tests_name("boot_elf", tests, NULL, NULL);
}
