/* SPDX-License-Identifier: Apache-2.0 */
/* What all protocols share: recognising a file, the memory map, the initramfs, flat binaries. */
#include "boot_images.h"

#include <fcntl.h>

static const char no_kernel[] =
        "kernel.img: not a kernel: no bzImage header, ELF, or multiboot magic in its first 8 KiB";

static void refuse_bytes(const void *bytes, size_t len, const char *text)
{
        struct machine m;

        machine_init(&m, 4 * MIB);
        machine_kernel(&m, bytes, len);
        expect_refused(&m, text);
        machine_fini(&m);
}

static void what_is_no_kernel(void **state)
{
        static uint8_t junk[20000];
        static const struct {
                const char *magic;
                size_t len;
                const char *text;
        } known[] = {
                {"\x1f\x8b\x08", 3, "not a kernel: gzip data: decompress it first"},
                {"\xfd"
                 "7zXZ",
                 5, "not a kernel: xz data"},
                {"\x28\xb5\x2f\xfd", 4, "not a kernel: zstd data"},
                {"070701", 6, "not a kernel: a cpio archive, perhaps an initramfs"},
                {"MZ", 2, "not a kernel: an EFI program"},
                {"#!/bin/sh\n", 10, "not a kernel: a script"},
        };

        refuse_bytes(junk, sizeof junk, no_kernel);
        memset(junk, 'j', sizeof junk);
        refuse_bytes(junk, sizeof junk, no_kernel);
        refuse_bytes(junk, 8192, no_kernel);
        refuse_bytes(junk, 100, no_kernel);
        refuse_bytes(junk, 51, "kernel.img: not a kernel: only 51 bytes");
        refuse_bytes(junk, 1, "kernel.img: not a kernel: only 1 byte");
        refuse_bytes(junk, 0, "kernel.img: the file is empty");
        refuse_bytes("\x7f"
                     "ELF",
                     4, "kernel.img: cut short inside its ELF header: 4 bytes of 52");
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
                memcpy(junk, known[i].magic, known[i].len);
                refuse_bytes(junk, sizeof junk, known[i].text);
        }
}

/* A magic just past what is looked at is not one. */
static void only_8_kib_count(void **state)
{
        static uint8_t junk[20000];
        static const uint32_t header[] = {0x1badb002, 0, 0u - 0x1badb002};

        memcpy(junk + 8192, header, sizeof header);
        refuse_bytes(junk, sizeof junk, no_kernel);
        memcpy(junk + 8192 - 12, header, sizeof header);
        refuse_bytes(junk, sizeof junk, "neither ELF nor has load addresses");
}

static void only_regular_files(void **state)
{
        struct machine m;
        struct image im;
        int fds[2];

        machine_init(&m, 4 * MIB);
        m.kernel_fd = m.src.kernel_fd = open("/", O_RDONLY | O_DIRECTORY);
        expect_refused(&m, "kernel.img: is a directory");
        assert_int_equal(pipe(fds), 0);
        m.src.kernel_fd = fds[0];
        expect_refused(&m, "kernel.img: not a regular file");
        close(m.kernel_fd);
        image_pvh(&im);
        machine_kernel(&m, im.bytes, im.len);
        m.src.initramfs_fd = fds[0];
        m.src.initramfs_name = "initrd.cpio";
        expect_refused(&m, "initrd.cpio: not a regular file");
        machine_initramfs(&m, "", 0);
        expect_refused(&m, "initrd.cpio: the file is empty");
        m.src.kernel_fd = 12345;
        assert_int_equal(machine_boot(&m), -EBADF);
        assert_int_equal(m.err.class, ERR_HOST);
        close(fds[0]);
        close(fds[1]);
        machine_fini(&m);
}

/* --- the memory map --- */

static void map_of_one_region(void **state)
{
        struct boot_e820 map[BOOT_E820_MAX];
        struct guest_mem mem = {.nregions = 1, .regions = {{.size = 64 * MIB}}};

        assert_int_equal(boot_e820_map(&mem, map), 4);
        assert_int_equal(map[0].addr, 0);
        assert_int_equal(map[0].size, 0x9fc00);
        assert_int_equal(map[1].addr, 0x9fc00);
        assert_int_equal(map[1].size, 0x400);
        assert_int_equal(map[1].type, BOOT_E820_RESERVED);
        assert_int_equal(map[2].addr, 0xe0000);
        assert_int_equal(map[2].size, 0x20000);
        assert_int_equal(map[2].type, BOOT_E820_RESERVED);
        assert_int_equal(map[3].addr, 0x100000);
        assert_int_equal(map[3].size, 63 * MIB);
        assert_int_equal(map[3].type, BOOT_E820_RAM);
}

static void map_of_split_regions(void **state)
{
        struct boot_e820 map[BOOT_E820_MAX];
        struct guest_mem mem = {.nregions = 3,
                                .regions = {{.size = 0xa0000},
                                            {.gpa = 0xe0000, .size = 0xbff20000},
                                            {.gpa = LAYOUT_HIGH_RAM, .size = 5ull << 30}}};

        assert_int_equal(boot_e820_map(&mem, map), 5);
        assert_int_equal(map[3].addr, 0x100000);
        assert_int_equal(map[3].size, 0xbff00000);
        assert_int_equal(map[4].addr, LAYOUT_HIGH_RAM);
        assert_int_equal(map[4].size, 5ull << 30);
        for (unsigned i = 1; i < 5; i++)
                assert_true(map[i - 1].addr + map[i - 1].size <= map[i].addr);
}

/* --- the initramfs --- */

static void boot_with_initramfs(struct machine *m, size_t size)
{
        struct image im;

        machine_init(m, 4 * MIB);
        image_pvh(&im);
        machine_kernel(m, im.bytes, im.len);
        machine_initramfs(m, "begin", 5);
        assert_int_equal(ftruncate(m->initramfs_fd, (off_t)size), 0);
}

static uint64_t module_start(const struct machine *m)
{
        return ram64(m, ram64(m, LAYOUT_BOOT_INFO + 16));
}

/* ELF_DATA ends at 0x201800: from 0x202000 to 4 MiB is the best place, then 0x101000-0x200000. */
static void initramfs_goes_high(void **state)
{
        struct machine m;

        boot_with_initramfs(&m, 5);
        expect_loaded(&m);
        assert_int_equal(module_start(&m), 4 * MIB - 4096);
        assert_int_equal(m.ram[4 * MIB - 4096 + 5], 0xcc);
        machine_fini(&m);

        boot_with_initramfs(&m, 4 * MIB - 0x202000);
        expect_loaded(&m);
        assert_int_equal(module_start(&m), 0x202000);
        assert_memory_equal(m.ram + 0x202000, "begin", 6);
        assert_int_equal(m.ram[4 * MIB - 1], 0);
        machine_fini(&m);
}

static void initramfs_never_over_the_kernel(void **state)
{
        struct machine m;

        boot_with_initramfs(&m, 4 * MIB - 0x202000 + 1);
        expect_refused(&m, "initrd.cpio: does not fit into memory beside the kernel: 2.0 MiB, and "
                           "the VM has 4 MiB, of which 3 MiB can hold it");
        machine_fini(&m);
        boot_with_initramfs(&m, 4 * MIB + 1);
        expect_refused(&m, "initrd.cpio: larger than memory: 4.0 MiB, and the VM has 4 MiB");
        machine_fini(&m);
        boot_with_initramfs(&m, 3ull << 30);
        expect_refused(&m, "initrd.cpio: larger than memory: 3 GiB, and the VM has 4 MiB");
        machine_fini(&m);
        boot_with_initramfs(&m, INT64_MAX);
        expect_refused(&m, "initrd.cpio: larger than memory: ");
        machine_fini(&m);
}

/* With no room above the data segment it goes between the two. */
static void initramfs_between_segments(void **state)
{
        struct machine m;
        struct image im;

        machine_init(&m, 4 * MIB);
        image_pvh(&im)->p[1].p_memsz = 2 * MIB;
        machine_kernel(&m, im.bytes, im.len);
        machine_initramfs(&m, "between", 7);
        expect_loaded(&m);
        assert_int_equal(module_start(&m), ELF_DATA_PA - 4096);
        machine_fini(&m);
}

/* --- flat binaries --- */

static void flat_in_each_mode(void **state)
{
        static const struct {
                unsigned bits;
                uint64_t at;
                enum x86_mode mode;
        } cases[] = {{16, 0x7c00, X86_REAL16},   {16, 0x0, X86_REAL16},
                     {32, 0x10000, X86_PROT32},  {32, 0x100000, X86_PROT32},
                     {64, 0x3ffff8, X86_LONG64}, {64, 0x20000, X86_LONG64}};

        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                struct machine m;

                machine_init(&m, 4 * MIB);
                machine_kernel(&m,
                               "\x7f"
                               "ELF-no",
                               7);
                m.src.flat = 1;
                m.src.flat_bits = cases[i].bits;
                m.src.flat_address = cases[i].at;
                expect_loaded(&m);
                assert_int_equal(m.entry.mode, cases[i].mode);
                assert_int_equal(m.entry.rip, cases[i].at);
                assert_memory_equal(m.ram + cases[i].at,
                                    "\x7f"
                                    "ELF-no\xcc",
                                    8);
                machine_fini(&m);
        }
}

static void flat_refusals(void **state)
{
        static const struct {
                unsigned bits;
                uint64_t at;
                const char *text;
        } cases[] = {
                {8, 0x1000, "is entered in 16, 32 or 64-bit mode, not in 8"},
                {16, 0x100000, "16-bit mode cannot be entered at 0x100000"},
                {32, 1ull << 32, "32-bit mode cannot be entered at 0x100000000"},
                {64, UINT64_MAX, "64-bit mode cannot be entered at 0xffffffffffffffff"},
                {64, 4 * MIB - 6, "the flat binary (0x3ffffa-0x400000) lies outside RAM"},
                {64, 0xe0000, "the flat binary (0xe0000-0xe0006) lies outside RAM"},
                {64, 0x9000, "the flat binary (0x9000-0x9006) overlaps the page tables"},
                {32, 0x4fa, "the flat binary (0x4fa-0x500) overlaps the boot GDT"},
                {16, 0x8ff0, "the flat binary (0x8ff0-0x8ff6) overlaps the boot stack"},
        };

        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                struct machine m;

                machine_init(&m, 4 * MIB);
                machine_kernel(&m, "1234567", 7);
                m.src.flat = 1;
                m.src.flat_bits = cases[i].bits;
                m.src.flat_address = cases[i].at;
                expect_refused(&m, cases[i].text);
                machine_fini(&m);
        }
}

static void flat_has_no_protocol(void **state)
{
        struct machine m;

        machine_init(&m, 4 * MIB);
        machine_kernel(&m, "1234567", 7);
        m.src.flat = 1;
        m.src.flat_bits = 64;
        m.src.flat_address = 0x100000;
        m.src.cmdline = "x";
        expect_refused(&m, "a flat binary takes no command line");
        m.src.cmdline = "";
        machine_initramfs(&m, "x", 1);
        expect_refused(&m, "a flat binary takes no initramfs");
        machine_fini(&m);
}

/* Memory too small for anything is refused, not written beside. */
static void tiny_memory(void **state)
{
        for (uint64_t size = 4096; size <= MIB; size += 4096) {
                struct machine m;
                struct image im;

                machine_init(&m, size);
                image_pvh(&im);
                machine_kernel(&m, im.bytes, im.len);
                expect_refused(&m, "lies outside RAM");
                machine_fini(&m);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_no_kernel),
                cmocka_unit_test(only_8_kib_count),
                cmocka_unit_test(only_regular_files),
                cmocka_unit_test(map_of_one_region),
                cmocka_unit_test(map_of_split_regions),
                cmocka_unit_test(initramfs_goes_high),
                cmocka_unit_test(initramfs_never_over_the_kernel),
                cmocka_unit_test(initramfs_between_segments),
                cmocka_unit_test(flat_in_each_mode),
                cmocka_unit_test(flat_refusals),
                cmocka_unit_test(flat_has_no_protocol),
                cmocka_unit_test(tiny_memory),
        };

        return cmocka_run_group_tests_name("boot", tests, NULL, NULL);
}
