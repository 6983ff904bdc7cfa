/* SPDX-License-Identifier: Apache-2.0 */
/* The pages that an instruction writes, from KVM's registers and memory: decoder and walk together.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "fake_ram.h"
#include "x86/operands.h"

#define ALL   7ull
#define PS    0x80ull
#define TOP   0x1000ull
#define CODE  0x400000ull
#define LAM48 (1ull << 62)

static struct kvm_regs regs;
static struct kvm_sregs sregs;

/* Long mode with tables at pages 1 to 5: linear 0 to 2 MiB by the table at page 4 (page n at
 * physical page n + 16, but the odd ones from 9 on absent), linear 4 to 6 MiB, where the code is,
 * a large page at physical 2 MiB (page 512). */
static void long_mode(void)
{
        memset(&regs, 0, sizeof regs);
        memset(&sregs, 0, sizeof sregs);
        fake_ram_clear();
        sregs.cr0 = 0x80010001;
        sregs.cr3 = TOP;
        sregs.cr4 = 1 << 5;
        sregs.efer = 0xd00;
        sregs.cs.l = 1;
        sregs.ss.dpl = 3;
        sregs.ldt.unusable = 1;
        regs.rip = CODE;
        put64(TOP, 0, 0x2000 | ALL);
        put64(0x2000, 0, 0x3000 | ALL);
        put64(0x3000, 0, 0x4000 | ALL);
        put64(0x3000, 2, 0x200000 | ALL | PS);
        for (unsigned i = 0; i < 32; i++)
                if (i < 9 || i % 2 == 0)
                        put64(0x4000, i, (i + 16) * 4096ull | ALL);
}

/* The pages found are those of the list, which ends with 0 (in any order). */
static void expect_pages(const char *bytes, size_t n, const unsigned *pages)
{
        uint64_t gpas[X86_WRITTEN_PAGES_MAX];
        unsigned ngpas = X86_WRITTEN_PAGES_MAX, expected = 0;
        int r = x86_written_pages(&regs, &sregs, (const uint8_t *)bytes, n, 2696, &fake_reader,
                                  gpas, &ngpas);

        assert_int_equal(r, 0);
        for (; pages[expected]; expected++) {
                unsigned i = 0;

                while (i < ngpas && gpas[i] != pages[expected] * 4096ull)
                        i++;
                if (i == ngpas)
                        fail_msg("page %u is missing", pages[expected]);
        }
        assert_int_equal(ngpas, expected);
}

static void expect_error(const char *bytes, size_t n, int error)
{
        uint64_t gpas[X86_WRITTEN_PAGES_MAX] = {77};
        unsigned ngpas = X86_WRITTEN_PAGES_MAX;
        int r = x86_written_pages(&regs, &sregs, (const uint8_t *)bytes, n, 2696, &fake_reader,
                                  gpas, &ngpas);

        assert_int_equal(r, error);
        assert_int_equal(ngpas, X86_WRITTEN_PAGES_MAX);
        assert_int_equal(gpas[0], 77);
}

#define PAGES(bytes, ...)   expect_pages(bytes, sizeof bytes - 1, (unsigned[]){__VA_ARGS__, 0})
#define ERROR(bytes, error) expect_error(bytes, sizeof bytes - 1, error)

#define VMOVUPS_RDI_YMM0 "\xc5\xfc\x11\x07"
#define VMOVUPS_RIP_YMM0 "\xc5\xfc\x11\x05\x00\x00\x00\x00"
#define VPSCATTERDD      "\x62\xf2\x7d\x49\xa0\x14\x0f"
#define MOVAPS_XMM0_RSI  "\x0f\x28\x06"
#define REP_MOVSB        "\xf3\xa4"
#define REP_STOSB        "\xf3\xaa"
#define XSAVE_RDI        "\x0f\xae\x27"
#define INT_0X80         "\xcd\x80"
#define PUSH             "\x50"     /* of the accumulator */
#define MOV_DI_A         "\x89\x07" /* mov [rdi], eax; 32 bits: [edi]; 16 bits: [bx], ax */
#define MOV_GS_RDI_EAX   "\x65\x89\x07"
#define MOV_DS_AX        "\x8e\xd8"
#define CALL             "\xe8\x00\x00\x00\x00"

static void stores(void **state)
{
        long_mode();
        regs.rdi = 0x2000;
        PAGES(VMOVUPS_RDI_YMM0, 1, 2, 3, 4, 18);
        regs.rdi = 0x2fe1; /* over the end of the page */
        PAGES(VMOVUPS_RDI_YMM0, 1, 2, 3, 4, 18, 19);
        regs.rdi = 0x2fe0; /* just not */
        PAGES(VMOVUPS_RDI_YMM0, 1, 2, 3, 4, 18);
        regs.rdi = CODE + 0x5678; /* of a large page only the 4 KiB in question */
        PAGES(VMOVUPS_RDI_YMM0, 1, 2, 3, 517);
        regs.rdi = CODE + 0x5fff;
        PAGES(VMOVUPS_RDI_YMM0, 1, 2, 3, 517, 518);
        PAGES(VMOVUPS_RIP_YMM0, 1, 2, 3, 512);
        sregs.gs.base = 0x3000;
        regs.rdi = 0x10;
        PAGES(MOV_GS_RDI_EAX, 1, 2, 3, 4, 19);
        regs.rsp = 0x5004;
        PAGES(PUSH, 1, 2, 3, 4, 20, 21);
        regs.rdi = 0x1f00;
        PAGES(XSAVE_RDI, 1, 2, 3, 4, 17, 18);
}

/* Of what is read, only the tables: accessed bits. */
static void loads(void **state)
{
        long_mode();
        regs.rsi = 0x2000;
        PAGES(MOVAPS_XMM0_RSI, 1, 2, 3, 4);
        PAGES("\x90", 1, 2, 3); /* NOP: the tables of the instruction itself */
        regs.rdi = 0x3000;
        regs.rcx = 0x1001;
        PAGES(REP_MOVSB, 1, 2, 3, 4, 19, 20);
}

static void repeated(void **state)
{
        long_mode();
        regs.rdi = 0x1ffe;
        regs.rcx = 3;
        PAGES(REP_STOSB, 1, 2, 3, 4, 17, 18);
        regs.rcx = 1 << 20; /* not further than X86_REP_BYTES */
        PAGES(REP_STOSB, 1, 2, 3, 4, 17, 18, 19, 20, 21, 22, 23, 24); /* and 9 is not mapped */
        regs.rflags = 1 << 10;
        PAGES(REP_STOSB, 1, 2, 3, 4, 16, 17);
        regs.rcx = 0;
        PAGES(REP_STOSB, 1, 2, 3);
}

/* Pages that are not there are left out; who may write them does not matter. */
static void not_mapped(void **state)
{
        long_mode();
        regs.rdi = 0x8ff0; /* page 8 is mapped, 9 is not */
        PAGES(VMOVUPS_RDI_YMM0, 1, 2, 3, 4, 24);
        regs.rdi = 0x40000000;
        PAGES(VMOVUPS_RDI_YMM0, 1, 2, 3);
        regs.rdi = 1ull << 47; /* not canonical */
        PAGES(VMOVUPS_RDI_YMM0, 1, 2, 3);
        put64(0x4000, 2, 18 * 4096 | 1); /* read-only, and a supervisor's */
        regs.rdi = 0x2000;
        PAGES(VMOVUPS_RDI_YMM0, 1, 2, 3, 4, 18);
}

static void descriptors(void **state)
{
        long_mode();
        sregs.gdt.base = 0x6000;
        sregs.gdt.limit = 0x7f;
        PAGES(MOV_DS_AX, 1, 2, 3, 4, 22);
        sregs.ldt.base = 0x7ff8;
        sregs.ldt.limit = 0xf;
        PAGES(MOV_DS_AX, 1, 2, 3, 4, 22); /* no LDT is loaded */
        sregs.ldt.unusable = 0;
        sregs.ldt.present = 1;
        PAGES(MOV_DS_AX, 1, 2, 3, 4, 22, 23, 24);
        sregs.ldt.limit = 0x1ffff; /* a selector reaches 64 KiB; what is mapped of these */
        PAGES(MOV_DS_AX, 1, 2, 3, 4, 22, 23, 24, 26, 28, 30, 32, 34, 36, 38);
}

static void other_modes(void **state)
{
        long_mode();
        sregs.cs.l = 0; /* compatibility mode, 32 bits */
        sregs.cs.db = 1;
        sregs.ss.db = 1;
        sregs.ds.base = 0x1000;
        sregs.ss.base = 0x2000;
        regs.rdi = 0xdead00001000;
        PAGES(MOV_DI_A, 1, 2, 3, 4, 18);
        sregs.cs.base = 0x1000 - (uint32_t)CODE; /* the instruction is in the first 2 MiB, too */
        PAGES("\x90", 1, 2, 3, 4);
        sregs.cs.base = 0;
        regs.rsp = 0xdead00001000;
        PAGES(PUSH, 1, 2, 3, 4, 18);
        sregs.cs.db = 0; /* 16 bits */
        regs.rbx = 0xf1000;
        PAGES(MOV_DI_A, 1, 2, 3, 4, 18);
        sregs.ss.db = 0;
        regs.rsp = 0xf1002;
        PAGES(PUSH, 1, 2, 3, 4, 19);
        sregs.cr0 = 0; /* real mode: no tables */
        sregs.efer = 0;
        sregs.cs.base = 0xf0000;
        regs.rip = 0xfff0;
        PAGES(PUSH, 3);
        PAGES(INT_0X80, 2, 3);
        PAGES(MOV_DS_AX, 0);
        sregs.cr0 = 1; /* protected mode without paging */
        sregs.cs.db = 1;
        regs.rdi = 0xffffe000;
        PAGES(MOV_DI_A, 0xfffff);
}

static void errors(void **state)
{
        uint64_t gpas[8];
        unsigned ngpas = 4;

        long_mode();
        ERROR("\xc5\xfc", -ENODATA);
        ERROR("\x06", -EILSEQ);
        ERROR(VPSCATTERDD, -ENOTSUP);
        ERROR(INT_0X80, -ENOTSUP);
        regs.rdi = 0x2000;
        assert_int_equal(x86_written_pages(&regs, &sregs, (const uint8_t *)MOV_DI_A, 2, 0,
                                           &fake_reader, gpas, &ngpas),
                         -E2BIG);
        ngpas = 5;
        assert_int_equal(x86_written_pages(&regs, &sregs, (const uint8_t *)MOV_DI_A, 2, 0,
                                           &fake_reader, gpas, &ngpas),
                         0);
        assert_int_equal(ngpas, 5);
        assert_int_equal(x86_written_pages(&regs, &sregs, (const uint8_t *)XSAVE_RDI, 3, 0,
                                           &fake_reader, gpas, &ngpas),
                         -ENOTSUP);
        sregs.cr4 |= 1 << 23;
        ERROR(CALL, -ENOTSUP); /* a shadow stack somewhere */
        sregs.cr3 |= LAM48;
        regs.rdi = 0x7123000000002000; /* a tagged pointer */
        ERROR(MOV_DI_A, -ENOTSUP);
        regs.rdi = 0x2000;
        PAGES(MOV_DI_A, 1, 2, 3, 4, 18);
        put64(0x3000, 0, 0x40000000 | ALL);
        ERROR(MOV_DI_A, -EIO);
}

/* As many pages as one instruction can ask for have room. */
static void room(void **state)
{
        long_mode();
        for (unsigned i = 0; i < 512; i++)
                put64(0x4000, i, (i + 1024) * 4096ull | ALL);
        regs.rsi = 0x1fffff - X86_REP_BYTES; /* tables of its own for each operand */
        regs.rdi = 0x801fff;
        regs.rcx = 1 << 20;
        put64(0x3000, 4, 0x5000 | ALL);
        for (unsigned i = 0; i < 512; i++)
                put64(0x5000, i, (i + 2048) * 4096ull | ALL);
        PAGES(REP_MOVSB, 1, 2, 3, 4, 5, 2049, 2050, 2051, 2052, 2053, 2054, 2055, 2056, 2057);
        sregs.gdt.limit = 0xffff;
        sregs.gdt.base = 0xfff;
        sregs.ldt = (struct kvm_segment){.base = 0x100fff, .limit = 0xffff, .present = 1};
        {
                uint64_t gpas[X86_WRITTEN_PAGES_MAX];
                unsigned ngpas = X86_WRITTEN_PAGES_MAX;

                assert_int_equal(x86_written_pages(&regs, &sregs, (const uint8_t *)MOV_DS_AX, 2, 0,
                                                   &fake_reader, gpas, &ngpas),
                                 0);
                assert_int_equal(ngpas, 4 + 17 + 17);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(stores),      cmocka_unit_test(loads),
                cmocka_unit_test(repeated),    cmocka_unit_test(not_mapped),
                cmocka_unit_test(descriptors), cmocka_unit_test(other_modes),
                cmocka_unit_test(errors),      cmocka_unit_test(room),
        };

        return cmocka_run_group_tests_name("operands", tests, NULL, NULL);
}
