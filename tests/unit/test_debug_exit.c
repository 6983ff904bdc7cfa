/* SPDX-License-Identifier: Apache-2.0 */
/* The debug exit port: any width, and only when asked for. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device_fake.h"

static struct fake fx;

static int setup(void **state)
{
        fake_init(&fx, &debug_exit_ops);
        return 0;
}

static int teardown(void **state)
{
        fake_fini(&fx);
        return 0;
}

static void ends_with_value_times_two_plus_one(void **state)
{
        static const unsigned widths[] = {1, 2, 4};

        assert_int_equal(fx.nwindows, 1);
        assert_int_equal(fx.windows[0].space, DEVICE_PIO);
        assert_int_equal(fx.windows[0].base, 0xf4);
        assert_int_equal(fx.windows[0].len, 4);
        for (unsigned i = 0; i < 3; i++) {
                for (uint64_t offset = 0; offset < 4; offset++) {
                        fx.notified = 0;
                        fake_write(&fx, 0, offset, widths[i], 0x10);
                        assert_int_equal(fx.notified, 1);
                        assert_int_equal(fx.event, DEVICE_EXIT);
                        assert_int_equal(fx.arg, 0x21);
                }
        }
        fake_write(&fx, 0, 0, 1, 0);
        assert_int_equal(fx.arg, 1);
        fake_write(&fx, 0, 0, 2, 0x1234);
        assert_int_equal(fx.arg, 0x2469);
        fake_write(&fx, 0, 0, 4, 0xffffffff);
        assert_int_equal(fx.arg, 0x1ffffffff);
        assert_int_equal(fake_read(&fx, 0, 0, 4), 0);
}

static void is_not_there_unless_asked_for(void **state)
{
        struct device_params none = {0}, high = {.debug_exit_port = 0xfffd};
        struct device_window windows[DEVICE_WINDOWS];
        unsigned n = 7;
        void *dev = &n;
        struct err err;

        assert_int_equal(debug_exit_ops.create(&fx.env, &none, 0, &dev, windows, &n, &err), 0);
        assert_null(dev);
        assert_int_equal(n, 0);
        debug_exit_ops.destroy(NULL);
        assert_int_equal(debug_exit_ops.create(&fx.env, &high, 0, &dev, windows, &n, &err),
                         -EINVAL);
        assert_string_equal(err.text, "debug-exit: port 0xfffd: its 4 ports end past 0xffff");
        high.debug_exit_port = 0xfffc;
        assert_int_equal(debug_exit_ops.create(&fx.env, &high, 0, &dev, windows, &n, &err), 0);
        debug_exit_ops.destroy(dev);
}

static void state_is_saved_and_restored(void **state)
{
        fake_check_record(&fx);
        fake_expect_refused(&fx, 0, 0xf5, "debug-exit: port 0xf5, but this machine has 0xf4");
        fake_expect_refused(&fx, 7, 1, "debug-exit: reserved bytes are not zero");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(ends_with_value_times_two_plus_one),
                CASE(is_not_there_unless_asked_for),
                CASE(state_is_saved_and_restored),
        };

        return cmocka_run_group_tests_name("debug_exit", tests, NULL, NULL);
}
