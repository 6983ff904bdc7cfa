/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operands of instructions: a table of encodings (decode_rows.h), and rubbish, whose answers
 * must stay in bounds. test_decode_native.c compares with what the processor does.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "decode_rows.h"

static struct x86_state default_state(unsigned bits)
{
        struct x86_state s = {
                .bits = (uint8_t)bits,
                .stack_bits = (uint8_t)bits,
                .cpl = 3,
                .long_mode = bits == 64,
                .rip = 0x400000,
                .gdt = 0xfe000,
                .gdt_bytes = 0x80,
                .ldt = 0xfd000,
                .ldt_bytes = 0x10,
                .xsave_bytes = 0xa88,
        };

        for (unsigned i = 0; i < 16; i++)
                s.gpr[i] = (i + 1) * 0x11000ull | (bits == 64 ? 0 : 0xdead00000000);
        for (unsigned i = 0; i < 6; i++)
                s.base[i] = (i + 1) * 0x1000000ull;
        if (bits == 64) {
                s.base[X86_FS] = 0x7f0000000000;
                s.base[X86_GS] = 0xffff880000000000;
        }
        return s;
}

static struct x86_state state_of(unsigned bits, const struct row *row)
{
        struct x86_state s = default_state(bits);

        s.gpr[row->reg] = row->set ? row->val : s.gpr[row->reg];
        s.rflags = row->rflags;
        if (row->stack_bits)
                s.stack_bits = row->stack_bits;
        s.shadow_stack = row->with & SHADOW;
        s.real_mode = row->with & REAL;
        s.long_mode = s.long_mode || (row->with & LONG);
        if (row->with & CPL0)
                s.cpl = 0;
        if (row->with & NO_TABLES)
                s.gdt_bytes = s.ldt_bytes = 0;
        if (row->with & (XSAVE_0 | XSAVE_1))
                s.xsave_bytes = row->with & XSAVE_1 ? 1 : 0;
        return s;
}

static const char *error_name(int r)
{
        return r == -ENODATA   ? "ENODATA"
               : r == -EILSEQ  ? "EILSEQ"
               : r == -ENOTSUP ? "ENOTSUP"
                               : "?";
}

static void print(const struct x86_range *r, char *buf, size_t size)
{
        snprintf(buf, size, "%c%llx+%llx", r->write ? 'w' : 'r', (unsigned long long)r->linear,
                 (unsigned long long)r->bytes);
}

/* @word is one of the words of @text. */
static int has_word(const char *text, const char *word)
{
        size_t n = strlen(word);

        for (const char *at = text; (at = strstr(at, word)); at++)
                if ((at == text || at[-1] == ' ') && (at[n] == ' ' || !at[n]))
                        return 1;
        return 0;
}

/* The ranges are those of the row, in any order. */
static int as_expected(const struct row *row, const struct x86_ranges *out)
{
        unsigned words = *row->expected ? 1 : 0;
        char buf[64];

        for (const char *c = row->expected; *c; c++)
                words += *c == ' ';
        if (row->with & NO_WRITE) {
                for (unsigned i = 0; i < out->n; i++)
                        if (out->range[i].write)
                                return 0;
                return 1;
        }
        for (unsigned i = 0; i < out->n; i++) {
                print(&out->range[i], buf, sizeof buf);
                if (!has_word(row->expected, buf))
                        return 0;
        }
        return out->n == words;
}

static void check_row(unsigned bits, const struct row *row, unsigned *failed)
{
        struct x86_state s = state_of(bits, row);
        struct x86_ranges out = {.n = 77};
        /* Of its own, so that a sanitizer sees a byte read too many. */
        uint8_t *bytes = malloc(row->n);
        char buf[64];
        int r;

        assert_non_null(bytes);
        memcpy(bytes, row->bytes, row->n);
        r = x86_decode(&s, bytes, row->n, &out);
        free(bytes);
        if (r == 0 && as_expected(row, &out)) {
                assert_int_equal(out.insn_bytes, row->n);
                return;
        }
        if (r < 0 && !strcmp(error_name(r), row->expected)) {
                assert_int_equal(out.n, 0);
                return;
        }
        ++*failed;
        print_error("%u bits, %s: expected '%s', got '%s", bits, row->text, row->expected,
                    r < 0 ? error_name(r) : "");
        for (unsigned i = 0; r == 0 && i < out.n; i++) {
                print(&out.range[i], buf, sizeof buf);
                print_error("%s%s", i ? " " : "", buf);
        }
        print_error("'\n");
}

static void check_rows(unsigned bits, const struct row *rows, size_t n)
{
        unsigned failed = 0;

        for (size_t i = 0; i < n; i++)
                check_row(bits, &rows[i], &failed);
        if (failed)
                fail_msg("%u of %zu rows", failed, n);
}

static void bits16(void **state)
{
        check_rows(16, rows16, sizeof rows16 / sizeof *rows16);
}

static void bits32(void **state)
{
        check_rows(32, rows32, sizeof rows32 / sizeof *rows32);
}

static void bits64(void **state)
{
        check_rows(64, rows64, sizeof rows64 / sizeof *rows64);
}

/* Every instruction of the table, cut short: too few bytes, or another instruction. */
static void cut_short(void **state)
{
        for (size_t i = 0; i < sizeof rows64 / sizeof *rows64; i++) {
                struct x86_state s = state_of(64, &rows64[i]);

                for (unsigned n = 0; n < rows64[i].n; n++) {
                        uint8_t *bytes = malloc(n ? n : 1);
                        struct x86_ranges out;
                        int r;

                        memcpy(bytes, rows64[i].bytes, n);
                        r = x86_decode(&s, bytes, n, &out);
                        free(bytes);
                        if (n == 0)
                                assert_int_equal(r, -ENODATA);
                        assert_true(r == -ENODATA || r == -EILSEQ || r == -ENOTSUP ||
                                    (r == 0 && out.insn_bytes <= n));
                }
        }
}

static uint64_t next(uint64_t *seed)
{
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        return *seed;
}

static void check_bounds(const struct x86_state *s, const struct x86_ranges *out)
{
        uint64_t last = s->bits == 64 ? ~0ull : 0xffffffff;

        assert_true(out->n <= X86_RANGES_MAX);
        assert_true(out->insn_bytes >= 1 && out->insn_bytes <= 15);
        for (unsigned i = 0; i < out->n; i++) {
                const struct x86_range *r = &out->range[i];

                assert_true(r->bytes >= 1 && r->bytes <= 0x10000);
                assert_true(r->linear <= last && r->bytes - 1 <= last - r->linear);
        }
}

static void rubbish(void **state)
{
        uint64_t seed = 0x9e3779b97f4a7c15;
        unsigned decoded = 0, rounds = 400000;

        for (unsigned round = 0; round < rounds; round++) {
                static const uint8_t modes[] = {16, 32, 64, 64};
                unsigned n = (unsigned)(next(&seed) % 17);
                struct x86_state s = {.bits = modes[round % 4]};
                uint8_t *bytes = malloc(n ? n : 1);
                struct x86_ranges out;
                uint64_t flags = next(&seed);
                int r;

                for (unsigned i = 0; i < n; i++)
                        bytes[i] = (uint8_t)(next(&seed) >> 32);
                for (unsigned i = 0; i < 16; i++) /* near an end of something, often */
                        s.gpr[i] = next(&seed) >> (next(&seed) % 64) ^ -(next(&seed) & 1);
                for (unsigned i = 0; i < 6; i++)
                        s.base[i] = next(&seed) >> (next(&seed) % 64);
                s.stack_bits = s.bits == 64 ? 64 : flags & 1 ? 16 : 32;
                s.cpl = (flags >> 1) & 3;
                s.real_mode = flags & 8;
                s.long_mode = s.bits == 64 || (flags & 16);
                s.shadow_stack = flags & 32;
                s.rip = next(&seed);
                s.rflags = next(&seed);
                s.gdt = next(&seed);
                s.ldt = next(&seed);
                s.gdt_bytes = 1 + (uint32_t)(next(&seed) & 0xffff);
                s.ldt_bytes = (uint32_t)(next(&seed) & 0xffff);
                s.xsave_bytes = next(&seed) & 0x3fff;
                r = x86_decode(&s, bytes, n, &out);
                free(bytes);
                assert_true(r == 0 || r == -ENODATA || r == -EILSEQ || r == -ENOTSUP);
                if (r < 0) {
                        assert_int_equal(out.n, 0);
                        continue;
                }
                decoded++;
                check_bounds(&s, &out);
        }
        assert_true(decoded > rounds / 4);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(bits16),    cmocka_unit_test(bits32),  cmocka_unit_test(bits64),
                cmocka_unit_test(cut_short), cmocka_unit_test(rubbish),
        };

        return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
