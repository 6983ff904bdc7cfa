/* SPDX-License-Identifier: Apache-2.0 */
/* The checked accessor: bounds, overflow, and that a refused access moves no byte. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "mem/guest_mem.h"

static uint8_t low[8192], high[4096];

static struct guest_mem two_regions(void)
{
        memset(low, 0x11, sizeof low);
        memset(high, 0x22, sizeof high);
        return (struct guest_mem){
                .nregions = 2,
                .regions = {{.gpa = 0x1000, .size = sizeof low, .hva = low},
                            {.gpa = 0x100000000, .size = sizeof high, .hva = high}},
        };
}

static void inside_is_allowed(void **state)
{
        struct guest_mem m = two_regions();
        uint8_t b[16];

        assert_int_equal(guest_mem_read(&m, 0x1000, b, 16), 0);
        assert_int_equal(b[15], 0x11);
        assert_int_equal(guest_mem_write(&m, 0x3000 - 16, "0123456789abcdef", 16), 0);
        assert_memory_equal(low + sizeof low - 16, "0123456789abcdef", 16);
        assert_int_equal(guest_mem_set(&m, 0x100000ff0, 7, 16), 0);
        assert_int_equal(high[4095], 7);
}

static void outside_is_refused_whole(void **state)
{
        struct guest_mem m = two_regions();
        uint8_t b[16] = {9};

        assert_int_equal(guest_mem_read(&m, 0xfff, b, 1), -EFAULT);
        assert_int_equal(guest_mem_read(&m, 0x3000 - 15, b, 16), -EFAULT);
        assert_int_equal(b[0], 9);
        assert_int_equal(guest_mem_write(&m, 0x3000 - 15, b, 16), -EFAULT);
        assert_int_equal(low[sizeof low - 15], 0x11);
        assert_int_equal(guest_mem_write(&m, 0x3000, b, 1), -EFAULT);
}

/* Page 1 of the first region lies elsewhere. */
static void moved_pages_are_found(void **state)
{
        static uint8_t elsewhere[8192];
        struct guest_mem m = two_regions();
        uint64_t moved = 1u << 1, n;
        uint8_t b[8192];

        m.moved = &moved;
        m.moved_by = elsewhere - low;
        m.regions[1].offset = 8192;
        memset(elsewhere, 0x33, sizeof elsewhere);
        assert_int_equal(guest_mem_read(&m, 0x1000, b, 8192), 0);
        assert_int_equal(b[4095], 0x11);
        assert_int_equal(b[4096], 0x33);
        assert_int_equal(guest_mem_write(&m, 0x1ffe, "abcd", 4), 0);
        assert_memory_equal(low + 4094, "ab\x11\x11", 4);
        assert_memory_equal(elsewhere + 4096, "cd\x33", 3);
        assert_int_equal(guest_mem_set(&m, 0x1ffe, 7, 4), 0);
        assert_int_equal(low[4096], 0x11);
        assert_int_equal(elsewhere[4097], 7);
        assert_ptr_equal(guest_mem_span(&m, 0x1800, 0x1000, &n), low + 0x800);
        assert_int_equal(n, 0x800);
        assert_ptr_equal(guest_mem_span(&m, 0x2800, 0x800, &n), elsewhere + 0x1800);
        assert_int_equal(n, 0x800);
        assert_null(guest_mem_span(&m, 0x2800, 0x801, &n));
        assert_null(guest_mem_span(&m, 0x2800, 0, &n));
        assert_ptr_equal(guest_mem_span(&m, 0x100000000, 4096, &n), high);
}

static void lengths_that_wrap_are_refused(void **state)
{
        struct guest_mem m = two_regions();

        assert_false(guest_mem_contains(&m, 0x2000, UINT64_MAX));
        assert_false(guest_mem_contains(&m, UINT64_MAX, 2));
        assert_false(guest_mem_contains(&m, 0x1000, UINT64_MAX - 0xfff));
        assert_true(guest_mem_contains(&m, 0x3000, 0));
        assert_int_equal(guest_mem_low_end(&m), 0x3000);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(inside_is_allowed),
                cmocka_unit_test(outside_is_refused_whole),
                cmocka_unit_test(moved_pages_are_found),
                cmocka_unit_test(lengths_that_wrap_are_refused),
        };

        return cmocka_run_group_tests_name("guest_mem", tests, NULL, NULL);
}
