/* SPDX-License-Identifier: Apache-2.0 */
/* bzImage: what goes into boot_params, where the kernel goes, and headers that lie. */
#include "boot_images.h"

#include <asm/bootparam.h>

#define LOAD 0x200000u /* pref_address */

struct sample {
        struct machine m;
        struct image im;
        struct setup_header *hdr;
};

/* Two setup sectors, then 0x800 bytes of kernel; a command line and an initramfs. */
static void sample_init(struct sample *s)
{
        machine_init(&s->m, 8 * MIB);
        s->hdr = image_bzimage(&s->im);
        s->m.src.cmdline = "console=ttyS0";
        machine_initramfs(&s->m, "0123456789abcdef", 16);
}

static void sample_seal(struct sample *s)
{
        machine_kernel(&s->m, s->im.bytes, s->im.len);
}

static const struct boot_params *params(const struct machine *m)
{
        return (const void *)(m->ram + LAYOUT_BOOT_INFO);
}

static void entered_in_long_mode(void **state)
{
        const struct boot_params *bp;
        struct sample s;

        sample_init(&s);
        sample_seal(&s);
        expect_loaded(&s.m);
        assert_int_equal(s.m.entry.mode, X86_LONG64);
        assert_int_equal(s.m.entry.rip, LOAD + 0x200);
        assert_int_equal(s.m.entry.rsi, LAYOUT_BOOT_INFO);
        assert_int_equal(s.m.ram[LOAD - 1], 0xcc);
        assert_int_equal(s.m.ram[LOAD], 0xb2);
        assert_int_equal(s.m.ram[LOAD + 0x7ff], 0xb2);
        bp = params(&s.m);
        assert_int_equal(bp->hdr.header, 0x53726448);
        assert_int_equal(bp->hdr.version, 0x020c);
        assert_int_equal(bp->hdr.type_of_loader, 0xff);
        assert_int_equal(bp->hdr.code32_start, LOAD);
        assert_int_equal(bp->hdr.ramdisk_size, 16);
        assert_int_equal(bp->hdr.ramdisk_image % 4096, 0);
        assert_memory_equal(s.m.ram + bp->hdr.ramdisk_image, "0123456789abcdef", 16);
        assert_string_equal(s.m.ram + bp->hdr.cmd_line_ptr, "console=ttyS0");
        assert_int_equal(bp->acpi_rsdp_addr, LAYOUT_ACPI);
        assert_int_equal(bp->sentinel, 0); /* the file has 0xff there */
        assert_int_equal(bp->e820_entries, 4);
        assert_int_equal(bp->e820_table[0].size, LAYOUT_EBDA);
        assert_int_equal(bp->e820_table[2].type, 2);
        assert_int_equal(bp->e820_table[3].size, 7 * MIB);
        machine_fini(&s.m);
}

/* The header is copied as far as it says it goes, and never over what follows it. */
static void header_copy_is_bounded(void **state)
{
        static const struct {
                uint8_t jump; /* the byte at 0x201 */
                uint8_t at_handover, at_kernel_info, unknown;
        } cases[] = {{0x62, 0, 0, 0},
                     {0x66, 0xee, 0, 0},
                     {0x6a, 0xee, 0xee, 0},
                     {0xff, 0xee, 0xee, 0xee}};

        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                struct sample s;

                sample_init(&s);
                memset(s.im.bytes + 0x264, 0xee, 0x200);
                s.im.bytes[0x201] = cases[i].jump;
                sample_seal(&s);
                expect_loaded(&s.m);
                assert_int_equal(s.m.ram[LAYOUT_BOOT_INFO + 0x264], cases[i].at_handover);
                assert_int_equal(s.m.ram[LAYOUT_BOOT_INFO + 0x268], cases[i].at_kernel_info);
                assert_int_equal(s.m.ram[LAYOUT_BOOT_INFO + 0x28f], cases[i].unknown);
                assert_int_equal(s.m.ram[LAYOUT_BOOT_INFO + 0x290], 0);
                assert_int_equal(params(&s.m)->hdr.init_size, 0x100000);
                machine_fini(&s.m);
        }
}

static void setup_sects_0_means_4(void **state)
{
        struct sample s;

        sample_init(&s);
        s.hdr->setup_sects = 0;
        s.im.len = 5 * 512 + 0x400;
        s.hdr->syssize = 0x40;
        memset(s.im.bytes + 5 * 512, 0x44, 0x400);
        sample_seal(&s);
        expect_loaded(&s.m);
        assert_int_equal(s.m.ram[LOAD], 0x44);
        machine_fini(&s.m);
}

/* Only a relocatable kernel aligns itself. */
static void fixed_kernel_ignores_alignment(void **state)
{
        struct sample s;

        sample_init(&s);
        s.hdr->relocatable_kernel = 0;
        s.hdr->kernel_alignment = 0x80000000;
        sample_seal(&s);
        expect_loaded(&s.m);
        machine_fini(&s.m);
}

/* Linux is told the TSC's frequency, unless the user did or there is no room for it. */
static void tsc_frequency_goes_first(void **state)
{
        static const struct {
                const char *cmdline, *expected;
                uint32_t max;
        } cases[] = {
                {"", "tsc_early_khz=2000000", 2047},
                {"quiet -- -x", "tsc_early_khz=2000000 quiet -- -x", 2047},
                {"quiet", "tsc_early_khz=2000000 quiet", 27},
                {"quiet", "quiet", 26},
                {"tsc_early_khz=1", "tsc_early_khz=1", 2047},
        };

        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                struct sample s;

                sample_init(&s);
                s.m.src.tsc_khz = 2000000;
                s.m.src.cmdline = cases[i].cmdline;
                s.hdr->cmdline_size = cases[i].max;
                sample_seal(&s);
                expect_loaded(&s.m);
                assert_string_equal(s.m.ram + LAYOUT_CMDLINE, cases[i].expected);
                machine_fini(&s.m);
        }
}

/* --- refused --- */

static void old_protocol(struct sample *s)
{
        s->hdr->version = 0x0206;
}

static void only_32_bit(struct sample *s)
{
        s->hdr->xloadflags = 0;
}

static void not_high(struct sample *s)
{
        s->hdr->loadflags = 0;
}

static void short_header(struct sample *s)
{
        s->im.bytes[0x201] = 0x61;
}

static void alignment_0(struct sample *s)
{
        s->hdr->kernel_alignment = 0;
}

static void alignment_odd(struct sample *s)
{
        s->hdr->kernel_alignment = 0x300000;
}

static void pref_low(struct sample *s)
{
        s->hdr->pref_address = 0x90000;
}

static void pref_high(struct sample *s)
{
        s->hdr->pref_address = UINT64_MAX;
}

static void pref_outside(struct sample *s)
{
        s->hdr->pref_address = 16 * MIB;
}

static void init_size_too_big(struct sample *s)
{
        s->hdr->init_size = 6 * MIB + 1;
}

static void init_size_huge(struct sample *s)
{
        s->hdr->init_size = UINT32_MAX;
}

static void alignment_moves_it_out(struct sample *s)
{
        s->hdr->kernel_alignment = 0x80000000;
}

static void syssize_past_end(struct sample *s)
{
        s->hdr->syssize = 0x81;
}

static void nothing_after_setup(struct sample *s)
{
        s->im.len = 3 * 512;
}

static void sectors_past_end(struct sample *s)
{
        s->hdr->setup_sects = 255;
}

static void no_entry(struct sample *s)
{
        s->im.len = 3 * 512 + 0x200;
        s->hdr->syssize = 0x20;
}

static void cut_in_header(struct sample *s)
{
        s->im.len = 0x240;
}

static void long_command_line(struct sample *s)
{
        s->m.src.cmdline = "console=ttyS0 1";
        s->hdr->cmdline_size = 14;
}

static void initrd_limit_low(struct sample *s)
{
        s->hdr->initrd_addr_max = 0xfffff;
}

static const struct {
        void (*lie)(struct sample *);
        const char *text;
} lies[] = {
        {old_protocol, "Linux boot protocol 2.06 is too old: 2.12 (Linux 3.8)"},
        {only_32_bit, "a 32-bit bzImage; a 64-bit kernel is needed"},
        {not_high, "a zImage, which loads below 1 MiB"},
        {short_header, "its setup header ends at 0x263, before that of init_size"},
        {alignment_0, "kernel_alignment 0x0 is not a power of two"},
        {alignment_odd, "kernel_alignment 0x300000 is not a power of two"},
        {pref_low, "pref_address 0x90000 is not between 1 MiB and 4 GiB"},
        {pref_high, "pref_address 0xffffffffffffffff is not between"},
        {pref_outside, "runs from 16 MiB on and needs 1 MiB there; the VM's memory below 4 GiB "
                       "ends at 8 MiB"},
        {init_size_too_big, "runs from 2 MiB on and needs 6.0 MiB there"},
        {init_size_huge, "runs from 2 MiB on and needs 4.0 GiB there"},
        {alignment_moves_it_out, "runs from 2 MiB on and needs 2.0 GiB there"},
        {syssize_past_end, "cut short: its header counts 2.0 KiB, the file has 2 KiB"},
        {nothing_after_setup, "cut short: nothing follows its setup code"},
        {sectors_past_end, "cut short: nothing follows its setup code"},
        {no_entry, "cut short before its 64-bit entry point"},
        {cut_in_header, "cut short inside its setup header"},
        {long_command_line, "the command line has 15 bytes, it takes 14"},
        {initrd_limit_low, "initrd.cpio: does not fit into memory beside the kernel"},
};

static void lies_are_refused(void **state)
{
        for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
                struct sample s;

                sample_init(&s);
                lies[i].lie(&s);
                sample_seal(&s);
                expect_refused(&s.m, lies[i].text);
                machine_fini(&s.m);
        }
}

/* All of what init_size asks for is kept free of the initramfs, and so is its limit. */
static void initramfs_keeps_out_of_the_way(void **state)
{
        struct sample s;
        uint32_t at;

        sample_init(&s);
        s.hdr->init_size = 6 * MIB; /* to the end of RAM: it must go below the kernel */
        sample_seal(&s);
        expect_loaded(&s.m);
        at = params(&s.m)->hdr.ramdisk_image;
        assert_int_equal(at, LOAD - 4096);
        machine_fini(&s.m);

        sample_init(&s);
        s.hdr->initrd_addr_max = 5 * MIB - 1;
        sample_seal(&s);
        expect_loaded(&s.m);
        assert_int_equal(params(&s.m)->hdr.ramdisk_image, 5 * MIB - 4096);
        machine_fini(&s.m);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(entered_in_long_mode),
                cmocka_unit_test(header_copy_is_bounded),
                cmocka_unit_test(setup_sects_0_means_4),
                cmocka_unit_test(fixed_kernel_ignores_alignment),
                cmocka_unit_test(tsc_frequency_goes_first),
                cmocka_unit_test(lies_are_refused),
                cmocka_unit_test(initramfs_keeps_out_of_the_way),
        };

        return cmocka_run_group_tests_name("boot_bzimage", tests, NULL, NULL);
}
