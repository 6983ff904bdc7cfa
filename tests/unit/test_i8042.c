/* SPDX-License-Identifier: Apache-2.0 */
/* The keyboard controller: resets, and lets a driver that probes it finish soon. */
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
        fake_init(&fx, &i8042_ops);
        return 0;
}

static int teardown(void **state)
{
        fake_fini(&fx);
        return 0;
}

static uint8_t status(void)
{
        return (uint8_t)fake_read(&fx, 1, 0, 1);
}

static uint8_t data(void)
{
        return (uint8_t)fake_read(&fx, 0, 0, 1);
}

static void command(uint8_t cmd)
{
        assert_int_equal(status() & 2, 0); /* it always takes one */
        fake_write(&fx, 1, 0, 1, cmd);
}

static void send(uint8_t byte)
{
        fake_write(&fx, 0, 0, 1, byte);
}

static uint8_t reply(uint8_t cmd)
{
        command(cmd);
        assert_int_equal(status() & 1, 1);
        return data();
}

static void command_fe_resets(void **state)
{
        assert_int_equal(fx.windows[0].base, 0x60);
        assert_int_equal(fx.windows[0].len, 1);
        assert_int_equal(fx.windows[1].base, 0x64);
        assert_int_equal(fx.windows[1].len, 1);
        for (unsigned cmd = 0; cmd < 256; cmd++) {
                fx.notified = 0;
                command((uint8_t)cmd);
                /* 0xf0 to 0xff pulse the lines whose bit is 0; reset is bit 0 */
                assert_int_equal(fx.notified, cmd >= 0xf0 && cmd % 2 == 0);
        }
        command(0xfe);
        assert_int_equal(fx.event, DEVICE_REBOOT);
        fx.notified = 0;
        send(0xfe); /* at the data port it is for the keyboard */
        assert_int_equal(fx.notified, 0);
        command(0xd1);
        send(0xdf);
        assert_int_equal(fx.notified, 0);
        command(0xd1);
        send(0xde);
        assert_int_equal(fx.notified, 1);
}

/* The order of i8042_init() in Linux's drivers/input/serio/i8042.c. No step waits. */
static void linux_probes_it_without_waiting(void **state)
{
        uint8_t byte;

        assert_int_equal(status() & 1, 0); /* nothing to flush */
        assert_int_equal(reply(0xaa), 0x55);
        byte = reply(0x20);
        assert_int_equal(reply(0x20), byte);
        command(0x60);
        send(byte | 0x30);
        assert_int_equal(reply(0x20), byte | 0x30);
        command(0xd3); /* a loop test of the mouse port comes back as from the keyboard: no mouse */
        send(0x5a);
        assert_int_equal(status() & 0x21, 1);
        data();
        assert_int_equal(reply(0xa9), 1); /* nor does its test pass */
        assert_int_equal(reply(0xab), 1); /* the same for the keyboard */
        send(0xf2);                       /* identify: nobody answers */
        assert_int_equal(status() & 1, 0);
        assert_int_equal(reply(0xd0) & 3, 3);
}

static void wide_accesses_do_not_hurt(void **state)
{
        command(0xaa);
        assert_int_equal(fake_read(&fx, 0, 0, 4), 0xffffff55);
        fake_write(&fx, 1, 0, 4, 0xfefefeaa);
        assert_int_equal(fx.notified, 0);
        assert_int_equal(data(), 0x55);
}

static void state_is_saved_and_restored(void **state)
{
        command(0xaa);
        command(0x60);
        fake_check_record(&fx);
        fake_expect_refused(&fx, 0, 0xb4, "i8042: reserved bits in the command byte 0xb4");
        fake_expect_refused(&fx, 2, 2, "i8042: full is 2, not 0 or 1");
        fake_expect_refused(&fx, 3, 255, "i8042: command is 255, not 0 or 1");
        fake_expect_refused(&fx, 4, 0xaa, "i8042: pending command 0xaa takes no data");
        fake_expect_refused(&fx, 5, 1, "i8042: reserved bytes are not zero");
        fake_expect_refused(&fx, 7, 1, "i8042: reserved bytes are not zero");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(command_fe_resets),
                CASE(linux_probes_it_without_waiting),
                CASE(wide_accesses_do_not_hurt),
                CASE(state_is_saved_and_restored),
        };

        return cmocka_run_group_tests_name("i8042", tests, NULL, NULL);
}
