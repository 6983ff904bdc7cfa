/* SPDX-License-Identifier: Apache-2.0 */
/* Multiboot: ELF and load addresses, the information structure, and headers that lie. */
#include "boot_images.h"

/* Offsets are those of the Multiboot specification 0.6.96, section 3.3. */
static uint32_t info(const struct machine *m, unsigned offset)
{
        return ram32(m, m->entry.rbx + offset);
}

static void information_is_complete(void **state)
{
        struct machine m;
        struct image im;
        uint64_t map;

        machine_init(&m, 8 * MIB);
        image_multiboot(&im, 3);
        machine_kernel(&m, im.bytes, im.len);
        machine_initramfs(&m, "a module's bytes", 16);
        m.src.kernel_name = "guests/kernel.elf";
        m.src.cmdline = "one two=3";
        expect_loaded(&m);
        assert_int_equal(m.entry.mode, X86_PROT32);
        assert_int_equal(m.entry.rax, 0x2badb002);
        assert_int_equal(m.entry.rip, ELF_TEXT_PA + ELF_ENTRY);
        assert_int_equal(m.ram[ELF_TEXT_PA + 0xfff], 0x90);
        assert_int_equal(m.ram[ELF_DATA_PA + 0x17ff], 0);
        assert_int_equal(info(&m, 0), 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
        assert_int_equal(info(&m, 4), 639);
        assert_int_equal(info(&m, 8), 7 * 1024);
        assert_string_equal(m.ram + info(&m, 16), "guests/kernel.elf one two=3");
        assert_string_equal(m.ram + info(&m, 64), "ramet");

        assert_int_equal(info(&m, 20), 1); /* modules */
        uint32_t module = info(&m, 24), start = ram32(&m, module);
        assert_int_equal(start % 4096, 0);
        assert_int_equal(ram32(&m, module + 4), start + 16);
        assert_memory_equal(m.ram + start, "a module's bytes", 16);
        assert_string_equal(m.ram + ram32(&m, module + 8), "initrd.cpio");

        assert_int_equal(info(&m, 44), 4 * 24);
        map = info(&m, 48);
        assert_int_equal(ram32(&m, map), 20);
        assert_int_equal(ram64(&m, map + 4), 0);
        assert_int_equal(ram64(&m, map + 12), LAYOUT_EBDA);
        assert_int_equal(ram32(&m, map + 20), 1);
        assert_int_equal(ram64(&m, map + 72 + 4), 1 * MIB);
        assert_int_equal(ram64(&m, map + 72 + 12), 7 * MIB);
        machine_fini(&m);
}

static void without_arguments_and_module(void **state)
{
        struct machine m;
        struct image im;

        machine_init(&m, 8 * MIB);
        image_multiboot(&im, 0);
        machine_kernel(&m, im.bytes, im.len);
        expect_loaded(&m);
        assert_string_equal(m.ram + info(&m, 16), "kernel.img");
        assert_int_equal(info(&m, 20), 0);
        machine_fini(&m);
}

/* Bit 2 (video) is let pass, bits 3 to 15 are not. */
static void required_flags(void **state)
{
        for (unsigned bit = 0; bit < 16; bit++) {
                struct machine m;
                struct image im;
                char text[64];

                machine_init(&m, 8 * MIB);
                image_multiboot(&im, 1u << bit);
                machine_kernel(&m, im.bytes, im.len);
                snprintf(text, sizeof text, "multiboot flags 0x%x require", 1u << bit);
                if (bit <= 2)
                        expect_loaded(&m);
                else
                        expect_refused(&m, text);
                machine_fini(&m);
        }
}

/* The header must be whole inside the first 8 KiB, aligned, with a right checksum. */
static void where_a_header_may_stand(void **state)
{
        static const struct {
                size_t at;
                uint32_t flags;
                uint32_t checksum_error;
                int found;
        } cases[] = {
                {0x1000, 0, 0, 1},
                {0x1000, 0, 1, 0},
                {0x1002, 0, 0, 0},
                {8192 - 12, 0, 0, 1},
                {8192 - 8, 0, 0, 0},
                /* A checksum that is right only if read from behind the copy: zeroes, or a length.
                 */
                {8192 - 8, 0u - 0x1badb002, 0, 0},
                {8192 - 8, 0u - 0x1badb002 - 8192, 0, 0},
                {8192, 0, 0, 0},
                {8192 - 12, 1u << 16, 0, 0}, /* the addresses stick out */
        };

        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                struct machine m;
                struct image im;

                machine_init(&m, 8 * MIB);
                image_elf32(&im);
                im.len = IMAGE_MAX;
                image_multiboot_header(&im, cases[i].at, cases[i].flags);
                im.bytes[cases[i].at + 8] += (uint8_t)cases[i].checksum_error;
                machine_kernel(&m, im.bytes, im.len);
                if (cases[i].found)
                        expect_loaded(&m);
                else
                        expect_refused(&m, "neither a multiboot header nor a PVH note");
                machine_fini(&m);
        }
}

/* A header in a 64-bit ELF counts when no PVH note says better. */
static void header_in_elf64(void **state)
{
        struct machine m;
        struct image im;

        machine_init(&m, 8 * MIB);
        image_elf64(&im);
        image_multiboot_header(&im, MB_AT, 0);
        machine_kernel(&m, im.bytes, im.len);
        expect_loaded(&m);
        assert_int_equal(m.entry.rax, 0x2badb002);
        image_pvh(&im);
        image_multiboot_header(&im, MB_AT, 0);
        assert_int_equal(pwrite(m.kernel_fd, im.bytes, im.len, 0), (ssize_t)im.len);
        expect_loaded(&m);
        assert_int_equal(m.entry.rax, 0);
        assert_int_equal(m.entry.rip, ELF_TEXT_PA + 0x40);
        machine_fini(&m);
}

static void load_addresses(void **state)
{
        struct machine m;
        struct image im;

        machine_init(&m, 8 * MIB);
        image_kludge(&im);
        machine_kernel(&m, im.bytes, im.len);
        expect_loaded(&m);
        assert_int_equal(m.entry.mode, X86_PROT32);
        assert_int_equal(m.entry.rip, KLUDGE_PA + 0x80);
        assert_int_equal(ram32(&m, KLUDGE_PA + KLUDGE_AT - KLUDGE_FROM), 0x1badb002);
        assert_int_equal(m.ram[KLUDGE_PA - 1], 0xcc);
        assert_int_equal(m.ram[KLUDGE_PA + 0x6ff], 0x90);
        assert_int_equal(m.ram[KLUDGE_PA + 0x700], 0);
        assert_int_equal(m.ram[KLUDGE_PA + 0xfff], 0);
        assert_int_equal(m.ram[KLUDGE_PA + 0x1000], 0xcc);
        machine_fini(&m);
}

/* load_end_addr 0 means to the end of the file, bss_end_addr 0 means none. */
static void load_addresses_by_default(void **state)
{
        struct machine m;
        struct image im;
        uint32_t *words;

        machine_init(&m, 8 * MIB);
        words = image_kludge(&im);
        words[5] = words[6] = 0;
        machine_kernel(&m, im.bytes, im.len);
        expect_loaded(&m);
        assert_int_equal(m.ram[KLUDGE_PA + 0x800 - KLUDGE_FROM - 1], 0x90);
        assert_int_equal(m.ram[KLUDGE_PA + 0x800 - KLUDGE_FROM], 0xcc);
        machine_fini(&m);
}

static const struct {
        unsigned word;
        uint32_t value;
        const char *text;
} lies[] = {
        {3, KLUDGE_PA - 1, "multiboot load_addr 0x300000 does not fit header_addr 0x2fffff"},
        {3, KLUDGE_PA + KLUDGE_AT + 1, "does not fit header_addr"},
        {4, 0xffffffff, "multiboot load_addr 0xffffffff does not fit header_addr"},
        {4, 0, "multiboot load_addr 0x0 does not fit header_addr"},
        {5, KLUDGE_PA, "multiboot load_end_addr 0x300000 is not above load_addr 0x300000"},
        {5, KLUDGE_PA + 0x7f1, "multiboot load_end_addr 0x3007f1 lies past the end of the file"},
        {5, 0xffffffff, "multiboot load_end_addr 0xffffffff lies past the end of the file"},
        {6, KLUDGE_PA + 0x6ff, "multiboot bss_end_addr 0x3006ff is below the loaded data's end"},
        {6, 0xffffffff, "the multiboot image (0x300000-0xfffffffe) lies outside RAM"},
        {7, KLUDGE_PA - 1, "multiboot entry_addr 0x2fffff is not inside what is loaded"},
        {7, KLUDGE_PA + 0x700, "multiboot entry_addr 0x300700 is not inside what is loaded"},
};

static void lies_are_refused(void **state)
{
        for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
                struct machine m;
                struct image im;

                machine_init(&m, 8 * MIB);
                image_kludge(&im)[lies[i].word] = lies[i].value;
                machine_kernel(&m, im.bytes, im.len);
                expect_refused(&m, lies[i].text);
                machine_fini(&m);
        }
}

static void raw_image_needs_addresses(void **state)
{
        struct machine m;
        struct image im;

        machine_init(&m, 8 * MIB);
        image_kludge(&im);
        image_multiboot_header(&im, KLUDGE_AT, 0);
        machine_kernel(&m, im.bytes, im.len);
        expect_refused(&m, "neither ELF nor has load addresses (flag bit 16)");
        machine_fini(&m);
}

static void strings_must_fit(void **state)
{
        char *args = malloc(LAYOUT_CMDLINE_MAX);
        struct machine m;
        struct image im;
        size_t fits = LAYOUT_CMDLINE_MAX - strlen("kernel.img") - 3; /* a blank, two NULs */

        machine_init(&m, 8 * MIB);
        image_multiboot(&im, 0);
        machine_kernel(&m, im.bytes, im.len);
        memset(args, 'x', LAYOUT_CMDLINE_MAX);
        m.src.cmdline = args;
        args[fits] = 0;
        expect_loaded(&m);
        assert_int_equal(strlen((char *)m.ram + LAYOUT_CMDLINE), LAYOUT_CMDLINE_MAX - 2);
        assert_int_equal(m.ram[LAYOUT_CMDLINE + LAYOUT_CMDLINE_MAX], 0xcc);
        args[fits] = 'x';
        args[fits + 1] = 0;
        expect_refused(&m, "must fit into 64 KiB");
        free(args);
        machine_fini(&m);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(information_is_complete),
                cmocka_unit_test(without_arguments_and_module),
                cmocka_unit_test(required_flags),
                cmocka_unit_test(where_a_header_may_stand),
                cmocka_unit_test(header_in_elf64),
                cmocka_unit_test(load_addresses),
                cmocka_unit_test(load_addresses_by_default),
                cmocka_unit_test(lies_are_refused),
                cmocka_unit_test(raw_image_needs_addresses),
                cmocka_unit_test(strings_must_fit),
        };

        return cmocka_run_group_tests_name("boot_multiboot", tests, NULL, NULL);
}
