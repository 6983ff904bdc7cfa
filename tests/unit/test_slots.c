/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The map of memory slots, over a KVM that only remembers what it was told: whatever is mapped and
 * unmapped, both agree page by page, no slot overlaps another, and what was told before a deletion
 * was told in time.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mem/slots.h"

#define PAGE  4096ull
#define PAGES 64u
#define IDS   256u

/* What KVM would have: by number. */
struct fake {
        struct slot by_id[IDS]; /* size 0: none */
        unsigned fail_in;       /* the call that fails, counted down; 0: none */
        unsigned told;          /* of slots that are about to be deleted, and are still there */
};

static int fake_set(void *data, unsigned id, uint64_t gpa, uint64_t size, void *hva, uint32_t flags,
                    struct err *err)
{
        struct fake *f = data;
        struct slot *s = &f->by_id[id];

        if (f->fail_in && --f->fail_in == 0)
                return err_host(err, EIO, "told to fail");
        assert_true(id < IDS);
        if (size == 0) {
                assert_true(s->size > 0);
                *s = (struct slot){0};
                return 0;
        }
        assert_int_equal(s->size, 0); /* KVM does not change a slot's address or READONLY flag */
        for (unsigned i = 0; i < IDS; i++)
                assert_true(f->by_id[i].size == 0 || gpa + size <= f->by_id[i].gpa ||
                            f->by_id[i].gpa + f->by_id[i].size <= gpa);
        *s = (struct slot){.gpa = gpa, .size = size, .hva = hva, .id = id, .flags = flags};
        return 0;
}

static void fake_deleting(void *data, const struct slot *slot)
{
        struct fake *f = data;

        assert_int_equal(f->by_id[slot->id].gpa, slot->gpa);
        assert_int_equal(f->by_id[slot->id].size, slot->size);
        f->told++;
}

static uint8_t *hva_of(const struct fake *f, uint64_t gpa, uint32_t *flags)
{
        for (unsigned i = 0; i < IDS; i++) {
                const struct slot *s = &f->by_id[i];

                if (s->size == 0 || gpa < s->gpa || gpa >= s->gpa + s->size)
                        continue;
                *flags = s->flags;
                return s->hva + (gpa - s->gpa);
        }
        return NULL;
}

static uint8_t memory[2][PAGES * PAGE];

static void a_middle_is_cut_out(void **state)
{
        struct fake f = {0};
        struct slots s;

        slots_init(&s, 100, fake_set, &f);
        assert_int_equal(slots_map(&s, 0, 8 * PAGE, memory[0], 2, NULL), 0);
        assert_int_equal(slots_map(&s, 3 * PAGE, PAGE, memory[1] + 3 * PAGE, 0, NULL), 0);
        assert_int_equal(s.count, 3);
        assert_int_equal(slots_count(&s, 0, 8 * PAGE), 3);
        assert_int_equal(slots_count(&s, 0, 3 * PAGE), 1);
        assert_int_equal(slots_count(&s, 3 * PAGE, 2 * PAGE), 2);
        assert_int_equal(slots_count(&s, 9 * PAGE, 2 * PAGE), 0);
        assert_ptr_equal(slots_find(&s, 4 * PAGE)->hva, memory[0] + 4 * PAGE);
        assert_int_equal(slots_find(&s, 4 * PAGE)->size, 4 * PAGE);
        assert_int_equal(slots_find(&s, 4 * PAGE)->flags, 2);
        assert_int_equal(slots_find(&s, 3 * PAGE + 5)->flags, 0);
        assert_null(slots_find(&s, 8 * PAGE));
        slots_fini(&s);
}

/* The map, KVM and the truth, after each of many random changes. */
static void any_changes_agree(void **state)
{
        struct fake f = {0};
        uint8_t *truth[PAGES] = {0};
        uint32_t truth_flags[PAGES] = {0};
        struct slots s;

        slots_init(&s, IDS, fake_set, &f);
        s.deleting = fake_deleting;
        s.deleting_data = &f;
        srandom(1);
        for (unsigned round = 0; round < 20000; round++) {
                unsigned from = (unsigned)random() % PAGES;
                unsigned n = 1 + (unsigned)random() % (PAGES - from);
                unsigned which = (unsigned)random() % 3;
                uint32_t flags = (uint32_t)random() % 2 * 2;

                if (random() % 4)
                        n = n > 3 ? 3 : n;
                if (which == 2)
                        assert_int_equal(slots_unmap(&s, from * PAGE, n * PAGE, NULL), 0);
                else
                        assert_int_equal(slots_map(&s, from * PAGE, n * PAGE,
                                                   memory[which] + from * PAGE, flags, NULL),
                                         0);
                for (unsigned i = from; i < from + n; i++) {
                        truth[i] = which == 2 ? NULL : memory[which] + i * PAGE;
                        truth_flags[i] = flags;
                }
                for (unsigned i = 0; i < PAGES; i++) {
                        const struct slot *slot = slots_find(&s, i * PAGE);
                        uint32_t kvm_flags = 0;

                        assert_ptr_equal(hva_of(&f, i * PAGE, &kvm_flags), truth[i]);
                        assert_ptr_equal(slot ? slot->hva + (i * PAGE - slot->gpa) : NULL,
                                         truth[i]);
                        if (!truth[i])
                                continue;
                        assert_int_equal(kvm_flags, truth_flags[i]);
                        assert_int_equal(slot->flags, truth_flags[i]);
                }
        }
        assert_true(f.told > 1000);
        assert_true(s.next_id <= PAGES + 2); /* numbers are given out again */
        slots_fini(&s);
}

static void too_many_are_refused_before_anything_changes(void **state)
{
        struct fake f = {0};
        struct slots s;
        struct err err;
        uint64_t calls;

        slots_init(&s, 3, fake_set, &f);
        assert_int_equal(slots_map(&s, 0, 8 * PAGE, memory[0], 0, &err), 0);
        assert_int_equal(slots_map(&s, 2 * PAGE, PAGE, memory[1], 0, &err), 0);
        calls = s.calls;
        assert_int_equal(slots_map(&s, 5 * PAGE, PAGE, memory[1], 0, &err), -ENOSPC);
        assert_non_null(strstr(err.text, "3 memory slots"));
        assert_int_equal(s.calls, calls);
        assert_int_equal(slots_map(&s, 3 * PAGE, 5 * PAGE, memory[1], 0, &err), 0);
        assert_int_equal(s.count, 3);
        slots_fini(&s);
}

/* Wherever a call fails, the map has what KVM has. */
static void a_failure_leaves_the_map_true(void **state)
{
        for (unsigned fail = 1; fail <= 5; fail++) {
                struct fake f = {0};
                struct slots s;
                struct err err;
                unsigned n = 0;

                slots_init(&s, 100, fake_set, &f);
                assert_int_equal(slots_map(&s, 0, 4 * PAGE, memory[0], 0, &err), 0);
                assert_int_equal(slots_map(&s, 4 * PAGE, 4 * PAGE, memory[0], 0, &err), 0);
                f.fail_in = fail; /* two deletions, three new ones */
                assert_int_equal(slots_map(&s, 2 * PAGE, 4 * PAGE, memory[1], 0, &err), -EIO);
                for (unsigned i = 0; i < IDS; i++)
                        n += f.by_id[i].size > 0;
                assert_int_equal(s.count, n);
                for (size_t i = 0; i < s.count; i++)
                        assert_int_equal(f.by_id[s.items[i].id].gpa, s.items[i].gpa);
                f.fail_in = 0;
                assert_int_equal(slots_map(&s, 0, 8 * PAGE, memory[1], 0, &err), 0);
                assert_int_equal(s.count, 1);
                slots_fini(&s);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_middle_is_cut_out),
                cmocka_unit_test(any_changes_agree),
                cmocka_unit_test(too_many_are_refused_before_anything_changes),
                cmocka_unit_test(a_failure_leaves_the_map_true),
        };

        return cmocka_run_group_tests_name("slots", tests, NULL, NULL);
}
