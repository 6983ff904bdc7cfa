/* SPDX-License-Identifier: Apache-2.0 */
/* The translation cache: what it finds, what its tags keep apart, and what each flush forgets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mem/tlb.h"

#define PAGE ((uint64_t)TLB_PAGE)

static struct tlb tlb;
static uint8_t memory[16 * TLB_PAGE];

static const struct tlb_space here = {.vcpu = 1, .run = 2, .tables = 0x3000, .mode = 4};

static int new_tlb(void **state)
{
        memset(&tlb, 0, sizeof tlb);
        tlb_init(&tlb);
        return 0;
}

static uint64_t space(void)
{
        return tlb_space(&tlb, &here);
}

/* 0: not there. Page 0 is nowhere used as an answer. */
static uint64_t linear(uint64_t gva, unsigned kind)
{
        uint64_t gpa = 0;

        return tlb_find_linear(&tlb, space(), gva, kind, &gpa) ? gpa : 0;
}

static uint8_t *combined(uint64_t gva, unsigned kind)
{
        uint64_t gpa;
        uint8_t *hva = NULL;

        return tlb_find_combined(&tlb, space(), gva, kind, &gpa, &hva) ? hva : NULL;
}

static void add_all(void)
{
        tlb_add_linear(&tlb, space(), 0x7000, 0, 0x2000);
        tlb_add_physical(&tlb, 0x2000, memory);
        tlb_add_combined(&tlb, space(), 0x7000, 0, 0x2000, memory);
}

static void expect(bool has_linear, bool has_physical, bool has_combined)
{
        assert_int_equal(linear(0x7000, 0), has_linear ? 0x2000 : 0);
        assert_ptr_equal(tlb_find_physical(&tlb, 0x2000), has_physical ? memory : NULL);
        assert_ptr_equal(combined(0x7000, 0), has_combined ? memory : NULL);
}

static void empty_finds_nothing(void **state)
{
        expect(false, false, false);
        assert_int_equal(linear(0, 0), 0);
        assert_null(tlb_find_physical(&tlb, 0));
        assert_null(combined(0, 0));
}

static void any_byte_of_a_page_finds_it(void **state)
{
        uint64_t gpa;
        uint8_t *hva;

        tlb_add_linear(&tlb, space(), 0x7123, 0, 0x2456);
        tlb_add_physical(&tlb, 0x2fff, memory);
        tlb_add_combined(&tlb, space(), 0x7001, 0, 0x2fff, memory);
        assert_int_equal(linear(0x7fff, 0), 0x2000);
        assert_int_equal(linear(0x8000, 0), 0);
        assert_ptr_equal(tlb_find_physical(&tlb, 0x2000), memory);
        assert_null(tlb_find_physical(&tlb, 0x1fff));
        assert_true(tlb_find_combined(&tlb, space(), 0x7ff8, 0, &gpa, &hva));
        assert_int_equal(gpa, 0x2000);
        assert_ptr_equal(hva, memory);
        assert_null(combined(0x6fff, 0));
}

/* What was found for one kind of access says nothing about another, until that was walked too. */
static void kinds_of_access_are_apart(void **state)
{
        add_all();
        assert_int_equal(linear(0x7000, 1), 0);
        assert_null(combined(0x7000, 1));
        tlb_add_linear(&tlb, space(), 0x7000, 1, 0x2000);
        tlb_add_combined(&tlb, space(), 0x7000, 15, 0x2000, memory);
        assert_int_equal(linear(0x7000, 0), 0x2000);
        assert_int_equal(linear(0x7000, 1), 0x2000);
        assert_ptr_equal(combined(0x7000, 0), memory);
        assert_ptr_equal(combined(0x7000, 15), memory);
        assert_null(combined(0x7000, 1));
}

/* A page that turns out to mean something else now does so for no kind but the one that was asked.
 */
static void other_meaning_replaces_all_kinds(void **state)
{
        add_all();
        tlb_add_linear(&tlb, space(), 0x7000, 1, 0x5000);
        assert_int_equal(linear(0x7000, 1), 0x5000);
        assert_int_equal(linear(0x7000, 0), 0);
        tlb_add_combined(&tlb, space(), 0x7000, 1, 0x5000, memory);
        assert_null(combined(0x7000, 0));
        tlb_add_combined(&tlb, space(), 0x7000, 2, 0x5000, memory + PAGE);
        assert_null(combined(0x7000, 1));
        assert_ptr_equal(combined(0x7000, 2), memory + PAGE);
        tlb_add_physical(&tlb, 0x2000, memory + PAGE);
        assert_ptr_equal(tlb_find_physical(&tlb, 0x2000), memory + PAGE);
}

static void spaces_are_apart(void **state)
{
        struct tlb_space other[4] = {here, here, here, here};
        uint64_t gpa;
        uint8_t *hva;

        other[0].vcpu++;
        other[1].run++;
        other[2].tables += PAGE;
        other[3].mode++;
        add_all();
        for (unsigned i = 0; i < 4; i++) {
                uint64_t s = tlb_space(&tlb, &other[i]);

                assert_false(tlb_find_linear(&tlb, s, 0x7000, 0, &gpa));
                assert_false(tlb_find_combined(&tlb, s, 0x7000, 0, &gpa, &hva));
                /* one other space leaves room for the first one: both are kept */
                assert_int_equal(tlb_space(&tlb, &other[i]), s);
                if (i + 2 <= TLB_SPACES)
                        expect(true, true, true);
        }
}

/* A space that had to go is a new one when it comes back. */
static void numbers_do_not_come_back(void **state)
{
        struct tlb_space other = here;
        uint64_t first = space();

        add_all();
        for (unsigned i = 0; i < TLB_SPACES; i++) {
                other.run++;
                tlb_space(&tlb, &other);
        }
        assert_int_not_equal(space(), first);
        expect(false, true, false);
}

static void flush_current_keeps_linear(void **state)
{
        add_all();
        tlb_flush(&tlb, SYNC_CURRENT);
        expect(true, false, false);
        add_all();
        expect(true, true, true);
}

static void flush_guest_keeps_physical(void **state)
{
        add_all();
        tlb_flush(&tlb, SYNC_GUEST);
        expect(false, true, false);
        add_all();
        expect(true, true, true);
}

static void both_kinds_and_drop_forget_all(void **state)
{
        add_all();
        tlb_flush(&tlb, SYNC_GUEST | SYNC_CURRENT);
        expect(false, false, false);
        add_all();
        tlb_drop(&tlb);
        expect(false, false, false);
        assert_int_equal(tlb.stats.drops, 1);
        add_all();
        tlb_flush(&tlb, 0);
        expect(true, true, true);
}

static void range_forgets_its_pages_only(void **state)
{
        static const struct {
                uint64_t gpa, len;
                bool hit;
        } ranges[] = {
                {0x2000, PAGE, true},     {0x2fff, 1, true},
                {0x2000, 1, true},        {0x1000, PAGE + 1, true},
                {0, UINT64_MAX, true},    {0x2800, UINT64_MAX, true},
                {0x1000, PAGE, false},    {0x3000, PAGE, false},
                {0x2000, 0, false},       {0x3000, UINT64_MAX, false},
                {0x1000, PAGE * 8, true}, {UINT64_MAX, UINT64_MAX, false},
                {0x0fff, 0x1001, false},  {0x1fff, 2, true},
        };

        for (unsigned i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
                bool kept = !ranges[i].hit;

                add_all();
                tlb_flush_range(&tlb, ranges[i].gpa, ranges[i].len);
                expect(true, kept, kept);
        }
        /* another name of the page is forgotten, too, wherever it stands */
        for (uint64_t gva = 0x100000; gva < 0x100000 + 64 * PAGE; gva += PAGE)
                tlb_add_combined(&tlb, space(), gva, 0, 0x2000, memory);
        tlb_flush_range(&tlb, 0x2000, PAGE);
        for (uint64_t gva = 0x100000; gva < 0x100000 + 64 * PAGE; gva += PAGE)
                assert_null(combined(gva, 0));
}

static void what_was_taken_is_applied(void **state)
{
        struct sync_taken taken = {
                .nranges = 2, .ranges = {{.gpa = 0x9000, .len = PAGE}, {.gpa = 0x2000, .len = 8}}};

        add_all();
        tlb_apply(&tlb, &taken);
        expect(true, false, false);
        assert_int_equal(tlb.stats.ranges, 2);
        add_all();
        tlb_apply(&tlb, &(struct sync_taken){.kinds = SYNC_GUEST});
        expect(false, true, false);
        add_all();
        tlb_apply(&tlb, &(struct sync_taken){.kinds = SYNC_CURRENT});
        expect(true, false, false);
        assert_int_equal(tlb.stats.guest, 1);
        assert_int_equal(tlb.stats.current, 1);
}

static void writing_page_tables_forgets_what_they_said(void **state)
{
        add_all();
        tlb_writing(&tlb, 0x3000, PAGE);
        expect(true, true, true);
        tlb_walked(&tlb, 0x3008);
        tlb_writing(&tlb, 0x2000, PAGE);
        tlb_writing(&tlb, 0x4000, PAGE);
        tlb_writing(&tlb, 0x3000, 0);
        expect(true, true, true);
        tlb_writing(&tlb, 0x3ff8, 8);
        expect(false, true, false);
        add_all();
        tlb_writing(&tlb, 0x3000, 8); /* nothing has been walked since */
        expect(true, true, true);
        tlb_walked(&tlb, 0x3008);
        tlb_writing(&tlb, 0x2fff, 2);
        expect(false, true, false);
        add_all();
        tlb_walked(&tlb, 0x3008);
        tlb_writing(&tlb, 0, 1 << 20);
        expect(false, true, false);
}

static void finds_are_counted(void **state)
{
        expect(false, false, false);
        add_all();
        expect(true, true, true);
        expect(true, true, true);
        for (unsigned c = 0; c < TLB_CATEGORIES; c++) {
                assert_int_equal(tlb.stats.misses[c], 1);
                assert_int_equal(tlb.stats.hits[c], 2);
        }
}

/* Random use against a model that remembers everything: whatever is found is what the model says,
 * more pages than there is room for, in two spaces. */
#define MODEL_PAGES 1024

static struct model {
        uint64_t gpa[2][MODEL_PAGES]; /* of a GVA page in a space, 0: not cached */
        uint8_t *hva[MODEL_PAGES];    /* of a GPA page */
        uint8_t *both[2][MODEL_PAGES];
} model;

static void model_flush(unsigned what, uint64_t gpa_page)
{
        switch (what) {
        case 0:
                tlb_flush(&tlb, SYNC_CURRENT);
                memset(model.hva, 0, sizeof model.hva);
                memset(model.both, 0, sizeof model.both);
                break;
        case 1:
                tlb_flush(&tlb, SYNC_GUEST);
                memset(model.gpa, 0, sizeof model.gpa);
                memset(model.both, 0, sizeof model.both);
                break;
        default:
                tlb_flush_range(&tlb, gpa_page * PAGE, 3 * PAGE);
                for (uint64_t p = gpa_page; p < gpa_page + 3 && p < MODEL_PAGES; p++)
                        model.hva[p] = NULL;
                for (unsigned s = 0; s < 2; s++) {
                        for (unsigned v = 0; v < MODEL_PAGES; v++) {
                                uint64_t g = model.gpa[s][v] / PAGE;

                                if (g >= gpa_page && g < gpa_page + 3)
                                        model.both[s][v] = NULL;
                        }
                }
        }
}

static void model_step(unsigned s, uint64_t v, uint64_t g, uint8_t *host)
{
        const struct tlb_space spaces[2] = {{.vcpu = 1}, {.vcpu = 2}};
        uint64_t number = tlb_space(&tlb, &spaces[s]), gpa;
        uint8_t *hva;

        if (tlb_find_combined(&tlb, number, v * PAGE, 0, &gpa, &hva)) {
                assert_ptr_equal(hva, model.both[s][v]);
                assert_int_equal(gpa, model.gpa[s][v]);
        }
        if (tlb_find_linear(&tlb, number, v * PAGE, 0, &gpa)) {
                assert_int_equal(gpa, model.gpa[s][v]);
        } else if (model.gpa[s][v] == 0) {
                model.gpa[s][v] = gpa = g * PAGE;
                model.both[s][v] = NULL;
                tlb_add_linear(&tlb, number, v * PAGE, 0, gpa);
        } else {
                gpa = model.gpa[s][v]; /* evicted */
        }
        hva = tlb_find_physical(&tlb, gpa);
        if (hva) {
                assert_ptr_equal(hva, model.hva[gpa / PAGE]);
        } else {
                hva = model.hva[gpa / PAGE] ? model.hva[gpa / PAGE] : host;
                model.hva[gpa / PAGE] = hva;
                tlb_add_physical(&tlb, gpa, hva);
        }
        model.both[s][v] = hva;
        tlb_add_combined(&tlb, number, v * PAGE, 0, gpa, hva);
}

static void random_use_finds_what_is_true(void **state)
{
        memset(&model, 0, sizeof model);
        srand(1);
        for (unsigned i = 0; i < 400000; i++) {
                uint64_t v = (uint64_t)rand() % MODEL_PAGES, g = 1 + (uint64_t)rand() % 1000;

                if (rand() % 4)
                        v %= 64; /* some pages are used often */
                if (rand() % 500 == 0)
                        model_flush((unsigned)rand() % 8, g);
                model_step((unsigned)rand() % 2, v, g, memory + rand() % 16 * PAGE);
        }
        for (unsigned c = 0; c < TLB_CATEGORIES; c++) {
                assert_in_range(tlb.stats.hits[c], 20000, 400000);
                assert_in_range(tlb.stats.misses[c], 20000, 400000);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(empty_finds_nothing, new_tlb),
                cmocka_unit_test_setup(any_byte_of_a_page_finds_it, new_tlb),
                cmocka_unit_test_setup(kinds_of_access_are_apart, new_tlb),
                cmocka_unit_test_setup(other_meaning_replaces_all_kinds, new_tlb),
                cmocka_unit_test_setup(spaces_are_apart, new_tlb),
                cmocka_unit_test_setup(numbers_do_not_come_back, new_tlb),
                cmocka_unit_test_setup(flush_current_keeps_linear, new_tlb),
                cmocka_unit_test_setup(flush_guest_keeps_physical, new_tlb),
                cmocka_unit_test_setup(both_kinds_and_drop_forget_all, new_tlb),
                cmocka_unit_test_setup(range_forgets_its_pages_only, new_tlb),
                cmocka_unit_test_setup(what_was_taken_is_applied, new_tlb),
                cmocka_unit_test_setup(writing_page_tables_forgets_what_they_said, new_tlb),
                cmocka_unit_test_setup(finds_are_counted, new_tlb),
                cmocka_unit_test_setup(random_use_finds_what_is_true, new_tlb),
        };

        return cmocka_run_group_tests_name("tlb", tests, NULL, NULL);
}
