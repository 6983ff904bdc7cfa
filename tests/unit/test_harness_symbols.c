/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Symbols of a guest: which one a name means, which one an address is shown as, and that damaged
 * files give errors: a valid one with bytes changed, tens of thousands of times, from a fixed seed.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "harness/symbols.h"

#define TEXT      0x1000ull
#define TEXT_SIZE 0x1000ull
#define DATA      0x2000ull
#define DATA_SIZE 0x1000ull

enum { NONE, IN_TEXT, IN_DATA, SYMTAB, STRTAB, SECTIONS };

struct given {
        const char *name;
        unsigned char bind, type;
        unsigned section; /* SHN_ABS, too */
        uint64_t address, size;
};

static const struct given table[] = {
        {"start", STB_LOCAL, STT_NOTYPE, IN_TEXT, 0x1000, 0},
        {"loop", STB_LOCAL, STT_NOTYPE, IN_TEXT, 0x1010, 0},
        {"main", STB_GLOBAL, STT_FUNC, IN_TEXT, 0x1100, 0x80},
        {"inner", STB_LOCAL, STT_NOTYPE, IN_TEXT, 0x1140, 0},
        {"alias", STB_WEAK, STT_FUNC, IN_TEXT, 0x1100, 0x80},
        {"next", STB_GLOBAL, STT_FUNC, IN_TEXT, 0x1180, 0x10},
        {"end_label", STB_LOCAL, STT_NOTYPE, IN_TEXT, 0x1f00, 0},
        {"counter", STB_LOCAL, STT_OBJECT, IN_DATA, 0x2000, 8},
        {"twice", STB_LOCAL, STT_OBJECT, IN_DATA, 0x2010, 4},
        {"twice", STB_LOCAL, STT_OBJECT, IN_DATA, 0x2020, 4},
        {"both", STB_LOCAL, STT_OBJECT, IN_DATA, 0x2030, 4},
        {"both", STB_GLOBAL, STT_OBJECT, IN_DATA, 0x2040, 4},
        {"thrice", STB_LOCAL, STT_OBJECT, IN_DATA, 0x2050, 4},
        {"thrice", STB_LOCAL, STT_OBJECT, IN_DATA, 0x2050, 4},
        {"thrice", STB_LOCAL, STT_OBJECT, IN_DATA, 0x2060, 4},
        {"again", STB_LOCAL, STT_OBJECT, IN_DATA, 0x2070, 4},
        {"again", STB_LOCAL, STT_OBJECT, IN_DATA, 0x2070, 4},
        {"NUMBER", STB_GLOBAL, STT_NOTYPE, SHN_ABS, 0x1104, 0},
        {"missing", STB_GLOBAL, STT_NOTYPE, SHN_UNDEF, 0, 0},
        {"file.c", STB_LOCAL, STT_FILE, SHN_ABS, 0, 0},
};
#define NTABLE (sizeof table / sizeof table[0])

static uint8_t image[8192];
static size_t image_len;

static size_t append(const void *data, size_t len)
{
        size_t at = image_len;

        assert_true(image_len + len <= sizeof image);
        memcpy(image + image_len, data, len);
        image_len = (image_len + len + 7) & ~(size_t)7;
        return at;
}

/* An ELF file with @table: header, symbols, names, section headers. */
static void make_image(void)
{
        Elf64_Ehdr ehdr = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                           .e_type = ET_EXEC,
                           .e_machine = EM_X86_64,
                           .e_version = EV_CURRENT,
                           .e_ehsize = sizeof ehdr,
                           .e_shentsize = sizeof(Elf64_Shdr),
                           .e_shnum = SECTIONS};
        Elf64_Shdr shdr[SECTIONS] = {
                [IN_TEXT] = {.sh_type = SHT_NOBITS, .sh_addr = TEXT, .sh_size = TEXT_SIZE},
                [IN_DATA] = {.sh_type = SHT_NOBITS, .sh_addr = DATA, .sh_size = DATA_SIZE},
                [SYMTAB] = {.sh_type = SHT_SYMTAB,
                            .sh_link = STRTAB,
                            .sh_entsize = sizeof(Elf64_Sym)},
                [STRTAB] = {.sh_type = SHT_STRTAB},
        };
        Elf64_Sym syms[NTABLE + 1] = {0};
        char names[1024] = "";
        size_t len = 1;

        for (size_t i = 0; i < NTABLE; i++) {
                syms[i + 1] = (Elf64_Sym){
                        .st_name = (Elf64_Word)len,
                        .st_info = (unsigned char)ELF64_ST_INFO(table[i].bind, table[i].type),
                        .st_shndx = (Elf64_Half)table[i].section,
                        .st_value = table[i].address,
                        .st_size = table[i].size,
                };
                strcpy(names + len, table[i].name);
                len += strlen(table[i].name) + 1;
        }
        image_len = 0;
        append(&ehdr, sizeof ehdr);
        shdr[SYMTAB].sh_offset = append(syms, sizeof syms);
        shdr[SYMTAB].sh_size = sizeof syms;
        shdr[STRTAB].sh_offset = append(names, len);
        shdr[STRTAB].sh_size = len;
        ehdr.e_shoff = append(shdr, sizeof shdr);
        memcpy(image, &ehdr, sizeof ehdr);
}

static struct symbols *open_image(void)
{
        struct symbols *s = NULL;
        struct err err = {0};

        make_image();
        if (symbols_open_memory(image, image_len, &s, &err) != 0)
                fail_msg("%s", err.text);
        return s;
}

static void names_have_addresses(void **state)
{
        struct symbols *s = open_image();
        uint64_t address, size;

        assert_int_equal(symbols_find(s, "main", &address, &size), 0);
        assert_int_equal(address, 0x1100);
        assert_int_equal(size, 0x80);
        assert_int_equal(symbols_find(s, "counter", &address, NULL), 0);
        assert_int_equal(address, 0x2000);
        assert_int_equal(symbols_find(s, "NUMBER", &address, &size), 0);
        assert_int_equal(address, 0x1104);
        assert_int_equal(size, 0);
        assert_int_equal(symbols_find(s, "missing", &address, &size), -ENOENT);
        assert_int_equal(symbols_find(s, "file.c", &address, &size), -ENOENT);
        assert_int_equal(symbols_find(s, "mai", &address, &size), -ENOENT);
        assert_int_equal(symbols_find(s, "zzz", &address, &size), -ENOENT);
        assert_int_equal(symbols_find(s, "", &address, &size), -ENOENT);
        assert_int_equal(symbols_find(NULL, "main", &address, &size), -ENOENT);
        symbols_free(s);
}

static void a_global_symbol_goes_before_local_ones(void **state)
{
        struct symbols *s = open_image();
        uint64_t address;

        assert_int_equal(symbols_find(s, "both", &address, NULL), 0);
        assert_int_equal(address, 0x2040);
        assert_int_equal(symbols_find(s, "twice", &address, NULL), -ENOTUNIQ);
        assert_int_equal(symbols_find(s, "thrice", &address, NULL), -ENOTUNIQ);
        assert_int_equal(symbols_find(s, "again", &address, NULL), 0); /* two of one place */
        assert_int_equal(address, 0x2070);
        symbols_free(s);
}

static void expect_at(const struct symbols *s, uint64_t address, const char *name, uint64_t offset)
{
        const char *found = NULL;
        uint64_t got = 0;

        if (!symbols_at(s, address, &found, &got))
                found = NULL;
        if (!name ? found != NULL : !found || strcmp(found, name) != 0 || got != offset)
                fail_msg("%#llx is %s+%#llx, expected %s+%#llx", (unsigned long long)address,
                         found ? found : "nothing", (unsigned long long)got,
                         name ? name : "nothing", (unsigned long long)offset);
}

static void addresses_have_names(void **state)
{
        struct symbols *s = open_image();

        expect_at(s, 0x0fff, NULL, 0);
        expect_at(s, 0x1000, "start", 0);
        expect_at(s, 0x100f, "start", 0xf);
        expect_at(s, 0x10ff, "loop", 0xef);
        expect_at(s, 0x1100, "main", 0);    /* not its weak alias */
        expect_at(s, 0x1104, "main", 4);    /* not a number */
        expect_at(s, 0x1145, "main", 0x45); /* not a label in it */
        expect_at(s, 0x117f, "main", 0x7f);
        expect_at(s, 0x1180, "next", 0);
        expect_at(s, 0x1190, NULL, 0); /* behind it, before the next */
        expect_at(s, 0x1fff, "end_label", 0xff);
        expect_at(s, 0x2000, "counter", 0);
        expect_at(s, 0x2008, NULL, 0);
        expect_at(s, UINT64_MAX, NULL, 0);
        expect_at(NULL, 0x1100, NULL, 0);
        symbols_free(s);
}

static void what_is_no_elf_file_says_so(void **state)
{
        static const char junk[] = "#!/bin/sh\n";
        struct symbols *s = (struct symbols *)1;
        struct err err = {0};

        assert_int_equal(symbols_open_memory(junk, sizeof junk, &s, &err), -ENODATA);
        assert_string_equal(err.text, "not an ELF file");
        assert_int_equal(symbols_open_memory(junk, 0, &s, &err), -ENODATA);
        make_image();
        image_len = sizeof(Elf64_Ehdr);
        ((Elf64_Ehdr *)image)->e_shoff = 0;
        ((Elf64_Ehdr *)image)->e_shnum = 0;
        assert_int_equal(symbols_open_memory(image, image_len, &s, &err), -ENODATA);
        assert_string_equal(err.text, "it has no symbols");
        assert_int_equal(symbols_open("/nonexistent/x", &s, &err), -ENOENT);
        assert_non_null(strstr(err.text, "/nonexistent/x"));
        assert_ptr_equal(s, (void *)1);
}

static void files_are_read_and_closed(void **state)
{
        struct symbols *s = NULL;
        struct err err = {0};
        int before = dup(0), after;

        close(before);
        assert_int_equal(symbols_open("/proc/self/exe", &s, &err), 0);
        after = dup(0);
        close(after);
        assert_int_equal(after, before);
        expect_at(s, 0, NULL, 0);
        symbols_free(s);
}

static uint64_t rng = 0x5eed;

/* xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016) */
static uint64_t next(void)
{
        rng ^= rng >> 12;
        rng ^= rng << 25;
        rng ^= rng >> 27;
        return rng * 0x2545f4914f6cdd1dull;
}

/* Whatever is in a file, it opens or it does not; an address sanitizer watches its ends. */
static void damaged_files_do_no_harm(void **state)
{
        static const uint64_t nasty[] = {0, 1, 0x7fffffff, 0xffffffff, UINT64_MAX, 1ull << 63, 24};
        unsigned opened = 0, refused = 0;

        for (int round = 0; round < 20000; round++) {
                struct symbols *s = NULL;
                struct err err = {0};
                const char *name;
                uint64_t value;
                uint8_t *copy;
                size_t len;

                make_image();
                for (uint64_t n = next() % 4 + 1; n > 0; n--) {
                        size_t at = next() % (image_len - 8) & ~(next() % 8);

                        value = next() % 2 ? next() : nasty[next() % 7];
                        memcpy(image + at, &value, next() % 8 + 1);
                }
                len = next() % 4 ? image_len : next() % image_len;
                copy = malloc(len ? len : 1);
                memcpy(copy, image, len);
                if (symbols_open_memory(copy, len, &s, &err) == 0) {
                        opened++;
                        symbols_find(s, "main", &value, NULL);
                        symbols_at(s, 0x1145, &name, &value);
                        symbols_free(s);
                } else {
                        refused++;
                        assert_true(err.text[0]);
                        assert_null(strchr(err.text, '\n'));
                }
                free(copy);
        }
        print_message("# %u opened, %u refused\n", opened, refused);
        assert_true(opened > 1000 && refused > 1000);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(names_have_addresses),
                cmocka_unit_test(a_global_symbol_goes_before_local_ones),
                cmocka_unit_test(addresses_have_names),
                cmocka_unit_test(what_is_no_elf_file_says_so),
                cmocka_unit_test(files_are_read_and_closed),
                cmocka_unit_test(damaged_files_do_no_harm),
        };

        return cmocka_run_group_tests_name("harness_symbols", tests, NULL, NULL);
}
