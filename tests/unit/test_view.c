/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page walks through the translation cache say what walks without it say, while registers change
 * under it: two that differ in anything that a walk looks at must not share an entry.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "access_fake.h"
#include "x86/view.h"

#define TABLES 16 /* pages of random tables; any of them may be of any level */
#define STEPS  400000

#define CR0_PE   (1ull << 0)
#define CR0_WP   (1ull << 16)
#define CR0_PG   (1ull << 31)
#define CR4_PSE  (1ull << 4)
#define CR4_PAE  (1ull << 5)
#define CR4_LA57 (1ull << 12)
#define CR4_SMEP (1ull << 20)
#define CR4_SMAP (1ull << 21)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)
#define EFER_NXE (1ull << 11)
#define AC       (1ull << 18)
#define PTE_PS   (1ull << 7)
#define PTE_XD   (1ull << 63)

static struct fake f;
static struct tlb tlb;
static struct fake_user u;
static unsigned seed;

static unsigned draw(unsigned n)
{
        seed = seed * 1664525 + 1013904223;
        return (seed >> 8) % n;
}

static uint64_t maybe(uint64_t bits)
{
        return draw(2) ? bits : 0;
}

/* Most lead to tables, so that most walks have an end. */
static void make_tables(void)
{
        for (unsigned page = 0; page < TABLES; page++) {
                for (unsigned i = 0; i < PAGE / 8; i++)
                        *fake_word(&f, page, i) = fake_gpa(draw(TABLES)) | (draw(16) > 0) |
                                                  (draw(4) ? 2 : 0) | (draw(16) ? 4 : 0) |
                                                  (draw(32) ? 0 : PTE_PS) | (draw(8) ? 0 : PTE_XD) |
                                                  (draw(16) ? 0 : 1ull << 40);
        }
}

static struct x86_paging draw_registers(void)
{
        static const uint8_t widths[] = {32, 36, 46, 52};
        bool long_mode = draw(4) > 0;

        return (struct x86_paging){
                .cr0 = CR0_PE | (draw(16) ? CR0_PG : 0) | maybe(CR0_WP),
                .cr3 = fake_gpa(draw(2)),
                .cr4 = (long_mode || draw(2) ? CR4_PAE : 0) | maybe(CR4_PSE) | maybe(CR4_SMEP) |
                       maybe(CR4_SMAP) | (draw(8) ? 0 : CR4_LA57),
                .efer = (long_mode ? EFER_LMA | EFER_LME : 0) | maybe(EFER_NXE),
                .rflags = 2 | maybe(AC),
                .cpl = draw(2) ? 0 : 3,
                .maxphyaddr = widths[draw(4)],
        };
}

static uint64_t draw_address(void)
{
        uint64_t gva = 0;

        for (unsigned level = 0; level < 4; level++) /* few pages, so that they come again */
                gva = gva << 9 | draw(2) * 3;
        return gva << 12 | draw(PAGE);
}

static unsigned draw_kind(void)
{
        static const unsigned kinds[] = {X86_READ,
                                         X86_WRITE,
                                         X86_EXEC,
                                         X86_DEBUG,
                                         X86_IMPLICIT,
                                         X86_IMPLICIT | X86_WRITE,
                                         X86_DEBUG | X86_WRITE};

        return kinds[draw(7)];
}

/* One register of @p; the others stay, so that it alone has to tell two tags apart. */
static void change(struct x86_paging *p)
{
        static const uint64_t cr4[] = {CR4_PSE, CR4_PAE, CR4_LA57, CR4_SMEP, CR4_SMAP};
        struct x86_paging other = draw_registers();

        switch (draw(7)) {
        case 0:
                p->cr0 ^= draw(2) ? CR0_PG : CR0_WP;
                break;
        case 1:
                p->cr3 = other.cr3;
                break;
        case 2:
                p->cr4 ^= cr4[draw(5)];
                break;
        case 3:
                p->efer = other.efer;
                break;
        case 4:
                p->rflags ^= AC;
                break;
        case 5:
                p->cpl ^= 3;
                break;
        default:
                p->maxphyaddr = other.maxphyaddr;
        }
}

static void registers_are_in_the_tag(void **state)
{
        struct x86_paging p[2];
        unsigned good = 0;

        make_tables();
        for (unsigned i = 0; i < STEPS; i++) {
                uint64_t gva = draw_address(), gpa[2] = {0};
                unsigned kind = draw_kind();
                struct x86_view view;
                int r[2];

                if (i % 64 == 0) { /* two that differ in one register, in turn */
                        p[0] = p[1] = draw_registers();
                        change(&p[1]);
                }
                x86_view_init(&view, &p[draw(2)], 0, 1);
                for (unsigned bypass = 0; bypass < 2; bypass++) {
                        u.a.bypass = bypass;
                        r[bypass] =
                                guest_access_translate(&u.a, &view.view, kind, gva, &gpa[bypass]);
                }
                if (r[0] != r[1] || gpa[0] != gpa[1]) {
                        printf("# stale value %#llx (%d) for %#llx, kind %u; without cache %#llx "
                               "(%d)\n",
                               (unsigned long long)gpa[0], r[0], (unsigned long long)gva, kind,
                               (unsigned long long)gpa[1], r[1]);
                        fflush(stdout);
                        fail();
                }
                good += r[0] == 0;
        }
        assert_in_range(good, STEPS / 10, STEPS);
        assert_true(tlb.stats.hits[TLB_LINEAR] > STEPS / 50);
}

/* vCPU and run are the caller's word for when registers and tables are to be looked at again. */
static void so_are_vcpu_and_run(void **state)
{
        struct x86_paging p = {.cr0 = CR0_PE | CR0_PG,
                               .cr4 = CR4_PAE,
                               .efer = EFER_LMA | EFER_LME,
                               .cr3 = fake_gpa(0),
                               .maxphyaddr = 46};
        uint64_t gpa;

        for (unsigned i = 0; i < 4; i++)
                *fake_word(&f, i, 0) = fake_gpa(i + 1) | 7;
        for (unsigned i = 0; i < 6; i++) {
                struct x86_view view;

                *fake_word(&f, 3, 0) = fake_gpa(10 + i) | 7;
                x86_view_init(&view, &p, i / 2, (i + 1) / 2);
                assert_int_equal(guest_access_translate(&u.a, &view.view, X86_READ, 5, &gpa), 0);
                assert_int_equal(gpa, fake_gpa(10 + i) + 5);
        }
}

static int set_up(void **state)
{
        seed = 1;
        fake_init(&f);
        memset(&tlb, 0, sizeof tlb);
        tlb_init(&tlb);
        fake_join(&f, &u, &tlb);
        return 0;
}

static int tear_down(void **state)
{
        sync_leave(&u.part);
        fake_fini(&f);
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(registers_are_in_the_tag, set_up, tear_down),
                cmocka_unit_test_setup_teardown(so_are_vcpu_and_run, set_up, tear_down),
        };

        return cmocka_run_group_tests_name("view", tests, NULL, NULL);
}
