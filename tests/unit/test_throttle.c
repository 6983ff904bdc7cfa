/* SPDX-License-Identifier: Apache-2.0 */
/* Limits: rates hold over time, bursts are a second's worth, and no value overflows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/throttle.h"

#define SECOND 1000000000ull

/* How many requests of @bytes go in [from, to), each as soon as it may. */
static uint64_t run(struct throttle *t, uint64_t bytes, uint64_t from, uint64_t to)
{
        uint64_t now = from, n = 0;

        for (;;) {
                now += throttle_delay(t, now);
                if (now >= to)
                        return n;
                assert_int_equal(throttle_delay(t, now), 0);
                throttle_take(t, bytes, now);
                n++;
        }
}

static void no_limit(void **state)
{
        struct throttle t;

        throttle_init(&t, 0, 0);
        for (int i = 0; i < 1000; i++) {
                assert_int_equal(throttle_delay(&t, 5), 0);
                throttle_take(&t, UINT64_MAX, 5);
        }
}

static void requests_hold(void **state)
{
        static const uint64_t rates[] = {1, 3, 7, 100, 999, 70001};

        for (unsigned i = 0; i < sizeof rates / sizeof *rates; i++) {
                struct throttle t;
                uint64_t n;

                throttle_init(&t, rates[i], 0);
                n = run(&t, 4096, 7 * SECOND, 17 * SECOND);
                /* a second's worth at once, then ten seconds */
                assert_in_range(n, 11 * rates[i] - 1, 11 * rates[i] + 1);
        }
}

static void bytes_hold(void **state)
{
        struct throttle t;
        uint64_t n;

        throttle_init(&t, 0, 10000000);
        n = run(&t, 4096, 0, 10 * SECOND);
        assert_in_range(n * 4096, 110000000 - 4096, 110000000 + 4096);
        /* idle for long: a second's worth again, not more */
        n = run(&t, 4096, 1000 * SECOND, 1000 * SECOND + 1);
        assert_in_range(n * 4096, 10000000, 10000000 + 4096);
}

/* One larger than all that fits goes, and those after it wait for its price. */
static void large_ones_go(void **state)
{
        struct throttle t;

        throttle_init(&t, 0, 1000);
        assert_int_equal(throttle_delay(&t, 0), 0);
        throttle_take(&t, 10000, 0);
        assert_in_range(throttle_delay(&t, 0), 9 * SECOND, 9 * SECOND + 1);
        assert_in_range(throttle_delay(&t, 4 * SECOND), 5 * SECOND, 5 * SECOND + 1);
        assert_int_equal(throttle_delay(&t, 9 * SECOND + 1), 0);
}

static void both_hold(void **state)
{
        struct throttle t;

        throttle_init(&t, 10, 1000000);
        assert_in_range(run(&t, 1000, 0, 10 * SECOND), 109, 111);
        throttle_init(&t, 1000000, 10000);
        assert_in_range(run(&t, 1000, 0, 10 * SECOND), 109, 111);
        /* a flush moves no bytes, and is a request */
        throttle_init(&t, 10, 1);
        assert_in_range(run(&t, 0, 0, 10 * SECOND), 109, 111);
}

/* Rates that do not divide a second: nothing is lost or won by rounding. */
static void fractions_add_up(void **state)
{
        struct throttle t;
        const uint64_t rate = 3000000000; /* a third of a nanosecond each */

        throttle_init(&t, rate, 0);
        for (unsigned i = 0; i < 3000000; i++)
                throttle_take(&t, 0, 0);
        assert_int_equal(t.requests.full_ns, 1000000);
}

static void no_overflow(void **state)
{
        static const uint64_t values[] = {0, 1, SECOND, UINT64_MAX / 2, UINT64_MAX - 1, UINT64_MAX};

        for (unsigned r = 0; r < 6; r++)
                for (unsigned n = 0; n < 6; n++)
                        for (unsigned now = 0; now < 6; now++) {
                                struct throttle t;

                                throttle_init(&t, values[r], values[r]);
                                for (int i = 0; i < 3; i++) {
                                        uint64_t before = t.bytes.full_ns;

                                        throttle_take(&t, values[n], values[now]);
                                        assert_true(t.bytes.full_ns >= before);
                                        throttle_delay(&t, values[now]);
                                        throttle_delay(&t, 0);
                                }
                        }
        {
                struct throttle t;

                throttle_init(&t, 0, 1);
                throttle_take(&t, UINT64_MAX, 0);
                assert_true(throttle_delay(&t, 0) > UINT64_MAX - 2 * SECOND);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(no_limit),    cmocka_unit_test(requests_hold),
                cmocka_unit_test(bytes_hold),  cmocka_unit_test(large_ones_go),
                cmocka_unit_test(both_hold),   cmocka_unit_test(fractions_add_up),
                cmocka_unit_test(no_overflow),
        };

        return cmocka_run_group_tests_name("throttle", tests, NULL, NULL);
}
