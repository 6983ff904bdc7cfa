/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What participants are told to forget: order, overflow and purge of the FIFO of ranges, and the
 * rule for a worker that turns from one VM to another.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sync/sync.h"

static struct sync_domain domain;

static int setup(void **state)
{
        sync_domain_init(&domain);
        return 0;
}

static int teardown(void **state)
{
        while (domain.first) /* participants are static: they outlive their test */
                sync_leave(domain.first);
        sync_domain_fini(&domain);
        return 0;
}

static void post_ranges(uint64_t first, unsigned n)
{
        struct sync_range ranges[SYNC_FIFO + 1];

        for (unsigned i = 0; i < n; i++)
                ranges[i] = (struct sync_range){.gpa = (first + i) << 12, .len = 4096};
        sync_flush(&domain, &(struct sync_invalidation){.nranges = n, .ranges = ranges});
}

static void post_kinds(uint32_t kinds)
{
        sync_flush(&domain, &(struct sync_invalidation){.kinds = kinds});
}

static void expect_taken(struct sync_participant *p, uint32_t kinds, uint64_t first, unsigned n)
{
        struct sync_taken taken;

        assert_true(sync_take(p, &taken));
        assert_int_equal(taken.kinds, kinds);
        assert_int_equal(taken.nranges, n);
        for (unsigned i = 0; i < n; i++)
                assert_int_equal(taken.ranges[i].gpa, (first + i) << 12);
        assert_false(sync_take(p, &taken));
}

static void everyone_takes_in_order_and_once(void **state)
{
        static struct sync_participant p, q;
        struct sync_taken taken;

        sync_join(&domain, &p, NULL, NULL);
        sync_join(&domain, &q, NULL, NULL);
        assert_false(sync_take(&p, &taken));
        post_ranges(0, 3);
        post_ranges(3, 2);
        expect_taken(&p, 0, 0, 5);
        post_ranges(5, 1);
        post_kinds(SYNC_GUEST);
        expect_taken(&p, SYNC_GUEST, 5, 1); /* page tables of the guest cover no range */
        expect_taken(&q, SYNC_GUEST, 0, 6);
        sync_stop(&domain);
        sync_post(&domain, &(struct sync_invalidation){.kinds = SYNC_CURRENT | SYNC_GUEST});
        sync_resume(&domain);
        expect_taken(&p, SYNC_CURRENT | SYNC_GUEST, 0, 0);
        expect_taken(&q, SYNC_CURRENT | SYNC_GUEST, 0, 0);
}

static void fifo_overflows_into_a_coarse_flush(void **state)
{
        static struct sync_participant p, q;

        sync_join(&domain, &p, NULL, NULL);
        sync_join(&domain, &q, NULL, NULL);
        post_ranges(100, SYNC_FIFO);
        expect_taken(&p, 0, 100, SYNC_FIFO); /* it is just full */
        post_ranges(200, 1);
        expect_taken(&p, 0, 200, 1);
        expect_taken(&q, SYNC_CURRENT, 0, 0); /* it was one too many */
        assert_int_equal(atomic_load(&domain.counters.overflows), 1);
        post_ranges(300, SYNC_FIFO + 1);
        post_ranges(400, 3); /* covered, too */
        expect_taken(&p, SYNC_CURRENT, 0, 0);
        expect_taken(&q, SYNC_CURRENT, 0, 0);
        assert_int_equal(atomic_load(&domain.counters.overflows), 3);
}

static void ranges_are_recorded_again_after_a_coarse_flush(void **state)
{
        static struct sync_participant p;

        sync_join(&domain, &p, NULL, NULL);
        post_ranges(0, SYNC_FIFO + 1);
        expect_taken(&p, SYNC_CURRENT, 0, 0);
        post_ranges(50, 2);
        post_kinds(SYNC_GUEST); /* so that there is something to take, whatever became of them */
        expect_taken(&p, SYNC_GUEST, 50, 2);
        post_ranges(60, 2);
        post_kinds(SYNC_CURRENT);
        post_ranges(70, 2);
        expect_taken(&p, SYNC_CURRENT, 0, 0);
        post_ranges(80, 2);
        post_kinds(SYNC_GUEST);
        expect_taken(&p, SYNC_GUEST, 80, 2);
}

static void a_new_vm_drops_the_cache_of_a_worker(void **state)
{
        struct sync_served served = {0};
        struct sync_domain other;
        uint64_t id;

        sync_domain_init(&other);
        assert_true(other.id != domain.id && other.id != 0);
        assert_true(sync_serve(&served, &domain));
        assert_false(sync_serve(&served, &domain));
        assert_true(sync_serve(&served, &other));
        assert_false(sync_serve(&served, &other));
        assert_true(sync_serve(&served, &domain));
        assert_true(sync_serve(&served, &other));
        id = other.id;
        sync_domain_fini(&other);
        sync_domain_init(&other); /* another VM at the same address */
        assert_true(other.id != id);
        assert_true(sync_serve(&served, &other));
        sync_domain_fini(&other);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(everyone_takes_in_order_and_once),
                CASE(fifo_overflows_into_a_coarse_flush),
                CASE(ranges_are_recorded_again_after_a_coarse_flush),
                CASE(a_new_vm_drops_the_cache_of_a_worker),
        };

        return cmocka_run_group_tests_name("sync_invalidations", tests, NULL, NULL);
}
