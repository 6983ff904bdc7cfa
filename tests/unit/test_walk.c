/* SPDX-License-Identifier: Apache-2.0 */
/* The page walk: every mode and page size, permissions against a table, reserved bits one by one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "fake_ram.h"

#define PG     (1ull << 31)
#define WP     (1ull << 16)
#define PSE    (1ull << 4)
#define PAE    (1ull << 5)
#define LA57   (1ull << 12)
#define SMEP   (1ull << 20)
#define SMAP   (1ull << 21)
#define LME    (1ull << 8)
#define LMA    (1ull << 10)
#define NXE    (1ull << 11)
#define AC     (1ull << 18)
#define P      1ull
#define RW     2ull
#define US     4ull
#define PS     0x80ull
#define PAT    0x1000ull
#define XD     (1ull << 63)
#define ALL    (P | RW | US)
#define TOP    0x1000ull
#define BIT(n) (1ull << (n))

static struct x86_paging long_mode(uint64_t cr4)
{
        return (struct x86_paging){.cr0 = PG | WP | 1,
                                   .cr3 = TOP,
                                   .cr4 = PAE | cr4,
                                   .efer = LME | LMA | NXE,
                                   .maxphyaddr = 40};
}

static struct x86_paging legacy(uint64_t cr4)
{
        return (struct x86_paging){
                .cr0 = PG | WP | 1, .cr3 = TOP, .cr4 = cr4, .efer = NXE, .maxphyaddr = 40};
}

static struct x86_walk good(const struct x86_paging *p, uint64_t linear, unsigned access)
{
        struct x86_walk w;

        assert_int_equal(x86_walk(p, &fake_reader, linear, access, &w), 0);
        assert_int_equal(w.fault, 0);
        return w;
}

/* The walk faults, with this error code. */
static void bad(const struct x86_paging *p, uint64_t linear, unsigned access, uint32_t code)
{
        struct x86_walk w;

        assert_int_equal(x86_walk(p, &fake_reader, linear, access, &w), -EFAULT);
        assert_int_equal(w.fault, code);
}

/* --- modes --- */

static void paging_off(void **state)
{
        struct x86_paging p = {.cr3 = TOP, .cr4 = PAE, .maxphyaddr = 40, .cpl = 3};
        struct x86_walk w;

        fake_ram_clear();
        w = good(&p, 0xf00012345678, X86_WRITE);
        assert_int_equal(w.gpa, 0x12345678);
        assert_int_equal(w.page_bytes, 4096);
        assert_int_equal(w.ntables, 0);
        assert_true(w.writable && w.user && w.executable);
        assert_int_equal(fake_ram_reads, 0);
}

static void two_levels(void **state)
{
        struct x86_paging p = legacy(0);
        struct x86_walk w;

        fake_ram_clear();
        p.cr3 |= 0xfff00000018;               /* only bits 31:12 are an address */
        put32(TOP, 0x3ff, 0x2000 | ALL | PS); /* CR4.PSE is clear: PS is ignored */
        put32(0x2000, 0x2aa, 0xabcde000 | P | US | PS /* PAT */);
        w = good(&p, 0xffeaa123, X86_READ);
        assert_int_equal(w.gpa, 0xabcde123);
        assert_int_equal(w.page_bytes, 4096);
        assert_int_equal(w.ntables, 2);
        assert_int_equal(w.tables[0], TOP);
        assert_int_equal(w.tables[1], 0x2000);
        assert_false(w.writable);
        assert_true(w.user);
        assert_true(w.executable);
        assert_int_equal(good(&p, 0xffffffffffeaa123, X86_READ).gpa, 0xabcde123);
        bad(&p, 0xffea9123, X86_READ, 0);
        bad(&p, 0x123, X86_WRITE, X86_PF_WRITE);
}

static void four_mib(void **state)
{
        struct x86_paging p = legacy(PSE);
        struct x86_walk w;

        fake_ram_clear();
        put32(TOP, 1, 0x00c00000 | PAT | PS | ALL);
        w = good(&p, 0x7fffff, X86_WRITE);
        assert_int_equal(w.gpa, 0xffffff);
        assert_int_equal(w.page_bytes, 4 << 20);
        assert_int_equal(w.ntables, 1);
        /* PSE-36 with 40 bits: 20:13 are 39:32, and 21 is reserved. */
        put32(TOP, 1, 0x00c00000 | 0xa5 << 13 | PS | ALL);
        assert_int_equal(good(&p, 0x400001, X86_READ).gpa, 0xa500c00001);
        put32(TOP, 1, (uint32_t)(0x00c00000 | BIT(21) | PS | ALL));
        bad(&p, 0x400000, X86_READ, X86_PF_PRESENT | X86_PF_RESERVED);
        /* With 36 bits only 16:13 are. */
        p.maxphyaddr = 36;
        for (unsigned bit = 13; bit <= 21; bit++) {
                put32(TOP, 1, (uint32_t)(0x00c00000 | BIT(bit) | PS | ALL));
                if (bit <= 16)
                        assert_int_equal(good(&p, 0x400000, X86_READ).gpa,
                                         0xc00000 | BIT(bit + 19));
                else
                        bad(&p, 0x400000, X86_READ, X86_PF_PRESENT | X86_PF_RESERVED);
        }
        p.maxphyaddr = 52; /* never more than 40 */
        put32(TOP, 1, (uint32_t)(0x00c00000 | BIT(21) | PS | ALL));
        bad(&p, 0x400000, X86_READ, X86_PF_PRESENT | X86_PF_RESERVED);
}

static void pae(void **state)
{
        struct x86_paging p = legacy(PAE);
        struct x86_walk w;

        fake_ram_clear();
        p.cr3 = 0x1fe0 | 0x1f; /* 32-byte aligned; its low bits are ignored */
        put64(0x1fe0, 3, 0x2000 | P);
        put64(0x2000, 0x1ff, 0x3000 | ALL);
        put64(0x3000, 0x0f, 0x9876543000 | ALL | XD);
        w = good(&p, 0xffe0f00f, X86_WRITE);
        assert_int_equal(w.gpa, 0x987654300f);
        assert_int_equal(w.ntables, 3);
        assert_int_equal(w.tables[0], 0x1000);
        assert_int_equal(w.tables[1], 0x2000);
        assert_int_equal(w.tables[2], 0x3000);
        assert_false(w.executable);
        assert_true(w.writable); /* the top entry has no rights to take away */
        assert_true(w.user);
        put64(0x2000, 0, 0xff00200000 | PAT | PS | ALL);
        w = good(&p, 0xc01fffff, X86_EXEC);
        assert_int_equal(w.gpa, 0xff003fffff);
        assert_int_equal(w.page_bytes, 2 << 20);
        bad(&p, 0, X86_READ, 0);
}

static void four_levels(void **state)
{
        struct x86_paging p = long_mode(0);
        uint64_t linear = 0xffff800000000000 | 1ull << 39 | 2ull << 30 | 3ull << 21 | 4ull << 12;
        struct x86_walk w;

        fake_ram_clear();
        p.cr3 |= 0xabc | 3ull << 61; /* PCID, LAM: not part of the address */
        put64(TOP, 257, 0x2000 | ALL | 0x7ffull << 52);
        put64(0x2000, 2, 0x3000 | ALL);
        put64(0x3000, 3, 0x4000 | ALL);
        put64(0x4000, 4, 0xfffffff000 | ALL | PS | BIT(52) | BIT(62));
        w = good(&p, linear | 0x678, X86_EXEC);
        assert_int_equal(w.gpa, 0xfffffff678);
        assert_int_equal(w.page_bytes, 4096);
        assert_int_equal(w.ntables, 4);
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(w.tables[i], TOP + i * 0x1000);
        put64(0x3000, 3, 0xfffffe00000 | ALL | PS);
        bad(&p, linear, X86_READ, X86_PF_PRESENT | X86_PF_RESERVED);
        p.maxphyaddr = 52;
        w = good(&p, linear | 0x123, X86_READ);
        assert_int_equal(w.gpa, 0xfffffe04123);
        assert_int_equal(w.page_bytes, 2 << 20);
        assert_int_equal(w.ntables, 3);
        put64(0x2000, 2, 0x40000000 | PAT | ALL | PS);
        w = good(&p, linear | 0xfff, X86_READ);
        assert_int_equal(w.gpa, 0x40604fff);
        assert_int_equal(w.page_bytes, 1 << 30);
        assert_int_equal(w.ntables, 2);
        assert_int_equal(x86_walk(&p, &fake_reader, BIT(47), X86_READ, &w), -EINVAL);
        assert_int_equal(x86_walk(&p, &fake_reader, ~BIT(47), X86_DEBUG, &w), -EINVAL);
        assert_int_equal(w.ntables, 0);
}

static void five_levels(void **state)
{
        struct x86_paging p = long_mode(LA57);
        struct x86_walk w;

        fake_ram_clear();
        put64(TOP, 0x100, 0x2000 | ALL);
        put64(0x2000, 0, 0x3000 | ALL);
        put64(0x3000, 0, 0x4000 | ALL);
        put64(0x4000, 0, 0x5000 | ALL);
        put64(0x5000, 1, 0x7000 | ALL);
        w = good(&p, 0xff00000000001004, X86_WRITE);
        assert_int_equal(w.gpa, 0x7004);
        assert_int_equal(w.ntables, 5);
        assert_int_equal(w.tables[4], 0x5000);
        assert_int_equal(x86_walk(&p, &fake_reader, BIT(56), X86_READ, &w), -EINVAL);
        bad(&p, BIT(47), X86_READ, 0);
}

/* --- reserved bits --- */

/* In a chain of tables that leads to 0x8000, entry @level gets each of 64 bits in turn; those of
 * @reserved must fault, others change at most the address. */
static void each_bit(const struct x86_paging *p, unsigned levels, unsigned level, uint64_t flags,
                     uint64_t reserved)
{
        for (unsigned bit = 0; bit < 64; bit++) {
                struct x86_walk w;
                int r;

                if (bit == 7 && (level == 2 || (level == 3 && levels > 3)))
                        continue; /* makes it another kind of entry */
                fake_ram_clear();
                for (unsigned l = levels; l > 0; l--)
                        put64(TOP + (levels - l) * 0x1000, 0,
                              (l == 1 ? 0x8000 : TOP + (levels - l + 1) * 0x1000) |
                                      (levels == 3 && l == 3 ? P : ALL));
                put64(TOP + (levels - level) * 0x1000, 0,
                      flags | BIT(bit) | (flags & PS ? 0 : TOP + (levels - level + 1) * 0x1000));
                r = x86_walk(p, &fake_reader, 0, X86_READ, &w);
                if ((r == -EFAULT && (w.fault & X86_PF_RESERVED)) != !!(reserved & BIT(bit)))
                        fail_msg("%u levels, level %u, bit %u: %d, fault %x", levels, level, bit, r,
                                 w.fault);
                if (!(reserved & BIT(bit)))
                        continue;
                assert_int_equal(w.fault, X86_PF_PRESENT | X86_PF_RESERVED);
                r = x86_walk(p, &fake_reader, 0, X86_DEBUG, &w);
                assert_true(r == 0 || r == -EIO || (r == -EFAULT && w.fault == 0));
        }
}

static void reserved_bits(void **state)
{
        struct x86_paging p = long_mode(0);
        uint64_t high = 0xfffull << 40;

        for (unsigned level = 1; level <= 4; level++)
                each_bit(&p, 4, level, ALL, high | (level == 4 ? PS : 0));
        each_bit(&p, 4, 2, ALL | PS, high | 0x1fe000);
        each_bit(&p, 4, 3, ALL | PS, high | 0x3fffe000);
        p.efer &= ~NXE;
        each_bit(&p, 4, 1, ALL, high | XD);
        each_bit(&p, 4, 4, ALL, high | XD | PS);
        p = long_mode(LA57);
        each_bit(&p, 5, 5, ALL, high | PS);
        each_bit(&p, 5, 4, ALL, high | PS);
        p.maxphyaddr = 52;
        each_bit(&p, 5, 1, ALL, 0);
        p = legacy(PAE); /* bits 62:52 are reserved here, too */
        each_bit(&p, 3, 1, ALL, ~XD & ~(BIT(40) - 1));
        each_bit(&p, 3, 2, ALL, ~XD & ~(BIT(40) - 1));
        each_bit(&p, 3, 2, ALL | PS, (~XD & ~(BIT(40) - 1)) | 0x1fe000);
        each_bit(&p, 3, 3, P, ~(BIT(40) - 1) | 0x1e6);
}

/* --- permissions --- */

/* One page of each kind: bit 0 of the page number is RW, bit 1 is US, bit 2 is XD. */
static void map_kinds(void)
{
        fake_ram_clear();
        put64(TOP, 0, 0x2000 | ALL);
        put64(0x2000, 0, 0x3000 | ALL);
        put64(0x3000, 0, 0x4000 | ALL);
        for (unsigned i = 0; i < 8; i++)
                put64(0x4000, i,
                      0x8000 | P | (i & 1 ? RW : 0) | (i & 2 ? US : 0) | (i & 4 ? XD : 0));
}

/* @allowed: one bit a kind of page. What is not allowed faults with @code. */
static void check_kinds(const struct x86_paging *p, unsigned access, unsigned allowed,
                        uint32_t code)
{
        for (unsigned i = 0; i < 8; i++) {
                struct x86_walk w;
                int r = x86_walk(p, &fake_reader, i * 4096, access, &w);

                if ((r == 0) != !!(allowed & 1u << i))
                        fail_msg("access %x, page %u: %d", access, i, r);
                assert_int_equal(w.writable, !!(i & 1));
                assert_int_equal(w.user, !!(i & 2));
                assert_int_equal(w.executable, !(i & 4));
                if (r)
                        assert_int_equal(w.fault, code | X86_PF_PRESENT);
        }
        assert_int_equal(
                x86_walk(p, &fake_reader, 0x1000, access | X86_DEBUG, &(struct x86_walk){0}), 0);
}

static void permissions(void **state)
{
        struct x86_paging p = long_mode(0);

        map_kinds();
        p.cpl = 3;
        check_kinds(&p, X86_READ, 0xcc, X86_PF_USER);
        check_kinds(&p, X86_WRITE, 0x88, X86_PF_USER | X86_PF_WRITE);
        check_kinds(&p, X86_EXEC, 0x0c, X86_PF_USER | X86_PF_FETCH);
        check_kinds(&p, X86_IMPLICIT, 0xff, 0);
        check_kinds(&p, X86_IMPLICIT | X86_WRITE, 0xaa, X86_PF_WRITE);
        p.cpl = 0;
        check_kinds(&p, X86_READ, 0xff, 0);
        check_kinds(&p, X86_WRITE, 0xaa, X86_PF_WRITE);
        check_kinds(&p, X86_EXEC, 0x0f, X86_PF_FETCH);
        p.cr0 &= ~WP;
        check_kinds(&p, X86_WRITE, 0xff, 0);
        p.cpl = 3; /* WP is not for users */
        check_kinds(&p, X86_WRITE, 0x88, X86_PF_USER | X86_PF_WRITE);
        p.cpl = 2;
        check_kinds(&p, X86_WRITE, 0xff, 0);
}

static void smep_smap(void **state)
{
        struct x86_paging p = long_mode(SMEP | SMAP);

        map_kinds();
        check_kinds(&p, X86_READ, 0x33, 0);
        check_kinds(&p, X86_WRITE, 0x22, X86_PF_WRITE);
        check_kinds(&p, X86_EXEC, 0x03, X86_PF_FETCH);
        p.cr0 &= ~WP;
        check_kinds(&p, X86_WRITE, 0x33, X86_PF_WRITE);
        p.cr0 |= WP;
        p.rflags = AC;
        check_kinds(&p, X86_READ, 0xff, 0);
        check_kinds(&p, X86_WRITE, 0xaa, X86_PF_WRITE);
        check_kinds(&p, X86_EXEC, 0x03, X86_PF_FETCH);
        check_kinds(&p, X86_IMPLICIT, 0x33, 0); /* AC lifts it for explicit accesses only */
        p.cpl = 3;
        check_kinds(&p, X86_READ, 0xcc, X86_PF_USER);
        check_kinds(&p, X86_IMPLICIT, 0x33, 0);
        check_kinds(&p, X86_DEBUG | X86_WRITE, 0xff, 0);
}

/* The fetch bit of the error code is there with NXE or SMEP only (4.7). */
static void fetch_bit(void **state)
{
        struct x86_paging p = legacy(0);

        fake_ram_clear();
        p.cpl = 3;
        bad(&p, 0, X86_EXEC, X86_PF_USER);
        p.cr4 = SMEP;
        bad(&p, 0, X86_EXEC, X86_PF_USER | X86_PF_FETCH);
        p.cr4 = PAE;
        bad(&p, 0, X86_EXEC, X86_PF_USER | X86_PF_FETCH);
        p.efer = 0;
        bad(&p, 0, X86_EXEC, X86_PF_USER);
}

/* A right counts only if the entries of all levels give it. */
static void every_level_counts(void **state)
{
        struct x86_paging p = long_mode(0);

        for (unsigned level = 0; level < 4; level++) {
                for (unsigned right = 0; right < 3; right++) {
                        struct x86_walk w;

                        map_kinds();
                        put64(0x4000, 0, 0x8000 | ALL);
                        put64(TOP + level * 0x1000, 0,
                              (0x2000 + level * 0x1000) | P | (right == 0 ? 0 : RW) |
                                      (right == 1 ? 0 : US) | (right == 2 ? XD : 0));
                        w = good(&p, 0, X86_READ);
                        assert_int_equal(w.writable, right != 0);
                        assert_int_equal(w.user, right != 1);
                        assert_int_equal(w.executable, right != 2);
                }
        }
}

/* --- what a guest may try --- */

static void tables_outside_memory(void **state)
{
        struct x86_paging p = long_mode(0);
        struct x86_walk w;

        fake_ram_clear();
        put64(TOP, 0, 0x100000000 | ALL);
        assert_int_equal(x86_walk(&p, &fake_reader, 0, X86_READ, &w), -EIO);
        assert_int_equal(w.ntables, 2);
        assert_int_equal(w.tables[1], 0x100000000);
        p.cr3 = 0xfffffff000;
        assert_int_equal(x86_walk(&p, &fake_reader, 0, X86_DEBUG, &w), -EIO);
        assert_int_equal(w.ntables, 1);
}

static void a_table_that_is_its_own(void **state)
{
        struct x86_paging p = long_mode(LA57);
        struct x86_walk w;

        fake_ram_clear();
        put64(TOP, 511, TOP | ALL);
        w = good(&p, ~7ull, X86_WRITE);
        assert_int_equal(w.gpa, TOP + 0xff8);
        assert_int_equal(w.ntables, 5);
        assert_int_equal(fake_ram_reads, 5);
}

/* Deterministic rubbish everywhere: answers stay in bounds. */
static void rubbish(void **state)
{
        uint64_t seed = 88172645463325252, answers = 0;

        for (unsigned round = 0; round < 200000; round++) {
                uint64_t r[6];
                struct x86_paging p;
                struct x86_walk w;
                int ret;

                for (unsigned i = 0; i < 6; i++) {
                        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
                        r[i] = seed;
                }
                if (round % 16 == 0)
                        for (unsigned i = 0; i < sizeof fake_ram / 8; i++) {
                                seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
                                put64(0, i, (seed & 0x800000000003ffff) | (seed >> 44 & 0xfff));
                        }
                p = (struct x86_paging){r[0] | PG,           r[1] & 0x3ffff,      r[2], r[3], r[4],
                                        (uint8_t)(r[5] & 3), (uint8_t)(r[5] >> 8)};
                ret = x86_walk(&p, &fake_reader, (uint64_t)((int64_t)(r[4] << 8) >> (r[5] >> 58)),
                               (unsigned)(r[5] >> 16) & 15, &w);
                assert_true(ret == 0 || ret == -EFAULT || ret == -EINVAL || ret == -EIO);
                assert_true(w.ntables <= 5);
                for (unsigned i = 0; i < w.ntables; i++)
                        assert_int_equal(w.tables[i] & 4095, 0);
                if (ret)
                        continue;
                answers++;
                assert_true(w.gpa < 1ull << 52);
                assert_true(w.page_bytes == 4096 || w.page_bytes == 2 << 20 ||
                            w.page_bytes == 4 << 20 || w.page_bytes == 1 << 30);
        }
        assert_true(answers > 1000);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(paging_off),
                cmocka_unit_test(two_levels),
                cmocka_unit_test(four_mib),
                cmocka_unit_test(pae),
                cmocka_unit_test(four_levels),
                cmocka_unit_test(five_levels),
                cmocka_unit_test(reserved_bits),
                cmocka_unit_test(permissions),
                cmocka_unit_test(smep_smap),
                cmocka_unit_test(fetch_bit),
                cmocka_unit_test(every_level_counts),
                cmocka_unit_test(tables_outside_memory),
                cmocka_unit_test(a_table_that_is_its_own),
                cmocka_unit_test(rubbish),
        };

        return cmocka_run_group_tests_name("walk", tests, NULL, NULL);
}
