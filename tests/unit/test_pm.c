/* SPDX-License-Identifier: Apache-2.0 */
/* Power management: off by S5 and nothing else, reset by the one value, the rest as ACPI has it. */
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
        fake_init(&fx, &pm_ops);
        return 0;
}

static int teardown(void **state)
{
        fake_fini(&fx);
        return 0;
}

static void s5_turns_off(void **state)
{
        assert_int_equal(fx.windows[0].base, 0x600);
        assert_int_equal(fx.windows[0].len, 4);
        fake_write(&fx, 0, 0, 1, 5 << 2);
        assert_int_equal(fx.notified, 0); /* SLP_EN is missing */
        assert_int_equal(fake_read(&fx, 0, 0, 1), 5 << 2);
        fake_write(&fx, 0, 0, 1, 0x20 | 5 << 2);
        assert_int_equal(fx.notified, 1);
        assert_int_equal(fx.event, DEVICE_POWEROFF);
        assert_int_equal(fake_read(&fx, 0, 0, 1), 5 << 2); /* SLP_EN reads as 0 */
        assert_int_equal(fake_read(&fx, 0, 1, 1), 0);
}

static void any_other_sleep_wakes_at_once(void **state)
{
        for (unsigned typ = 0; typ < 8; typ++) {
                if (typ == 5)
                        continue;
                fake_write(&fx, 0, 0, 1, 0x20 | typ << 2);
                assert_int_equal(fx.notified, 0);
                assert_int_equal(fake_read(&fx, 0, 1, 1), 0x80);
                fake_write(&fx, 0, 1, 1, 0x7f);
                assert_int_equal(fake_read(&fx, 0, 1, 1), 0x80);
                fake_write(&fx, 0, 1, 1, 0x80);
                assert_int_equal(fake_read(&fx, 0, 1, 1), 0);
        }
}

static void one_resets(void **state)
{
        for (unsigned value = 0; value < 256; value++) {
                fx.notified = 0;
                fake_write(&fx, 0, 2, 1, value);
                assert_int_equal(fx.notified, value == 1);
        }
        fake_write(&fx, 0, 2, 1, 1);
        assert_int_equal(fx.event, DEVICE_REBOOT);
        assert_int_equal(fake_read(&fx, 0, 2, 2), 0);
}

static void wide_accesses_are_bytes_in_a_row(void **state)
{
        fake_write(&fx, 0, 0, 4, 0x00010028); /* S2 and a reset, one after the other */
        assert_int_equal(fx.notified, 1);
        assert_int_equal(fx.event, DEVICE_REBOOT);
        assert_int_equal(fake_read(&fx, 0, 0, 4), 0x8008);
        fake_write(&fx, 0, 3, 8, UINT64_MAX); /* past the end: nothing */
        assert_int_equal(fx.notified, 1);
}

static void state_is_saved_and_restored(void **state)
{
        fake_write(&fx, 0, 0, 1, 0x20 | 3 << 2);
        fake_check_record(&fx);
        fake_expect_refused(&fx, 0, 0x2c, "pm: reserved bits in sleep control 0x2c");
        fake_expect_refused(&fx, 1, 0x81, "pm: reserved bits in sleep status 0x81");
        fake_expect_refused(&fx, 2, 1, "pm: reserved bytes are not zero");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(s5_turns_off),
                CASE(any_other_sleep_wakes_at_once),
                CASE(one_resets),
                CASE(wide_accesses_are_bytes_in_a_row),
                CASE(state_is_saved_and_restored),
        };

        return cmocka_run_group_tests_name("pm", tests, NULL, NULL);
}
