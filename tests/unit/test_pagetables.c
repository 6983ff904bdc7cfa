/* SPDX-License-Identifier: Apache-2.0 */
/* Page tables: all that can be reached, in each mode and with loops; and pages that look like one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "fake_ram.h"
#include "x86/pagetables.h"

#define PG   (1ull << 31)
#define PSE  (1ull << 4)
#define PAE  (1ull << 5)
#define LA57 (1ull << 12)
#define LMA  (1ull << 10)
#define NXE  (1ull << 11)
#define P    1ull
#define ALL  7ull
#define PS   0x80ull
#define TOP  0x1000ull

static struct x86_paging paging(uint64_t cr4, uint64_t efer)
{
        return (struct x86_paging){
                .cr0 = PG | 1, .cr3 = TOP, .cr4 = cr4, .efer = efer | NXE, .maxphyaddr = 40};
}

/* The pages found are those whose numbers are in @expected. */
static void expect_pages(const struct x86_tables *t, uint64_t expected)
{
        unsigned count = 0;

        for (unsigned i = 0; i < FAKE_RAM_PAGES; i++) {
                if (x86_tables_has(t, i * 4096ull + 77) != !!(expected & 1ull << i))
                        fail_msg("page %u", i);
                count += !!(expected & 1ull << i);
        }
        assert_int_equal(t->count, count);
        assert_false(x86_tables_has(t, FAKE_RAM_PAGES * 4096ull));
        assert_false(x86_tables_has(t, ~0ull));
}

static void collected(const struct x86_paging *p, uint64_t expected, uint64_t reads)
{
        struct x86_tables t;

        assert_int_equal(x86_tables_init(&t, FAKE_RAM_PAGES), 0);
        assert_int_equal(x86_tables_collect(&t, p, &fake_reader, 1000), 0);
        expect_pages(&t, expected);
        assert_int_equal(t.reads, reads);
        x86_tables_fini(&t);
        assert_null(t.levels);
}

#define BIT(n) (1ull << (n))

static void each_mode(void **state)
{
        struct x86_paging p = paging(0, 0);

        fake_ram_clear();
        p.cr0 = 1;
        collected(&p, 0, 0);

        p = paging(PSE, 0);
        put32(TOP, 0, 0x2000 | ALL);
        put32(TOP, 1023, 0x3000 | P);
        put32(TOP, 5, 0x4000 | ALL | PS); /* a page */
        put32(TOP, 7, ALL | PS);
        put32(TOP, 6, 0x5000 | 6);      /* absent */
        put32(0x2000, 0, 0x6000 | ALL); /* a page */
        collected(&p, BIT(1) | BIT(2) | BIT(3), 1);
        p.cr4 = 0; /* PS counts only with CR4.PSE */
        collected(&p, BIT(0) | BIT(1) | BIT(2) | BIT(3) | BIT(4), 1);

        fake_ram_clear();
        p = paging(PAE, 0);
        p.cr3 = 0x1fe0;
        put64(0x1fe0, 0, 0x2000 | P);
        put64(0x1fe0, 3, 0x3000 | P);
        put64(TOP, 3, 0x7000 | P); /* in the same page, but not of this table */
        put64(0x2000, 511, 0x4000 | ALL);
        put64(0x2000, 0, 0x200000 | ALL | PS);
        put64(0x2000, 7, ALL | PS); /* page 0, and no table */
        put64(0x3000, 0, 0x5000 | ALL);
        put64(0x5000, 0, 0x6000 | ALL);
        collected(&p, BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5), 3);

        fake_ram_clear();
        p = paging(PAE, LMA);
        put64(TOP, 511, 0x2000 | ALL);
        put64(0x2000, 0, 0x3000 | ALL);
        put64(0x2000, 1, 0x40000000 | ALL | PS);
        put64(0x3000, 0, 0x4000 | ALL);
        put64(0x3000, 1, 0x200000 | ALL | PS);
        put64(0x3000, 2, 0x5000 | ALL);
        put64(0x4000, 1, 0x6000 | ALL);
        collected(&p, BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5), 3);
        put64(0x3000, 2, 0x5000 | ALL | BIT(40)); /* reserved: leads nowhere */
        put64(0x2000, 2, 0x7000 | ALL | BIT(51));
        collected(&p, BIT(1) | BIT(2) | BIT(3) | BIT(4), 3);

        p.cr4 |= LA57; /* the same tables, one level up */
        collected(&p, BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(6), 4);
}

/* Two tops in one page of PAE: each is read, whatever is known of the page. */
static void several_spaces(void **state)
{
        struct x86_paging p = paging(PAE, 0);
        struct x86_tables t;

        fake_ram_clear();
        put64(TOP, 0, 0x2000 | P);
        put64(TOP + 32, 0, 0x3000 | P);
        put64(0x2000, 0, 0x4000 | ALL);
        put64(0x3000, 0, 0x4000 | ALL);
        assert_int_equal(x86_tables_init(&t, FAKE_RAM_PAGES), 0);
        assert_int_equal(x86_tables_collect(&t, &p, &fake_reader, 1000), 0);
        expect_pages(&t, BIT(1) | BIT(2) | BIT(4));
        p.cr3 = TOP + 32;
        assert_int_equal(x86_tables_collect(&t, &p, &fake_reader, 1000), 0);
        expect_pages(&t, BIT(1) | BIT(2) | BIT(3) | BIT(4));
        assert_int_equal(t.reads, 4);
        assert_int_equal(x86_tables_collect(&t, &p, &fake_reader, 1000), 0);
        assert_int_equal(t.reads, 5); /* only the top again */
        x86_tables_fini(&t);
}

/* A page that is a table of two levels leads to what it leads to at each. */
static void each_level_counts(void **state)
{
        struct x86_paging p = paging(PAE, LMA);

        fake_ram_clear();
        put64(TOP, 0, 0x2000 | ALL);
        put64(TOP, 1, 0x3000 | ALL);
        put64(0x2000, 0, 0x3000 | ALL); /* page 3: at level 3, and at level 2 */
        put64(0x3000, 0, 0x4000 | ALL);
        put64(0x4000, 0, 0x5000 | ALL); /* page 5: a table only below 3 at level 3 */
        collected(&p, BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5), 5);
        put64(TOP, 1, 0);
        collected(&p, BIT(1) | BIT(2) | BIT(3) | BIT(4), 3);
}

/* All tables lead to all tables: at most one read for each page and level. */
static void loops_end(void **state)
{
        struct x86_paging p = paging(PAE | LA57, LMA);
        struct x86_tables t;

        fake_ram_clear();
        for (unsigned page = 0; page < FAKE_RAM_PAGES; page++)
                for (unsigned i = 0; i < 512; i++)
                        put64(page * 4096, i, (i % FAKE_RAM_PAGES) * 4096ull | ALL);
        collected(&p, ~0ull, 1 + 3 * FAKE_RAM_PAGES);
        assert_int_equal(x86_tables_init(&t, FAKE_RAM_PAGES), 0);
        assert_int_equal(x86_tables_collect(&t, &p, &fake_reader, 10), -E2BIG);
        assert_int_equal(t.reads, 10);
        x86_tables_fini(&t);
}

static void outside_memory(void **state)
{
        struct x86_paging p = paging(PAE, LMA);
        struct x86_tables t;

        fake_ram_clear();
        put64(TOP, 0, 0xfffffff000 | ALL);
        put64(TOP, 1, (FAKE_RAM_PAGES * 4096ull) | ALL); /* told apart, but the reader has none */
        put64(TOP, 2, 0x2000 | ALL);
        assert_int_equal(x86_tables_init(&t, FAKE_RAM_PAGES + 1), 0);
        assert_int_equal(x86_tables_collect(&t, &p, &fake_reader, 1000), 0);
        assert_true(x86_tables_has(&t, TOP) && x86_tables_has(&t, 0x2000));
        x86_tables_fini(&t);
        p.cr3 = 0xfffffff000;
        collected(&p, 0, 0);
        assert_int_equal(x86_tables_init(&t, 0), 0);
        assert_int_equal(x86_tables_collect(&t, &p, &fake_reader, 1000), 0);
        assert_int_equal(t.count, 0);
        x86_tables_fini(&t);
        x86_tables_fini(&t);
}

/* Every page that a walk looks at has been collected: random tables, every mode. */
static void walks_stay_inside(void **state)
{
        static const uint64_t modes[][2] = {
                {0, 0}, {PSE, 0}, {PAE, 0}, {PAE, LMA}, {PAE | LA57, LMA}};
        uint64_t seed = 88172645463325252, deep = 0;

        for (unsigned round = 0; round < 200; round++) {
                struct x86_paging p = paging(modes[round % 5][0], modes[round % 5][1]);
                struct x86_tables t;

                for (unsigned i = 0; i < sizeof fake_ram / 8; i++) {
                        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
                        /* Small addresses, mostly present; both halves for 4-byte entries. */
                        put64(0, i, (seed & 0x3f0870003f087) | (seed >> 60 ? 1 | 1ull << 32 : 0));
                        if (p.cr4 & PAE)
                                put64(0, i, (seed & 0x3f087) | (seed >> 60 ? 1 : 0));
                }
                if (round % 5 == 2)
                        for (unsigned i = 0; i < 4; i++)
                                put64(TOP, i, (i + 2) * 0x1000 | P);
                assert_int_equal(x86_tables_init(&t, FAKE_RAM_PAGES), 0);
                assert_int_equal(x86_tables_collect(&t, &p, &fake_reader, 1000), 0);
                for (unsigned i = 0; i < 2000; i++) {
                        struct x86_walk w;

                        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
                        x86_walk(&p, &fake_reader,
                                 (uint64_t)((int64_t)(seed << 8) >> (round % 5 == 4 ? 8 : 17)),
                                 X86_READ, &w);
                        for (unsigned n = 0; n < w.ntables; n++)
                                assert_true(x86_tables_has(&t, w.tables[n]));
                        deep += w.ntables > 1;
                }
                x86_tables_fini(&t);
        }
        assert_true(deep > 10000);
}

/* --- what looks like one --- */

static _Alignas(4096) uint8_t page[4096];

static void entry64(unsigned i, uint64_t e)
{
        memcpy(page + 8 * i, &e, 8);
}

static void entry32(unsigned i, uint32_t e)
{
        memcpy(page + 4 * i, &e, 4);
}

static void wide_tables(void **state)
{
        struct x86_table_filter f = x86_table_filter(46, 1ull << 32, true, false);

        memset(page, 0, sizeof page);
        assert_false(x86_table_likely(&f, page));
        memset(page, 0xfe, sizeof page); /* nothing present: nothing a walk would write */
        assert_false(x86_table_likely(&f, page));
        for (unsigned at = 0; at < 512; at++) {
                for (unsigned bit = 0; bit < 64; bit++) {
                        bool possible = bit < 32 || bit > 51;

                        memset(page, 0, sizeof page);
                        entry64(at, 1 | BIT(bit));
                        assert_int_equal(x86_table_likely(&f, page), possible);
                        entry64((at + 100) % 512, 0xfffff067);
                        assert_int_equal(x86_table_likely(&f, page), possible);
                        entry64((at + 200) % 512, ~1ull); /* absent, whatever it holds, */
                        entry64(at ^ 1, ~1ull);           /* and in the same line */
                        assert_int_equal(x86_table_likely(&f, page), possible);
                }
        }
        memset(page, 0, sizeof page);
        entry32(1, 1); /* the upper half of an entry is no present bit */
        assert_false(x86_table_likely(&f, page));
}

static void narrow_tables(void **state)
{
        struct x86_table_filter f = x86_table_filter(46, 512 << 20, false, true);

        memset(page, 0, sizeof page);
        assert_false(x86_table_likely(&f, page));
        for (unsigned at = 0; at < 1024; at++) {
                for (unsigned bit = 0; bit < 32; bit++) {
                        memset(page, 0, sizeof page);
                        entry32(at, 1 | 1u << bit);
                        assert_int_equal(x86_table_likely(&f, page), bit < 29);
                        entry32((at + 500) % 1024, ~1u);
                        entry32(at ^ 1, ~1u);
                        assert_int_equal(x86_table_likely(&f, page), bit < 29);
                }
        }
        f = x86_table_filter(46, 1 << 20, false, true); /* upper bits of a 4 MiB page's address */
        memset(page, 0, sizeof page);
        entry32(7, 0x003ff0e7);
        assert_true(x86_table_likely(&f, page));
}

static void limits(void **state)
{
        struct {
                uint8_t maxphyaddr;
                uint64_t limit, impossible;
        } cases[] = {
                {46, 1ull << 32, 0x000fffff00000000},
                {46, (1ull << 32) + 1, 0x000ffffe00000000},
                {46, 0xfee01000, 0x000fffff00000000},
                {46, 1ull << 46, 0x000fc00000000000},
                {46, ~0ull, 0x000fc00000000000},
                {52, ~0ull, 0},
                {99, ~0ull, 0},
                {36, ~0ull, 0x000ffff000000000},
                {46, 0, 0x000ffffffffff000},
        };

        for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
                struct x86_table_filter f =
                        x86_table_filter(cases[i].maxphyaddr, cases[i].limit, true, false);

                assert_int_equal(f.wide_impossible, cases[i].impossible);
        }
}

static void formats(void **state)
{
        struct x86_table_filter both = x86_table_filter(46, 1ull << 28, true, true);
        struct x86_table_filter wide = x86_table_filter(46, 1ull << 28, true, false);
        struct x86_table_filter none = x86_table_filter(46, 1ull << 28, false, false);

        memset(page, 0, sizeof page);
        entry32(0, 0x1067); /* as 8 bytes: an address far away */
        entry32(1, 0x2067);
        assert_true(x86_table_likely(&both, page));
        assert_false(x86_table_likely(&wide, page));
        assert_false(x86_table_likely(&none, page));
        entry32(0, 0x00001067);
        entry32(1, 0x80000000); /* no-execute; as 4 bytes: absent */
        assert_true(x86_table_likely(&wide, page));
}

/* What the tables of a machine hold is always found: the tables of random_spaces, filled as a
 * kernel would. And what is not a table is mostly seen: text, code, random bytes. */
static void common_pages(void **state)
{
        struct x86_table_filter f = x86_table_filter(46, 1ull << 32, true, false);
        unsigned taken = 0;
        uint64_t seed = 88172645463325252;
        FILE *self = fopen("/proc/self/exe", "re");

        for (unsigned i = 0; i < 512; i++)
                entry64(i, i % 3 ? i * 0x200000ull | 0x80000000000001e3 : 0x1e2);
        assert_true(x86_table_likely(&f, page));
        for (unsigned round = 0; round < 1000; round++) {
                for (unsigned i = 0; i < 512; i++) {
                        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
                        entry64(i, seed);
                }
                taken += x86_table_likely(&f, page);
        }
        assert_int_equal(taken, 0);
        for (unsigned i = 0; i < 4096; i++)
                page[i] = "The quick brown fox jumps over the lazy dog. "[i % 45];
        assert_false(x86_table_likely(&f, page));
        assert_non_null(self);
        while (fread(page, sizeof page, 1, self) == 1)
                taken += x86_table_likely(&f, page);
        fclose(self);
        assert_true(taken < 100);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(each_mode),
                cmocka_unit_test(several_spaces),
                cmocka_unit_test(each_level_counts),
                cmocka_unit_test(loops_end),
                cmocka_unit_test(outside_memory),
                cmocka_unit_test(walks_stay_inside),
                cmocka_unit_test(wide_tables),
                cmocka_unit_test(narrow_tables),
                cmocka_unit_test(limits),
                cmocka_unit_test(formats),
                cmocka_unit_test(common_pages),
        };

        return cmocka_run_group_tests_name("pagetables", tests, NULL, NULL);
}
