/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI tables: walked from the RSDP as an OS does, every checksum and length checked; then
 * taken apart by iasl and put together again, which must find nothing to complain about.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "x86/acpi.h"
#include "x86/acpi_dsdt.h"
#include "x86/layout.h"

static uint8_t ram[LAYOUT_BIOS_END];

static struct guest_mem memory(void)
{
        memset(ram, 0, sizeof ram);
        return (struct guest_mem){.nregions = 1, .regions = {{.size = sizeof ram, .hva = ram}}};
}

static uint64_t get(uint64_t gpa, unsigned n)
{
        uint64_t v = 0;

        memcpy(&v, ram + gpa, n);
        return v;
}

static void assert_sums_to_zero(uint64_t gpa, uint64_t len)
{
        uint8_t sum = 0;

        assert_in_range(gpa, LAYOUT_ACPI, LAYOUT_ACPI + LAYOUT_ACPI_MAX - 1);
        assert_in_range(len, 1, LAYOUT_ACPI + LAYOUT_ACPI_MAX - gpa);
        for (uint64_t i = 0; i < len; i++)
                sum = (uint8_t)(sum + ram[gpa + i]);
        assert_int_equal(sum, 0);
}

/* Where the table with this signature is; its checksum is right. */
static uint64_t table(const char *signature)
{
        uint64_t xsdt = get(LAYOUT_ACPI + 24, 8), fadt = 0;

        for (uint64_t at = xsdt + 36; at < xsdt + get(xsdt + 4, 4); at += 8) {
                uint64_t t = get(at, 8);

                assert_sums_to_zero(t, get(t + 4, 4));
                if (memcmp(ram + t, signature, 4) == 0)
                        return t;
                if (memcmp(ram + t, "FACP", 4) == 0)
                        fadt = t;
        }
        assert_string_equal(signature, "DSDT");
        assert_int_equal(get(fadt + 40, 4), get(fadt + 140, 8));
        return get(fadt + 140, 8);
}

static void rsdp_and_xsdt(void **state)
{
        struct guest_mem m = memory();
        uint64_t xsdt;

        assert_int_equal(acpi_write_tables(&m, 2, 0, NULL), 0);
        assert_memory_equal(ram + LAYOUT_ACPI, "RSD PTR ", 8);
        assert_int_equal(ram[LAYOUT_ACPI + 15], 2);
        assert_int_equal(get(LAYOUT_ACPI + 20, 4), 36);
        assert_sums_to_zero(LAYOUT_ACPI, 20);
        assert_sums_to_zero(LAYOUT_ACPI, 36);
        xsdt = get(LAYOUT_ACPI + 24, 8);
        assert_memory_equal(ram + xsdt, "XSDT", 4);
        assert_sums_to_zero(xsdt, get(xsdt + 4, 4));
        assert_sums_to_zero(table("DSDT"), get(table("DSDT") + 4, 4));
        assert_int_equal(ram[LAYOUT_ACPI - 1], 0);
        assert_int_equal(ram[LAYOUT_VMGENID], 0);
}

/* Byte offsets are those of ACPI 6.5, table 5.9. */
static void fadt_is_hardware_reduced(void **state)
{
        struct guest_mem m = memory();
        uint64_t f;

        assert_int_equal(acpi_write_tables(&m, 1, 0, NULL), 0);
        f = table("FACP");
        assert_int_equal(get(f + 4, 4), 276);
        assert_int_equal(ram[f + 8], 6);
        assert_int_equal(get(f + 109, 2), 1 | 2 | 4); /* legacy devices, 8042, no VGA, RTC */
        assert_true(get(f + 112, 4) & 1u << 20);      /* HW_REDUCED_ACPI */
        assert_true(get(f + 112, 4) & 1u << 10);      /* RESET_REG_SUP */
        assert_int_equal(ram[f + 116], 1);            /* system I/O */
        assert_int_equal(get(f + 120, 8), LAYOUT_PORT_PM + 2);
        assert_int_equal(ram[f + 128], 1); /* RESET_VALUE */
        assert_int_equal(get(f + 248, 8), LAYOUT_PORT_PM);
        assert_int_equal(get(f + 260, 8), LAYOUT_PORT_PM + 1);
        assert_int_equal(ram[f + 108], 0x32); /* the RTC's century byte */
        for (unsigned i = 44; i < 108; i++)
                assert_int_equal(ram[f + i], 0);
}

/* Count entries by type; @ids collects the APIC ids. */
static unsigned madt_count(uint64_t madt, unsigned type)
{
        unsigned n = 0;
        uint64_t at = madt + 44, end = madt + get(madt + 4, 4);

        for (; at < end; at += ram[at + 1]) {
                assert_in_range(ram[at + 1], 8, end - at);
                if (ram[at] != type)
                        continue;
                if (type == 0)
                        assert_int_equal(ram[at + 3], n);
                if (type == 9)
                        assert_int_equal(get(at + 4, 4), 255 + n);
                n++;
        }
        assert_int_equal(at, end);
        return n;
}

static void madt_lists_every_cpu(void **state)
{
        static const unsigned counts[] = {1, 2, 64, 254, 255, 256, 1000};

        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
                struct guest_mem m = memory();
                uint64_t madt;
                unsigned n = counts[i];

                assert_int_equal(acpi_write_tables(&m, n, 0, NULL), 0);
                madt = table("APIC");
                assert_int_equal(get(madt + 36, 4), LAYOUT_LAPIC);
                assert_int_equal(madt_count(madt, 0), n < 255 ? n : 255);
                assert_int_equal(madt_count(madt, 9), n < 255 ? 0 : n - 255);
                assert_int_equal(madt_count(madt, 1), 1);
                assert_int_equal(get(madt + get(madt + 4, 4) - 8, 4), LAYOUT_IOAPIC);
        }
}

static void too_many_and_too_little(void **state)
{
        static const unsigned counts[] = {4500, 10000, 1u << 28, UINT32_MAX};
        struct guest_mem m = memory();
        struct err err;

        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
                assert_int_equal(acpi_write_tables(&m, counts[i], 0, &err), -ENOSPC);
                assert_non_null(strstr(err.text, "do not fit into 64 KiB"));
        }
        m.regions[0].size = LAYOUT_ACPI + 100;
        assert_int_equal(acpi_write_tables(&m, 1, 0, &err), -EFAULT);
        assert_int_equal(ram[LAYOUT_ACPI], 0);
}

/* --- the encoder --- */

/* PkgLength at the borders of each of its forms (ACPI 6.5, section 20.2.4). */
static void package_lengths(void **state)
{
        static const struct {
                size_t content;
                size_t bytes;
                uint8_t lead[4];
        } cases[] = {
                {2, 1, {0x03}},
                {62, 1, {0x3f}},
                {63, 2, {0x41, 0x04}},
                {0xffd, 2, {0x4f, 0xff}},
                {0xffe, 3, {0x81, 0x00, 0x01}},
                {0xffffc, 3, {0x8f, 0xff, 0xff}},
                {0xffffd, 4, {0xc1, 0x00, 0x00, 0x01}},
        };
        static uint8_t buf[0x100010];

        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                struct aml a = {.buf = buf, .cap = sizeof buf};
                size_t mark = aml_package(&a, 7);

                while (a.len - mark < cases[i].content)
                        aml_int(&a, 1);
                aml_end(&a, mark);
                assert_false(a.full);
                assert_int_equal(a.len, 1 + cases[i].bytes + cases[i].content);
                assert_memory_equal(buf + 1, cases[i].lead, cases[i].bytes);
                assert_int_equal(buf[1 + cases[i].bytes], 7);
                assert_int_equal(buf[a.len - 1], 1);
        }
}

static void names_and_numbers(void **state)
{
        static const uint8_t expected[] =
                {
                        '_',  'S',  '5',  '_',                                    /* one segment */
                        '\\', 0x2e, '_',  'S',  'B',  '_',  'V',  'G', 'E',  'N', /* two */
                        0x2f, 3,    'A',  '_',  '_',  '_',  'B',  'B', '_',  '_',
                        'C',  'C',  'C',  '_',  0x00, 0x01, 0x0a, 2,   0x0b, 0x00,
                        0x01, 0x0c, 0,    0,    1,    0, /* integers */
                        0x0e, 0,    0,    0,    0,    1,    0,    0,   0,    0x0d,
                        'h',  'i',  0,                /* and a string */
                        0x0c, 0x41, 0xd0, 0x05, 0x01, /* PNP0501 */
                };
        uint8_t buf[128];
        struct aml a = {.buf = buf, .cap = sizeof buf};

        aml_path(&a, "_S5");
        aml_path(&a, "\\_SB.VGEN");
        aml_path(&a, "A.BB.CCC");
        aml_int(&a, 0);
        aml_int(&a, 1);
        aml_int(&a, 2);
        aml_int(&a, 0x100);
        aml_int(&a, 0x10000);
        aml_int(&a, 0x100000000);
        aml_string(&a, "hi");
        aml_eisa_id(&a, "PNP0501");
        assert_int_equal(a.len, sizeof expected);
        assert_memory_equal(buf, expected, sizeof expected);
}

/* At every size that is too small the encoder stops inside its buffer and says so. */
static void running_out_of_room(void **state)
{
        uint8_t whole[4096];
        struct aml a = {.buf = whole, .cap = sizeof whole};
        size_t need;

        acpi_dsdt(&a, LAYOUT_VIRTIO_SLOTS);
        assert_false(a.full);
        need = a.len;
        for (size_t cap = 0; cap <= need; cap++) {
                uint8_t *buf = malloc(cap + 1);

                buf[cap] = 0x5a;
                a = (struct aml){.buf = buf, .cap = cap};
                acpi_dsdt(&a, LAYOUT_VIRTIO_SLOTS);
                assert_int_equal(a.full, cap < need);
                assert_true(a.len <= cap);
                assert_int_equal(buf[cap], 0x5a);
                free(buf);
        }
}

/* Of the IOAPIC's 24, none twice, and none of a PC's or of another device of ours. */
static void virtio_slots_have_lines_of_their_own(void **state)
{
        static const uint8_t gsis[] = LAYOUT_VIRTIO_GSIS;
        uint32_t used = 1u << 0 | 1u << 1 | 1u << 2 | 1u << LAYOUT_GSI_SERIAL |
                        1u << LAYOUT_GSI_RTC | 1u << LAYOUT_GSI_VMGENID | 1u << 12 | 1u << 13;

        assert_int_equal(sizeof gsis, LAYOUT_VIRTIO_SLOTS);
        for (unsigned i = 0; i < sizeof gsis; i++) {
                assert_in_range(gsis[i], 0, 23);
                assert_false(used & 1u << gsis[i]);
                used |= 1u << gsis[i];
        }
}

/* --- iasl --- */

static void write_file(const char *dir, const char *name, uint64_t gpa)
{
        char path[128];
        FILE *f;

        snprintf(path, sizeof path, "%s/%s", dir, name);
        f = fopen(path, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(ram + gpa, 1, get(gpa + 4, 4), f), get(gpa + 4, 4));
        assert_int_equal(fclose(f), 0);
}

/* Run a command in @dir and fail, showing all it printed, if it fails or prints a complaint. */
static void run(const char *dir, const char *command, const char *wanted)
{
        static char out[65536];
        char line[256];
        size_t n;
        FILE *p;

        snprintf(line, sizeof line, "cd %s && { %s; } 2>&1", dir, command);
        p = popen(line, "r");
        assert_non_null(p);
        n = fread(out, 1, sizeof out - 1, p);
        out[n] = 0;
        if (pclose(p) != 0 || !strstr(out, wanted) || strstr(out, "Invalid") ||
            strstr(out, "ncorrect") || strstr(out, "unknown"))
                fail_msg("%s: %s", command, out);
}

static void iasl_finds_nothing(void **state)
{
        static const char clean[] = "0 Errors, 0 Warnings, 0 Remarks";
        char dir[] = "/tmp/ramet-acpi-XXXXXX";
        struct guest_mem m = memory();

        if (system("command -v iasl >/dev/null 2>&1") != 0) {
                print_message("# iasl is not installed (package acpica-tools)\n");
                skip();
        }
        assert_int_equal(acpi_write_tables(&m, 3, LAYOUT_VIRTIO_SLOTS, NULL), 0);
        assert_non_null(mkdtemp(dir));
        write_file(dir, "dsdt.dat", table("DSDT"));
        write_file(dir, "facp.dat", table("FACP"));
        write_file(dir, "apic.dat", table("APIC"));
        write_file(dir, "xsdt.dat", get(LAYOUT_ACPI + 24, 8));
        run(dir, "iasl -d dsdt.dat", "Disassembly completed");
        run(dir, "iasl -oa -vr -we -p again dsdt.dsl", clean);
        /* What that compiled says the same as what was generated. */
        run(dir, "iasl -d -p twice again.aml", "Disassembly completed");
        run(dir, "diff -I '^ [*]' dsdt.dsl twice.dsl && echo same", "same");
        run(dir, "! grep External dsdt.dsl && echo none", "none"); /* no name dangles */
        run(dir, "grep -c 'Device (' dsdt.dsl", "20");
        run(dir, "grep -c LNRO0005 dsdt.dsl", "16");
        run(dir, "grep -c 'Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive' dsdt.dsl",
            "19");
        /* The last one, whole. */
        run(dir,
            "sed -n '/VR15/,$p' dsdt.dsl | tr -d ' \\n' | grep -c "
            "'Name(_UID,0x0F).*Name(_CCA,One).*Memory32Fixed(ReadWrite,0xD0010000,.*"
            "0x00001000,.*0x00000017,'",
            "1");
        run(dir, "iasl -d facp.dat && iasl facp.dsl", "Compilation successful. 0 Errors, 0 Warn");
        run(dir, "iasl -d apic.dat && iasl apic.dsl", "Compilation successful. 0 Errors, 0 Warn");
        run(dir, "iasl -d xsdt.dat && iasl xsdt.dsl", "Compilation successful. 0 Errors, 0 Warn");
        run(dir, "rm -r ../$(basename $PWD) && echo gone", "gone");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(rsdp_and_xsdt),
                cmocka_unit_test(fadt_is_hardware_reduced),
                cmocka_unit_test(madt_lists_every_cpu),
                cmocka_unit_test(too_many_and_too_little),
                cmocka_unit_test(package_lengths),
                cmocka_unit_test(names_and_numbers),
                cmocka_unit_test(running_out_of_room),
                cmocka_unit_test(virtio_slots_have_lines_of_their_own),
                cmocka_unit_test(iasl_finds_nothing),
        };

        return cmocka_run_group_tests_name("acpi", tests, NULL, NULL);
}
