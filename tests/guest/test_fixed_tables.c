/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resets with the promise of fixed page tables: KVM's shadows are kept while it holds, dropped when
 * it is seen broken, and a guest sees its template's mappings in either case.
 */
#include "ptes.h"
#include "rig.h"

#include <stddef.h>

#define MIB    (1ull << 20)
#define MEMORY (32 * MIB)
#define LIVES  5

static struct err err;

static void promise(struct vm_options *options)
{
        options->fixed_page_tables = true;
}

static struct rig parent, child;
static struct template *tmpl;

/* A clone of the guest at its first ring. */
static int setup(void **state)
{
        struct vm_freeze_stats stats;

        rig_tune = promise;
        rig_boot(&parent, "ptes.elf", "", 1, MEMORY, true);
        rig_until(&parent, rig_forked, 60);
        vm_pause(parent.vm);
        if (vm_freeze(parent.vm, 0, true, &tmpl, &stats, &err) < 0)
                fail_msg("freeze: %s", err.text);
        rig_spawn(&child, tmpl, 1, 1);
        return 0;
}

static int teardown(void **state)
{
        rig_free(&child);
        template_unref(tmpl);
        rig_free(&parent);
        rig_tune = NULL;
        return 0;
}

static struct vm_reset_stats resets(void)
{
        struct vm_reset_stats stats;

        vm_reset_stats(child.vm, &stats);
        return stats;
}

static void reset(void)
{
        vm_pause(child.vm);
        if (vm_reset(child.vm, &err) < 0)
                fail_msg("reset: %s", err.text);
        child.forks = 0;
}

/* Let it do @order and come to its next ring; what it sees in its window then. */
static uint64_t obey(enum ptes_order order)
{
        uint64_t o = order, seen;

        assert_int_equal(vm_write(child.vm, PTES_MAILBOX + offsetof(struct ptes_mailbox, order), &o,
                                  sizeof o),
                         0);
        assert_int_equal(vm_arm_fork(child.vm, true, NULL), 0);
        vm_fork_done(child.vm, 0, 1);
        vm_run(child.vm);
        rig_until(&child, rig_forked, 60);
        child.forks = 0;
        vm_pause(child.vm);
        assert_int_equal(vm_read(child.vm, PTES_MAILBOX + offsetof(struct ptes_mailbox, seen),
                                 &seen, sizeof seen),
                         0);
        return seen;
}

static void expect_seen(uint64_t seen, unsigned page)
{
        if (seen != PTES_VALUE(page))
                fail_msg("stale: %#llx is seen, of page %llu; expected page %u",
                         (unsigned long long)seen, (unsigned long long)seen / 0x1111 - 1, page);
}

/* The tables are noted at the first reset, which drops the shadows. */
static void first_reset(void)
{
        reset();
        assert_int_equal(resets().kept, 0);
        if (resets().dropped == 0) {
                print_message("SKIP: this KVM keeps no shadows of page tables\n");
                skip();
        }
        assert_int_equal(resets().dropped, 1);
}

static void kept_while_the_promise_is(void **state)
{
        first_reset();
        for (unsigned i = 1; i <= LIVES; i++) {
                expect_seen(obey(PTES_NOTHING), 0);
                assert_int_equal(obey(PTES_WRITE), 99);
                reset();
                assert_int_equal(resets().kept, i);
        }
        expect_seen(obey(PTES_NOTHING), 0);
        assert_int_equal(resets().dropped, 1);
}

static void dropped_without_the_promise(void **state)
{
        struct rig with = child;

        first_reset();
        rig_tune = NULL;
        rig_spawn(&child, tmpl, 1, 1);
        for (unsigned i = 1; i <= 3; i++) {
                expect_seen(obey(PTES_NOTHING), 0);
                reset();
                assert_int_equal(resets().kept, 0);
                assert_int_equal(resets().dropped, i);
        }
        expect_seen(obey(PTES_NOTHING), 0);
        rig_free(&child);
        child = with;
}

/* @order shows page @page; after a reset it is page 0 again, in each life. */
static void broken(enum ptes_order order, unsigned page)
{
        first_reset();
        for (unsigned i = 1; i <= 3; i++) {
                expect_seen(obey(PTES_NOTHING), 0);
                expect_seen(obey(order), page);
                reset();
                expect_seen(obey(PTES_NOTHING), 0);
                assert_int_equal(resets().kept, i - 1);
                assert_int_equal(resets().dropped, i + 1);
                reset(); /* and it is kept again */
                assert_int_equal(resets().kept, i);
        }
}

static void an_entry_changes(void **state)
{
        broken(PTES_ENTRY, 1);
}

static void a_table_is_replaced(void **state)
{
        broken(PTES_TABLE, 2);
}

static void another_root_is_used(void **state)
{
        broken(PTES_ROOT, 3);
}

static void an_entry_that_nobody_uses(void **state)
{
        broken(PTES_HIGH, 0);
}

static void write_protection_changes(void **state)
{
        broken(PTES_CR0, 0);
}

static void global_pages_change(void **state)
{
        broken(PTES_CR4, 0);
}

static void no_execute_changes(void **state)
{
        broken(PTES_EFER, 0);
}

/* What the check cannot see does not make the tables wrong that are in use. */
static void another_root_in_between(void **state)
{
        first_reset();
        for (unsigned i = 1; i <= 3; i++) {
                expect_seen(obey(PTES_ROOT_TWICE), 0);
                reset();
                assert_int_equal(resets().kept, i);
        }
        expect_seen(obey(PTES_NOTHING), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(kept_while_the_promise_is, setup, teardown),
                cmocka_unit_test_setup_teardown(dropped_without_the_promise, setup, teardown),
                cmocka_unit_test_setup_teardown(an_entry_changes, setup, teardown),
                cmocka_unit_test_setup_teardown(a_table_is_replaced, setup, teardown),
                cmocka_unit_test_setup_teardown(another_root_is_used, setup, teardown),
                cmocka_unit_test_setup_teardown(an_entry_that_nobody_uses, setup, teardown),
                cmocka_unit_test_setup_teardown(write_protection_changes, setup, teardown),
                cmocka_unit_test_setup_teardown(global_pages_change, setup, teardown),
                cmocka_unit_test_setup_teardown(no_execute_changes, setup, teardown),
                cmocka_unit_test_setup_teardown(another_root_in_between, setup, teardown),
        };

        int r = rig_init();

        if (r <= 0)
                return r;
        return cmocka_run_group_tests_name("fixed_tables", tests, NULL, NULL);
}
